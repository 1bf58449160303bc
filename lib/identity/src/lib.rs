//! Who is who: keys, certificate authorities, certificates, TLS configurations, pins and secrets.
//!
//! A certificate carries its holder's identity twice: as a URI name `spiffe://<cluster>/<kind>/<name>` for people and
//! other software, and in one private extension that holds a protobuf [`tidegate_proto::v1::Identity`] for us.
//! Time comes in as an argument; there are no sockets here.
//!
//! Not here: how certificates are asked for and renewed (`tidegate-service::host`), who may have one (`tidegate-auth`).

mod ca;
mod certs;
mod error;
mod keys;
mod peer;
mod pin;
mod sealing;
pub mod secret;
pub mod tls;

use std::time::Duration;

pub use ca::{CaKind, CertificateAuthority, HostLeaf, Issued, UserLeaf};
pub use certs::CertificateFacts;
pub use error::IdentityError;
pub use keys::KeyPair;
pub use peer::{Holder, HostHolder, PeerIdentity, Route, UserHolder};
pub use pin::CaPin;
pub use sealing::{KeyFileError, SEALING_KEY_BYTES, SealingKey};

/// ALPN name of gRPC to the auth service; a proxy relays such connections without opening them.
pub const ALPN_AUTH: &[u8] = b"tidegate-auth";
/// ALPN name of an agent's control connection to a proxy.
pub const ALPN_TUNNEL: &[u8] = b"tidegate-tunnel";
/// ALPN name of PostgreSQL over direct TLS (IANA registry of ALPN protocol ids).
pub const ALPN_POSTGRES: &[u8] = b"postgresql";
/// ALPN name of MySQL inside TLS from the first byte, as `tg` speaks it; MySQL's own clients send none.
pub const ALPN_MYSQL: &[u8] = b"tidegate-mysql";
/// ALPN name of HTTP/1.1.
pub const ALPN_HTTP11: &[u8] = b"http/1.1";
/// ALPN name of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";

/// The DNS name that every auth service's certificate carries, whatever address it is reached by.
pub const SERVER_NAME_AUTH: &str = "auth.tidegate.internal";
/// The DNS name that every proxy's certificate carries.
pub const SERVER_NAME_PROXY: &str = "proxy.tidegate.internal";

/// Life of a host certificate and of what an agent shows to clients.
pub const HOST_CERT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a user certificate.
pub const USER_CERT_TTL_MAX: Duration = Duration::from_secs(12 * 3600);
/// Life of a certificate authority.
pub const CA_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far before the present a certificate starts to be valid, for clocks that run behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
