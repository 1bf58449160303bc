//! What predicates look at.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    access::Traits,
    database::{Database, DatabaseServer, HealthStatus, RoleSource},
    ids::AssumeRole,
    labels::Labels,
    scope::ScanScope,
};

/// Something that predicates can look at. Fields are asked for by the `path` of its [`super::Schema`] only.
///
/// What is absent is `None`, empty or false.
pub trait Fields {
    /// A field that holds one text.
    fn text(&self, path: &str) -> Option<Cow<'_, str>>;

    /// A field that holds several texts.
    fn list(&self, _path: &str) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    /// A field that is true or false.
    fn flag(&self, _path: &str) -> bool {
        false
    }

    /// A field that holds labels.
    fn labels(&self, _path: &str) -> Option<&Labels> {
        None
    }

    /// A field that holds traits.
    fn traits(&self, _path: &str) -> Option<&Traits> {
        None
    }

    /// Shows each text that `search` looks at until `found` is content; tells whether it was.
    fn any_searched(&self, _found: &mut dyn FnMut(&str) -> bool) -> bool {
        false
    }
}

impl Fields for Database {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let aws = &self.aws;
        let text = match path {
            "name" => self.name.as_str(),
            "description" => &self.description,
            "protocol" => self.protocol.as_str(),
            "uri" => return Some(self.uri.to_string().into()),
            "type" => self.kind?.as_str(),
            "origin" => self.origin.as_str(),
            "identity" => &self.identity,
            "discovered_name" => &self.discovered_name,
            "unavailable" => &self.unavailable,
            "region" => aws.region.as_ref()?.as_str(),
            "account_id" => aws.account_id.as_ref()?.as_str(),
            "assume_role_arn" => role(aws.assume_role.as_ref())?,
            "redshift.cluster_id" => aws.redshift_cluster_id.as_ref()?,
            "redshift_serverless.workgroup_name" => aws.redshift_serverless_workgroup.as_ref()?,
            "rds.instance_id" => aws.rds_instance_id.as_ref()?,
            "rds.cluster_id" => aws.rds_cluster_id.as_ref()?,
            _ => return None,
        };
        present(text)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        (path == "labels").then_some(&self.labels)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        found(self.name.as_str())
            || found(&self.description)
            || found(self.protocol.as_str())
            || found(self.uri.host())
            || self.kind.is_some_and(|kind| found(kind.as_str()))
            || searched_labels(&self.labels, found)
    }
}

impl Fields for DatabaseServer {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let text = match path {
            "host_id" => self.host_id.as_str(),
            "hostname" => &self.hostname,
            "version" => &self.version,
            "health.status" => match self.target_health.status {
                HealthStatus::Healthy => "healthy",
                HealthStatus::Unknown => "unknown",
                HealthStatus::Unhealthy => "unhealthy",
            },
            "health.message" => &self.target_health.message,
            "health.failed_layer" => self.target_health.failed_layer?.as_str(),
            "effective_role" => role(self.effective_role.as_ref())?,
            "role_source" => match self.role_source {
                RoleSource::Override => "override",
                RoleSource::Database => "database",
                RoleSource::Agent => "agent",
            },
            "role_reason" => &self.role_reason,
            _ => return self.database.text(path),
        };
        present(text)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        Fields::labels(&self.database, path)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        found(&self.hostname) || found(self.host_id.as_str()) || self.database.any_searched(found)
    }
}

impl Fields for ScanScope {
    /// What a scope knows by itself; its state is told by whoever keeps it.
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let text = match path {
            "name" => return Some(self.id().0.into()),
            "group" => &self.group,
            "type" => self.kind.as_str(),
            "region" => self.region.as_str(),
            "assume_role_arn" => role(self.assume_role.as_ref())?,
            "account_id" => {
                let role = &self.assume_role.as_ref()?.role_arn;
                return Some(role.account().to_string().into());
            }
            "discovery_config" => self.config.as_ref()?,
            _ => return None,
        };
        present(text)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        found(&self.id().0)
    }
}

/// Facts put together by hand, for things that have no type here: users, tokens, locks, agents.
///
/// `search` looks at every text, list and label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    texts: BTreeMap<&'static str, String>,
    lists: BTreeMap<&'static str, Vec<String>>,
    flags: BTreeMap<&'static str, bool>,
    labels: BTreeMap<&'static str, Labels>,
    traits: BTreeMap<&'static str, Traits>,
}

impl Facts {
    /// No facts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    #[must_use]
    pub fn with_text(mut self, path: &'static str, text: impl Into<String>) -> Self {
        self.texts.insert(path, text.into());
        self
    }

    /// Adds a list.
    #[must_use]
    pub fn with_list<T: Into<String>>(
        mut self,
        path: &'static str,
        texts: impl IntoIterator<Item = T>,
    ) -> Self {
        let texts = texts.into_iter().map(Into::into).collect();
        self.lists.insert(path, texts);
        self
    }

    /// Adds something that is true or false.
    #[must_use]
    pub fn with_flag(mut self, path: &'static str, holds: bool) -> Self {
        self.flags.insert(path, holds);
        self
    }

    /// Adds labels.
    #[must_use]
    pub fn with_labels(mut self, path: &'static str, labels: Labels) -> Self {
        self.labels.insert(path, labels);
        self
    }

    /// Adds traits.
    #[must_use]
    pub fn with_traits(mut self, path: &'static str, traits: Traits) -> Self {
        self.traits.insert(path, traits);
        self
    }
}

impl Fields for Facts {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        self.texts.get(path).and_then(|text| present(text))
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        let texts = self.lists.get(path).map(Vec::as_slice).unwrap_or_default();
        texts.iter().map(|text| text.as_str().into()).collect()
    }

    fn flag(&self, path: &str) -> bool {
        self.flags.get(path).copied().unwrap_or(false)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        self.labels.get(path)
    }

    fn traits(&self, path: &str) -> Option<&Traits> {
        self.traits.get(path)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        self.texts.values().any(|text| found(text))
            || self.lists.values().flatten().any(|text| found(text))
            || self
                .labels
                .values()
                .any(|labels| searched_labels(labels, found))
    }
}

fn role(role: Option<&AssumeRole>) -> Option<&str> {
    role.map(|role| role.role_arn.as_str())
}

fn present(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

fn searched_labels(labels: &Labels, found: &mut dyn FnMut(&str) -> bool) -> bool {
    labels.iter().any(|(key, value)| found(key) || found(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        database::{AwsMetadata, HealthLayer, Origin, Protocol, TargetHealth, TlsSettings},
        matcher::{DatabaseKind, EndpointFilter},
        predicate::{FieldType, Predicate, Schema},
        selector::Selector,
    };

    fn role() -> AssumeRole {
        AssumeRole {
            role_arn: "arn:aws:iam::111122223333:role/reader".parse().unwrap(),
            external_id: None,
        }
    }

    /// A database with something in every field.
    fn database() -> Database {
        let text = |text: &str| Some(text.to_owned());
        Database {
            name: "dw-orders".parse().unwrap(),
            description: "Orders".to_owned(),
            labels: [("env", "prod")].into_iter().collect(),
            origin: Origin::Cloud,
            protocol: Protocol::Postgres,
            uri: "dw.example.com:5439".parse().unwrap(),
            tls: TlsSettings::default(),
            aws: AwsMetadata {
                region: Some("eu-west-1".parse().unwrap()),
                account_id: Some("111122223333".parse().unwrap()),
                assume_role: Some(role()),
                external_id: None,
                redshift_cluster_id: text("dw"),
                redshift_serverless_workgroup: text("wg"),
                redshift_serverless_endpoint: None,
                rds_instance_id: text("i"),
                rds_cluster_id: text("c"),
                rds_resource_id: None,
                rds_iam_auth: None,
                rdsproxy_name: None,
                session_tags: [].into(),
            },
            kind: Some(DatabaseKind::Redshift),
            identity: "arn:aws:redshift:…".to_owned(),
            discovered_name: "dw".to_owned(),
            unavailable: "paused".to_owned(),
        }
    }

    fn server() -> DatabaseServer {
        DatabaseServer {
            host_id: "h-1".parse().unwrap(),
            hostname: "agent-1".to_owned(),
            version: "0.1.0".to_owned(),
            database: database(),
            effective_role: Some(role()),
            role_source: RoleSource::Override,
            role_reason: "entry 2".to_owned(),
            remarks: Vec::new(),
            target_health: TargetHealth {
                status: HealthStatus::Healthy,
                message: "reached".to_owned(),
                failed_layer: Some(HealthLayer::Tls),
                ..TargetHealth::default()
            },
        }
    }

    fn answers_all(schema: &Schema, fields: &dyn Fields, except: &[&str]) {
        for field in schema.iter().filter(|field| !except.contains(&field.path)) {
            let answered = match field.holds {
                FieldType::Labels => fields.labels(field.path).is_some(),
                FieldType::List => !fields.list(field.path).is_empty(),
                FieldType::Number | FieldType::Text => fields.text(field.path).is_some(),
                FieldType::Flag | FieldType::Traits => false,
            };
            assert!(answered, "{} has no {}", schema.kind, field.path);
        }
    }

    #[test]
    fn every_field_of_a_schema_is_answered() {
        answers_all(&Schema::DATABASE, &database(), &[]);
        answers_all(&Schema::DATABASE_SERVER, &server(), &[]);
        let scope = ScanScope {
            group: "prod".to_owned(),
            kind: DatabaseKind::Redshift,
            region: "eu-west-1".parse().unwrap(),
            assume_role: Some(role()),
            tags: Selector::everything(),
            endpoints: EndpointFilter::default(),
            config: Some("team".to_owned()),
            order: 0,
        };
        let of_its_keeper = [
            "status",
            "owner",
            "error",
            "databases",
            "held_deletions",
            "last_attempt",
            "last_success",
        ];
        answers_all(&Schema::SCAN_SCOPE, &scope, &of_its_keeper);
    }

    #[test]
    fn search_looks_at_names_hosts_and_labels_of_databases_and_their_servers() {
        for (text, expected) in [
            (r#"search("ORDERS", "prod")"#, true),
            (r#"search("example.com", "redshift")"#, true),
            (r#"search("5439")"#, false),
        ] {
            assert_eq!(
                Predicate::parse(text).unwrap().matches(&database()),
                expected
            );
        }
        let health = r#"health.status == "healthy" && search("agent-1") && resource.spec.uri == "dw.example.com:5439""#;
        let predicate = Predicate::parse_for(&Schema::DATABASE_SERVER, health).unwrap();
        assert!(predicate.matches(&server()));
    }
}
