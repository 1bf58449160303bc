use std::{fmt::Write as _, path::Path};

use jiff::Timestamp;
use prost::Message as _;
use tidegate_core::{
    Lock, LockTarget, Policy, Role, RoleConditions,
    access::{Rule, RuleFilter, Verb, VerbPattern, kinds},
};
use tidegate_identity::{Holder, HostHolder, PeerIdentity, Route, UserHolder};

use super::{
    table::{Callers, Need, People},
    *,
};
use crate::access::locks::Known;

fn cluster() -> ClusterName {
    "tidegate.example.com".parse().unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn certified(holder: Holder) -> Peer {
    Peer::Certified(Arc::new(PeerIdentity {
        cluster: cluster(),
        holder,
        expires_at: at(1000),
    }))
}

fn host(services: &[&str]) -> Peer {
    certified(Holder::Host(HostHolder {
        host_id: "h1".parse().unwrap(),
        services: services
            .iter()
            .map(|service| (*service).to_owned())
            .collect(),
        hostname: "h".to_owned(),
    }))
}

fn user(roles: &[&str], route: Option<Route>) -> Peer {
    certified(Holder::User(UserHolder {
        name: "alice".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        traits: [].into(),
        route,
        access_requests: Vec::new(),
        login: None,
    }))
}

/// Somebody who was let through.
pub(super) fn caller() -> Caller {
    admitted("InventoryService/ListDatabases", &user(&["access"], None)).unwrap()
}

fn bound() -> Route {
    Route {
        database: "orders".to_owned(),
        db_user: None,
        db_name: None,
    }
}

/// A role with one rule on one side.
fn ruled(name: &str, kind: &str, verb: VerbPattern, filter: Option<&str>) -> Role {
    let mut rule = Rule::new(&[kind], &[verb]);
    rule.filter = filter.map(|filter| filter.parse::<RuleFilter>().unwrap());
    Role {
        name: name.to_owned(),
        allow: RoleConditions {
            rules: vec![rule],
            ..RoleConditions::default()
        },
        ..Role::default()
    }
}

fn denying(role: Role) -> Role {
    Role {
        deny: role.allow,
        allow: RoleConditions::default(),
        ..role
    }
}

fn policy() -> Arc<Policy> {
    let own = "equals(resource.metadata.name, \"dev\")";
    let any = VerbPattern::ANY;
    Arc::new(Policy::new(Role::builtin().into_iter().chain([
        ruled("dev-roles", kinds::ROLE, any, Some(own)),
        ruled("tokens-of-dev", kinds::TOKEN, any, Some(own)),
        denying(ruled("no-dev-roles", kinds::ROLE, any, Some(own))),
        denying(ruled("no-tokens", kinds::TOKEN, any, None)),
        denying(ruled("no-dev-tokens", kinds::TOKEN, any, Some(own))),
    ])))
}

fn asked(method: &str, peer: &Peer, locks: &Known) -> Result<Caller, Refusal> {
    let requirement = table()[&format!("/{method}")];
    let cluster = Cluster {
        name: &cluster(),
        now: at(500),
        policy: &policy(),
        locks,
        has_account: &|name| name == "alice",
    };
    decide(requirement, peer, &cluster)
}

fn admitted(method: &str, peer: &Peer) -> Result<Caller, Refusal> {
    asked(&format!("tidegate.v1.{method}"), peer, &Known::default())
}

fn outcome(method: &str, peer: &Peer) -> &'static str {
    match admitted(method, peer) {
        Ok(_) => "ok",
        Err(refusal) => refusal.reason(),
    }
}

fn refused(method: &str, roles: &[&str]) -> String {
    let refusal = admitted(method, &user(roles, None)).unwrap_err();
    refusal.status().message().to_owned()
}

#[test]
fn every_method_of_the_contract_has_a_requirement() {
    let contract = prost_types::FileDescriptorSet::decode(tidegate_proto::DESCRIPTOR).unwrap();
    let table = table();
    let mut methods = 0;
    for file in &contract.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                assert!(
                    table.contains_key(&path),
                    "{path} has no entry in the guard's table"
                );
                methods += 1;
            }
        }
    }
    let ours = table
        .keys()
        .filter(|path| path.starts_with("/tidegate.v1."))
        .count();
    assert_eq!(
        ours, methods,
        "the table has entries for methods that do not exist"
    );
}

fn needs_text(needs: &[Need]) -> String {
    let needs: Vec<String> = needs
        .iter()
        .map(|(kind, verb)| format!("{kind}:{}", verb.as_str()))
        .collect();
    needs.join(" ")
}

fn requirement_text(requirement: Requirement) -> String {
    let Callers {
        local,
        hosts,
        people,
    } = match requirement {
        Requirement::Public => return "nothing".to_owned(),
        Requirement::Elsewhere => return "not served here".to_owned(),
        Requirement::Callers(callers) => callers,
    };
    let mut parts = Vec::new();
    if local {
        parts.push("local".to_owned());
    }
    match hosts {
        None => {}
        Some([]) => parts.push("any host".to_owned()),
        Some(services) => parts.push(format!("host of {}", services.join("|"))),
    }
    match people {
        People::Nobody => {}
        People::All => parts.push("any person".to_owned()),
        People::AllCertificates => parts.push("any person's certificate".to_owned()),
        People::Whole(needs) => parts.push(format!("person with {}", needs_text(needs))),
        People::Each(needs) => parts.push(format!(
            "person with {} for the one that is named",
            needs_text(needs)
        )),
    }
    parts.join("; ")
}

/// The table of who may call what, as it is checked in.
fn rendered() -> String {
    let callers: [(&str, Peer); 11] = [
        ("anonymous", Peer::Anonymous),
        ("local", Peer::Local),
        ("db", host(&["db"])),
        ("proxy", host(&["proxy"])),
        ("discovery", host(&["discovery"])),
        ("access", user(&["access"], None)),
        ("auditor", user(&["auditor"], None)),
        ("editor", user(&["editor"], None)),
        ("requester", user(&["requester"], None)),
        ("reviewer", user(&["reviewer"], None)),
        ("bound-editor", user(&["editor"], Some(bound()))),
    ];
    let mut text = "\
# Who may call what: each method, what it asks of its caller, and which of these may call it: nobody known (anonymous),
# root or the service's user on the auth host (local), hosts by service (db, proxy, discovery), people by their one role,
# and an editor's certificate for one database (bound-editor).
# Written by a test: TIDEGATE_BLESS=1 cargo test -p tidegate-auth who_may_call_what
"
    .to_owned();
    let mut methods: Vec<_> = table().into_iter().collect();
    methods.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (path, requirement) in methods {
        let path = path.trim_start_matches('/');
        let passing: Vec<&str> = callers
            .iter()
            .filter(|(_, peer)| asked(path, peer, &Known::default()).is_ok())
            .map(|(name, _)| *name)
            .collect();
        let who = match passing.len() {
            0 => "nobody".to_owned(),
            n if n == callers.len() => "everybody".to_owned(),
            _ => passing.join(" "),
        };
        writeln!(
            text,
            "\n{path}\n  asks   {}\n  passes {who}",
            requirement_text(requirement)
        )
        .unwrap();
    }
    text
}

#[test]
fn who_may_call_what_is_as_checked_in() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/grpc/guard/access.txt");
    let now = rendered();
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let checked_in = std::fs::read_to_string(&file).unwrap();
    assert!(
        now == checked_in,
        "rights changed: run this test with TIDEGATE_BLESS=1 and review the difference of {}",
        file.display()
    );
}

#[test]
fn a_certificate_of_another_cluster_or_time_or_of_nobody_is_refused() {
    let method = "InventoryService/ListDatabases";
    assert_eq!(outcome(method, &Peer::Anonymous), "NO_CERTIFICATE");
    let Peer::Certified(good) = user(&["access"], None) else {
        unreachable!("it was made with a certificate")
    };
    let mut other = PeerIdentity::clone(&good);
    other.cluster = "other.example.com".parse().unwrap();
    assert_eq!(
        outcome(method, &Peer::Certified(Arc::new(other))),
        "OTHER_CLUSTER"
    );
    let mut late = PeerIdentity::clone(&good);
    late.expires_at = at(500);
    assert_eq!(
        outcome(method, &Peer::Certified(Arc::new(late))),
        "CERTIFICATE_EXPIRED"
    );
    let mut gone = PeerIdentity::clone(&good);
    if let Holder::User(user) = &mut gone.holder {
        user.name = "bob".to_owned();
    }
    assert_eq!(
        outcome(method, &Peer::Certified(Arc::new(gone))),
        "ACCOUNT_GONE"
    );
}

#[test]
fn a_denial_says_which_rule_is_missing_or_which_role_denies() {
    assert_eq!(
        refused("AccessService/CreateToken", &["access", "auditor"]),
        "no rule of your roles (`access`, `auditor`) allows `create` on `token`"
    );
    assert_eq!(
        refused("AccessService/CreateToken", &["editor", "no-tokens"]),
        "role `no-tokens` denies `create` on `token`"
    );
    assert!(refused("AccessService/ListUsers", &[]).starts_with("you have no role"));
    assert_eq!(
        refused("AuditService/EmitStream", &["editor"]),
        "only hosts of the cluster may call this"
    );
}

#[test]
fn a_rule_for_some_resources_opens_methods_that_name_one_and_no_others() {
    let dev = user(&["dev-roles", "tokens-of-dev"], None);
    let caller = admitted("AccessService/UpsertRole", &dev).unwrap();
    let put = [Verb::Create, Verb::Update];
    assert!(caller.may(kinds::ROLE, "dev", &put).is_ok());
    let other = caller.may(kinds::ROLE, "prod", &put).unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(caller.sees(kinds::ROLE, "dev") && !caller.sees(kinds::ROLE, "prod"));
    assert_eq!(outcome("AccessService/WatchRoles", &dev), "NOT_ALLOWED");
    assert_eq!(outcome("AccessService/DeleteToken", &dev), "NOT_ALLOWED");
}

#[test]
fn a_deny_of_some_resources_counts_where_they_are_not_told_apart() {
    let narrowed = user(&["editor", "no-dev-roles", "no-dev-tokens"], None);
    let caller = admitted("AccessService/DeleteRole", &narrowed).unwrap();
    assert!(caller.may(kinds::ROLE, "prod", &[Verb::Delete]).is_ok());
    assert!(caller.may(kinds::ROLE, "dev", &[Verb::Delete]).is_err());
    assert_eq!(
        outcome("AccessService/CreateToken", &narrowed),
        "NOT_ALLOWED"
    );
}

#[test]
fn whoever_may_see_databases_by_a_rule_sees_all_and_others_by_labels() {
    let viewer = |roles: &[&str]| {
        let caller = admitted("InventoryService/ListDatabases", &user(roles, None));
        caller.unwrap().viewer()
    };
    use crate::inventory::Viewer;
    assert!(matches!(viewer(&["editor"]), Viewer::AllByRule));
    assert!(matches!(viewer(&["access"]), Viewer::Person(_)));
    assert!(matches!(viewer(&["auditor"]), Viewer::Person(_)));
}

#[test]
fn a_lock_refuses_its_target_and_says_why_but_never_the_local_administrator() {
    let locked = |target| {
        Known::of([Lock {
            name: "l".to_owned(),
            target,
            message: "laptop stolen".to_owned(),
            created: at(0),
            expires: Some(at(600)),
            created_by: String::new(),
        }])
    };
    let named = |text: &str| Some(text.to_owned());
    let method = "tidegate.v1.InventoryService/ListDatabases";
    let alice = locked(LockTarget {
        user: named("alice"),
        ..LockTarget::default()
    });
    let refusal = asked(method, &user(&["editor"], None), &alice).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::Locked("locked: laptop stolen (until 1970-01-01T00:10:00Z)".to_owned())
    );
    assert_eq!(refusal.status().code(), Code::PermissionDenied);
    assert!(asked(method, &Peer::Local, &alice).is_ok());
    assert!(asked(method, &host(&["db"]), &alice).is_ok());
    let role = locked(LockTarget {
        role: named("access"),
        ..LockTarget::default()
    });
    assert!(asked(method, &user(&["editor"], None), &role).is_ok());
    assert!(asked(method, &user(&["editor", "access"], None), &role).is_err());
    let agent = locked(LockTarget {
        agent: named("h1"),
        ..LockTarget::default()
    });
    assert!(asked(method, &host(&["db"]), &agent).is_err());
    let public = "tidegate.v1.TrustService/GetTrust";
    assert!(asked(public, &host(&["db"]), &agent).is_ok());
}
