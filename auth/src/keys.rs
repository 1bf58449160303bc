//! The keys of the state store: one function a kind of record, and the prefixes that hold them.

use bytes::Bytes;

/// The cluster's own record.
pub(crate) const CLUSTER: &str = "/cluster";
/// Databases, by name.
pub(crate) const DATABASES: &str = "/databases/";
/// Matchers of a group, by name.
pub(crate) const DISCOVERY_CONFIGS: &str = "/discovery-configs/";
/// What a joined process announced of itself, by host and service.
pub(crate) const HOSTS: &str = "/hosts/";
/// Locks, by name.
pub(crate) const LOCKS: &str = "/locks/";
/// Database servers, by host and database.
pub(crate) const PRESENCE: &str = "/presence/";
/// Every scope is to be scanned at once; the revision counts.
pub(crate) const RESCAN_ALL: &str = "/rescan-all";
/// Scopes that are to be scanned at once, by scope; the revision counts.
pub(crate) const RESCANS: &str = "/rescans/";
/// Roles that were made over the API, by name.
pub(crate) const ROLES: &str = "/roles/";
/// Who may scan a scope now, by scope.
pub(crate) const SCOPE_HOLDERS: &str = "/scope-holders/";
/// What is known of a scope, by scope.
pub(crate) const SCOPES: &str = "/scopes/";
/// Join tokens, by digest of the secret.
pub(crate) const TOKENS: &str = "/tokens/";
/// People, by name.
pub(crate) const USERS: &str = "/users/";
/// Live discovery workers and what they name, by group and host.
pub(crate) const WORKERS: &str = "/workers/";

const CAS: &str = "/ca/";
const OWNERS: &str = "/owners/";
const SIGNUPS: &str = "/signups/";

fn under(prefix: &str, name: &str) -> Bytes {
    Bytes::from(format!("{prefix}{name}"))
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

/// Matchers of a group.
pub(crate) fn discovery_config(name: &str) -> Bytes {
    under(DISCOVERY_CONFIGS, name)
}

/// What a host announced for one of its services.
pub(crate) fn host(host_id: &str, service: &str) -> Bytes {
    under(HOSTS, &format!("{host_id}/{service}"))
}

/// A lock.
pub(crate) fn lock(name: &str) -> Bytes {
    under(LOCKS, name)
}

/// The scope that owns a discovered identity.
pub(crate) fn owner(identity: &str) -> Bytes {
    under(OWNERS, identity)
}

/// One agent serving one database.
pub(crate) fn presence(host_id: &str, database: &str) -> Bytes {
    under(PRESENCE, &format!("{host_id}/{database}"))
}

/// That every scope is to be scanned at once.
pub(crate) fn rescan_all() -> Bytes {
    Bytes::from_static(RESCAN_ALL.as_bytes())
}

/// That a scope is to be scanned at once.
pub(crate) fn rescan(scope_id: &str) -> Bytes {
    under(RESCANS, scope_id)
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

/// A join token, by the digest of its secret.
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
