//! The used parts of etcd's v3 API, generated from `proto/etcd/*.proto` by `cargo xtask gen`.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic
)]

/// Package `etcdserverpb`: services, requests and answers.
pub(super) mod etcdserverpb {
    include!("gen/etcdserverpb.rs");
}

/// Package `mvccpb`: keys and events.
pub(super) mod mvccpb {
    include!("gen/mvccpb.rs");
}
