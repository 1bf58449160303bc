//! Why something is allowed or not: a tree of what was looked at.
//!
//! A decision is read off this tree, so what `explain` prints is what decided. Its rendering is in [`super::render`].

use std::collections::BTreeMap;

use serde::Serialize;

use super::Verb;

/// A decision with everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub question: Question,
    /// What came out.
    pub outcome: Outcome,
    /// What each role said, in the order in which the person has them.
    pub roles: Vec<RoleReason>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// To use a database.
    Database {
        /// Who asks.
        user: String,
        /// The database.
        database: String,
        /// The database user, as the client wrote it.
        db_user: String,
        /// The logical database.
        db_name: String,
    },
    /// To do something with a resource of the cluster.
    Resource {
        /// Who asks.
        user: String,
        /// The kind of resource.
        kind: String,
        /// Its name; empty when no single one is meant.
        name: String,
        /// What is to be done.
        verb: Verb,
    },
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Allowed, by this role.
    Allowed {
        /// The first role that allows all of it.
        role: String,
    },
    /// Denied, whatever is allowed.
    Denied {
        /// The first role that denies it.
        role: String,
        /// The first of its clauses that does.
        clause: Clause,
    },
    /// Nothing allows it.
    NotAllowed,
    /// A role allows it, but not with the database roles that are wanted.
    RolesRefused {
        /// Those that the person may not have.
        refused: Vec<String>,
        /// Those that the person may have.
        allowed: Vec<String>,
    },
}

/// A part of one side of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clause {
    /// `db_labels`.
    DbLabels,
    /// `db_labels_expression`.
    DbLabelsExpression,
    /// `db_users`, or the person's own name where users are made.
    DbUsers,
    /// `db_names`.
    DbNames,
    /// `rules`.
    Rules,
}

impl Clause {
    /// The name that roles use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DbLabels => "db_labels",
            Self::DbLabelsExpression => "db_labels_expression",
            Self::DbUsers => "db_users",
            Self::DbNames => "db_names",
            Self::Rules => "rules",
        }
    }
}

/// What one role said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleReason {
    /// The role.
    pub role: String,
    /// Whether it exists; one that does not says nothing.
    pub exists: bool,
    /// What it denies with; clauses that are not set are left out.
    pub deny: Vec<ClauseReason>,
    /// What it would have to allow, all of it.
    pub allow: Vec<ClauseReason>,
}

/// What one clause said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClauseReason {
    /// The clause.
    pub clause: Clause,
    /// What was compared with what.
    pub compared: Compared,
    /// What came of it.
    pub truth: Truth,
}

/// Whether a clause matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// It does not.
    No,
    /// It cannot be told: it allows nothing, and denies everything.
    Unknown {
        /// Why.
        why: String,
    },
    /// It matches.
    Yes,
}

impl Truth {
    pub(super) const fn of(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }

    /// Whether it counts as a match in an allow.
    #[must_use]
    pub const fn allows(&self) -> bool {
        matches!(self, Self::Yes)
    }

    /// Whether it counts as a match in a deny.
    #[must_use]
    pub const fn denies(&self) -> bool {
        matches!(self, Self::Yes | Self::Unknown { .. })
    }
}

/// What was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// A predicate over labels and who asks.
    Expression {
        /// As it was written.
        written: String,
    },
    /// A selector and the database's labels.
    Labels {
        /// What is wanted, templates filled in.
        wanted: BTreeMap<String, Vec<String>>,
        /// The first key that does not match.
        mismatch: Option<Mismatch>,
    },
    /// Nothing: names are not enforced with this protocol.
    NotEnforced {
        /// The protocol.
        protocol: &'static str,
    },
    /// Nothing: the clause is not set, and allows nothing.
    NotSet,
    /// The person's name, since database users are made for sessions under it.
    OwnName {
        /// What was asked for.
        asked: String,
        /// The person's name.
        user: String,
    },
    /// Rules and what is asked for.
    Rules {
        /// Each rule.
        rules: Vec<RuleReason>,
    },
    /// A list and what is asked for.
    Values {
        /// What was asked for.
        asked: String,
        /// The list.
        entries: Vec<Entry>,
    },
}

/// A label that is not as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Its key.
    pub key: String,
    /// Its value; `None` when the database has no such label.
    pub found: Option<String>,
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// As it was written.
    pub written: String,
    /// What it stands for.
    pub values: Vec<String>,
    /// Whether one of them is what was asked for.
    pub truth: Truth,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleReason {
    /// The kinds that it names.
    pub resources: Vec<String>,
    /// The verbs that it names.
    pub verbs: Vec<String>,
    /// Its `where`.
    pub filter: Option<String>,
    /// Whether it covers what was asked.
    pub truth: Truth,
}

impl Explanation {
    /// Reads the outcome off what the roles said: deny wins, and one role has to allow everything.
    pub(super) fn new(question: Question, roles: Vec<RoleReason>) -> Self {
        let denied = roles.iter().find_map(|reason| {
            let clause = reason.deny.iter().find(|clause| clause.truth.denies())?;
            Some(Outcome::Denied {
                role: reason.role.clone(),
                clause: clause.clause,
            })
        });
        let allowed = || {
            roles
                .iter()
                .find(|reason| reason.allows())
                .map(|reason| Outcome::Allowed {
                    role: reason.role.clone(),
                })
        };
        let outcome = denied.or_else(allowed).unwrap_or(Outcome::NotAllowed);
        Self {
            question,
            outcome,
            roles,
        }
    }

    /// Whether it is allowed.
    #[must_use]
    pub const fn allowed(&self) -> bool {
        matches!(self.outcome, Outcome::Allowed { .. })
    }

    /// Whether roles allow each part of what is asked, but no single one all of it.
    #[must_use]
    pub fn allowed_in_parts_only(&self) -> bool {
        const PARTS: [&[Clause]; 4] = [
            &[Clause::DbLabels, Clause::DbLabelsExpression],
            &[Clause::DbUsers],
            &[Clause::DbNames],
            &[Clause::Rules],
        ];
        let asked = |part: &&[Clause]| {
            let mut clauses = self.roles.iter().flat_map(|reason| &reason.allow);
            clauses.any(|clause| part.contains(&clause.clause))
        };
        let mut parts = PARTS.into_iter().filter(asked).peekable();
        self.outcome == Outcome::NotAllowed
            && parts.peek().is_some()
            && parts.all(|part| self.roles.iter().any(|reason| reason.allows_part(part)))
    }
}

impl RoleReason {
    /// Whether the role allows all of it.
    #[must_use]
    pub fn allows(&self) -> bool {
        !self.allow.is_empty() && self.allow.iter().all(|clause| clause.truth.allows())
    }

    /// Whether the role allows as much of it as these clauses are about.
    fn allows_part(&self, part: &[Clause]) -> bool {
        let mut clauses = self
            .allow
            .iter()
            .filter(|clause| part.contains(&clause.clause))
            .peekable();
        clauses.peek().is_some() && clauses.all(|clause| clause.truth.allows())
    }
}
