//! What is wrong with a role as it is written. Pure; whoever stores roles refuses those with problems.

use super::{Role, RoleConditions, kinds, template};
use crate::{pattern::Pattern, predicate::nearest_of, selector::PATTERN_BYTES_MAX};

/// Most entries of one list of a role.
pub const ROLE_ENTRIES_MAX: usize = 1000;

/// Something in a role that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct RoleProblem {
    /// Where, as in `allow.db_users[0]`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
}

impl Role {
    /// Everything that cannot be used, all at once: wrong templates and patterns, empty rules, lists without end.
    ///
    /// A role with problems still decides: what cannot be read allows nothing and denies everything.
    #[must_use]
    pub fn problems(&self) -> Vec<RoleProblem> {
        let mut problems = Vec::new();
        for (side, conditions) in [("allow", &self.allow), ("deny", &self.deny)] {
            conditions.problems(side, &mut problems);
        }
        problems
    }

    /// Kinds in rules that this program has no resource of, each with the known one that may be meant.
    ///
    /// Not a problem: a role may have been written for another system too.
    #[must_use]
    pub fn unknown_kinds(&self) -> Vec<(String, Option<String>)> {
        let rules = self.allow.rules.iter().chain(&self.deny.rules);
        rules
            .flat_map(|rule| &rule.resources)
            .filter(|kind| *kind != "*" && !kinds::ALL.contains(&kind.as_str()))
            .map(|kind| (kind.clone(), nearest_of(kind, kinds::ALL.iter().copied())))
            .collect()
    }
}

impl RoleConditions {
    fn problems(&self, side: &str, problems: &mut Vec<RoleProblem>) {
        let mut found = |field: String, problem: String| {
            problems.push(RoleProblem {
                field: format!("{side}.{field}"),
                problem,
            });
        };
        let lists = [
            ("db_users", &self.db_users),
            ("db_names", &self.db_names),
            ("db_roles", &self.db_roles),
            ("request.roles", &self.request.roles),
            ("review_requests.roles", &self.review_requests.roles),
        ];
        for (name, list) in lists {
            if list.len() > ROLE_ENTRIES_MAX {
                found(
                    name.to_owned(),
                    format!("has more than {ROLE_ENTRIES_MAX} entries"),
                );
            }
            for (index, written) in list.iter().enumerate() {
                if let Some(problem) = template::problem(written) {
                    found(format!("{name}[{index}]"), problem);
                }
            }
        }
        for (name, list) in lists.iter().skip(3) {
            for (index, written) in list.iter().enumerate() {
                if let Err(problem) = Pattern::new(written, PATTERN_BYTES_MAX) {
                    found(format!("{name}[{index}]"), problem);
                }
            }
        }
        for (key, values) in self.db_labels.written() {
            for problem in values.iter().filter_map(|value| template::problem(value)) {
                found(format!("db_labels[{key}]"), problem);
            }
        }
        if self.rules.len() > ROLE_ENTRIES_MAX {
            found(
                "rules".to_owned(),
                format!("has more than {ROLE_ENTRIES_MAX} entries"),
            );
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.resources.is_empty() {
                found(
                    format!("rules[{index}].resources"),
                    "names no kind of resource".to_owned(),
                );
            }
            if rule.verbs.is_empty() {
                found(format!("rules[{index}].verbs"), "names no verb".to_owned());
            }
        }
        for (index, threshold) in self.request.thresholds.iter().enumerate() {
            if threshold.approve == 0 || threshold.deny == 0 {
                found(
                    format!("request.thresholds[{index}]"),
                    "`approve` and `deny` must be at least 1".to_owned(),
                );
            }
        }
    }
}
