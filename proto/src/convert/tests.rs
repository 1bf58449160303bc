use tidegate_core::{
    AwsMetadata, Database, DatabaseServer, EndpointFilter, HealthLayer, Lock, LockTarget, Origin,
    Role, RoleSource, ScanScope, SessionsSaw, TargetHealth, TlsMode, TlsSettings,
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
            trust_system_pool: true,
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
            session_tags: [("team".to_owned(), "data".to_owned())].into(),
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

    let mut without_role = database();
    without_role.aws.assume_role = None;
    without_role.aws.external_id = Some("ext".parse().unwrap());
    let there = v1::Database::from(without_role.clone());
    assert_eq!(Database::try_from(there).unwrap(), without_role);
}

#[test]
fn session_tags_that_aws_would_not_take_are_refused() {
    let sent = |tags: Vec<String>| {
        let mut there = v1::Database::from(database());
        let aws = there.aws.as_mut().unwrap();
        aws.session_tags = tags.into_iter().map(|key| (key, String::new())).collect();
        Database::try_from(there).map_err(|invalid| invalid.to_string())
    };
    let refused = sent(vec!["aws:owner".to_owned()]).unwrap_err();
    assert!(
        refused.contains("aws.session_tags") && refused.contains("aws:owner"),
        "{refused}"
    );
    sent((0..50).map(|number| format!("tag{number}")).collect()).unwrap();
    sent((0..51).map(|number| format!("tag{number}")).collect()).unwrap_err();
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
        role_reason: "entry 1".to_owned(),
        remarks: vec!["a label".to_owned()],
        target_health: TargetHealth {
            transition_timestamp: Some(Timestamp::new(5, 7).unwrap()),
            failed_layer: Some(HealthLayer::Tls),
            certificate_not_after: Some(Timestamp::new(9, 0).unwrap()),
            credential: Some(SessionsSaw {
                passed: true,
                since: Timestamp::new(7, 0).unwrap(),
            }),
            login: Some(SessionsSaw {
                passed: false,
                since: Timestamp::new(8, 0).unwrap(),
            }),
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

#[test]
fn a_role_travels_there_and_back_with_everything_that_it_says() {
    for role in Role::builtin() {
        let message = v1::Role::from(role.clone());
        assert_eq!(Role::try_from(message).unwrap(), role);
    }
    let written = r#"{"name": "analyst",
        "options": {"max_session_ttl": "8h", "client_idle_timeout": "30m", "disconnect_expired_cert": true,
            "lock": "strict", "max_db_connections": 3, "record_session": {"default": "strict"},
            "create_db_user_mode": "keep"},
        "allow": {"db_labels": {"env": ["prod", "dev"]}, "db_labels_expression": "exists(labels[\"team\"])",
            "db_users": ["reader"], "db_names": ["*"], "db_roles": ["r"],
            "rules": [{"resources": ["db"], "verbs": ["list", "*"], "where": "exists(resource.metadata.labels[\"team\"])"}],
            "request": {"roles": ["access"], "thresholds": [{"approve": 2, "deny": 1}], "max_duration": "1h"},
            "review_requests": {"roles": ["access"]}}}"#;
    let role: Role = serde_json::from_str(written).unwrap();
    assert_eq!(Role::try_from(v1::Role::from(role.clone())).unwrap(), role);
}

#[test]
fn what_is_wrong_in_a_role_is_named() {
    let role = |conditions: v1::RoleConditions| v1::Role {
        name: "x".to_owned(),
        allow: Some(conditions),
        ..v1::Role::default()
    };
    let verb = v1::RoleConditions {
        rules: vec![v1::Rule {
            verbs: vec!["fly".to_owned()],
            ..v1::Rule::default()
        }],
        ..v1::RoleConditions::default()
    };
    let expression = v1::RoleConditions {
        db_labels_expression: "labels[".to_owned(),
        ..v1::RoleConditions::default()
    };
    for (conditions, field) in [
        (verb, "allow.rules[0].verbs"),
        (expression, "allow.db_labels_expression"),
    ] {
        assert_eq!(Role::try_from(role(conditions)).unwrap_err().field, field);
    }
}

#[test]
fn a_lock_travels_there_and_back() {
    let lock = Lock {
        name: "l".to_owned(),
        target: LockTarget {
            user: Some("mallory".to_owned()),
            access_request: Some("q1".to_owned()),
            ..LockTarget::default()
        },
        message: "see the desk".to_owned(),
        created: Timestamp::UNIX_EPOCH,
        expires: Some(Timestamp::UNIX_EPOCH),
        created_by: "alice".to_owned(),
    };
    assert_eq!(Lock::try_from(v1::Lock::from(lock.clone())).unwrap(), lock);
}

#[test]
fn no_span_of_time_that_cannot_be_is_taken_and_none_makes_a_panic() {
    for (seconds, nanos) in [
        (i64::MIN, -1),
        (i64::MIN, i32::MIN),
        (-1, 0),
        (0, -1),
        (0, 1_000_000_000),
        (i64::MAX, i32::MAX),
    ] {
        let asked = prost_types::Duration { seconds, nanos };
        assert!(span("ttl", Some(asked)).is_err(), "{asked:?}");
    }
    let hour = prost_types::Duration {
        seconds: 3600,
        nanos: 1,
    };
    let expected = std::time::Duration::new(3600, 1);
    assert_eq!(span("ttl", Some(hour)), Ok(Some(expected)));
}

#[test]
fn a_status_stays_small_whatever_it_tells_of() {
    let field = "é".repeat(100_000);
    let status = tonic::Status::from(Invalid::new(field, "x".repeat(100_000)));
    let headers = status.into_http::<()>().headers().clone();
    let bytes: usize = headers.values().map(http_len).sum();
    assert!(bytes < 10_000, "{bytes}");
    assert_eq!(told("short"), "short");
}

fn http_len(value: &tonic::codegen::http::HeaderValue) -> usize {
    value.len()
}
