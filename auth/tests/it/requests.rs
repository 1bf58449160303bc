//! Requests for roles over gRPC: asking, deciding, using, losing.

mod changes;
mod etcd;
mod several;

use std::time::Duration;

use tidegate_identity::KeyPair;
use tidegate_proto::v1::{
    self, AccessRequestState, ReviewVerdict, request_service_client::RequestServiceClient,
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::house::{Caller, House, Identity, code};

/// Longest time until something that was done is seen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_APART: Duration = Duration::from_millis(50);

fn requests(caller: &Caller) -> RequestServiceClient<Channel> {
    RequestServiceClient::new(caller.0.clone())
}

fn asking(roles: &[&str]) -> v1::CreateAccessRequestRequest {
    v1::CreateAccessRequestRequest {
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        reason: "look at SEC-123".to_owned(),
        ..v1::CreateAccessRequestRequest::default()
    }
}

async fn ask(caller: &Caller, roles: &[&str]) -> v1::AccessRequest {
    let made = requests(caller).create_access_request(asking(roles)).await;
    made.unwrap().into_inner()
}

async fn get(caller: &Caller, id: &str) -> Result<v1::AccessRequest, Status> {
    let request = v1::GetAccessRequestRequest { id: id.to_owned() };
    let found = requests(caller).get_access_request(request).await?;
    Ok(found.into_inner())
}

async fn review(
    caller: &Caller,
    id: &str,
    verdict: ReviewVerdict,
) -> Result<v1::AccessRequest, Status> {
    let request = v1::ReviewAccessRequestRequest {
        id: id.to_owned(),
        verdict: verdict.into(),
        reason: "go on".to_owned(),
    };
    let reviewed = requests(caller).review_access_request(request).await?;
    Ok(reviewed.into_inner())
}

async fn decide(
    caller: &Caller,
    id: &str,
    verdict: ReviewVerdict,
) -> Result<v1::AccessRequest, Status> {
    let request = v1::DecideAccessRequestRequest {
        id: id.to_owned(),
        verdict: verdict.into(),
        reason: String::new(),
    };
    let decided = requests(caller).decide_access_request(request).await?;
    Ok(decided.into_inner())
}

async fn remove(caller: &Caller, id: &str) -> Result<String, Status> {
    let request = v1::DeleteAccessRequestRequest { id: id.to_owned() };
    let removed = requests(caller).delete_access_request(request).await?;
    Ok(removed.into_inner().lock)
}

async fn ids(caller: &Caller, scope: v1::AccessRequestScope) -> Vec<String> {
    let request = v1::ListAccessRequestsRequest {
        scope: scope.into(),
        ..v1::ListAccessRequestsRequest::default()
    };
    let listed = requests(caller).list_access_requests(request).await;
    let listed = listed.unwrap().into_inner().requests;
    listed.into_iter().map(|request| request.id).collect()
}

/// Takes the roles of requests with the certificate of a login.
async fn assume(
    house: &House,
    login: &Identity,
    ids: &[&str],
) -> Result<(Identity, v1::UserCertificate), Status> {
    let key = KeyPair::generate().unwrap();
    let request = v1::AssumeRequestsRequest {
        public_key: key.public_key_der(),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let caller = house.known(login);
    let given = requests(&caller).assume_requests(request).await?;
    let certificate = given.into_inner().certificate.unwrap();
    let identity = Identity {
        key,
        chain_pem: certificate.certificate_pem.clone(),
        host_id: String::new(),
    };
    Ok((identity, certificate))
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// Events of a name, once there are any: they are written after the call that they tell of.
async fn told(house: &House, event: &str) -> Vec<v1::AuditEvent> {
    let looking = async {
        loop {
            let events = events(house, event).await;
            if !events.is_empty() {
                return events;
            }
            sleep(LOOK_APART).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap()
}

async fn events(house: &House, event: &str) -> Vec<v1::AuditEvent> {
    let request = v1::ListEventsRequest {
        event: event.to_owned(),
        ..v1::ListEventsRequest::default()
    };
    let listed = house.admin().audit().list_events(request).await.unwrap();
    listed.into_inner().events
}

/// A role with these conditions on requests, made by an administrator.
async fn role(house: &House, name: &str, allow: v1::RoleConditions) {
    let request = v1::UpsertRoleRequest {
        role: Some(v1::Role {
            name: name.to_owned(),
            allow: Some(allow),
            ..v1::Role::default()
        }),
    };
    house.admin().access().upsert_role(request).await.unwrap();
}

/// Lets its holder ask for a role that takes so many approvals.
fn may_ask(role: &str, approve: u32) -> v1::RoleConditions {
    v1::RoleConditions {
        request: Some(v1::RequestConditions {
            roles: vec![role.to_owned()],
            thresholds: vec![v1::ReviewThreshold {
                name: String::new(),
                approve,
                deny: 1,
            }],
            max_duration: None,
        }),
        ..v1::RoleConditions::default()
    }
}

/// Lets its holder decide about requests for a role.
fn may_review(role: &str) -> v1::RoleConditions {
    v1::RoleConditions {
        review_requests: Some(v1::ReviewConditions {
            roles: vec![role.to_owned()],
            r#where: String::new(),
        }),
        ..v1::RoleConditions::default()
    }
}

#[tokio::test]
async fn approved_roles_are_in_a_certificate_that_ends_with_them_and_names_the_request() {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    let login = house.person("alice", &["requester"]).await;
    let alice = house.known(&login);
    let bob = house.known(&house.person("bob", &["reviewer"]).await);
    assert!(alice.database_names().await.is_empty());

    let asked = v1::CreateAccessRequestRequest {
        max_duration: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..asking(&["access"])
    };
    let made = requests(&alice).create_access_request(asked).await;
    let made = made.unwrap().into_inner();
    assert_eq!(made.state(), AccessRequestState::Pending);
    let early = assume(&house, &login, &[&made.id]).await.err().unwrap();
    assert_eq!(reason(&early), "NOT_APPROVED");

    let approved = review(&bob, &made.id, ReviewVerdict::Approve).await;
    assert_eq!(approved.unwrap().state(), AccessRequestState::Approved);
    let (more, certificate) = assume(&house, &login, &[&made.id]).await.unwrap();
    assert_eq!(
        certificate.expires_at.unwrap().seconds,
        made.access_until.unwrap().seconds
    );
    let identity = certificate.identity.unwrap();
    assert_eq!(identity.roles, ["requester", "access"]);
    assert_eq!(identity.access_requests, [made.id.as_str()]);
    assert_eq!(house.known(&more).database_names().await, ["orders"]);
    // The login itself has what it had.
    assert!(alice.database_names().await.is_empty());
    let (less, _) = assume(&house, &more, &[]).await.unwrap();
    assert!(house.known(&less).database_names().await.is_empty());

    let created = told(&house, "access_request.create").await;
    assert_eq!(
        (created[0].code.as_str(), created[0].user.as_str()),
        ("T5000I", "alice")
    );
    assert_eq!(created[0].fields["roles"], "access");
    let reviewed = told(&house, "access_request.review").await;
    assert_eq!(
        (reviewed[0].code.as_str(), reviewed[0].user.as_str()),
        ("T5002I", "bob")
    );
    assert_eq!(reviewed[0].fields["state"], "APPROVED");
    let assumed = told(&house, "cert.create").await;
    assert_eq!(assumed[0].fields["access_requests"], made.id);

    house.clock.advance(Duration::from_secs(3601));
    let late = assume(&house, &login, &[&made.id]).await.err().unwrap();
    assert_eq!(reason(&late), "ACCESS_ENDED");
    let ended = house
        .known(&more)
        .inventory()
        .list_databases(v1::ListDatabasesRequest::default())
        .await;
    assert_eq!(code(ended), Code::Unauthenticated);
}

#[tokio::test]
async fn requests_are_seen_by_who_asked_who_may_review_and_whom_a_rule_lets() {
    let house = House::new().await;
    let alice = house.known(&house.person("alice", &["requester"]).await);
    let carol = house.known(&house.person("carol", &["requester", "access"]).await);
    let eve = house.known(&house.person("eve", &["editor"]).await);
    role(&house, "decides", may_review("access")).await;
    let bob = house.known(&house.person("bob", &["decides"]).await);
    let made = ask(&alice, &["access"]).await;

    for sees in [&alice, &bob, &eve, &house.admin()] {
        assert_eq!(get(sees, &made.id).await.unwrap().id, made.id);
        assert_eq!(
            ids(sees, v1::AccessRequestScope::Unspecified).await,
            [made.id.as_str()]
        );
    }
    assert_eq!(code(get(&carol, &made.id).await), Code::NotFound);
    assert_eq!(code(remove(&carol, &made.id).await), Code::NotFound);
    assert_eq!(code(remove(&bob, &made.id).await), Code::PermissionDenied);
    assert!(
        ids(&carol, v1::AccessRequestScope::Unspecified)
            .await
            .is_empty()
    );
    assert_eq!(
        ids(&alice, v1::AccessRequestScope::Mine).await,
        [made.id.as_str()]
    );
    assert!(ids(&bob, v1::AccessRequestScope::Mine).await.is_empty());
    assert_eq!(
        ids(&bob, v1::AccessRequestScope::Reviewable).await,
        [made.id.as_str()]
    );
    assert!(
        ids(&alice, v1::AccessRequestScope::Reviewable)
            .await
            .is_empty()
    );
    // Once it is decided it waits for nobody.
    review(&bob, &made.id, ReviewVerdict::Deny).await.unwrap();
    assert!(
        ids(&bob, v1::AccessRequestScope::Reviewable)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_refusal_says_which_role_stands_against_it_and_what_may_be_done_instead() {
    let house = House::new().await;
    let alice = house.known(&house.person("alice", &["requester"]).await);
    let refused = requests(&alice)
        .create_access_request(asking(&["editor"]))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        refused.message(),
        "you may not ask for role `editor`: none of your roles lets you (`allow.request.roles`); you may ask for `access`"
    );
    let mut client = requests(&alice);
    let roles = client.list_requestable_roles(v1::ListRequestableRolesRequest {});
    assert_eq!(roles.await.unwrap().into_inner().roles, ["access"]);

    let made = ask(&alice, &["access"]).await;
    let own = review(&alice, &made.id, ReviewVerdict::Approve).await;
    assert_eq!(
        own.unwrap_err().message(),
        "`alice` may not decide about this request: nobody decides about their own request"
    );
    let carol = house.known(&house.person("carol", &["access"]).await);
    let other = review(&carol, &made.id, ReviewVerdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(reason(&other), "NOT_REVIEWER");
    assert!(
        other.message().contains("`allow.review_requests.roles`"),
        "{}",
        other.message()
    );
    assert_eq!(
        code(decide(&carol, &made.id, ReviewVerdict::Approve).await),
        Code::PermissionDenied
    );
    let someone = v1::CreateAccessRequestRequest {
        user: "alice".to_owned(),
        ..asking(&["access"])
    };
    let for_another = requests(&carol).create_access_request(someone).await;
    assert_eq!(code(for_another), Code::PermissionDenied);
}

#[tokio::test]
async fn an_administrator_decides_alone_and_never_their_own() {
    let house = House::new().await;
    role(&house, "asks", may_ask("access", 3)).await;
    let alice = house.known(&house.person("alice", &["asks"]).await);
    let first = ask(&alice, &["access"]).await;
    let approved = decide(&house.admin(), &first.id, ReviewVerdict::Approve)
        .await
        .unwrap();
    assert_eq!(approved.state(), AccessRequestState::Approved);
    assert_eq!(approved.reviews[0].reviewer, "local administrator");
    let again = decide(&house.admin(), &first.id, ReviewVerdict::Deny)
        .await
        .unwrap_err();
    assert_eq!(reason(&again), "CLOSED");
    let updated = told(&house, "access_request.update").await;
    assert_eq!(
        (
            updated[0].code.as_str(),
            updated[0].fields["state"].as_str()
        ),
        ("T5001I", "APPROVED")
    );

    let eve = house.known(&house.person("eve", &["editor", "asks"]).await);
    let own = ask(&eve, &["access"]).await;
    let refused = decide(&eve, &own.id, ReviewVerdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "NOT_REVIEWER");
    let of_alice = v1::CreateAccessRequestRequest {
        user: "alice".to_owned(),
        ..asking(&["access"])
    };
    let made = requests(&eve)
        .create_access_request(of_alice)
        .await
        .unwrap();
    assert_eq!(made.into_inner().user, "alice");
    let nobody = requests(&house.admin())
        .create_access_request(asking(&["access"]))
        .await;
    assert_eq!(code(nobody), Code::InvalidArgument);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_field() {
    let house = House::new().await;
    let login = house.person("alice", &["requester"]).await;
    let alice = house.known(&login);
    let long = "x".repeat(5000);
    let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (asked, field) in [
        (asking(&[]), "roles"),
        (
            v1::CreateAccessRequestRequest {
                reason: long,
                ..asking(&["access"])
            },
            "reason",
        ),
        (
            v1::CreateAccessRequestRequest {
                max_duration: span(1_000_000_000),
                ..asking(&["access"])
            },
            "max_duration",
        ),
        (
            v1::CreateAccessRequestRequest {
                max_duration: span(-1),
                ..asking(&["access"])
            },
            "max_duration",
        ),
    ] {
        let refused = requests(&alice)
            .create_access_request(asked)
            .await
            .unwrap_err();
        assert_eq!(
            refused.code(),
            Code::InvalidArgument,
            "{}",
            refused.message()
        );
        assert!(refused.message().contains(field), "{}", refused.message());
    }
    for id in ["", "../users/alice", "0190"] {
        assert_eq!(code(get(&alice, id).await), Code::NotFound);
    }
    let made = ask(&alice, &["access"]).await;
    let nothing = review(&alice, &made.id, ReviewVerdict::Unspecified).await;
    assert_eq!(code(nothing), Code::InvalidArgument);
    let page = |page_size, page_token: &str| v1::ListAccessRequestsRequest {
        page_size,
        page_token: page_token.to_owned(),
        ..v1::ListAccessRequestsRequest::default()
    };
    for request in [page(-1, ""), page(1, "00")] {
        let refused = requests(&alice).list_access_requests(request).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
    // An approved request of one person is not there for another.
    decide(&house.admin(), &made.id, ReviewVerdict::Approve)
        .await
        .unwrap();
    let mallory = house.person("mallory", &["requester"]).await;
    let stolen = assume(&house, &mallory, &[&made.id]).await;
    assert_eq!(stolen.err().unwrap().code(), Code::NotFound);
}

#[tokio::test]
async fn pages_go_on_where_the_last_ended() {
    let house = House::new().await;
    let alice = house.known(&house.person("alice", &["requester"]).await);
    let admin = house.admin();
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(ask(&alice, &["access"]).await.id);
    }
    for (caller, scope) in [
        (&alice, v1::AccessRequestScope::Mine),
        (&admin, v1::AccessRequestScope::Unspecified),
    ] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListAccessRequestsRequest {
                page_size: 1,
                page_token,
                scope: scope.into(),
                states: vec![AccessRequestState::Pending.into()],
            };
            let page = requests(caller).list_access_requests(request).await;
            let page = page.unwrap().into_inner();
            assert!(page.requests.len() <= 1);
            seen.extend(page.requests.into_iter().map(|request| request.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, made);
    }
}
