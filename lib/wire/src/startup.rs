//! The untagged first messages of a connection: encryption requests, cancel, start-up.
//!
//! [`parse_first`] decides from the first bytes alone whether a message can be valid, so a caller
//! never waits for, or stores, a body that will be refused anyway.
//!
//! Invariant: what [`StartupMessage::user`] and [`StartupMessage::database`] say is what PostgreSQL
//! would act on. A parameter given twice counts as its last value there, so it does here too;
//! otherwise one value could be authorised and another used.
//!
//! Not here: what a parameter means, and which ones are passed on.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    read::Reader,
    write::{put_cstr, sized},
};

/// The longest body of a first message, its length word not counted; PostgreSQL's own limit.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// The longest secret of a cancel key (protocol 3.2); protocol 3.0 has exactly four bytes.
pub const CANCEL_SECRET_BYTES_MAX: usize = 256;

/// The shortest secret of a cancel key.
pub const CANCEL_SECRET_BYTES_MIN: usize = 4;

/// The message that asks for TLS. The answer is one byte, `S` or `N`.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The message that asks for GSSAPI encryption. The answer is one byte, `G` or `N`.
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

const CANCEL_CODE: u32 = 80_877_102;
const SSL_CODE: u32 = 80_877_103;
const GSSENC_CODE: u32 = 80_877_104;

/// A protocol version as a start-up message asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion {
    /// Incompatible changes; 3 since 2003.
    pub major: u16,
    /// Negotiable changes.
    pub minor: u16,
}

impl ProtocolVersion {
    /// What every client and server speaks.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// Longer cancel secrets; the newest version known here.
    pub const V3_2: Self = Self { major: 3, minor: 2 };

    /// The version as one number on the wire.
    pub fn code(self) -> u32 {
        u32::from(self.major) << 16 | u32::from(self.minor)
    }

    /// The version that a number on the wire stands for.
    pub fn from_code(code: u32) -> Self {
        let [major_high, major_low, minor_high, minor_low] = code.to_be_bytes();
        Self {
            major: u16::from_be_bytes([major_high, major_low]),
            minor: u16::from_be_bytes([minor_high, minor_low]),
        }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a client may say before it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstMessage {
    /// Asks for TLS.
    SslRequest,
    /// Asks for GSSAPI encryption.
    GssEncRequest,
    /// Asks to stop a statement of another connection; nothing is answered.
    Cancel(CancelRequest),
    /// Opens a session.
    Startup(StartupMessage),
}

/// Why the first bytes of a connection are no valid first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartupError {
    /// A cancel key whose secret is shorter or longer than any protocol version allows.
    #[error(
        "cancel request holds a secret of {len} bytes, not {CANCEL_SECRET_BYTES_MIN} to {CANCEL_SECRET_BYTES_MAX}"
    )]
    CancelSecret {
        /// Bytes of the secret.
        len: usize,
    },

    /// The parameters end before the message does, or the other way round.
    #[error("start-up parameters do not end where the message does")]
    Layout,

    /// A parameter that is not UTF-8.
    #[error("start-up parameter {position} is not valid UTF-8")]
    NotUtf8 {
        /// Which one, counted from one.
        position: usize,
    },

    /// An encryption request with a body.
    #[error("encryption request declares {declared} bytes, not 8")]
    RequestLength {
        /// Bytes that the message says it has.
        declared: u32,
    },

    /// More bytes than any first message may have.
    #[error("first message declares {declared} bytes; the limit is {}", STARTUP_BYTES_MAX + 4)]
    TooLong {
        /// Bytes that the message says it has.
        declared: u32,
    },

    /// Too few bytes for a protocol version.
    #[error("first message declares {declared} bytes, fewer than its own header")]
    TooShort {
        /// Bytes that the message says it has.
        declared: u32,
    },

    /// A protocol version of another major number, or a request code that nobody defined.
    #[error("protocol version {version} is not supported; this end speaks 3.0 to 3.2")]
    Version {
        /// What was asked for.
        version: ProtocolVersion,
    },
}

/// Reads one first message off the front of `buf` and tells how many bytes it took.
///
/// `Ok(None)` means: so far valid, more bytes are needed. At most [`STARTUP_BYTES_MAX`] + 4 bytes
/// are ever needed. Bytes behind the message are left alone.
///
/// # Errors
///
/// [`StartupError`], as soon as the bytes at hand rule out every valid message. A TLS record that
/// arrives here (direct TLS) is `TooLong`: ask [`crate::hello::is_tls`] first.
pub fn parse_first(buf: &[u8]) -> Result<Option<(FirstMessage, usize)>, StartupError> {
    let mut reader = Reader::new(buf);
    let Some(declared) = reader.u32() else {
        return Ok(None);
    };
    let len = body_len(declared)?;
    let Some(code) = reader.u32() else {
        return Ok(None);
    };
    check_code(code, declared)?;
    let Some(body) = reader.take(len - 4) else {
        return Ok(None);
    };
    let message = match code {
        SSL_CODE => FirstMessage::SslRequest,
        GSSENC_CODE => FirstMessage::GssEncRequest,
        CANCEL_CODE => FirstMessage::Cancel(parse_cancel(body)?),
        version => FirstMessage::Startup(parse_startup(ProtocolVersion::from_code(version), body)?),
    };
    Ok(Some((message, len + 4)))
}

/// The length behind the length word, once it is known to be possible.
fn body_len(declared: u32) -> Result<usize, StartupError> {
    let too_long = StartupError::TooLong { declared };
    let len = usize::try_from(declared).map_err(|_| too_long)?;
    match len {
        0..8 => Err(StartupError::TooShort { declared }),
        8.. if len - 4 > STARTUP_BYTES_MAX => Err(too_long),
        _ => Ok(len - 4),
    }
}

/// Refuses by code and length, before the body is here.
fn check_code(code: u32, declared: u32) -> Result<(), StartupError> {
    let version = ProtocolVersion::from_code(code);
    match code {
        SSL_CODE | GSSENC_CODE if declared != 8 => Err(StartupError::RequestLength { declared }),
        SSL_CODE | GSSENC_CODE | CANCEL_CODE => Ok(()),
        _ if version.major == 3 => Ok(()),
        _ => Err(StartupError::Version { version }),
    }
}

fn parse_cancel(body: &[u8]) -> Result<CancelRequest, StartupError> {
    let mut reader = Reader::new(body);
    let process_id = reader.u32().ok_or(StartupError::CancelSecret { len: 0 })?;
    let secret = reader.rest();
    if !(CANCEL_SECRET_BYTES_MIN..=CANCEL_SECRET_BYTES_MAX).contains(&secret.len()) {
        return Err(StartupError::CancelSecret { len: secret.len() });
    }
    Ok(CancelRequest {
        process_id,
        secret: Bytes::copy_from_slice(secret),
    })
}

fn parse_startup(version: ProtocolVersion, body: &[u8]) -> Result<StartupMessage, StartupError> {
    let mut reader = Reader::new(body);
    let mut params = Vec::new();
    loop {
        let name = reader.cstr().ok_or(StartupError::Layout)?;
        if name.is_empty() {
            break;
        }
        let value = reader.cstr().ok_or(StartupError::Layout)?;
        let position = params.len() + 1;
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(|_| StartupError::NotUtf8 { position })
        };
        params.push((text(name)?, text(value)?));
    }
    if !reader.is_empty() {
        return Err(StartupError::Layout);
    }
    Ok(StartupMessage { version, params })
}

/// Opens a session: a protocol version and parameters, in the order and number in which they came.
///
/// Debug shows the names of parameters, not their values.
#[derive(Clone, PartialEq, Eq)]
pub struct StartupMessage {
    /// The version that is asked for.
    pub version: ProtocolVersion,
    params: Vec<(String, String)>,
}

impl StartupMessage {
    /// A message without parameters.
    pub fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            params: Vec::new(),
        }
    }

    /// The value that counts for `name`: the last one, as in PostgreSQL.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The database user. An empty one counts as not given.
    pub fn user(&self) -> Option<&str> {
        self.get("user").filter(|user| !user.is_empty())
    }

    /// The database name. An empty one counts as not given; PostgreSQL then takes the user's name.
    pub fn database(&self) -> Option<&str> {
        self.get("database").filter(|database| !database.is_empty())
    }

    /// All parameters in order, duplicates included.
    pub fn params(&self) -> &[(String, String)] {
        &self.params
    }

    /// The names of protocol options (`_pq_.…`), in order.
    pub fn protocol_options(&self) -> impl Iterator<Item = &str> {
        self.params
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with("_pq_."))
    }

    /// The message with `name` set: in the place of its first occurrence, and nowhere else, or at
    /// the end. An empty name, which the protocol cannot carry, changes nothing.
    #[must_use]
    pub fn with_param(mut self, name: &str, value: &str) -> Self {
        let Some(first) = self.params.iter().position(|(known, _)| known == name) else {
            if !name.is_empty() {
                self.params.push((name.to_owned(), value.to_owned()));
            }
            return self;
        };
        self.params[first].1 = value.to_owned();
        let mut position = 0;
        self.params.retain(|(known, _)| {
            position += 1;
            position - 1 == first || known != name
        });
        self
    }

    /// The message without any occurrence of `name`.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.params.retain(|(known, _)| known != name);
        self
    }

    /// The message as sent. A NUL inside a value becomes U+FFFD. Servers refuse more than
    /// [`STARTUP_BYTES_MAX`] bytes.
    pub fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(256);
        sized(&mut out, |out| {
            out.put_u32(self.version.code());
            for (name, value) in &self.params {
                put_cstr(out, name);
                put_cstr(out, value);
            }
            out.put_u8(0);
        });
        out
    }
}

impl fmt::Debug for StartupMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.params.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("StartupMessage")
            .field("version", &self.version)
            .field("params", &names)
            .finish()
    }
}

/// Asks to stop what another connection runs; whoever knows the pair may ask. Debug shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelRequest {
    /// The number that BackendKeyData gave; not necessarily a process anywhere.
    pub process_id: u32,
    /// Four bytes in protocol 3.0, up to [`CANCEL_SECRET_BYTES_MAX`] in 3.2. Compare it in constant time.
    pub secret: Bytes,
}

impl CancelRequest {
    /// The message as sent.
    pub fn encode(&self) -> crate::SecretFrame {
        let mut out = BytesMut::with_capacity(16);
        sized(&mut out, |out| {
            out.put_u32(CANCEL_CODE);
            out.put_u32(self.process_id);
            out.put_slice(&self.secret);
        });
        crate::SecretFrame::new(out)
    }
}

impl fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelRequest")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}
