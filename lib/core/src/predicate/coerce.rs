//! Turns values whose type is known into the type that their place needs, or says why that cannot be.

use super::{
    COMPILED_BYTES_MAX, PATTERNS_MAX,
    ast::{List, Mapping, Path, Test, Text},
    error::{PredicateError, PredicateProblem},
    parser::{Operand, Parser, Typed},
};
use crate::pattern::Pattern;

impl Parser<'_> {
    /// The value as a condition.
    pub(super) fn condition(&self, operand: Operand) -> Result<Test, PredicateError> {
        match operand.typed {
            Typed::Test(test) => Ok(test),
            other => Err(self.wrong_type(operand.offset, "a condition", &other)),
        }
    }

    /// The value as one side of a comparison.
    pub(super) fn compared(&self, operand: Operand) -> Result<Text, PredicateError> {
        match operand.typed {
            Typed::Text(text) => Ok(text),
            other => Err(self.wrong_type(operand.offset, "a text to compare", &other)),
        }
    }

    /// The value as a text.
    pub(super) fn text(&self, operand: Operand) -> Result<Text, PredicateError> {
        match operand.typed {
            Typed::Text(text) => Ok(text),
            other => Err(self.wrong_type(operand.offset, "a text", &other)),
        }
    }

    /// The value as a list; a text stands for the list that holds it alone.
    pub(super) fn list(&self, operand: Operand) -> Result<List, PredicateError> {
        match operand.typed {
            Typed::List(list) => Ok(list),
            Typed::Text(text) => Ok(List::One(text)),
            other => Err(self.wrong_type(operand.offset, "a list", &other)),
        }
    }

    /// The value as a text that stands in the predicate itself.
    pub(super) fn literal(&self, operand: Operand) -> Result<String, PredicateError> {
        match operand.typed {
            Typed::Text(Text::Literal(text)) => Ok(text),
            other => Err(self.wrong_type(operand.offset, "a text in quotes", &other)),
        }
    }

    /// The value as a pattern, compiled here so that evaluation compiles nothing.
    pub(super) fn pattern(&mut self, operand: Operand) -> Result<Pattern, PredicateError> {
        let offset = operand.offset;
        let written = self.literal(operand)?;
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            return Err(self.error(offset, PredicateProblem::TooManyPatterns));
        }
        Pattern::new(&written, COMPILED_BYTES_MAX).map_err(|problem| {
            let pattern = written.clone();
            self.error(offset, PredicateProblem::Pattern { pattern, problem })
        })
    }

    /// A change of a text or of each text of a list.
    pub(super) fn mapped(
        &self,
        mapping: Mapping,
        operand: Operand,
    ) -> Result<Typed, PredicateError> {
        match operand.typed {
            Typed::Text(text) => Ok(Typed::Text(Text::Mapped(mapping, Box::new(text)))),
            Typed::List(list) => Ok(Typed::List(List::Mapped(mapping, Box::new(list)))),
            other => Err(self.wrong_type(operand.offset, "a text or a list", &other)),
        }
    }

    /// The labels that a function means when it names none.
    pub(super) fn labels(&self, call: usize) -> Result<Path, PredicateError> {
        self.schema.labels().ok_or_else(|| {
            let problem = PredicateProblem::UnknownField {
                name: "labels".to_owned(),
                kind: self.schema.kind,
                nearest: None,
            };
            self.error(call, problem)
        })
    }

    /// Refuses a search where nothing can be searched.
    pub(super) fn searchable(&self, call: usize) -> Result<(), PredicateError> {
        if self.schema.searchable {
            return Ok(());
        }
        let problem = PredicateProblem::UnknownFunction {
            name: "search".to_owned(),
            nearest: None,
        };
        Err(self.error(call, problem))
    }

    pub(super) fn wrong_type(
        &self,
        offset: usize,
        expected: &'static str,
        found: &Typed,
    ) -> PredicateError {
        let hint = match found {
            Typed::Labels(_) => "name one, as in `labels[\"env\"]`",
            Typed::Traits(_) => "name one, as in `user.spec.traits[\"teams\"]`",
            Typed::List(_) if expected.starts_with("a text") => "use `contains(list, text)`",
            Typed::List(_) | Typed::Text(_) | Typed::Test(_) => "",
        };
        let found = found.name();
        self.error(
            offset,
            PredicateProblem::Type {
                expected,
                found,
                hint,
            },
        )
    }
}
