//! What sessions of IAM roles are called when somebody logs in to a database.
//!
//! AWS's own trail shows the name of a role's session, its source identity and its tags, and policies may ask for them:
//! the name by `aws:userid`, which is compared with `${redshift:DbUser}` where a person may be one database user only.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::ids::InvalidId;

/// The most session tags that AWS takes.
pub const SESSION_TAGS_MAX: usize = 50;

/// The longest key of a session tag that AWS takes.
pub const SESSION_TAG_KEY_CHARS_MAX: usize = 128;

/// The longest template.
const TEMPLATE_CHARS_MAX: usize = 256;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts<'f> {
    /// The person.
    pub user: &'f str,
    /// The database user, as the person wrote it.
    pub db_user: &'f str,
    /// The database's name in the inventory.
    pub database: &'f str,
}

/// How sessions are called, and what is sent along with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionNaming {
    /// The session's name. Default `{user}`.
    pub name: Template,
    /// The source identity; none is set without it, since every role's trust would have to allow it.
    pub source_identity: Option<Template>,
    /// Session tags by key; none by default, for the same reason.
    pub tags: BTreeMap<String, Template>,
}

impl Default for SessionNaming {
    fn default() -> Self {
        Self {
            name: Template {
                parts: vec![Part::Fact(Fact::User)],
            },
            source_identity: None,
            tags: BTreeMap::new(),
        }
    }
}

/// Text with `{user}`, `{db_user}` and `{database}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Fact(Fact),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Database,
    DbUser,
    User,
}

impl Fact {
    const ALL: [Self; 3] = [Self::Database, Self::DbUser, Self::User];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::DbUser => "db_user",
            Self::User => "user",
        }
    }
}

impl Template {
    /// The text with its facts filled in.
    #[must_use]
    pub fn fill_in(&self, facts: SessionFacts<'_>) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Fact(Fact::Database) => facts.database,
                Part::Fact(Fact::DbUser) => facts.db_user,
                Part::Fact(Fact::User) => facts.user,
            })
            .collect()
    }
}

impl FromStr for Template {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            what: "template of a session's name",
            value: text.to_owned(),
            expected: "letters, digits and `_+=,.@-` with `{user}`, `{db_user}` or `{database}` among them",
        };
        if text.is_empty() || text.len() > TEMPLATE_CHARS_MAX {
            return Err(invalid());
        }
        let is_plain = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
        };
        let (mut parts, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let plain = rest.find('{').unwrap_or(rest.len());
            let (before, behind) = rest.split_at(plain);
            if !is_plain(before) {
                return Err(invalid());
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            rest = behind;
            if let Some(behind) = behind.strip_prefix('{') {
                let (named, behind) = behind.split_once('}').ok_or_else(invalid)?;
                let fact = Fact::ALL.into_iter().find(|fact| fact.as_str() == named);
                parts.push(Part::Fact(fact.ok_or_else(invalid)?));
                rest = behind;
            }
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Fact(fact) => write!(f, "{{{}}}", fact.as_str()),
        })
    }
}

/// Whether AWS takes a key of a session tag.
///
/// Source: AWS STS API reference, `Tag`; keys that begin with `aws:` are AWS's own.
#[must_use]
pub fn is_session_tag_key(key: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    (1..=SESSION_TAG_KEY_CHARS_MAX).contains(&key.chars().count())
        && key.chars().all(allowed)
        && !key.to_ascii_lowercase().starts_with("aws:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: SessionFacts<'static> = SessionFacts {
        user: "alice",
        db_user: "reader",
        database: "orders",
    };

    #[test]
    fn a_template_is_filled_in_and_prints_back() {
        for (written, filled) in [
            ("{user}", "alice"),
            ("tidegate", "tidegate"),
            ("{db_user}@{database}", "reader@orders"),
            ("tg-{user}-{user}.x", "tg-alice-alice.x"),
        ] {
            let template: Template = written.parse().unwrap();
            assert_eq!(template.fill_in(FACTS), filled);
            assert_eq!(template.to_string(), written);
        }
        assert_eq!(SessionNaming::default().name.to_string(), "{user}");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for written in ["", "{user", "{nobody}", "a b", "user}", "{}", "a/b"] {
            assert!(written.parse::<Template>().is_err(), "{written}");
        }
    }

    #[test]
    fn keys_of_session_tags_are_checked() {
        assert!(is_session_tag_key("team/owner 1"));
        for key in ["", "aws:user", "AWS:x", "a#b", &"x".repeat(129)] {
            assert!(!is_session_tag_key(key), "{key}");
        }
    }
}
