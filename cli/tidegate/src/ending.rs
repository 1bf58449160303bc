//! How a process comes to its end: told to stop, or succeeded by a new process of the same program.
//!
//! Told to stop (SIGTERM, SIGINT): `/readyz` says `draining` for `shutdown_delay`, so that balancers send nobody new; then
//! nothing new is taken and sessions have `drain_timeout`. A second signal waits for nothing.
//!
//! Succeeded (SIGUSR2, for a process that runs a proxy and nothing else): the new process gets the sockets, begins to
//! accept when this one has stopped to, and sessions that run go on here for `handover_timeout`. Told to stop meanwhile, this one
//! tells its sessions so at once.

use std::time::Duration;

use futures::future::BoxFuture;
use tidegate_proxy::END_MAX;
use tidegate_service::{
    admin::Readiness,
    handover::{HandOverError, Sockets, Successor},
    settings::Settings,
    tasks::{Drain, Tasks},
    telemetry,
};
use tracing::{error, info, warn};

use crate::notify;

/// What is left of the process's time once sessions have ended: to close what they used.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// How long this process may take to stop accepting once its successor is ready: nothing happens meanwhile but that.
const QUIET_MAX: Duration = Duration::from_secs(5);

/// How a process's end is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    shutdown_delay: Duration,
    drain_timeout: Duration,
    /// `None`: not handed over, since more runs here than a proxy.
    handover_timeout: Option<Duration>,
}

impl Ends {
    pub(crate) fn of(settings: &Settings) -> Self {
        let is_proxy_alone =
            settings.auth.is_none() && settings.discovery.is_none() && settings.database.is_none();
        Self {
            shutdown_delay: settings.process.shutdown_delay,
            drain_timeout: settings.process.drain_timeout,
            handover_timeout: settings
                .proxy
                .as_ref()
                .filter(|_| is_proxy_alone)
                .map(|proxy| proxy.handover_timeout),
        }
    }

    /// How much time sessions have when the process is told to stop.
    pub(crate) fn drain(self) -> Drain {
        Drain {
            timeout: self.drain_timeout,
            is_succeeded: false,
        }
    }

    /// The first of the two phases: not ready, and otherwise as ever.
    pub(crate) async fn announce(self, readiness: &Readiness) {
        notify::tell("STOPPING=1");
        readiness.drain();
        tokio::time::sleep(self.shutdown_delay).await;
    }

    /// Starts a new process and hands the sockets over to it; then shutdown has been asked for, and what the new process
    /// gives back is taken while the answer is polled. Otherwise everything is as it was.
    pub(crate) async fn hand_over(
        self,
        sockets: &Sockets,
        tasks: &Tasks,
    ) -> Option<BoxFuture<'static, ()>> {
        let Some(handover_timeout) = self.handover_timeout else {
            warn!("not handing over: this process runs more than a proxy; restart it instead");
            return None;
        };
        match Box::pin(succeed(sockets, tasks, handover_timeout)).await {
            Ok(giving_back) => Some(giving_back),
            Err(failed) => {
                error!(
                    error = telemetry::chain(&failed),
                    "could not hand over; serving on"
                );
                None
            }
        }
    }
}

/// How long the process waits for its tasks once shutdown was asked for.
pub(crate) fn grace(tasks: &Tasks) -> Duration {
    tasks
        .drain()
        .timeout
        .saturating_add(END_MAX)
        .saturating_add(CLOSING_MAX)
}

/// The same as [`grace`], once it was said that there is no more time.
pub(crate) const HURRIED_GRACE: Duration = END_MAX.saturating_add(CLOSING_MAX);

async fn succeed(
    sockets: &Sockets,
    tasks: &Tasks,
    handover_timeout: Duration,
) -> Result<BoxFuture<'static, ()>, HandOverError> {
    let mut successor = Successor::start(sockets)?;
    let id = successor.id();
    info!(process.id = id, "started a new process to hand over to");
    successor.ready().await?;
    tasks.set_drain(Drain {
        timeout: handover_timeout,
        is_succeeded: true,
    });
    tasks.shutdown().cancel();
    if tokio::time::timeout(QUIET_MAX, sockets.quiet())
        .await
        .is_err()
    {
        warn!("handing over while some connections are still being accepted here");
    }
    let giving_back = match successor.go(sockets) {
        Ok(giving_back) => giving_back,
        Err(failed) => {
            // Nothing can be taken back here: the supervisor starts what is to serve.
            error!(
                error = telemetry::chain(&failed),
                "the new process ended as it was to accept; this one ends too"
            );
            return Ok(Box::pin(std::future::pending()));
        }
    };
    info!(
        process.id = id,
        sessions_end_within_seconds = handover_timeout.as_secs(),
        "handed over to a new process"
    );
    Ok(Box::pin(giving_back))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidegate_service::settings;

    use super::*;

    #[test]
    fn only_a_process_that_runs_nothing_but_a_proxy_is_succeeded() {
        let handover = |text: &str| {
            let settings = settings::parse(text, Path::new("t.yaml")).unwrap();
            Ends::of(&settings).handover_timeout.is_some()
        };
        assert!(handover("proxy_service: {}"));
        assert!(!handover("proxy_service: {}\ndb_service: {enabled: yes}"));
        assert!(!handover(
            "proxy_service: {}\nauth_service: {cluster_name: c}"
        ));
        assert!(!handover("db_service: {enabled: yes}"));
    }
}
