//! Predicates inside roles. They keep the text they were made of, so a role is stored and shown as it was written.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::predicate::{Fields, OverBudget, Predicate, PredicateError, Schema};

macro_rules! expression {
    ($(#[$doc:meta])* $name:ident, $schema:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            written: String,
            predicate: Predicate,
        }

        impl $name {
            /// The expression as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.written
            }

            /// Whether it holds.
            ///
            /// # Errors
            ///
            /// [`OverBudget`] when that takes too many steps: then it neither allows, nor fails to deny.
            pub fn evaluate(&self, fields: &dyn Fields) -> Result<bool, OverBudget> {
                self.predicate.evaluate(fields)
            }
        }

        impl FromStr for $name {
            type Err = PredicateError;

            fn from_str(text: &str) -> Result<Self, PredicateError> {
                Ok(Self {
                    written: text.to_owned(),
                    predicate: Predicate::parse_for(&Schema::$schema, text)?,
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = PredicateError;

            fn try_from(text: String) -> Result<Self, PredicateError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(expression: $name) -> Self {
                expression.written
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.written)
            }
        }
    };
}

expression!(
    /// A role's `db_labels_expression`, over a database's labels and who asks.
    LabelExpression,
    LABEL_EXPRESSION
);

expression!(
    /// The `where` of a rule, over the resource that is asked for and who asks.
    RuleFilter,
    RULE
);

expression!(
    /// The `where` of a right to review, over the access request and who would review it.
    ReviewFilter,
    REVIEW
);
