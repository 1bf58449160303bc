//! What a database says: the messages that we say in its place, and those of its login that we read.
//!
//! Builders give whole messages, header included; parsers take a body, as a reader cut it out by
//! [`crate::frame::peek_header`].
//!
//! Not here: how a challenge is answered ([`crate::frontend`] only frames the answer).

mod login;
mod report;

use bytes::{BufMut, Bytes};

pub use login::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus,
    REDSHIFT_DIGEST_SHA256, ReadyForQuery, TxStatus,
};
pub use report::{ErrorResponse, NoticeResponse, Severity};

use crate::{
    SecretFrame,
    read::Reader,
    startup::ProtocolVersion,
    write::{message, put_cstr},
};

/// The type bytes of messages from a database.
#[derive(Clone, Copy, Debug)]
pub struct BackendTag;

impl BackendTag {
    /// Asks for proof of identity, or accepts it.
    pub const AUTHENTICATION: u8 = b'R';
    /// The key for cancel requests.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// A statement ended well.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// Bytes of a COPY.
    pub const COPY_DATA: u8 = b'd';
    /// One row.
    pub const DATA_ROW: u8 = b'D';
    /// Something failed.
    pub const ERROR_RESPONSE: u8 = b'E';
    /// The version or options asked for are not all there.
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    /// A remark.
    pub const NOTICE_RESPONSE: u8 = b'N';
    /// A setting and its value.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// The next statement may come.
    pub const READY_FOR_QUERY: u8 = b'Z';
}

/// Why a body does not hold the message that its type byte announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("database sent a malformed {message} message")]
pub struct BackendError {
    /// Which message, by the manual's name.
    pub message: &'static str,
}

impl BackendError {
    fn malformed(message: &'static str) -> Self {
        Self { message }
    }
}

/// The client is logged in.
pub fn authentication_ok() -> Bytes {
    Bytes::from_static(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0])
}

/// Asks the client for a password in clear; only ever inside TLS.
pub fn authentication_cleartext() -> Bytes {
    Bytes::from_static(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3])
}

/// The key by which this client may ask to cancel. The secret has four bytes in protocol 3.0.
pub fn backend_key_data(process_id: u32, secret: &[u8]) -> SecretFrame {
    SecretFrame::new(message(BackendTag::BACKEND_KEY_DATA, |out| {
        out.put_u32(process_id);
        out.put_slice(secret);
    }))
}

/// A setting and its value.
pub fn parameter_status(name: &str, value: &str) -> Bytes {
    message(BackendTag::PARAMETER_STATUS, |out| {
        put_cstr(out, name);
        put_cstr(out, value);
    })
    .freeze()
}

/// The next statement may come.
pub fn ready_for_query(status: TxStatus) -> Bytes {
    message(BackendTag::READY_FOR_QUERY, |out| {
        out.put_u8(status.as_byte())
    })
    .freeze()
}

/// Tells a client the newest version served and which of its protocol options (`_pq_.…`) are not.
///
/// The whole version is sent, not its minor part alone: that is what servers and libpq do.
pub fn negotiate_protocol_version(newest: ProtocolVersion, unsupported: &[&str]) -> Bytes {
    message(BackendTag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.put_u32(newest.code());
        out.put_u32(
            u32::try_from(unsupported.len()).expect("a start-up message holds few options"),
        );
        for option in unsupported {
            put_cstr(out, option);
        }
    })
    .freeze()
}

/// The tag of a CommandComplete (`SELECT 5`), from its kept body; `None` when cut or not UTF-8.
pub fn command_tag(head: &[u8]) -> Option<&str> {
    std::str::from_utf8(Reader::new(head).cstr()?).ok()
}
