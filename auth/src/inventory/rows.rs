//! Rows: what is kept of a database and of a database server, and how selectors, roles, predicates and words look at it.
//!
//! What is read of every row at every look, its labels, is kept ready; the rest is packed ([`super::packed`]).

mod database;
mod server;

use std::{borrow::Cow, sync::Arc};

use tidegate_core::{Labels, labels::is_reserved, predicate::Fields};

use super::index::Slot;
pub(crate) use database::{DatabaseRow, database_row};
pub(crate) use server::{ServerRow, server_row};

/// A row that selectors, roles and predicates can look at.
pub(crate) trait Row: Send + Sync + 'static {
    /// What it is sent as.
    type Message;

    /// The row as predicates look at it.
    fn fields(&self) -> &dyn Fields;
    /// Its place in the table: the database's name, and the host of a database server.
    fn key(&self) -> (&str, &str);
    /// Its number in the index by label.
    fn slot(&self) -> Slot;
    /// Sets its number.
    fn set_slot(&mut self, slot: Slot);
    /// The labels of the database that it is about.
    fn labels(&self) -> &Labels;
    /// Revision of its last change.
    fn revision(&self) -> u64;
    /// Whether a word, in lower case, occurs in what people know it by.
    fn mentions(&self, word: &str) -> bool;
    /// The row as it is sent.
    fn message(&self) -> Self::Message;
}
fn present(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

/// Whether a word occurs in a label. Reserved keys are on every database, so finding them would find everything.
fn labels_hold(labels: &Labels, word: &str) -> bool {
    labels
        .iter()
        .any(|(key, value)| holds(value, word) || (!is_reserved(key) && holds(key, word)))
}

/// Whether a word in lower case occurs in a text, whatever the text's case.
fn holds(text: &str, word: &str) -> bool {
    if text.is_ascii() {
        word.is_empty()
            || text
                .as_bytes()
                .windows(word.len())
                .any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    } else {
        text.to_lowercase().contains(word)
    }
}

/// One row's change; at least one side is there.
#[derive(Debug)]
pub(crate) struct RowChange<R> {
    /// What it was.
    pub(crate) previous: Option<Arc<R>>,
    /// What it is.
    pub(crate) current: Option<Arc<R>>,
}

impl<R> Clone for RowChange<R> {
    fn clone(&self) -> Self {
        Self {
            previous: self.previous.clone(),
            current: self.current.clone(),
        }
    }
}

/// The changes of one transaction in one table; never none.
#[derive(Debug)]
pub(crate) struct RowChanges<R> {
    /// The transaction's revision.
    pub(crate) revision: u64,
    /// In order.
    pub(crate) changes: Vec<RowChange<R>>,
}
#[cfg(test)]
mod tests;
