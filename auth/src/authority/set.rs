//! The CAs of one kind in memory: the one there is, or the two of a rotation; and their record.
//!
//! Invariant: there are two exactly while a rotation is under way.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use tidegate_core::ClusterName;
use tidegate_identity::{CaKind, CaPin, CertificateAuthority};
use tidegate_proto::{Invalid, convert, v1};

use super::{
    AuthorityError,
    rotation::{Keys, Mode, Phase, Which},
};
use crate::{
    record::{CaKeyRecord, CaRecord, RecordError, RotationRecord},
    seal::{Keyring, SealContext, SealedRecord},
};

/// Where a rotation is, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub(crate) phase: Phase,
    pub(crate) mode: Mode,
    /// When it began; in standby, the last one.
    pub(crate) started_at: Timestamp,
    /// When the phase began.
    pub(crate) since: Timestamp,
}

/// One CA.
pub(crate) struct Key {
    pub(crate) ca: CertificateAuthority,
    /// Its certificate by the other one; empty when there is no other one.
    cross_pem: String,
    /// How it is stored; `None` is in clear.
    sealed: Option<SealedRecord>,
}

/// What is needed to keep keys, and to make them.
#[derive(Clone)]
pub(crate) struct Keeping {
    pub(crate) cluster: ClusterName,
    /// What they are encrypted with; `None` leaves them in clear.
    pub(crate) keyring: Option<Keyring>,
}

/// The CAs of one kind.
#[derive(Clone)]
pub(crate) struct CaSet {
    pub(crate) kind: CaKind,
    /// Of its record.
    pub(crate) revision: u64,
    /// `None` for one that was never rotated.
    pub(crate) rotation: Option<Rotation>,
    old: Arc<Key>,
    new: Option<Arc<Key>>,
}

impl Keeping {
    fn context(&self, kind: CaKind, pin: CaPin) -> SealContext {
        SealContext {
            cluster: self.cluster.clone(),
            kind,
            pin,
        }
    }

    /// A CA that there was not before, with its key as it will be stored.
    async fn make(&self, kind: CaKind, now: Timestamp) -> Result<Key, AuthorityError> {
        let failed = AuthorityError::identity(kind);
        let ca = CertificateAuthority::create(kind, &self.cluster, now).map_err(failed)?;
        let sealed = self.sealed(kind, &ca).await?;
        tracing::info!(ca = kind.as_str(), pin = %ca.pin(), "made a certificate authority");
        Ok(Key {
            ca,
            cross_pem: String::new(),
            sealed,
        })
    }

    async fn sealed(
        &self,
        kind: CaKind,
        ca: &CertificateAuthority,
    ) -> Result<Option<SealedRecord>, AuthorityError> {
        let Some(keyring) = &self.keyring else {
            return Ok(None);
        };
        let context = self.context(kind, ca.pin());
        let sealed = keyring.seal(&ca.key_pem(), &context).await;
        sealed.map(Some).map_err(AuthorityError::seal(kind))
    }

    /// Reads one CA from its record.
    async fn key(&self, kind: CaKind, record: &CaKeyRecord) -> Result<Key, AuthorityError> {
        let failed = |source| AuthorityError::identity(kind)(source);
        let key_pem = match (&record.sealed, &self.keyring) {
            (None, _) => SecretString::from(record.key_pem.as_str()),
            (Some(sealed), Some(keyring)) => {
                let pin = CaPin::of_pem(&record.cert_pem).map_err(failed)?;
                let context = self.context(kind, pin);
                let opened = keyring.unseal(sealed, &context).await;
                opened.map_err(AuthorityError::seal(kind))?
            }
            (Some(sealed), None) => {
                return Err(AuthorityError::Sealed {
                    ca: kind.as_str(),
                    scheme: sealed.scheme.clone(),
                    key_id: sealed.key_id.clone(),
                });
            }
        };
        Ok(Key {
            ca: CertificateAuthority::from_pem(&record.cert_pem, key_pem.expose_secret())
                .map_err(failed)?,
            cross_pem: record.cross_pem.clone(),
            sealed: record.sealed.clone(),
        })
    }
}

impl CaSet {
    /// One new CA.
    pub(crate) async fn make(
        keeping: &Keeping,
        kind: CaKind,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        Ok(Self {
            kind,
            revision: 0,
            rotation: None,
            old: Arc::new(keeping.make(kind, now).await?),
            new: None,
        })
    }

    /// The same, as it was stored at a revision.
    pub(crate) fn stored_at(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// Those that a record tells of. Those in `known` are not decrypted again.
    pub(crate) async fn read(
        keeping: &Keeping,
        kind: CaKind,
        record: CaRecord,
        revision: u64,
        known: Option<&Self>,
    ) -> Result<Self, AuthorityError> {
        let unusable = |what: &str| RecordError::Unusable {
            key: format!("/ca/{}", kind.as_str()),
            invalid: Invalid::new("keys", what),
        };
        let rotation = record.rotation.as_ref().map(read_rotation).transpose();
        let rotation = rotation.map_err(unusable)?;
        let records = if record.keys.is_empty() {
            vec![CaKeyRecord {
                cert_pem: record.cert_pem,
                key_pem: record.key_pem,
                ..CaKeyRecord::default()
            }]
        } else {
            record.keys
        };
        let known: HashMap<&str, &Arc<Key>> = known
            .into_iter()
            .flat_map(|set| [Some(&set.old), set.new.as_ref()])
            .flatten()
            .map(|key| (key.ca.cert_pem(), key))
            .collect();
        let mut keys = Vec::with_capacity(records.len());
        for record in &records {
            let kept = known.get(record.cert_pem.as_str());
            let kept =
                kept.filter(|key| key.sealed == record.sealed && key.cross_pem == record.cross_pem);
            keys.push(match kept {
                Some(key) => Arc::clone(key),
                None => Arc::new(keeping.key(kind, record).await?),
            });
        }
        let phase = rotation.map_or(Phase::Standby, |rotation: Rotation| rotation.phase);
        let mut keys = keys.into_iter();
        let (old, new, more) = (keys.next(), keys.next(), keys.next());
        match (old, new, more) {
            (Some(old), new, None) if new.is_some() == (phase != Phase::Standby) => Ok(Self {
                kind,
                revision,
                rotation,
                old,
                new,
            }),
            _ => Err(unusable("are not as many as the phase has").into()),
        }
    }

    /// As it is stored.
    pub(crate) fn record(&self) -> CaRecord {
        CaRecord {
            keys: self.keys().into_iter().map(Key::record).collect(),
            rotation: self.rotation.as_ref().map(written_rotation),
            ..CaRecord::default()
        }
    }

    /// The same with its keys as they would be stored now: encrypted with the key that encrypts. `None` when they are.
    pub(crate) async fn sealed(&self, keeping: &Keeping) -> Result<Option<Self>, AuthorityError> {
        let Some(keyring) = &keeping.keyring else {
            return Ok(None);
        };
        let is_current =
            |key: &Key| matches!(&key.sealed, Some(sealed) if keyring.is_current(sealed));
        if self.keys().into_iter().all(is_current) {
            return Ok(None);
        }
        let mut after = self.clone();
        after.old = Arc::new(self.old.sealed_again(keeping, self.kind).await?);
        if let Some(new) = &self.new {
            after.new = Some(Arc::new(new.sealed_again(keeping, self.kind).await?));
        }
        Ok(Some(after))
    }

    /// The same in another phase.
    pub(crate) async fn moved(
        &self,
        keeping: &Keeping,
        keys: Keys,
        rotation: Rotation,
    ) -> Result<Self, AuthorityError> {
        let mut after = Self {
            rotation: Some(rotation),
            ..self.clone()
        };
        match (keys, &self.new) {
            (Keys::Make, _) => {
                // Beside keys that are encrypted nothing is stored in clear.
                if let (Some(sealed), None) = (&self.old.sealed, &keeping.keyring) {
                    return Err(AuthorityError::Sealed {
                        ca: self.kind.as_str(),
                        scheme: sealed.scheme.clone(),
                        key_id: sealed.key_id.clone(),
                    });
                }
                let failed = |source| AuthorityError::identity(self.kind)(source);
                let (old, mut new) = (&self.old, keeping.make(self.kind, rotation.since).await?);
                new.cross_pem = old.ca.cross_sign(&new.ca, rotation.since).map_err(failed)?;
                let old_by_new = new.ca.cross_sign(&old.ca, rotation.since).map_err(failed)?;
                after.old = Arc::new(old.crossed(old_by_new).map_err(failed)?);
                after.new = Some(Arc::new(new));
            }
            (Keys::Stay, _) | (Keys::Leave(_), None) => {}
            (Keys::Leave(which), Some(new)) => {
                let left = match which {
                    Which::Old => &self.old,
                    Which::New => new,
                };
                let failed = AuthorityError::identity(self.kind);
                after.old = Arc::new(left.crossed(String::new()).map_err(failed)?);
                after.new = None;
            }
        }
        Ok(after)
    }

    /// The phase.
    pub(crate) fn phase(&self) -> Phase {
        self.rotation
            .map_or(Phase::Standby, |rotation| rotation.phase)
    }

    /// When a rotation moves on by itself, and to which phase.
    pub(crate) fn due(&self) -> Option<(Timestamp, Phase)> {
        let rotation = self.rotation?;
        rotation.phase.due(rotation.mode, rotation.since)
    }

    /// One of the CAs. Without a rotation there is the old one alone.
    fn key(&self, which: Which) -> &Key {
        match (which, &self.new) {
            (Which::New, Some(new)) => new,
            _ => &self.old,
        }
    }

    /// The CA that signs what clients show.
    pub(crate) fn for_clients(&self) -> &CertificateAuthority {
        &self.key(self.phase().signs_clients()).ca
    }

    /// The CA that signs what servers show.
    pub(crate) fn for_servers(&self) -> &CertificateAuthority {
        &self.key(self.phase().signs_servers()).ca
    }

    /// What follows a server's chain, so that it can be verified by either CA: the certificate of the signer by the other
    /// one, and the other one. Empty when there is no other one.
    pub(crate) fn other_chain(&self) -> String {
        let Some(new) = &self.new else {
            return String::new();
        };
        let (signer, other) = match self.phase().signs_servers() {
            Which::Old => (&self.old, new),
            Which::New => (new, &self.old),
        };
        format!("{}{}", signer.cross_pem, other.ca.cert_pem())
    }

    /// Certificates of those that are trusted, newest first.
    pub(crate) fn trusted_pem(&self) -> String {
        let trusted = self.phase().trusted().iter();
        trusted
            .map(|which| self.key(*which).ca.cert_pem())
            .collect()
    }

    /// Pins of those that are trusted, newest first.
    pub(crate) fn pins(&self) -> Vec<CaPin> {
        let trusted = self.phase().trusted().iter();
        trusted.map(|which| self.key(*which).ca.pin()).collect()
    }

    /// Whether each private key is encrypted in the store.
    pub(crate) fn is_sealed(&self) -> bool {
        self.keys().iter().all(|key| key.sealed.is_some())
    }

    /// Oldest first.
    fn keys(&self) -> Vec<&Key> {
        std::iter::once(&*self.old)
            .chain(self.new.as_deref())
            .collect()
    }

    /// For administrators.
    pub(crate) fn message(&self) -> v1::CertAuthority {
        let phase = self.phase();
        let (clients, servers) = (self.for_clients().pin(), self.for_servers().pin());
        let key = |which: &Which| {
            let key = self.key(*which);
            let pin = key.ca.pin();
            v1::CertAuthorityKey {
                pin: pin.to_string(),
                signs_clients: pin == clients,
                signs_servers: pin == servers,
                expires_at: key.ca.expires_at().ok().map(convert::timestamp),
                sealed_with: key
                    .sealed
                    .as_ref()
                    .map(|sealed| format!("{} {}", sealed.scheme, sealed.key_id))
                    .unwrap_or_default(),
            }
        };
        let active = self.rotation.filter(|_| phase != Phase::Standby);
        let grace = active.and_then(|rotation| match rotation.mode {
            Mode::Automatic(grace) => Some(grace),
            Mode::Manual => None,
        });
        v1::CertAuthority {
            kind: self.kind.as_str().to_owned(),
            phase: phase.message().into(),
            keys: phase.trusted().iter().map(key).collect(),
            automatic: grace.is_some(),
            grace_period: grace.and_then(|grace| prost_types::Duration::try_from(grace).ok()),
            started_at: active.map(|rotation| convert::timestamp(rotation.started_at)),
            phase_since: self
                .rotation
                .map(|rotation| convert::timestamp(rotation.since)),
            next_phase_at: self.due().map(|(at, _)| convert::timestamp(at)),
            next_phases: phase
                .next()
                .iter()
                .map(|next| next.message().into())
                .collect(),
        }
    }
}

impl Key {
    fn record(&self) -> CaKeyRecord {
        CaKeyRecord {
            cert_pem: self.ca.cert_pem().to_owned(),
            key_pem: match &self.sealed {
                Some(_) => String::new(),
                None => self.ca.key_pem().expose_secret().to_owned(),
            },
            sealed: self.sealed.clone(),
            cross_pem: self.cross_pem.clone(),
        }
    }

    fn again(&self) -> Result<CertificateAuthority, tidegate_identity::IdentityError> {
        CertificateAuthority::from_pem(self.ca.cert_pem(), self.ca.key_pem().expose_secret())
    }

    fn crossed(&self, cross_pem: String) -> Result<Self, tidegate_identity::IdentityError> {
        Ok(Self {
            ca: self.again()?,
            cross_pem,
            sealed: self.sealed.clone(),
        })
    }

    async fn sealed_again(&self, keeping: &Keeping, kind: CaKind) -> Result<Self, AuthorityError> {
        Ok(Self {
            ca: self.again().map_err(AuthorityError::identity(kind))?,
            cross_pem: self.cross_pem.clone(),
            sealed: keeping.sealed(kind, &self.ca).await?,
        })
    }
}

fn read_rotation(record: &RotationRecord) -> Result<Rotation, &'static str> {
    let instant = |at: &Option<prost_types::Timestamp>| {
        at.as_ref()
            .and_then(|at| convert::instant(at).ok())
            .ok_or("have a rotation without its times")
    };
    Ok(Rotation {
        phase: Phase::named(&record.phase)
            .ok_or("are in a phase that this program does not know")?,
        mode: match record.grace_seconds {
            0 => Mode::Manual,
            seconds => Mode::Automatic(Duration::from_secs(seconds)),
        },
        started_at: instant(&record.started_at)?,
        since: instant(&record.since)?,
    })
}

fn written_rotation(rotation: &Rotation) -> RotationRecord {
    RotationRecord {
        phase: rotation.phase.as_str().to_owned(),
        grace_seconds: match rotation.mode {
            Mode::Manual => 0,
            Mode::Automatic(grace) => grace.as_secs(),
        },
        started_at: Some(convert::timestamp(rotation.started_at)),
        since: Some(convert::timestamp(rotation.since)),
    }
}
