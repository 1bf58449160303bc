//! What the programs rely on, with real sockets on the loopback: gRPC over the cluster's TLS, joining and renewing,
//! and the diagnostics port.

#![allow(clippy::unwrap_used)] // helpers of tests are not recognised as tests

mod admin;
mod cluster;
mod host;
mod joining;
mod rpc;
