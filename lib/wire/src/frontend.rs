//! What a client says: the messages that an agent says to a database during login, and views of
//! the statements that pass by.
//!
//! Builders give whole messages, header included. Views take the kept first bytes of a body, which
//! may have been cut, and say whether the text was.

use std::borrow::Cow;

use bytes::{BufMut, Bytes};

use crate::{
    SecretFrame,
    read::Reader,
    write::{message, put_cstr, put_vec32},
};

/// The type bytes of messages from a client.
#[derive(Clone, Copy, Debug)]
pub struct FrontendTag;

impl FrontendTag {
    /// Gives parameters to a prepared statement.
    pub const BIND: u8 = b'B';
    /// Forgets a prepared statement or portal.
    pub const CLOSE: u8 = b'C';
    /// Bytes of a COPY.
    pub const COPY_DATA: u8 = b'd';
    /// The end of a COPY.
    pub const COPY_DONE: u8 = b'c';
    /// The end of a COPY, without success.
    pub const COPY_FAIL: u8 = b'f';
    /// Asks for the shape of a statement or portal.
    pub const DESCRIBE: u8 = b'D';
    /// Runs a portal.
    pub const EXECUTE: u8 = b'E';
    /// Asks for what is buffered.
    pub const FLUSH: u8 = b'H';
    /// Calls a function by number.
    pub const FUNCTION_CALL: u8 = b'F';
    /// Prepares a statement.
    pub const PARSE: u8 = b'P';
    /// A password, or a step of SASL.
    pub const PASSWORD: u8 = b'p';
    /// Runs statements.
    pub const QUERY: u8 = b'Q';
    /// Redshift alone, during login: the answer to a digest challenge.
    pub const REDSHIFT_DIGEST: u8 = b'd';
    /// Ends a batch of the extended protocol.
    pub const SYNC: u8 = b'S';
    /// Says goodbye.
    pub const TERMINATE: u8 = b'X';
}

/// A password, in clear or already hashed, as the database asked for it.
pub fn password_message(password: &[u8]) -> SecretFrame {
    SecretFrame::new(message(FrontendTag::PASSWORD, |out| {
        out.put_slice(password);
        out.put_u8(0);
    }))
}

/// Chooses a SASL mechanism and opens its exchange.
pub fn sasl_initial(mechanism: &str, data: &[u8]) -> SecretFrame {
    SecretFrame::new(message(FrontendTag::PASSWORD, |out| {
        put_cstr(out, mechanism);
        put_vec32(out, data);
    }))
}

/// The next step of SASL.
pub fn sasl_response(data: &[u8]) -> SecretFrame {
    SecretFrame::new(message(FrontendTag::PASSWORD, |out| out.put_slice(data)))
}

/// The answer to Redshift's digest challenge (authentication code 13).
pub fn redshift_digest_response(digest: &[u8], client_nonce: &[u8]) -> SecretFrame {
    SecretFrame::new(message(FrontendTag::REDSHIFT_DIGEST, |out| {
        put_vec32(out, digest);
        put_vec32(out, client_nonce);
    }))
}

/// Says goodbye.
pub fn terminate() -> Bytes {
    Bytes::from_static(&[FrontendTag::TERMINATE, 0, 0, 0, 4])
}

/// Runs statements.
pub fn query(sql: &str) -> Bytes {
    message(FrontendTag::QUERY, |out| put_cstr(out, sql)).freeze()
}

/// Statement text as far as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlText<'a> {
    /// The text; bytes that are not UTF-8 are replaced, a character cut in two is dropped.
    pub text: Cow<'a, str>,
    /// Whether the text went on.
    pub truncated: bool,
}

/// The statements of a Query message, from its kept body.
pub fn query_sql(head: &[u8]) -> SqlText<'_> {
    sql_text(Reader::new(head))
}

/// A Parse message, as far as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseView<'a> {
    /// The name under which the statement is prepared; empty for the unnamed one.
    pub statement: Cow<'a, str>,
    /// What is prepared.
    pub sql: SqlText<'a>,
}

/// A Parse message from its kept body; `None` when not even the name was kept.
pub fn parse_sql(head: &[u8]) -> Option<ParseView<'_>> {
    let mut reader = Reader::new(head);
    let statement = String::from_utf8_lossy(reader.cstr()?);
    Some(ParseView {
        statement,
        sql: sql_text(reader),
    })
}

fn sql_text(mut reader: Reader<'_>) -> SqlText<'_> {
    match reader.cstr() {
        Some(whole) => SqlText {
            text: String::from_utf8_lossy(whole),
            truncated: false,
        },
        None => SqlText {
            text: String::from_utf8_lossy(whole_characters(reader.rest())),
            truncated: true,
        },
    }
}

/// `bytes` without the start of a character at its end.
pub(crate) fn whole_characters(bytes: &[u8]) -> &[u8] {
    let incomplete = bytes
        .utf8_chunks()
        .last()
        .map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(incomplete) {
        Err(error) if error.error_len().is_none() => &bytes[..bytes.len() - incomplete.len()],
        _ => bytes,
    }
}
