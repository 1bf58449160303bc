//! A watch of all databases that goes on at another instance, after the last revision that it saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, bail, ensure};
use tidegate_e2e::{Lab, wait};
use tidegate_proto::v1::{
    self, inventory_service_client::InventoryServiceClient, watch_databases_response::Event,
};
use tokio::task::JoinHandle;
use tonic::{Code, Streaming, transport::Channel};

use super::load::Written;

/// Times in a row that no instance may give anything.
const ATTEMPTS_MAX: usize = 2_000;

/// What was seen.
#[derive(Default)]
struct Seen {
    /// The last revision that can be resumed after.
    revision: u64,
    /// Whether the first listing is done.
    is_synced: bool,
    /// Streams that were opened.
    streams: usize,
    /// What is there now, by name: its revision.
    rows: BTreeMap<String, u64>,
    /// How often each name's revision came after the listing.
    changes: BTreeMap<(String, u64), usize>,
    /// How often each name was said to be gone.
    deletions: BTreeMap<String, usize>,
}

impl Seen {
    fn take_in(&mut self, answer: v1::WatchDatabasesResponse) {
        if answer.revision > 0 {
            self.revision = answer.revision;
        }
        match answer.event {
            Some(Event::Upserted(database)) => {
                if self.is_synced {
                    let change = (database.name.clone(), database.revision);
                    *self.changes.entry(change).or_default() += 1;
                }
                self.rows.insert(database.name, database.revision);
            }
            Some(Event::Deleted(name)) => {
                self.rows.remove(&name);
                *self.deletions.entry(name).or_default() += 1;
            }
            Some(Event::Synced(_)) => self.is_synced = true,
            Some(Event::Bookmark(_)) | None => {}
        }
    }
}

/// A running watch.
pub(super) struct Follower {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<Result<()>>,
}

impl Follower {
    /// Starts it, and waits for the listing.
    pub(super) async fn start(instances: Vec<Channel>) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(follow(instances, seen.clone()));
        let follower = Self { seen, task };
        wait::until("the listing of a watch", || async {
            match follower.look(|seen| seen.is_synced) {
                true => Ok(()),
                false => Err("it is not complete"),
            }
        })
        .await?;
        Ok(follower)
    }

    fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until it shows what a listing shows, and checks that every change came, and came once.
    pub(super) async fn finish(self, lab: &Lab, written: &Written) -> Result<()> {
        wait::until("the watch to show what there is", || async {
            let listed = lab
                .databases()
                .await
                .map_err(|error| format!("{error:#}"))?;
            let listed: BTreeMap<String, u64> = listed
                .into_iter()
                .map(|database| (database.name, database.revision))
                .collect();
            let (rows, ended) = (self.look(|seen| seen.rows.clone()), self.task.is_finished());
            if rows == listed {
                Ok(())
            } else {
                let (rows, listed) = (rows.len(), listed.len());
                Err(format!(
                    "{rows} rows, and {listed} are listed; ended: {ended}"
                ))
            }
        })
        .await?;
        if self.task.is_finished() {
            self.task.await??;
            bail!("the watch ended");
        }
        self.task.abort();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let repeated: Vec<_> = seen
            .changes
            .iter()
            .filter(|(_, times)| **times != 1)
            .collect();
        ensure!(repeated.is_empty(), "changes came again: {repeated:?}");
        let repeated: Vec<_> = seen
            .deletions
            .iter()
            .filter(|(_, times)| **times != 1)
            .collect();
        ensure!(repeated.is_empty(), "deletions came again: {repeated:?}");
        let changed: BTreeSet<&String> = seen.changes.keys().map(|(name, _)| name).collect();
        let created = &written.databases.created;
        let missed: Vec<&String> = created
            .iter()
            .filter(|name| !changed.contains(name))
            .collect();
        ensure!(
            missed.is_empty(),
            "databases were created unseen: {missed:?}"
        );
        let deleted = &written.databases.deleted;
        let missed: Vec<&String> = deleted
            .iter()
            .filter(|name| !seen.deletions.contains_key(*name))
            .collect();
        ensure!(
            missed.is_empty(),
            "databases were deleted unseen: {missed:?}"
        );
        ensure!(seen.streams > 1, "the watch never had to move");
        Ok(())
    }
}

/// Follows until it is aborted; ends when it cannot go on from where it is.
async fn follow(instances: Vec<Channel>, seen: Arc<Mutex<Seen>>) -> Result<()> {
    let mut failures = 0;
    for channel in instances.iter().cycle() {
        let after_revision = seen.lock().unwrap_or_else(PoisonError::into_inner).revision;
        let request = v1::WatchDatabasesRequest {
            after_revision,
            ..v1::WatchDatabasesRequest::default()
        };
        let opened = InventoryServiceClient::new(channel.clone())
            .watch_databases(request)
            .await;
        let ended = match opened {
            Ok(stream) => {
                let before = after_revision;
                let ended = read(stream.into_inner(), &seen).await;
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.revision > before {
                    failures = 0;
                    seen.streams += 1;
                }
                ended
            }
            Err(status) => Some(status),
        };
        if let Some(status) = ended
            && matches!(status.code(), Code::OutOfRange | Code::InvalidArgument)
        {
            bail!("the watch cannot go on after {after_revision}: {status:?}");
        }
        failures += 1;
        ensure!(failures < ATTEMPTS_MAX, "no instance lets the watch go on");
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn read(
    mut stream: Streaming<v1::WatchDatabasesResponse>,
    seen: &Mutex<Seen>,
) -> Option<tonic::Status> {
    loop {
        match stream.message().await {
            Ok(Some(answer)) => seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take_in(answer),
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}
