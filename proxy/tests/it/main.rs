//! The proxy over real sockets and real TLS, between scripted agents, clients and a scripted control plane.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod agent;
mod client;
mod control;
mod fleet;
mod mysql;
mod refusals;
mod sessions;
mod world;
