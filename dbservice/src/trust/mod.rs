//! Whom an agent believes that a database is: which CAs may have signed its certificate.
//!
//! [`TrustSource`] decides by what the database is, [`Bundles`] holds what AWS publishes and keeps it fresh, [`Trust`]
//! makes TLS configurations of both, and [`handshake_problem`] says what a certificate that nobody signed means.
//!
//! Invariant: a certificate is verified with CAs that the operator, the system, this program or AWS over verified TLS
//! named; what a network in between sends is never taken up ([`accept`]).
//!
//! Not here: the connection itself ([`crate::engine`]); when the certificate that a database showed ends, which
//! [`tidegate_identity::CertificateFacts::of_peer`] tells after a handshake.

mod accept;
mod anchors;
mod bundles;
mod download;
mod exchange;
mod files;
mod problem;
mod source;
mod tls;

pub(crate) use problem::{handshake_problem, is_unknown_issuer};
pub(crate) use tls::{Trust, Trusted};

#[cfg(test)]
mod tests;
