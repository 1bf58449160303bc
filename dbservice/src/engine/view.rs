//! What is understood of a running session, from the bytes that pass by.
//!
//! Each protocol has its own view, which keeps the state that the agent acts on (does a statement run, is there a
//! transaction, may a message of ours go in here) and the counts that audit wants. Bulk data is skipped by length.
//! Pure: bytes in, state out.

use std::sync::{Arc, atomic::AtomicU64};

use bytes::Bytes;
use tidegate_core::Problem;
use tidegate_wire::SqlState;

use crate::audit::Kind;

/// The most of a statement that is audited.
pub(crate) const STATEMENT_BYTES_MAX: usize = 4096;

/// A statement that a client sent, or a command that is audited like one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement<'s> {
    /// What it is to audit.
    pub(crate) kind: Kind,
    /// Its text, as far as it is audited; empty for a command without one.
    pub(crate) text: &'s str,
    /// Whether the text went on.
    pub(crate) truncated: bool,
    /// Bytes of the message's body.
    pub(crate) body_bytes: usize,
    /// The name under which it was prepared; `None` for the simple protocol.
    pub(crate) prepared_as: Option<&'s str>,
    /// What else is audited of it: a name and its value.
    pub(crate) fact: Option<(&'static str, String)>,
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Bytes from client to database.
    pub(crate) client_bytes: u64,
    /// Bytes from database to client.
    pub(crate) database_bytes: u64,
    /// Rows to the client.
    pub(crate) rows: u64,
    /// Statements that were sent or prepared.
    pub(crate) statements: u64,
    /// Errors from the database.
    pub(crate) errors: u64,
}

/// Why bytes of a client may not go on.
#[derive(Debug)]
pub(crate) enum Objection {
    /// They are no sequence of messages any more.
    Malformed(Malformed),
    /// They ask for what is not done here; the client is told the problem.
    Refused(Box<Problem>),
}

/// Why bytes are no sequence of messages any more.
pub(crate) type Malformed = Box<dyn std::error::Error + Send + Sync>;

/// The state of one session, as its bytes show it.
pub(crate) trait View: std::fmt::Debug + Send {
    /// How many bytes the client sent so far, for whoever watches its silence.
    fn heard(&self) -> Arc<AtomicU64>;

    /// Looks at bytes on their way to the database.
    ///
    /// # Errors
    ///
    /// An [`Objection`]: none of these bytes may be sent then.
    fn sent_by_client(
        &mut self,
        bytes: &[u8],
        on_statement: impl FnMut(Statement<'_>),
    ) -> Result<(), Objection>;

    /// Looks at bytes on their way to the client.
    ///
    /// # Errors
    ///
    /// When the database's stream is no sequence of messages any more.
    fn sent_by_database(&mut self, bytes: &[u8]) -> Result<(), Malformed>;

    /// What went through so far.
    fn counts(&self) -> Counts;

    /// Whether nothing runs, and ending now loses no transaction.
    fn is_idle(&self) -> bool;

    /// Whether a message of ours may go to the client here.
    fn may_speak_to_client(&self) -> bool;

    /// Whether a message of ours may go to the database here.
    fn may_speak_to_database(&self) -> bool;

    /// Whether the client said that it leaves.
    fn client_said_goodbye(&self) -> bool;

    /// Whether the database told the client itself that the session is over.
    fn database_gave_up(&self) -> bool;

    /// Our last words to the client, where [`Self::may_speak_to_client`] says that they may go.
    fn last_words(&self, state: SqlState, problem: &Problem) -> Bytes;

    /// A goodbye to the database.
    fn goodbye(&self) -> Bytes;
}
