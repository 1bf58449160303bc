//! Encrypting the private keys that the store keeps.
//!
//! What was encrypted says with which key, so that a change of keys is a configuration with two of them: the first
//! encrypts, all decrypt. Each ciphertext is bound to its cluster, kind of CA and CA: moved elsewhere it does not open.
//!
//! Invariant: plain keys are in memory alone, in types that are wiped and do not print.

mod aws_kms;
mod key_file;

use std::sync::Arc;

use futures::future::BoxFuture;
use prost::Message;
use secrecy::SecretString;
use tidegate_aws::{AwsFactory, AwsFailure, SessionTag, kms::Kms};
use tidegate_core::{ClusterName, InvalidId};
use tidegate_identity::{CaKind, CaPin, IdentityError, KeyFileError};
use tidegate_service::settings::{CaKey, CaKeySettings};

use aws_kms::KmsKey;
use key_file::KeyFile;

/// How calls to KMS are named where a role is assumed for them.
const SESSION: &str = "tidegate-auth";

/// Something encrypted, as it is stored.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SealedRecord {
    /// What kind of key encrypted it: [`Sealer::scheme`].
    #[prost(string, tag = "1")]
    pub(crate) scheme: String,
    /// Which of them: [`Sealer::key_id`].
    #[prost(string, tag = "2")]
    pub(crate) key_id: String,
    /// The key of this record alone, encrypted with that key; empty when it encrypted the record itself.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) wrapped_key: Vec<u8>,
    /// Nonce, ciphertext and tag.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) ciphertext: Vec<u8>,
}

/// What something encrypted is bound to.
#[derive(Clone, Debug)]
pub(crate) struct SealContext {
    /// The cluster.
    pub(crate) cluster: ClusterName,
    /// What the CA signs.
    pub(crate) kind: CaKind,
    /// The CA.
    pub(crate) pin: CaPin,
}

impl SealContext {
    /// As the encryption context of KMS.
    fn pairs(&self) -> [(&'static str, String); 3] {
        [
            ("tidegate:cluster", self.cluster.to_string()),
            ("tidegate:ca", self.kind.as_str().to_owned()),
            ("tidegate:pin", self.pin.to_string()),
        ]
    }

    /// As associated data of a ciphertext. Neither part holds a line break.
    fn bytes(&self, key_id: &str) -> Vec<u8> {
        let Self { cluster, kind, pin } = self;
        let kind = kind.as_str();
        format!("tidegate ca key v1\n{cluster}\n{kind}\n{pin}\n{key_id}").into_bytes()
    }
}

/// Why something could not be encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// The region of a KMS key is none.
    #[error("the region of AWS KMS key `{key}` cannot be used")]
    Region {
        /// The key.
        key: String,
        /// Why not.
        source: InvalidId,
    },
    /// A key file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// It was encrypted with another key than it says, for something else, or was changed.
    #[error("what {scheme} key `{key_id}` encrypted does not open")]
    Identity {
        /// What kind of key.
        scheme: String,
        /// Which.
        key_id: String,
        /// What was found.
        source: IdentityError,
    },
    /// KMS did not do it.
    #[error(
        "AWS KMS key `{key}` cannot be used: the auth service's own AWS identity needs kms:GenerateDataKey and \
         kms:Decrypt on it"
    )]
    Kms {
        /// The key.
        key: String,
        /// What AWS said.
        source: AwsFailure,
    },
    /// There is no such key here.
    #[error(
        "it is encrypted with {scheme} key `{key_id}`, and `auth_service.ca_key_params` names {have}: add that key, or \
         put it under `previous`"
    )]
    Missing {
        /// What kind of key.
        scheme: String,
        /// Which.
        key_id: String,
        /// What is configured.
        have: String,
    },
}

impl SealError {
    fn kms(key: &str, source: AwsFailure) -> Self {
        Self::Kms {
            key: key.to_owned(),
            source,
        }
    }
}

/// One key that encrypts keys.
pub(crate) trait Sealer: Send + Sync {
    /// `key_file`, `aws_kms`.
    fn scheme(&self) -> &'static str;

    /// Names the key to an operator.
    fn key_id(&self) -> &str;

    /// Whether it encrypted this.
    fn has_sealed(&self, sealed: &SealedRecord) -> bool {
        sealed.scheme == self.scheme() && sealed.key_id == self.key_id()
    }

    /// Encrypts.
    fn seal<'s>(
        &'s self,
        plain: &'s SecretString,
        context: &'s SealContext,
    ) -> BoxFuture<'s, Result<SealedRecord, SealError>>;

    /// Decrypts what it encrypted.
    fn open<'s>(
        &'s self,
        sealed: &'s SealedRecord,
        context: &'s SealContext,
    ) -> BoxFuture<'s, Result<SecretString, SealError>>;
}

/// The keys that are configured. Clones are the same.
#[derive(Clone)]
pub(crate) struct Keyring {
    /// The first one encrypts.
    sealers: Arc<[Box<dyn Sealer>]>,
}

impl Keyring {
    /// Opens what the configuration names. A file that is not there is made, where `may_make` says so: when there is
    /// nothing yet that another file encrypted.
    ///
    /// # Errors
    ///
    /// [`SealError`].
    pub(crate) async fn open(settings: &CaKeySettings, may_make: bool) -> Result<Self, SealError> {
        let mut sealers = vec![sealer(&settings.seal, may_make).await?];
        for key in &settings.previous {
            sealers.push(sealer(key, false).await?);
        }
        Ok(Self {
            sealers: sealers.into(),
        })
    }

    /// Whether the key that encrypts now encrypted this.
    pub(crate) fn is_current(&self, sealed: &SealedRecord) -> bool {
        self.sealers[0].has_sealed(sealed)
    }

    /// Encrypts with the first key.
    pub(crate) async fn seal(
        &self,
        plain: &SecretString,
        context: &SealContext,
    ) -> Result<SealedRecord, SealError> {
        self.sealers[0].seal(plain, context).await
    }

    /// Decrypts with the key that encrypted it.
    pub(crate) async fn unseal(
        &self,
        sealed: &SealedRecord,
        context: &SealContext,
    ) -> Result<SecretString, SealError> {
        match self.sealers.iter().find(|sealer| sealer.has_sealed(sealed)) {
            Some(sealer) => sealer.open(sealed, context).await,
            None => Err(SealError::Missing {
                scheme: sealed.scheme.clone(),
                key_id: sealed.key_id.clone(),
                have: self.names(),
            }),
        }
    }

    fn names(&self) -> String {
        let sealers = self.sealers.iter();
        let names: Vec<String> = sealers
            .map(|sealer| format!("{} `{}`", sealer.scheme(), sealer.key_id()))
            .collect();
        names.join(", ")
    }
}

async fn sealer(key: &CaKey, may_make: bool) -> Result<Box<dyn Sealer>, SealError> {
    match key {
        CaKey::AwsKms { key, region } => {
            let of_key = |source| SealError::Region {
                key: key.clone(),
                source,
            };
            let place = region.parse().map_err(of_key)?;
            let factory = AwsFactory::load().await;
            let kms = Kms::new(&factory, &place, &SessionTag::new(SESSION)).await;
            Ok(Box::new(KmsKey::new(kms, key.clone(), region.clone())))
        }
        CaKey::File(path) => Ok(Box::new(KeyFile::open(path, may_make)?)),
    }
}
