//! The keys of the state store: one function a kind of record, and the prefixes that hold them.

use bytes::Bytes;

/// Certificate authorities, by kind.
pub(crate) const CAS: &str = "/ca/";
/// Which AWS identity a host joined with, by host.
pub(crate) const HOST_ORIGINS: &str = "/host-origins/";
/// Requests for roles, by id; ids are in the order of time.
pub(crate) const ACCESS_REQUESTS: &str = "/access-requests/";
/// The cluster's own record.
pub(crate) const CLUSTER: &str = "/cluster";
/// Databases, by name.
pub(crate) const DATABASES: &str = "/databases/";
/// Questions to agents and their answers.
pub(crate) const DIAGNOSES: &str = "/diagnoses/";
/// Matchers of a group, by name.
pub(crate) const DISCOVERY_CONFIGS: &str = "/discovery-configs/";
/// How databases' health is checked, by name.
pub(crate) const HEALTH_CHECK_CONFIGS: &str = "/health-check-configs/";
/// Second factors, by person.
pub(crate) const FACTORS: &str = "/factors/";
/// Failed logins in a row, by digest of the name that was typed.
pub(crate) const FAILURES: &str = "/failures/";
/// What a joined process announced of itself, by host and service.
pub(crate) const HOSTS: &str = "/hosts/";
/// Locks, by name.
pub(crate) const LOCKS: &str = "/locks/";
/// Logins, by person and id.
pub(crate) const LOGINS: &str = "/logins/";
/// Database servers, by host and database.
pub(crate) const PRESENCE: &str = "/presence/";
/// Which requests for roles a person made, by the person's name.
pub(crate) const REQUEST_AUTHORS: &str = "/access-request-authors/";
/// The question to an agent, by host.
pub(crate) const QUESTIONS: &str = "/diagnoses/questions/";
/// Every scope is to be scanned at once; the revision counts.
pub(crate) const RESCAN_ALL: &str = "/rescan-all";
/// Scopes that are to be scanned at once, by scope; the revision counts.
pub(crate) const RESCANS: &str = "/rescans/";
/// Whether the state was, or is being, restored from a backup.
pub(crate) const RESTORE: &str = "/restore";
/// Roles that were made over the API, by name.
pub(crate) const ROLES: &str = "/roles/";
/// Who may scan a scope now, by scope.
pub(crate) const SCOPE_HOLDERS: &str = "/scope-holders/";
/// What is known of a scope, by scope.
pub(crate) const SCOPES: &str = "/scopes/";
/// Sign-up tokens, by digest of the secret.
pub(crate) const SIGNUPS: &str = "/signups/";
/// Join tokens, by digest of the name, which may be a secret.
pub(crate) const TOKENS: &str = "/tokens/";
/// People, by name.
pub(crate) const USERS: &str = "/users/";
/// Live discovery workers and what they name, by group and host.
pub(crate) const WORKERS: &str = "/workers/";

const OWNERS: &str = "/owners/";

fn under(prefix: &str, name: &str) -> Bytes {
    Bytes::from(format!("{prefix}{name}"))
}

/// A request for roles.
pub(crate) fn access_request(id: &str) -> Bytes {
    under(ACCESS_REQUESTS, id)
}

/// Which requests for roles a person made.
pub(crate) fn request_author(user: &str) -> Bytes {
    under(REQUEST_AUTHORS, user)
}

/// A certificate authority: `db`, `host` or `user`.
pub(crate) fn ca(kind: &str) -> Bytes {
    under(CAS, kind)
}

/// The cluster's own record.
pub(crate) fn cluster() -> Bytes {
    Bytes::from_static(CLUSTER.as_bytes())
}

/// A database.
pub(crate) fn database(name: &str) -> Bytes {
    under(DATABASES, name)
}

/// What an agent says to the question it has.
pub(crate) fn diagnosis(host_id: &str) -> Bytes {
    under(DIAGNOSES, &format!("answers/{host_id}"))
}

/// Matchers of a group.
pub(crate) fn discovery_config(name: &str) -> Bytes {
    under(DISCOVERY_CONFIGS, name)
}

/// How databases' health is checked.
pub(crate) fn health_check_config(name: &str) -> Bytes {
    under(HEALTH_CHECK_CONFIGS, name)
}

/// One person's second factors.
pub(crate) fn factors(user: &str) -> Bytes {
    under(FACTORS, user)
}

/// Failed logins in a row of a name, by its digest.
pub(crate) fn failures(digest: &str) -> Bytes {
    under(FAILURES, digest)
}

/// What a host announced for one of its services.
pub(crate) fn host(host_id: &str, service: &str) -> Bytes {
    under(HOSTS, &format!("{host_id}/{service}"))
}

/// Which AWS identity a host joined with.
pub(crate) fn host_origin(host_id: &str) -> Bytes {
    under(HOST_ORIGINS, host_id)
}

/// A lock.
pub(crate) fn lock(name: &str) -> Bytes {
    under(LOCKS, name)
}

/// A login of a person.
pub(crate) fn login(user: &str, id: &str) -> Bytes {
    under(LOGINS, &format!("{user}/{id}"))
}

/// Under which one person's logins are: names of people hold no `/`.
pub(crate) fn logins_of(user: &str) -> Bytes {
    under(LOGINS, &format!("{user}/"))
}

/// The scope that owns a discovered identity.
pub(crate) fn owner(identity: &str) -> Bytes {
    under(OWNERS, identity)
}

/// One agent serving one database.
pub(crate) fn presence(host_id: &str, database: &str) -> Bytes {
    under(PRESENCE, &format!("{host_id}/{database}"))
}

/// The question that an agent has.
pub(crate) fn question(host_id: &str) -> Bytes {
    under(QUESTIONS, host_id)
}

/// That every scope is to be scanned at once.
pub(crate) fn rescan_all() -> Bytes {
    Bytes::from_static(RESCAN_ALL.as_bytes())
}

/// That a scope is to be scanned at once.
pub(crate) fn rescan(scope_id: &str) -> Bytes {
    under(RESCANS, scope_id)
}

/// Whether the state was, or is being, restored from a backup.
pub(crate) fn restore() -> Bytes {
    Bytes::from_static(RESTORE.as_bytes())
}

/// A role.
pub(crate) fn role(name: &str) -> Bytes {
    under(ROLES, name)
}

/// A scan scope.
pub(crate) fn scope(id: &str) -> Bytes {
    under(SCOPES, id)
}

/// Who may scan a scope.
pub(crate) fn scope_holder(id: &str) -> Bytes {
    under(SCOPE_HOLDERS, id)
}

/// A sign-up token, by the digest of its secret.
pub(crate) fn signup(digest: &str) -> Bytes {
    under(SIGNUPS, digest)
}

/// A join token, by the digest of its name.
pub(crate) fn token(digest: &str) -> Bytes {
    under(TOKENS, digest)
}

/// A person.
pub(crate) fn user(name: &str) -> Bytes {
    under(USERS, name)
}

/// A worker of a group.
pub(crate) fn worker(group: &str, host_id: &str) -> Bytes {
    under(WORKERS, &format!("{group}|{host_id}"))
}

/// The keys of one group under a prefix of keys that start with the group, as scope ids do. A group whose name starts
/// with this one and a bar is among them: what is read says which group it is of.
pub(crate) fn of_group(prefix: &str, group: &str) -> Bytes {
    Bytes::from(format!("{prefix}{group}|"))
}

/// What follows the prefix of a key, when it is under that prefix and text.
pub(crate) fn name_under<'k>(prefix: &str, key: &'k [u8]) -> Option<&'k str> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix)
}
