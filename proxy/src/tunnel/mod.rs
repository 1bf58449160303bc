//! The proxy's side of agents' control connections, and the connections that they dial back.
//!
//! - [`agents`]: who is connected now.
//! - [`dials`]: sessions that wait for a connection from an agent.
//! - [`service`]: the gRPC service over which agents are asked.
//!
//! Invariant: a token is good for one connection, for as long as its session waits, and for the agent that got it.

pub(crate) mod agents;
pub(crate) mod dials;
pub(crate) mod service;
