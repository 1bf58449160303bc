//! Integers and texts as this protocol writes them: little-endian, with lengths of one to nine bytes.
//!
//! Source: MySQL documentation, "Protocol::LengthEncodedInteger".

use bytes::{BufMut, BytesMut};

use crate::read::Reader;

/// First byte of NULL in a row, and of a request for a file.
pub(crate) const NULL: u8 = 0xfb;

pub(crate) fn u16_le(reader: &mut Reader<'_>) -> Option<u16> {
    let bytes = reader.take(2)?;
    Some(u16::from_le_bytes([bytes[0], bytes[1]]))
}

pub(crate) fn u32_le(reader: &mut Reader<'_>) -> Option<u32> {
    let bytes = reader.take(4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// An integer behind a byte that says how long it is; `None` for what is no integer.
pub(crate) fn lenenc(reader: &mut Reader<'_>) -> Option<u64> {
    let len = match reader.u8()? {
        small @ 0..NULL => return Some(u64::from(small)),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        NULL | 0xff => return None,
    };
    let mut bytes = [0; 8];
    bytes[..len].copy_from_slice(reader.take(len)?);
    Some(u64::from_le_bytes(bytes))
}

/// Bytes behind their length.
pub(crate) fn lenenc_bytes<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = lenenc(reader)?;
    reader.take(usize::try_from(len).ok()?)
}

pub(crate) fn put_lenenc(out: &mut BytesMut, value: u64) {
    match value {
        0..=0xfa => out.put_uint_le(value, 1),
        0xfb..=0xffff => {
            out.put_u8(0xfc);
            out.put_uint_le(value, 2);
        }
        0x1_0000..=0xff_ffff => {
            out.put_u8(0xfd);
            out.put_uint_le(value, 3);
        }
        _ => {
            out.put_u8(0xfe);
            out.put_u64_le(value);
        }
    }
}

pub(crate) fn put_lenenc_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_lenenc(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_integer_reads_as_it_was_written(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = BytesMut::new();
            put_lenenc(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(lenenc(&mut reader), Some(value));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn null_and_error_are_no_integers() {
        for first in [0xfb, 0xff] {
            assert_eq!(lenenc(&mut Reader::new(&[first, 0, 0])), None);
        }
    }
}
