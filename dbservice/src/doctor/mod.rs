//! The doctor: walks the way of a session from an agent to a database, step by step, and says where it ends and why.
//!
//! It goes the way that sessions go, with their code, and does on it nothing that a session does not do: it logs in, asks
//! `SELECT 1`, and hangs up. What it is told by AWS it asks anew: nothing that the agent keeps is used.
//!
//! Invariant: a diagnosis holds no secret, and no step is taken behind one that failed.
//!
//! Not here: what a diagnosis is ([`tidegate_core::doctor`]), and who may ask for one (the auth service).

mod handshake;
mod network;
mod own;
mod serving;
mod shown;
