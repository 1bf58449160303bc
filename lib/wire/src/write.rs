//! Writes tagged messages with the length that belongs to them.

use bytes::{BufMut, BytesMut};

/// The message `tag` with the body that `body` writes.
pub(crate) fn message(tag: u8, body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(tag);
    sized(&mut out, body);
    out
}

/// Four bytes of length, counting themselves, then what `body` writes.
pub(crate) fn sized(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    body(out);
    let len =
        u32::try_from(out.len() - start).expect("a message we write ourselves is far below 4 GiB");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// A NUL-terminated string. A NUL inside, which the protocol cannot carry, becomes U+FFFD: the
/// frame stays whole, and the text cannot be mistaken for its part before the NUL.
pub(crate) fn put_cstr(out: &mut BytesMut, text: &str) {
    let mut parts = text.split('\0');
    out.put_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        out.put_slice("\u{fffd}".as_bytes());
        out.put_slice(part.as_bytes());
    }
    out.put_u8(0);
}

/// Bytes behind their length in thirty-two bits, the length not counting itself.
pub(crate) fn put_vec32(out: &mut BytesMut, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("a field we write ourselves is far below 4 GiB");
    out.put_u32(len);
    out.put_slice(bytes);
}
