use tidegate_core::Selector;
use tidegate_identity::{PeerIdentity, tls::first_certificate_der};
use tidegate_proto::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::house::{House, PASSWORD, code};

const HOUR: i64 = 3600;

fn role(name: &str, allow: v1::RoleConditions) -> v1::Role {
    v1::Role {
        name: name.to_owned(),
        allow: Some(allow),
        ..v1::Role::default()
    }
}

async fn put(house: &House, role: v1::Role) -> Result<v1::Role, tonic::Status> {
    let request = v1::UpsertRoleRequest { role: Some(role) };
    let answer = house.admin().access().upsert_role(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn events(house: &House, event: &str) -> Vec<v1::AuditEvent> {
    let request = v1::ListEventsRequest {
        event: event.to_owned(),
        ..v1::ListEventsRequest::default()
    };
    let listed = house.admin().audit().list_events(request).await.unwrap();
    listed.into_inner().events
}

#[tokio::test]
async fn an_auditor_reads_the_audit_log_and_administers_nothing() {
    let house = House::new().await;
    let caller = house.known(&house.person("otto", &["auditor"]).await);
    let mut audit = caller.audit();
    let listed = audit.list_events(v1::ListEventsRequest::default()).await;
    assert!(!listed.unwrap().into_inner().events.is_empty());
    let refused = caller.access().list_users(v1::ListUsersRequest {}).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        refused.message(),
        "no rule of your roles (`auditor`) allows `list` on `user`"
    );
    assert!(caller.database_names().await.is_empty());
}

#[tokio::test]
async fn a_denied_call_is_audited_once() {
    let house = House::new().await;
    let caller = house.known(&house.person("alice", &["access"]).await);
    for _ in 0..3 {
        let refused = caller.access().list_users(v1::ListUsersRequest {}).await;
        assert_eq!(code(refused), Code::PermissionDenied);
    }
    let denied = events(&house, "access.denied").await;
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0].user, "alice");
    assert_eq!(
        denied[0].fields["method"],
        "tidegate.v1.AccessService/ListUsers"
    );
    assert!(denied[0].error.contains("`list` on `user`"));
}

#[tokio::test]
async fn a_rule_with_where_opens_what_it_names_and_hides_the_rest() {
    let house = House::new().await;
    let rule = v1::Rule {
        resources: vec!["role".to_owned()],
        verbs: vec!["*".to_owned()],
        r#where: "hasPrefix(resource.metadata.name, \"dev-\")".to_owned(),
    };
    let lead = role(
        "lead",
        v1::RoleConditions {
            rules: vec![rule],
            ..v1::RoleConditions::default()
        },
    );
    put(&house, lead).await.unwrap();
    let caller = house.known(&house.person("lea", &["lead"]).await);
    let mut access = caller.access();
    let own = |name: &str| v1::UpsertRoleRequest {
        role: Some(role(name, v1::RoleConditions::default())),
    };
    access.upsert_role(own("dev-readers")).await.unwrap();
    let other = access.upsert_role(own("lead")).await;
    assert_eq!(code(other), Code::PermissionDenied);
    let listed = access.list_roles(v1::ListRolesRequest {}).await.unwrap();
    let names: Vec<String> = listed
        .into_inner()
        .roles
        .into_iter()
        .map(|role| role.name)
        .collect();
    assert_eq!(names, ["dev-readers"]);
    // What the service itself denied is audited as what the guard denies.
    let denied = events(&house, "access.denied").await;
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert!(denied[0].error.contains("on `role`"), "{denied:?}");
}

#[tokio::test]
async fn a_role_that_cannot_be_used_is_refused_with_all_its_fields() {
    let house = House::new().await;
    let broken = v1::RoleConditions {
        db_users: vec!["reader".to_owned(), "{{internal.".to_owned()],
        rules: vec![v1::Rule {
            resources: Vec::new(),
            verbs: vec!["list".to_owned()],
            r#where: String::new(),
        }],
        ..v1::RoleConditions::default()
    };
    let refused = put(&house, role("broken", broken)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(
        fields,
        ["role.allow.db_users[1]", "role.allow.rules[0].resources"]
    );
    let predicate = v1::RoleConditions {
        db_labels_expression: "labels[".to_owned(),
        ..v1::RoleConditions::default()
    };
    let refused = put(&house, role("broken", predicate)).await.unwrap_err();
    assert!(
        refused
            .message()
            .contains("role.allow.db_labels_expression"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn a_role_is_replaced_only_at_the_revision_that_was_seen() {
    let house = House::new().await;
    let first = put(&house, role("devs", v1::RoleConditions::default())).await;
    let first = first.unwrap();
    let second = put(&house, first.clone()).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(code(put(&house, first).await), Code::Aborted);
}

#[tokio::test]
async fn a_role_that_people_have_stays_and_says_who() {
    let house = House::new().await;
    put(&house, role("devs", v1::RoleConditions::default()))
        .await
        .unwrap();
    house.add_user("dan", &["devs"]).await;
    house.add_user("eve", &["editor", "devs"]).await;
    let request = v1::DeleteRoleRequest {
        name: "devs".to_owned(),
    };
    let refused = house.admin().access().delete_role(request).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "role `devs` is given to `dan`, `eve`: take it away first"
    );
    for builtin in ["auditor", "requester", "reviewer"] {
        let replaced = put(&house, role(builtin, v1::RoleConditions::default())).await;
        assert_eq!(code(replaced), Code::FailedPrecondition, "{builtin}");
    }
}

#[tokio::test]
async fn a_login_lasts_as_long_as_the_strictest_role_allows() {
    let house = House::new().await;
    let lasting = |name: &str, hours: i64| v1::Role {
        options: Some(v1::RoleOptions {
            max_session_ttl: Some(prost_types::Duration {
                seconds: hours * HOUR,
                nanos: 0,
            }),
            ..v1::RoleOptions::default()
        }),
        ..role(name, v1::RoleConditions::default())
    };
    put(&house, lasting("day", 8)).await.unwrap();
    put(&house, lasting("quick", 2)).await.unwrap();
    let alice = house.person("alice", &["access", "day", "quick"]).await;
    let certificate = first_certificate_der(&alice.chain_pem).unwrap();
    let ends = PeerIdentity::from_der(&certificate).unwrap().expires_at;
    let left = ends.as_second() - jiff::Timestamp::now().as_second();
    assert!((2 * HOUR - 60..=2 * HOUR).contains(&left), "{left}");
}

#[tokio::test]
async fn access_is_explained_with_the_roles_of_now_and_the_lock_that_strikes() {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    let readers = v1::RoleConditions {
        db_labels: Some(Selector::new([("env", ["prod"])]).unwrap().into()),
        db_users: vec!["reader".to_owned()],
        db_names: vec!["*".to_owned()],
        ..v1::RoleConditions::default()
    };
    put(&house, role("readers", readers)).await.unwrap();
    house.add_user("alice", &["readers"]).await;
    let mut access = house.admin().access();
    let ask = |db_user: &str| v1::ExplainAccessRequest {
        user: "alice".to_owned(),
        database: "orders".to_owned(),
        db_user: db_user.to_owned(),
        db_name: "dev".to_owned(),
    };
    let yes = access.explain_access(ask("reader")).await.unwrap();
    let yes = yes.into_inner();
    assert!(yes.allowed);
    assert!(yes.lines[0].contains("allowed by role `readers`"));
    let no = access.explain_access(ask("postgres")).await.unwrap();
    let no = no.into_inner();
    assert!(!no.allowed && no.lock.is_none());
    // As the guide shows it.
    let guide = "\
`alice` using database `orders` as `postgres` on `dev`: no role allows it
  role `readers`
    deny   nothing
    allow  db_labels            yes  env = prod
    allow  db_users             no   `postgres` in reader
    allow  db_names             yes  `dev` in *";
    assert_eq!(no.lines.join("\n"), guide);
    assert!(
        no.reason_json.contains("\"not_allowed\""),
        "{}",
        no.reason_json
    );

    let lock = v1::Lock {
        name: "stolen".to_owned(),
        target: Some(v1::LockTarget {
            user: "alice".to_owned(),
            ..v1::LockTarget::default()
        }),
        ..v1::Lock::default()
    };
    let request = v1::UpsertLockRequest { lock: Some(lock) };
    access.upsert_lock(request).await.unwrap();
    let locked = access.explain_access(ask("reader")).await.unwrap();
    let locked = locked.into_inner();
    assert!(!locked.allowed);
    assert_eq!(locked.lock.unwrap().name, "stolen");
    assert!(locked.lines[0].starts_with("lock `stolen` shuts `alice` out"));

    let nobody = v1::ExplainAccessRequest {
        user: "nobody".to_owned(),
        ..ask("reader")
    };
    assert_eq!(code(access.explain_access(nobody).await), Code::NotFound);
    let nothing = v1::ExplainAccessRequest {
        database: "nothing".to_owned(),
        ..ask("reader")
    };
    assert_eq!(code(access.explain_access(nothing).await), Code::NotFound);
}

#[tokio::test]
async fn a_person_is_told_what_the_roles_of_now_let_choose_on_a_database() {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    house.add_database("scratch", "dev").await;
    let readers = |users: &[&str]| v1::RoleConditions {
        db_labels: Some(Selector::new([("env", ["prod"])]).unwrap().into()),
        db_users: users.iter().map(|user| (*user).to_owned()).collect(),
        db_names: vec!["*".to_owned()],
        ..v1::RoleConditions::default()
    };
    let with_deny = v1::Role {
        deny: Some(v1::RoleConditions {
            db_names: vec!["postgres".to_owned()],
            ..v1::RoleConditions::default()
        }),
        ..role("readers", readers(&["reader"]))
    };
    put(&house, with_deny.clone()).await.unwrap();
    let alice = house.known(&house.person("alice", &["readers"]).await);
    let mut doors = alice.front_doors();
    let ask = |database: &str| v1::DescribeChoicesRequest {
        database: database.to_owned(),
    };
    let told = doors.describe_choices(ask("orders")).await.unwrap();
    let told = told.into_inner();
    assert_eq!(told.db_users.unwrap().values, ["reader"]);
    let names = told.db_names.unwrap();
    assert_eq!(
        (names.values, names.except),
        (vec!["*".to_owned()], vec!["postgres".to_owned()])
    );
    assert_eq!(told.own_db_user, "");

    let more = v1::Role {
        allow: Some(readers(&["writer", "reader"])),
        ..with_deny
    };
    put(&house, more).await.unwrap();
    let told = doors.describe_choices(ask("orders")).await.unwrap();
    assert_eq!(
        told.into_inner().db_users.unwrap().values,
        ["reader", "writer"]
    );

    // What the roles do not let use is as if it were not there.
    for hidden in ["scratch", "nothing"] {
        let refused = doors.describe_choices(ask(hidden)).await;
        assert_eq!(code(refused), Code::NotFound, "{hidden}");
    }
    let admin = house
        .admin()
        .front_doors()
        .describe_choices(ask("orders"))
        .await;
    assert_eq!(code(admin), Code::PermissionDenied);
}

#[tokio::test]
async fn a_person_gets_other_roles_at_the_next_login() {
    let house = House::new().await;
    house.person("alice", &["access"]).await;
    let mut access = house.admin().access();
    let listed = access.list_users(v1::ListUsersRequest {}).await.unwrap();
    let mut alice = listed.into_inner().users.remove(0);
    let seen = alice.revision;
    alice.roles = vec!["auditor".to_owned()];
    let request = |user: &v1::User| v1::UpdateUserRequest {
        user: Some(user.clone()),
    };
    let updated = access.update_user(request(&alice)).await.unwrap();
    let updated = updated.into_inner();
    assert!(updated.signed_up && updated.revision > seen);
    assert_eq!(
        code(access.update_user(request(&alice)).await),
        Code::Aborted
    );
    alice.roles = vec!["admins".to_owned()];
    assert_eq!(
        code(access.update_user(request(&alice)).await),
        Code::InvalidArgument
    );
    let caller = house.known(&house.login("alice", PASSWORD).await.unwrap());
    let mut audit = caller.audit();
    let listed = audit.list_events(v1::ListEventsRequest::default()).await;
    assert!(listed.is_ok());
    let told = events(&house, "user.update").await;
    assert_eq!(told[0].fields["roles"], "auditor");
}

#[tokio::test]
async fn a_reset_voids_the_password_and_opens_one_sign_up() {
    let house = House::new().await;
    house.person("alice", &["access"]).await;
    let reset = || v1::ResetUserRequest {
        name: "alice".to_owned(),
        ttl: None,
    };
    let mut access = house.admin().access();
    let first = access.reset_user(reset()).await.unwrap().into_inner();
    assert!(!first.user.unwrap().signed_up);
    let refused = house.login("alice", PASSWORD).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let second = access.reset_user(reset()).await.unwrap().into_inner();
    let sign_up = |token: String| v1::SignUpRequest {
        token,
        password: "another good password".to_owned(),
    };
    let mut session = house.stranger().session();
    let old = session.sign_up(sign_up(first.signup_token)).await;
    assert_eq!(code(old), Code::Unauthenticated);
    session.sign_up(sign_up(second.signup_token)).await.unwrap();
    assert!(house.login("alice", "another good password").await.is_ok());
    let unknown = v1::ResetUserRequest {
        name: "nobody".to_owned(),
        ttl: None,
    };
    assert_eq!(code(access.reset_user(unknown).await), Code::NotFound);
}
