//! The ways in which keys and certificates fail.

/// Why a key, certificate or TLS configuration cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A certificate could not be made.
    #[error("could not make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// The bytes are no certificate of this cluster.
    #[error("not a usable certificate: {0}")]
    Malformed(String),
    /// A PEM text does not hold what it should.
    #[error("no {what} in the PEM text")]
    Pem {
        /// What was looked for.
        what: &'static str,
    },
    /// What is encrypted was encrypted with another key or for another purpose, or was changed.
    #[error("the key cannot be {0}: the wrong sealing key, or the record was changed")]
    Sealing(&'static str),
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    Random,
    /// The system's trusted roots cannot be read.
    #[error("could not read the system's trusted certificates: {0}")]
    SystemRoots(String),
    /// A TLS configuration could not be built.
    #[error("could not configure TLS")]
    Tls(#[source] rustls::Error),
}

impl From<rcgen::Error> for IdentityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error)
    }
}

impl From<rustls::Error> for IdentityError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}
