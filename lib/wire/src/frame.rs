//! Tagged messages: one byte of type, four bytes of length that count themselves, a body.
//!
//! [`peek_header`] is for the login, where each message is read whole and answered. [`Scanner`] is
//! for everything after it: bytes pass untouched elsewhere, and the scanner, fed with the same
//! bytes, tells which messages went by and keeps the first bytes of each for audit.
//!
//! Invariant: a scanner's memory never depends on what the stream declares or holds, only on its
//! `keep_bytes_max`; and what it reports never depends on how the stream was cut into chunks.

use std::fmt;

/// The longest body of any message: PostgreSQL's limit on one allocation.
pub const FRAME_BYTES_MAX: usize = 1 << 30;

/// The longest body of a message that is read whole during login.
pub const LOGIN_FRAME_BYTES_MAX: usize = 64 << 10;

/// Bytes of type and length before a body.
pub const HEADER_BYTES: usize = 5;

/// A scanner gives buffers above this size back after each message, so that idle sessions hold little.
const SPARE_BYTES_MAX: usize = 1 << 10;

/// Type and length of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub tag: u8,
    /// Bytes of the body, without type and length word.
    pub len: usize,
}

impl Header {
    /// Bytes of the whole message, header included.
    pub fn total(self) -> usize {
        HEADER_BYTES + self.len
    }
}

/// A length that no message can have. There is no way to find the next message after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than allowed at this point of the connection.
    #[error("message {:?} declares {declared} bytes; the limit here is {bytes_max}", char::from(*tag))]
    TooLong {
        /// The type byte.
        tag: u8,
        /// The length word as sent.
        declared: u32,
        /// The longest body allowed.
        bytes_max: usize,
    },

    /// Shorter than the length word itself.
    #[error("message {:?} declares {declared} bytes, fewer than its own length word", char::from(*tag))]
    TooShort {
        /// The type byte.
        tag: u8,
        /// The length word as sent.
        declared: u32,
    },
}

/// Reads the header at the front of `buf`; `None` when fewer than [`HEADER_BYTES`] are there.
///
/// # Errors
///
/// [`FrameError`] when the declared body is impossible or longer than `bytes_max`
/// ([`LOGIN_FRAME_BYTES_MAX`] before a session runs, [`FRAME_BYTES_MAX`] after).
pub fn peek_header(buf: &[u8], bytes_max: usize) -> Result<Option<Header>, FrameError> {
    match buf {
        [tag, a, b, c, d, ..] => header([*tag, *a, *b, *c, *d], bytes_max).map(Some),
        _ => Ok(None),
    }
}

fn header(bytes: [u8; HEADER_BYTES], bytes_max: usize) -> Result<Header, FrameError> {
    let [tag, len @ ..] = bytes;
    let declared = u32::from_be_bytes(len);
    let body = declared
        .checked_sub(4)
        .ok_or(FrameError::TooShort { tag, declared })?;
    match usize::try_from(body) {
        Ok(len) if len <= bytes_max => Ok(Header { tag, len }),
        _ => Err(FrameError::TooLong {
            tag,
            declared,
            bytes_max,
        }),
    }
}

/// One message that went by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The type byte.
    pub tag: u8,
    /// Bytes of the whole message, header included.
    pub total_len: usize,
    /// The first bytes of the body, up to `keep_bytes_max`; empty for bulk data.
    pub head: &'a [u8],
    /// Whether `head` is the whole body.
    pub complete: bool,
}

impl fmt::Debug for Event<'_> {
    /// Shows no content: statements and parameters may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("tag", &char::from(self.tag))
            .field("total_len", &self.total_len)
            .field("kept", &self.head.len())
            .field("complete", &self.complete)
            .finish()
    }
}

/// Who sends the stream; the same letters mean different messages in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Client,
    Database,
}

impl Sender {
    /// Whether a message is table data, of which nothing is ever kept.
    fn is_bulk(self, tag: u8) -> bool {
        match self {
            Self::Client => tag == b'd',
            Self::Database => matches!(tag, b'd' | b'D'),
        }
    }
}

/// Where in the stream the scanner stands.
#[derive(Debug)]
enum Place {
    /// Inside a header, of which this much was seen.
    Header {
        seen: [u8; HEADER_BYTES],
        len: usize,
    },
    /// Inside a body, with this much still to come.
    Body { header: Header, left: usize },
    /// Behind an impossible length: nothing more can be told.
    Lost(FrameError),
}

const BETWEEN: Place = Place::Header {
    seen: [0; HEADER_BYTES],
    len: 0,
};

/// Follows one direction of a session after login, by chunks of any size. Debug shows no content.
pub struct Scanner {
    sender: Sender,
    keep_bytes_max: usize,
    place: Place,
    kept: Vec<u8>,
}

impl Scanner {
    /// Follows what a client sends; keeps at most `keep_bytes_max` bytes of a body.
    pub fn client(keep_bytes_max: usize) -> Self {
        Self::new(Sender::Client, keep_bytes_max)
    }

    /// Follows what a database sends; keeps at most `keep_bytes_max` bytes of a body.
    pub fn database(keep_bytes_max: usize) -> Self {
        Self::new(Sender::Database, keep_bytes_max)
    }

    fn new(sender: Sender, keep_bytes_max: usize) -> Self {
        Self {
            sender,
            keep_bytes_max,
            place: BETWEEN,
            kept: Vec::new(),
        }
    }

    /// Whether the stream stands between two messages: only there may a message of our own go in.
    pub fn at_boundary(&self) -> bool {
        matches!(self.place, Place::Header { len: 0, .. })
    }

    /// Takes the next bytes of the stream and reports each message that ends in them.
    ///
    /// # Errors
    ///
    /// [`FrameError`] at an impossible length, and the same again for every later chunk.
    pub fn feed(
        &mut self,
        mut chunk: &[u8],
        mut on: impl FnMut(Event<'_>),
    ) -> Result<(), FrameError> {
        while !chunk.is_empty() {
            chunk = match self.place {
                Place::Header { seen, len } => self.read_header(seen, len, chunk, &mut on)?,
                Place::Body { header, left } => self.read_body(header, left, chunk, &mut on),
                Place::Lost(error) => return Err(error),
            };
        }
        if let Place::Lost(error) = self.place {
            Err(error)
        } else {
            Ok(())
        }
    }

    fn read_header<'c>(
        &mut self,
        mut seen: [u8; HEADER_BYTES],
        len: usize,
        chunk: &'c [u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<&'c [u8], FrameError> {
        let (bytes, rest) = chunk.split_at(chunk.len().min(HEADER_BYTES - len));
        seen[len..len + bytes.len()].copy_from_slice(bytes);
        let len = len + bytes.len();
        if len < HEADER_BYTES {
            self.place = Place::Header { seen, len };
            return Ok(rest);
        }
        let header =
            header(seen, FRAME_BYTES_MAX).inspect_err(|error| self.place = Place::Lost(*error))?;
        if rest.len() >= header.len {
            let (body, rest) = rest.split_at(header.len);
            self.place = BETWEEN;
            on(self.event(header, &body[..self.keep_max(header)]));
            return Ok(rest);
        }
        self.place = Place::Body {
            header,
            left: header.len,
        };
        Ok(rest)
    }

    fn read_body<'c>(
        &mut self,
        header: Header,
        left: usize,
        chunk: &'c [u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> &'c [u8] {
        let (bytes, rest) = chunk.split_at(chunk.len().min(left));
        let room = self.keep_max(header) - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() < left {
            self.place = Place::Body {
                header,
                left: left - bytes.len(),
            };
            return rest;
        }
        self.place = BETWEEN;
        on(self.event(header, &self.kept));
        self.kept.clear();
        self.kept.shrink_to(SPARE_BYTES_MAX);
        rest
    }

    /// How much of this body is kept.
    fn keep_max(&self, header: Header) -> usize {
        if self.sender.is_bulk(header.tag) {
            0
        } else {
            header.len.min(self.keep_bytes_max)
        }
    }

    fn event<'a>(&self, header: Header, head: &'a [u8]) -> Event<'a> {
        Event {
            tag: header.tag,
            total_len: header.total(),
            head,
            complete: head.len() == header.len,
        }
    }
}

impl fmt::Debug for Scanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner")
            .field("sender", &self.sender)
            .field("place", &self.place)
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}
