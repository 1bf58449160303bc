//! Read masks over resources of any kind: which fields of a kind's message are sent.
//!
//! A path is a field of the message, a field of a message in it (`target.user`), or a key of a map (`labels.env`,
//! `traits.db_users`). No mask, and the path `*`, are all fields. Kind, name and revision of a resource are always sent.
//!
//! Masks are read by the contract's own description and work on encoded messages, so a new field needs nothing here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use prost::{
    Message as _,
    bytes::Buf,
    encoding::{
        DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
    },
};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FieldMask, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use tidegate_proto::{DESCRIPTOR, Invalid, v1};

use crate::inventory::nearest;

/// Most paths of one mask.
const PATHS_MAX: usize = 128;
/// Deepest path: no message of the contract is nested deeper.
const DEPTH_MAX: usize = 8;
/// The message that holds one resource of any kind.
const RESOURCE: &str = "Resource";
/// Its fields that are always sent: kind, name, revision.
const ALWAYS: [u32; 3] = [1, 2, 3];
/// The number of the key in an entry of a map.
const MAP_KEY: u32 = 1;

static CONTRACT: LazyLock<FileDescriptorSet> = LazyLock::new(|| {
    // A build whose own description is damaged serves no reflection either; no mask is understood then.
    FileDescriptorSet::decode(DESCRIPTOR).unwrap_or_default()
});

/// What is kept of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Keep {
    /// These keys of a map.
    Keys(BTreeSet<String>),
    /// Parts of a message.
    Parts(BTreeMap<u32, Self>),
    /// All of it.
    Whole,
}

/// Which fields of a kind's message are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask {
    /// Of a resource; `None` is all.
    kept: Option<BTreeMap<u32, Keep>>,
}

impl Mask {
    /// Reads a mask over resources of a kind.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a path that is no field.
    pub(crate) fn new(kind: &str, mask: Option<FieldMask>) -> Result<Self, Invalid> {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.len() > PATHS_MAX {
            let problem = format!("holds more than {PATHS_MAX} paths");
            return Err(Invalid::new("read_mask", problem));
        }
        if paths.is_empty() || paths.iter().any(|path| path == "*") {
            return Ok(Self::default());
        }
        let body = message(RESOURCE)
            .and_then(|resource| resource.field.iter().find(|field| field.name() == kind))
            .ok_or_else(|| Invalid::new("kind", "has no message"))?;
        let mut parts = BTreeMap::new();
        for path in &paths {
            keep(&mut parts, of(body), path, DEPTH_MAX)
                .map_err(|problem| Invalid::new("read_mask", problem))?;
        }
        let mut kept = BTreeMap::from(ALWAYS.map(|number| (number, Keep::Whole)));
        kept.insert(number(body), Keep::Parts(parts));
        Ok(Self { kept: Some(kept) })
    }

    /// Takes away what is not asked for.
    pub(crate) fn apply(&self, resource: v1::Resource) -> v1::Resource {
        let Some(kept) = &self.kept else {
            return resource;
        };
        let mut cut = Vec::new();
        let encoded = resource.encode_to_vec();
        let parsed =
            prune(&encoded, kept, &mut cut).and_then(|()| v1::Resource::decode(&*cut).ok());
        // What was encoded here can be read here; were it not so, nothing but the name would be sent.
        parsed.unwrap_or(v1::Resource {
            body: None,
            ..resource
        })
    }
}

fn message(name: &str) -> Option<&'static DescriptorProto> {
    let of_ours = |file: &&prost_types::FileDescriptorProto| file.package() == "tidegate.v1";
    let mut messages = CONTRACT
        .file
        .iter()
        .filter(of_ours)
        .flat_map(|file| &file.message_type);
    messages.find(|message| message.name() == name)
}

/// The message that a field holds; `None` for other fields and for messages that are not ours, which are one thing.
fn of(field: &FieldDescriptorProto) -> Option<&'static DescriptorProto> {
    let name = field.type_name().strip_prefix(".tidegate.v1.")?;
    message(name).filter(|_| field.r#type() == Type::Message)
}

/// Whether a field of a message is a map; entries of maps are messages inside that message.
fn is_map(within: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
    let entry = field.type_name().rsplit('.').next().unwrap_or_default();
    let mut nested = within.nested_type.iter();
    nested.any(|nested| {
        let options = nested.options.as_ref();
        nested.name() == entry && options.is_some_and(prost_types::MessageOptions::map_entry)
    })
}

fn number(field: &FieldDescriptorProto) -> u32 {
    u32::try_from(field.number()).unwrap_or_default()
}

/// Adds a path to what is kept of a message.
fn keep(
    parts: &mut BTreeMap<u32, Keep>,
    within: Option<&'static DescriptorProto>,
    path: &str,
    depth: usize,
) -> Result<(), String> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let fields = within
        .map(|message| message.field.as_slice())
        .unwrap_or_default();
    let Some((within, field)) = within.zip(fields.iter().find(|field| field.name() == name)) else {
        let known = fields.iter().map(FieldDescriptorProto::name);
        return Err(format!(
            "has no field `{}`: {}",
            shortened(name),
            nearest(name, known)
        ));
    };
    let number = number(field);
    let Some(rest) = rest else {
        parts.insert(number, Keep::Whole);
        return Ok(());
    };
    if is_map(within, field) {
        let kept = parts
            .entry(number)
            .or_insert_with(|| Keep::Keys(BTreeSet::new()));
        if let Keep::Keys(keys) = kept {
            keys.insert(rest.to_owned());
        }
        return Ok(());
    }
    if field.label() == Label::Repeated || of(field).is_none() || depth == 0 {
        return Err(format!(
            "cannot look into `{}`: name it whole",
            shortened(name)
        ));
    }
    let kept = parts
        .entry(number)
        .or_insert_with(|| Keep::Parts(BTreeMap::new()));
    match kept {
        Keep::Parts(inner) => keep(inner, of(field), rest, depth - 1),
        // All of it is kept already, but what is written must make sense all the same.
        Keep::Keys(_) | Keep::Whole => keep(&mut BTreeMap::new(), of(field), rest, depth - 1),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Copies what is kept of an encoded message; `None` when it is damaged.
fn prune(message: &[u8], kept: &BTreeMap<u32, Keep>, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = message;
    while rest.has_remaining() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let content = rest;
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
        let whole = &field[..field.len() - rest.len()];
        let content = &content[..content.len() - rest.len()];
        match kept.get(&number) {
            None => {}
            Some(Keep::Keys(keys)) if !keys.contains(key_of(body(content)?)?) => {}
            Some(Keep::Keys(_) | Keep::Whole) => out.extend_from_slice(whole),
            Some(Keep::Parts(inner)) => {
                let mut cut = Vec::new();
                prune(body(content)?, inner, &mut cut)?;
                encode_key(number, WireType::LengthDelimited, out);
                encode_varint(cut.len() as u64, out);
                out.extend_from_slice(&cut);
            }
        }
    }
    Some(())
}

/// The bytes of a field that begins with its length.
fn body(content: &[u8]) -> Option<&[u8]> {
    let mut rest = content;
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    rest.get(..length)
}

/// The key of an entry of a map; empty when it is left out.
fn key_of(entry: &[u8]) -> Option<&str> {
    let mut rest = entry;
    while rest.has_remaining() {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let content = rest;
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
        if number == MAP_KEY {
            return std::str::from_utf8(body(content)?).ok();
        }
    }
    Some("")
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::resource::Body;

    use super::*;

    fn mask(kind: &str, paths: &[&str]) -> Result<Mask, Invalid> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Mask::new(kind, Some(FieldMask { paths }))
    }

    fn user() -> v1::User {
        let values = |value: &str| v1::LabelValues {
            values: vec![value.to_owned()],
        };
        v1::User {
            name: "alice".to_owned(),
            roles: vec!["access".to_owned(), "editor".to_owned()],
            traits: [("a.b", "x"), ("c", "y")]
                .map(|(key, value)| (key.to_owned(), values(value)))
                .into(),
            signed_up: true,
            ..v1::User::default()
        }
    }

    fn resource(kind: &str, body: Body) -> v1::Resource {
        v1::Resource {
            kind: kind.to_owned(),
            name: "n".to_owned(),
            revision: 3,
            body: Some(body),
        }
    }

    #[test]
    fn a_mask_keeps_what_it_names_and_who_it_is_of() {
        let all = resource("user", Body::User(user()));
        let kept = |paths: &[&str]| mask("user", paths).unwrap().apply(all.clone());
        assert_eq!(kept(&[]), all);
        assert_eq!(kept(&["name", "*"]), all);
        let some = kept(&["roles", "traits.a.b", "traits.none"]);
        let expected = v1::User {
            name: String::new(),
            signed_up: false,
            traits: [("a.b".to_owned(), user().traits["a.b"].clone())].into(),
            ..user()
        };
        assert_eq!(some, resource("user", Body::User(expected)));
        assert_eq!(kept(&["traits.c", "traits"]), kept(&["traits"]));
        assert_eq!(kept(&["traits", "traits.c"]), kept(&["traits"]));
        let nothing = kept(&["created_at"]);
        assert_eq!(nothing, resource("user", Body::User(v1::User::default())));
    }

    #[test]
    fn a_mask_looks_into_messages() {
        let target = v1::LockTarget {
            user: "alice".to_owned(),
            role: "access".to_owned(),
            ..v1::LockTarget::default()
        };
        let lock = v1::Lock {
            name: "l".to_owned(),
            target: Some(target),
            ..v1::Lock::default()
        };
        let masked = mask("lock", &["target.user"]).unwrap();
        let Some(Body::Lock(lock)) = masked.apply(resource("lock", Body::Lock(lock))).body else {
            panic!("a lock stays a lock");
        };
        let target = lock.target.unwrap();
        assert_eq!((lock.name.as_str(), target.user.as_str()), ("", "alice"));
        assert_eq!(target.role, "");
    }

    #[test]
    fn a_path_that_is_no_field_is_refused_with_what_may_be_meant() {
        for (kind, path, problem) in [
            ("user", "nmae", "did you mean `name`"),
            ("user", "roles.x", "name it whole"),
            ("user", "name.x", "name it whole"),
            ("user", "created_at.seconds", "name it whole"),
            ("user", "", "has no field"),
            ("lock", "target.usre", "did you mean `user`"),
            ("nothing", "name", "has no message"),
        ] {
            let invalid = mask(kind, &[path]).unwrap_err();
            assert!(invalid.problem.contains(problem), "{path}: {invalid}");
        }
        assert!(mask("user", &["name"; 129]).is_err());
    }

    #[test]
    fn every_kind_has_a_message_whose_every_field_a_mask_can_name() {
        for (kind, _) in tidegate_core::predicate::reference::KINDS {
            let resource = message(RESOURCE).unwrap();
            let field = resource.field.iter().find(|field| field.name() == kind);
            for field in &of(field.unwrap()).unwrap().field {
                assert!(
                    mask(kind, &[field.name()]).is_ok(),
                    "{kind}.{}",
                    field.name()
                );
            }
        }
    }
}
