//! Why a predicate cannot be used, and where.

use std::fmt;

use super::{DEPTH_MAX, NODES_MAX, PATTERNS_MAX, PREDICATE_BYTES_MAX};

/// Characters of the predicate shown on each side of a fault.
const SHOWN_CHARS: usize = 60;

/// A fault in a predicate, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredicateError {
    /// Where the fault begins, in bytes from the start.
    pub offset: usize,
    /// The same place in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: PredicateProblem,
}

/// What is wrong with a predicate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PredicateProblem {
    /// A function got more or fewer values than it takes.
    #[error("{given} values given to `{function}`: write {usage}")]
    Arguments {
        /// The function.
        function: &'static str,
        /// How many it got.
        given: usize,
        /// How it is called.
        usage: &'static str,
    },
    /// Something else should stand here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What would have been accepted.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A pattern cannot be compiled.
    #[error("`{pattern}` is not a valid pattern: {problem}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// What the compiler of expressions said.
        problem: String,
    },
    /// More nesting than [`DEPTH_MAX`].
    #[error("nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// More text than [`PREDICATE_BYTES_MAX`].
    #[error("longer than {PREDICATE_BYTES_MAX} bytes")]
    TooLong,
    /// More parts than [`NODES_MAX`].
    #[error("more than {NODES_MAX} parts")]
    TooManyNodes,
    /// More patterns than [`PATTERNS_MAX`].
    #[error("more than {PATTERNS_MAX} patterns")]
    TooManyPatterns,
    /// A value of one type stands where another is needed.
    #[error("expected {expected}, this is {found}{}", because(.hint))]
    Type {
        /// The type that is needed.
        expected: &'static str,
        /// The type that stands there.
        found: &'static str,
        /// What to write instead; empty when nothing helps.
        hint: &'static str,
    },
    /// A backslash before a character that needs none.
    #[error("unknown escape `\\{escape}`: write a backslash twice, or the text in backquotes")]
    UnknownEscape {
        /// The character after the backslash.
        escape: char,
    },
    /// No such field on what is looked at.
    #[error("{kind} has no field `{name}`{}", meant(.nearest.as_deref()))]
    UnknownField {
        /// The field as written.
        name: String,
        /// What is looked at.
        kind: &'static str,
        /// The known field with the most similar name.
        nearest: Option<String>,
    },
    /// No such function.
    #[error("unknown function `{name}`{}", meant(.nearest.as_deref()))]
    UnknownFunction {
        /// The function as written.
        name: String,
        /// The known function with the most similar name.
        nearest: Option<String>,
    },
    /// A text without its closing quote.
    #[error("the text that begins here has no closing quote")]
    UnterminatedText,
}

impl PredicateError {
    pub(super) fn new(source: &str, offset: usize, problem: PredicateProblem) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        Self {
            offset,
            column: before.chars().count() + 1,
            problem,
        }
    }

    /// Two lines for people: the predicate, and a caret below the fault with what is wrong.
    ///
    /// `source` is the text that was parsed; of a long one only the surroundings of the fault are shown.
    #[must_use]
    pub fn with_caret(&self, source: &str) -> String {
        let fault = self.column.saturating_sub(1);
        let skipped = fault.saturating_sub(SHOWN_CHARS);
        let shown: String = source
            .chars()
            .skip(skipped)
            .take(2 * SHOWN_CHARS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let (lead, cut) = if skipped > 0 { ("…", 1) } else { ("", 0) };
        let indent = " ".repeat(fault - skipped + cut);
        format!("{lead}{shown}\n{indent}^ {}", self.problem)
    }
}

impl fmt::Display for PredicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.column, self.problem)
    }
}

impl std::error::Error for PredicateError {}

fn because(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!(": {hint}")
    }
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(": did you mean `{nearest}`"))
}

/// The candidate with the most similar name, when one is similar enough to be meant.
pub(crate) fn nearest_of<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    const SIMILAR_ENOUGH: f64 = 0.84;
    let lower = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let likeness = strsim::jaro_winkler(&lower, &candidate.to_ascii_lowercase());
            (likeness, candidate)
        })
        .filter(|(likeness, _)| *likeness >= SIMILAR_ENOUGH)
        .max_by(|(a, left), (b, right)| a.total_cmp(b).then(right.cmp(left)))
        .map(|(_, candidate)| candidate.to_owned())
}
