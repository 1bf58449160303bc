use prost::Message as _;
use tidegate_identity::Route;

use super::*;

fn cluster() -> ClusterName {
    "tidegate.example.com".parse().unwrap()
}

fn at(second: i64) -> Timestamp {
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
    }))
}

fn outcome(method: &str, peer: &Peer) -> &'static str {
    let requirement = table()[&format!("/tidegate.v1.{method}")];
    match decide(requirement, peer, &cluster(), at(500), |name| {
        name == "alice"
    }) {
        Ok(_) => "ok",
        Err(refusal) => refusal.reason(),
    }
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

#[test]
fn who_may_call_what_is_as_written_down() {
    let bound = Route {
        database: "orders".to_owned(),
        db_user: None,
        db_name: None,
    };
    let callers: [(&str, Peer); 8] = [
        ("anonymous", Peer::Anonymous),
        ("local", Peer::Local),
        ("agent", host(&["db"])),
        ("proxy", host(&["proxy"])),
        ("worker", host(&["discovery"])),
        ("user", user(&["access"], None)),
        ("editor", user(&["editor"], None)),
        ("bound editor", user(&["editor"], Some(bound))),
    ];
    let may = |method: &str| {
        let allowed: Vec<&str> = callers
            .iter()
            .filter(|(_, peer)| outcome(method, peer) == "ok")
            .map(|(name, _)| *name)
            .collect();
        allowed.join(", ")
    };
    let everybody = "anonymous, local, agent, proxy, worker, user, editor, bound editor";
    let known = "local, agent, proxy, worker, user, editor";
    for (method, allowed) in [
        ("TrustService/GetTrust", everybody),
        ("TrustService/Join", everybody),
        ("SessionService/Login", everybody),
        ("SessionService/SignUp", everybody),
        ("TrustService/RenewHostCertificate", "agent, proxy, worker"),
        ("TrustService/IssueDatabaseServerCertificate", "agent"),
        ("SessionService/IssueDatabaseCertificate", "user, editor"),
        (
            "SessionService/WhoAmI",
            "agent, proxy, worker, user, editor, bound editor",
        ),
        ("AccessService/CreateUser", "local, editor"),
        ("AccessService/CreateToken", "local, editor"),
        ("AccessService/UpsertRole", "local, editor"),
        ("AccessService/WatchRoles", "local, agent, proxy, editor"),
        ("AuditService/Emit", "agent, proxy, worker"),
        ("AuditService/ListEvents", "local, editor"),
        ("InventoryService/ListDatabases", known),
        ("InventoryService/WatchDatabaseServers", known),
        ("InventoryService/CreateDatabase", "local, editor"),
        ("InventoryService/DeleteDatabase", "local, editor"),
        ("DiscoveryService/PublishScan", "agent, worker"),
        (
            "DiscoveryService/ListScopes",
            "local, agent, worker, editor",
        ),
        ("DiscoveryService/PlanDiscovery", "local, editor"),
        ("DiscoveryService/RequestRescan", "local, editor"),
        ("DiscoveryService/AdoptDatabases", "local, editor"),
        ("DiscoveryService/UpsertDiscoveryConfig", "local, editor"),
        ("DiscoveryService/ListDiscoveryConfigs", "local, editor"),
        ("DiscoveryService/DeleteDiscoveryConfig", "local, editor"),
        (
            "DiscoveryService/WatchDiscoveryConfigs",
            "local, agent, worker, editor",
        ),
        ("PresenceService/Announce", "agent, proxy, worker"),
        ("TunnelService/Control", ""),
    ] {
        assert_eq!(may(method), allowed, "{method}");
    }
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
