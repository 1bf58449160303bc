//! What a role says about sessions, and what the roles of one person say together.
//!
//! The strictest value wins: the shortest time, the smallest number, any yes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// What happens to sessions when it is not known which locks are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// The locks known last are enforced. The default.
    #[default]
    BestEffort,
    /// Sessions end, and none begins, until the locks are known again.
    Strict,
}

/// What happens to a session that cannot be audited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditMode {
    /// It goes on. The default.
    #[default]
    BestEffort,
    /// It ends.
    Strict,
}

/// The option `record_session`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordSession {
    /// For sessions of every kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<AuditMode>,
}

/// Whether a database user of the person's own name is made for a session, and what becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DbUserMode {
    /// None is made. The default.
    #[default]
    Off,
    /// It is made, and loses its rights when its last session ends.
    Keep,
    /// It is made, and removed when its last session ends; where that fails, as [`Self::Keep`].
    BestEffortDrop,
}

impl DbUserMode {
    /// Whether users are made.
    #[must_use]
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}

/// The options of one role. What is unset, or zero, leaves the matter to other roles and the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoleOptions {
    /// How long a login lasts at most.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub max_session_ttl: Option<Duration>,
    /// After how long without a byte from the client a session ends.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout: Option<Duration>,
    /// Whether sessions end with the certificate that opened them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_expired_cert: Option<bool>,
    /// What counts when it is not known which locks are in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockMode>,
    /// Most sessions to databases that a person has at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_db_connections: Option<u64>,
    /// What happens to a session that cannot be audited.
    pub record_session: RecordSession,
    /// Whether database users are made for sessions to databases that this role's labels allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_db_user_mode: Option<DbUserMode>,
}

/// What the roles of one person say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// The shortest that any role gives; `None` leaves it to the cluster.
    pub max_session_ttl: Option<Duration>,
    /// The shortest that any role gives; `None` leaves it to the cluster.
    pub client_idle_timeout: Option<Duration>,
    /// Whether any role asks for it.
    pub disconnect_expired_cert: bool,
    /// Strict when any role asks for it.
    pub lock: LockMode,
    /// The smallest that any role gives; `None` is no limit.
    pub max_db_connections: Option<u64>,
    /// Strict when any role asks for it.
    pub audit: AuditMode,
}

impl SessionOptions {
    /// Combines the options of all roles that a person has.
    ///
    /// What creates database users is not here: it depends on the database, see [`super::Grants::user_mode`].
    #[must_use]
    pub fn of<'o>(options: impl IntoIterator<Item = &'o RoleOptions>) -> Self {
        let mut together = Self::default();
        for role in options {
            together.max_session_ttl = shortest(together.max_session_ttl, role.max_session_ttl);
            together.client_idle_timeout =
                shortest(together.client_idle_timeout, role.client_idle_timeout);
            together.disconnect_expired_cert |= role.disconnect_expired_cert.unwrap_or(false);
            together.lock = together.lock.max(role.lock.unwrap_or_default());
            together.max_db_connections = smallest(
                together.max_db_connections,
                role.max_db_connections.filter(|most| *most > 0),
            );
            let audit = role.record_session.default.unwrap_or_default();
            together.audit = together.audit.max(audit);
        }
        together
    }
}

fn shortest(so_far: Option<Duration>, role: Option<Duration>) -> Option<Duration> {
    smallest(so_far, role.filter(|duration| !duration.is_zero()))
}

fn smallest<T: Ord>(left: Option<T>, right: Option<T>) -> Option<T> {
    left.into_iter().chain(right).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options() -> impl Strategy<Value = RoleOptions> {
        let duration = || prop::option::of((0_u64..5).prop_map(Duration::from_secs));
        let strict = || prop::option::of(any::<bool>());
        (
            duration(),
            duration(),
            strict(),
            strict(),
            prop::option::of(0_u64..5),
            strict(),
        )
            .prop_map(
                |(ttl, idle, disconnect, lock, connections, audit)| RoleOptions {
                    max_session_ttl: ttl,
                    client_idle_timeout: idle,
                    disconnect_expired_cert: disconnect,
                    lock: lock.map(|strict| {
                        if strict {
                            LockMode::Strict
                        } else {
                            LockMode::BestEffort
                        }
                    }),
                    max_db_connections: connections,
                    record_session: RecordSession {
                        default: audit.map(|strict| {
                            if strict {
                                AuditMode::Strict
                            } else {
                                AuditMode::BestEffort
                            }
                        }),
                    },
                    create_db_user_mode: None,
                },
            )
    }

    /// Whether nothing of `left` is looser than in `right`.
    fn at_least_as_strict(left: &SessionOptions, right: &SessionOptions) -> bool {
        let within = |left: Option<u64>, right: Option<u64>| match (left, right) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => left <= right,
        };
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
        within(
            seconds(left.max_session_ttl),
            seconds(right.max_session_ttl),
        ) && within(
            seconds(left.client_idle_timeout),
            seconds(right.client_idle_timeout),
        ) && within(left.max_db_connections, right.max_db_connections)
            && left.disconnect_expired_cert >= right.disconnect_expired_cert
            && left.lock >= right.lock
            && left.audit >= right.audit
    }

    #[test]
    fn options_read_as_they_are_written_in_yaml_and_print_back() {
        let text = r#"{"max_session_ttl":"8h0m0s","client_idle_timeout":"30m","disconnect_expired_cert":true,
            "lock":"strict","max_db_connections":3,"record_session":{"default":"strict"},
            "create_db_user_mode":"best_effort_drop"}"#;
        let read: RoleOptions = serde_json::from_str(text).unwrap();
        assert_eq!(read.max_session_ttl, Some(Duration::from_hours(8)));
        assert_eq!(read.client_idle_timeout, Some(Duration::from_mins(30)));
        assert_eq!(read.create_db_user_mode, Some(DbUserMode::BestEffortDrop));
        let printed = serde_json::to_string(&read).unwrap();
        assert!(printed.contains(r#""max_session_ttl":"8h""#), "{printed}");
        assert_eq!(serde_json::from_str::<RoleOptions>(&printed).unwrap(), read);
        for bad in [
            r#"{"max_session_ttl":"soon"}"#,
            r#"{"max_session_ttl":"-1h"}"#,
        ] {
            assert!(serde_json::from_str::<RoleOptions>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zero_is_no_limit() {
        let zero = RoleOptions {
            max_session_ttl: Some(Duration::ZERO),
            client_idle_timeout: Some(Duration::ZERO),
            max_db_connections: Some(0),
            ..RoleOptions::default()
        };
        assert_eq!(SessionOptions::of([&zero]), SessionOptions::default());
    }

    proptest! {
        #[test]
        fn another_role_never_loosens_and_order_does_not_matter(
            mut roles in prop::collection::vec(options(), 0..5),
            another in options(),
        ) {
            let before = SessionOptions::of(&roles);
            roles.push(another);
            let after = SessionOptions::of(&roles);
            prop_assert!(at_least_as_strict(&after, &before));
            roles.reverse();
            prop_assert_eq!(SessionOptions::of(&roles), after);
        }
    }
}
