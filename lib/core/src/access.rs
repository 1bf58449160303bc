//! Who may use which database, as which database user, on which logical database.
//!
//! Deny wins. A deny of a role applies when its labels match or its users or names match. An allow needs one single
//! role that allows labels, user and name together: rights of several roles are not combined.
//!
//! Invariant: a [`Permit`] is made by [`Policy::check`] alone, so whoever holds one has been checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{database::Database, ids::DatabaseName, labels::Labels, selector::Selector};

/// The built-in role that lets its holder use every database, as the users and on the names of their traits.
pub const ROLE_ACCESS: &str = "access";
/// The built-in role that administers the cluster.
pub const ROLE_EDITOR: &str = "editor";

/// Values attached to a user, such as `db_users`, that role templates refer to.
pub type Traits = BTreeMap<String, Vec<String>>;

/// Trait that lists the database users a person may be.
pub const TRAIT_DB_USERS: &str = "db_users";
/// Trait that lists the logical databases a person may open.
pub const TRAIT_DB_NAMES: &str = "db_names";

/// One side, allow or deny, of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoleConditions {
    /// Which databases.
    pub db_labels: Selector,
    /// As which database users: exact, `*`, or a template such as `{{internal.db_users}}`.
    pub db_users: Vec<String>,
    /// On which logical databases.
    pub db_names: Vec<String>,
}

/// A named set of rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it grants.
    pub allow: RoleConditions,
    /// What it forbids, whatever other roles grant.
    pub deny: RoleConditions,
}

impl Role {
    /// The roles that exist in every cluster.
    #[must_use]
    pub fn builtin() -> Vec<Self> {
        let access = Self {
            name: ROLE_ACCESS.to_owned(),
            allow: RoleConditions {
                db_labels: Selector::everything(),
                db_users: vec!["{{internal.db_users}}".to_owned()],
                db_names: vec!["{{internal.db_names}}".to_owned()],
            },
            deny: RoleConditions::default(),
        };
        let editor = Self {
            name: ROLE_EDITOR.to_owned(),
            ..Self::default()
        };
        vec![access, editor]
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The person's name.
    pub user: String,
    /// Names of the roles in the certificate.
    pub roles: Vec<String>,
    /// Traits in the certificate.
    pub traits: Traits,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The database.
    pub database: &'r Database,
    /// The database user, as the client wrote it.
    pub db_user: &'r str,
    /// The logical database.
    pub db_name: &'r str,
}

/// Proof that a role allows this database user on this database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    user: String,
    database: DatabaseName,
    db_user: String,
    db_name: String,
    role: String,
}

impl Permit {
    /// The person.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    #[must_use]
    pub const fn database(&self) -> &DatabaseName {
        &self.database
    }

    /// The database user.
    #[must_use]
    pub fn db_user(&self) -> &str {
        &self.db_user
    }

    /// The logical database.
    #[must_use]
    pub fn db_name(&self) -> &str {
        &self.db_name
    }

    /// The role that allows it.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }
}

/// Why nothing allows it: one reason a role looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Reasons, in role order; never empty.
    pub reasons: Vec<Reason>,
}

/// What one role said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The role forbids it.
    #[error("role `{role}` denies it ({by})")]
    Denied {
        /// The role.
        role: String,
        /// What matched: `db_labels`, `db_users` or `db_names`.
        by: &'static str,
    },
    /// The role does not allow the database's labels.
    #[error("role `{role}` does not allow the database's labels")]
    Labels {
        /// The role.
        role: String,
    },
    /// The role does not allow the logical database.
    #[error("role `{role}` does not allow database name `{db_name}`")]
    Name {
        /// The role.
        role: String,
        /// The name that was asked for.
        db_name: String,
    },
    /// The subject has no roles at all.
    #[error("user has no roles")]
    NoRoles,
    /// A role named in the certificate does not exist.
    #[error("role `{role}` does not exist")]
    Unknown {
        /// The role.
        role: String,
    },
    /// The role does not allow the database user.
    #[error("role `{role}` does not allow database user `{db_user}`")]
    User {
        /// The role.
        role: String,
        /// The user that was asked for.
        db_user: String,
    },
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, reason) in self.reasons.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{reason}")?;
        }
        Ok(())
    }
}

/// The outcome of a check.
pub type Decision = Result<Permit, Denial>;

/// The roles of the cluster, as the decider knows them now.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    roles: BTreeMap<String, Role>,
}

impl Policy {
    /// A policy of these roles; of two with one name the later counts.
    #[must_use]
    pub fn new(roles: impl IntoIterator<Item = Role>) -> Self {
        Self {
            roles: roles
                .into_iter()
                .map(|role| (role.name.clone(), role))
                .collect(),
        }
    }

    /// Decides. Pure: the same values give the same decision.
    ///
    /// # Errors
    ///
    /// A [`Denial`] with a reason for every role that was looked at.
    pub fn check(&self, subject: &Subject, request: Request<'_>) -> Decision {
        let mut reasons = Vec::new();
        let mut held = Vec::new();
        for name in &subject.roles {
            match self.roles.get(name) {
                Some(role) => held.push(role),
                None => reasons.push(Reason::Unknown { role: name.clone() }),
            }
        }
        if let Some(denied) = held
            .iter()
            .find_map(|role| denied_by(role, subject, request))
        {
            return Err(Denial {
                reasons: vec![denied],
            });
        }
        for role in held {
            match allowed_by(role, subject, request) {
                Ok(()) => {
                    return Ok(Permit {
                        user: subject.user.clone(),
                        database: request.database.name.clone(),
                        db_user: request.db_user.to_owned(),
                        db_name: request.db_name.to_owned(),
                        role: role.name.clone(),
                    });
                }
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() {
            reasons.push(Reason::NoRoles);
        }
        Err(Denial { reasons })
    }

    /// Whether the subject may see a database in listings: some role allows its labels and none denies them.
    #[must_use]
    pub fn may_see(&self, subject: &Subject, labels: &Labels) -> bool {
        let held: Vec<&Role> = subject
            .roles
            .iter()
            .filter_map(|name| self.roles.get(name))
            .collect();
        !held.iter().any(|role| role.deny.db_labels.matches(labels))
            && held.iter().any(|role| role.allow.db_labels.matches(labels))
    }

    /// Database users that the subject may be on a database with these labels, templates filled in; `*` is any.
    #[must_use]
    pub fn allowed_users(&self, subject: &Subject, labels: &Labels) -> Vec<String> {
        self.allowed_values(subject, labels, |conditions| &conditions.db_users)
    }

    /// Logical databases that the subject may open on a database with these labels; `*` is any.
    #[must_use]
    pub fn allowed_names(&self, subject: &Subject, labels: &Labels) -> Vec<String> {
        self.allowed_values(subject, labels, |conditions| &conditions.db_names)
    }

    fn allowed_values(
        &self,
        subject: &Subject,
        labels: &Labels,
        list: fn(&RoleConditions) -> &Vec<String>,
    ) -> Vec<String> {
        let mut values: Vec<String> = subject
            .roles
            .iter()
            .filter_map(|name| self.roles.get(name))
            .filter(|role| role.allow.db_labels.matches(labels))
            .flat_map(|role| {
                list(&role.allow)
                    .iter()
                    .flat_map(|written| expand(written, &subject.traits))
            })
            .collect();
        values.sort();
        values.dedup();
        values
    }
}

fn denied_by(role: &Role, subject: &Subject, request: Request<'_>) -> Option<Reason> {
    let by = if role.deny.db_labels.matches(&request.database.labels) {
        "db_labels"
    } else if lists(&role.deny.db_users, &subject.traits, request.db_user) {
        "db_users"
    } else if lists(&role.deny.db_names, &subject.traits, request.db_name) {
        "db_names"
    } else {
        return None;
    };
    Some(Reason::Denied {
        role: role.name.clone(),
        by,
    })
}

fn allowed_by(role: &Role, subject: &Subject, request: Request<'_>) -> Result<(), Reason> {
    if !role.allow.db_labels.matches(&request.database.labels) {
        return Err(Reason::Labels {
            role: role.name.clone(),
        });
    }
    if !lists(&role.allow.db_users, &subject.traits, request.db_user) {
        return Err(Reason::User {
            role: role.name.clone(),
            db_user: request.db_user.to_owned(),
        });
    }
    if !lists(&role.allow.db_names, &subject.traits, request.db_name) {
        return Err(Reason::Name {
            role: role.name.clone(),
            db_name: request.db_name.to_owned(),
        });
    }
    Ok(())
}

fn lists(written: &[String], traits: &Traits, asked: &str) -> bool {
    written.iter().any(|entry| {
        expand(entry, traits)
            .iter()
            .any(|value| value == "*" || value == asked)
    })
}

/// A template `{{internal.<trait>}}` or `{{external.<trait>}}` becomes the trait's values; other text stays.
fn expand(written: &str, traits: &Traits) -> Vec<String> {
    let inner = written
        .strip_prefix("{{")
        .and_then(|rest| rest.strip_suffix("}}"))
        .map(str::trim);
    match inner.and_then(|inner| {
        inner
            .strip_prefix("internal.")
            .or_else(|| inner.strip_prefix("external."))
    }) {
        Some(name) => traits.get(name).cloned().unwrap_or_default(),
        None => vec![written.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{AwsMetadata, Origin, Protocol, TlsSettings};

    fn database(env: &str) -> Database {
        Database {
            name: "orders".parse().unwrap(),
            description: String::new(),
            labels: [("env", env)].into_iter().collect(),
            origin: Origin::Cloud,
            protocol: Protocol::Postgres,
            uri: "h:1".parse().unwrap(),
            tls: TlsSettings::default(),
            aws: AwsMetadata::default(),
            kind: None,
            identity: String::new(),
            discovered_name: String::new(),
            unavailable: String::new(),
        }
    }

    fn subject(roles: &[&str], users: &[&str], names: &[&str]) -> Subject {
        let owned = |values: &[&str]| {
            values
                .iter()
                .map(|value| (*value).to_owned())
                .collect::<Vec<_>>()
        };
        Subject {
            user: "alice".to_owned(),
            roles: owned(roles),
            traits: [
                (TRAIT_DB_USERS.to_owned(), owned(users)),
                (TRAIT_DB_NAMES.to_owned(), owned(names)),
            ]
            .into(),
        }
    }

    fn role(name: &str, env: &str, users: &[&str], names: &[&str]) -> Role {
        let conditions = RoleConditions {
            db_labels: Selector::new([("env", [env])]).unwrap(),
            db_users: users.iter().map(|user| (*user).to_owned()).collect(),
            db_names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        Role {
            name: name.to_owned(),
            allow: conditions,
            deny: RoleConditions::default(),
        }
    }

    fn check(
        policy: &Policy,
        subject: &Subject,
        env: &str,
        db_user: &str,
        db_name: &str,
    ) -> Decision {
        policy.check(
            subject,
            Request {
                database: &database(env),
                db_user,
                db_name,
            },
        )
    }

    #[test]
    fn the_access_role_allows_what_the_traits_list() {
        let policy = Policy::new(Role::builtin());
        let alice = subject(&["access"], &["reader"], &["*"]);
        assert_eq!(
            check(&policy, &alice, "prod", "reader", "dev")
                .unwrap()
                .role(),
            "access"
        );
        let denial = check(&policy, &alice, "prod", "admin", "dev").unwrap_err();
        assert_eq!(
            denial.reasons,
            [Reason::User {
                role: "access".to_owned(),
                db_user: "admin".to_owned()
            }]
        );
    }

    #[test]
    fn rights_of_two_roles_are_not_combined() {
        let policy = Policy::new([
            role("a", "prod", &["x"], &["*"]),
            role("b", "dev", &["y"], &["*"]),
        ]);
        assert!(check(&policy, &subject(&["a", "b"], &[], &[]), "prod", "y", "d").is_err());
    }

    #[test]
    fn deny_wins_over_any_allow() {
        let mut forbids = role("forbids", "none", &[], &[]);
        forbids.deny.db_users = vec!["postgres".to_owned()];
        let policy = Policy::new([role("a", "prod", &["*"], &["*"]), forbids]);
        let alice = subject(&["a", "forbids"], &[], &[]);
        assert!(check(&policy, &alice, "prod", "postgres", "d").is_err());
        assert!(check(&policy, &alice, "prod", "other", "d").is_ok());
    }

    #[test]
    fn nobody_without_roles_gets_in_and_the_reason_says_so() {
        let denial = check(
            &Policy::new(Role::builtin()),
            &subject(&[], &["*"], &["*"]),
            "prod",
            "x",
            "d",
        )
        .unwrap_err();
        assert_eq!(denial.to_string(), "user has no roles");
        let denial = check(
            &Policy::new(Role::builtin()),
            &subject(&["gone"], &["*"], &["*"]),
            "prod",
            "x",
            "d",
        )
        .unwrap_err();
        assert_eq!(denial.to_string(), "role `gone` does not exist");
    }

    #[test]
    fn listings_hold_only_what_some_role_may_see() {
        let policy = Policy::new([role("a", "prod", &["x"], &["*"])]);
        let alice = subject(&["a"], &[], &[]);
        assert!(policy.may_see(&alice, &database("prod").labels));
        assert!(!policy.may_see(&alice, &database("dev").labels));
    }
}
