//! The first packets of a connection, and how a log-in is refused.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::postgres::sql::frame;

/// Longest start-up packet, in bytes, as in PostgreSQL.
const STARTUP_BYTES_MAX: usize = 10_000;
const CANCEL_CODE: u32 = 80_877_102;
const TLS_CODE: u32 = 80_877_103;
const GSS_CODE: u32 = 80_877_104;

/// A packet without a type, as connections begin with.
#[derive(Debug)]
pub(super) enum First {
    /// A whole CancelRequest, to be passed on.
    Cancel(Vec<u8>),
    GssEncryption,
    Startup(Startup),
    Tls,
}

/// A StartupMessage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Startup {
    /// Major version in the high half.
    pub(super) protocol: u32,
    parameters: Vec<(String, String)>,
}

impl Startup {
    /// In the order in which they were sent.
    pub(super) fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn user(&self) -> &str {
        self.get("user").unwrap_or_default()
    }

    /// The database, by default named as the user.
    pub(super) fn database(&self) -> &str {
        self.get("database")
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| self.user())
    }
}

/// Reads one packet.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<First> {
    let length = stream.read_u32().await? as usize;
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Err(malformed("invalid length of startup packet"));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    parse(&body).ok_or_else(|| malformed("invalid startup packet"))
}

fn parse(body: &[u8]) -> Option<First> {
    let (code, rest) = body.split_first_chunk::<4>()?;
    match u32::from_be_bytes(*code) {
        TLS_CODE => Some(First::Tls),
        GSS_CODE => Some(First::GssEncryption),
        CANCEL_CODE => Some(First::Cancel(frame(None, body))),
        protocol if protocol >> 16 == 3 => {
            let parameters = parse_parameters(rest)?;
            Some(First::Startup(Startup {
                protocol,
                parameters,
            }))
        }
        _ => None,
    }
}

fn parse_parameters(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let texts = bytes.strip_suffix(&[0])?;
    if texts.is_empty() {
        return Some(Vec::new());
    }
    let texts: Vec<String> = texts
        .strip_suffix(&[0])?
        .split(|byte| *byte == 0)
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    let pairs = texts.chunks(2).map(|pair| match pair {
        [name, value] => Some((name.clone(), value.clone())),
        _ => None,
    });
    pairs.collect()
}

/// A FATAL error that ends a log-in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) struct Refusal {
    code: &'static str,
    message: String,
    /// What the client is not told.
    why: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            why: None,
        }
    }

    /// With the reason, for the journal alone.
    pub(super) fn because(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(why.to_string());
        self
    }

    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// As an ErrorResponse.
    pub(super) fn to_message(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let fields = [
            ('S', "FATAL"),
            ('V', "FATAL"),
            ('C', self.code),
            ('M', &self.message),
        ];
        for (kind, text) in fields {
            body.push(u8::try_from(kind).expect("field kinds are ASCII"));
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        frame(Some(b'E'), &body)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

pub(super) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_in_pairs() {
        let pairs = parse_parameters(b"user\0alice\0database\0\0\0").unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(pairs, [pair("user", "alice"), pair("database", "")]);
        assert_eq!(parse_parameters(b"\0"), Some(vec![]));
        assert_eq!(parse_parameters(b"user\0\0"), None);
        assert_eq!(parse_parameters(b"user\0alice"), None);
    }

    #[tokio::test]
    async fn packets_beyond_the_bounds_are_refused() {
        for length in [0_u32, 7, 10_001, u32::MAX] {
            let packet = length.to_be_bytes();
            assert!(read(&mut &packet[..]).await.is_err(), "{length}");
        }
    }
}
