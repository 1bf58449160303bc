use tidegate_core::{
    AwsMetadata, Database, DatabaseServer, EndpointFilter, Origin, RoleSource, ScanScope,
    TargetHealth, TlsMode, TlsSettings,
};

use super::*;

fn database() -> Database {
    Database {
        name: "orders".parse().unwrap(),
        description: "Redshift cluster in us-east-1".to_owned(),
        labels: [("env", "prod")].into_iter().collect(),
        origin: Origin::Cloud,
        protocol: tidegate_core::Protocol::Postgres,
        uri: "orders.abc.us-east-1.redshift.amazonaws.com:5439"
            .parse()
            .unwrap(),
        tls: TlsSettings {
            mode: TlsMode::VerifyCa,
            server_name: Some("x".to_owned()),
            ca_cert_pem: None,
        },
        aws: AwsMetadata {
            region: Some("us-east-1".parse().unwrap()),
            account_id: Some("111122223333".parse().unwrap()),
            assume_role: Some(AssumeRole {
                role_arn: "arn:aws:iam::111122223333:role/x".parse().unwrap(),
                external_id: Some("ext".parse().unwrap()),
            }),
            redshift_cluster_id: Some("orders".to_owned()),
            rds_iam_auth: Some(false),
            ..AwsMetadata::default()
        },
        kind: Some(tidegate_core::DatabaseKind::Redshift),
        identity: "arn:aws:redshift:us-east-1:111122223333:cluster:orders".to_owned(),
        discovered_name: "orders".to_owned(),
        unavailable: "paused".to_owned(),
    }
}

#[test]
fn a_database_survives_the_wire() {
    let there = v1::Database::from(database());
    assert_eq!(Database::try_from(there).unwrap(), database());
}

#[test]
fn a_database_server_survives_the_wire() {
    let server = DatabaseServer {
        host_id: "h-1".parse().unwrap(),
        hostname: "ip-10-0-0-1".to_owned(),
        version: "0.1.0".to_owned(),
        effective_role: database().aws.assume_role,
        database: database(),
        role_source: RoleSource::Override,
        target_health: TargetHealth {
            transition_timestamp: Some(Timestamp::new(5, 7).unwrap()),
            ..TargetHealth::default()
        },
    };
    assert_eq!(
        DatabaseServer::try_from(v1::DatabaseServer::from(server.clone())).unwrap(),
        server
    );
}

#[test]
fn a_wrong_field_is_named_from_the_outside_in() {
    let mut message = v1::Database::from(database());
    message.aws.as_mut().unwrap().region = "nowhere".to_owned();
    assert_eq!(Database::try_from(message).unwrap_err().field, "aws.region");
}

#[test]
fn a_scope_whose_id_lies_is_refused() {
    let scope = ScanScope {
        group: "prod".to_owned(),
        kind: tidegate_core::DatabaseKind::Redshift,
        region: "us-east-1".parse().unwrap(),
        assume_role: None,
        tags: Selector::everything(),
        endpoints: EndpointFilter {
            include: vec!["primary".to_owned()],
            exclude: Vec::new(),
        },
        config: Some("team".to_owned()),
        order: 0,
    };
    let mut message = v1::ScanScope::from(&scope);
    assert_eq!(ScanScope::try_from(message.clone()).unwrap(), scope);
    message.region = "us-west-2".to_owned();
    assert_eq!(ScanScope::try_from(message).unwrap_err().field, "id");
}
