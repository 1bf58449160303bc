//! What each method asks of its caller: the one table, by service and method.
//!
//! Invariant: a method that is not in [`METHODS`] cannot be called. A test compares the table with the contract, and
//! `access.txt` shows what comes of it, so that a change of either is seen in review.

use std::collections::HashMap;

use tidegate_core::access::{
    Verb,
    kinds::{
        ACCESS_REQUEST, CERT_AUTHORITY, DATABASE, DISCOVERY_CONFIG, DISCOVERY_SCOPE, EVENT,
        HEALTH_CHECK_CONFIG, INSTANCE, LOCK, ROLE, TOKEN, USER,
    },
};

/// A verb on a kind of resource.
pub(crate) type Need = (&'static str, Verb);

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// To be known, and one of these.
    Callers(Callers),
    /// Served by another program.
    Elsewhere,
    /// Nothing.
    Public,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Callers {
    /// Root and the service's user on this machine.
    pub(crate) local: bool,
    /// Hosts that may run any of these services; an empty list is any host.
    pub(crate) hosts: Option<&'static [&'static str]>,
    /// People.
    pub(crate) people: People,
}

/// Which people may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum People {
    /// None.
    Nobody,
    /// Everybody who logged in: the service shows no more than the person's roles allow.
    All,
    /// As [`Self::All`], and those whose certificate opens one database only.
    AllCertificates,
    /// Those whose roles allow all of this, whatever the resource.
    Whole(&'static [Need]),
    /// Those whose roles allow all of this with some resource. The service asks again for each, by
    /// [`super::Caller::may`].
    Each(&'static [Need]),
}

use People::{All, AllCertificates, Each, Nobody, Whole};
use Requirement::{Elsewhere, Public};

/// Administrators on this machine, and people.
const fn people(people: People) -> Requirement {
    Requirement::Callers(Callers {
        local: true,
        hosts: None,
        people,
    })
}

/// Administrators on this machine, hosts, and people.
const fn shared(hosts: &'static [&'static str], people: People) -> Requirement {
    Requirement::Callers(Callers {
        local: true,
        hosts: Some(hosts),
        people,
    })
}

/// Hosts alone.
const fn hosts(hosts: &'static [&'static str]) -> Requirement {
    Requirement::Callers(Callers {
        local: false,
        hosts: Some(hosts),
        people: Nobody,
    })
}

/// Whoever has a certificate, as far as this names them.
const fn certified(hosts: Option<&'static [&'static str]>, people: People) -> Requirement {
    Requirement::Callers(Callers {
        local: false,
        hosts,
        people,
    })
}

const ANY_HOST: &[&str] = &[];
/// Agents discover too, for the matchers of their own section.
const DISCOVERER: &[&str] = &["discovery", "db"];
/// Who decides about sessions.
const DECIDER: &[&str] = &["db", "proxy"];

// No listing shows a secret, so to see without secrets is enough.
const SEE_CERT_AUTHORITIES: &[Need] = &[
    (CERT_AUTHORITY, Verb::List),
    (CERT_AUTHORITY, Verb::ReadNoSecrets),
];
const SEE_CONFIGS: &[Need] = &[
    (DISCOVERY_CONFIG, Verb::List),
    (DISCOVERY_CONFIG, Verb::ReadNoSecrets),
];
const SEE_EVENTS: &[Need] = &[(EVENT, Verb::List), (EVENT, Verb::ReadNoSecrets)];
const SEE_HEALTH_CONFIGS: &[Need] = &[
    (HEALTH_CHECK_CONFIG, Verb::List),
    (HEALTH_CHECK_CONFIG, Verb::ReadNoSecrets),
];
const SEE_LOCKS: &[Need] = &[(LOCK, Verb::List), (LOCK, Verb::ReadNoSecrets)];
const SEE_ROLES: &[Need] = &[(ROLE, Verb::List), (ROLE, Verb::ReadNoSecrets)];
const SEE_SCOPES: &[Need] = &[
    (DISCOVERY_SCOPE, Verb::List),
    (DISCOVERY_SCOPE, Verb::ReadNoSecrets),
];
const SEE_TOKENS: &[Need] = &[(TOKEN, Verb::List), (TOKEN, Verb::ReadNoSecrets)];
const SEE_USERS: &[Need] = &[(USER, Verb::List), (USER, Verb::ReadNoSecrets)];
/// To see databases whatever their labels.
pub(crate) const SEE_DATABASES: &[Need] =
    &[(DATABASE, Verb::List), (DATABASE, Verb::ReadNoSecrets)];
/// What replaces what is there, or makes it.
const PUT_CONFIG: &[Need] = &[
    (DISCOVERY_CONFIG, Verb::Create),
    (DISCOVERY_CONFIG, Verb::Update),
];
const PUT_HEALTH_CONFIG: &[Need] = &[
    (HEALTH_CHECK_CONFIG, Verb::Create),
    (HEALTH_CHECK_CONFIG, Verb::Update),
];
const PUT_LOCK: &[Need] = &[(LOCK, Verb::Create), (LOCK, Verb::Update)];
const PUT_TOKEN: &[Need] = &[(TOKEN, Verb::Create), (TOKEN, Verb::Update)];
const PUT_ROLE: &[Need] = &[(ROLE, Verb::Create), (ROLE, Verb::Update)];

/// Every method of the contract, by its service.
#[rustfmt::skip]
const METHODS: &[(&str, &[(&str, Requirement)])] = &[
    ("tidegate.v1.AccessService", &[
        ("CreateToken", people(Whole(&[(TOKEN, Verb::Create)]))),
        ("CreateUser", people(Each(&[(USER, Verb::Create)]))),
        ("DeleteLock", people(Each(&[(LOCK, Verb::Delete)]))),
        ("DeleteRole", people(Each(&[(ROLE, Verb::Delete)]))),
        ("DeleteToken", people(Whole(&[(TOKEN, Verb::Delete)]))),
        ("DeleteUser", people(Each(&[(USER, Verb::Delete)]))),
        ("ExplainAccess", people(Whole(&[(USER, Verb::ReadNoSecrets), (ROLE, Verb::ReadNoSecrets)]))),
        ("GetClusterStatus", people(Whole(&[(INSTANCE, Verb::List)]))),
        ("ListLocks", shared(DECIDER, Each(SEE_LOCKS))),
        ("ListRoles", shared(DECIDER, Each(SEE_ROLES))),
        ("ListTokens", people(Whole(SEE_TOKENS))),
        ("ListUsers", people(Each(SEE_USERS))),
        ("ResetUser", people(Each(&[(USER, Verb::Update)]))),
        ("UpdateUser", people(Each(&[(USER, Verb::Update)]))),
        ("UpsertLock", people(Each(PUT_LOCK))),
        ("UpsertRole", people(Each(PUT_ROLE))),
        ("WatchLocks", shared(DECIDER, Whole(SEE_LOCKS))),
        ("WatchRoles", shared(DECIDER, Whole(SEE_ROLES))),
    ]),
    ("tidegate.v1.AuditService", &[
        ("EmitStream", hosts(ANY_HOST)),
        ("ListEvents", people(Whole(SEE_EVENTS))),
        ("ReadRecords", people(Whole(SEE_EVENTS))),
    ]),
    ("tidegate.v1.BackupService", &[
        // The whole state, what the cluster's trust stands on included.
        ("CreateBackup", people(Nobody)),
        ("RestoreBackup", people(Nobody)),
    ]),
    ("tidegate.v1.CertAuthorityService", &[
        ("ListCertAuthorities", people(Whole(SEE_CERT_AUTHORITIES))),
        ("RotateCertAuthorities", people(Whole(&[(CERT_AUTHORITY, Verb::Create), (CERT_AUTHORITY, Verb::Update)]))),
        ("WatchTrust", hosts(ANY_HOST)),
    ]),
    ("tidegate.v1.DiagnoseService", &[
        // Who may say where a database is could have an agent log in anywhere.
        ("Diagnose", people(Whole(&[(DATABASE, Verb::ReadNoSecrets), (DATABASE, Verb::Update)]))),
        ("ServeDiagnoses", hosts(&["db"])),
    ]),
    ("tidegate.v1.DiscoveryService", &[
        ("AcquireScopes", hosts(DISCOVERER)),
        ("AdoptDatabases", people(Whole(&[(DISCOVERY_SCOPE, Verb::Update), (DATABASE, Verb::Update)]))),
        ("DeleteDiscoveryConfig", people(Whole(&[(DISCOVERY_CONFIG, Verb::Delete)]))),
        ("ListDiscoveryConfigs", people(Whole(SEE_CONFIGS))),
        ("ListScopes", shared(DISCOVERER, Whole(SEE_SCOPES))),
        // It tells of databases and scopes, whatever their labels.
        ("PlanDiscovery", people(Whole(&[(DATABASE, Verb::ReadNoSecrets), (DISCOVERY_CONFIG, Verb::ReadNoSecrets), (DISCOVERY_SCOPE, Verb::ReadNoSecrets)]))),
        ("PublishScan", hosts(DISCOVERER)),
        ("RequestRescan", people(Whole(&[(DISCOVERY_SCOPE, Verb::Update)]))),
        ("UpsertDiscoveryConfig", people(Whole(PUT_CONFIG))),
        ("WatchDiscoveryConfigs", shared(DISCOVERER, Whole(SEE_CONFIGS))),
    ]),
    // Each is told of the own roles alone.
    ("tidegate.v1.FrontDoorService", &[
        ("DescribeChoices", certified(None, All)),
    ]),
    ("tidegate.v1.HealthService", &[
        ("DeleteHealthCheckConfig", people(Whole(&[(HEALTH_CHECK_CONFIG, Verb::Delete)]))),
        ("ListHealthCheckConfigs", people(Whole(SEE_HEALTH_CONFIGS))),
        ("UpsertHealthCheckConfig", people(Whole(PUT_HEALTH_CONFIG))),
        ("WatchHealthCheckConfigs", shared(&["db"], Whole(SEE_HEALTH_CONFIGS))),
    ]),
    ("tidegate.v1.InventoryService", &[
        ("CountDatabases", shared(ANY_HOST, All)),
        ("CreateDatabase", people(Whole(&[(DATABASE, Verb::Create)]))),
        ("DeleteDatabase", people(Whole(&[(DATABASE, Verb::Delete)]))),
        ("GetDatabase", shared(ANY_HOST, All)),
        ("ListDatabaseServers", shared(ANY_HOST, All)),
        ("ListDatabases", shared(ANY_HOST, All)),
        ("ListProxies", shared(ANY_HOST, All)),
        ("UpdateDatabase", people(Whole(&[(DATABASE, Verb::Update)]))),
        ("WatchDatabaseServers", shared(ANY_HOST, All)),
        ("WatchDatabases", shared(ANY_HOST, All)),
    ]),
    ("tidegate.v1.JoinService", &[
        ("JoinByIam", Public),
        ("UpsertToken", people(Whole(PUT_TOKEN))),
    ]),
    ("tidegate.v1.PeopleService", &[
        ("BeginFactor", Public),
        ("ChangePassword", Public),
        ("ConfirmFactor", Public),
        ("EndLogins", people(Each(&[(USER, Verb::Update)]))),
        ("EndOwnLogins", certified(None, All)),
        ("GetLoginTerms", Public),
        ("ListLogins", people(Each(SEE_USERS))),
        ("ListOwnFactors", certified(None, All)),
        ("ListOwnLogins", certified(None, All)),
        ("RemoveFactor", Public),
        ("ResetFactors", people(Each(&[(USER, Verb::Update)]))),
        ("UnlockUser", people(Each(&[(USER, Verb::Update)]))),
    ]),
    ("tidegate.v1.PresenceService", &[
        ("Announce", hosts(&["db", "proxy", "discovery"])),
    ]),
    // Who may ask for what, decide about what, and see what, is decided for each request.
    ("tidegate.v1.RequestService", &[
        ("AssumeRequests", certified(None, All)),
        ("CreateAccessRequest", people(All)),
        ("DecideAccessRequest", people(Each(&[(ACCESS_REQUEST, Verb::Update)]))),
        ("DeleteAccessRequest", people(All)),
        ("GetAccessRequest", people(All)),
        ("ListAccessRequests", people(All)),
        ("ListRequestableRoles", certified(None, All)),
        ("ReviewAccessRequest", certified(None, All)),
        ("WatchAccessRequests", people(All)),
    ]),
    // Each kind asks its own rule, of the service.
    ("tidegate.v1.ResourceService", &[
        ("CountResources", shared(ANY_HOST, All)),
        ("GetResource", shared(ANY_HOST, All)),
        ("ListResources", shared(ANY_HOST, All)),
        ("WatchResources", shared(ANY_HOST, All)),
    ]),
    ("tidegate.v1.SessionService", &[
        ("IssueDatabaseCertificate", certified(None, All)),
        ("Login", Public),
        ("SignUp", Public),
        ("WhoAmI", certified(Some(ANY_HOST), AllCertificates)),
    ]),
    ("tidegate.v1.TrustService", &[
        ("GetTrust", Public),
        ("IssueDatabaseServerCertificate", hosts(&["db"])),
        ("Join", Public),
        ("RenewHostCertificate", hosts(ANY_HOST)),
    ]),
    ("tidegate.v1.TunnelService", &[
        ("Control", Elsewhere),
    ]),
    ("grpc.health.v1.Health", &[
        ("Check", Public),
        ("Watch", Public),
    ]),
    ("grpc.reflection.v1.ServerReflection", &[
        ("ServerReflectionInfo", Public),
    ]),
    ("grpc.reflection.v1alpha.ServerReflection", &[
        ("ServerReflectionInfo", Public),
    ]),
];

/// The table by full method name.
pub(super) fn table() -> HashMap<String, Requirement> {
    let of_service = |(service, methods): &(&str, &'static [(&str, Requirement)])| {
        let service = (*service).to_owned();
        methods
            .iter()
            .map(move |(method, requirement)| (format!("/{service}/{method}"), *requirement))
    };
    METHODS.iter().flat_map(of_service).collect()
}
