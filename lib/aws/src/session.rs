//! What sessions of assumed roles are called, and what is sent along with them.
//!
//! Policies may grant by any of it, so what AWS would not take is changed in a way that keeps two different texts
//! different.

use std::collections::BTreeMap;

/// The longest session name that AWS takes.
pub const SESSION_NAME_CHARS_MAX: usize = 64;

/// The longest value of a session tag that AWS takes.
pub const TAG_VALUE_CHARS_MAX: usize = 256;

/// The shortest session name that AWS takes.
const SESSION_NAME_CHARS_MIN: usize = 2;

const HASH_DIGITS: usize = 16;

/// What assumed-role sessions are called in CloudTrail and in `aws:userid`, and the source identity and tags that
/// policies may also ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionTag {
    name: String,
    source_identity: Option<String>,
    tags: BTreeMap<String, String>,
}

impl SessionTag {
    /// A session named after `name`, in the 2 to 64 characters of `[\w+=,.@-]` that AWS takes.
    ///
    /// Other characters become `-`. A name that had to be changed or cut ends in a hash of the
    /// whole, since policies may grant by session name: two people never share one by accident.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: session_name(name),
            source_identity: None,
            tags: BTreeMap::new(),
        }
    }

    /// Also sets the source identity, which later hops inherit and cannot change. Each role's trust
    /// policy must then allow `sts:SetSourceIdentity`, so it is off unless asked for.
    #[must_use]
    pub fn with_source_identity(self, identity: &str) -> Self {
        Self {
            source_identity: Some(session_name(identity)),
            ..self
        }
    }

    /// Also sets a session tag, on each hop. Each role's trust policy must then allow `sts:TagSession`. A value that AWS
    /// would not take is changed as a name is; the key has to be one that AWS takes.
    #[must_use]
    pub fn with_tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.to_owned(), tag_value(value));
        self
    }

    /// The session name as AWS gets it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The source identity as AWS gets it, where one is wanted.
    #[must_use]
    pub fn source_identity(&self) -> Option<&str> {
        self.source_identity.as_deref()
    }

    /// The session tags as AWS gets them.
    #[must_use]
    pub const fn tags(&self) -> &BTreeMap<String, String> {
        &self.tags
    }
}

fn session_name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    fitted(
        name,
        SESSION_NAME_CHARS_MIN,
        SESSION_NAME_CHARS_MAX,
        allowed,
    )
}

/// Source: AWS STS API reference, `Tag`: letters, digits, separators and `_.:/=+-@`.
fn tag_value(value: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    fitted(value, 0, TAG_VALUE_CHARS_MAX, allowed)
}

fn fitted(text: &str, least: usize, most: usize, allowed: impl Fn(char) -> bool) -> String {
    if text.chars().all(&allowed) && (least..=most).contains(&text.chars().count()) {
        return text.to_owned();
    }
    let prefix: String = text
        .chars()
        .take(most - HASH_DIGITS - 1)
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    format!("{prefix}-{:016x}", fnv1a_64(text.as_bytes()))
}

/// FNV-1a with 64 bits: stable over versions and machines, which the standard hasher is not.
fn fnv1a_64(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_name_that_aws_takes_stays_as_it_is() {
        for name in [
            "alice",
            "alice@example.com",
            "a+b=c,d.e_f-g",
            &"x".repeat(64),
        ] {
            assert_eq!(SessionTag::new(name).name(), name);
        }
    }

    #[test]
    fn a_session_name_that_aws_would_refuse_is_made_to_fit_and_stays_distinct() {
        let long = SessionTag::new(&"x".repeat(65));
        assert_eq!(long.name().len(), 64);
        assert_ne!(long, SessionTag::new(&"x".repeat(66)));

        let spaced = SessionTag::new("ali ce");
        assert!(spaced.name().starts_with("ali-ce-"), "{spaced:?}");
        assert_ne!(spaced, SessionTag::new("ali/ce"));
        for short in ["", "a", "ü"] {
            assert!((2..=64).contains(&SessionTag::new(short).name().len()));
        }
    }

    #[test]
    fn a_tag_value_that_aws_would_refuse_is_made_to_fit_and_stays_distinct() {
        let value =
            |text: &str| SessionTag::new("alice").with_tag("user", text).tags()["user"].clone();
        for taken in ["", "role/reader", "Zoë @ team:a", &"x".repeat(256)] {
            assert_eq!(value(taken), taken);
        }
        assert_eq!(value(&"x".repeat(300)).len(), 256);
        assert_ne!(value("a#b"), value("a!b"));
    }
}
