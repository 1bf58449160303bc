//! What unit tests share: databases and roles with nothing in them but what a test is about.

use std::sync::Arc;

use tidegate_core::{
    AssumeRole, AwsMetadata, Database, DatabaseKind, EffectiveRole, Origin, Protocol, RoleSource,
    TlsSettings, overrides,
};
use tidegate_service::{
    clock::SystemClock,
    settings::{CaBundlePlace, DatabaseSettings},
};
use tokio::sync::watch;

use crate::{trust::Trust, wanted::Wanted};

/// Trust that no test's database asks for a bundle.
pub(crate) fn trust() -> Arc<Trust> {
    let folder = std::env::temp_dir().join("tidegate-no-bundles");
    let settings = watch::Sender::new(DatabaseSettings {
        ca_bundles: Some(CaBundlePlace::Folder(folder.clone())),
        ..DatabaseSettings::default()
    });
    Arc::new(Trust::new(
        folder,
        settings.subscribe(),
        Arc::new(SystemClock),
    ))
}

pub(crate) fn role(name: &str) -> AssumeRole {
    AssumeRole {
        role_arn: format!("arn:aws:iam::123456789012:role/{name}")
            .parse()
            .unwrap(),
        external_id: None,
    }
}

/// A discovered Redshift cluster in `us-east-1`.
pub(crate) fn redshift(name: &str, labels: &[(&str, &str)]) -> Database {
    Database {
        name: name.parse().unwrap(),
        description: String::new(),
        labels: labels.iter().copied().collect(),
        origin: Origin::Cloud,
        protocol: Protocol::Postgres,
        uri: format!("{name}.abc.us-east-1.redshift.amazonaws.com:5439")
            .parse()
            .unwrap(),
        tls: TlsSettings::default(),
        aws: AwsMetadata {
            region: Some("us-east-1".parse().unwrap()),
            account_id: Some("123456789012".parse().unwrap()),
            assume_role: None,
            redshift_cluster_id: Some(name.to_owned()),
            ..AwsMetadata::default()
        },
        kind: Some(DatabaseKind::Redshift),
        identity: String::new(),
        discovered_name: String::new(),
        unavailable: String::new(),
    }
}

/// The same, as this agent serves it.
pub(crate) fn wanted(name: &str) -> Arc<Wanted> {
    let database = redshift(name, &[]);
    let effective = overrides::effective_role(&[], &database);
    Arc::new(Wanted::new(
        Arc::new(database),
        effective,
        "".into(),
        Vec::new(),
    ))
}

/// A database that an override gives a role, or that the agent reaches as itself.
pub(crate) fn wanted_as(effective: Option<&str>) -> Wanted {
    let effective = EffectiveRole {
        role: effective.map(role),
        source: RoleSource::Override,
        entry: None,
    };
    let database = Arc::new(redshift("orders", &[]));
    Wanted::new(database, effective, "".into(), Vec::new())
}
