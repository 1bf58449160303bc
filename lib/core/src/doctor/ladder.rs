//! The steps in their order, and where they end. Pure: durations come in.

use std::time::Duration;

use super::{Diagnosis, Step, StepName, StepStatus, Verdict};

/// Most lines of evidence of one step.
const EVIDENCE_LINES_MAX: usize = 32;
/// Longest line of evidence, in characters.
const LINE_CHARS_MAX: usize = 600;

/// Why no further step is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What was seen.
    pub evidence: Vec<String>,
    /// What it means.
    pub verdict: Box<Verdict>,
}

impl Stop {
    /// Stops with a verdict and one fact for it.
    #[must_use]
    pub fn new(verdict: Verdict, evidence: impl Into<String>) -> Self {
        Self {
            evidence: vec![evidence.into()],
            verdict: Box::new(verdict),
        }
    }
}

/// Steps that were taken so far.
#[derive(Clone, Debug, Default)]
pub struct Ladder {
    steps: Vec<Step>,
}

impl Ladder {
    /// No step yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The step behind the last one, or the last one of all.
    #[must_use]
    pub fn behind(&self) -> StepName {
        let last = self.steps.last().map(|step| step.step);
        let mut behind = StepName::LADDER
            .into_iter()
            .filter(|step| last.is_none_or(|last| *step > last));
        behind.next().unwrap_or(StepName::Login)
    }

    /// A step passed.
    pub fn passed(
        &mut self,
        step: StepName,
        what: impl Into<String>,
        evidence: Vec<String>,
        took: Duration,
    ) {
        self.push(step, StepStatus::Passed, what.into(), evidence, took);
    }

    /// A step is not needed, and why.
    pub fn skipped(&mut self, step: StepName, why: impl Into<String>) {
        self.push(
            step,
            StepStatus::Skipped,
            why.into(),
            Vec::new(),
            Duration::ZERO,
        );
    }

    /// A step failed; gives the verdict to end with.
    pub fn failed(
        &mut self,
        step: StepName,
        what: impl Into<String>,
        stop: Stop,
        took: Duration,
    ) -> Verdict {
        self.push(step, StepStatus::Failed, what.into(), stop.evidence, took);
        *stop.verdict
    }

    /// Ends with a verdict; steps that were not reached are named.
    #[must_use]
    pub fn end(
        mut self,
        (database, db_user, db_name, host): (&str, &str, &str, &str),
        verdict: Verdict,
    ) -> Diagnosis {
        let last = self.steps.last().map(|step| step.step);
        for step in StepName::LADDER {
            if last.is_none_or(|last| step > last) {
                self.skipped(step, "not reached");
            }
        }
        Diagnosis {
            database: database.to_owned(),
            db_user: db_user.to_owned(),
            db_name: db_name.to_owned(),
            host: host.to_owned(),
            steps: self.steps,
            verdict,
        }
    }

    fn push(
        &mut self,
        step: StepName,
        status: StepStatus,
        what: String,
        evidence: Vec<String>,
        took: Duration,
    ) {
        let more = evidence.len().saturating_sub(EVIDENCE_LINES_MAX);
        let mut evidence: Vec<String> = evidence
            .iter()
            .take(EVIDENCE_LINES_MAX)
            .map(|line| one_line(line))
            .collect();
        if more > 0 {
            evidence.push(format!("and {more} more"));
        }
        self.steps.push(Step {
            step,
            status,
            what: one_line(&what),
            evidence,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

/// Without line breaks and control characters, and not without end: what others said is among it.
fn one_line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.chars().take(LINE_CHARS_MAX).map(clean).collect();
    if text.chars().nth(LINE_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCode, doctor::Who};

    const ABOUT: (&str, &str, &str, &str) = ("orders", "reader", "dev", "agent-a");

    #[test]
    fn nothing_is_tried_behind_a_step_that_failed_and_that_is_told() {
        let mut ladder = Ladder::new();
        ladder.passed(StepName::Serve, "serves", Vec::new(), Duration::ZERO);
        let verdict = Verdict::new(ErrorCode::DatabaseUnreachable, "no address", Who::Operator);
        let stop = Stop::new(verdict, "no such host");
        let verdict = ladder.failed(StepName::Dns, "lookup", stop, Duration::from_millis(3));
        let diagnosis = ladder.end(ABOUT, verdict);

        assert!(!diagnosis.is_well());
        let statuses: Vec<StepStatus> = diagnosis.steps.iter().map(|step| step.status).collect();
        assert_eq!(statuses[..2], [StepStatus::Passed, StepStatus::Failed]);
        assert!(
            statuses[2..]
                .iter()
                .all(|status| *status == StepStatus::Skipped)
        );
        assert_eq!(
            diagnosis
                .steps
                .iter()
                .map(|step| step.step)
                .collect::<Vec<_>>(),
            StepName::LADDER
        );
    }

    #[test]
    fn what_others_said_is_one_bounded_line() {
        let mut ladder = Ladder::new();
        let said = vec![format!("a\nb\x1b[31m{}", "x".repeat(10_000)); 100];
        ladder.passed(StepName::Tls, "tls", said, Duration::ZERO);
        let diagnosis = ladder.end(ABOUT, Verdict::ok("well"));

        let evidence = &diagnosis.steps[0].evidence;
        assert_eq!(evidence.len(), EVIDENCE_LINES_MAX + 1);
        assert!(evidence[0].starts_with("a b [31mx"), "{}", evidence[0]);
        assert_eq!(evidence[0].chars().count(), LINE_CHARS_MAX + 1);
        assert_eq!(evidence[EVIDENCE_LINES_MAX], "and 68 more");
    }
}
