//! What a server answers with: OK, ERR and EOF.
//!
//! Source: MySQL documentation, "`OK_Packet`", "`ERR_Packet`", "`EOF_Packet`".

use std::borrow::Cow;

use bytes::{BufMut, Bytes};

use super::{
    codec::{lenenc, u16_le},
    packet::packet,
};
use crate::{SqlState, read::Reader};

/// First byte of OK.
pub const OK: u8 = 0x00;
/// First byte of a packet with more to do for a login.
pub const MORE_DATA: u8 = 0x01;
/// First byte of EOF, of OK behind rows, and of a switch to another way of login.
pub const EOF: u8 = 0xfe;
/// First byte of ERR.
pub const ERR: u8 = 0xff;

/// The longest payload of EOF; what begins like it and is longer is something else.
pub(crate) const EOF_BYTES_MAX: u64 = 8;

/// The code of MariaDB's report of progress, which is no error.
pub(crate) const PROGRESS_CODE: u16 = 0xffff;

/// The most of an error's text that clients keep.
///
/// Source: MySQL source, `MYSQL_ERRMSG_SIZE` (512, with a NUL).
const TEXT_BYTES_MAX: usize = 511;

/// `08S01`: the connection is of no use any more.
const LINK_FAILURE: &[u8] = b"08S01";
/// `08004`: the server takes no connection now.
const REJECTED: &[u8] = b"08004";
/// `42000`: the name is unknown here.
const UNKNOWN_NAME: &[u8] = b"42000";
/// `HY000`: none that has a class of its own.
const GENERAL: &[u8] = b"HY000";

/// A transaction is open.
const STATUS_IN_TRANSACTION: u16 = 1;
/// Another result follows.
const STATUS_MORE_RESULTS: u16 = 1 << 3;
/// Rows are fetched later.
const STATUS_CURSOR: u16 = 1 << 6;
/// Statements save themselves.
const STATUS_AUTOCOMMIT: u16 = 1 << 1;

/// How a server stands after an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(u16);

impl Status {
    /// From its bits.
    pub const fn new(bits: u16) -> Self {
        Self(bits)
    }

    /// A transaction is open.
    pub const fn in_transaction(self) -> bool {
        self.0 & STATUS_IN_TRANSACTION != 0
    }

    /// Another result follows.
    pub const fn more_results(self) -> bool {
        self.0 & STATUS_MORE_RESULTS != 0
    }

    /// Rows do not follow, but are fetched later.
    pub const fn has_cursor(self) -> bool {
        self.0 & STATUS_CURSOR != 0
    }
}

/// The status that OK carries, from the first bytes of its payload, whatever its first byte.
pub(crate) fn ok_status(head: &[u8]) -> Option<Status> {
    let mut reader = Reader::new(head);
    reader.u8()?;
    lenenc(&mut reader)?;
    lenenc(&mut reader)?;
    u16_le(&mut reader).map(Status)
}

/// The status that EOF carries.
pub(crate) fn eof_status(head: &[u8]) -> Option<Status> {
    let mut reader = Reader::new(head);
    reader.take(3)?;
    u16_le(&mut reader).map(Status)
}

/// An error, as a server says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError<'a> {
    /// The server's number.
    pub code: u16,
    /// The SQLSTATE, where one was said.
    pub state: Option<SqlState>,
    /// The text; bytes that are not UTF-8 are replaced.
    pub message: Cow<'a, str>,
}

impl<'a> ServerError<'a> {
    /// Reads the payload of ERR; `None` when it is none.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != ERR {
            return None;
        }
        let code = u16_le(&mut reader)?;
        let (state, text) = match reader.rest() {
            [b'#', state @ ..] if state.len() >= 5 => {
                (SqlState::from_bytes(&state[..5]), &state[5..])
            }
            text => (None, text),
        };
        Some(Self {
            code,
            state,
            message: String::from_utf8_lossy(text),
        })
    }
}

/// ERR, with its text cut to what clients keep.
pub fn error(sequence: u8, code: u16, state: SqlState, message: &str) -> Bytes {
    let mut end = message.len().min(TEXT_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    packet(sequence, |out| {
        out.put_u8(ERR);
        out.put_u16_le(code);
        out.put_u8(b'#');
        out.put_slice(state.as_str().as_bytes());
        out.put_slice(&message.as_bytes()[..end]);
    })
    .freeze()
}

/// ERR with the number and SQLSTATE that a MySQL server would use where PostgreSQL says `state`: clients know errors by
/// number, programs by SQLSTATE.
///
/// Source: MySQL error message reference, "Server Error Message Reference".
pub fn error_like(sequence: u8, state: SqlState, message: &str) -> Bytes {
    let (number, state) = like(state);
    error(sequence, number, state, message)
}

/// The number and SQLSTATE of [`error_like`].
pub fn like(state: SqlState) -> (u16, SqlState) {
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

/// OK without anything to tell, outside a transaction.
pub fn ok(sequence: u8) -> Bytes {
    packet(sequence, |out| {
        out.put_slice(&[OK, 0, 0]);
        out.put_u16_le(STATUS_AUTOCOMMIT);
        out.put_u16_le(0);
    })
    .freeze()
}

/// A packet of the server with another place in its exchange.
pub fn renumbered(sequence: u8, payload: &[u8]) -> Bytes {
    packet(sequence, |out| out.put_slice(payload)).freeze()
}
