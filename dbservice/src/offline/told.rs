//! What the control plane has told this agent since it started, for keeping. Clones share it.
//!
//! Whoever is told something puts it in here too. Where nothing is kept nothing is held either.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tidegate_identity::KeyPair;
use tidegate_proto::v1;
use tokio::sync::watch;

use super::record::Record;

/// What is shown to clients, as it was issued.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) chain_pem: String,
    pub(crate) key: KeyPair,
    pub(crate) ends: Timestamp,
}

/// What was told, part by part.
#[derive(Debug, Default)]
struct Parts {
    roles: Option<Vec<v1::Role>>,
    locks: Option<Vec<v1::Lock>>,
    proxies: BTreeSet<String>,
    certificate: Option<Certificate>,
    version: Version,
}

/// Which state of things it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// Changes so far.
    pub(super) changes: u64,
    /// When all of it was last said to be so.
    pub(super) confirmed_at: Option<Timestamp>,
}

/// What the control plane has told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// `None` where nothing is kept.
    parts: Option<Arc<watch::Sender<Parts>>>,
}

impl Parts {
    /// Whether it is enough to let somebody in.
    fn is_whole(&self) -> bool {
        self.roles.is_some() && self.locks.is_some() && self.certificate.is_some()
    }
}

impl Told {
    /// Nothing yet, of an agent that keeps what it is told.
    pub(super) fn kept() -> Self {
        Self {
            parts: Some(Arc::new(watch::Sender::default())),
        }
    }

    /// These are all roles.
    pub(crate) fn roles(&self, roles: &[v1::Role]) {
        self.change(|parts| parts.roles = Some(roles.to_vec()));
    }

    /// These are all locks. They are said again and again, which confirms everything else: at `at`, if it is known that
    /// this is no answer from somebody's memory.
    pub(crate) fn locks(&self, locks: &[v1::Lock], at: Option<Timestamp>) {
        let Some(parts) = &self.parts else {
            return;
        };
        parts.send_modify(|parts| {
            parts.version.confirmed_at = at.or(parts.version.confirmed_at);
            if parts.locks.as_deref() != Some(locks) {
                parts.locks = Some(locks.to_vec());
                parts.version.changes += 1;
            }
        });
    }

    /// These are all proxies.
    pub(crate) fn proxies(&self, addresses: &BTreeSet<String>) {
        let Some(parts) = &self.parts else {
            return;
        };
        parts.send_if_modified(|parts| {
            let is_news = parts.proxies != *addresses;
            if is_news {
                parts.proxies.clone_from(addresses);
                parts.version.changes += 1;
            }
            is_news
        });
    }

    /// This is what clients are shown.
    pub(crate) fn certificate(&self, certificate: Certificate) {
        self.change(|parts| parts.certificate = Some(certificate));
    }

    fn change(&self, make: impl FnOnce(&mut Parts)) {
        if let Some(parts) = &self.parts {
            parts.send_modify(|parts| {
                make(parts);
                parts.version.changes += 1;
            });
        }
    }

    /// Returns when enough was told to let somebody in; never where nothing is kept.
    pub(super) async fn whole(&self) {
        let mut news = self.news();
        if news.wait_for(Parts::is_whole).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns at the next news after those that were seen.
    pub(super) async fn changed(&self, seen: Version) -> Version {
        let mut news = self.news();
        let next = news.wait_for(|parts| parts.version != seen).await;
        let version = next.map(|parts| parts.version).ok();
        match version {
            Some(version) => version,
            None => std::future::pending().await,
        }
    }

    fn news(&self) -> watch::Receiver<Parts> {
        match &self.parts {
            Some(parts) => parts.subscribe(),
            // Its sender is gone, so it tells of nothing.
            None => watch::Sender::default().subscribe(),
        }
    }

    /// All of it for writing, and which state of things that is; `None` before it is whole.
    pub(super) fn record(&self) -> Option<(Record, Version)> {
        let parts = self.parts.as_ref()?.borrow();
        let (Some(roles), Some(locks), Some(certificate), Some(confirmed_at)) = (
            &parts.roles,
            &parts.locks,
            &parts.certificate,
            parts.version.confirmed_at,
        ) else {
            return None;
        };
        let record = Record {
            roles: roles.clone(),
            locks: locks.clone(),
            proxies: parts.proxies.iter().cloned().collect(),
            certificate_pem: certificate.chain_pem.clone(),
            key_pem: certificate.key.to_pem().expose_secret().to_owned(),
            certificate_ends_ms: certificate.ends.as_millisecond(),
            confirmed_at_ms: confirmed_at.as_millisecond(),
        };
        Some((record, parts.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> Certificate {
        Certificate {
            chain_pem: "chain".to_owned(),
            key: KeyPair::generate().unwrap(),
            ends: Timestamp::MAX,
        }
    }

    #[test]
    fn there_is_nothing_to_keep_before_roles_locks_and_certificate_were_told() {
        let at = Timestamp::from_second(5).unwrap();
        let told = Told::kept();
        told.roles(&[]);
        assert!(told.record().is_none());
        told.certificate(certificate());
        assert!(told.record().is_none());
        told.locks(&[], Some(at));
        let (record, version) = told.record().unwrap();
        assert_eq!(record.confirmed_at_ms, 5000);

        told.locks(&[], None);
        assert_eq!(told.record().unwrap().1, version, "an answer from memory");
        let later = Timestamp::from_second(65).unwrap();
        told.locks(&[], Some(later));
        let (_, confirmed) = told.record().unwrap();
        assert_eq!(confirmed.changes, version.changes);
        assert_eq!(confirmed.confirmed_at, Some(later));
        told.locks(&[v1::Lock::default()], None);
        assert_ne!(told.record().unwrap().1.changes, version.changes);
    }

    #[test]
    fn an_agent_that_keeps_nothing_holds_nothing() {
        let told = Told::default();
        told.roles(&[]);
        told.locks(&[], Some(Timestamp::UNIX_EPOCH));
        told.certificate(certificate());
        assert!(told.record().is_none());
    }
}
