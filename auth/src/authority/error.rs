//! Why the cluster's CAs cannot be used or rotated.

use tidegate_identity::{CaKind, IdentityError};

use super::rotation::{NotNext, Phase};
use crate::{
    record::RecordError,
    seal::SealError,
    store::{CommitError, StoreUnavailable},
};

/// Why the cluster's authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// They could not be stored.
    #[error("cannot store the {what}")]
    Commit {
        /// What was new.
        what: &'static str,
        /// Why not.
        source: CommitError,
    },
    /// The state belongs to a cluster of another name.
    #[error(
        "the state is of cluster `{stored}`, and the configuration says `{configured}`: the name cannot change"
    )]
    Cluster {
        /// As stored.
        stored: String,
        /// As configured.
        configured: String,
    },
    /// A certificate or key cannot be made or read.
    #[error("cannot make or read the {ca} CA")]
    Identity {
        /// Which.
        ca: &'static str,
        /// Why.
        source: IdentityError,
    },
    /// What keys are encrypted with cannot be used.
    #[error("cannot use what `auth_service.ca_key_params` names")]
    Keyring(#[source] SealError),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A key is encrypted, and nothing to decrypt it with is configured.
    #[error(
        "the private key of the {ca} CA is encrypted with {scheme} key `{key_id}`: set `auth_service.ca_key_params` to \
         that key, as it was set when the state was written"
    )]
    Sealed {
        /// Which CA.
        ca: &'static str,
        /// What kind of key.
        scheme: String,
        /// Which key.
        key_id: String,
    },
    /// A key cannot be encrypted or decrypted.
    #[error("cannot encrypt or decrypt the private key of the {ca} CA")]
    Seal {
        /// Which.
        ca: &'static str,
        /// Why.
        source: SealError,
    },
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

impl AuthorityError {
    pub(super) const fn identity(kind: CaKind) -> impl FnOnce(IdentityError) -> Self + Copy {
        move |source| Self::Identity {
            ca: kind.as_str(),
            source,
        }
    }

    pub(super) const fn seal(kind: CaKind) -> impl FnOnce(SealError) -> Self {
        move |source| Self::Seal {
            ca: kind.as_str(),
            source,
        }
    }
}

/// Why CAs were not moved to another phase.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    /// The keys cannot be made, read or kept.
    #[error("the CAs cannot be rotated now")]
    Authority(#[source] Box<AuthorityError>),
    /// Somebody else moved them again and again.
    #[error("the CAs were moved at the same time: look at their phases, and try again")]
    Conflict,
    /// The phase does not follow.
    #[error("{ca} CA: {why}")]
    NotNext {
        /// Which.
        ca: &'static str,
        /// Which phases would.
        why: NotNext,
    },
    /// A rotation cannot be started while one is under way.
    #[error(
        "a rotation of the {ca} CA is under way, in phase `{phase}`: go on with a phase, or go back with `rollback`"
    )]
    UnderWay {
        /// Which.
        ca: &'static str,
        /// Where it is.
        phase: Phase,
    },
}

impl From<AuthorityError> for RotateError {
    fn from(error: AuthorityError) -> Self {
        Self::Authority(error.into())
    }
}
