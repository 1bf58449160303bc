//! What one person's roles come to: templates of labels filled in once, then asked about any number of databases.

use std::borrow::Cow;

use super::{
    DbUserMode, Labelled, Role, RoleConditions, SessionOptions, Subject, Traits, Truth,
    template::{self, Expanded},
};
use crate::{
    labels::Labels,
    pattern::Pattern,
    selector::{PATTERN_BYTES_MAX, Selector},
};

/// The roles of one person, ready to decide.
///
/// Made by [`super::Policy::grants`]; for listings it is made once and asked about every row.
#[derive(Clone, Debug)]
pub struct Grants<'p> {
    pub(super) subject: &'p Subject,
    pub(super) held: Vec<Held<'p>>,
}

/// A role of the person.
#[derive(Clone, Debug)]
pub(super) struct Held<'p> {
    pub(super) name: &'p str,
    /// `None` when there is no such role.
    pub(super) role: Option<Resolved<'p>>,
}

/// A role with the labels of both sides filled in.
#[derive(Clone, Debug)]
pub(super) struct Resolved<'p> {
    pub(super) role: &'p Role,
    pub(super) allow: Side<'p>,
    pub(super) deny: Side<'p>,
}

/// One side of a role.
#[derive(Clone, Debug)]
pub(super) struct Side<'p> {
    pub(super) conditions: &'p RoleConditions,
    /// The selector, or why it cannot be told.
    pub(super) labels: Result<Cow<'p, Selector>, String>,
}

/// Values that a person may use, and those that are taken away again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedValues {
    /// What roles allow, sorted; `*` is any.
    pub values: Vec<String>,
    /// What roles deny, sorted; meaningful beside `*`.
    pub except: Vec<String>,
}

impl<'p> Grants<'p> {
    pub(super) fn new(subject: &'p Subject, role: impl Fn(&str) -> Option<&'p Role>) -> Self {
        let held = subject.roles.iter().map(|name| Held {
            name,
            role: role(name).map(|role| Resolved {
                role,
                allow: Side::new(&role.allow, &subject.traits),
                deny: Side::new(&role.deny, &subject.traits),
            }),
        });
        Self {
            subject,
            held: held.collect(),
        }
    }

    /// The roles that exist.
    pub(super) fn roles(&self) -> impl Iterator<Item = &Resolved<'p>> {
        self.held.iter().filter_map(|held| held.role.as_ref())
    }

    /// Whether the person may see a database in listings: some role allows its labels and none denies them.
    #[must_use]
    pub fn may_see(&self, labels: &Labels) -> bool {
        let asked = Labelled {
            subject: self.subject,
            labels,
        };
        !self.roles().any(|role| role.deny.denies_labels(asked))
            && self.roles().any(|role| role.allow.allows_labels(asked))
    }

    /// What the person's roles ask of sessions, together.
    #[must_use]
    pub fn options(&self) -> SessionOptions {
        SessionOptions::of(self.roles().map(|role| &role.role.options))
    }

    /// Whether database users are made for sessions to a database with these labels: when any role says so whose
    /// labels allow it. Of roles that say so, one that asks for removal wins.
    #[must_use]
    pub fn user_mode(&self, labels: &Labels) -> DbUserMode {
        self.making_users(labels)
            .map(Role::user_mode)
            .max()
            .unwrap_or_default()
    }

    /// The database roles that a user made for a session to a database with these labels may get.
    ///
    /// Only roles that make users give any, and what any role of the person denies is taken away.
    #[must_use]
    pub fn db_roles(&self, labels: &Labels) -> Vec<String> {
        let given = self.making_users(labels).map(|role| &role.allow.db_roles);
        let denied = self.roles().map(|role| &role.role.deny.db_roles);
        less(self.values(given).0, &self.values(denied))
    }

    /// Database users that the person may be on a database with these labels.
    #[must_use]
    pub fn db_users(&self, labels: &Labels) -> AllowedValues {
        self.allowed_values(labels, |conditions| &conditions.db_users)
    }

    /// Logical databases that the person may open on a database with these labels.
    #[must_use]
    pub fn db_names(&self, labels: &Labels) -> AllowedValues {
        self.allowed_values(labels, |conditions| &conditions.db_names)
    }

    fn making_users<'g>(&'g self, labels: &'g Labels) -> impl Iterator<Item = &'g Role> {
        let asked = Labelled {
            subject: self.subject,
            labels,
        };
        self.roles()
            .filter(move |role| role.role.user_mode().is_on() && role.allow.allows_labels(asked))
            .map(|role| role.role)
    }

    fn allowed_values(
        &self,
        labels: &Labels,
        list: fn(&RoleConditions) -> &Vec<String>,
    ) -> AllowedValues {
        let asked = Labelled {
            subject: self.subject,
            labels,
        };
        let allowing = self.roles().filter(|role| role.allow.allows_labels(asked));
        let (allowed, _) = self.values(allowing.map(|role| list(&role.role.allow)));
        let denied = self.values(self.roles().map(|role| list(&role.role.deny)));
        AllowedValues {
            values: less(allowed, &denied),
            except: denied.0,
        }
    }

    /// What the entries of these lists stand for, sorted, and whether one of them cannot be told.
    fn values<'l>(&self, lists: impl Iterator<Item = &'l Vec<String>>) -> (Vec<String>, bool) {
        let mut values = Vec::new();
        let mut unknown = false;
        for written in lists.flatten() {
            match template::expand(written, &self.subject.traits) {
                Expanded::Values(expanded) => values.extend(expanded),
                Expanded::Unknown(_) => unknown = true,
            }
        }
        values.sort();
        values.dedup();
        (values, unknown)
    }
}

/// What is left when the denied is taken away; a denial that cannot be told takes everything.
fn less(allowed: Vec<String>, (denied, unknown): &(Vec<String>, bool)) -> Vec<String> {
    if *unknown || denied.iter().any(|value| value == "*") {
        return Vec::new();
    }
    allowed
        .into_iter()
        .filter(|value| !denied.contains(value))
        .collect()
}

impl<'p> Side<'p> {
    fn new(conditions: &'p RoleConditions, traits: &Traits) -> Self {
        Self {
            conditions,
            labels: fill_in(&conditions.db_labels, traits),
        }
    }

    /// Whether labels and expression, as far as they are set, both match; with neither set nothing does.
    pub(super) fn allows_labels(&self, asked: Labelled<'_>) -> bool {
        let expression = &self.conditions.db_labels_expression;
        (self.has_labels() || expression.is_some())
            && (!self.has_labels() || self.selects(asked.labels).allows())
            && expression
                .as_ref()
                .is_none_or(|expression| expression.evaluate(&asked) == Ok(true))
    }

    /// Whether labels or expression match, or cannot be told.
    pub(super) fn denies_labels(&self, asked: Labelled<'_>) -> bool {
        self.selects(asked.labels).denies()
            || self
                .conditions
                .db_labels_expression
                .as_ref()
                .is_some_and(|expression| expression.evaluate(&asked) != Ok(false))
    }

    /// Whether `db_labels` is set.
    pub(super) fn has_labels(&self) -> bool {
        !self.conditions.db_labels.is_empty()
    }

    /// Whether `db_labels` matches.
    pub(super) fn selects(&self, labels: &Labels) -> Truth {
        match &self.labels {
            Ok(selector) => Truth::of(selector.matches(labels)),
            Err(why) => Truth::Unknown { why: why.clone() },
        }
    }
}

/// The selector with templates in its values filled in.
///
/// A key whose templates stand for nothing can match nothing, and so the whole selector does not.
fn fill_in<'p>(selector: &'p Selector, traits: &Traits) -> Result<Cow<'p, Selector>, String> {
    let written = selector.written();
    if !written
        .values()
        .flatten()
        .any(|value| template::is_template(value))
    {
        return Ok(Cow::Borrowed(selector));
    }
    let mut filled = Vec::new();
    for (key, values) in written {
        let mut means = Vec::new();
        for value in values {
            match template::expand(value, traits) {
                Expanded::Values(expanded) => means.extend(expanded),
                Expanded::Unknown(why) => return Err(why),
            }
        }
        if means.is_empty() {
            return Ok(Cow::Owned(Selector::default()));
        }
        filled.push((key.clone(), means));
    }
    Selector::new(filled)
        .map(Cow::Owned)
        .map_err(|invalid| invalid.to_string())
}

/// Whether a list of roles, as requests and reviews write it, names a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleMatch {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// A template or pattern in it cannot be read.
    Unknown,
}

impl Grants<'_> {
    /// Who asks.
    pub(crate) fn subject(&self) -> &Subject {
        self.subject
    }

    /// Name, allow and deny of each role that exists.
    pub(crate) fn conditions(
        &self,
    ) -> impl Iterator<Item = (&str, &RoleConditions, &RoleConditions)> {
        self.roles().map(|role| {
            let name = role.role.name.as_str();
            (name, role.allow.conditions, role.deny.conditions)
        })
    }

    /// Whether a list of names, patterns and templates names a role.
    pub(crate) fn names(&self, list: &[String], role: &str) -> RoleMatch {
        let mut outcome = RoleMatch::No;
        for written in list {
            let Expanded::Values(values) = template::expand(written, &self.subject.traits) else {
                outcome = RoleMatch::Unknown;
                continue;
            };
            for value in values {
                match Pattern::new(&value, PATTERN_BYTES_MAX) {
                    Ok(pattern) if pattern.matches(role) => return RoleMatch::Yes,
                    Ok(_) => {}
                    Err(_) => outcome = RoleMatch::Unknown,
                }
            }
        }
        outcome
    }
}
