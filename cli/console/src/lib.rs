//! What `tg` and `tgctl` share: tables and documents for output, failures told as one line and a hint, resources in the
//! shape that people know, what discovery does and why, the profile that a login leaves on disk, and the way to the auth
//! service.
//!
//! What a server said about a stranger's resource (a tag, a description) never reaches a terminal raw: tables print
//! control characters visibly.
//!
//! Not here: what any one command does.

pub mod client;
pub mod discovery;
pub mod failure;
pub mod inventory;
pub mod labels;
pub mod login;
pub mod output;
pub mod profile;
pub mod program;
pub mod request;
pub mod resolve;
pub mod resource;
pub mod rpc;
pub mod secret;
pub mod shell;
pub mod table;
pub mod when;

pub use failure::{Exit, Failure};
pub use output::{Format, Output};
pub use table::Table;
