//! Our words to a client that speaks PostgreSQL's protocol.

use bytes::Bytes;
use tidegate_core::Problem;
use tidegate_wire::{SqlState, backend::ErrorResponse};

/// A FATAL with the client's text of a problem; the code is in the detail, for whoever searches for it.
pub(crate) fn fatal(state: SqlState, problem: &Problem) -> Bytes {
    let code = format!("tidegate error `{}`", problem.code);
    let error =
        ErrorResponse::fatal(state, problem.message.clone()).detail(match &problem.detail {
            Some(detail) => format!("{detail} ({code})"),
            None => code,
        });
    match &problem.hint {
        Some(hint) => error.hint(hint.clone()),
        None => error,
    }
    .encode()
}

#[cfg(test)]
mod tests {
    use tidegate_core::ErrorCode;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::engine::farewell::Farewell;

    #[tokio::test]
    async fn a_client_reads_state_message_and_hint_and_no_operator_text() {
        let (mut agent, mut client) = tokio::io::duplex(4096);
        let problem = Problem::new(ErrorCode::AccessDenied, "access denied")
            .because("role `x` does not allow it at 10.0.0.1")
            .hint("ask for another role");
        let saying = tokio::spawn(async move {
            Farewell::Said(Box::new(problem))
                .say(&mut agent, fatal)
                .await
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        drop(client);
        saying.await.unwrap();

        let error = ErrorResponse::parse(&got[5..]);
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("28000", "access denied")
        );
        assert_eq!(error.hint.as_deref(), Some("ask for another role"));
        assert!(!String::from_utf8_lossy(&got).contains("10.0.0.1"));
    }
}
