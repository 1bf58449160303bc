//! `kind: db`: how to reach one database endpoint.

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
    /// For provisioned Redshift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redshift: Option<RedshiftSpec>,
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
                origin: match database.origin() {
                    v1::Origin::Unspecified => "unknown",
                    v1::Origin::Cloud => "cloud",
                    v1::Origin::Config => "config",
                    v1::Origin::Dynamic => "dynamic",
                },
                kind: database.kind.clone(),
                identity: database.identity.clone(),
                discovered_name: database.discovered_name.clone(),
                unavailable: database.unavailable.clone(),
            }),
        }
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
    let Some(aws) = aws else {
        return AwsSpec::default();
    };
    let role = aws.assume_role.clone().unwrap_or_default();
    AwsSpec {
        region: aws.region.clone(),
        account_id: aws.account_id.clone(),
        assume_role_arn: role.role_arn,
        external_id: role.external_id,
        redshift: (!aws.redshift_cluster_id.is_empty()).then(|| RedshiftSpec {
            cluster_id: aws.redshift_cluster_id.clone(),
        }),
    }
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
}
