//! The control plane: state, certificate authorities, joining, access, the inventory and its discovery ledger, audit.
//!
//! [`AuthService`] serves all of it over gRPC. What it keeps is behind the `store` trait; what is read often is served
//! from memory, fed by a watch. Decisions (what a scan changes, who may call what) are pure functions.
//!
//! Not here: calling AWS, serving databases, relaying connections.

mod access;
mod audit;
mod authority;
mod backup;
mod configs;
mod databases;
mod diagnoses;
mod grpc;
mod health_configs;
mod inventory;
mod keys;
mod ledger;
mod named;
mod presence;
mod record;
mod resources;
mod seal;
mod service;
mod store;

pub use service::{
    AuthError, AuthHandle, AuthService, Node, PRESENCE_LEASE, RETIRE_GRACE_MIN, SCOPE_LEASE,
    Timings,
};
