//! As much of MySQL's protocol as the simulation needs: packets, and the beginning of a connection.
//!
//! Source: MariaDB Knowledge Base, "0-Packet" and "Connection".

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest packet of a log-in, in bytes.
const LOGIN_BYTES_MAX: usize = 96 << 10;
/// Bytes of a client's answer before its texts.
const HEAD_BYTES: usize = 32;

/// The capability to speak TLS.
pub(crate) const CLIENT_SSL: u32 = 1 << 11;
const CONNECT_WITH_DB: u32 = 1 << 3;
const PLUGIN_AUTH: u32 = 1 << 19;
const PLUGIN_AUTH_LENENC: u32 = 1 << 21;

/// First bytes of answers.
pub(crate) const OK: u8 = 0x00;
pub(crate) const ERR: u8 = 0xff;
pub(crate) const SWITCH: u8 = 0xfe;

/// A packet: its number, and what it carries.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let [a, b, c, number] = header;
    let len = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    if len > LOGIN_BYTES_MAX {
        return Err(malformed("a packet of a log-in that is too long"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok((number, body))
}

pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    number: u8,
    body: &[u8],
) -> io::Result<()> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut packet = vec![len[0], len[1], len[2], number];
    packet.extend_from_slice(body);
    stream.write_all(&packet).await?;
    stream.flush().await
}

pub(crate) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// An error as a server says it.
pub(crate) fn error(code: u16, state: &str, message: &str) -> Vec<u8> {
    let mut body = vec![ERR];
    body.extend_from_slice(&code.to_le_bytes());
    body.push(b'#');
    body.extend_from_slice(state.as_bytes());
    body.extend_from_slice(message.as_bytes());
    body
}

/// Where the low half of the capabilities stands in a greeting: behind version, number and scramble.
fn capabilities_at(greeting: &[u8]) -> io::Result<usize> {
    let version = greeting.get(1..).unwrap_or_default();
    let end = version.iter().position(|byte| *byte == 0);
    let at = end.map(|end| 1 + end + 1 + 4 + 8 + 1);
    at.filter(|at| greeting.len() > at + 7)
        .ok_or_else(|| malformed("no greeting"))
}

/// A server's greeting that offers TLS too.
pub(crate) fn with_tls(mut greeting: Vec<u8>) -> io::Result<Vec<u8>> {
    let at = capabilities_at(&greeting)?;
    greeting[at + 1] |= (CLIENT_SSL >> 8) as u8;
    Ok(greeting)
}

/// What a client answers to a greeting.
#[derive(Debug)]
pub(crate) struct Answer {
    capabilities: u32,
    /// Packet size, character set and what is reserved, as sent.
    head: Vec<u8>,
    pub(crate) user: String,
    pub(crate) database: Option<String>,
    /// Attributes and what else follows, as sent.
    rest: Vec<u8>,
}

impl Answer {
    /// An answer of our own.
    pub(crate) fn new(user: &str) -> Self {
        const PROTOCOL_41: u32 = 1 << 9;
        const SECURE_CONNECTION: u32 = 1 << 15;
        let mut head = vec![0; HEAD_BYTES - 4];
        head[3] = 1;
        head[4] = 45;
        Self {
            capabilities: 1 | PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH,
            head,
            user: user.to_owned(),
            database: None,
            rest: Vec::new(),
        }
    }

    /// Whether a first packet asks for TLS, and says nothing else yet.
    pub(crate) fn asks_for_tls(body: &[u8]) -> bool {
        let wants = body
            .first_chunk()
            .is_some_and(|bytes| u32::from_le_bytes(*bytes) & CLIENT_SSL != 0);
        body.len() == HEAD_BYTES && wants
    }

    pub(crate) fn read(body: &[u8]) -> io::Result<Self> {
        Self::parse(body).ok_or_else(|| malformed("no answer to the greeting"))
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let (head, mut texts) = body.split_at_checked(HEAD_BYTES)?;
        let capabilities = u32::from_le_bytes(*head.first_chunk()?);
        let user = cstr(&mut texts)?;
        // Proofs of log-ins are short; a length of more than one byte would be a text.
        let proof = usize::from(*texts.first()?);
        texts = texts.get(1 + proof..)?;
        let database = match capabilities & CONNECT_WITH_DB {
            0 => None,
            _ => Some(cstr(&mut texts)?).filter(|name| !name.is_empty()),
        };
        if capabilities & PLUGIN_AUTH != 0 {
            cstr(&mut texts)?;
        }
        Some(Self {
            capabilities,
            head: head[4..].to_vec(),
            user,
            database,
            rest: texts.to_vec(),
        })
    }

    /// The same without TLS and without a proof, for a server that trusts its socket.
    pub(crate) fn to_body(&self) -> Vec<u8> {
        let mut capabilities = self.capabilities & !(CLIENT_SSL | PLUGIN_AUTH_LENENC);
        if self.database.is_none() {
            capabilities &= !CONNECT_WITH_DB;
        }
        let mut body = capabilities.to_le_bytes().to_vec();
        body.extend_from_slice(&self.head);
        put_cstr(&mut body, &self.user);
        body.push(0);
        if let Some(database) = &self.database {
            put_cstr(&mut body, database);
        }
        if capabilities & PLUGIN_AUTH != 0 {
            put_cstr(&mut body, "mysql_native_password");
        }
        body.extend_from_slice(&self.rest);
        body
    }
}

/// A text up to its NUL, which the last one may lack.
fn cstr(bytes: &mut &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = &bytes[..end.unwrap_or(bytes.len())];
    *bytes = end.map_or(&[][..], |end| &bytes[end + 1..]);
    String::from_utf8(text.to_vec()).ok()
}

fn put_cstr(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_passed_on_without_tls_and_proof() {
        let mut sent = Answer::new("reader");
        sent.capabilities |= CONNECT_WITH_DB;
        sent.database = Some("app".to_owned());
        let mut body = sent.to_body();
        body[1] |= (CLIENT_SSL >> 8) as u8;
        let read = Answer::read(&body).unwrap();
        assert_eq!(
            (read.user.as_str(), read.database.as_deref()),
            ("reader", Some("app"))
        );
        assert_eq!(read.to_body(), sent.to_body());
    }

    #[test]
    fn a_request_for_tls_is_told_from_an_answer() {
        let mut head = vec![0; HEAD_BYTES];
        head[1] = (CLIENT_SSL >> 8) as u8;
        assert!(Answer::asks_for_tls(&head));
        assert!(!Answer::asks_for_tls(&Answer::new("x").to_body()));
    }
}
