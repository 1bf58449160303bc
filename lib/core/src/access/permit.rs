//! The two outcomes of a check, as the data path carries them.

use super::{Clause, DbUserMode, Explanation, Outcome, Request, RoleReason};
use crate::ids::DatabaseName;

/// Proof that a role allows this database user on this database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    user: String,
    database: DatabaseName,
    db_user: String,
    db_name: String,
    role: String,
    user_mode: DbUserMode,
    db_roles: Vec<String>,
}

impl Permit {
    /// Called by the decider alone, and only with an outcome that allows.
    pub(super) fn new(user: &str, request: Request<'_>, role: &str) -> Self {
        Self {
            user: user.to_owned(),
            database: request.database.name.clone(),
            db_user: request.db_user.to_owned(),
            db_name: request.db_name.to_owned(),
            role: role.to_owned(),
            user_mode: DbUserMode::Off,
            db_roles: Vec::new(),
        }
    }

    pub(super) fn with_user(self, user_mode: DbUserMode, db_roles: Vec<String>) -> Self {
        Self {
            user_mode,
            db_roles,
            ..self
        }
    }

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

    /// Whether the database user is made for this session.
    #[must_use]
    pub const fn user_mode(&self) -> DbUserMode {
        self.user_mode
    }

    /// The database roles that a user made for this session gets.
    #[must_use]
    pub fn db_roles(&self) -> &[String] {
        &self.db_roles
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
    /// No role gives the database role that was asked for.
    #[error("access to database role `{db_role}` denied")]
    DatabaseRole {
        /// The database role.
        db_role: String,
    },
    /// The role forbids it.
    #[error("role `{role}` denies it ({by})")]
    Denied {
        /// The role.
        role: String,
        /// What matched: `db_labels`, `db_labels_expression`, `db_users` or `db_names`.
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

impl Denial {
    /// The short form of an explanation that does not allow.
    pub(super) fn of(explanation: &Explanation, request: Request<'_>) -> Self {
        let reasons = match &explanation.outcome {
            Outcome::Denied { role, clause } => vec![Reason::Denied {
                role: role.clone(),
                by: clause.as_str(),
            }],
            Outcome::RolesRefused { refused, .. } => refused
                .iter()
                .map(|db_role| Reason::DatabaseRole {
                    db_role: db_role.clone(),
                })
                .collect(),
            Outcome::Allowed { .. } | Outcome::NotAllowed => explanation
                .roles
                .iter()
                .map(|reason| Reason::of(reason, request))
                .collect(),
        };
        if reasons.is_empty() {
            return Self {
                reasons: vec![Reason::NoRoles],
            };
        }
        Self { reasons }
    }
}

impl Reason {
    fn of(reason: &RoleReason, request: Request<'_>) -> Self {
        let role = reason.role.clone();
        if !reason.exists {
            return Self::Unknown { role };
        }
        let failing = reason.allow.iter().find(|clause| !clause.truth.allows());
        match failing.map(|clause| clause.clause) {
            Some(Clause::DbUsers) => Self::User {
                role,
                db_user: request.db_user.to_owned(),
            },
            Some(Clause::DbNames) => Self::Name {
                role,
                db_name: request.db_name.to_owned(),
            },
            _ => Self::Labels { role },
        }
    }
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
