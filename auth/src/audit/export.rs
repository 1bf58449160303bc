//! Exports the log, as it grows, to the places that the settings name.
//!
//! Each target has a task of its own and a position that is kept in the log's file: it moves when the target has what is
//! before it, so every record arrives at least once, in order, whatever stops in between. A target that fails is tried
//! again with growing waits; it is told in the log, in metrics and in readiness (as degraded: the control plane works),
//! and holds nobody up but itself, since it only reads.

mod batch;
mod file;
mod s3;
#[cfg(test)]
mod tests;

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tidegate_service::{
    admin::{ComponentHandle, Readiness},
    metrics::Metrics,
    rpc::Backoff,
    settings::AuditTarget,
    tasks::{ShutdownToken, Tasks},
    telemetry::{SaidOnce, chain},
};
use tokio::sync::watch;

use super::{AuditLog, AuditUnavailable};
use crate::store::BoxError;
use batch::Batch;

/// Waits between attempts at a target.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// How long an event waits for others that go into one object of a bucket with it.
const OBJECT_AGE_MAX: Duration = Duration::from_mins(1);
/// Events that are enough for an object at once.
const OBJECT_EVENTS_ENOUGH: i64 = 10_000;

/// Why a batch did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// The bucket's service answers no.
    #[error("`{host}` refused the object with status {status} {code}")]
    Refused {
        /// Whom we asked.
        host: String,
        /// Of HTTP.
        status: u16,
        /// AWS's code; empty when there is none.
        code: String,
    },
    /// The file cannot be written.
    #[error("could not write `{file}`")]
    File {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log cannot be read, or the position not kept.
    #[error("could not read the log")]
    Log(#[from] AuditUnavailable),
    /// The bucket's service cannot be reached, or there are no credentials.
    #[error("could not put the object at `{host}`")]
    Unreachable {
        /// Whom we asked.
        host: String,
        /// Why.
        source: BoxError,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    kind: &'static str,
    /// Its place in the list of the settings.
    number: u32,
}

/// What is measured of all targets.
#[derive(Clone)]
struct Figures {
    exported: Family<TargetLabels, Counter>,
    failures: Family<TargetLabels, Counter>,
    waiting: Family<TargetLabels, Gauge>,
}

impl Figures {
    fn register(metrics: &Metrics) -> Self {
        Self {
            exported: metrics.register(
                "tidegate_auth_audit_exported_events_total",
                "Audit events that a target of the export took, by its kind and its number in the settings",
                Family::default(),
            ),
            failures: metrics.register(
                "tidegate_auth_audit_export_failures_total",
                "Attempts of the audit export that failed, by target",
                Family::default(),
            ),
            waiting: metrics.register(
                "tidegate_auth_audit_export_waiting_events",
                "Audit events that a target of the export does not have yet, by target",
                Family::default(),
            ),
        }
    }
}

/// Where batches go.
enum Target {
    File(file::FileTarget),
    S3(Box<s3::Bucket>),
    Stdout,
}

impl Target {
    fn new(settings: &AuditTarget) -> Self {
        match settings {
            AuditTarget::File(path) => Self::File(file::FileTarget::new(path)),
            AuditTarget::S3(place) => Self::S3(Box::new(s3::Bucket::new(place, None))),
            AuditTarget::Stdout => Self::Stdout,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::S3(_) => "s3",
            Self::Stdout => "stdout",
        }
    }

    /// How long events are collected.
    const fn age_max(&self) -> Duration {
        match self {
            Self::S3(_) => OBJECT_AGE_MAX,
            Self::File(_) | Self::Stdout => Duration::ZERO,
        }
    }

    /// Returns when the target has the batch for good.
    async fn take(&self, batch: &Batch) -> Result<(), ExportError> {
        match self {
            Self::File(file) => file.append(batch.text.clone()).await,
            Self::S3(bucket) => bucket.put(batch).await,
            Self::Stdout => file::print(batch.text.clone()).await,
        }
    }
}

/// Starts a task for each target; they end with `tasks`.
pub(crate) fn start(
    log: &AuditLog,
    targets: &[AuditTarget],
    metrics: &Metrics,
    readiness: &Readiness,
    tasks: &Tasks,
) {
    let figures = Figures::register(metrics);
    for (number, settings) in (1..).zip(targets) {
        let target = Target::new(settings);
        let labels = TargetLabels {
            kind: target.kind(),
            number,
        };
        let component = readiness.component(&format!("audit_export_{number}"));
        component.ready();
        let export = Export {
            log: log.clone(),
            name: settings.to_string(),
            target,
            labels,
            figures: figures.clone(),
            component,
        };
        tasks.spawn("auth_audit_export", export.run(tasks.shutdown()));
    }
}

/// The export to one target.
struct Export {
    log: AuditLog,
    /// As it is written, by which its position is kept.
    name: String,
    target: Target,
    labels: TargetLabels,
    figures: Figures,
    component: ComponentHandle,
}

impl Export {
    async fn run(self, shutdown: ShutdownToken) {
        let _ = shutdown.run_until_cancelled(Box::pin(self.go_on())).await;
    }

    /// Never ends: a batch that was begun is finished or, after the next start, begun again.
    async fn go_on(&self) {
        let mut backoff = Backoff::between(RETRY_MIN, RETRY_MAX);
        let mut said = SaidOnce::new();
        let mut newest = self.log.newest();
        let mut place = None;
        let mut held = None;
        loop {
            match self.step(&mut place, &mut held, &mut newest).await {
                Ok(()) => {
                    backoff.reset();
                    said.clear();
                    self.component.ready();
                }
                Err(error) => {
                    self.figures.failures.get_or_create(&self.labels).inc();
                    let cause = chain(&error);
                    if said.is_new(&cause) {
                        tracing::error!(
                            export.target = self.name,
                            error = cause,
                            "cannot export audit events; they wait"
                        );
                    }
                    self.component.degraded(format!("{}: {cause}", self.name));
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Waits for records after `place`, gives a batch of them to the target, and keeps the new position. What fails is
    /// done again with the same batch, which is `held` until its position is kept.
    async fn step(
        &self,
        place: &mut Option<i64>,
        held: &mut Option<Batch>,
        newest: &mut watch::Receiver<i64>,
    ) -> Result<(), ExportError> {
        let after = match *place {
            Some(place) => place,
            None => *place.insert(self.log.exported(&self.name).await?),
        };
        let batch = match held {
            Some(batch) => batch,
            None => {
                self.wait_for_events(after, newest).await?;
                held.insert(Batch::read(&self.log, after).await?)
            }
        };
        self.target.take(batch).await?;
        self.log.set_exported(&self.name, batch.through).await?;
        let count = u64::try_from(batch.events).unwrap_or(u64::MAX);
        self.figures
            .exported
            .get_or_create(&self.labels)
            .inc_by(count);
        *place = Some(batch.through);
        self.show_waiting(batch.through, *newest.borrow());
        *held = None;
        Ok(())
    }

    async fn wait_for_events(
        &self,
        after: i64,
        newest: &mut watch::Receiver<i64>,
    ) -> Result<(), ExportError> {
        let gone = |_| AuditUnavailable::Closed;
        let now = *newest
            .wait_for(|newest| *newest > after)
            .await
            .map_err(gone)?;
        self.show_waiting(after, now);
        let enough = newest.wait_for(|newest| *newest - after >= OBJECT_EVENTS_ENOUGH);
        match tokio::time::timeout(self.target.age_max(), enough).await {
            Ok(Err(error)) => Err(gone(error).into()),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    fn show_waiting(&self, after: i64, newest: i64) {
        self.figures
            .waiting
            .get_or_create(&self.labels)
            .set(newest - after);
    }
}
