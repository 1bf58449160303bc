//! When what was told is written: soon after a change, and seldom when it was only said again.

use std::{path::PathBuf, time::Duration};

use tidegate_service::{
    host::HostHandle,
    tasks::ShutdownToken,
    telemetry::{self, SaidOnce},
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    file::Owner,
    told::{Told, Version},
};

/// Shortest time between two writes for changes.
const CHANGES_APART: Duration = Duration::from_secs(2);

/// Shortest time between two writes that only say that everything is still so.
const CONFIRMATIONS_APART: Duration = Duration::from_secs(60);

/// How long to leave a file alone that could not be written.
const FAILURES_APART: Duration = Duration::from_secs(60);

/// What is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Nothing that opens with the identity of now.
    Nothing,
    /// The last attempt failed.
    Failed,
    /// This state of things.
    Version(Version),
}

/// How long after the last write the next one is due; `None` without any news.
fn due_after(written: Written, told: Version) -> Option<Duration> {
    match written {
        Written::Nothing => Some(CHANGES_APART),
        Written::Failed => Some(FAILURES_APART),
        Written::Version(version) if version == told => None,
        Written::Version(version) if version.changes == told.changes => Some(CONFIRMATIONS_APART),
        Written::Version(_) => Some(CHANGES_APART),
    }
}

/// Keeps the file what the control plane says, until shutdown.
pub(super) async fn keep(told: Told, host: HostHandle, path: PathBuf, shutdown: ShutdownToken) {
    let mut renewed = host.renewed();
    let mut keeper = Keeper {
        told,
        host,
        path,
        written: Written::Nothing,
        at: Instant::now(),
        said: SaidOnce::new(),
    };
    loop {
        let Some(version) = keeper.told.record().map(|(_, version)| version) else {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = keeper.told.whole() => continue,
            }
        };
        let due = due_after(keeper.written, version);
        let at = keeper.at;
        let pause = async move {
            match due {
                Some(after) => tokio::time::sleep_until(at + after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {
                if due.is_some() {
                    keeper.write().await;
                }
                return;
            }
            () = pause => keeper.write().await,
            _ = keeper.told.changed(version) => {}
            changed = renewed.changed() => match changed {
                // What was written opens with the key before.
                Ok(()) => keeper.written = Written::Nothing,
                Err(_) => return,
            },
        }
    }
}

struct Keeper {
    told: Told,
    host: HostHandle,
    path: PathBuf,
    written: Written,
    /// When it was last written or tried.
    at: Instant,
    said: SaidOnce,
}

impl Keeper {
    async fn write(&mut self) {
        let Some((record, version)) = self.told.record() else {
            return;
        };
        let (owner, path) = (Owner::of(&self.host), self.path.clone());
        let writing = tokio::task::spawn_blocking(move || owner.write(&path, &record));
        self.at = Instant::now();
        self.written = match writing.await {
            Ok(Ok(())) => {
                debug!("kept what the control plane says");
                self.said.clear();
                Written::Version(version)
            }
            Ok(Err(error)) => {
                let cause = telemetry::chain(&error);
                if self.said.is_new(&cause) {
                    warn!(
                        error = cause,
                        "could not keep what the control plane says; a start while it is away has only what was kept before"
                    );
                }
                Written::Failed
            }
            // It panicked, which its hook has logged, or the runtime ends.
            Err(_) => Written::Failed,
        };
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn changes_are_written_soon_and_confirmations_seldom() {
        let version = |changes, second| Version {
            changes,
            confirmed_at: Some(Timestamp::from_second(second).unwrap()),
        };
        let written = Written::Version(version(1, 5));
        assert_eq!(due_after(written, version(1, 5)), None);
        assert_eq!(due_after(written, version(1, 6)), Some(CONFIRMATIONS_APART));
        assert_eq!(due_after(written, version(2, 6)), Some(CHANGES_APART));
        assert_eq!(
            due_after(Written::Failed, version(2, 6)),
            Some(FAILURES_APART)
        );
        assert_eq!(
            due_after(Written::Nothing, version(2, 6)),
            Some(CHANGES_APART)
        );
    }
}
