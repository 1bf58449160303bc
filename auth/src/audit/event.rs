//! The events that the auth service itself emits, with the names and codes that SIEM rules know.

use tidegate_proto::v1;

/// Name, code, and whether it tells of a success.
pub(crate) type Kind = (&'static str, &'static str, bool);

/// A person or service called what it may not.
pub(crate) const ACCESS_DENIED: Kind = ("access.denied", "TAC00W", false);
/// Events of this service could not be stored, and there was no more room to keep them until they could.
pub(crate) const AUDIT_EVENTS_LOST: Kind = ("audit.events.lost", "TAU01W", false);
/// Events from before there were chains were put into them.
pub(crate) const AUDIT_LOG_MIGRATED: Kind = ("audit.log.migrated", "TAU02I", true);
/// A backup of the state was made.
pub(crate) const BACKUP_CREATE: Kind = ("backup.create", "TBK00I", true);
/// The state was restored from a backup.
pub(crate) const BACKUP_RESTORE: Kind = ("backup.restore", "TBK01I", true);
/// The state began to be restored from a backup.
pub(crate) const BACKUP_RESTORE_BEGIN: Kind = ("backup.restore.begin", "TBK01W", true);
/// A CA moved to another phase of its rotation. Ours: Teleport records no such event.
pub(crate) const CA_ROTATED: Kind = ("cert_authority.rotate", "TCR00I", true);
/// Agents serve different databases by one name. Ours.
pub(crate) const DB_CONFLICT: Kind = ("db.conflict", "TDA00W", false);
/// A database was added.
pub(crate) const DB_CREATE: Kind = ("db.create", "TDB03I", true);
/// A database went.
pub(crate) const DB_DELETE: Kind = ("db.delete", "TDB05I", true);
/// An agent was asked what keeps sessions from a database, and logged in to it for that. Ours.
pub(crate) const DB_DIAGNOSE: Kind = ("db.diagnose", "TDD00I", true);
/// A database changed.
pub(crate) const DB_UPDATE: Kind = ("db.update", "TDB04I", true);
/// Deletions of a scan are held back until the next complete one agrees.
pub(crate) const DELETION_HELD: Kind = ("discovery.deletion.held", "TDG01W", true);
/// Matchers were made.
pub(crate) const DISCOVERY_CONFIG_CREATE: Kind = ("discovery_config.create", "DC001I", true);
/// Matchers went.
pub(crate) const DISCOVERY_CONFIG_DELETE: Kind = ("discovery_config.delete", "DC003I", true);
/// Matchers changed.
pub(crate) const DISCOVERY_CONFIG_UPDATE: Kind = ("discovery_config.update", "DC002I", true);
/// Two scopes find one database.
pub(crate) const DISCOVERY_CONFLICT: Kind = ("discovery.conflict", "TDG02W", true);
/// How health is checked was said.
pub(crate) const HEALTH_CHECK_CONFIG_CREATE: Kind =
    ("health_check_config.create", "THCC001I", true);
/// How health is checked was taken back.
pub(crate) const HEALTH_CHECK_CONFIG_DELETE: Kind =
    ("health_check_config.delete", "THCC003I", true);
/// How health is checked was changed.
pub(crate) const HEALTH_CHECK_CONFIG_UPDATE: Kind =
    ("health_check_config.update", "THCC002I", true);
/// A process joined.
pub(crate) const JOIN: Kind = ("instance.join", "TJ002I", true);
/// A process was not let in.
pub(crate) const JOIN_FAILED: Kind = ("instance.join", "TJ002E", false);
/// A join token was made.
pub(crate) const JOIN_TOKEN_CREATE: Kind = ("join_token.create", "TJT00I", true);
/// A join token was removed.
pub(crate) const JOIN_TOKEN_DELETE: Kind = ("join_token.delete", "TJT01I", true);
/// A join token was replaced.
pub(crate) const JOIN_TOKEN_UPDATE: Kind = ("join_token.update", "TJT02I", true);
/// A name has to wait after too many failed logins. Ours: Teleport records no such event.
pub(crate) const LOCKED_OUT: Kind = ("user.locked_out", "TPE00W", false);
/// A person logged in.
pub(crate) const LOGIN: Kind = ("user.login", "T1000I", true);
/// A lock was made or replaced.
pub(crate) const LOCK_CREATED: Kind = ("lock.created", "TLK00I", true);
/// A lock was removed.
pub(crate) const LOCK_DELETED: Kind = ("lock.deleted", "TLK01I", true);
/// A login failed.
pub(crate) const LOGIN_FAILED: Kind = ("user.login", "T1000W", false);
/// Logins were ended: their certificates are refused. Ours.
pub(crate) const LOGINS_ENDED: Kind = ("user.logins_ended", "TPE02I", true);
/// A second factor was added.
pub(crate) const MFA_ADD: Kind = ("mfa.add", "T1006I", true);
/// A second factor was removed.
pub(crate) const MFA_DELETE: Kind = ("mfa.delete", "T1007I", true);
/// A person changed the password.
pub(crate) const PASSWORD_CHANGE: Kind = ("user.password_change", "T1005I", true);
/// A role was made.
pub(crate) const ROLE_CREATED: Kind = ("role.created", "T9000I", true);
/// A role went.
pub(crate) const ROLE_DELETED: Kind = ("role.deleted", "T9001I", true);
/// A role was replaced.
pub(crate) const ROLE_UPDATED: Kind = ("role.updated", "T9002I", true);
/// A scan failed in another way than the one before.
pub(crate) const SCOPE_FAILED: Kind = ("discovery.scope.failed", "TDG00W", false);
/// A scan succeeded after one that failed.
pub(crate) const SCOPE_RECOVERED: Kind = ("discovery.scope.recovered", "TDG00I", true);
/// A source sent an event without a name; one without a code gets this code.
pub(crate) const UNKNOWN: Kind = ("audit.unknown", "TAU00W", false);
/// A person was added.
pub(crate) const USER_CREATE: Kind = ("user.create", "T1002I", true);
/// A person was removed.
pub(crate) const USER_DELETE: Kind = ("user.delete", "T1004I", true);
/// A person's password was voided, and a token to set another was made.
pub(crate) const USER_RESET: Kind = ("reset_password_token.create", "T6000I", true);
/// A person may try to log in again at once. Ours.
pub(crate) const USER_UNLOCKED: Kind = ("user.unlocked", "TPE01I", true);
/// A person got other roles or traits.
pub(crate) const USER_UPDATE: Kind = ("user.update", "T1003I", true);

/// An event with a uid of its own; the log adds the time.
pub(crate) fn new((event, code, success): Kind) -> v1::AuditEvent {
    v1::AuditEvent {
        uid: uuid::Uuid::now_v7().to_string(),
        event: event.to_owned(),
        code: code.to_owned(),
        success,
        ..v1::AuditEvent::default()
    }
}
