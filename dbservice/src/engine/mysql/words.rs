//! Our words to a client that speaks MySQL's protocol.
//!
//! Clients know errors by number, programs by SQLSTATE; both are those that a MySQL server would use there.
//!
//! Source: MySQL error message reference, "Server Error Message Reference".

use bytes::Bytes;
use tidegate_core::Problem;
use tidegate_wire::{SqlState, mysql::reply};

/// `08S01`: the connection is of no use any more.
const LINK_FAILURE: &[u8] = b"08S01";
/// `08004`: the server takes no connection now.
const REJECTED: &[u8] = b"08004";
/// `42000`: the name is unknown here.
const UNKNOWN_NAME: &[u8] = b"42000";
/// `HY000`: none that has a class of its own.
const GENERAL: &[u8] = b"HY000";

/// ERR with the client's text of a problem. What to do follows in the same text: there is no other place for it.
pub(crate) fn error(sequence: u8, state: SqlState, problem: &Problem) -> Bytes {
    let (number, state) = number_and_state(state);
    let hint = problem
        .hint
        .as_ref()
        .map(|hint| format!("; {hint}"))
        .unwrap_or_default();
    let text = format!(
        "{}{hint} (tidegate error `{}`)",
        problem.message, problem.code
    );
    reply::error(sequence, number, state, &text)
}

/// A MySQL server's number and SQLSTATE for what PostgreSQL calls `state`.
fn number_and_state(state: SqlState) -> (u16, SqlState) {
    let (number, own): (u16, &[u8]) = match state {
        // ER_ACCESS_DENIED_ERROR
        SqlState::INVALID_AUTHORIZATION
        | SqlState::INVALID_PASSWORD
        | SqlState::INSUFFICIENT_PRIVILEGE => (1045, b"28000"),
        // ER_CON_COUNT_ERROR
        SqlState::TOO_MANY_CONNECTIONS => (1040, REJECTED),
        // ER_BAD_DB_ERROR
        SqlState::INVALID_CATALOG_NAME => (1049, UNKNOWN_NAME),
        // ER_SERVER_SHUTDOWN
        SqlState::ADMIN_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => (1053, LINK_FAILURE),
        // ER_CLIENT_INTERACTION_TIMEOUT
        SqlState::IDLE_SESSION_TIMEOUT => (4031, GENERAL),
        // ER_UNKNOWN_COM_ERROR
        SqlState::PROTOCOL_VIOLATION => (1047, LINK_FAILURE),
        // ER_NET_READ_ERROR
        SqlState::CONNECTION_FAILURE | SqlState::UNABLE_TO_CONNECT => (1158, LINK_FAILURE),
        // ER_UNKNOWN_ERROR
        _ => (1105, GENERAL),
    };
    let state = SqlState::from_bytes(own).unwrap_or(SqlState::INTERNAL_ERROR);
    (number, state)
}

#[cfg(test)]
mod tests {
    use tidegate_core::ErrorCode;
    use tidegate_wire::mysql::reply::ServerError;

    use super::*;

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
