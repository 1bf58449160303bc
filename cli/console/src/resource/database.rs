//! `kind: db`: how to reach one database endpoint.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_proto::v1;

use super::{Metadata, Resource, revision_text};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DatabaseSpec {
    /// `postgres` or `mysql`.
    pub protocol: String,
    /// `host:port`.
    pub uri: String,
    /// How the database's certificate is checked.
    pub tls: TlsSpec,
    /// What is known from AWS.
    #[serde(skip_serializing_if = "AwsSpec::is_empty")]
    pub aws: AwsSpec,
}

/// TLS towards the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TlsSpec {
    /// `verify-full`, `verify-ca` or `insecure`.
    pub mode: &'static str,
    /// The name its certificate carries, when that is not the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_name: String,
    /// Extra trusted certificates in PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_cert: String,
}

/// What is known from AWS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AwsSpec {
    /// The region.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// The owning account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account_id: String,
    /// The role that the database names; agents may override it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub assume_role_arn: String,
    /// Sent when that role is assumed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_id: String,
    /// Sent with each role that is assumed for a session.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub session_tags: BTreeMap<String, String>,
    /// For provisioned Redshift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redshift: Option<RedshiftSpec>,
    /// For Redshift Serverless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redshift_serverless: Option<RedshiftServerlessSpec>,
    /// For RDS instances and clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rds: Option<RdsSpec>,
    /// For RDS Proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdsproxy: Option<RdsProxySpec>,
}

impl AwsSpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Provisioned Redshift.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RedshiftSpec {
    /// The cluster's identifier.
    pub cluster_id: String,
}

/// Redshift Serverless.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RedshiftServerlessSpec {
    /// The workgroup's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workgroup_name: String,
    /// The VPC endpoint's name, when it is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint_name: String,
}

/// An RDS instance, or an Aurora or Multi-AZ cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RdsSpec {
    /// The instance's identifier.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance_id: String,
    /// The cluster's identifier.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    /// The opaque id that `rds-db:connect` policies name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_id: String,
    /// Whether IAM authentication is on, where AWS says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iam_auth: Option<bool>,
}

/// RDS Proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RdsProxySpec {
    /// The proxy's name.
    pub name: String,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DatabaseStatus {
    /// How it got here: `cloud`, `config` or `dynamic`.
    pub origin: &'static str,
    /// What it is in AWS: `redshift`, …
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its ARN and endpoint role, when it was discovered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// What people call it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub discovered_name: String,
    /// Why it cannot be connected to now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unavailable: String,
}

impl From<&v1::Database> for super::Database {
    fn from(database: &v1::Database) -> Self {
        Resource {
            kind: "db",
            version: "v3",
            metadata: Metadata {
                name: database.name.clone(),
                description: database.description.clone(),
                labels: database.labels.clone(),
                expires: None,
                revision: revision_text(database.revision),
            },
            spec: DatabaseSpec {
                protocol: database.protocol.clone(),
                uri: database.uri.clone(),
                tls: tls(database.tls.as_ref()),
                aws: aws(database.aws.as_ref()),
            },
            status: Some(DatabaseStatus {
                origin: origin(database.origin()),
                kind: database.kind.clone(),
                identity: database.identity.clone(),
                discovered_name: database.discovered_name.clone(),
                unavailable: database.unavailable.clone(),
            }),
        }
    }
}

/// How a database got here, in a word.
pub(crate) const fn origin(origin: v1::Origin) -> &'static str {
    match origin {
        v1::Origin::Unspecified => "unknown",
        v1::Origin::Cloud => "cloud",
        v1::Origin::Config => "config",
        v1::Origin::Dynamic => "dynamic",
    }
}

fn tls(tls: Option<&v1::TlsSettings>) -> TlsSpec {
    let mode = match tls.map(v1::TlsSettings::mode).unwrap_or_default() {
        v1::TlsMode::Unspecified | v1::TlsMode::VerifyFull => "verify-full",
        v1::TlsMode::VerifyCa => "verify-ca",
        v1::TlsMode::Insecure => "insecure",
    };
    TlsSpec {
        mode,
        server_name: tls.map(|tls| tls.server_name.clone()).unwrap_or_default(),
        ca_cert: tls.map(|tls| tls.ca_cert_pem.clone()).unwrap_or_default(),
    }
}

fn aws(aws: Option<&v1::AwsMetadata>) -> AwsSpec {
    let Some(aws) = aws.cloned() else {
        return AwsSpec::default();
    };
    let role = aws.assume_role.unwrap_or_default();
    AwsSpec {
        region: aws.region,
        account_id: aws.account_id,
        assume_role_arn: role.role_arn,
        external_id: role.external_id,
        session_tags: aws.session_tags,
        redshift: given(RedshiftSpec {
            cluster_id: aws.redshift_cluster_id,
        }),
        redshift_serverless: given(RedshiftServerlessSpec {
            workgroup_name: aws.redshift_serverless_workgroup,
            endpoint_name: aws.redshift_serverless_endpoint,
        }),
        rds: given(RdsSpec {
            instance_id: aws.rds_instance_id,
            cluster_id: aws.rds_cluster_id,
            resource_id: aws.rds_resource_id,
            iam_auth: aws.rds_iam_auth,
        }),
        rdsproxy: given(RdsProxySpec {
            name: aws.rdsproxy_name,
        }),
    }
}

/// A part in which something is said.
fn given<T: Default + PartialEq>(part: T) -> Option<T> {
    (part != T::default()).then_some(part)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{output, resource};

    pub(in crate::resource) fn message() -> v1::Database {
        v1::Database {
            name: "orders-redshift-us-east-1-111122223333".to_owned(),
            description: "Redshift cluster in us-east-1".to_owned(),
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            origin: v1::Origin::Cloud.into(),
            protocol: "postgres".to_owned(),
            uri: "orders.abc.us-east-1.redshift.amazonaws.com:5439".to_owned(),
            tls: None,
            aws: Some(v1::AwsMetadata {
                region: "us-east-1".to_owned(),
                account_id: "111122223333".to_owned(),
                assume_role: Some(v1::AssumeRole {
                    role_arn: "arn:aws:iam::111122223333:role/discovery".to_owned(),
                    external_id: "ext".to_owned(),
                }),
                redshift_cluster_id: "orders".to_owned(),
                session_tags: [("team".to_owned(), "data".to_owned())].into(),
                ..v1::AwsMetadata::default()
            }),
            kind: "redshift".to_owned(),
            identity: "arn:aws:redshift:us-east-1:111122223333:cluster:orders".to_owned(),
            discovered_name: "orders".to_owned(),
            unavailable: String::new(),
            revision: 42,
            scope_id: "s".to_owned(),
        }
    }

    #[test]
    fn a_database_is_printed_in_the_known_shape() {
        let text = output::yaml(&resource::Database::from(&message())).unwrap();
        assert_eq!(
            text,
            "\
kind: db
version: v3
metadata:
  name: orders-redshift-us-east-1-111122223333
  description: Redshift cluster in us-east-1
  labels:
    env: prod
  revision: \"42\"
spec:
  protocol: postgres
  uri: orders.abc.us-east-1.redshift.amazonaws.com:5439
  tls:
    mode: verify-full
  aws:
    region: us-east-1
    account_id: \"111122223333\"
    assume_role_arn: arn:aws:iam::111122223333:role/discovery
    external_id: ext
    session_tags:
      team: data
    redshift:
      cluster_id: orders
status:
  origin: cloud
  type: redshift
  identity: arn:aws:redshift:us-east-1:111122223333:cluster:orders
  discovered_name: orders
"
        );
    }

    #[test]
    fn a_database_outside_aws_has_no_aws_part() {
        let text = output::yaml(&resource::Database::from(&v1::Database {
            name: "pg".to_owned(),
            origin: v1::Origin::Dynamic.into(),
            protocol: "postgres".to_owned(),
            uri: "pg.internal:5432".to_owned(),
            ..v1::Database::default()
        }))
        .unwrap();
        assert_eq!(
            text,
            "\
kind: db
version: v3
metadata:
  name: pg
spec:
  protocol: postgres
  uri: pg.internal:5432
  tls:
    mode: verify-full
status:
  origin: dynamic
"
        );
    }

    #[test]
    fn each_kind_in_aws_has_its_own_part() {
        let printed = |aws: v1::AwsMetadata| {
            let database = v1::Database {
                aws: Some(aws),
                ..message()
            };
            let shape = resource::Database::from(&database);
            serde_json::to_value(shape.spec.aws).unwrap()
        };
        assert_eq!(
            printed(v1::AwsMetadata {
                redshift_serverless_workgroup: "etl".to_owned(),
                redshift_serverless_endpoint: "private".to_owned(),
                ..v1::AwsMetadata::default()
            }),
            serde_json::json!({"redshift_serverless": {"workgroup_name": "etl", "endpoint_name": "private"}})
        );
        assert_eq!(
            printed(v1::AwsMetadata {
                rds_instance_id: "orders-1".to_owned(),
                rds_cluster_id: "orders".to_owned(),
                rds_resource_id: "db-ABC".to_owned(),
                rds_iam_auth: Some(false),
                ..v1::AwsMetadata::default()
            }),
            serde_json::json!({"rds": {
                "instance_id": "orders-1", "cluster_id": "orders", "resource_id": "db-ABC", "iam_auth": false
            }})
        );
        assert_eq!(
            printed(v1::AwsMetadata {
                rdsproxy_name: "px".to_owned(),
                ..v1::AwsMetadata::default()
            }),
            serde_json::json!({"rdsproxy": {"name": "px"}})
        );
    }
}
