//! Bundles of CA certificates: held, fetched anew every day, and never replaced by something worse.
//!
//! The first of these that is there is used: what was fetched by this process, what an earlier one kept in the data
//! directory, what is compiled in. Only where there is none of them does the first use wait for a download. A bundle
//! that cannot be fetched, or that is none, leaves everything as it was, is told once for each cause, and is tried again.
//!
//! When a database's certificate is of an unknown issuer its bundle is asked for at once, at most once in
//! [`REFRESH_APART_MIN`], whatever the number of databases that fail: CAs may have been rotated.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tidegate_identity::secret;
use tidegate_service::{
    clock::SharedClock, https::Https, rpc::Backoff, settings::DatabaseSettings,
    tasks::ShutdownToken, telemetry::SaidOnce,
};
use tokio::{
    sync::{Mutex as Gate, Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    accept::{Unacceptable, accept},
    anchors,
    download::{self, DownloadError, Fetched, fetch},
    files::{BundleFiles, Kept, fingerprint},
    source::BundleName,
};
use crate::metrics::{BundleLabel, BundleTimes};

/// From one refresh of a bundle to the next, before jitter.
const REFRESH_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// A refresh comes up to this much earlier, so that agents which started together do not ask together.
const REFRESH_JITTER: Duration = Duration::from_secs(2 * 3600);

/// Between refreshes of one bundle that failed handshakes ask for.
pub(super) const REFRESH_APART_MIN: Duration = Duration::from_secs(60);

/// The first refresh of a bundle that the data directory holds comes within this time.
const KEPT_JITTER: Duration = Duration::from_secs(600);

/// Waits after a failed refresh.
const RETRY_MIN: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);

/// How long somebody who connects waits for a bundle.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(8);

/// Bundles that are held: one for each region of AWS at most. Beyond it only what is compiled in is used.
const BUNDLES_MAX: usize = 256;

/// Where a bundle that is in use came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// The program itself.
    CompiledIn,
    /// Its place, by this process.
    Fetched,
    /// The data directory.
    Kept,
    /// There is none.
    Nowhere,
}

impl Provenance {
    /// For people.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CompiledIn => "compiled into this program",
            Self::Fetched => "fetched since the start",
            Self::Kept => "kept in the data directory",
            Self::Nowhere => "not to be had",
        }
    }
}

/// The certificates of a bundle.
#[derive(Clone, Debug)]
pub(crate) struct Anchors {
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    pub(crate) provenance: Provenance,
    /// Grows with every change of the certificates.
    pub(crate) generation: u64,
}

/// Why a bundle is as old as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum RefreshError {
    #[error("what {location} sent is refused: {source}")]
    Refused {
        location: String,
        source: Unacceptable,
    },

    #[error(transparent)]
    Download(#[from] DownloadError),

    #[error("AWS publishes it at no place that this program knows")]
    NoPlace,
}

/// One bundle.
#[derive(Debug)]
struct Held {
    anchors: Anchors,
    fingerprint: Option<String>,
    etag: Option<String>,
    /// When it is fetched again.
    due: Instant,
    tried: Option<Instant>,
    /// When it was last fetched, or found to be what is published.
    refreshed: Option<Timestamp>,
    backoff: Backoff,
    said: SaidOnce,
    /// Held by whoever fetches it.
    gate: Arc<Gate<()>>,
}

/// All bundles of a process.
pub(crate) struct Bundles {
    files: BundleFiles,
    settings: watch::Receiver<DatabaseSettings>,
    https: Https,
    clock: SharedClock,
    held: Mutex<HashMap<BundleName, Held>>,
    wake: Notify,
}

impl std::fmt::Debug for Bundles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundles").finish_non_exhaustive()
    }
}

impl Bundles {
    /// Bundles that are kept in a folder, and fetched from AWS or from where the settings say at that time.
    pub(crate) fn new(
        folder: std::path::PathBuf,
        settings: watch::Receiver<DatabaseSettings>,
        clock: SharedClock,
    ) -> Self {
        Self {
            files: BundleFiles::new(folder),
            settings,
            https: download::client(),
            clock,
            held: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// The certificates of a bundle. Waits for a download only where there is nothing else, at most [`WAIT_MAX`].
    pub(crate) async fn get(&self, name: &BundleName) -> Anchors {
        if let Some(anchors) = self.current(name) {
            return anchors;
        }
        let first = self.first(name).await;
        let (anchors, is_held) = self.hold(name, first);
        self.wake.notify_one();
        if anchors.provenance == Provenance::Nowhere && is_held {
            self.newer_than(name, anchors.generation).await;
            return self.current(name).unwrap_or(anchors);
        }
        anchors
    }

    /// Asks at once whether a bundle has changed since `generation`; whether it has.
    pub(crate) async fn newer_than(&self, name: &BundleName, generation: u64) -> bool {
        let Some(gate) = self.held().get(name).map(|held| Arc::clone(&held.gate)) else {
            return false;
        };
        let asking = async {
            let _alone = gate.lock().await;
            let recently = |held: &Held| {
                held.tried
                    .is_some_and(|tried| tried.elapsed() < REFRESH_APART_MIN)
            };
            let settled = self
                .held()
                .get(name)
                .is_none_or(|held| held.anchors.generation > generation || recently(held));
            if !settled {
                self.refresh(name).await;
            }
        };
        // Who gives up waiting gives up the download too; the next one begins it anew after the pause.
        let _ = timeout(WAIT_MAX, asking).await;
        self.current(name)
            .is_some_and(|now| now.generation > generation)
    }

    /// Fetches bundles anew when it is time, and tells how old they are, until shutdown.
    pub(crate) async fn keep_fresh(self: Arc<Self>, times: BundleTimes, shutdown: ShutdownToken) {
        loop {
            self.tell_age(&times);
            let (name, due) = self.next_due();
            let waiting = async {
                tokio::select! {
                    () = sleep_until(due) => true,
                    () = self.wake.notified() => false,
                }
            };
            match shutdown.run_until_cancelled(waiting).await {
                None => return,
                Some(false) => {}
                Some(true) => {
                    if let Some(name) = name {
                        let refreshing = self.refresh_alone(&name);
                        if shutdown.run_until_cancelled(refreshing).await.is_none() {
                            return;
                        }
                    }
                }
            }
        }
    }

    async fn refresh_alone(&self, name: &BundleName) {
        let Some(gate) = self.held().get(name).map(|held| Arc::clone(&held.gate)) else {
            return;
        };
        let _alone = gate.lock().await;
        self.refresh(name).await;
    }

    /// The oldest counts: by it somebody sees that some bundle is not to be had.
    fn tell_age(&self, times: &BundleTimes) {
        let mut oldest: HashMap<BundleLabel, i64> = HashMap::new();
        for (name, held) in self.held().iter() {
            let refreshed = held.refreshed.map_or(0, Timestamp::as_second);
            let of = BundleLabel { of: name.of() };
            let least = oldest.entry(of).or_insert(refreshed);
            *least = refreshed.min(*least);
        }
        for (label, at) in oldest {
            times.get_or_create(&label).set(at);
        }
    }

    fn next_due(&self) -> (Option<BundleName>, Instant) {
        let held = self.held();
        let next = held.iter().min_by_key(|(_, held)| held.due);
        next.map_or_else(
            || (None, Instant::now() + REFRESH_INTERVAL),
            |(name, held)| (Some(name.clone()), held.due),
        )
    }

    fn current(&self, name: &BundleName) -> Option<Anchors> {
        self.held().get(name).map(|held| held.anchors.clone())
    }

    /// What is there without asking anybody.
    async fn first(&self, name: &BundleName) -> (Anchors, Option<Kept>) {
        if let Some((certificates, kept)) = self.kept(name).await {
            return (anchors_of(certificates, Provenance::Kept), Some(kept));
        }
        let certificates = match name {
            BundleName::Rds(region) => anchors::rds(region),
            BundleName::Redshift(_) => anchors::amazon_trust(),
        };
        let provenance = if certificates.is_empty() {
            Provenance::Nowhere
        } else {
            Provenance::CompiledIn
        };
        (anchors_of(certificates, provenance), None)
    }

    /// The bundle in the data directory, if it is one.
    async fn kept(&self, name: &BundleName) -> Option<(Vec<CertificateDer<'static>>, Kept)> {
        let (files, of) = (self.files.clone(), name.clone());
        let read = tokio::task::spawn_blocking(move || files.read(&of)).await;
        let kept = match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(kept) => kept?,
            Err(error) => {
                warn!(bundle = %name, %error, "cannot read a CA bundle in the data directory");
                return None;
            }
        };
        match accept(&kept.bytes, self.clock.now()) {
            Ok(certificates) => Some((certificates, kept)),
            Err(error) => {
                warn!(bundle = %name, %error, "a CA bundle in the data directory is not used");
                None
            }
        }
    }

    /// Holds what was found first, unless somebody else was quicker; and whether there is room.
    fn hold(&self, name: &BundleName, (anchors, kept): (Anchors, Option<Kept>)) -> (Anchors, bool) {
        let mut held = self.held();
        if let Some(held) = held.get(name) {
            return (held.anchors.clone(), true);
        }
        if held.len() >= BUNDLES_MAX {
            return (anchors, false);
        }
        let first_wait = if kept.is_some() {
            at_random(KEPT_JITTER)
        } else {
            Duration::ZERO
        };
        held.insert(
            name.clone(),
            Held {
                anchors: anchors.clone(),
                fingerprint: kept.as_ref().map(|kept| fingerprint(&kept.bytes)),
                etag: kept.and_then(|kept| kept.etag),
                due: Instant::now() + first_wait,
                tried: None,
                refreshed: None,
                backoff: Backoff::between(RETRY_MIN, RETRY_MAX),
                said: SaidOnce::new(),
                gate: Arc::default(),
            },
        );
        (anchors, true)
    }

    /// Fetches a bundle, takes it if it is one, and decides when to ask again. The caller holds its gate.
    async fn refresh(&self, name: &BundleName) {
        let etag = {
            let mut held = self.held();
            let Some(held) = held.get_mut(name) else {
                return;
            };
            held.tried = Some(Instant::now());
            // For the case that whoever waits for this gives up.
            held.due = Instant::now() + held.backoff.next();
            held.etag.clone()
        };
        let refreshed = self.fetch(name, etag.as_deref()).await;
        let refreshed = refreshed.map(|fetched| self.take(name, fetched));
        let mut held = self.held();
        let Some(held) = held.get_mut(name) else {
            return;
        };
        let from = held.anchors.provenance.as_str();
        match refreshed {
            Ok(kept) => {
                held.refreshed = Some(self.clock.now());
                held.backoff.reset();
                held.said.clear();
                held.due = Instant::now() + REFRESH_INTERVAL - at_random(REFRESH_JITTER);
                if let Some(kept) = kept {
                    self.keep(name.clone(), kept);
                }
            }
            Err(error) if held.said.is_new(&error.to_string()) => {
                warn!(bundle = %name, %error, "cannot refresh a CA bundle; using the one that is {from}");
            }
            Err(_) => {}
        }
        self.wake.notify_one();
    }

    async fn fetch(
        &self,
        name: &BundleName,
        etag: Option<&str>,
    ) -> Result<Option<(Kept, Vec<CertificateDer<'static>>)>, RefreshError> {
        let place = self.settings.borrow().ca_bundles.clone();
        let location = name.location(place.as_ref()).ok_or(RefreshError::NoPlace)?;
        match fetch(&self.https, &location, etag).await? {
            Fetched::Same => Ok(None),
            Fetched::Bytes(kept) => match accept(&kept.bytes, self.clock.now()) {
                Ok(certificates) => Ok(Some((kept, certificates))),
                Err(source) => Err(RefreshError::Refused {
                    location: location.to_string(),
                    source,
                }),
            },
        }
    }

    /// Uses what was fetched; gives it back when it is to be kept.
    fn take(
        &self,
        name: &BundleName,
        fetched: Option<(Kept, Vec<CertificateDer<'static>>)>,
    ) -> Option<Kept> {
        let (kept, certificates) = fetched?;
        let mut held = self.held();
        let held = held.get_mut(name)?;
        let fingerprint = Some(fingerprint(&kept.bytes));
        held.etag.clone_from(&kept.etag);
        if held.fingerprint == fingerprint {
            return None;
        }
        info!(bundle = %name, certificates = certificates.len(), "took a new CA bundle");
        held.fingerprint = fingerprint;
        held.anchors = Anchors {
            generation: held.anchors.generation + 1,
            ..anchors_of(certificates, Provenance::Fetched)
        };
        Some(kept)
    }

    /// Writes a bundle down for the next start, beside everything else.
    fn keep(&self, name: BundleName, kept: Kept) {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = files.write(&name, &kept) {
                warn!(bundle = %name, %error, "cannot keep a CA bundle in the data directory");
            }
        });
    }

    fn held(&self) -> MutexGuard<'_, HashMap<BundleName, Held>> {
        // What a panic leaves behind is a bundle that is refreshed once more.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn anchors_of(certificates: Vec<CertificateDer<'static>>, provenance: Provenance) -> Anchors {
    Anchors {
        certificates: certificates.into(),
        provenance,
        generation: 0,
    }
}

/// Some part of a time.
fn at_random(most: Duration) -> Duration {
    // Without randomness refreshes are merely not spread out.
    let random = secret::random_bytes::<2>().map_or(0, u16::from_le_bytes);
    most.mul_f64(f64::from(random) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests;
