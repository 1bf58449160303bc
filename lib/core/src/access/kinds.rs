//! The kinds of resource that rules name.

/// Requests for roles.
pub const ACCESS_REQUEST: &str = "access_request";
/// Certificate authorities, and their rotation.
pub const CERT_AUTHORITY: &str = "cert_authority";
/// Databases.
pub const DATABASE: &str = "db";
/// Database servers.
pub const DATABASE_SERVER: &str = "db_server";
/// Database services: what agents serve.
pub const DATABASE_SERVICE: &str = "db_service";
/// Matchers kept in the cluster.
pub const DISCOVERY_CONFIG: &str = "discovery_config";
/// Scan scopes.
pub const DISCOVERY_SCOPE: &str = "discovery_scope";
/// Audit events.
pub const EVENT: &str = "event";
/// How databases' health is checked.
pub const HEALTH_CHECK_CONFIG: &str = "health_check_config";
/// Processes that joined the cluster.
pub const INSTANCE: &str = "instance";
/// Locks.
pub const LOCK: &str = "lock";
/// Roles.
pub const ROLE: &str = "role";
/// Sessions, running and recorded.
pub const SESSION: &str = "session";
/// Join tokens.
pub const TOKEN: &str = "token";
/// People.
pub const USER: &str = "user";

/// Every kind.
pub const ALL: [&str; 15] = [
    ACCESS_REQUEST,
    CERT_AUTHORITY,
    DATABASE,
    DATABASE_SERVER,
    DATABASE_SERVICE,
    DISCOVERY_CONFIG,
    DISCOVERY_SCOPE,
    EVENT,
    HEALTH_CHECK_CONFIG,
    INSTANCE,
    LOCK,
    ROLE,
    SESSION,
    TOKEN,
    USER,
];
