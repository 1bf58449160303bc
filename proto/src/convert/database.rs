//! Databases: how one is reached, and what AWS calls it.

use std::collections::BTreeMap;

use tidegate_core::{
    AwsMetadata, Database, ExternalId, Origin, TlsMode, TlsSettings,
    aws_session::{SESSION_TAGS_MAX, is_session_tag_key},
};

use super::{Invalid, assume_role, label_map, parse, parse_some, some, text};
use crate::v1;

impl From<TlsSettings> for v1::TlsSettings {
    fn from(tls: TlsSettings) -> Self {
        let mode = match tls.mode {
            TlsMode::VerifyFull => v1::TlsMode::VerifyFull,
            TlsMode::VerifyCa => v1::TlsMode::VerifyCa,
            TlsMode::Insecure => v1::TlsMode::Insecure,
        };
        Self {
            mode: mode.into(),
            server_name: tls.server_name.unwrap_or_default(),
            ca_cert_pem: tls.ca_cert_pem.unwrap_or_default(),
            trust_system_pool: tls.trust_system_pool,
        }
    }
}

impl From<v1::TlsSettings> for TlsSettings {
    fn from(tls: v1::TlsSettings) -> Self {
        let mode = match tls.mode() {
            v1::TlsMode::Unspecified | v1::TlsMode::VerifyFull => TlsMode::VerifyFull,
            v1::TlsMode::VerifyCa => TlsMode::VerifyCa,
            v1::TlsMode::Insecure => TlsMode::Insecure,
        };
        Self {
            mode,
            server_name: some(tls.server_name),
            ca_cert_pem: some(tls.ca_cert_pem),
            trust_system_pool: tls.trust_system_pool,
        }
    }
}

impl From<AwsMetadata> for v1::AwsMetadata {
    fn from(aws: AwsMetadata) -> Self {
        Self {
            region: text(aws.region.as_ref()),
            account_id: text(aws.account_id.as_ref()),
            assume_role: aws
                .assume_role
                .map(Into::into)
                .or_else(|| aws.external_id.map(without_role)),
            redshift_cluster_id: aws.redshift_cluster_id.unwrap_or_default(),
            redshift_serverless_workgroup: aws.redshift_serverless_workgroup.unwrap_or_default(),
            redshift_serverless_endpoint: aws.redshift_serverless_endpoint.unwrap_or_default(),
            rds_instance_id: aws.rds_instance_id.unwrap_or_default(),
            rds_cluster_id: aws.rds_cluster_id.unwrap_or_default(),
            rds_resource_id: aws.rds_resource_id.unwrap_or_default(),
            rds_iam_auth: aws.rds_iam_auth,
            rdsproxy_name: aws.rdsproxy_name.unwrap_or_default(),
            session_tags: aws.session_tags,
        }
    }
}

/// An external id that is for another role than the database's.
fn without_role(external_id: ExternalId) -> v1::AssumeRole {
    v1::AssumeRole {
        role_arn: String::new(),
        external_id: external_id.into(),
    }
}

impl TryFrom<v1::AwsMetadata> for AwsMetadata {
    type Error = Invalid;

    fn try_from(aws: v1::AwsMetadata) -> Result<Self, Invalid> {
        let (role, alone): (Option<v1::AssumeRole>, Option<v1::AssumeRole>) = match aws.assume_role
        {
            Some(role) if role.role_arn.is_empty() => (None, Some(role)),
            role => (role, None),
        };
        let external_id = alone.map(|role| role.external_id).unwrap_or_default();
        Ok(Self {
            region: parse_some("region", &aws.region)?,
            account_id: parse_some("account_id", &aws.account_id)?,
            assume_role: assume_role("assume_role", role)?,
            external_id: parse_some("assume_role.external_id", &external_id)?,
            redshift_cluster_id: some(aws.redshift_cluster_id),
            redshift_serverless_workgroup: some(aws.redshift_serverless_workgroup),
            redshift_serverless_endpoint: some(aws.redshift_serverless_endpoint),
            rds_instance_id: some(aws.rds_instance_id),
            rds_cluster_id: some(aws.rds_cluster_id),
            rds_resource_id: some(aws.rds_resource_id),
            rds_iam_auth: aws.rds_iam_auth,
            rdsproxy_name: some(aws.rdsproxy_name),
            session_tags: session_tags(aws.session_tags)?,
        })
    }
}

fn session_tags(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    let wrong = |problem: String| Invalid::new("session_tags", problem);
    if tags.len() > SESSION_TAGS_MAX {
        return Err(wrong(format!("AWS takes at most {SESSION_TAGS_MAX}")));
    }
    match tags.keys().find(|key| !is_session_tag_key(key)) {
        Some(key) => Err(wrong(format!("AWS takes no tag `{key}`"))),
        None => Ok(tags),
    }
}

impl From<Database> for v1::Database {
    fn from(database: Database) -> Self {
        let origin = match database.origin {
            Origin::Cloud => v1::Origin::Cloud,
            Origin::Config => v1::Origin::Config,
            Origin::Dynamic => v1::Origin::Dynamic,
        };
        Self {
            name: database.name.into(),
            description: database.description,
            labels: label_map(database.labels),
            origin: origin.into(),
            protocol: database.protocol.as_str().to_owned(),
            uri: database.uri.to_string(),
            tls: Some(database.tls.into()),
            aws: Some(database.aws.into()),
            kind: database
                .kind
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            identity: database.identity,
            discovered_name: database.discovered_name,
            unavailable: database.unavailable,
            revision: 0,
            scope_id: String::new(),
        }
    }
}

impl TryFrom<v1::Database> for Database {
    type Error = Invalid;

    fn try_from(database: v1::Database) -> Result<Self, Invalid> {
        let origin = match database.origin() {
            v1::Origin::Cloud => Origin::Cloud,
            v1::Origin::Config => Origin::Config,
            v1::Origin::Dynamic => Origin::Dynamic,
            v1::Origin::Unspecified => return Err(Invalid::new("origin", "is missing")),
        };
        Ok(Self {
            origin,
            name: parse("name", &database.name)?,
            protocol: parse("protocol", &database.protocol)?,
            uri: parse("uri", &database.uri)?,
            kind: parse_some("kind", &database.kind)?,
            tls: database.tls.map(Into::into).unwrap_or_default(),
            aws: database
                .aws
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("aws"))?,
            description: database.description,
            labels: database.labels.into(),
            identity: database.identity,
            discovered_name: database.discovered_name,
            unavailable: database.unavailable,
        })
    }
}
