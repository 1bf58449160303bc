//! PostgreSQL, and Redshift's dialect of it: one session from a client's handshake to its end.
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
mod cancel;
mod cancelling;
mod farewell;
mod first;
mod identify;
mod login;
mod record;
mod refusals;
mod relay;
mod running;
mod session;
#[cfg(test)]
mod session_tests;
mod terms;
mod upstream;
mod upstream_login;
mod upstream_tls;
mod view;

pub(crate) use ahead::Ahead;
pub(crate) use cancel::CancelRegistry;
pub(crate) use cancelling::cancel;
pub(crate) use running::{BOUNDARY_GRACE, DRAIN_GRACE};
pub(crate) use session::{Engine, Incoming, serve};
pub(crate) use terms::AgentNames;
pub(crate) use upstream::{Connector, Upstream, tune};
pub(crate) use upstream_login::DbLogin;
