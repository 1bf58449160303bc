//! The predicate language that inventory queries and roles are written in.
//!
//! ```text
//! labels["env"] == "prod" && (hasPrefix(name, "dw-") || search("warehouse"))
//! contains(user.spec.traits["teams"], labels["team"]) && !exists(labels["restricted"])
//! ```
//!
//! A predicate is checked when it is parsed: an unknown field or function, a value of the wrong type or a pattern that
//! does not compile is a [`PredicateError`] with its place, never a surprise later. What it may speak of is a
//! [`Schema`]; what it looks at implements [`Fields`].
//!
//! Invariants: parsing never panics and never recurses deeper than [`DEPTH_MAX`]; evaluation ends after at most
//! [`STEPS_MAX`] steps, whatever the predicate and the values are, and holds no more memory than those steps can make.
//! A label, trait or field that is absent reads as the empty text or list.
//!
//! Not here: which databases a role's expression decides about ([`crate::access`]), paging and ordering of results.

use std::{fmt, sync::Arc};

mod ast;
mod coerce;
mod error;
mod eval;
mod fields;
mod functions;
mod lexer;
mod parser;
pub mod reference;
mod schema;

#[cfg(test)]
mod tests;

pub(crate) use error::nearest_of;
pub use error::{PredicateError, PredicateProblem};
pub use eval::OverBudget;
pub use fields::{Facts, Fields};
pub use schema::{Field, FieldType, Schema};

/// Longest predicate.
pub const PREDICATE_BYTES_MAX: usize = 4096;
/// Deepest nesting of parentheses, negations, keys and calls.
pub const DEPTH_MAX: usize = 24;
/// Most parts (operators, calls, fields, texts) of one predicate.
pub const NODES_MAX: usize = 512;
/// Most patterns in one predicate.
pub const PATTERNS_MAX: usize = 16;
/// Memory that one compiled pattern may take: it bounds the work that a character of text can cost.
pub const COMPILED_BYTES_MAX: usize = 1 << 16;
/// Most steps of one evaluation. A step is a part looked at, or up to [`STEP_BYTES`] of text read or made.
pub const STEPS_MAX: u32 = 50_000;
/// Text that one step of evaluation pays for, in bytes.
pub const STEP_BYTES: usize = 64;
/// How much more a character costs that a pattern looks at.
pub const PATTERN_COST: usize = 8;

/// A checked predicate. Clones share what was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicate {
    test: Arc<ast::Test>,
}

impl Predicate {
    /// Parses a query over databases ([`Schema::DATABASE`]).
    ///
    /// # Errors
    ///
    /// The first fault from the left, with its place.
    pub fn parse(text: &str) -> Result<Self, PredicateError> {
        Self::parse_for(&Schema::DATABASE, text)
    }

    /// Parses a predicate over whatever `schema` describes.
    ///
    /// # Errors
    ///
    /// The first fault from the left, with its place.
    pub fn parse_for(schema: &'static Schema, text: &str) -> Result<Self, PredicateError> {
        parser::test(schema, text).map(|test| Self {
            test: Arc::new(test),
        })
    }

    /// Labels that everything it holds for has, with these values: what an index by label may narrow a search with.
    ///
    /// Keys and values are as written. More may be required than is told, never less.
    #[must_use]
    pub fn required_labels(&self) -> Vec<(&str, &str)> {
        let mut required = Vec::new();
        self.test.required_labels(&mut required);
        required
    }

    /// Whether it holds. One that cannot be finished within [`STEPS_MAX`] does not.
    #[must_use]
    pub fn matches(&self, fields: &dyn Fields) -> bool {
        self.evaluate(fields).unwrap_or(false)
    }

    /// Whether it holds, for callers to whom "it cannot be told" is not "no": a role's deny.
    ///
    /// # Errors
    ///
    /// [`OverBudget`] when it would take more than [`STEPS_MAX`] steps.
    pub fn evaluate(&self, fields: &dyn Fields) -> Result<bool, OverBudget> {
        self.evaluate_within(fields, &mut u64::from(STEPS_MAX))
    }

    /// As [`Self::evaluate`], paid from `steps_left`: for whoever looks at many things and bounds the work for all.
    ///
    /// One evaluation takes at most [`STEPS_MAX`] of it; what was spent is taken away whatever the outcome.
    ///
    /// # Errors
    ///
    /// [`OverBudget`] when either bound is reached.
    pub fn evaluate_within(
        &self,
        fields: &dyn Fields,
        steps_left: &mut u64,
    ) -> Result<bool, OverBudget> {
        let granted = u32::try_from(*steps_left)
            .unwrap_or(u32::MAX)
            .min(STEPS_MAX);
        let mut run = eval::Run::new(fields, granted);
        let outcome = run.test(&self.test);
        *steps_left -= u64::from(granted - run.left());
        outcome
    }
}

/// The canonical spelling, which parses back to an equal predicate.
impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.test.fmt(f)
    }
}

/// A checked expression that gives texts: the inner part of a role's template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values {
    list: ast::List,
}

impl Values {
    pub(crate) fn parse_for(schema: &'static Schema, text: &str) -> Result<Self, PredicateError> {
        parser::list(schema, text).map(|list| Self { list })
    }

    pub(crate) fn evaluate(&self, fields: &dyn Fields) -> Result<Vec<String>, OverBudget> {
        let mut run = eval::Run::new(fields, STEPS_MAX);
        let values = run.list(&self.list)?;
        Ok(values.into_iter().map(Into::into).collect())
    }
}
