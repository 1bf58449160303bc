//! Diagnoses.

use tidegate_core::{
    Diagnosis,
    doctor::{Fix, PolicyKind, Step, StepName, StepStatus, Verdict, Who},
};

use crate::{Invalid, v1};

impl From<Diagnosis> for v1::Diagnosis {
    fn from(diagnosis: Diagnosis) -> Self {
        let verdict = diagnosis.verdict;
        Self {
            database: diagnosis.database,
            db_user: diagnosis.db_user,
            db_name: diagnosis.db_name,
            host: diagnosis.host,
            steps: diagnosis.steps.into_iter().map(Into::into).collect(),
            verdict: Some(v1::Verdict {
                code: verdict.code,
                what: verdict.what,
                who: verdict.who.as_str().to_owned(),
                how: verdict.how,
                fixes: verdict.fixes.into_iter().map(Into::into).collect(),
                any_of: verdict.any_of,
            }),
        }
    }
}

impl From<Step> for v1::DiagnosisStep {
    fn from(step: Step) -> Self {
        Self {
            step: step.step.as_str().to_owned(),
            status: step.status.as_str().to_owned(),
            what: step.what,
            evidence: step.evidence,
            took_ms: step.took_ms,
        }
    }
}

impl From<Fix> for v1::PolicyFix {
    fn from(fix: Fix) -> Self {
        Self {
            policy: fix.policy.as_str().to_owned(),
            of: fix.of,
            json: fix.json,
        }
    }
}

impl TryFrom<v1::Diagnosis> for Diagnosis {
    type Error = Invalid;

    fn try_from(diagnosis: v1::Diagnosis) -> Result<Self, Invalid> {
        let verdict = diagnosis
            .verdict
            .ok_or_else(|| Invalid::new("verdict", "is missing"))?;
        let steps = diagnosis.steps.into_iter().map(step);
        let fixes = verdict.fixes.into_iter().map(fix);
        Ok(Self {
            database: diagnosis.database,
            db_user: diagnosis.db_user,
            db_name: diagnosis.db_name,
            host: diagnosis.host,
            steps: steps.collect::<Result<_, _>>()?,
            verdict: Verdict {
                code: verdict.code,
                what: verdict.what,
                who: one_of(&Who::ALL, Who::as_str, "verdict.who", &verdict.who)?,
                how: verdict.how,
                fixes: fixes.collect::<Result<_, _>>()?,
                any_of: verdict.any_of,
            },
        })
    }
}

fn step(step: v1::DiagnosisStep) -> Result<Step, Invalid> {
    Ok(Step {
        step: one_of(
            &StepName::LADDER,
            StepName::as_str,
            "steps.step",
            &step.step,
        )?,
        status: one_of(
            &StepStatus::ALL,
            StepStatus::as_str,
            "steps.status",
            &step.status,
        )?,
        what: step.what,
        evidence: step.evidence,
        took_ms: step.took_ms,
    })
}

fn fix(fix: v1::PolicyFix) -> Result<Fix, Invalid> {
    Ok(Fix {
        policy: one_of(
            &PolicyKind::ALL,
            PolicyKind::as_str,
            "verdict.fixes.policy",
            &fix.policy,
        )?,
        of: fix.of,
        json: fix.json,
    })
}

/// The one of `all` that is called so.
fn one_of<T: Copy>(
    all: &[T],
    called: impl Fn(T) -> &'static str,
    field: &str,
    word: &str,
) -> Result<T, Invalid> {
    all.iter()
        .copied()
        .find(|one| called(*one) == word)
        .ok_or_else(|| Invalid::new(field, format!("`{word}` is not known to this program")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_core::{
        ErrorCode,
        doctor::{Ladder, Stop},
    };

    use super::*;

    #[test]
    fn a_diagnosis_arrives_as_it_was_sent_whatever_is_in_it() {
        for (who, policy) in Who::ALL
            .into_iter()
            .zip(PolicyKind::ALL.into_iter().cycle())
        {
            let mut ladder = Ladder::new();
            let told = vec!["fact".to_owned()];
            ladder.passed(StepName::Serve, "serve", told, Duration::from_millis(7));
            ladder.skipped(StepName::Dns, "not needed");
            let verdict = Verdict::new(ErrorCode::AwsAccessDenied, "no", who)
                .how("do")
                .any_of(true)
                .fix(Fix {
                    policy,
                    of: "arn:x".to_owned(),
                    json: "{}".to_owned(),
                });
            let stop = Stop::new(verdict, "AWS said no");
            let verdict = ladder.failed(StepName::Role, "assume", stop, Duration::from_millis(9));
            let sent = ladder.end(("orders", "reader", "dev", "a"), verdict);
            let wire = v1::Diagnosis::from(sent.clone());
            assert_eq!(Diagnosis::try_from(wire).unwrap(), sent);
        }
    }

    #[test]
    fn a_word_that_is_not_known_is_named_with_its_field() {
        let mut wire =
            v1::Diagnosis::from(Ladder::new().end(("a", "b", "c", "d"), Verdict::ok("")));
        wire.steps[0].status = "maybe".to_owned();
        let told = Diagnosis::try_from(wire).unwrap_err().to_string();
        assert!(
            told.contains("steps.status") && told.contains("maybe"),
            "{told}"
        );
        assert!(Diagnosis::try_from(v1::Diagnosis::default()).is_err());
    }
}
