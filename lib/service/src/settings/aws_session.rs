//! Section `db_service.aws_session`: what sessions of IAM roles are called, and what is sent along with them.

use std::collections::BTreeMap;

use tidegate_core::aws_session::{SESSION_TAGS_MAX, SessionNaming, Template, is_session_tag_key};

use super::{
    section::{Item, Section},
    words::quote,
};

/// Reads the section; without it sessions are called after people and nothing is sent along.
pub(super) fn read(service: &mut Section<'_>) -> SessionNaming {
    let mut naming = SessionNaming::default();
    let Some(mut section) = service.get("aws_session").and_then(|item| item.section()) else {
        return naming;
    };
    let mut template = |key| section.get(key).and_then(|item| item.parse::<Template>());
    if let Some(name) = template("name") {
        naming.name = name;
    }
    naming.source_identity = template("source_identity");
    naming.tags = section
        .get("tags")
        .map(|item| tags(&item, |value| value.parse()))
        .unwrap_or_default();
    section.finish();
    naming
}

/// Tags by keys that AWS takes, each value as `read` gives it.
pub(super) fn tags<T>(
    item: &Item<'_>,
    read: impl Fn(&Item<'_>) -> Option<T>,
) -> BTreeMap<String, T> {
    let pairs = item.pairs().unwrap_or_default();
    if pairs.len() > SESSION_TAGS_MAX {
        item.error(format!("has more than {SESSION_TAGS_MAX} session tags"));
        return BTreeMap::new();
    }
    let mut tags = BTreeMap::new();
    for (key, value) in pairs {
        if !is_session_tag_key(key) {
            value.error_expected(
                format!(
                    "{} is not a key that AWS takes for a session tag",
                    quote(key)
                ),
                "letters, digits, spaces and `_.:/=+-@`, not beginning with `aws:`",
            );
        } else if let Some(read) = read(&value) {
            tags.insert(key.to_owned(), read);
        }
    }
    tags
}
