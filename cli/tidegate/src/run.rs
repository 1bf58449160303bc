//! `tidegate start`: a process from settings to its end.
//!
//! Order: logging, data directory, diagnostics, services; then wait for a signal or for a task that failed; then
//! shut down ([`crate::ending`]). Whatever was started is stopped on every way out.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use listenfd::ListenFd;
use tidegate_service::{
    handover::Sockets,
    settings::Settings,
    tasks::Tasks,
    telemetry::{self, LogFilter},
};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{info, warn};

use crate::{
    ending::{self, Ends},
    reload::{Followers, Reload, Source},
    wiring::{self, Shared},
};

/// How long blocking work may hold up the exit after that.
const RUNTIME_GRACE: Duration = Duration::from_secs(2);
/// Only the service's user reads keys and state.
const DATA_DIR_MODE: u32 = 0o700;

/// Runs the services until a signal.
///
/// # Errors
///
/// When something cannot be started, or a task that the process cannot do without has failed.
pub(crate) fn run(settings: Settings, source: Source, debug: bool) -> anyhow::Result<()> {
    let log = telemetry::init(&settings.process.log)?;
    create_data_dir(&settings.process.data_dir)?;
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(settings, source, log, debug));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    outcome
}

fn create_data_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DATA_DIR_MODE)
        .create(path)
        .with_context(|| format!("cannot create the data directory {}", path.display()))
}

async fn serve(
    settings: Settings,
    source: Source,
    log: LogFilter,
    debug: bool,
) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let mut hangups = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let mut upgrades = signal(SignalKind::user_defined2()).context("cannot listen for signals")?;
    for warning in &settings.warnings {
        warn!(file = %settings.file.display(), line = warning.line, "{}", warning.message);
    }
    for note in &settings.notes {
        info!(file = %settings.file.display(), line = note.line, "{}", note.message);
    }
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = settings.process.nodename,
        data_dir = %settings.process.data_dir.display(),
        "starting"
    );
    let tasks = Tasks::new();
    let ends = Ends::of(&settings);
    tasks.set_drain(ends.drain());
    let shared = Shared::new(tasks.clone(), sockets()?);
    let shutdown = tasks.shutdown();
    let started = tokio::select! {
        started = start(settings.clone(), &shared) => started.map(Some),
        name = signals.next() => {
            info!(signal = name, "told to stop while starting");
            Ok(None)
        }
        () = shutdown.cancelled() => Ok(None),
    };
    let mut giving_back: Option<BoxFuture<'static, ()>> = None;
    let outcome = match started {
        Ok(Some(followers)) if !shutdown.is_cancelled() => {
            shared.begin();
            let mut reload = Reload::new(settings, source, log, debug, followers);
            let reloading = async {
                while hangups.recv().await.is_some() {
                    reload.run().await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                taking = until_end(&mut signals, &mut upgrades, ends, &shared) => giving_back = taking,
                () = reloading => {}
            }
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    let giving_back = async {
        if let Some(giving_back) = giving_back {
            giving_back.await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = close(&mut signals, &tasks) => {}
        () = giving_back => {}
    }
    outcome?;
    if let Some(failure) = tasks.failure() {
        bail!("{failure}");
    }
    Ok(())
}

/// Waits until there is a reason to shut down, and says so to those who have to know first. After a hand-over, what is to
/// be polled until the end.
async fn until_end(
    signals: &mut Signals,
    upgrades: &mut Signal,
    ends: Ends,
    shared: &Shared,
) -> Option<BoxFuture<'static, ()>> {
    let shutdown = shared.tasks.shutdown();
    loop {
        tokio::select! {
            // Not while handing over, which asks for shutdown itself, before it is done.
            () = shutdown.cancelled() => return None,
            name = signals.next() => {
                info!(signal = name, "shutting down");
                tokio::select! {
                    () = ends.announce(&shared.readiness) => {}
                    name = signals.next() => warn!(signal = name, "told to stop again: not waiting for balancers"),
                }
                return None;
            }
            Some(()) = upgrades.recv() => {
                let handed = ends.hand_over(&shared.sockets, &shared.tasks).await;
                if handed.is_some() {
                    return handed;
                }
            }
        }
    }
}

/// Waits for the tasks to end, within bounds. One that was succeeded has time, unless it is told to stop.
async fn close(signals: &mut Signals, tasks: &Tasks) {
    tokio::select! {
        _ = tasks.close_and_wait(ending::grace(tasks)) => return,
        name = signals.next() => {
            if !tasks.drain().is_succeeded {
                return warn!(signal = name, "told to stop again: not waiting");
            }
            info!(signal = name, "ending the sessions that are left");
        }
    }
    tasks.hurry().cancel();
    tokio::select! {
        _ = tasks.close_and_wait(ending::HURRIED_GRACE) => {}
        name = signals.next() => warn!(signal = name, "told to stop again: not waiting"),
    }
}

/// The sockets that were passed to this process: by the one before it, and by systemd.
fn sockets() -> anyhow::Result<Sockets> {
    let mut passed = Vec::new();
    let mut listenfd = ListenFd::from_env();
    for place in 0..listenfd.len() {
        let listener = listenfd
            .take_tcp_listener(place)
            .context("a socket that systemd passed is none for TCP")?;
        passed.extend(listener);
    }
    Sockets::inherit(passed).context("cannot take over from the process before")
}

async fn start(settings: Settings, shared: &Shared) -> anyhow::Result<Followers> {
    if let Some(address) = settings.process.diag_addr {
        let listener = shared
            .sockets
            .listen(address)
            .with_context(|| format!("cannot listen on diag_addr {address}"))?;
        shared.serve_diagnostics(listener);
    }
    Box::pin(wiring::start(settings, shared)).await
}

/// The two signals that ask a process to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
