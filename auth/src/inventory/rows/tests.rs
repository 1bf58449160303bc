//! Rows read as what they are rows of.

use tidegate_core::{Database, DatabaseServer, Predicate, predicate::Schema};
use tidegate_proto::v1;

use super::*;
use crate::{
    keys,
    record::{DatabaseRecord, encode},
    store::Entry,
};

fn database() -> v1::Database {
    let role = v1::AssumeRole {
        role_arn: "arn:aws:iam::111122223333:role/reader".to_owned(),
        external_id: String::new(),
    };
    v1::Database {
        name: "dw-orders".to_owned(),
        description: "Orders".to_owned(),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        origin: v1::Origin::Cloud.into(),
        protocol: "postgres".to_owned(),
        uri: "[::1]:5439".to_owned(),
        aws: Some(v1::AwsMetadata {
            region: "eu-west-1".to_owned(),
            account_id: "111122223333".to_owned(),
            assume_role: Some(role),
            redshift_cluster_id: "dw".to_owned(),
            redshift_serverless_workgroup: "wg".to_owned(),
            rds_instance_id: "i".to_owned(),
            rds_cluster_id: "c".to_owned(),
            ..v1::AwsMetadata::default()
        }),
        kind: "redshift".to_owned(),
        identity: "arn:aws:redshift:…".to_owned(),
        discovered_name: "dw".to_owned(),
        unavailable: "paused".to_owned(),
        ..v1::Database::default()
    }
}

fn server() -> v1::DatabaseServer {
    v1::DatabaseServer {
        host_id: "h-1".to_owned(),
        hostname: "agent-1".to_owned(),
        version: "0.1.0".to_owned(),
        database: Some(database()),
        effective_role: database().aws.unwrap().assume_role,
        role_source: v1::RoleSource::Override.into(),
        role_reason: "entry 2".to_owned(),
        target_health: Some(v1::TargetHealth {
            status: "healthy".to_owned(),
            message: "reached".to_owned(),
            failed_layer: "tls".to_owned(),
            ..v1::TargetHealth::default()
        }),
        ..v1::DatabaseServer::default()
    }
}

fn entry(message: &impl prost::Message) -> Entry {
    Entry {
        key: keys::database("x"),
        value: encode(message),
        created: 1,
        modified: 1,
        lease: None,
    }
}

fn same(schema: &'static Schema, row: &dyn Fields, noun: &dyn Fields) {
    for field in schema.iter() {
        assert_eq!(
            row.text(field.path),
            noun.text(field.path),
            "{}",
            field.path
        );
        assert_eq!(row.labels(field.path), noun.labels(field.path));
    }
    for word in [
        "orders", "::1", "5439", "redshift", "prod", "agent-1", "h-1",
    ] {
        let text = format!("search(\"{word}\")");
        let search = Predicate::parse_for(schema, &text).unwrap();
        assert_eq!(search.matches(row), search.matches(noun), "{word}");
    }
}

#[test]
fn a_row_reads_to_predicates_as_what_it_is_a_row_of() {
    let record = DatabaseRecord {
        database: Some(database()),
        ..DatabaseRecord::default()
    };
    let row = database_row(&entry(&record)).unwrap();
    same(
        &Schema::DATABASE,
        &row,
        &Database::try_from(database()).unwrap(),
    );
    let row = server_row(&entry(&server())).unwrap();
    let noun = DatabaseServer::try_from(server()).unwrap();
    same(&Schema::DATABASE_SERVER, &row, &noun);
    let bare = v1::DatabaseServer {
        role_source: 0,
        target_health: None,
        ..server()
    };
    let row = server_row(&entry(&bare)).unwrap();
    let noun = DatabaseServer::try_from(bare).unwrap();
    same(&Schema::DATABASE_SERVER, &row, &noun);
}

#[test]
fn words_are_found_whatever_their_case() {
    assert!(holds("Orders-PROD", "prod"));
    assert!(holds("Bestände", "bestände"));
    assert!(!holds("orders", "prod"));
    assert!(!holds("a", "longer than the text"));
}
