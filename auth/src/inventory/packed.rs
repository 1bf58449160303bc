//! Messages kept as they are encoded, and read where they lie.
//!
//! A row in memory is one buffer of the bytes that the store holds too, and not a dozen strings: a cluster has millions of
//! rows and looks at few fields of few of them at a time. Finding a field walks over those before it, some tens of
//! nanoseconds; the whole message is decoded when it is sent.

use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

/// A message as it is encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packed(Box<[u8]>);

impl Packed {
    /// Packs a message.
    pub(crate) fn new(message: &impl Message) -> Self {
        Self(message.encode_to_vec().into_boxed_slice())
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

#[cfg(test)]
mod tests {
    use tidegate_proto::v1;

    use super::*;

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
        let packed = Packed::new(&message);
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
