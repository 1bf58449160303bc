//! Which agents serve which route: a local copy of the inventory's database servers, kept current by a watch.
//!
//! Lookups touch one entry, and so do changes: nothing walks or copies the whole. While the control plane is away the
//! last known state goes on serving; a full listing is built aside and takes its place in one step.
//!
//! Invariant: a route that stands for more than one database is never guessed.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use tidegate_core::{HealthStatus, HostId};
use tidegate_proto::v1::{
    DatabaseServer, DatabaseServerKey, WatchDatabaseServersRequest, WatchDatabaseServersResponse,
    inventory_service_client::InventoryServiceClient, watch_database_servers_response::Event,
};
use tidegate_service::{
    admin::ComponentHandle,
    host::HostHandle,
    rpc::{self, Backoff},
    tasks::ShutdownToken,
};
use tidegate_wire::route::route_label;
use tonic::{Code, Status};
use tracing::{debug, info, warn};

/// How long a connection attempt may take before it counts as failed.
const WATCH_OPEN_MAX: Duration = Duration::from_secs(15);

/// One agent that serves one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) database: Arc<str>,
    pub(crate) host_id: HostId,
    pub(crate) health: HealthStatus,
}

/// What a route stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// More than one database.
    Ambiguous,
    /// Nothing was ever heard from the inventory.
    NotSynced,
    /// One database, served by these.
    Served(Arc<[Server]>),
    /// No database.
    Unknown,
}

type Routes = HashMap<Box<str>, Arc<[Server]>>;

/// The routes that are known; `None` before the first listing.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    routes: RwLock<Option<Routes>>,
}

impl Directory {
    /// Looks a route up.
    pub(crate) fn lookup(&self, route: &str) -> Lookup {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(routes) = routes.as_ref() else {
            return Lookup::NotSynced;
        };
        match routes.get(route) {
            None => Lookup::Unknown,
            Some(servers)
                if servers
                    .iter()
                    .any(|one| one.database != servers[0].database) =>
            {
                Lookup::Ambiguous
            }
            Some(servers) => Lookup::Served(Arc::clone(servers)),
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Routes>> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn upsert(routes: &mut Routes, server: Server) {
    let entry = routes
        .entry(route_label(&server.database).into_boxed_str())
        .or_insert_with(|| Arc::new([]));
    let others = entry
        .iter()
        .filter(|one| (&one.database, &one.host_id) != (&server.database, &server.host_id));
    *entry = others.cloned().chain([server.clone()]).collect();
}

fn remove(routes: &mut Routes, database: &str, host_id: &str) {
    let route = route_label(database);
    let Some(entry) = routes.get_mut(route.as_str()) else {
        return;
    };
    *entry = entry
        .iter()
        .filter(|one| (&*one.database, one.host_id.as_str()) != (database, host_id))
        .cloned()
        .collect();
    if entry.is_empty() {
        routes.remove(route.as_str());
    }
}

/// How far the watch is.
#[derive(Debug, Default)]
struct Cursor {
    /// A listing under way; it replaces what is known once it is whole.
    staged: Option<Routes>,
    /// Everything up to here is known; 0 is nothing.
    revision: u64,
}

impl Cursor {
    /// What to ask for next: the changes since, or everything.
    fn open(&mut self) -> WatchDatabaseServersRequest {
        self.staged = (self.revision == 0).then(Routes::new);
        WatchDatabaseServersRequest {
            after_revision: self.revision,
        }
    }

    /// Takes one event in; `true` when everything up to a revision is known now.
    ///
    /// Several changes may share a revision, so that a change alone says only that the revision before it is done.
    fn apply(&mut self, directory: &Directory, response: WatchDatabaseServersResponse) -> bool {
        match response.event {
            Some(Event::Upserted(server)) => match read(server) {
                Ok(server) => self.change(directory, |routes| upsert(routes, server)),
                Err(problem) => warn!(problem, "ignored a database server that cannot be read"),
            },
            Some(Event::Deleted(DatabaseServerKey { database, host_id })) => {
                self.change(directory, |routes| remove(routes, &database, &host_id));
            }
            Some(Event::Synced(_) | Event::Bookmark(_)) => {
                if let Some(staged) = self.staged.take() {
                    *directory.write() = Some(staged);
                }
                self.revision = self.revision.max(response.revision);
                return true;
            }
            None => {}
        }
        if self.staged.is_none() {
            self.revision = self.revision.max(response.revision.saturating_sub(1));
        }
        false
    }

    fn change(&mut self, directory: &Directory, change: impl FnOnce(&mut Routes)) {
        match &mut self.staged {
            Some(staged) => change(staged),
            None => change(directory.write().get_or_insert_with(Routes::new)),
        }
    }

    /// Decides after a failure: history that is gone means a new listing.
    fn failed(&mut self, status: &Status) {
        self.staged = None;
        if status.code() == Code::OutOfRange {
            self.revision = 0;
        }
    }
}

fn read(server: DatabaseServer) -> Result<Server, String> {
    let database = server.database.map(|database| database.name);
    let health = server.target_health.unwrap_or_default().status;
    Ok(Server {
        database: database
            .filter(|name| !name.is_empty())
            .ok_or("it names no database")?
            .into(),
        host_id: server.host_id.parse().map_err(|error| format!("{error}"))?,
        health: match health.as_str() {
            "healthy" => HealthStatus::Healthy,
            "unhealthy" => HealthStatus::Unhealthy,
            _ => HealthStatus::Unknown,
        },
    })
}

/// Keeps the directory current until shutdown. Ready from the first whole listing on.
pub(crate) async fn watch(
    directory: Arc<Directory>,
    host: HostHandle,
    ready: ComponentHandle,
    shutdown: ShutdownToken,
) {
    let mut cursor = Cursor::default();
    let mut backoff = Backoff::new();
    let mut away = false;
    ready.not_ready("the inventory has not been read yet");
    loop {
        let mut on_synced = || {
            ready.ready();
            if mem::take(&mut away) {
                info!("watching the inventory again");
            }
        };
        let followed = tokio::select! {
            () = shutdown.cancelled() => return,
            followed = follow(&directory, &host, &mut cursor, &mut backoff, &mut on_synced) => followed,
        };
        let status = followed
            .err()
            .unwrap_or_else(|| Status::unavailable("the watch ended"));
        cursor.failed(&status);
        if mem::replace(&mut away, true) {
            debug!(
                error = rpc::describe(&status),
                "cannot watch the inventory yet"
            );
        } else {
            warn!(
                error = rpc::describe(&status),
                "lost the watch on the inventory; serving from what is known"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
}

async fn follow(
    directory: &Directory,
    host: &HostHandle,
    cursor: &mut Cursor,
    backoff: &mut Backoff,
    on_synced: &mut impl FnMut(),
) -> Result<(), Status> {
    let mut client = InventoryServiceClient::new(host.auth_channel());
    let open = client.watch_database_servers(cursor.open());
    let mut events = tokio::time::timeout(WATCH_OPEN_MAX, open)
        .await
        .map_err(|_| Status::deadline_exceeded("no answer to the watch"))??
        .into_inner();
    while let Some(event) = events.message().await? {
        if cursor.apply(directory, event) {
            backoff.reset();
            on_synced();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{Bookmark, Database, Synced, TargetHealth};

    use super::*;

    fn upserted(
        revision: u64,
        database: &str,
        host: &str,
        health: &str,
    ) -> WatchDatabaseServersResponse {
        event(
            revision,
            Event::Upserted(DatabaseServer {
                host_id: host.to_owned(),
                database: Some(Database {
                    name: database.to_owned(),
                    ..Database::default()
                }),
                target_health: Some(TargetHealth {
                    status: health.to_owned(),
                    ..TargetHealth::default()
                }),
                ..DatabaseServer::default()
            }),
        )
    }

    fn deleted(revision: u64, database: &str, host: &str) -> WatchDatabaseServersResponse {
        let (database, host_id) = (database.to_owned(), host.to_owned());
        event(
            revision,
            Event::Deleted(DatabaseServerKey { database, host_id }),
        )
    }

    fn event(revision: u64, event: Event) -> WatchDatabaseServersResponse {
        WatchDatabaseServersResponse {
            revision,
            event: Some(event),
        }
    }

    fn synced(revision: u64) -> WatchDatabaseServersResponse {
        event(revision, Event::Synced(Synced {}))
    }

    fn listed(
        events: impl IntoIterator<Item = WatchDatabaseServersResponse>,
    ) -> (Directory, Cursor) {
        let (directory, mut cursor) = (Directory::default(), Cursor::default());
        cursor.open();
        for event in events {
            cursor.apply(&directory, event);
        }
        (directory, cursor)
    }

    fn hosts(directory: &Directory, route: &str) -> Vec<String> {
        match directory.lookup(route) {
            Lookup::Served(servers) => {
                let mut hosts: Vec<_> = servers.iter().map(|one| one.host_id.to_string()).collect();
                hosts.sort();
                hosts
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn nothing_is_known_until_a_listing_is_whole() {
        let (directory, mut cursor) = listed([upserted(5, "orders", "a", "healthy")]);
        assert_eq!(directory.lookup("orders"), Lookup::NotSynced);
        assert!(cursor.apply(&directory, synced(5)));
        assert_eq!(hosts(&directory, "orders"), ["a"]);
        assert_eq!(directory.lookup("users"), Lookup::Unknown);
    }

    #[test]
    fn changes_apply_to_one_server_of_one_route() {
        let (directory, mut cursor) = listed([
            upserted(1, "orders", "a", "healthy"),
            upserted(2, "orders", "b", "unknown"),
            synced(2),
        ]);
        cursor.apply(&directory, upserted(3, "orders", "a", "unhealthy"));
        let Lookup::Served(servers) = directory.lookup("orders") else {
            panic!("not served")
        };
        assert_eq!(servers.len(), 2);
        assert!(
            servers
                .iter()
                .any(|one| one.host_id.as_str() == "a" && one.health == HealthStatus::Unhealthy)
        );
        cursor.apply(&directory, deleted(4, "orders", "a"));
        assert_eq!(hosts(&directory, "orders"), ["b"]);
        cursor.apply(&directory, deleted(5, "orders", "b"));
        assert_eq!(directory.lookup("orders"), Lookup::Unknown);
    }

    #[test]
    fn a_route_of_two_databases_is_never_guessed() {
        let (directory, _) = listed([
            upserted(1, "Orders", "a", "healthy"),
            upserted(2, "orders", "b", "healthy"),
            synced(2),
        ]);
        assert_eq!(directory.lookup("orders"), Lookup::Ambiguous);
    }

    #[test]
    fn a_watch_resumes_without_losing_half_a_revision() {
        let (directory, mut cursor) = listed([synced(10)]);
        cursor.apply(&directory, upserted(12, "orders", "a", "healthy"));
        assert_eq!(cursor.open().after_revision, 11);
        cursor.apply(&directory, event(12, Event::Bookmark(Bookmark {})));
        assert_eq!(cursor.open().after_revision, 12);
    }

    #[test]
    fn history_that_is_gone_means_a_new_listing_while_the_old_one_serves() {
        let (directory, mut cursor) = listed([upserted(1, "orders", "a", "healthy"), synced(1)]);

        cursor.failed(&Status::unavailable("away"));
        assert_eq!(cursor.open().after_revision, 1);
        cursor.failed(&Status::out_of_range("compacted"));
        assert_eq!(cursor.open().after_revision, 0);
        cursor.apply(&directory, upserted(9, "users", "b", "healthy"));

        assert_eq!(hosts(&directory, "orders"), ["a"]);
        cursor.apply(&directory, synced(9));
        assert_eq!(directory.lookup("orders"), Lookup::Unknown);
        assert_eq!(hosts(&directory, "users"), ["b"]);
    }

    #[test]
    fn a_listing_that_breaks_off_changes_nothing() {
        let (directory, mut cursor) = listed([upserted(1, "orders", "a", "healthy"), synced(1)]);
        cursor.failed(&Status::out_of_range("compacted"));
        cursor.open();
        cursor.apply(&directory, upserted(9, "users", "b", "healthy"));
        cursor.failed(&Status::unavailable("away"));

        assert_eq!(hosts(&directory, "orders"), ["a"]);
        assert_eq!(cursor.open().after_revision, 0);
    }
}
