//! The PostgreSQL and MySQL wire protocols as a proxy needs them, and the peek at a TLS ClientHello that routes.
//!
//! Everything here takes bytes and gives values, or takes values and gives bytes: no sockets, no
//! clock, no async. What must hold: no input makes a parser panic, allocate more than a named
//! bound, or read past a declared length; and nothing here rewrites bytes that pass through, since
//! drivers disagree about details that only the two ends understand.
//!
//! - [`startup`]: the untagged first messages of a connection.
//! - [`frame`]: tagged messages, and the [`frame::Scanner`] that watches a stream in passing.
//! - [`backend`], [`frontend`]: the messages that a proxy says or has to understand itself.
//! - [`mysql`]: the same for MySQL's protocol.
//! - [`hello`], [`route`]: which database a TLS connection asks for, before any key is known.
//! - [`proxy_header`]: where a balancer says that a client is.
//! - [`sql`]: statements without their secrets, for whoever writes them down.
//!
//! Not here: SCRAM and MD5 computations, sockets and TLS sessions, and who may do what.
//!
//! Source: PostgreSQL manual, "Frontend/Backend Protocol", versions 3.0 and 3.2.

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod hello;
pub mod mysql;
pub mod proxy_header;
pub mod route;
pub mod sql;
pub mod sqlstate;
pub mod startup;

mod read;
mod secret;
mod write;

pub use secret::SecretFrame;
pub use sqlstate::SqlState;
