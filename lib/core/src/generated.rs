//! The labels that discovery generates: the reference page is made from this list, and tests hold conversions to it.

use crate::{
    DatabaseKind::{self, Rds, Rdsproxy, Redshift, RedshiftServerless},
    labels::{
        ACCOUNT_ID, CLOUD, DISCOVERY_CONFIG, DISCOVERY_GROUP, DISCOVERY_TYPE, ENDPOINT_TYPE,
        ORIGIN, REGION,
    },
};

/// A label that discovery sets by itself; an AWS tag of the same key is kept as `aws/<key>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratedLabel {
    /// The key.
    pub key: &'static str,
    /// The kinds of database that can have it.
    pub kinds: &'static [DatabaseKind],
    /// What its value says.
    pub meaning: &'static str,
}

const fn label(
    key: &'static str,
    kinds: &'static [DatabaseKind],
    meaning: &'static str,
) -> GeneratedLabel {
    GeneratedLabel {
        key,
        kinds,
        meaning,
    }
}

const ALL: &[DatabaseKind] = &DatabaseKind::ALL;

const LABELS: &[GeneratedLabel] = &[
    label(ACCOUNT_ID, ALL, "the AWS account that owns it, 12 digits"),
    label(
        "availability-zone",
        &[Redshift, Rds],
        "where the cluster or instance runs, such as `us-east-1a`",
    ),
    label(
        "custom-domain",
        &[Redshift, RedshiftServerless],
        "the custom domain name of the cluster or workgroup",
    ),
    label(
        "encrypted",
        &[Redshift, Rds],
        "whether data is encrypted at rest: `true` or `false`",
    ),
    label(
        ENDPOINT_TYPE,
        ALL,
        "what sort of endpoint it is: `cluster` or `vpc-endpoint` (redshift); `workgroup` or `vpc-endpoint` \
         (redshift-serverless); `instance`, `primary`, `reader` or `custom` (rds); `proxy`, `READ_WRITE` or `READ_ONLY` \
         (rdsproxy)",
    ),
    label(
        "engine",
        &[Rds, Rdsproxy],
        "AWS's name of the engine, such as `aurora-postgresql`; of a proxy its engine family, such as `POSTGRESQL`",
    ),
    label(
        "engine-version",
        &[Redshift, RedshiftServerless, Rds],
        "the version of the engine as AWS tells it",
    ),
    label(
        "namespace",
        &[Redshift, RedshiftServerless],
        "the namespace: its id (redshift) or its name (redshift-serverless)",
    ),
    label(
        "publicly-accessible",
        &[Redshift, RedshiftServerless, Rds],
        "whether it has a public address: `true` or `false`",
    ),
    label(REGION, ALL, "the AWS region"),
    label(
        "status",
        ALL,
        "its status as AWS tells it, in lower case, such as `available` or `paused`",
    ),
    label(CLOUD, ALL, "`AWS`"),
    label(
        DISCOVERY_CONFIG,
        ALL,
        "the `discovery_config` resource whose matcher found it; absent when a configuration file did",
    ),
    label(DISCOVERY_GROUP, ALL, "the discovery group that found it"),
    label(DISCOVERY_TYPE, ALL, "the kind of matcher that found it"),
    label(ORIGIN, ALL, "how it got here: `cloud`"),
    label("vpc-id", ALL, "the VPC that the endpoint is in"),
    label(
        "workgroup",
        &[RedshiftServerless],
        "the workgroup that a VPC endpoint belongs to",
    ),
];

/// Every label that discovery generates, in key order.
#[must_use]
pub const fn labels() -> &'static [GeneratedLabel] {
    LABELS
}

/// The reference page of generated labels, in Markdown; `cargo xtask gen` writes it.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Labels\n\n<!-- Written by `cargo xtask gen` from lib/core/src/generated.rs. -->\n\n\
         Discovery gives every database these labels. A generated label always wins over an AWS tag of the same key, since who may\n\
         tag a resource must not steer access; the tag is kept as `aws/<key>`. All other AWS tags become labels as they are. Selectors\n\
         written with `teleport.dev/` or `teleport.internal/` keys read the same labels as `tidegate.dev/`.\n\n\
         | label | kinds | meaning |\n|---|---|---|\n",
    );
    for label in LABELS {
        let kinds: Vec<&str> = label.kinds.iter().map(|kind| kind.as_str()).collect();
        let kinds = if label.kinds == ALL {
            "all".to_owned()
        } else {
            kinds.join(", ")
        };
        page.push_str(&format!(
            "| `{}` | {kinds} | {} |\n",
            label.key, label.meaning
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_has_a_line_for_every_label() {
        let page = reference();
        assert!(
            LABELS
                .iter()
                .all(|label| page.contains(&format!("| `{}` |", label.key)))
        );
    }

    #[test]
    fn the_list_is_in_key_order_and_names_no_key_twice() {
        assert!(LABELS.is_sorted_by(|left, right| left.key < right.key));
    }
}
