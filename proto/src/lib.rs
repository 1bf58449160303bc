//! The gRPC contract `tidegate.v1`: generated code (checked in) and conversion to and from core types.
//!
//! The contract itself is in `proto/tidegate/v1/*.proto`; `cargo xtask gen` makes [`v1`] and [`DESCRIPTOR`] from it.
//! What arrives over the wire is checked here once, field by field: past [`convert`] values cannot be wrong.

pub mod announce;
pub mod audit;
pub mod codec;
pub mod convert;
pub mod scopes;

/// Messages, clients and servers of the contract.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("gen/tidegate.v1.rs");
}

pub use convert::Invalid;

/// All of the contract as an encoded `FileDescriptorSet`, for server reflection and for tests that walk every method.
pub const DESCRIPTOR: &[u8] = include_bytes!("gen/descriptor.bin");
