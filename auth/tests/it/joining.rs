mod iam;
mod sts;
mod tokens;

use std::time::Duration;

use tidegate_identity::{Holder, KeyPair, PeerIdentity, tls::first_certificate_der};
use tidegate_proto::v1;
use tonic::Code;

use crate::house::{House, STATIC_TOKEN, code};

fn services_of(chain_pem: &str) -> Vec<String> {
    let identity = PeerIdentity::from_der(&first_certificate_der(chain_pem).unwrap()).unwrap();
    match identity.holder {
        Holder::Host(host) => host.services,
        Holder::User(_) => panic!("not a host's certificate"),
    }
}

/// How long an event may take from when it happened to when it is listed.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// So many events of a kind, once they are told.
async fn told(house: &House, event: &str, count: usize) -> Vec<v1::AuditEvent> {
    let request = v1::ListEventsRequest {
        event: event.to_owned(),
        ..v1::ListEventsRequest::default()
    };
    let told = tokio::time::timeout(TOLD_WITHIN, async {
        loop {
            let listed = house.admin().audit().list_events(request.clone()).await;
            let events = listed.unwrap().into_inner().events;
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    told.await
        .unwrap_or_else(|_| panic!("no {count} events {event}"))
}

#[tokio::test]
async fn a_token_lets_in_what_it_names_and_no_more() {
    let house = House::new().await;
    let token = house.join_token(&["db"]).await;
    let host = house.join(&token, &["db"], "").await.unwrap();
    assert_eq!(services_of(&host.chain_pem), ["db"]);
    let other = house.join(&token, &["proxy"], "").await.err().unwrap();
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(other.message().contains("`proxy`"), "{}", other.message());
    let beside = house.join(&token, &["db", "discovery"], "").await.unwrap();
    assert_eq!(services_of(&beside.chain_pem), ["db", "discovery"]);
    let auth = house.join(&token, &["auth"], "").await.err().unwrap();
    assert_eq!(auth.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn wrong_and_expired_tokens_are_told_alike() {
    let house = House::new().await;
    let token = house.join_token(&["db"]).await;
    let wrong = house
        .join("0123456789abcdef", &["db"], "")
        .await
        .err()
        .unwrap();
    house.clock.advance(Duration::from_secs(3601));
    let late = house.join(&token, &["db"], "").await.err().unwrap();
    assert_eq!(
        (wrong.code(), wrong.message()),
        (late.code(), late.message())
    );
    assert_eq!(late.code(), Code::Unauthenticated);
    assert!(house.join(STATIC_TOKEN, &["proxy"], "").await.is_ok());
}

#[tokio::test]
async fn a_host_keeps_its_id_unless_another_has_it_now() {
    let house = House::new().await;
    let token = house.join_token(&["db"]).await;
    let first = house.join(&token, &["db"], "").await.unwrap();
    let again = house.join(&token, &["db"], &first.host_id).await.unwrap();
    assert_eq!(first.host_id, again.host_id);

    let agent = crate::presence::Agent::start(&house, &first, &["db"]).await;
    let thief = house.join(&token, &["db"], &first.host_id).await.unwrap();
    assert_ne!(first.host_id, thief.host_id);
    drop(agent);
}

#[tokio::test]
async fn a_host_renews_for_a_new_key_with_the_same_services() {
    let house = House::new().await;
    let host = house.host(&["discovery"]).await;
    let key = KeyPair::generate().unwrap();
    let request = v1::RenewHostCertificateRequest {
        public_key: key.public_key_der(),
        names: Vec::new(),
    };
    let renewed = house
        .known(&host)
        .trust()
        .renew_host_certificate(request.clone())
        .await;
    let renewed = renewed.unwrap().into_inner().certificate_pem;
    assert_eq!(services_of(&renewed), ["discovery"]);
    let stranger = house
        .stranger()
        .trust()
        .renew_host_certificate(request)
        .await;
    assert_eq!(code(stranger), Code::Unauthenticated);
}

#[tokio::test]
async fn no_host_can_ask_for_the_name_of_the_auth_service() {
    let house = House::new().await;
    let proxy = house.host(&["proxy"]).await;
    let key = KeyPair::generate().unwrap();
    let request = |name: &str| v1::RenewHostCertificateRequest {
        public_key: key.public_key_der(),
        names: vec![name.to_owned()],
    };
    let mut trust = house.known(&proxy).trust();
    let refused = trust
        .renew_host_certificate(request("auth.tidegate.internal"))
        .await;
    assert_eq!(code(refused), Code::InvalidArgument);
    trust
        .renew_host_certificate(request("proxy.example.com"))
        .await
        .unwrap();
}

#[tokio::test]
async fn only_agents_get_the_certificate_that_clients_see() {
    let house = House::new().await;
    let key = KeyPair::generate().unwrap();
    let request = v1::IssueDatabaseServerCertificateRequest {
        public_key: key.public_key_der(),
    };
    let agent = house.known(&house.host(&["db"]).await);
    let proxy = house.known(&house.host(&["proxy"]).await);
    let issued = agent
        .trust()
        .issue_database_server_certificate(request.clone())
        .await;
    assert!(
        issued
            .unwrap()
            .into_inner()
            .certificate_pem
            .contains("BEGIN CERTIFICATE")
    );
    let refused = proxy
        .trust()
        .issue_database_server_certificate(request)
        .await;
    assert_eq!(code(refused), Code::PermissionDenied);
}

#[tokio::test]
async fn tokens_are_listed_without_secrets_and_removed_by_id_or_secret() {
    let house = House::new().await;
    let mut access = house.admin().access();
    let first = house.join_token(&["db"]).await;
    let second = house.join_token(&["proxy"]).await;
    let list = access
        .list_tokens(v1::ListTokensRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(list.tokens.len(), 3);
    assert!(!format!("{list:?}").contains(&first));
    let id = |types: &str| {
        let token = list
            .tokens
            .iter()
            .find(|token| token.types == [types] && token.expires_at.is_some());
        token.unwrap().id.clone()
    };
    let delete = |token: String| v1::DeleteTokenRequest { token };
    access.delete_token(delete(id("db"))).await.unwrap();
    access.delete_token(delete(second.clone())).await.unwrap();
    assert!(house.join(&first, &["db"], "").await.is_err());
    assert!(house.join(&second, &["proxy"], "").await.is_err());
    assert_eq!(
        code(access.delete_token(delete(second)).await),
        Code::NotFound
    );
    let fixed = access.delete_token(delete(STATIC_TOKEN.to_owned())).await;
    assert_eq!(code(fixed), Code::FailedPrecondition);
}

#[tokio::test]
async fn services_of_the_same_process_need_no_token() {
    let house = House::new().await;
    let services = ["proxy".to_owned(), "db".to_owned()];
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let issued = house
        .handle
        .issue_host(&services, &names, "node")
        .await
        .unwrap();
    assert_eq!(services_of(&issued.chain_pem), services);
    let again = house
        .handle
        .issue_host(&services, &names, "node")
        .await
        .unwrap();
    let id = |pem: &str| {
        let identity = PeerIdentity::from_der(&first_certificate_der(pem).unwrap()).unwrap();
        format!("{:?}", identity.holder)
    };
    assert_eq!(id(&issued.chain_pem), id(&again.chain_pem));
}

#[tokio::test]
async fn a_certificate_of_another_cluster_does_not_get_in() {
    let (house, other) = (House::new().await, House::new().await);
    let stranger = other.host(&["db"]).await;
    let listed = house
        .known(&stranger)
        .inventory()
        .list_databases(v1::ListDatabasesRequest::default())
        .await;
    assert!(listed.is_err());
}
