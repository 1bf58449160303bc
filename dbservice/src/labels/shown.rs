//! What the commands of one database have shown: values, and what is wrong. Pure.

use std::collections::BTreeMap;

use super::command::CommandError;

/// By label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    labels: BTreeMap<String, Label>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Label {
    /// What was printed last.
    value: Option<String>,
    /// What is wrong since then.
    problem: Option<String>,
}

/// What one run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Value or problem are other ones now.
    pub(crate) is_change: bool,
    /// Something to say: the command fails in a new way, or works again.
    pub(crate) is_news: bool,
}

impl Shown {
    /// These labels there are; others are forgotten, new ones have not run.
    pub(super) fn keep<'l>(&mut self, labels: impl Iterator<Item = &'l str>) {
        let mut before = std::mem::take(&mut self.labels);
        self.labels = labels
            .map(|label| {
                let known = before.remove(label).unwrap_or_default();
                (label.to_owned(), known)
            })
            .collect();
    }

    /// Takes what a command printed, or why it did not. A failure leaves the value as it was.
    pub(super) fn take(&mut self, label: &str, outcome: Result<String, CommandError>) -> Taken {
        let Some(known) = self.labels.get_mut(label) else {
            return Taken {
                is_change: false,
                is_news: false,
            };
        };
        let before = known.clone();
        match outcome {
            Ok(value) => {
                *known = Label {
                    value: Some(value),
                    problem: None,
                }
            }
            Err(error) => known.problem = Some(error.to_string()),
        }
        Taken {
            is_change: *known != before,
            is_news: known.problem != before.problem,
        }
    }

    /// Whether every command has run.
    pub(crate) fn is_ready(&self) -> bool {
        self.labels
            .values()
            .all(|label| label.value.is_some() || label.problem.is_some())
    }

    /// Labels that have values.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels
            .iter()
            .filter_map(|(label, known)| Some((label.as_str(), known.value.as_deref()?)))
    }

    /// What is wrong, a line for each label.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let remark = |(label, known): (&String, &Label)| {
            let problem = known.problem.as_ref()?;
            let kept = match known.value {
                Some(_) => "its last value is kept",
                None => "it has no value from it",
            };
            Some(format!("label `{label}`: {problem}; {kept}"))
        };
        self.labels.iter().filter_map(remark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown {
        let mut shown = Shown::default();
        shown.keep(["load"].into_iter());
        shown
    }

    #[test]
    fn nothing_is_ready_before_it_ran_once_well_or_not() {
        let mut shown = shown();
        assert!(!shown.is_ready());
        let taken = shown.take("load", Err(CommandError::NotText));
        assert!(shown.is_ready() && taken.is_change && taken.is_news);
        assert_eq!(shown.values().count(), 0);
        assert!(shown.remarks()[0].ends_with("it has no value from it"));
    }

    #[test]
    fn a_failure_keeps_the_value_and_is_news_once() {
        let mut shown = shown();
        let good = shown.take("load", Ok("low".to_owned()));
        assert!(good.is_change && !good.is_news);
        assert!(shown.take("load", Err(CommandError::NotText)).is_news);
        let again = shown.take("load", Err(CommandError::NotText));
        assert!(!again.is_change && !again.is_news);
        assert_eq!(shown.values().next(), Some(("load", "low")));
        assert!(shown.take("load", Ok("low".to_owned())).is_news);
        assert!(shown.remarks().is_empty());
    }

    #[test]
    fn labels_that_nobody_wants_any_more_are_forgotten() {
        let mut shown = shown();
        shown.take("load", Ok("low".to_owned()));
        shown.keep(["load", "zone"].into_iter());
        assert_eq!((shown.values().count(), shown.is_ready()), (1, false));
        shown.keep(["zone"].into_iter());
        assert_eq!(shown.values().count(), 0);
        assert!(!shown.take("load", Ok("late".to_owned())).is_change);
    }
}
