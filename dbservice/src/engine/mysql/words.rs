//! Our words to a client that speaks MySQL's protocol.

use bytes::Bytes;
use tidegate_core::Problem;
use tidegate_wire::{SqlState, mysql::reply};

/// ERR with the client's text of a problem. What to do follows in the same text: there is no other place for it.
pub(crate) fn error(sequence: u8, state: SqlState, problem: &Problem) -> Bytes {
    let hint = problem
        .hint
        .as_ref()
        .map(|hint| format!("; {hint}"))
        .unwrap_or_default();
    let text = format!(
        "{}{hint} (tidegate error `{}`)",
        problem.message, problem.code
    );
    reply::error_like(sequence, state, &text)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use tidegate_core::{ErrorCode, error::page};
    use tidegate_wire::mysql::reply::ServerError;

    use super::*;
    use crate::engine::farewell::sqlstate;

    #[test]
    fn the_reference_page_has_the_numbers_that_clients_read() {
        let read = |code: ErrorCode| {
            let whole = error(1, sqlstate(code), &Problem::new(code, "x"));
            let read = ServerError::parse(&whole[4..]).unwrap();
            (read.code, read.state.unwrap().as_str().to_owned())
        };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/errors.md");
        let written = fs::read_to_string(file).unwrap();
        assert_eq!(written, page::reference(read), "run `cargo xtask gen`");
    }

    #[test]
    fn a_client_reads_number_state_text_and_hint_and_no_operator_text() {
        let problem = Problem::new(ErrorCode::AccessDenied, "access denied")
            .because("role `x` does not allow it at 10.0.0.1")
            .hint("ask for another role");
        let whole = error(2, SqlState::INVALID_AUTHORIZATION, &problem);
        let read = ServerError::parse(&whole[4..]).unwrap();
        assert_eq!((whole[3], read.code), (2, 1045));
        assert_eq!(read.state, Some(SqlState::INVALID_AUTHORIZATION));
        assert_eq!(
            read.message,
            "access denied; ask for another role (tidegate error `access_denied`)"
        );
    }
}
