use std::os::unix::fs::PermissionsExt as _;

use tidegate_auth::{AuthService, Node};
use tidegate_proto::v1;
use tidegate_service::{
    admin::Readiness,
    clock::SystemClock,
    metrics::Metrics,
    settings::{AuthSettings, AuthenticationSettings, StorageSettings},
    tasks::Tasks,
};
use tonic::Code;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::house::{House, PASSWORD, code};

#[tokio::test]
async fn a_restart_keeps_everything() {
    let house = House::new().await;
    let alice = house.person("alice", &["access"]).await;
    let token = house.join_token(&["db"]).await;
    let agent = house.host(&["db"]).await;
    house.add_database("orders", "prod").await;
    let pin = house.handle.ca_pin;

    let house = house.restart().await;
    assert_eq!(house.handle.ca_pin, pin);
    assert_eq!(house.known(&alice).database_names().await, ["orders"]);
    assert_eq!(house.known(&agent).database_names().await, ["orders"]);
    assert!(house.login("alice", PASSWORD).await.is_ok());
    assert!(house.join(&token, &["db"], "").await.is_ok());
}

#[tokio::test]
async fn reflection_and_health_answer_anybody() {
    let house = House::new().await;
    let mut reflection = ServerReflectionClient::new(house.stranger().0);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection
        .server_reflection_info(futures::stream::iter([request]))
        .await;
    let answer = answers
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services: {answer:?}")
    };
    let names: Vec<String> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert!(
        names.contains(&"tidegate.v1.InventoryService".to_owned()),
        "{names:?}"
    );

    let mut health = tonic_health::pb::health_client::HealthClient::new(house.stranger().0);
    let request = tonic_health::pb::HealthCheckRequest {
        service: String::new(),
    };
    let status = health.check(request).await.unwrap().into_inner().status;
    assert_eq!(
        status,
        i32::from(tonic_health::ServingStatus::Serving as u8)
    );
}

#[tokio::test]
async fn strangers_get_nothing_but_trust() {
    let house = House::new().await;
    let stranger = house.stranger();
    let trust = stranger
        .trust()
        .get_trust(v1::GetTrustRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(trust.cluster, "tidegate.test");
    assert!(!format!("{trust:?}").contains("PRIVATE"));
    let listed = stranger
        .inventory()
        .list_databases(v1::ListDatabasesRequest::default())
        .await;
    assert_eq!(code(listed), Code::Unauthenticated);
    let users = stranger.access().list_users(v1::ListUsersRequest {}).await;
    assert_eq!(code(users), Code::Unauthenticated);
}

#[tokio::test]
async fn the_socket_is_for_its_owner_only() {
    let house = House::new().await;
    let metadata = std::fs::metadata(house.data_dir().join("auth.sock")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_happened_is_in_the_audit_log_once() {
    let house = House::new().await;
    house.person("alice", &["access"]).await;
    assert!(house.login("alice", "wrong password").await.is_err());
    house.add_database("orders", "prod").await;
    assert!(house.join("wrong", &["db"], "").await.is_err());
    let agent = house.known(&house.host(&["db"]).await);
    let event = v1::AuditEvent {
        uid: "one".to_owned(),
        event: "db.session.start".to_owned(),
        code: "TDB00I".to_owned(),
        user: "alice".to_owned(),
        server_id: "somebody-else".to_owned(),
        ..v1::AuditEvent::default()
    };
    for _ in 0..2 {
        let batch = v1::EmitStreamRequest {
            batch: 1,
            events: vec![event.clone()],
        };
        let mut audit = agent.audit();
        let sent = audit.emit_stream(futures::stream::iter([batch]));
        let acknowledged = sent.await.unwrap().into_inner().message().await.unwrap();
        assert_eq!(acknowledged.unwrap().durable_batch, 1);
    }
    let request = v1::ListEventsRequest::default();
    let events = house
        .admin()
        .audit()
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    let codes: Vec<&str> = events.iter().map(|event| event.code.as_str()).collect();
    assert_eq!(
        codes,
        [
            "T1002I", "T1000I", "T1000W", "TDB03I", "TJ002E", "TJT00I", "TJ002I", "TDB00I"
        ]
    );
    assert_ne!(events.last().unwrap().server_id, "somebody-else");
    assert!(events.iter().take(7).all(|event| event.time.is_some()));
    assert!(!format!("{events:?}").contains(PASSWORD));
}

#[tokio::test]
async fn the_state_of_another_cluster_is_refused() {
    let house = House::new().await;
    let kept = house.directory.clone();
    let directory = kept.path().to_owned();
    let settings = AuthSettings {
        cluster_name: "other.test".parse().unwrap(),
        listen_addr: "127.0.0.1:0".parse().unwrap(),
        storage: StorageSettings::Sqlite {
            dir: directory.join("backend"),
        },
        audit_targets: Vec::new(),
        audit_dir: directory.join("backend"),
        static_tokens: Vec::new(),
        sts_endpoint: None,
        ca_keys: None,
        authentication: AuthenticationSettings::default(),
    };
    let start = |settings: AuthSettings| {
        let node = Node {
            data_dir: directory.clone(),
            nodename: "other".to_owned(),
        };
        let (metrics, readiness) = (Metrics::new(), Readiness::new());
        async move {
            let clock = std::sync::Arc::new(SystemClock);
            AuthService::start(settings, node, clock, metrics, readiness, &Tasks::new()).await
        }
    };
    let in_use = start(settings.clone()).await.unwrap_err();
    let text = tidegate_service::telemetry::chain(&in_use);
    assert!(text.contains("in use by another process"), "{text}");
    drop(house);
    let refused = loop {
        let error = start(settings.clone()).await.unwrap_err();
        let text = tidegate_service::telemetry::chain(&error);
        if !text.contains("in use") {
            break text;
        }
        tokio::task::yield_now().await;
    };
    assert!(refused.contains("name cannot change"), "{refused}");
}
