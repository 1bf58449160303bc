//! The five-character codes by which clients tell errors apart.
//!
//! Drivers switch on these and on nothing else, so each situation of the proxy and the agent has
//! one code that PostgreSQL itself would use there.
//!
//! Source: PostgreSQL manual, appendix "PostgreSQL Error Codes".

use std::fmt;

/// A SQLSTATE: five ASCII digits or capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// `08001`: we could not reach the database.
    pub const UNABLE_TO_CONNECT: Self = Self(*b"08001");
    /// `08004`: the connection is refused: unknown route, a client without TLS, and the like.
    pub const CONNECTION_REJECTED: Self = Self(*b"08004");
    /// `08006`: an established connection broke.
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// `08P01`: the other side sent what the protocol does not allow here.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// `0A000`: understood, but not served here.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// `28000`: this identity may not log in as asked.
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");
    /// `28P01`: a password or token was wrong.
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// `3D000`: there is no such database.
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// `42501`: a role does not allow it.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// `53300`: a limit on connections is reached.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// `57014`: the statement was cancelled on request.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// `57P01`: an administrator ended it: drain, lock, expiry.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// `57P03`: not now; a later attempt may work.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// `57P05`: nothing was sent for longer than allowed.
    pub const IDLE_SESSION_TIMEOUT: Self = Self(*b"57P05");
    /// `XX000`: a defect of our own, or an error that came without a code.
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");

    /// The code that `bytes` spell, or `None` when they are no SQLSTATE.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let code: [u8; 5] = bytes.try_into().ok()?;
        code.iter()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
            .then_some(Self(code))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only ASCII digits and letters are ever stored")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({})", self.as_str())
    }
}
