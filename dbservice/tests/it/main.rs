//! The agent as a whole, against a control plane, a proxy and a database that do what a test tells them.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod agent;
mod health;
mod locks;
mod plane;
mod sessions;
mod sources;
mod world;
