//! Sessions, from a client's handshake to their end: what all protocols share, and one module for each.
//!
//! A session goes through `Accepted → Identified → Permitted → Connected → Relaying`, each a type that the step to the
//! next consumes ([`session`]), so nothing is dialled for somebody who was not checked, and nothing is relayed before
//! the database let us in. Wherever it stops, the client is told why in its own protocol, one record is closed, and
//! one cause is counted.
//!
//! Invariant: after start-up, bytes pass as they came in both directions. What is understood of them is a view
//! ([`view`]) for audit and state; nothing is encoded again.
//!
//! Not here: how the client's connection came about ([`crate::tunnel`]), and which roles and locks exist
//! ([`crate::roles`], [`crate::locks`]).

mod admission;
mod ahead;
mod bulk;
mod calls;
mod entry;
mod farewell;
mod flow;
mod identify;
pub(crate) mod mysql;
pub(crate) mod postgres;
mod record;
mod refusals;
mod relay;
mod running;
mod session;
mod terms;
mod upstream;
mod view;

pub(crate) use ahead::Ahead;
pub(crate) use running::{BOUNDARY_GRACE, FINISH_GRACE};
pub(crate) use session::{Engine, Incoming};
pub(crate) use terms::AgentNames;
pub(crate) use upstream::{Connector, Upstream, tune};

use secrecy::SecretString;

/// Whom to log in as at a database.
#[derive(Clone, Debug)]
pub(crate) struct DbLogin {
    /// The database's name for the user.
    pub(crate) user: String,
    /// What proves it; `None` where the database has to trust us.
    pub(crate) password: Option<SecretString>,
}
