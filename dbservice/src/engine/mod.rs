//! What is spoken with databases, one module a protocol.

pub(crate) mod postgres;
