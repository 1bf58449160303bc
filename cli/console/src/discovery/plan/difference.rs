//! What would be different about a database.

use std::collections::BTreeSet;

use serde::Serialize;
use tidegate_core::labels::is_reserved;
use tidegate_proto::v1;

/// Prefix of the field of a label.
pub(super) const LABEL: &str = "labels.";
/// The field of the owning scope.
pub(super) const OWNER: &str = "owner";

/// One thing that would be different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `labels.KEY`, `role`, `owner`, `address`, or another field.
    pub field: String,
    /// As it is now; absent when there is none, or none that is one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// As it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What is different, the likeliest to matter first. Labels that only say who owns a database are told as its owner.
pub(super) fn between(before: &v1::Database, after: &v1::Database) -> Vec<Difference> {
    let mut told = labels(before, after);
    let mut line = |field: &str, before: Option<String>, after: Option<String>| {
        if before != after {
            told.push(Difference {
                field: field.to_owned(),
                before,
                after,
            });
        }
    };
    line("role", role(before), role(after));
    line("address", some(&before.uri), some(&after.uri));
    line(
        "status",
        some(&before.unavailable),
        some(&after.unavailable),
    );
    line(
        "description",
        some(&before.description),
        some(&after.description),
    );
    line(OWNER, some(&before.scope_id), some(&after.scope_id));
    let mut whole = |field: &str, differs: bool| {
        if differs {
            told.push(Difference {
                field: field.to_owned(),
                before: None,
                after: None,
            });
        }
    };
    whole("tls", before.tls != after.tls);
    whole("aws", without_role(before) != without_role(after));
    if told.is_empty() {
        told.push(Difference {
            field: "other".to_owned(),
            before: None,
            after: None,
        });
    }
    told
}

fn labels(before: &v1::Database, after: &v1::Database) -> Vec<Difference> {
    let keys: BTreeSet<&String> = before.labels.keys().chain(after.labels.keys()).collect();
    let keys = keys.into_iter().filter(|key| !is_reserved(key));
    keys.filter(|key| before.labels.get(*key) != after.labels.get(*key))
        .map(|key| Difference {
            field: format!("{LABEL}{key}"),
            before: before.labels.get(key).cloned(),
            after: after.labels.get(key).cloned(),
        })
        .collect()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn role(database: &v1::Database) -> Option<String> {
    let role = database.aws.as_ref()?.assume_role.as_ref()?;
    Some(if role.external_id.is_empty() {
        role.role_arn.clone()
    } else {
        format!("{} with external id {}", role.role_arn, role.external_id)
    })
}

fn without_role(database: &v1::Database) -> v1::AwsMetadata {
    v1::AwsMetadata {
        assume_role: None,
        ..database.aws.clone().unwrap_or_default()
    }
}
