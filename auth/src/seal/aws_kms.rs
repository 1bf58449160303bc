//! Keys of AWS KMS: each record has a data key of its own, which KMS encrypts.

use futures::future::{BoxFuture, FutureExt as _};
use secrecy::{ExposeSecret as _, SecretString};
use tidegate_aws::kms::Kms;
use tidegate_identity::{IdentityError, SealingKey};

use super::{SealContext, SealError, SealedRecord, Sealer};

const SCHEME: &str = "aws_kms";

/// A key of KMS.
pub(super) struct KmsKey {
    kms: Kms,
    /// As configured: id, ARN or alias.
    key: String,
    region: String,
}

impl KmsKey {
    pub(super) const fn new(kms: Kms, key: String, region: String) -> Self {
        Self { kms, key, region }
    }

    async fn encrypt(
        &self,
        plain: &SecretString,
        context: &SealContext,
    ) -> Result<SealedRecord, SealError> {
        let failed = |source| SealError::kms(&self.key, source);
        let data_key = self.kms.data_key(&self.key, &context.pairs()).await;
        let data_key = data_key.map_err(failed)?;
        let sealed = SealingKey::from_bytes(data_key.plain)
            .seal(plain.expose_secret(), &context.bytes(&data_key.key_arn));
        match sealed {
            Ok(ciphertext) => Ok(SealedRecord {
                scheme: SCHEME.to_owned(),
                key_id: data_key.key_arn,
                wrapped_key: data_key.wrapped,
                ciphertext,
            }),
            Err(source) => Err(does_not_open(data_key.key_arn, source)),
        }
    }

    async fn decrypt(
        &self,
        sealed: &SealedRecord,
        context: &SealContext,
    ) -> Result<SecretString, SealError> {
        let key_arn = &sealed.key_id;
        let data_key = self
            .kms
            .decrypt(key_arn, &sealed.wrapped_key, &context.pairs())
            .await
            .map_err(|source| SealError::kms(key_arn, source))?;
        SealingKey::from_bytes(data_key)
            .open(&sealed.ciphertext, &context.bytes(key_arn))
            .map_err(|source| does_not_open(key_arn.clone(), source))
    }
}

fn does_not_open(key_id: String, source: IdentityError) -> SealError {
    SealError::Identity {
        scheme: SCHEME.to_owned(),
        key_id,
        source,
    }
}

impl Sealer for KmsKey {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    fn key_id(&self) -> &str {
        &self.key
    }

    /// By the key's ARN. What an alias stands for only KMS knows: any key of the region may be meant, and KMS says which it
    /// was when it is not this one.
    fn has_sealed(&self, sealed: &SealedRecord) -> bool {
        let arn = &sealed.key_id;
        let is_alias = self.key.contains("alias/");
        let of_region = arn.split(':').nth(3) == Some(self.region.as_str());
        let same = *arn == self.key || arn.rsplit('/').next() == Some(self.key.as_str());
        sealed.scheme == SCHEME && (same || (is_alias && of_region))
    }

    fn seal<'s>(
        &'s self,
        plain: &'s SecretString,
        context: &'s SealContext,
    ) -> BoxFuture<'s, Result<SealedRecord, SealError>> {
        self.encrypt(plain, context).boxed()
    }

    fn open<'s>(
        &'s self,
        sealed: &'s SealedRecord,
        context: &'s SealContext,
    ) -> BoxFuture<'s, Result<SecretString, SealError>> {
        self.decrypt(sealed, context).boxed()
    }
}
