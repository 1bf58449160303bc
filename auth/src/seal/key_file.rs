//! Keys in files on the auth hosts.

use std::{io::ErrorKind, path::Path};

use futures::future::{self, BoxFuture, FutureExt as _};
use secrecy::{ExposeSecret as _, SecretString};
use tidegate_identity::{IdentityError, KeyFileError, SealingKey};

use super::{SealContext, SealError, SealedRecord, Sealer};

/// A file with a key.
pub(super) struct KeyFile(SealingKey);

impl KeyFile {
    /// Reads the file, or makes it when there is none and it may be made.
    pub(super) fn open(path: &Path, may_make: bool) -> Result<Self, KeyFileError> {
        match SealingKey::read(path) {
            Err(KeyFileError::File { source, .. })
                if may_make && source.kind() == ErrorKind::NotFound =>
            {
                let made = SealingKey::create(path)?;
                tracing::warn!(
                    file = %path.display(),
                    key.id = made.id(),
                    "made a key file that encrypts the CA keys: keep a copy of it apart from backups of the state, \
                     and give it to every auth instance"
                );
                Ok(Self(made))
            }
            read => Ok(Self(read?)),
        }
    }

    fn failed(&self, source: IdentityError) -> SealError {
        SealError::Identity {
            scheme: self.scheme().to_owned(),
            key_id: self.key_id().to_owned(),
            source,
        }
    }
}

impl Sealer for KeyFile {
    fn scheme(&self) -> &'static str {
        "key_file"
    }

    fn key_id(&self) -> &str {
        self.0.id()
    }

    fn seal<'s>(
        &'s self,
        plain: &'s SecretString,
        context: &'s SealContext,
    ) -> BoxFuture<'s, Result<SealedRecord, SealError>> {
        let context = context.bytes(self.key_id());
        let sealed = self.0.seal(plain.expose_secret(), &context);
        let record = sealed.map(|ciphertext| SealedRecord {
            scheme: self.scheme().to_owned(),
            key_id: self.key_id().to_owned(),
            wrapped_key: Vec::new(),
            ciphertext,
        });
        future::ready(record.map_err(|error| self.failed(error))).boxed()
    }

    fn open<'s>(
        &'s self,
        sealed: &'s SealedRecord,
        context: &'s SealContext,
    ) -> BoxFuture<'s, Result<SecretString, SealError>> {
        let context = context.bytes(self.key_id());
        let opened = self.0.open(&sealed.ciphertext, &context);
        future::ready(opened.map_err(|error| self.failed(error))).boxed()
    }
}
