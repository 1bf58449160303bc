//! One line of an export: the event as JSON, and what proves it.
//!
//! `record` holds the exact bytes that were hashed, so that a line can be verified after other programs wrote it anew
//! with other spaces or another order; every other field must be what `record` says.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::{EventJson, HASH_BYTES, Hash};
use crate::v1::AuditEvent;

/// A line to be written.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The log's id.
    pub log: &'a str,
    /// The record's hash.
    pub hash: &'a [u8],
    /// Its bytes.
    pub record: &'a [u8],
    /// What they decode to.
    pub event: &'a AuditEvent,
}

impl Line<'_> {
    /// Appends the line, with its newline.
    ///
    /// # Errors
    ///
    /// Never for a line that was made from an event; serde's writers may fail.
    pub fn append_to(&self, text: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(&mut *text, self)?;
        text.push(b'\n');
        Ok(())
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        EventJson(self.event).write(&mut map)?;
        map.serialize_entry("log", self.log)?;
        map.serialize_entry("hash", &hex(self.hash))?;
        map.serialize_entry("record", &STANDARD.encode(self.record))?;
        map.end()
    }
}

/// Why a line of an export cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidLine {
    /// A field that every line has is missing or is no text that it could be.
    #[error("has no usable `{0}`")]
    Field(&'static str),
    /// It is not one JSON object.
    #[error("is no JSON object")]
    NoObject,
}

/// A line that was read.
#[derive(Debug)]
pub struct ReadLine {
    /// The log's id.
    pub log: String,
    /// The record's hash.
    pub hash: Hash,
    /// Its bytes.
    pub record: Vec<u8>,
    /// What they decode to.
    pub event: AuditEvent,
    /// Whether every other field is what `record` says.
    pub is_faithful: bool,
}

impl std::str::FromStr for ReadLine {
    type Err = InvalidLine;

    fn from_str(line: &str) -> Result<Self, InvalidLine> {
        let Ok(Value::Object(found)) = serde_json::from_str(line) else {
            return Err(InvalidLine::NoObject);
        };
        let text = |name| {
            let value = found.get(name).and_then(Value::as_str);
            value.ok_or(InvalidLine::Field(name))
        };
        let log = text("log")?.to_owned();
        let hash = read_hash(text("hash")?).ok_or(InvalidLine::Field("hash"))?;
        let record = STANDARD
            .decode(text("record")?)
            .map_err(|_| InvalidLine::Field("record"))?;
        let event =
            AuditEvent::decode(record.as_slice()).map_err(|_| InvalidLine::Field("record"))?;
        let written = Line {
            log: &log,
            hash: &hash,
            record: &record,
            event: &event,
        };
        let is_faithful =
            serde_json::to_value(written).is_ok_and(|written| written == Value::Object(found));
        Ok(Self {
            log,
            hash,
            record,
            event,
            is_faithful,
        })
    }
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

/// A hash from its 64 hexadecimal digits.
#[must_use]
pub fn read_hash(text: &str) -> Option<Hash> {
    let mut hash = [0; HASH_BYTES];
    if text.len() != 2 * HASH_BYTES || !text.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> String {
        let event = AuditEvent {
            uid: "u".to_owned(),
            user: "alice".to_owned(),
            server_id: "host-1".to_owned(),
            sequence: 1,
            ..AuditEvent::default()
        };
        let record = event.encode_to_vec();
        let mut text = Vec::new();
        Line {
            log: "log-1",
            hash: &[7; HASH_BYTES],
            record: &record,
            event: &event,
        }
        .append_to(&mut text)
        .unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_reads_back_also_when_it_was_written_anew() {
        let read: ReadLine = line().parse().unwrap();
        assert!(read.is_faithful);
        assert_eq!((read.hash, read.event.sequence), ([7; HASH_BYTES], 1));
        let value: Value = serde_json::from_str(&line()).unwrap();
        let anew: ReadLine = serde_json::to_string_pretty(&value)
            .unwrap()
            .parse()
            .unwrap();
        assert!(anew.is_faithful);
    }

    #[test]
    fn a_field_that_says_something_else_than_the_record_shows() {
        for (was, now) in [
            ("\"alice\"", "\"bob\""),
            ("\"sequence\":1", "\"sequence\":2"),
            ("\"uid\"", "\"error\":\"x\",\"uid\""),
        ] {
            let read: ReadLine = line().replace(was, now).parse().unwrap();
            assert!(!read.is_faithful, "{was}");
        }
    }

    #[test]
    fn what_is_no_line_is_said() {
        let read = |text: &str| text.parse::<ReadLine>().unwrap_err();
        assert_eq!(read("x"), InvalidLine::NoObject);
        assert_eq!(read("{}"), InvalidLine::Field("log"));
        assert_eq!(
            read(&line().replace("\"hash\":\"0", "\"hash\":\"z")),
            InvalidLine::Field("hash")
        );
        assert_eq!(
            read(&line().replace("\"record\":\"", "\"record\":\"*")),
            InvalidLine::Field("record")
        );
    }
}
