//! A diagnosis for people: a line a step, its evidence under it, and the verdict.

use std::fmt::{self, Write as _};

use super::{Diagnosis, Step, StepName, StepStatus, Verdict, Who};

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} as {}, database {}, from {}\n",
            self.database, self.db_user, self.db_name, self.host
        )?;
        let is_unreached =
            |step: &&Step| step.status == StepStatus::Skipped && step.what == "not reached";
        for step in self.steps.iter().filter(|step| !is_unreached(step)) {
            write_step(f, step)?;
        }
        let unreached: Vec<&str> = self
            .steps
            .iter()
            .filter(is_unreached)
            .map(|step| step.step.as_str())
            .collect();
        if !unreached.is_empty() {
            writeln!(f, "      not reached: {}", unreached.join(", "))?;
        }
        writeln!(f)?;
        write_verdict(f, &self.verdict)
    }
}

fn write_step(f: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
    let mark = match step.status {
        StepStatus::Passed => "ok",
        StepStatus::Failed => "FAIL",
        StepStatus::Skipped => "-",
    };
    write!(f, "{mark:<5} {:<11}  {}", step.step.as_str(), step.what)?;
    if step.status != StepStatus::Skipped && step.step != StepName::Serve {
        write!(f, " ({} ms)", step.took_ms)?;
    }
    writeln!(f)?;
    step.evidence
        .iter()
        .try_for_each(|line| writeln!(f, "                     {line}"))
}

fn write_verdict(f: &mut fmt::Formatter<'_>, verdict: &Verdict) -> fmt::Result {
    writeln!(f, "{}: {}", verdict.code, verdict.what)?;
    if verdict.who == Who::Nobody {
        return Ok(());
    }
    writeln!(f, "who acts: {}", verdict.who.described())?;
    for how in &verdict.how {
        writeln!(f, "  - {how}")?;
    }
    for (index, fix) in verdict.fixes.iter().enumerate() {
        let opening = match (index, verdict.any_of) {
            (0, _) => "add to",
            (_, true) => "or to",
            (_, false) => "and to",
        };
        writeln!(f, "\n{opening} {} of {}:", fix.policy.described(), fix.of)?;
        let mut indented = String::new();
        for line in fix.json.lines() {
            writeln!(indented, "  {line}")?;
        }
        f.write_str(&indented)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ErrorCode,
        doctor::{Fix, Ladder, PolicyKind, Stop},
    };

    #[test]
    fn a_person_reads_the_failing_step_who_acts_and_what_to_paste() {
        let mut ladder = Ladder::new();
        ladder.passed(
            StepName::Dns,
            "h has 1 address",
            vec!["10.0.0.1".to_owned()],
            Duration::from_millis(2),
        );
        ladder.skipped(StepName::Tcp, "not needed");
        let verdict = Verdict::new(ErrorCode::AwsAccessDenied, "denied", Who::AwsAdministrator)
            .how("do this")
            .fix(Fix {
                policy: PolicyKind::Trust,
                of: "arn:x".to_owned(),
                json: "{\n}".to_owned(),
            });
        let verdict = ladder.failed(
            StepName::Mint,
            "ask",
            Stop::new(verdict, "AWS said no"),
            Duration::from_millis(9),
        );
        let text = ladder
            .end(("orders", "reader", "dev", "agent-a"), verdict)
            .to_string();

        assert_eq!(
            text,
            "\
orders as reader, database dev, from agent-a

ok    dns          h has 1 address (2 ms)
                     10.0.0.1
-     tcp          not needed
FAIL  mint         ask (9 ms)
                     AWS said no
      not reached: login

aws_access_denied: denied
who acts: an AWS administrator
  - do this

add to the trust policy of arn:x:
  {
  }
"
        );
    }
}
