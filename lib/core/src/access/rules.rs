//! The decision about doing something with a resource of the cluster.

use std::borrow::Cow;

use super::{
    Clause, ClauseReason, Compared, Explanation, Question, Role, RoleReason, Rule, RuleReason,
    Subject, Traits, Truth, Verb, grants::Grants, kinds,
};
use crate::{labels::Labels, predicate::Fields};

/// A resource that somebody wants to do something with.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// Its kind, one of [`super::kinds`].
    pub kind: &'t str,
    /// Its name; empty when no single one is meant.
    pub name: &'t str,
    /// Its labels, if it has any.
    pub labels: Option<&'t Labels>,
}

impl<'t> Target<'t> {
    /// A resource without labels.
    #[must_use]
    pub const fn named(kind: &'t str, name: &'t str) -> Self {
        Self {
            kind,
            name,
            labels: None,
        }
    }

    /// No single resource: for what concerns a whole kind.
    #[must_use]
    pub const fn kind(kind: &'t str) -> Self {
        Self::named(kind, "")
    }
}

impl Grants<'_> {
    /// Decides whether the person may do this with that resource.
    #[must_use]
    pub fn may(&self, target: Target<'_>, verb: Verb) -> Explanation {
        let asking = Asking {
            subject: self.subject,
            target,
            verb,
        };
        let question = Question::Resource {
            user: self.subject.user.clone(),
            kind: target.kind.to_owned(),
            name: target.name.to_owned(),
            verb,
        };
        let roles = self.held.iter().map(|held| {
            let role = held.role.as_ref();
            RoleReason {
                role: held.name.to_owned(),
                exists: role.is_some(),
                deny: role
                    .map(|role| &role.role.deny.rules)
                    .filter(|rules| !rules.is_empty())
                    .map(|rules| asking.rules(rules, Truth::denies))
                    .into_iter()
                    .collect(),
                allow: role
                    .map(|role| asking.rules(&role.role.allow.rules, Truth::allows))
                    .into_iter()
                    .collect(),
            }
        });
        Explanation::new(question, roles.collect())
    }

    /// Whether the person may do this with some resource of a kind, each to be asked about by [`Self::may`]: to tell an
    /// empty list from a forbidden one.
    #[must_use]
    pub fn may_some(&self, kind: &str, verb: Verb) -> bool {
        let covers = |rule: &&Rule| rule.covers(kind, verb);
        let denied = self
            .roles()
            .flat_map(|role| &role.role.deny.rules)
            .filter(covers)
            .any(|rule| rule.filter.is_none());
        !denied
            && self
                .roles()
                .flat_map(|role| &role.role.allow.rules)
                .any(|rule| covers(&rule))
    }
}

/// What each role allows with each kind of resource, as a table for people; what a `where` narrows is marked `*`.
#[must_use]
pub fn rules_table(roles: &[Role]) -> String {
    let mut lines = Vec::new();
    for role in roles {
        for kind in kinds::ALL {
            let allowed: Vec<String> = TABLE_VERBS
                .iter()
                .filter_map(|verb| allowed_verb(&role.allow.rules, kind, *verb))
                .collect();
            if !allowed.is_empty() {
                lines.push(format!(
                    "{:<10} {kind:<20} {}",
                    role.name,
                    allowed.join(" ")
                ));
            }
        }
    }
    lines.join("\n")
}

const TABLE_VERBS: [Verb; 6] = [
    Verb::List,
    Verb::Read,
    Verb::Create,
    Verb::Update,
    Verb::Delete,
    Verb::Rotate,
];

/// The verb as the table shows it, if some rule allows it.
fn allowed_verb(rules: &[Rule], kind: &str, verb: Verb) -> Option<String> {
    let covering = || rules.iter().filter(|rule| rule.covers(kind, verb));
    covering().next()?;
    let narrowed = covering().all(|rule| rule.filter.is_some());
    Some(format!(
        "{}{}",
        verb.as_str(),
        if narrowed { "*" } else { "" }
    ))
}

struct Asking<'a> {
    subject: &'a Subject,
    target: Target<'a>,
    verb: Verb,
}

impl Asking<'_> {
    /// What all rules of one side say; `counts` is what makes a rule decide on that side.
    fn rules(&self, rules: &[Rule], counts: fn(&Truth) -> bool) -> ClauseReason {
        let reasons: Vec<RuleReason> = rules.iter().map(|rule| self.rule(rule)).collect();
        let deciding = reasons.iter().find(|reason| counts(&reason.truth));
        ClauseReason {
            clause: Clause::Rules,
            truth: deciding.map_or(Truth::No, |reason| reason.truth.clone()),
            compared: Compared::Rules { rules: reasons },
        }
    }

    fn rule(&self, rule: &Rule) -> RuleReason {
        let truth = if rule.covers(self.target.kind, self.verb) {
            match rule.filter.as_ref().map(|filter| filter.evaluate(self)) {
                None | Some(Ok(true)) => Truth::Yes,
                Some(Ok(false)) => Truth::No,
                Some(Err(over)) => Truth::Unknown {
                    why: over.to_string(),
                },
            }
        } else {
            Truth::No
        };
        RuleReason {
            resources: rule.resources.clone(),
            verbs: rule
                .verbs
                .iter()
                .map(|verb| verb.as_str().to_owned())
                .collect(),
            filter: rule.filter.as_ref().map(ToString::to_string),
            truth,
        }
    }
}

impl Fields for Asking<'_> {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        match path {
            "resource.kind" => Some(self.target.kind.into()),
            "resource.metadata.name" => {
                (!self.target.name.is_empty()).then(|| self.target.name.into())
            }
            _ => self.subject.text(path),
        }
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        self.subject.list(path)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        self.target
            .labels
            .filter(|_| path == "resource.metadata.labels")
    }

    fn traits(&self, path: &str) -> Option<&Traits> {
        Fields::traits(self.subject, path)
    }
}
