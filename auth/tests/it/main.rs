//! The control plane as its callers see it: started for real on a temporary directory, driven over gRPC.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

mod configs;
mod discovery;
mod house;
mod inventory;
mod joining;
mod locks;
mod people;
mod planning;
mod presence;
mod rules;
mod serving;
mod sharing;
mod statuses;
