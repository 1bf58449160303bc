//! Keys of AWS KMS that protect keys of ours: a data key encrypts, KMS encrypts the data key.
//!
//! The encryption context goes with both calls: KMS gives a data key back only to who names the context that it was made
//! for, and `CloudTrail` shows it.
//!
//! Source: AWS KMS API reference, `GenerateDataKey`, `Decrypt`.

use aws_sdk_kms::{Client, primitives::Blob, types::DataKeySpec};
use tidegate_core::Region;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    chain::RoleChain,
    error::{AwsErrorClass, AwsFailure, classify},
    factory::AwsFactory,
    session::SessionTag,
};

/// Bytes of a data key.
pub const DATA_KEY_BYTES: usize = 32;

const GENERATE: &str = "kms:GenerateDataKey";
const DECRYPT: &str = "kms:Decrypt";

/// A data key that was just made. It does not print.
pub struct DataKey {
    /// The key.
    pub plain: Zeroizing<[u8; DATA_KEY_BYTES]>,
    /// The key as KMS encrypted it, to be kept.
    pub wrapped: Vec<u8>,
    /// ARN of the KMS key that encrypted it.
    pub key_arn: String,
}

/// Calls to KMS in one region, as this process itself.
#[derive(Clone, Debug)]
pub struct Kms {
    client: Client,
}

impl Kms {
    /// Calls go out when they are needed, not now.
    pub async fn new(factory: &AwsFactory, region: &Region, session: &SessionTag) -> Self {
        let config = factory.config(&RoleChain::default(), region, session).await;
        Self {
            client: Client::new(&config),
        }
    }

    /// Asks for a data key that the KMS key (its id, ARN or alias) encrypts. Each call gives another one.
    ///
    /// # Errors
    ///
    /// [`AwsFailure`]: what AWS answered.
    pub async fn data_key(
        &self,
        key: &str,
        context: &[(&str, String)],
    ) -> Result<DataKey, AwsFailure> {
        let mut call = self
            .client
            .generate_data_key()
            .key_id(key)
            .key_spec(DataKeySpec::Aes256);
        for (name, value) in context {
            call = call.encryption_context(*name, value);
        }
        let answer = call
            .send()
            .await
            .map_err(|error| classify(GENERATE, error))?;
        let missing = |what: &str| malformed(GENERATE, what);
        Ok(DataKey {
            plain: key_bytes(GENERATE, answer.plaintext)?,
            wrapped: answer
                .ciphertext_blob
                .ok_or_else(|| missing("CiphertextBlob"))?
                .into_inner(),
            key_arn: answer.key_id.ok_or_else(|| missing("KeyId"))?,
        })
    }

    /// Asks for the data key that a KMS key encrypted for this context.
    ///
    /// # Errors
    ///
    /// [`AwsFailure`]: what AWS answered; `InvalidRequest` when it was encrypted with another key or for another context.
    pub async fn decrypt(
        &self,
        key_arn: &str,
        wrapped: &[u8],
        context: &[(&str, String)],
    ) -> Result<Zeroizing<[u8; DATA_KEY_BYTES]>, AwsFailure> {
        let mut call = self
            .client
            .decrypt()
            .key_id(key_arn)
            .ciphertext_blob(Blob::new(wrapped));
        for (name, value) in context {
            call = call.encryption_context(*name, value);
        }
        let answer = call
            .send()
            .await
            .map_err(|error| classify(DECRYPT, error))?;
        key_bytes(DECRYPT, answer.plaintext)
    }
}

fn key_bytes(
    action: &'static str,
    plain: Option<Blob>,
) -> Result<Zeroizing<[u8; DATA_KEY_BYTES]>, AwsFailure> {
    let mut plain = plain
        .ok_or_else(|| malformed(action, "Plaintext"))?
        .into_inner();
    let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
    let fits = plain.len() == DATA_KEY_BYTES;
    if fits {
        key.copy_from_slice(&plain);
    }
    plain.zeroize();
    if fits {
        Ok(key)
    } else {
        Err(malformed(action, "a Plaintext of 32 bytes"))
    }
}

fn malformed(action: &'static str, what: &str) -> AwsFailure {
    AwsFailure::new(
        AwsErrorClass::Malformed,
        action,
        format!("answer without {what}"),
    )
}
