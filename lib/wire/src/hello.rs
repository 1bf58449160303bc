//! Reads server name and ALPN out of a TLS ClientHello without taking part in the handshake.
//!
//! The hello is plain text, but comes in pieces: post-quantum key shares make it longer than one
//! packet, and a client may spread it over several TLS records. [`peek`] is called again with more
//! bytes until it has an answer, and the bytes are then replayed to whoever owns the keys. That end
//! checks the hello for itself; here only what routing needs must be sound.
//!
//! Invariant: every size is checked when it is declared, so at most [`HELLO_BYTES_MAX`] bytes are
//! ever waited for.
//!
//! Source: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 7301 section 3.1.

use std::borrow::Cow;

use crate::read::Reader;

/// The longest ClientHello message, its four-byte header included.
pub const HELLO_MESSAGE_BYTES_MAX: usize = 16 << 10;

/// The most records that one ClientHello may be spread over.
pub const HELLO_RECORDS_MAX: usize = 32;

/// The most bytes that [`peek`] ever asks for: the message and the headers of its records.
pub const HELLO_BYTES_MAX: usize =
    HELLO_MESSAGE_BYTES_MAX + HELLO_RECORDS_MAX * RECORD_HEADER_BYTES;

const RECORD_HEADER_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = 16 << 10;
const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_HEADER_BYTES: usize = 4;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_HOST: u8 = 0;
const HOST_BYTES_MAX: usize = 255;

/// What routing wants to know of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The host that the client believes to talk to, in lower case and without a final dot.
    pub server_name: Option<String>,
    /// The protocols that it offers inside TLS, by preference.
    pub alpn: Vec<Vec<u8>>,
}

impl ClientHello {
    /// Whether `protocol` is among those offered.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| offered == protocol)
    }
}

/// Why bytes are not the start of a TLS session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The hello's own lengths contradict each other.
    #[error("TLS client hello is malformed in its {part}")]
    Malformed {
        /// Where reading stopped.
        part: &'static str,
    },

    /// Not a TLS handshake record, or another message than a ClientHello in it.
    #[error("expected a TLS client hello")]
    NotHello,

    /// A server name that is no host name.
    #[error("TLS client hello names an impossible host")]
    ServerName,

    /// Longer, or in more pieces, than allowed here.
    #[error(
        "TLS client hello is longer than {HELLO_MESSAGE_BYTES_MAX} bytes or in more than {HELLO_RECORDS_MAX} records"
    )]
    TooLong,
}

/// Whether a connection whose first byte this is opens with TLS. No first message of the Postgres
/// protocol begins so: it would be 369 MB long.
pub fn is_tls(first_byte: u8) -> bool {
    first_byte == RECORD_HANDSHAKE
}

/// Reads the ClientHello at the front of `buf`, which holds all bytes of the connection so far.
///
/// `Ok(None)` means: so far valid, more bytes are needed. Bytes behind the hello are left alone.
///
/// # Errors
///
/// [`HelloError`], as soon as the bytes at hand rule out a valid hello within the limits.
pub fn peek(buf: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let mut records = [&[][..]; HELLO_RECORDS_MAX];
    let mut rest = buf;
    let mut have = 0;
    for count in 0..HELLO_RECORDS_MAX {
        let Some(record) = next_record(&mut rest)? else {
            return Ok(None);
        };
        records[count] = record;
        have += record.len();
        let Some(need) = message_len(&records[..=count])? else {
            continue;
        };
        if have >= need {
            let message = join(&records[..=count], need);
            return parse_hello(&message[MESSAGE_HEADER_BYTES..]).map(Some);
        }
    }
    Err(HelloError::TooLong)
}

/// Takes the content of the next record off `rest`: all of it, or, from the last one, what is here.
fn next_record<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, HelloError> {
    let mut reader = Reader::new(rest);
    let Some(kind) = reader.u8() else {
        return Ok(None);
    };
    if kind != RECORD_HANDSHAKE {
        return Err(HelloError::NotHello);
    }
    let Some(major) = reader.u8() else {
        return Ok(None);
    };
    if major != 3 {
        return Err(HelloError::NotHello);
    }
    let (Some(_minor), Some(len)) = (reader.u8(), reader.u16()) else {
        return Ok(None);
    };
    let len = usize::from(len);
    if len == 0 || len > RECORD_BYTES_MAX {
        return Err(HelloError::Malformed {
            part: "record length",
        });
    }
    let body = reader.rest();
    let (record, behind) = body.split_at(body.len().min(len));
    *rest = behind;
    Ok(Some(record))
}

/// Length of the whole message, once its header is here.
fn message_len(records: &[&[u8]]) -> Result<Option<usize>, HelloError> {
    let mut header = [0; MESSAGE_HEADER_BYTES];
    let mut filled = 0;
    for (slot, byte) in header.iter_mut().zip(records.iter().copied().flatten()) {
        *slot = *byte;
        filled += 1;
    }
    if filled > 0 && header[0] != MESSAGE_CLIENT_HELLO {
        return Err(HelloError::NotHello);
    }
    if filled < MESSAGE_HEADER_BYTES {
        return Ok(None);
    }
    let [_, high, middle, low] = header;
    let body = u32::from_be_bytes([0, high, middle, low]);
    match usize::try_from(body) {
        Ok(len) if len <= HELLO_MESSAGE_BYTES_MAX - MESSAGE_HEADER_BYTES => {
            Ok(Some(len + MESSAGE_HEADER_BYTES))
        }
        _ => Err(HelloError::TooLong),
    }
}

/// The first `len` bytes of what the records hold together; `len` bytes are there.
fn join<'a>(records: &[&'a [u8]], len: usize) -> Cow<'a, [u8]> {
    match records {
        [only] => Cow::Borrowed(&only[..len]),
        _ => {
            let mut whole = records.concat();
            whole.truncate(len);
            Cow::Owned(whole)
        }
    }
}

fn parse_hello(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut reader = Reader::new(body);
    let extensions = extensions_of(&mut reader).ok_or(HelloError::Malformed {
        part: "fixed fields",
    })?;
    let mut hello = ClientHello {
        server_name: None,
        alpn: Vec::new(),
    };
    let mut extensions = Reader::new(extensions);
    let (mut name_seen, mut alpn_seen) = (false, false);
    while !extensions.is_empty() {
        let malformed = HelloError::Malformed { part: "extensions" };
        let kind = extensions.u16().ok_or(malformed)?;
        let data = extensions.vec16().ok_or(malformed)?;
        match kind {
            EXTENSION_SERVER_NAME if !std::mem::replace(&mut name_seen, true) => {
                hello.server_name = parse_server_name(data)?;
            }
            EXTENSION_ALPN if !std::mem::replace(&mut alpn_seen, true) => {
                hello.alpn = parse_alpn(data).ok_or(HelloError::Malformed { part: "ALPN" })?;
            }
            // Given twice, it would be a guess which one the other end believes.
            EXTENSION_SERVER_NAME | EXTENSION_ALPN => return Err(malformed),
            _ => {}
        }
    }
    Ok(hello)
}

/// Skips what routing does not need; a hello without extensions has none of the bytes.
fn extensions_of<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let _version = reader.u16()?;
    let _random = reader.take(32)?;
    let _session = reader.vec8()?;
    let _ciphers = reader.vec16()?;
    let _compression = reader.vec8()?;
    if reader.is_empty() {
        return Some(&[]);
    }
    let extensions = reader.vec16()?;
    reader.is_empty().then_some(extensions)
}

fn parse_server_name(data: &[u8]) -> Result<Option<String>, HelloError> {
    let malformed = HelloError::Malformed {
        part: "server name",
    };
    let mut outer = Reader::new(data);
    let mut list = Reader::new(outer.vec16().ok_or(malformed)?);
    while !list.is_empty() {
        let kind = list.u8().ok_or(malformed)?;
        let name = list.vec16().ok_or(malformed)?;
        if kind == NAME_HOST {
            return host_name(name).ok_or(HelloError::ServerName).map(Some);
        }
    }
    Ok(None)
}

/// A host name as DNS has it, underscores allowed, since databases carry them.
fn host_name(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let whole = !name.is_empty() && name.len() <= HOST_BYTES_MAX && name.bytes().all(allowed);
    whole.then(|| name.to_ascii_lowercase())
}

fn parse_alpn(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut outer = Reader::new(data);
    let mut list = Reader::new(outer.vec16()?);
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = list.vec8()?;
        if protocol.is_empty() {
            return None;
        }
        protocols.push(protocol.to_vec());
    }
    Some(protocols)
}
