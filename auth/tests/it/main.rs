//! The control plane as its callers see it: started for real on a temporary directory, driven over gRPC.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

mod audit;
mod backup;
mod configs;
mod diagnoses;
mod discovery;
mod factors;
mod fuzz;
mod health;
mod house;
mod inventory;
mod joining;
mod locks;
mod logins;
mod people;
mod planning;
mod presence;
mod queries;
mod requests;
mod rotation;
mod rules;
mod serving;
mod sharing;
mod statuses;
