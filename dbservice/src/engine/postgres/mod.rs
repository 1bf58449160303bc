//! PostgreSQL, and Redshift's dialect of it.
//!
//! Not here: what sessions of all protocols share ([`super`]).

mod cancel;
mod cancelling;
mod entry;
mod first;
mod login;
mod login_failed;
mod scram;
mod session;
#[cfg(test)]
pub(super) mod session_tests;
mod upstream_login;
mod view;
mod words;

pub(crate) use cancel::CancelRegistry;
pub(crate) use cancelling::cancel;
pub(crate) use scram::ScramKeys;
pub(crate) use session::serve;
pub(crate) use upstream_login::{LoginFailure, log_in};
#[cfg(test)]
pub(crate) use view::PostgresView;
pub(crate) use words::fatal;
