//! The PROXY protocol: the header in which a balancer says where a connection really comes from, before its first byte.
//!
//! Version 1 is a line of text, version 2 is binary. Only TCP is of use here; what says nothing about the client (`UNKNOWN`,
//! `LOCAL`, Unix sockets) is no error, since balancers check in that way whether we live.
//!
//! Invariant: the same bytes give the same header, however they arrive, and what follows the header is not touched.
//!
//! Not here: whose header is believed.
//!
//! Source: "The PROXY protocol, versions 1 & 2" of HAProxy (`doc/proxy-protocol.txt`).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// The longest line of version 1, its end included.
pub const LINE_BYTES_MAX: usize = 107;

/// The longest header of version 2 that is read: addresses and what balancers say beside them. The protocol would allow
/// 64 KiB.
pub const HEADER_BYTES_MAX: usize = 16 + 2_048;

/// What version 1 begins with.
const LINE_START: &[u8] = b"PROXY ";

/// What version 2 begins with: bytes that no other protocol does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before its addresses.
const FIXED_BYTES: usize = 16;

/// What a balancer says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Where the client is; `None` when the connection is the balancer's own, or the client's address is none of TCP.
    pub source: Option<SocketAddr>,
    /// Bytes of the header. What follows is the client's.
    pub len: usize,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// It begins as a header does, and does not go on as one.
    #[error("a malformed PROXY header: {0}")]
    Malformed(&'static str),
    /// It begins as no header does.
    #[error("no PROXY header")]
    Missing,
    /// It is longer than a header may be.
    #[error("a PROXY header of more than {HEADER_BYTES_MAX} bytes")]
    TooLong,
}

/// Whether a connection begins with a header, or with as much of one as came.
#[must_use]
pub fn is_begun(received: &[u8]) -> bool {
    !received.is_empty() && (begins(received, LINE_START) || begins(received, &SIGNATURE))
}

/// Reads the header that a connection must begin with; `None` when more bytes are needed.
///
/// # Errors
///
/// [`ProxyHeaderError`], as soon as no further byte could make it a header.
pub fn parse(received: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if begins(received, &SIGNATURE) {
        binary(received)
    } else if begins(received, LINE_START) {
        line(received)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

/// Whether both agree as far as they go.
fn begins(received: &[u8], start: &[u8]) -> bool {
    received.iter().zip(start).all(|(one, other)| one == other)
}

fn line(received: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let within = &received[..received.len().min(LINE_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return match received.len() >= LINE_BYTES_MAX {
            true => Err(ProxyHeaderError::Malformed("the line does not end")),
            false => Ok(None),
        };
    };
    let malformed = ProxyHeaderError::Malformed;
    let text = std::str::from_utf8(&received[..end]).map_err(|_| malformed("it is no text"))?;
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(tcp::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(tcp::<Ipv6Addr>(words)?),
        _ => return Err(malformed("neither TCP4, TCP6 nor UNKNOWN")),
    };
    let len = end + 2;
    Ok(Some(ProxyHeader { source, len }))
}

/// `source destination source-port destination-port`, and nothing else.
fn tcp<'w, A>(words: impl Iterator<Item = &'w str>) -> Result<SocketAddr, ProxyHeaderError>
where
    A: FromStr + Into<IpAddr>,
{
    let words: Vec<&str> = words.take(5).collect();
    let [source, destination, source_port, destination_port] = words.as_slice() else {
        return Err(ProxyHeaderError::Malformed(
            "not two addresses and two ports",
        ));
    };
    let address = |word: &str| {
        word.parse::<A>()
            .map_err(|_| ProxyHeaderError::Malformed("not an address of its family"))
    };
    let port = |word: &str| {
        let is_plain = word.bytes().all(|byte| byte.is_ascii_digit())
            && !(word.len() > 1 && word.starts_with('0'));
        let port = word.parse::<u16>().ok().filter(|_| is_plain);
        port.ok_or(ProxyHeaderError::Malformed("not a port"))
    };
    address(destination)?;
    port(destination_port)?;
    Ok(SocketAddr::new(address(source)?.into(), port(source_port)?))
}

fn binary(received: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(fixed) = received.first_chunk::<FIXED_BYTES>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let len = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong);
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyHeaderError::Malformed("an unknown version or command")),
    };
    let Some(addresses) = received.get(FIXED_BYTES..len) else {
        return Ok(None);
    };
    let short = || ProxyHeaderError::Malformed("its addresses are cut short");
    let source = match (is_local, family) {
        (false, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses else {
                return Err(short());
            };
            addresses.get(..12).ok_or_else(short)?;
            Some(SocketAddr::new(
                Ipv4Addr::new(a, b, c, d).into(),
                u16::from_be_bytes([high, low]),
            ))
        }
        (false, 0x21) => {
            let address = addresses.first_chunk::<16>().ok_or_else(short)?;
            let ports = addresses.get(32..36).ok_or_else(short)?;
            let port = u16::from_be_bytes([ports[0], ports[1]]);
            Some(SocketAddr::new(Ipv6Addr::from(*address).into(), port))
        }
        // UDP, Unix sockets, and what nobody knows: the connection counts as the balancer's own.
        _ => None,
    };
    Ok(Some(ProxyHeader { source, len }))
}
