//! Who may use which database, as which database user, on which logical database; and who may do what in the cluster.
//!
//! Deny wins. A deny of a role applies when its labels match or its users or names match. An allow needs one single
//! role that allows labels, user and name together: rights of several roles are not combined. What cannot be told, such
//! as a template that does not parse, allows nothing and denies everything.
//!
//! A decision is read off an [`Explanation`], the tree of what each clause of each role said.
//!
//! Invariant: a [`Permit`] is made by [`Grants::decide`] alone, so whoever holds one has been checked.
//!
//! Not here: requests for roles ([`crate::requests`]), locks ([`crate::locks`]), and where roles are kept.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{database::Database, labels::Labels, predicate::Fields};

mod db_user;
mod decide;
pub(crate) mod duration;
mod expression;
mod grants;
pub mod kinds;
mod options;
mod permit;
mod problems;
mod reasons;
mod render;
mod role;
mod rules;
mod template;

#[cfg(test)]
mod tests;

pub use decide::{Decided, Provisioning};
pub use expression::{LabelExpression, ReviewFilter, RuleFilter};
pub(crate) use grants::RoleMatch;
pub use grants::{AllowedValues, Grants};
pub use options::{AuditMode, DbUserMode, LockMode, RecordSession, RoleOptions, SessionOptions};
pub use permit::{Decision, Denial, Permit, Reason};
pub use problems::{ROLE_ENTRIES_MAX, RoleProblem};
pub use reasons::{
    Clause, ClauseReason, Compared, Entry, Explanation, Mismatch, Outcome, Question, RoleReason,
    RuleReason, Truth,
};
pub use role::{
    AnyVerb, ROLE_ACCESS, ROLE_AUDITOR, ROLE_EDITOR, ROLE_REQUESTER, ROLE_REVIEWER, Role,
    RoleConditions, Rule, Verb, VerbPattern,
};
pub use rules::{Target, rules_table};

/// Values attached to a user, such as `db_users`, that role templates refer to.
pub type Traits = BTreeMap<String, Vec<String>>;

/// Trait that lists the database users a person may be.
pub const TRAIT_DB_USERS: &str = "db_users";
/// Trait that lists the logical databases a person may open.
pub const TRAIT_DB_NAMES: &str = "db_names";
/// Trait that lists the database roles of users made for a person's sessions.
pub const TRAIT_DB_ROLES: &str = "db_roles";

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

impl Fields for Subject {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        (path == "user.metadata.name").then(|| self.user.as_str().into())
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        if path == "user.spec.roles" {
            self.roles.iter().map(|role| role.as_str().into()).collect()
        } else {
            Vec::new()
        }
    }

    fn traits(&self, path: &str) -> Option<&Traits> {
        (path == "user.spec.traits").then_some(&self.traits)
    }
}

/// What a label expression looks at: a database's labels, and who asks.
#[derive(Clone, Copy, Debug)]
struct Labelled<'l> {
    subject: &'l Subject,
    labels: &'l Labels,
}

impl Fields for Labelled<'_> {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        self.subject.text(path)
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        self.subject.list(path)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        (path == "labels").then_some(self.labels)
    }

    fn traits(&self, path: &str) -> Option<&Traits> {
        Fields::traits(self.subject, path)
    }
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

    /// The role of this name.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// The names of all roles, in order.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// What the subject's roles come to. Whoever asks several questions about one subject makes this once.
    #[must_use]
    pub fn grants<'p>(&'p self, subject: &'p Subject) -> Grants<'p> {
        Grants::new(subject, |name| self.roles.get(name))
    }

    /// Decides for an agent that makes no database users. Pure: the same values give the same decision.
    ///
    /// # Errors
    ///
    /// A [`Denial`] with a reason for every role that was looked at.
    pub fn check(&self, subject: &Subject, request: Request<'_>) -> Decision {
        self.grants(subject)
            .decide(request, Provisioning::Unable)
            .decision
    }

    /// Decides whether the subject may do this with that resource of the cluster.
    #[must_use]
    pub fn may(&self, subject: &Subject, target: Target<'_>, verb: Verb) -> Explanation {
        self.grants(subject).may(target, verb)
    }

    /// Whether the subject may see a database in listings: some role allows its labels and none denies them.
    #[must_use]
    pub fn may_see(&self, subject: &Subject, labels: &Labels) -> bool {
        self.grants(subject).may_see(labels)
    }

    /// Database users that the subject may be on a database with these labels, templates filled in; `*` is any.
    #[must_use]
    pub fn allowed_users(&self, subject: &Subject, labels: &Labels) -> Vec<String> {
        self.grants(subject).db_users(labels).values
    }

    /// Logical databases that the subject may open on a database with these labels; `*` is any.
    #[must_use]
    pub fn allowed_names(&self, subject: &Subject, labels: &Labels) -> Vec<String> {
        self.grants(subject).db_names(labels).values
    }
}
