//! Names of discovered databases: `<id>-<type>[-aurora]-<region>-<account>`, overridden by a tag.
//!
//! A name is a view of an identity. Whoever holds a name keeps it; a newcomer that would get the same one takes the
//! full suffix, and if that is taken too a short hash of its identity is added. All of it is pure.

use crate::ids::DatabaseName;

/// Tags that name a database, in the order they are looked at.
pub const NAME_TAGS: [&str; 3] = [
    "TidegateDatabaseName",
    "TeleportDatabaseName",
    "teleport.dev/database_name",
];

/// What a name is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameParts<'p> {
    /// The identifier in AWS, or the value of a name tag.
    pub base: &'p str,
    /// Whether `base` came from a name tag: then no suffix is added.
    pub tagged: bool,
    /// Endpoint part appended to either (`reader`, `custom-x`, an endpoint's name); empty for the main endpoint.
    pub endpoint: &'p str,
    /// Suffix parts: type, subtype, region, account.
    pub suffix: &'p [&'p str],
}

/// The name that the value of the first non-empty name tag gives.
#[must_use]
pub fn name_tag<'t>(tag: impl Fn(&str) -> Option<&'t str>) -> Option<&'t str> {
    NAME_TAGS
        .iter()
        .find_map(|key| tag(key).filter(|value| !value.trim().is_empty()))
}

/// The undecorated name: what people call the database.
#[must_use]
pub fn undecorated(parts: &NameParts<'_>) -> String {
    join(parts.base, parts.endpoint)
}

/// The usual name: suffix parts that the name already contains are skipped.
///
/// `None` when nothing usable is left, such as an identifier that starts with a digit.
#[must_use]
pub fn usual(parts: &NameParts<'_>) -> Option<DatabaseName> {
    let mut name = undecorated(parts);
    if !parts.tagged {
        for part in parts.suffix {
            let part = clean(part);
            if !part.is_empty()
                && !name
                    .to_ascii_lowercase()
                    .contains(&part.to_ascii_lowercase())
            {
                name = join(&name, &part);
            }
        }
    }
    name.parse().ok()
}

/// The name with every suffix part, for a newcomer whose usual name is taken.
#[must_use]
pub fn full(parts: &NameParts<'_>) -> Option<DatabaseName> {
    let name = parts
        .suffix
        .iter()
        .fold(undecorated(parts), |name, part| join(&name, part));
    name.parse().ok()
}

/// The name for a newcomer when both others are taken: the full one and 8 hex digits of its identity's hash.
#[must_use]
pub fn hashed(parts: &NameParts<'_>, identity: &str) -> DatabaseName {
    let hash = format!("{:08x}", fnv1a(identity) & 0xffff_ffff);
    let base = full(parts).map_or_else(|| "db".to_owned(), |name| name.to_string());
    let mut base: String = base.chars().take(200).collect();
    while base.ends_with('-') {
        base.pop();
    }
    format!("{base}-{hash}")
        .parse()
        .expect("a valid name, a hyphen and hex digits are a valid name")
}

/// Chooses the name of a newcomer: usual, then full, then hashed; `taken` says which are in use by others.
#[must_use]
pub fn choose(
    parts: &NameParts<'_>,
    identity: &str,
    taken: impl Fn(&DatabaseName) -> bool,
) -> DatabaseName {
    usual(parts)
        .filter(|name| !taken(name))
        .or_else(|| full(parts).filter(|name| !taken(name)))
        .unwrap_or_else(|| hashed(parts, identity))
}

fn join(left: &str, right: &str) -> String {
    let (left, right) = (clean(left), clean(right));
    if right.is_empty() {
        left
    } else {
        format!("{left}-{right}")
    }
}

/// Spaces and what no name may hold become hyphens; runs collapse; ends are trimmed.
fn clean(part: &str) -> String {
    let mut cleaned = String::with_capacity(part.len());
    for c in part.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if c != '-' || !cleaned.ends_with('-') {
            cleaned.push(c);
        }
    }
    cleaned.trim_matches('-').to_owned()
}

/// FNV-1a, 64 bits: stable over versions and platforms, which the standard hasher is not.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUFFIX: [&str; 3] = ["redshift", "us-east-1", "123456789012"];

    fn parts(base: &str) -> NameParts<'_> {
        NameParts {
            base,
            tagged: false,
            endpoint: "",
            suffix: &SUFFIX,
        }
    }

    #[test]
    fn names_follow_the_known_scheme() {
        assert_eq!(
            usual(&parts("mycluster")).unwrap().as_str(),
            "mycluster-redshift-us-east-1-123456789012"
        );
        assert_eq!(
            usual(&parts("foo-redshift")).unwrap().as_str(),
            "foo-redshift-us-east-1-123456789012"
        );
    }

    #[test]
    fn a_name_tag_replaces_the_base_and_takes_no_suffix() {
        let tagged = NameParts {
            base: "etl-prod",
            tagged: true,
            endpoint: "private",
            suffix: &SUFFIX,
        };
        assert_eq!(usual(&tagged).unwrap().as_str(), "etl-prod-private");
        assert_eq!(
            name_tag(|key| (key == "teleport.dev/database_name").then_some("x")),
            Some("x")
        );
        assert_eq!(name_tag(|_| Some(" ")), None);
    }

    #[test]
    fn a_newcomer_never_takes_a_name_in_use() {
        let usual_name = usual(&parts("foo-redshift")).unwrap();
        let second = choose(&parts("foo-redshift"), "arn:2", |name| *name == usual_name);
        assert_eq!(
            second.as_str(),
            "foo-redshift-redshift-us-east-1-123456789012"
        );
        let third = choose(&parts("foo-redshift"), "arn:3", |name| {
            *name == usual_name || *name == second
        });
        assert!(
            third
                .as_str()
                .starts_with("foo-redshift-redshift-us-east-1-123456789012-")
        );
        assert_eq!(
            third,
            choose(&parts("foo-redshift"), "arn:3", |name| *name == usual_name
                || *name == second)
        );
    }

    #[test]
    fn an_identifier_that_cannot_start_a_name_still_gets_one() {
        assert!(
            choose(&parts("1abc"), "arn:1", |_| false)
                .as_str()
                .starts_with("db-")
        );
    }
}
