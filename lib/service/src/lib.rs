//! What every Tidegate program needs: settings, telemetry, metrics, the admin port, supervised tasks, shutdown, the
//! clock, TCP connections for bulk, gRPC over the cluster's TLS, the process's own identity in the cluster, HTTP requests beside the SDK of AWS, and
//! backup files.
//!
//! Not here: what any one service does.

pub mod admin;
pub mod backup;
pub mod clock;
pub mod gather;
pub mod handover;
pub mod host;
pub mod https;
pub mod metrics;
pub mod rpc;
pub mod settings;
pub mod tasks;
pub mod telemetry;
