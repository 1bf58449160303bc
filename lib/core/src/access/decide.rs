//! The decision about using a database.

use super::{
    Clause, ClauseReason, Compared, DbUserMode, Decision, Denial, Entry, Explanation, Labelled,
    Mismatch, Outcome, Permit, Question, Request, RoleReason, Truth,
    db_user::{InDoubt, UserNames},
    grants::{Grants, Held, Side},
    template::{self, Expanded},
};
use crate::{
    database::{Database, Protocol},
    matcher::DatabaseKind,
};

/// Whether the one who asks can make database users on this database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provisioning<'r> {
    /// It cannot: `db_users` decides, whatever `create_db_user_mode` says.
    #[default]
    Unable,
    /// It can: where a role asks for it, the database user is the person's own name, which no `db_users` has to allow
    /// but any may deny.
    Able {
        /// The database roles that are wanted; empty is all that the person may have.
        db_roles: &'r [String],
    },
}

impl Provisioning<'_> {
    /// What agents can do on a database: only provisioned Redshift makes users for those whom AWS vouches for.
    #[must_use]
    pub fn on(database: &Database) -> Self {
        let is_redshift = match database.kind {
            Some(kind) => kind == DatabaseKind::Redshift,
            None => database.aws.redshift_cluster_id.is_some(),
        };
        if is_redshift {
            Self::Able { db_roles: &[] }
        } else {
            Self::Unable
        }
    }
}

/// A decision and everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The permit, or the denial.
    pub decision: Decision,
    /// Why.
    pub explanation: Explanation,
}

impl Grants<'_> {
    /// Decides about a database. Pure: the same values give the same decision.
    #[must_use]
    pub fn decide(&self, request: Request<'_>, provisioning: Provisioning<'_>) -> Decided {
        let mode = match provisioning {
            Provisioning::Unable => DbUserMode::Off,
            Provisioning::Able { .. } => self.user_mode(&request.database.labels),
        };
        let asking = Asking {
            grants: self,
            request,
            mode,
            users: UserNames::of(request.database),
        };
        let question = Question::Database {
            user: self.subject.user.clone(),
            database: request.database.name.to_string(),
            db_user: request.db_user.to_owned(),
            db_name: request.db_name.to_owned(),
        };
        let roles = self.held.iter().map(|held| asking.role(held)).collect();
        let mut explanation = Explanation::new(question, roles);
        let mut db_roles = Vec::new();
        if let Provisioning::Able { db_roles: wanted } = provisioning
            && mode.is_on()
            && explanation.allowed()
        {
            match self.given_roles(request, wanted) {
                Ok(given) => db_roles = given,
                Err(refused) => explanation.outcome = refused,
            }
        }
        let decision = match &explanation.outcome {
            Outcome::Allowed { role } => {
                Ok(Permit::new(&self.subject.user, request, role).with_user(mode, db_roles))
            }
            _ => Err(Denial::of(&explanation, request)),
        };
        Decided {
            decision,
            explanation,
        }
    }

    /// The database roles that a user made for this session gets. Every one that is wanted has to be allowed.
    fn given_roles(&self, request: Request<'_>, wanted: &[String]) -> Result<Vec<String>, Outcome> {
        let allowed = self.db_roles(&request.database.labels);
        let refused: Vec<String> = wanted
            .iter()
            .filter(|role| !allowed.contains(role))
            .cloned()
            .collect();
        if !refused.is_empty() {
            return Err(Outcome::RolesRefused { refused, allowed });
        }
        if wanted.is_empty() {
            return Ok(allowed);
        }
        Ok(wanted.to_vec())
    }
}

/// One question, looked at role by role.
struct Asking<'a> {
    grants: &'a Grants<'a>,
    request: Request<'a>,
    mode: DbUserMode,
    users: UserNames,
}

impl Asking<'_> {
    fn role(&self, held: &Held<'_>) -> RoleReason {
        let Some(role) = &held.role else {
            return RoleReason {
                role: held.name.to_owned(),
                exists: false,
                deny: Vec::new(),
                allow: Vec::new(),
            };
        };
        let allow = {
            let mut clauses = self.labels(&role.allow);
            if clauses.is_empty() {
                clauses.push(not_set(Clause::DbLabels));
            }
            clauses.push(self.user(&role.allow.conditions.db_users));
            clauses.push(self.name(&role.allow.conditions.db_names));
            clauses
        };
        let deny = {
            let conditions = role.deny.conditions;
            let mut clauses = self.labels(&role.deny);
            if !conditions.db_users.is_empty() {
                clauses.push(self.user_in(&conditions.db_users, InDoubt::Same));
            }
            if !conditions.db_names.is_empty() && self.names_count() {
                clauses.push(self.name(&conditions.db_names));
            }
            clauses
        };
        RoleReason {
            role: held.name.to_owned(),
            exists: true,
            deny,
            allow,
        }
    }

    /// The clauses about labels that are set.
    fn labels(&self, side: &Side<'_>) -> Vec<ClauseReason> {
        let labels = &self.request.database.labels;
        let mut clauses = Vec::new();
        if side.has_labels() {
            let filled = side.labels.as_deref().ok();
            let selector = filled
                .filter(|selector| !selector.is_empty())
                .unwrap_or(&side.conditions.db_labels);
            clauses.push(ClauseReason {
                clause: Clause::DbLabels,
                compared: Compared::Labels {
                    wanted: selector.written().clone(),
                    mismatch: selector.first_mismatch(labels).map(|key| Mismatch {
                        key: key.to_owned(),
                        found: labels.get(key).map(str::to_owned),
                    }),
                },
                truth: side.selects(labels),
            });
        }
        if let Some(expression) = &side.conditions.db_labels_expression {
            let asked = Labelled {
                subject: self.grants.subject,
                labels,
            };
            clauses.push(ClauseReason {
                clause: Clause::DbLabelsExpression,
                compared: Compared::Expression {
                    written: expression.to_string(),
                },
                truth: match expression.evaluate(&asked) {
                    Ok(holds) => Truth::of(holds),
                    Err(over) => Truth::Unknown {
                        why: over.to_string(),
                    },
                },
            });
        }
        clauses
    }

    /// The allow of a database user: from the list, or the person's own name where users are made.
    fn user(&self, list: &[String]) -> ClauseReason {
        if !self.mode.is_on() {
            return self.user_in(list, InDoubt::Different);
        }
        let user = &self.grants.subject.user;
        ClauseReason {
            clause: Clause::DbUsers,
            compared: Compared::OwnName {
                asked: self.request.db_user.to_owned(),
                user: user.clone(),
            },
            truth: Truth::of(self.request.db_user == user),
        }
    }

    fn user_in(&self, list: &[String], in_doubt: InDoubt) -> ClauseReason {
        let asked = self.request.db_user;
        self.listed(Clause::DbUsers, list, asked, |value| {
            self.users.same(value, asked, in_doubt)
        })
    }

    fn name(&self, list: &[String]) -> ClauseReason {
        if !self.names_count() {
            return ClauseReason {
                clause: Clause::DbNames,
                compared: Compared::NotEnforced {
                    protocol: self.request.database.protocol.as_str(),
                },
                truth: Truth::Yes,
            };
        }
        let db_name = self.request.db_name;
        self.listed(Clause::DbNames, list, db_name, |value| value == db_name)
    }

    /// Whether one connection reaches one logical database only, so that its name can be enforced.
    fn names_count(&self) -> bool {
        match self.request.database.protocol {
            Protocol::Postgres => true,
            Protocol::Mysql => false,
        }
    }

    /// Whether some entry of a list, with templates filled in, is `*` or what is asked for.
    fn listed(
        &self,
        clause: Clause,
        list: &[String],
        asked: &str,
        is_asked: impl Fn(&str) -> bool,
    ) -> ClauseReason {
        if list.is_empty() {
            return not_set(clause);
        }
        let entries: Vec<Entry> = list
            .iter()
            .map(|written| self.entry(written, &is_asked))
            .collect();
        let first = |wanted: fn(&Truth) -> bool| {
            let mut truths = entries.iter().map(|entry| &entry.truth);
            truths.find(|truth| wanted(truth)).cloned()
        };
        let truth = first(Truth::allows)
            .or_else(|| first(Truth::denies))
            .unwrap_or(Truth::No);
        ClauseReason {
            clause,
            compared: Compared::Values {
                asked: asked.to_owned(),
                entries,
            },
            truth,
        }
    }

    fn entry(&self, written: &str, is_asked: impl Fn(&str) -> bool) -> Entry {
        let (values, truth) = match template::expand(written, &self.grants.subject.traits) {
            Expanded::Values(values) => {
                let truth = Truth::of(values.iter().any(|value| value == "*" || is_asked(value)));
                (values, truth)
            }
            Expanded::Unknown(why) => (Vec::new(), Truth::Unknown { why }),
        };
        Entry {
            written: written.to_owned(),
            values,
            truth,
        }
    }
}

fn not_set(clause: Clause) -> ClauseReason {
    ClauseReason {
        clause,
        compared: Compared::NotSet,
        truth: Truth::No,
    }
}
