//! Starting while the control plane is away: what it said last is kept on disk, and stands in for a bounded time.
//!
//! An agent lets people in by roles, locks and a certificate that it is told and given. It keeps these, and the addresses of proxies,
//! beside its identity ([`file`]), with the instant at which the control plane last said that they are so. At a start they are used only
//! when the control plane does not answer within [`ANSWER_WAIT`], and only until `db_service.offline_start` after that
//! instant, or until this host's certificate or the kept one ends.
//!
//! Invariants: what the control plane says is never replaced by what was kept. What was kept makes no lock fresh, so roles with
//! strict locking let nobody in by it. Nothing that happens while it stands in prolongs it, a further start included.
//!
//! Not here: deciding by roles and locks ([`crate::engine`]). Databases of the inventory are not kept; those of the file are served.

mod file;
mod keep;
mod record;
mod told;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rustls::ServerConfig;
use tidegate_identity::KeyPair;
use tidegate_service::{
    admin::{ComponentHandle, Readiness},
    clock::SharedClock,
    host::HostHandle,
    tasks::{ShutdownToken, Tasks},
    telemetry,
};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    SERVICE,
    certificate::{self, ClientTls},
    locks::{self, Locks},
    roles::{self, Roles},
};
use file::{FileError, Owner};
use record::{Record, Unusable};
pub(crate) use told::{Certificate, Told};

/// How long the control plane has to answer before what was kept is used.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The component of `/readyz` that tells of a start while the control plane is away.
const COMPONENT: &str = "db_offline_start";

/// Proxies to try while the inventory cannot be asked; none until what was kept is used.
pub(crate) type KeptProxies = watch::Receiver<BTreeSet<String>>;

/// What of the agent is given what was kept.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) roles: Roles,
    pub(crate) locks: Locks,
    pub(crate) client_tls: ClientTls,
}

/// What was kept, ready to use.
struct Kept {
    record: Record,
    config: Arc<ServerConfig>,
    confirmed_at: Timestamp,
    until: Timestamp,
}

/// Begins to keep what the control plane says, and to stand in for it should it be away now. Where nothing is to be kept
/// (`bound` is `None`, or the identity is another one at each start) what an earlier run kept is removed.
pub(crate) fn start(
    bound: Option<Duration>,
    data_dir: &Path,
    host: &HostHandle,
    standing: Standing,
    readiness: &Readiness,
    clock: &SharedClock,
    tasks: &Tasks,
) -> (Told, KeptProxies) {
    let path = data_dir.join(file::FILE_NAME);
    let (proxies, kept_proxies) = watch::channel(BTreeSet::new());
    let Some(bound) = bound.filter(|_| host.is_kept()) else {
        tasks.spawn_quiet("offline_start", async move { remove(path).await });
        return (Told::default(), kept_proxies);
    };
    let told = Told::kept();
    let start = Start {
        told: told.clone(),
        host: host.clone(),
        path,
        bound,
        standing,
        proxies,
        readiness: readiness.clone(),
        clock: Arc::clone(clock),
    };
    tasks.spawn("offline_start", start.run(tasks.shutdown()));
    (told, kept_proxies)
}

async fn remove(path: PathBuf) {
    let removing = tokio::task::spawn_blocking(move || file::remove(&path));
    if let Ok(Err(error)) = removing.await {
        warn!(
            error = telemetry::chain(&error),
            file = file::FILE_NAME,
            "could not remove what an earlier run kept of the control plane"
        );
    }
}

/// One start of an agent that keeps what it is told.
struct Start {
    told: Told,
    host: HostHandle,
    path: PathBuf,
    bound: Duration,
    standing: Standing,
    proxies: watch::Sender<BTreeSet<String>>,
    readiness: Readiness,
    clock: SharedClock,
}

impl Start {
    async fn run(self, shutdown: ShutdownToken) {
        if shutdown
            .run_until_cancelled(self.until_told())
            .await
            .is_none()
        {
            return;
        }
        keep::keep(self.told, self.host, self.path, shutdown).await;
    }

    /// Returns when the control plane has told everything; stands in for it until then if it must.
    async fn until_told(&self) {
        let kept = self.read().await;
        if tokio::time::timeout(ANSWER_WAIT, self.told.whole())
            .await
            .is_ok()
        {
            return;
        }
        let component = self.readiness.component(COMPONENT);
        match kept {
            Ok(kept) => tokio::select! {
                () = self.told.whole() => {}
                () = self.stand_in(kept, &component) => {}
            },
            Err(unusable) => {
                let why = telemetry::chain(&unusable);
                error!(
                    error = why,
                    "the control plane is away and nothing stands in for it: nobody is let in until it answers"
                );
                component.not_ready(why);
            }
        }
        self.told.whole().await;
        component.ready();
        info!("the control plane is back: deciding by what it says");
    }

    async fn read(&self) -> Result<Kept, Unusable> {
        let (owner, path) = (Owner::of(&self.host), self.path.clone());
        let reading = tokio::task::spawn_blocking(move || owner.read(&path));
        let record = reading
            .await
            // It panicked, which its hook has logged, or the runtime ends.
            .map_err(|_| FileError::NotOurs(self.path.clone()))??;
        let instant = |ms| Timestamp::from_millisecond(ms).map_err(|_| Unusable::NoTime);
        let confirmed_at = instant(record.confirmed_at_ms)?;
        let until = record::usable_until(
            confirmed_at,
            instant(record.certificate_ends_ms)?,
            self.host.expires_at(),
            self.bound,
            self.clock.now(),
        )?;
        let config = KeyPair::from_pem(&record.key_pem)
            .and_then(|key| {
                let users = &self.host.trust().user_ca_pem;
                certificate::client_facing(&record.certificate_pem, &key, users)
            })
            .map_err(Unusable::Certificate)?;
        Ok(Kept {
            record,
            config,
            confirmed_at,
            until,
        })
    }

    /// Lets people in by what was kept until that is too old.
    async fn stand_in(&self, kept: Kept, component: &ComponentHandle) {
        let (confirmed_at, until) = (kept.confirmed_at, kept.until);
        warn!(
            %confirmed_at, %until,
            roles = kept.record.roles.len(),
            locks = kept.record.locks.len(),
            "the control plane is away: deciding by roles and locks that were kept; a lock that was made since is not known"
        );
        let reason = format!(
            "the control plane is away: roles and locks are those of {confirmed_at:.0}, and are used until {until:.0}"
        );
        // Locks first and roles last: without roles nobody is let in.
        let now = self.clock.now();
        self.standing.locks.stand_in(
            kept.record
                .locks
                .iter()
                .cloned()
                .map(|lock| locks::understood(lock, now)),
        );
        self.standing.client_tls.stand_in(kept.config);
        self.readiness.component(SERVICE).degraded(reason.clone());
        let policy = self
            .standing
            .roles
            .stand_in(kept.record.roles.iter().cloned().map(roles::understood));
        self.proxies
            .send_replace(kept.record.proxies.iter().cloned().collect());
        component.degraded(reason);
        drop(kept.record);
        self.clock.wait_until(until).await;
        if let Some(policy) = policy {
            self.standing.roles.stand_down(&policy);
        }
        let why = format!(
            "the control plane is still away, and what was kept of it may be used no longer than until {until:.0}"
        );
        error!(%until, "the control plane is still away and what was kept of it is too old now: nobody is let in until it answers");
        component.not_ready(why);
    }
}
