//! Why a process has no identity.

use std::{io, path::PathBuf};

use tidegate_identity::IdentityError;

/// Why a process could not get, keep or use its identity. Each needs the operator, except [`HostError::Stopped`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The auth service answered with something that cannot be used.
    #[error("the auth service's answer cannot be used: {problem}")]
    Answer {
        /// What is wrong with it.
        problem: String,
    },
    /// A key, certificate or TLS configuration cannot be made or used.
    #[error("could not set up the host identity")]
    Identity(#[from] IdentityError),
    /// There is nobody to join with.
    #[error("could not join the cluster ({reason}): set `auth_server` or `proxy_server`")]
    NoAddress {
        /// Why it has to join.
        reason: String,
    },
    /// No process on this host keeps an identity that can be used.
    #[error("no process keeps an identity in `{}`: {why}", path.display())]
    NoIdentity {
        /// The data directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing signs for the process's AWS identity.
    #[error("could not join the cluster: this program cannot join by `iam`")]
    NoProver,
    /// There is no token to join with.
    #[error(
        "could not join the cluster ({reason}): no join token is set; create one with `tgctl tokens add \
         --type={services}` and set `auth_token` or `join_params.token_name`"
    )]
    NoToken {
        /// Why it has to join.
        reason: String,
        /// What it wants to run, joined by commas.
        services: String,
    },
    /// Nothing verifies that the cluster is the right one.
    #[error(
        "could not join the cluster ({reason}): nothing says which cluster to trust; set `ca_pin` to the pin that \
         `tgctl status` prints, or to a file that holds it"
    )]
    NoTrust {
        /// Why it has to join.
        reason: String,
    },
    /// The auth service said no. Asking again does not help.
    #[error(
        "the auth service refused to let this process join: {message}; check the join token and its types"
    )]
    Refused {
        /// The service's words.
        message: String,
    },
    /// The identity cannot be written or read.
    #[error("could not access `{}`", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The process shuts down.
    #[error("stopped before the process had joined the cluster")]
    Stopped,
    /// Whoever answered at every address is not the cluster that the pin names.
    #[error("{message}; check `ca_pin` and the addresses: `tgctl status` prints the cluster's pin")]
    Untrusted {
        /// Each address with its cause.
        message: String,
    },
}
