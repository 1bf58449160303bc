//! The kinds of resource that can be asked for, with their fields: the reference page is made from this.

use std::fmt::Write as _;

use super::{Field, FieldType, Schema};

/// Each kind by the name that requests use, and what predicates and orders may speak of.
pub const KINDS: [(&str, &Schema); 10] = [
    ("db", &Schema::DATABASE),
    ("db_server", &Schema::DATABASE_SERVER),
    ("discovery_config", &Schema::DISCOVERY_CONFIG),
    ("discovery_scope", &Schema::SCAN_SCOPE),
    ("instance", &Schema::INSTANCE),
    ("lock", &Schema::LOCK),
    ("proxy", &Schema::PROXY),
    ("role", &Schema::ROLE),
    ("token", &Schema::TOKEN),
    ("user", &Schema::USER),
];

/// What fields mean; where a kind is named, of that kind alone.
const MEANINGS: [(&str, &str, &str); 71] = [
    ("", "account_id", "the AWS account"),
    ("", "allow.db_names", "what the role allows"),
    ("", "allow.db_roles", "what the role allows"),
    ("", "allow.db_users", "what the role allows"),
    (
        "",
        "allow.resources",
        "kinds that its rules allow something with",
    ),
    ("", "assume_role_arn", "the role to assume"),
    ("", "assume_role_arns", "the roles of all matchers"),
    (
        "role",
        "built_in",
        "whether the program brings it and nobody replaced it",
    ),
    (
        "",
        "created_at",
        "an instant in UTC, as `2026-01-31T12:00:00Z`",
    ),
    ("", "created_by", "who made it"),
    ("instance", "databases", "how many it serves"),
    ("discovery_scope", "databases", "how many it owns"),
    ("", "deny.db_names", "what the role denies"),
    ("", "deny.db_roles", "what the role denies"),
    ("", "deny.db_users", "what the role denies"),
    (
        "",
        "deny.resources",
        "kinds that its rules deny something with",
    ),
    ("", "description", "for people"),
    ("", "discovered_name", "the undecorated name"),
    (
        "",
        "discovery_config",
        "the resource that asks for it; absent for a configuration file",
    ),
    ("", "effective_role", "the role that the agent assumes"),
    ("", "error", "the class of the last scan's failure"),
    ("", "expires_at", "an instant in UTC; absent for never"),
    ("", "group", "the discovery group"),
    (
        "",
        "health.failed_layer",
        "the lowest layer that failed: `dns`, `tcp` or `tls`",
    ),
    ("", "health.message", "what the agent said of it"),
    ("", "health.status", "`healthy`, `unknown` or `unhealthy`"),
    (
        "",
        "held_deletions",
        "deletions that wait for another scan to agree",
    ),
    ("db_server", "host_id", "the agent"),
    ("", "hostname", "the host's name for people"),
    ("", "identity", "ARN and endpoint role"),
    (
        "",
        "is_static",
        "whether it is written in the auth service's configuration file",
    ),
    ("", "join_method", "`token` or `iam`"),
    ("", "labels", "labels"),
    ("", "last_attempt", "end of the last scan, in UTC"),
    ("", "last_success", "end of the last complete scan, in UTC"),
    ("", "max_uses", "how many hosts may join; 0 is any number"),
    ("", "message", "what those who are struck may read"),
    ("discovery_scope", "name", "the scope's id"),
    ("instance", "name", "the host's id"),
    ("proxy", "name", "the host's id"),
    ("token", "name", "the token's id"),
    ("", "name", "its name"),
    ("", "origin", "`cloud`, `config` or `dynamic`"),
    ("", "owner", "the worker that holds it"),
    ("", "protocol", "`postgres` or `mysql`"),
    ("", "public_addr", "where clients reach the proxy"),
    ("", "region", "the AWS region"),
    ("", "regions", "the regions of all matchers"),
    (
        "",
        "role_reason",
        "the same in words: the entry that decided, and where it is written",
    ),
    (
        "",
        "role_source",
        "why that role: `override`, `database` or `agent`",
    ),
    ("", "roles", "names of roles"),
    ("", "services", "what it runs: `db`, `discovery`, `proxy`"),
    ("", "signed_up", "whether a password was set"),
    ("", "since", "since when it is up, in UTC"),
    (
        "",
        "status",
        "`ok`, `failed`, `never` scanned, or `retiring`: no worker names it",
    ),
    ("", "traits", "values by key, for role templates"),
    ("", "types", "the types: of all matchers, or what may join"),
    ("", "target.access_request", "certificates of this request"),
    ("", "target.agent", "a host, by id or name"),
    ("", "target.database", "a database"),
    ("", "target.role", "whoever has this role"),
    ("", "target.user", "a person"),
    (
        "",
        "type",
        "`redshift`, `redshift-serverless`, `rds`, `rdsproxy`",
    ),
    ("", "rds.cluster_id", "the cluster in AWS"),
    ("", "rds.instance_id", "the instance in AWS"),
    ("", "redshift.cluster_id", "the cluster in AWS"),
    (
        "",
        "redshift_serverless.workgroup_name",
        "the workgroup in AWS",
    ),
    ("", "uri", "`host:port`"),
    (
        "",
        "unavailable",
        "why it cannot be connected to; absent when it can",
    ),
    ("", "uses", "how many hosts joined"),
    ("", "version", "of the program"),
];

fn meaning(kind: &str, path: &str) -> &'static str {
    let of = |wanted: &str| {
        MEANINGS
            .iter()
            .find(|(of, field, _)| *of == wanted && *field == path)
            .map(|(_, _, meaning)| *meaning)
    };
    of(kind).or_else(|| of("")).unwrap_or_default()
}

const fn type_text(field: Field) -> &'static str {
    match field.holds {
        FieldType::Flag => "yes or no",
        FieldType::Labels => "labels",
        FieldType::List => "list",
        FieldType::Number => "number",
        FieldType::Text => "text",
        FieldType::Traits => "traits",
    }
}

/// The reference page of all kinds and fields.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Fields of queries\n\n<!-- Written by `cargo xtask gen` from lib/core/src/predicate/reference.rs. -->\n\n\
         What `filter` and `order_by` of `ListResources`, `CountResources` and `WatchResources`, and `--query` and `--sort` of\n\
         `tgctl get`, know of each kind. A field that is absent reads as the empty text or list. Texts, numbers, lists and\n\
         yes-or-no can be ordered and counted by; of labels and traits write the key: `labels.env`. In a predicate compare\n\
         texts and numbers with `==` (numbers as text: `databases == \"0\"`), ask lists with `contains(roles, \"access\")`, and\n\
         write a yes-or-no as it is: `!signed_up`.\n",
    );
    for (kind, schema) in KINDS {
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            "\n## `{kind}`\n\n| field | type | meaning | also written |\n|---|---|---|---|\n"
        );
        for field in schema.iter() {
            let also: Vec<String> = field.also.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                field.path,
                type_text(field),
                meaning(kind, field.path),
                also.join(", ")
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_every_kind_has_a_meaning() {
        for (kind, schema) in KINDS {
            for field in schema.iter() {
                let meaning = meaning(kind, field.path);
                assert!(!meaning.is_empty(), "{kind}: {}", field.path);
            }
        }
    }

    #[test]
    fn no_meaning_is_of_a_field_that_is_gone() {
        for (of, path, _) in MEANINGS {
            let known = KINDS.iter().any(|(kind, schema)| {
                (of.is_empty() || of == *kind) && schema.iter().any(|field| field.path == path)
            });
            assert!(known, "{of} {path}");
        }
    }

    #[test]
    fn the_page_has_a_part_for_every_kind_in_name_order() {
        let page = reference();
        assert!(KINDS.is_sorted_by(|(left, _), (right, _)| left < right));
        for (kind, _) in KINDS {
            assert!(page.contains(&format!("## `{kind}`")), "{kind}");
        }
    }
}
