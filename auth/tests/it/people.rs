use std::time::Duration;

use tidegate_core::Selector;
use tidegate_identity::{Holder, PeerIdentity, tls::first_certificate_der};
use tidegate_proto::v1;
use tonic::Code;

use crate::house::{House, PASSWORD, code};

fn sign_up(token: &str, password: &str) -> v1::SignUpRequest {
    v1::SignUpRequest {
        token: token.to_owned(),
        password: password.to_owned(),
    }
}

#[tokio::test]
async fn a_person_signs_up_once_and_logs_in_for_twelve_hours() {
    let house = House::new().await;
    let token = house.add_user("alice", &["access"]).await;
    let mut session = house.stranger().session();
    let short = session.sign_up(sign_up(&token, "too short")).await;
    assert_eq!(code(short), Code::InvalidArgument);
    let signed_up = session.sign_up(sign_up(&token, PASSWORD)).await.unwrap();
    assert_eq!(signed_up.into_inner().user, "alice");
    let again = session.sign_up(sign_up(&token, "another password")).await;
    assert_eq!(code(again), Code::Unauthenticated);

    let alice = house.login("alice", PASSWORD).await.unwrap();
    let certificate = first_certificate_der(&alice.chain_pem).unwrap();
    let identity = PeerIdentity::from_der(&certificate).unwrap();
    let Holder::User(user) = identity.holder else {
        panic!("not a person's certificate")
    };
    assert_eq!(
        (user.name.as_str(), user.roles.as_slice()),
        ("alice", ["access".to_owned()].as_slice())
    );
    let left = identity.expires_at.as_second() - jiff::Timestamp::now().as_second();
    assert!((12 * 3600 - 60..=12 * 3600).contains(&left), "{left}");

    let mut session = house.known(&alice).session();
    let me = session
        .who_am_i(v1::WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(me.identity.unwrap().cluster, "tidegate.test");
}

#[tokio::test]
async fn an_expired_sign_up_token_opens_nothing() {
    let house = House::new().await;
    let token = house.add_user("alice", &["access"]).await;
    house.clock.advance(Duration::from_secs(3601));
    let late = house
        .stranger()
        .session()
        .sign_up(sign_up(&token, PASSWORD))
        .await;
    assert_eq!(code(late), Code::Unauthenticated);
}

#[tokio::test]
async fn wrong_names_and_wrong_passwords_look_alike_and_have_to_wait() {
    let house = House::new().await;
    house.person("alice", &["access"]).await;
    let wrong_password = house.login("alice", "wrong password").await.err().unwrap();
    let wrong_name = house.login("nobody", PASSWORD).await.err().unwrap();
    assert_eq!(wrong_password.message(), wrong_name.message());
    assert_eq!(wrong_name.code(), Code::Unauthenticated);
    for _ in 0..4 {
        assert!(house.login("alice", "wrong password").await.is_err());
    }
    let waiting = house.login("alice", PASSWORD).await.err().unwrap();
    assert_eq!(waiting.code(), Code::ResourceExhausted);
    house.clock.advance(Duration::from_secs(60));
    assert!(house.login("alice", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn people_see_the_databases_that_their_roles_allow() {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    house.add_database("lab", "dev").await;
    let role = v1::Role {
        name: "devs".to_owned(),
        allow: Some(v1::RoleConditions {
            db_labels: Some(Selector::new([("env", ["dev"])]).unwrap().into()),
            ..v1::RoleConditions::default()
        }),
        ..v1::Role::default()
    };
    let request = v1::UpsertRoleRequest { role: Some(role) };
    house.admin().access().upsert_role(request).await.unwrap();
    let dev = house.known(&house.person("dan", &["devs"]).await);
    let all = house.known(&house.person("alice", &["access"]).await);
    let editor = house.known(&house.person("eve", &["editor"]).await);
    assert_eq!(dev.database_names().await, ["lab"]);
    assert_eq!(all.database_names().await, ["lab", "orders"]);
    assert_eq!(editor.database_names().await, ["lab", "orders"]);

    let hidden = v1::GetDatabaseRequest {
        name: "orders".to_owned(),
    };
    assert_eq!(
        code(dev.inventory().get_database(hidden.clone()).await),
        Code::NotFound
    );
    assert!(all.inventory().get_database(hidden).await.is_ok());
    assert_eq!(
        code(dev.access().list_users(v1::ListUsersRequest {}).await),
        Code::PermissionDenied
    );
    assert!(
        editor
            .access()
            .list_users(v1::ListUsersRequest {})
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_database_certificate_opens_one_database_and_nothing_else() {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    let alice = house.person("alice", &["access", "editor"]).await;
    let key = tidegate_identity::KeyPair::generate().unwrap();
    let request = |database: &str| v1::IssueDatabaseCertificateRequest {
        public_key: key.public_key_der(),
        route: Some(v1::DatabaseRoute {
            database: database.to_owned(),
            db_user: "reader".to_owned(),
            db_name: String::new(),
        }),
    };
    let mut session = house.known(&alice).session();
    let unknown = session.issue_database_certificate(request("nothing")).await;
    assert_eq!(code(unknown), Code::NotFound);
    let issued = session.issue_database_certificate(request("orders")).await;
    let issued = issued.unwrap().into_inner();
    let identity = issued.identity.unwrap();
    assert_eq!(identity.route.unwrap().database, "orders");

    let bound = crate::house::Identity {
        key: key.clone(),
        chain_pem: issued.certificate_pem,
        host_id: String::new(),
    };
    let bound = house.known(&bound);
    assert!(bound.session().who_am_i(v1::WhoAmIRequest {}).await.is_ok());
    let listed = bound
        .inventory()
        .list_databases(v1::ListDatabasesRequest::default())
        .await;
    assert_eq!(code(listed), Code::PermissionDenied);
    let again = bound
        .session()
        .issue_database_certificate(request("orders"))
        .await;
    assert_eq!(code(again), Code::PermissionDenied);
}

#[tokio::test]
async fn a_deleted_person_is_out_at_once() {
    let house = House::new().await;
    let alice = house.person("alice", &["access"]).await;
    let caller = house.known(&alice);
    assert!(caller.database_names().await.is_empty());
    let request = v1::DeleteUserRequest {
        name: "alice".to_owned(),
    };
    house.admin().access().delete_user(request).await.unwrap();
    let listed = caller
        .inventory()
        .list_databases(v1::ListDatabasesRequest::default())
        .await;
    assert_eq!(code(listed), Code::Unauthenticated);
    assert_eq!(
        house.login("alice", PASSWORD).await.err().unwrap().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn an_expired_certificate_ends_a_connection_s_rights() {
    let house = House::new().await;
    let caller = house.known(&house.person("alice", &["access"]).await);
    assert!(caller.database_names().await.is_empty());
    house.clock.advance(Duration::from_secs(12 * 3600 + 1));
    let listed = caller
        .inventory()
        .list_databases(v1::ListDatabasesRequest::default())
        .await;
    assert_eq!(code(listed), Code::Unauthenticated);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_field() {
    let house = House::new().await;
    let mut access = house.admin().access();
    let user = |name: &str, role: &str| v1::CreateUserRequest {
        user: Some(v1::User {
            name: name.to_owned(),
            roles: vec![role.to_owned()],
            ..v1::User::default()
        }),
        ttl: None,
    };
    assert_eq!(
        code(access.create_user(user("a b", "access")).await),
        Code::InvalidArgument
    );
    let unknown = access
        .create_user(user("alice", "admins"))
        .await
        .unwrap_err();
    assert!(
        unknown.message().contains("no role `admins`"),
        "{}",
        unknown.message()
    );
    access.create_user(user("alice", "access")).await.unwrap();
    assert_eq!(
        code(access.create_user(user("alice", "access")).await),
        Code::AlreadyExists
    );
    let too_long = v1::CreateUserRequest {
        ttl: Some(prost_types::Duration {
            seconds: 49 * 3600,
            nanos: 0,
        }),
        ..user("bob", "access")
    };
    assert_eq!(
        code(access.create_user(too_long).await),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn roles_are_watched_and_built_in_ones_stay() {
    let house = House::new().await;
    let agent = house.known(&house.host(&["db"]).await);
    let watch = agent.access().watch_roles(v1::WatchRolesRequest {}).await;
    let mut watch = watch.unwrap().into_inner();
    let names = |answer: v1::WatchRolesResponse| {
        answer
            .roles
            .into_iter()
            .map(|role| role.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(watch.message().await.unwrap().unwrap()),
        ["access", "auditor", "editor", "requester", "reviewer"]
    );
    let role = |name: &str| v1::UpsertRoleRequest {
        role: Some(v1::Role {
            name: name.to_owned(),
            ..v1::Role::default()
        }),
    };
    let mut access = house.admin().access();
    assert_eq!(
        code(access.upsert_role(role("access")).await),
        Code::FailedPrecondition
    );
    access.upsert_role(role("devs")).await.unwrap();
    assert_eq!(
        names(watch.message().await.unwrap().unwrap()),
        [
            "access",
            "auditor",
            "devs",
            "editor",
            "requester",
            "reviewer"
        ]
    );

    house.add_user("dan", &["devs"]).await;
    let delete = v1::DeleteRoleRequest {
        name: "devs".to_owned(),
    };
    assert_eq!(
        code(access.delete_role(delete.clone()).await),
        Code::FailedPrecondition
    );
    let gone = v1::DeleteUserRequest {
        name: "dan".to_owned(),
    };
    access.delete_user(gone).await.unwrap();
    access.delete_role(delete).await.unwrap();
    assert_eq!(
        names(watch.message().await.unwrap().unwrap()),
        ["access", "auditor", "editor", "requester", "reviewer"]
    );
}
