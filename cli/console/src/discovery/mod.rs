//! What discovery does, as administrators see it: how each scan scope fares, why a database is where it is, and what a
//! configuration would change.
//!
//! Pure: what the control plane answered and the time come in, values and text go out.
//!
//! Not here: asking the control plane (`tgctl discovery`), and the `discovery_config` resource ([`crate::resource`]).

pub mod explain;
mod name;
pub mod plan;
mod scope;
mod status;
mod verdict;

pub use name::{BaseSource, Given, NameStory};
pub use scope::{Endpoints, LeftOut, Scope, ScopeFailure, Shadowed, State, scopes};
pub use status::{relative, status_table, status_text};
pub use verdict::{Clause, ClauseName, Outcome, ScopeVerdict, Verdict};

#[cfg(test)]
mod tests;
