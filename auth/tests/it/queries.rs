//! `ResourceService`: every kind by one way.

mod laws;
mod watching;

use prost::Message as _;
use prost_types::FieldMask;
use tidegate_core::{Selector, predicate::reference::KINDS};
use tidegate_proto::v1::{self, resource::Body};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    discovery::{Worker, items},
    house::{Caller, House, PASSWORD, STATIC_TOKEN, code},
    inventory::{Presence, serve},
};

fn of(kind: &str) -> v1::ListResourcesRequest {
    v1::ListResourcesRequest {
        kind: kind.to_owned(),
        ..v1::ListResourcesRequest::default()
    }
}

async fn list(
    caller: &Caller,
    request: v1::ListResourcesRequest,
) -> Result<v1::ListResourcesResponse, Status> {
    let listed = caller.resources().list_resources(request).await;
    listed.map(tonic::Response::into_inner)
}

async fn names(caller: &Caller, request: v1::ListResourcesRequest) -> Vec<String> {
    let listed = list(caller, request).await.unwrap().resources;
    listed.into_iter().map(|resource| resource.name).collect()
}

async fn get(caller: &Caller, kind: &str, name: &str) -> Result<v1::Resource, Status> {
    let request = v1::GetResourceRequest {
        kind: kind.to_owned(),
        name: name.to_owned(),
        read_mask: None,
    };
    let got = caller.resources().get_resource(request).await;
    got.map(tonic::Response::into_inner)
}

async fn put_role(house: &House, name: &str, rules: Vec<v1::Rule>) {
    let allow = v1::RoleConditions {
        rules,
        ..v1::RoleConditions::default()
    };
    let role = v1::Role {
        name: name.to_owned(),
        allow: Some(allow),
        ..v1::Role::default()
    };
    let request = v1::UpsertRoleRequest { role: Some(role) };
    house.admin().access().upsert_role(request).await.unwrap();
}

fn rule(kind: &str, filter: &str) -> v1::Rule {
    v1::Rule {
        resources: vec![kind.to_owned()],
        verbs: vec!["list".to_owned(), "read".to_owned()],
        r#where: filter.to_owned(),
    }
}

async fn lock(house: &House, name: &str, user: &str) {
    let target = v1::LockTarget {
        user: user.to_owned(),
        ..v1::LockTarget::default()
    };
    let lock = v1::Lock {
        name: name.to_owned(),
        target: Some(target),
        message: "gone fishing".to_owned(),
        ..v1::Lock::default()
    };
    let request = v1::UpsertLockRequest { lock: Some(lock) };
    house.admin().access().upsert_lock(request).await.unwrap();
}

async fn unlock(house: &House, name: &str) {
    let request = v1::DeleteLockRequest {
        name: name.to_owned(),
    };
    house.admin().access().delete_lock(request).await.unwrap();
}

fn field(status: &Status) -> String {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| &bad.field_violations);
    violations.map_or_else(String::new, |violations| violations[0].field.clone())
}

/// A cluster with something of every kind, and what must be kept while it is looked at.
async fn furnished() -> (House, Vec<String>, Presence) {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    house.add_database("lab", "dev").await;
    let agent = house.host(&["db"]).await;
    let presence = serve(&house, &agent, &["a", "b"]).await;
    let config = v1::DiscoveryConfig {
        name: "team".to_owned(),
        discovery_group: "g".to_owned(),
        aws: vec![v1::AwsMatcher {
            types: vec!["redshift".to_owned()],
            regions: vec!["eu-west-1".to_owned()],
            ..v1::AwsMatcher::default()
        }],
        revision: 0,
    };
    let request = v1::UpsertDiscoveryConfigRequest {
        config: Some(config),
    };
    let mut discovery = house.admin().discovery();
    discovery.upsert_discovery_config(request).await.unwrap();
    let worker = Worker::start(&house, "prod", 0).await;
    worker.publish(true, 1, items(&["dw"])).await.unwrap();
    house.person("alice", &["access"]).await;
    let signup = house.add_user("bob", &["editor"]).await;
    let join = house.join_token(&["db"]).await;
    lock(&house, "l1", "mallory").await;
    (house, vec![signup, join], presence)
}

#[tokio::test]
async fn every_kind_is_listed_got_and_counted_by_one_way() {
    let (house, _, _presence) = furnished().await;
    let admin = house.admin();
    for (kind, _) in KINDS {
        let listed = list(&admin, of(kind)).await.unwrap();
        let found = listed.resources.len();
        assert_eq!(found == 0, kind == "proxy", "{kind}");
        let request = v1::CountResourcesRequest {
            kind: kind.to_owned(),
            by: "name".to_owned(),
            ..v1::CountResourcesRequest::default()
        };
        let counted = admin.resources().count_resources(request).await.unwrap();
        assert_eq!(counted.into_inner().total, found as u64, "{kind}");
        for resource in listed.resources {
            assert_eq!(resource.kind, kind);
            let got = get(&admin, kind, &resource.name).await.unwrap();
            assert_eq!(got, resource);
        }
        assert_eq!(code(get(&admin, kind, "no/such").await), Code::NotFound);
    }
    let scope = list(&admin, of("discovery_scope"))
        .await
        .unwrap()
        .resources
        .remove(0);
    let Some(Body::DiscoveryScope(scope)) = scope.body else {
        panic!("a scope is a scope");
    };
    assert!(scope.aws_calls == 3 && scope.databases == 1, "{scope:?}");
    let instance = list(&admin, of("instance"))
        .await
        .unwrap()
        .resources
        .remove(0);
    let Some(Body::Instance(instance)) = instance.body else {
        panic!("an instance is an instance");
    };
    assert_eq!(
        (instance.databases, instance.services),
        (2, vec!["db".to_owned()])
    );
    assert!(instance.since.is_some());
}

#[tokio::test]
async fn a_listing_is_searched_filtered_ordered_and_masked() {
    let (house, _, _presence) = furnished().await;
    let admin = house.admin();
    let request = v1::ListResourcesRequest {
        filter: "contains(roles, \"editor\") && !signed_up".to_owned(),
        ..of("user")
    };
    assert_eq!(names(&admin, request).await, ["bob"]);
    let request = v1::ListResourcesRequest {
        search: vec!["ALI".to_owned(), "access".to_owned()],
        ..of("user")
    };
    assert_eq!(names(&admin, request).await, ["alice"]);
    let request = v1::ListResourcesRequest {
        order_by: "signed_up desc, name desc".to_owned(),
        ..of("user")
    };
    assert_eq!(names(&admin, request).await, ["alice", "bob"]);
    let request = v1::ListResourcesRequest {
        filter: "target.user == \"mallory\"".to_owned(),
        read_mask: Some(FieldMask {
            paths: vec!["target.user".to_owned()],
        }),
        ..of("lock")
    };
    let listed = list(&admin, request).await.unwrap().resources.remove(0);
    let Some(Body::Lock(lock)) = listed.body else {
        panic!("a lock is a lock");
    };
    assert_eq!((listed.name.as_str(), lock.message.as_str()), ("l1", ""));
    assert_eq!(lock.target.unwrap().user, "mallory");
    let request = v1::ListResourcesRequest {
        selector: Some(Selector::new([("env", ["prod"])]).unwrap().into()),
        filter: "origin == \"dynamic\"".to_owned(),
        ..of("db")
    };
    assert_eq!(names(&admin, request).await, ["orders"]);
    let request = v1::ListResourcesRequest {
        order_by: "labels.env, name desc".to_owned(),
        filter: "origin == \"config\"".to_owned(),
        ..of("db_server")
    };
    let servers = names(&admin, request).await;
    assert!(
        servers[0].starts_with("b/") && servers[1].starts_with("a/"),
        "{servers:?}"
    );
}

#[tokio::test]
async fn counts_are_by_a_field_a_label_or_a_trait() {
    let (house, _, _presence) = furnished().await;
    let count = async |kind: &str, by: &str| {
        let request = v1::CountResourcesRequest {
            kind: kind.to_owned(),
            by: by.to_owned(),
            ..v1::CountResourcesRequest::default()
        };
        let counted = house.admin().resources().count_resources(request).await;
        let counts = counted.unwrap().into_inner().counts;
        let counts = counts
            .into_iter()
            .map(|count| format!("{}={}", count.value, count.count));
        counts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(count("user", "roles").await, "access=1 editor=1");
    assert_eq!(count("user", "traits.team").await, "=2");
    assert_eq!(count("role", "built_in").await, "yes=5");
    assert_eq!(count("db", "origin").await, "dynamic=2 cloud=1");
    assert_eq!(count("db_server", "labels.env").await, "prod=2");
    assert_eq!(count("instance", "services").await, "db=1");
    assert_eq!(count("lock", "").await, "");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_its_field() {
    let house = House::new().await;
    let request = |change: fn(&mut v1::ListResourcesRequest)| {
        let mut request = of("user");
        change(&mut request);
        request
    };
    for (wrong, request) in [
        ("kind", of("usr")),
        ("kind", of("")),
        ("page_size", request(|asked| asked.page_size = -1)),
        (
            "page_token",
            request(|asked| asked.page_token = "00".to_owned()),
        ),
        (
            "selector",
            request(|asked| asked.selector = Some(v1::Selector::default())),
        ),
        (
            "filter",
            request(|asked| asked.filter = "nmae == \"x\"".to_owned()),
        ),
        (
            "order_by",
            request(|asked| asked.order_by = "traits".to_owned()),
        ),
        (
            "search",
            request(|asked| asked.search = vec![String::new(); 17]),
        ),
        (
            "read_mask",
            request(|asked| {
                asked.read_mask = Some(FieldMask {
                    paths: vec!["password_hash".to_owned()],
                });
            }),
        ),
    ] {
        let refused = list(&house.admin(), request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}: {refused}");
        assert_eq!(field(&refused), wrong, "{refused}");
    }
    let refused = list(&house.admin(), of("usr")).await.unwrap_err();
    assert!(
        refused.message().contains("did you mean `user`"),
        "{refused}"
    );
    assert_eq!(
        field(&get(&house.admin(), "user", "").await.unwrap_err()),
        "name"
    );
    let large = request(|asked| asked.page_size = i32::MAX);
    assert!(list(&house.admin(), large).await.is_ok());
}

#[tokio::test]
async fn a_page_token_belongs_to_its_query() {
    let house = House::new().await;
    let first = v1::ListResourcesRequest {
        page_size: 2,
        ..of("role")
    };
    let page = list(&house.admin(), first.clone()).await.unwrap();
    assert_eq!(page.resources.len(), 2);
    let next = v1::ListResourcesRequest {
        page_size: 10,
        page_token: page.next_page_token,
        ..first
    };
    assert_eq!(names(&house.admin(), next.clone()).await.len(), 3);
    for other in [
        v1::ListResourcesRequest {
            kind: "user".to_owned(),
            ..next.clone()
        },
        v1::ListResourcesRequest {
            order_by: "name desc".to_owned(),
            ..next.clone()
        },
        v1::ListResourcesRequest {
            filter: "built_in".to_owned(),
            ..next.clone()
        },
    ] {
        let refused = list(&house.admin(), other).await.unwrap_err();
        assert_eq!(field(&refused), "page_token");
    }
}

#[tokio::test]
async fn each_kind_asks_its_own_rule() {
    let house = House::new().await;
    put_role(&house, "clerk", vec![rule("user", ""), rule("token", "")]).await;
    let clerk = house.known(&house.person("carol", &["clerk"]).await);
    let agent = house.known(&house.host(&["db"]).await);
    let worker = house.known(&house.host(&["discovery"]).await);
    for (kind, people, agents, workers) in [
        ("db", true, true, true),
        ("db_server", true, true, true),
        ("discovery_config", false, true, true),
        ("discovery_scope", false, true, true),
        ("instance", false, false, false),
        ("lock", false, true, false),
        ("proxy", true, true, true),
        ("role", false, true, false),
        ("token", true, false, false),
        ("user", true, false, false),
    ] {
        for (caller, may) in [(&clerk, people), (&agent, agents), (&worker, workers)] {
            let filter = v1::ResourceFilter {
                kind: kind.to_owned(),
                ..v1::ResourceFilter::default()
            };
            let watch = v1::WatchResourcesRequest {
                kinds: vec![filter],
                after_revision: 0,
            };
            let count = v1::CountResourcesRequest {
                kind: kind.to_owned(),
                ..v1::CountResourcesRequest::default()
            };
            let outcomes = [
                list(caller, of(kind)).await.map(drop),
                caller.resources().count_resources(count).await.map(drop),
                caller.resources().watch_resources(watch).await.map(drop),
            ];
            for outcome in outcomes {
                let expected = if may {
                    Code::Ok
                } else {
                    Code::PermissionDenied
                };
                let code = outcome.err().map_or(Code::Ok, |status| status.code());
                assert_eq!(code, expected, "{kind}");
            }
            let missing = if may {
                Code::NotFound
            } else {
                Code::PermissionDenied
            };
            assert_eq!(code(get(caller, kind, "none").await), missing, "{kind}");
        }
    }
    assert_eq!(
        code(list(&house.stranger(), of("db")).await),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn what_a_rule_hides_is_as_if_it_were_not_there() {
    let house = House::new().await;
    let own = "hasPrefix(resource.metadata.name, \"dev-\")";
    put_role(&house, "lead", vec![rule("user", own)]).await;
    house.add_user("dev-a", &["access"]).await;
    house.add_user("boss", &["editor"]).await;
    let lead = house.known(&house.person("dev-lead", &["lead"]).await);
    assert_eq!(names(&lead, of("user")).await, ["dev-a", "dev-lead"]);
    assert!(get(&lead, "user", "dev-a").await.is_ok());
    assert_eq!(code(get(&lead, "user", "boss").await), Code::NotFound);
    let request = v1::CountResourcesRequest {
        kind: "user".to_owned(),
        by: "roles".to_owned(),
        ..v1::CountResourcesRequest::default()
    };
    let counted = lead
        .resources()
        .count_resources(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(counted.total, 2);
    assert!(counted.counts.iter().all(|count| count.value != "editor"));
    let dbs = house.known(&house.person("eve", &["access"]).await);
    house.add_database("orders", "prod").await;
    assert_eq!(names(&dbs, of("db")).await, ["orders"]);
    assert_eq!(code(get(&lead, "db", "orders").await), Code::NotFound);
}

#[tokio::test]
async fn no_answer_holds_a_secret_or_what_proves_one() {
    let (house, mut secrets, _presence) = furnished().await;
    secrets.push(PASSWORD.to_owned());
    secrets.push(STATIC_TOKEN.to_owned());
    let digests: Vec<String> = secrets
        .iter()
        .map(|secret| tidegate_identity::secret::hex(&tidegate_identity::secret::digest(secret)))
        .collect();
    secrets.extend(digests);
    secrets.push("$argon2".to_owned());
    secrets.push("PRIVATE KEY".to_owned());
    let holds = |bytes: &[u8], secret: &str| {
        bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes())
    };
    for (kind, schema) in KINDS {
        for field in schema.iter().map(|field| field.path) {
            let mut request = v1::ListResourcesRequest {
                page_size: 1,
                order_by: format!("{field} desc"),
                ..of(kind)
            };
            // Page tokens are looked at too, as text and as the bytes that they spell.
            while let Ok(page) = list(&house.admin(), request.clone()).await {
                let token = &page.next_page_token;
                let spelled: Vec<u8> = (0..token.len() / 2)
                    .map(|at| u8::from_str_radix(&token[2 * at..2 * at + 2], 16).unwrap())
                    .collect();
                let encoded = page.encode_to_vec();
                for secret in &secrets {
                    assert!(!holds(&encoded, secret), "{kind} tells a secret");
                    assert!(
                        !holds(&spelled, secret),
                        "a page token of {kind} tells a secret"
                    );
                }
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            let count = v1::CountResourcesRequest {
                kind: kind.to_owned(),
                by: field.to_owned(),
                ..v1::CountResourcesRequest::default()
            };
            if let Ok(counted) = house.admin().resources().count_resources(count).await {
                let encoded = counted.into_inner().encode_to_vec();
                assert!(
                    secrets.iter().all(|secret| !holds(&encoded, secret)),
                    "{kind}"
                );
            }
        }
    }
}
