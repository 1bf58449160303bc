//! Packets: three bytes of length, one of sequence, a payload. One of the greatest length is continued by the next.
//!
//! [`take_packet`] is for the handshake, where each packet is read whole and answered. [`Scanner`] is for everything
//! after it: it is fed with the bytes that pass, tells which messages went by, and keeps the first bytes of each.
//!
//! Invariant: a scanner's memory depends only on its `keep_bytes_max`, and what it reports never on how the stream was
//! cut into chunks.
//!
//! Source: MySQL documentation, "MySQL Packets".

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of length and sequence before a payload.
pub const HEADER_BYTES: usize = 4;

/// The longest payload of one packet; one of this length is continued by the next packet.
pub const PAYLOAD_BYTES_MAX: usize = 0xff_ffff;

/// The longest packet that is read whole during a handshake: a client's answer holds up to 64 KiB of attributes.
pub const HANDSHAKE_BYTES_MAX: usize = 96 << 10;

/// A scanner gives buffers above this size back after each message, so that idle sessions hold little.
const SPARE_BYTES_MAX: usize = 1 << 10;

/// One whole packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its place in the exchange that it belongs to.
    pub sequence: u8,
    /// What it carries.
    pub payload: Bytes,
}

impl fmt::Debug for Packet {
    /// Shows no content: it may hold a proof.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("sequence", &self.sequence)
            .field("bytes", &self.payload.len())
            .finish()
    }
}

/// A packet longer than it may be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet declares {declared} bytes; the limit here is {bytes_max}")]
pub struct TooLong {
    /// The length as sent.
    pub declared: usize,
    /// The longest payload allowed.
    pub bytes_max: usize,
}

/// Takes the packet at the front of `buffer`; `None` while it is not whole.
///
/// # Errors
///
/// [`TooLong`] above `bytes_max` ([`HANDSHAKE_BYTES_MAX`] during a handshake).
pub fn take_packet(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Packet>, TooLong> {
    let Some(&[a, b, c, sequence]) = buffer.first_chunk() else {
        return Ok(None);
    };
    let declared = length([a, b, c]);
    if declared > bytes_max {
        return Err(TooLong {
            declared,
            bytes_max,
        });
    }
    if buffer.len() < HEADER_BYTES + declared {
        return Ok(None);
    }
    let payload = buffer
        .split_to(HEADER_BYTES + declared)
        .split_off(HEADER_BYTES)
        .freeze();
    Ok(Some(Packet { sequence, payload }))
}

fn length([a, b, c]: [u8; 3]) -> usize {
    usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16
}

/// A packet with the payload that `payload` writes.
///
/// What is written here (greetings, answers, errors) is far below the longest payload.
pub fn packet(sequence: u8, payload: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::with_capacity(128);
    out.put_bytes(0, HEADER_BYTES);
    payload(&mut out);
    let len = (out.len() - HEADER_BYTES).min(PAYLOAD_BYTES_MAX);
    let bytes = u32::try_from(len).unwrap_or_default().to_le_bytes();
    out[..3].copy_from_slice(&bytes[..3]);
    out[3] = sequence;
    out
}

/// One message that went by: a payload, whatever number of packets it took.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The sequence number of its last packet.
    pub sequence: u8,
    /// Bytes of the payload.
    pub total_len: u64,
    /// The first bytes of the payload, up to `keep_bytes_max`.
    pub head: &'a [u8],
}

impl fmt::Debug for Event<'_> {
    /// Shows no content: statements and parameters may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("sequence", &self.sequence)
            .field("total_len", &self.total_len)
            .field("kept", &self.head.len())
            .finish()
    }
}

/// Where in the stream the scanner stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Inside a header, of which this much was seen.
    Header {
        seen: [u8; HEADER_BYTES],
        len: usize,
    },
    /// Inside a payload, with this much still to come.
    Payload {
        left: usize,
        sequence: u8,
        is_continued: bool,
    },
}

const BETWEEN: Place = Place::Header {
    seen: [0; HEADER_BYTES],
    len: 0,
};

/// Follows one direction of a session after login, by chunks of any size. Debug shows no content.
pub struct Scanner {
    keep_bytes_max: usize,
    place: Place,
    kept: Vec<u8>,
    /// Bytes of the present message so far.
    total_len: u64,
    /// Whether packets of the present message are over already.
    is_joining: bool,
}

impl Scanner {
    /// Keeps at most `keep_bytes_max` bytes of a message.
    pub fn new(keep_bytes_max: usize) -> Self {
        Self {
            keep_bytes_max,
            place: BETWEEN,
            kept: Vec::new(),
            total_len: 0,
            is_joining: false,
        }
    }

    /// Whether the stream stands between two messages: only there may a message of our own go in.
    pub fn at_boundary(&self) -> bool {
        matches!(self.place, Place::Header { len: 0, .. }) && !self.is_joining
    }

    /// Takes the next bytes of the stream and reports each message that ends in them.
    pub fn feed(&mut self, mut chunk: &[u8], mut on: impl FnMut(Event<'_>)) {
        while !chunk.is_empty() {
            chunk = match self.place {
                Place::Header { seen, len } => self.read_header(seen, len, chunk, &mut on),
                Place::Payload {
                    left,
                    sequence,
                    is_continued,
                } => self.read_payload(left, sequence, is_continued, chunk, &mut on),
            };
        }
    }

    fn read_header<'c>(
        &mut self,
        mut seen: [u8; HEADER_BYTES],
        len: usize,
        chunk: &'c [u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> &'c [u8] {
        let (bytes, rest) = chunk.split_at(chunk.len().min(HEADER_BYTES - len));
        seen[len..len + bytes.len()].copy_from_slice(bytes);
        let len = len + bytes.len();
        if len < HEADER_BYTES {
            self.place = Place::Header { seen, len };
            return rest;
        }
        let [a, b, c, sequence] = seen;
        let left = length([a, b, c]);
        let is_continued = left == PAYLOAD_BYTES_MAX;
        if !self.is_joining && !is_continued && rest.len() >= left {
            let (payload, rest) = rest.split_at(left);
            self.place = BETWEEN;
            on(Event {
                sequence,
                total_len: count(left),
                head: &payload[..left.min(self.keep_bytes_max)],
            });
            return rest;
        }
        if left == 0 {
            return self.read_payload(0, sequence, false, rest, on);
        }
        self.place = Place::Payload {
            left,
            sequence,
            is_continued,
        };
        rest
    }

    fn read_payload<'c>(
        &mut self,
        left: usize,
        sequence: u8,
        is_continued: bool,
        chunk: &'c [u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> &'c [u8] {
        let (bytes, rest) = chunk.split_at(chunk.len().min(left));
        let room = self.keep_bytes_max - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.total_len = self.total_len.saturating_add(count(bytes.len()));
        if bytes.len() < left {
            self.place = Place::Payload {
                left: left - bytes.len(),
                sequence,
                is_continued,
            };
            return rest;
        }
        self.place = BETWEEN;
        self.is_joining = is_continued;
        if !is_continued {
            on(Event {
                sequence,
                total_len: self.total_len,
                head: &self.kept,
            });
            self.total_len = 0;
            self.kept.clear();
            self.kept.shrink_to(SPARE_BYTES_MAX);
        }
        rest
    }
}

impl fmt::Debug for Scanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner")
            .field("place", &self.place)
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
