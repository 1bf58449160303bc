//! The MySQL client/server protocol as a proxy needs it.
//!
//! - [`packet`]: packets, messages of several packets, and the [`packet::Scanner`] that watches a stream in passing.
//! - [`capability`]: what two sides of a connection agree on.
//! - [`handshake`]: the server's greeting, the client's request for TLS and its answer, and challenges.
//! - [`reply`]: OK, ERR and EOF.
//! - [`command`]: what a client asks for.
//! - [`conversation`]: whose turn it is, from the bytes of both directions.
//!
//! The same must hold here as in the crate: no panic, no allocation beyond a named bound, nothing rewritten in passing.
//!
//! Source: MySQL Server documentation, "Client/Server Protocol"; MariaDB Knowledge Base, "Clientside & Serverside
//! Protocol".

pub mod capability;
pub mod command;
pub mod conversation;
pub mod handshake;
pub mod packet;
pub mod reply;

mod codec;

pub use capability::Capabilities;
