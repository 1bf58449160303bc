//! What may be asked of an agent, how long its answer is waited for, and why there may be none.

use std::time::Duration;

use tidegate_proto::{Invalid, v1};
use tokio::{sync::mpsc, time::timeout};

use crate::store::{CommitError, StoreUnavailable};

/// How long an agent may take to take a question.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to answer one: longer than a doctor may look.
const ANSWERED_WITHIN: Duration = Duration::from_secs(110);
/// Longest text of a question, in characters.
const TEXT_CHARS_MAX: usize = 255;

/// Why there is no diagnosis.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiagnoseError {
    /// Too many questions at once.
    #[error("{what} answers another question: ask again in a moment")]
    Busy {
        /// Who is busy.
        what: String,
    },
    /// The question is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The agent took the question and did not answer.
    #[error("agent `{host}` did not answer within {} s", ANSWERED_WITHIN.as_secs())]
    NotAnswered {
        /// Which.
        host: String,
    },
    /// The agent is up and takes no questions: an older program, or one that is just connecting.
    #[error(
        "agent `{host}` takes no questions: ask again, or run `tidegate db doctor` on its host"
    )]
    NotTaken {
        /// Which.
        host: String,
    },
    /// No such agent is up.
    #[error("no agent of host id `{host}` is up")]
    NotUp {
        /// Which.
        host: String,
    },
    /// The store refused what should fit: a fault of ours.
    #[error("cannot write the question")]
    Refused(#[source] CommitError),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

impl From<CommitError> for DiagnoseError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            other => Self::Refused(other),
        }
    }
}

/// What was told of a question.
pub(super) enum Told {
    Taken,
    Answered(Box<v1::Diagnosis>),
}

/// Waits for the agent to take the question, and then for its answer.
pub(super) async fn answer(
    told: &mut mpsc::Receiver<Told>,
    host: &str,
) -> Result<v1::Diagnosis, DiagnoseError> {
    let host = || host.to_owned();
    let first = timeout(TAKEN_WITHIN, told.recv()).await;
    match first {
        Ok(Some(Told::Answered(diagnosis))) => return Ok(*diagnosis),
        Ok(Some(Told::Taken)) => {}
        Ok(None) | Err(_) => return Err(DiagnoseError::NotTaken { host: host() }),
    }
    let answering = async {
        loop {
            match told.recv().await {
                Some(Told::Answered(diagnosis)) => return Some(*diagnosis),
                Some(Told::Taken) => {}
                None => return None,
            }
        }
    };
    let answered = timeout(ANSWERED_WITHIN, answering).await.ok().flatten();
    answered.ok_or_else(|| DiagnoseError::NotAnswered { host: host() })
}

/// A question that an agent can read.
pub(super) fn checked(question: v1::DiagnoseRequest) -> Result<v1::DiagnoseRequest, Invalid> {
    for (field, text, is_needed) in [
        ("database", &question.database, true),
        ("db_user", &question.db_user, false),
        ("db_name", &question.db_name, false),
        ("host_id", &question.host_id, true),
    ] {
        if is_needed && text.is_empty() {
            return Err(Invalid::new(field, "is missing"));
        }
        if text.chars().count() > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
            let problem =
                format!("is longer than {TEXT_CHARS_MAX} characters, or has control characters");
            return Err(Invalid::new(field, problem));
        }
    }
    Ok(question)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> v1::DiagnoseRequest {
        v1::DiagnoseRequest {
            database: "orders".to_owned(),
            host_id: "h1".to_owned(),
            ..v1::DiagnoseRequest::default()
        }
    }

    #[test]
    fn a_question_without_database_or_agent_or_with_too_long_a_text_is_refused() {
        assert!(checked(question()).is_ok());
        for (bad, field) in [
            (
                v1::DiagnoseRequest {
                    database: String::new(),
                    ..question()
                },
                "database",
            ),
            (
                v1::DiagnoseRequest {
                    host_id: String::new(),
                    ..question()
                },
                "host_id",
            ),
            (
                v1::DiagnoseRequest {
                    db_user: "x".repeat(256),
                    ..question()
                },
                "db_user",
            ),
            (
                v1::DiagnoseRequest {
                    db_name: "a\nb".to_owned(),
                    ..question()
                },
                "db_name",
            ),
        ] {
            assert!(
                checked(bad).unwrap_err().to_string().contains(field),
                "{field}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_takes_no_question_is_told_apart_from_one_that_does_not_answer() {
        let (_sender, mut told) = mpsc::channel(2);
        let failed = answer(&mut told, "h").await;
        assert!(matches!(failed, Err(DiagnoseError::NotTaken { .. })));

        let (sender, mut told) = mpsc::channel(2);
        sender.try_send(Told::Taken).ok();
        let failed = answer(&mut told, "h").await;
        assert!(matches!(failed, Err(DiagnoseError::NotAnswered { .. })));

        sender.try_send(Told::Taken).ok();
        let diagnosis = v1::Diagnosis {
            host: "a".to_owned(),
            ..v1::Diagnosis::default()
        };
        sender
            .try_send(Told::Answered(Box::new(diagnosis.clone())))
            .ok();
        assert_eq!(answer(&mut told, "h").await.unwrap(), diagnosis);
    }
}
