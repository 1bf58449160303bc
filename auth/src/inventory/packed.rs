//! Messages kept as they are encoded, and read where they lie.
//!
//! A row in memory is one buffer of the bytes that the store holds too, and not a dozen strings: a cluster has millions of
//! rows and looks at few fields of few of them at a time. Finding a field walks over those before it, some tens of
//! nanoseconds; the whole message is decoded when it is sent.

use prost::{
    DecodeError, Message,
    bytes::BufMut as _,
    encoding::{
        DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
    },
};
use tidegate_core::Labels;

/// Number of the labels in `tidegate.v1.Database`.
const LABELS: u32 = 3;
/// Numbers of the parts of an entry of a map.
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// A message as it is encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packed(Box<[u8]>);

impl Packed {
    /// Packs a message that is encoded already, without the labels of the database that it has in a field; and those
    /// labels.
    ///
    /// # Errors
    ///
    /// The bytes are no message.
    pub(crate) fn without_labels(
        bytes: &[u8],
        database: u32,
    ) -> Result<(Self, Labels), DecodeError> {
        let mut packed = Vec::with_capacity(bytes.len());
        let mut labels = Vec::new();
        for field in Parts(bytes) {
            let field = field?;
            if field.tag != database {
                packed.put_slice(field.whole);
                continue;
            }
            let mut bare = Vec::with_capacity(field.content.len());
            for field in Parts(field.content) {
                let field = field?;
                if field.tag == LABELS {
                    let entry = Wire(field.content);
                    labels.push((entry.text(KEY), entry.text(VALUE)));
                } else {
                    bare.put_slice(field.whole);
                }
            }
            encode_key(database, WireType::LengthDelimited, &mut packed);
            encode_varint(bare.len() as u64, &mut packed);
            packed.put_slice(&bare);
        }
        Ok((
            Self(packed.into_boxed_slice()),
            labels.into_iter().collect(),
        ))
    }

    /// The message. What was packed is of this type, so it can be read.
    pub(crate) fn unpack<M: Message + Default>(&self) -> M {
        M::decode(&*self.0).unwrap_or_default()
    }

    /// The fields.
    pub(crate) fn fields(&self) -> Wire<'_> {
        Wire(&self.0)
    }
}

/// The fields of an encoded message; those that it does not have read as empty or 0, as protobuf has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'w>(&'w [u8]);

impl<'w> Wire<'w> {
    /// A message in this one; an empty one when there is none.
    pub(crate) fn message(self, tag: u32) -> Self {
        Self(self.bytes(tag))
    }

    /// A text.
    pub(crate) fn text(self, tag: u32) -> &'w str {
        std::str::from_utf8(self.bytes(tag)).unwrap_or_default()
    }

    /// A number that is no negative one.
    pub(crate) fn number(self, tag: u32) -> u64 {
        let found = self.find(tag, WireType::Varint);
        found
            .and_then(|mut rest| decode_varint(&mut rest).ok())
            .unwrap_or_default()
    }

    fn bytes(self, tag: u32) -> &'w [u8] {
        let content = || {
            let mut rest = self.find(tag, WireType::LengthDelimited)?;
            let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            rest.get(..len)
        };
        content().unwrap_or_default()
    }

    /// What follows the key of a field.
    fn find(self, tag: u32, kind: WireType) -> Option<&'w [u8]> {
        let mut rest = self.0;
        while !rest.is_empty() {
            let (at, wire_type) = decode_key(&mut rest).ok()?;
            if at == tag {
                return (wire_type == kind).then_some(rest);
            }
            skip_field(wire_type, at, &mut rest, DecodeContext::default()).ok()?;
        }
        None
    }
}

/// One field as it is encoded.
struct Part<'w> {
    tag: u32,
    /// Key and content.
    whole: &'w [u8],
    /// Of a text, of bytes or of a message; empty for others.
    content: &'w [u8],
}

/// The fields of a message, in the order they are encoded in.
struct Parts<'w>(&'w [u8]);

impl<'w> Parts<'w> {
    fn cut(&mut self) -> Result<Part<'w>, DecodeError> {
        let start = self.0;
        let (tag, kind) = decode_key(&mut self.0)?;
        let mut content = self.0;
        skip_field(kind, tag, &mut self.0, DecodeContext::default())?;
        let len = match kind {
            WireType::LengthDelimited => decode_varint(&mut content)?,
            _ => 0,
        };
        // What was skipped is there, so its length fits.
        let len = usize::try_from(len).unwrap_or_default();
        Ok(Part {
            tag,
            whole: &start[..start.len() - self.0.len()],
            content: content.get(..len).unwrap_or_default(),
        })
    }
}

impl<'w> Iterator for Parts<'w> {
    type Item = Result<Part<'w>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.cut();
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1;

    use super::*;

    fn packed(message: &impl Message) -> Packed {
        Packed(message.encode_to_vec().into_boxed_slice())
    }

    #[test]
    fn labels_are_taken_out_of_what_is_encoded() {
        let labels = [
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), String::new()),
        ];
        let database = v1::Database {
            name: "dw".to_owned(),
            labels: labels.clone().into(),
            uri: "h:1".to_owned(),
            revision: 7,
            ..v1::Database::default()
        };
        let server = v1::DatabaseServer {
            host_id: "h".to_owned(),
            database: Some(database.clone()),
            role_source: 2,
            ..v1::DatabaseServer::default()
        };
        let bytes = server.encode_to_vec();
        let (packed, read) = Packed::without_labels(&bytes, 4).unwrap();
        assert_eq!(read, labels.into_iter().collect());
        let database = v1::Database {
            labels: [].into(),
            ..database
        };
        let bare = v1::DatabaseServer {
            database: Some(database),
            ..server
        };
        assert_eq!(packed, self::packed(&bare));
        for cut in 1..bytes.len() {
            // Cut off anywhere it is another message or none, and never a panic.
            let _ = Packed::without_labels(&bytes[..cut], 4);
        }
        assert!(Packed::without_labels(&bytes[..bytes.len() - 1], 4).is_err());
    }

    #[test]
    fn fields_read_where_they_lie_as_they_were_packed() {
        let message = v1::Database {
            name: "dw".to_owned(),
            origin: v1::Origin::Dynamic.into(),
            aws: Some(v1::AwsMetadata {
                account_id: "111122223333".to_owned(),
                rds_iam_auth: Some(false),
                rdsproxy_name: "é".to_owned(),
                ..v1::AwsMetadata::default()
            }),
            revision: u64::MAX,
            ..v1::Database::default()
        };
        let packed = packed(&message);
        let fields = packed.fields();
        assert_eq!(packed.unpack::<v1::Database>(), message);
        assert_eq!(fields.text(1), "dw");
        assert_eq!(fields.number(4), 3);
        assert_eq!(fields.message(8).text(2), "111122223333");
        assert_eq!(fields.message(8).text(11), "é");
        assert_eq!(fields.number(13), u64::MAX);
        // What is not there, and what is something else.
        assert_eq!(fields.text(2), "");
        assert_eq!(fields.message(7).text(2), "");
        assert_eq!(fields.number(14), 0);
        assert_eq!(fields.number(1), 0);
        assert_eq!(fields.text(13), "");
    }
}
