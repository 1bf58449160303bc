//! The laboratory: a whole Tidegate on loopback addresses, against the simulated AWS.
//!
//! Real processes, stock clients, a real PostgreSQL behind each cluster. The configuration files are those of
//! `deploy/examples`, with addresses, folders and intervals replaced. Everything that is started is stopped, by its
//! id, when the [`Lab`] goes away, also when a test panics.

pub mod config;
pub mod lab;
pub mod process;
pub mod wait;

pub use lab::{Lab, Part, Person};
pub use process::Process;

/// The world of the demo: two accounts, two regions, five clusters of which three match, and every other kind.
pub const DEMO_WORLD: &str = include_str!("../worlds/demo.json");
