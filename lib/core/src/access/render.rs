//! The tree of reasons as lines of text for people. Long lists are cut; programs read the tree itself.

use super::{
    ClauseReason, Compared, Entry, Explanation, Mismatch, Outcome, Question, RuleReason, Truth,
};

/// Most values shown of one list.
const SHOWN_VALUES_MAX: usize = 8;

impl Explanation {
    /// The whole tree as lines for people; the first tells the outcome.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} {}", self.asked(), self.told())];
        if self.roles.is_empty() {
            lines.push("  the person has no roles".to_owned());
        }
        for reason in &self.roles {
            if !reason.exists {
                lines.push(format!("  role `{}` does not exist", reason.role));
                continue;
            }
            lines.push(format!("  role `{}`", reason.role));
            if reason.deny.is_empty() {
                lines.push("    deny   nothing".to_owned());
            }
            for (side, clauses) in [("deny ", &reason.deny), ("allow", &reason.allow)] {
                lines.extend(
                    clauses
                        .iter()
                        .map(|clause| format!("    {side}  {}", clause.line())),
                );
            }
        }
        if self.allowed_in_parts_only() {
            lines.push(
                "  every part is allowed by some role, but no single role allows all of it"
                    .to_owned(),
            );
        }
        lines
    }

    fn asked(&self) -> String {
        match &self.question {
            Question::Database {
                user,
                database,
                db_user,
                db_name,
            } => format!("`{user}` using database `{database}` as `{db_user}` on `{db_name}`:"),
            Question::Resource {
                user,
                kind,
                name,
                verb,
            } => {
                let name = if name.is_empty() {
                    String::new()
                } else {
                    format!(" `{name}`")
                };
                format!("`{user}`, {} {kind}{name}:", verb.as_str())
            }
        }
    }

    fn told(&self) -> String {
        match &self.outcome {
            Outcome::Allowed { role } => format!("allowed by role `{role}`"),
            Outcome::Denied { role, clause } => {
                format!("denied by role `{role}` ({})", clause.as_str())
            }
            Outcome::NotAllowed => "no role allows it".to_owned(),
            Outcome::RolesRefused { refused, allowed } => format!(
                "database role {} denied; allowed are: {}",
                shown(refused),
                shown(allowed)
            ),
        }
    }
}

impl ClauseReason {
    fn line(&self) -> String {
        let truth = match &self.truth {
            Truth::No => "no ",
            Truth::Unknown { .. } => "?  ",
            Truth::Yes => "yes",
        };
        let mut line = format!(
            "{:<20} {truth}  {}",
            self.clause.as_str(),
            self.compared.told()
        );
        if let Truth::Unknown { why } = &self.truth {
            line.push_str(" (cannot be told: ");
            line.push_str(why);
            line.push(')');
        }
        line
    }
}

impl Compared {
    fn told(&self) -> String {
        match self {
            Self::Expression { written } => {
                written.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            Self::Labels { wanted, mismatch } => {
                let wanted = wanted
                    .iter()
                    .map(|(key, values)| format!("{key} = {}", shown(values)));
                let wanted = wanted.collect::<Vec<_>>().join(", ");
                match mismatch {
                    None => wanted,
                    Some(Mismatch {
                        key,
                        found: Some(found),
                    }) => format!("{wanted}; label `{key}` is `{found}`"),
                    Some(Mismatch { key, found: None }) => {
                        format!("{wanted}; label `{key}` is absent")
                    }
                }
            }
            Self::NotEnforced { protocol } => format!("not enforced with {protocol}"),
            Self::NotSet => "not set".to_owned(),
            Self::OwnName { asked, user } => {
                format!("`{asked}` has to be the person's own name, `{user}`")
            }
            Self::Rules { rules } if rules.is_empty() => "not set".to_owned(),
            Self::Rules { rules } => {
                let covering = rules.iter().find(|rule| rule.truth != Truth::No);
                match covering {
                    Some(rule) => rule.told(),
                    None => format!("none of {} rules covers it", rules.len()),
                }
            }
            Self::Values { asked, entries } => {
                let written: Vec<String> = entries.iter().map(Entry::told).collect();
                format!("`{}` in {}", asked, shown(&written))
            }
        }
    }
}

impl Entry {
    fn told(&self) -> String {
        if self.values.len() == 1 && self.values.first() == Some(&self.written) {
            self.written.clone()
        } else if self.values.is_empty() {
            format!("{} (nothing)", self.written)
        } else {
            format!("{} ({})", self.written, shown(&self.values))
        }
    }
}

impl RuleReason {
    fn told(&self) -> String {
        let base = format!("{}: {}", self.resources.join(", "), self.verbs.join(", "));
        match &self.filter {
            Some(filter) => format!("{base} where {filter}"),
            None => base,
        }
    }
}

fn shown(values: &[String]) -> String {
    let shown = values.iter().take(SHOWN_VALUES_MAX).map(String::as_str);
    let text = shown.collect::<Vec<_>>().join(", ");
    match values.len().saturating_sub(SHOWN_VALUES_MAX) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
