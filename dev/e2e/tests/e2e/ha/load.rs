//! Clients that write to whichever instance answers, and remember what was acknowledged.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use tidegate_e2e::{Lab, wait};
use tidegate_proto::v1::{
    self, access_service_client::AccessServiceClient,
    inventory_service_client::InventoryServiceClient,
};
use tokio::task::JoinHandle;
use tonic::{Code, Status, transport::Channel};

/// Times that one write is tried at one instance after another.
const TRIES_MAX: usize = 2_000;
/// Databases that are there at once; older ones are deleted again.
const DATABASES_MAX: usize = 100;

/// Running clients.
pub(super) struct Load {
    shared: Arc<Shared>,
    users: JoinHandle<Result<BTreeSet<String>>>,
    roles: JoinHandle<Result<BTreeSet<String>>>,
    databases: JoinHandle<Result<Databases>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
}

/// What was acknowledged.
pub(super) struct Written {
    users: BTreeSet<String>,
    roles: BTreeSet<String>,
    pub(super) databases: Databases,
}

/// Names of databases; none is ever used again.
#[derive(Default)]
pub(super) struct Databases {
    pub(super) created: BTreeSet<String>,
    pub(super) deleted: BTreeSet<String>,
}

impl Load {
    pub(super) fn start(instances: &[Channel; 3]) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = |first: usize| Writer {
            instances: instances.to_vec(),
            next: first,
            shared: shared.clone(),
        };
        Self {
            users: tokio::spawn(writer(0).users()),
            roles: tokio::spawn(writer(1).roles()),
            databases: tokio::spawn(writer(2).databases()),
            shared,
        }
    }

    /// Waits until so many more writes are acknowledged.
    pub(super) async fn acknowledged(&self, more: usize) -> Result<()> {
        let count = || self.shared.acknowledged.load(Ordering::Relaxed);
        let wanted = count() + more;
        wait::until("writes to be acknowledged", || async {
            let now = count();
            let ended = [
                self.users.is_finished(),
                self.roles.is_finished(),
                self.databases.is_finished(),
            ];
            if now >= wanted {
                Ok(())
            } else {
                Err(format!("{now} of {wanted}; clients that ended: {ended:?}"))
            }
        })
        .await
    }

    /// Stops the clients after their last write was answered.
    pub(super) async fn stop(self) -> Result<Written> {
        self.shared.stop.store(true, Ordering::Relaxed);
        Ok(Written {
            users: self.users.await??,
            roles: self.roles.await??,
            databases: self.databases.await??,
        })
    }
}

impl Written {
    /// Checks that all of it is there, at an instance that is left.
    pub(super) async fn check(&self, lab: &Lab) -> Result<()> {
        let mut access = AccessServiceClient::new(lab.admin());
        let users = access
            .list_users(v1::ListUsersRequest {})
            .await?
            .into_inner();
        let users = users.users.into_iter().map(|user| user.name).collect();
        contains("users", &users, &self.users)?;
        let roles = access
            .list_roles(v1::ListRolesRequest {})
            .await?
            .into_inner();
        let roles = roles.roles.into_iter().map(|role| role.name).collect();
        contains("roles", &roles, &self.roles)?;
        let databases = lab.databases().await?;
        let databases: BTreeSet<String> = databases.into_iter().map(|db| db.name).collect();
        let Databases { created, deleted } = &self.databases;
        contains("databases", &databases, &(created - deleted))?;
        let undead: Vec<&String> = databases.intersection(deleted).collect();
        ensure!(undead.is_empty(), "deleted, and there: {undead:?}");
        Ok(())
    }
}

fn contains(what: &str, all: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Result<()> {
    let lost: Vec<&String> = wanted.difference(all).collect();
    ensure!(lost.is_empty(), "lost {what}: {lost:?}");
    ensure!(!wanted.is_empty(), "no {what} were written");
    Ok(())
}

struct Writer {
    instances: Vec<Channel>,
    next: usize,
    shared: Arc<Shared>,
}

impl Writer {
    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Carries out one write, at another instance when one does not answer. `done` is what an answer says when an
    /// earlier try was carried out whose answer was lost.
    async fn write<T, F>(&mut self, done: Option<Code>, send: impl Fn(Channel) -> F) -> Result<()>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut is_in_doubt = false;
        for attempt in 0.. {
            ensure!(attempt < TRIES_MAX, "no instance takes a write");
            let channel = self.instances[self.next % self.instances.len()].clone();
            match send(channel).await {
                Ok(_) => break,
                Err(status) if is_in_doubt && Some(status.code()) == done => break,
                // UNKNOWN and CANCELLED are what a connection gives that is cut.
                Err(status)
                    if matches!(
                        status.code(),
                        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
                    ) =>
                {
                    is_in_doubt = true;
                    self.next += 1;
                    tokio::task::yield_now().await;
                }
                // What met its own earlier try.
                Err(status) if is_in_doubt && status.code() == Code::Aborted => {}
                Err(status) => bail!("a write was refused: {status:?}"),
            }
        }
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn users(mut self) -> Result<BTreeSet<String>> {
        let mut written = BTreeSet::new();
        while !self.is_over() {
            let name = format!("load-{}", written.len());
            let user = v1::User {
                name: name.clone(),
                roles: vec!["access".to_owned()],
                ..v1::User::default()
            };
            self.write(Some(Code::AlreadyExists), |channel| {
                let user = Some(user.clone());
                let request = v1::CreateUserRequest { user, ttl: None };
                async move { AccessServiceClient::new(channel).create_user(request).await }
            })
            .await
            .context(name.clone())?;
            written.insert(name);
        }
        Ok(written)
    }

    async fn roles(mut self) -> Result<BTreeSet<String>> {
        let mut written = BTreeSet::new();
        while !self.is_over() {
            let name = format!("load-{}", written.len());
            let role = v1::Role {
                name: name.clone(),
                ..v1::Role::default()
            };
            self.write(None, |channel| {
                let role = Some(role.clone());
                let request = v1::UpsertRoleRequest { role };
                async move { AccessServiceClient::new(channel).upsert_role(request).await }
            })
            .await
            .context(name.clone())?;
            written.insert(name);
        }
        Ok(written)
    }

    async fn databases(mut self) -> Result<Databases> {
        let mut written = Databases::default();
        for number in 0.. {
            if self.is_over() {
                break;
            }
            let name = |number: usize| format!("load-{number}");
            let database = v1::Database {
                name: name(number),
                protocol: "postgres".to_owned(),
                uri: "load.example.com:5432".to_owned(),
                ..v1::Database::default()
            };
            self.write(Some(Code::AlreadyExists), |channel| {
                let database = Some(database.clone());
                let request = v1::CreateDatabaseRequest { database };
                async move {
                    let mut inventory = InventoryServiceClient::new(channel);
                    inventory.create_database(request).await
                }
            })
            .await
            .context(name(number))?;
            written.created.insert(name(number));
            let Some(oldest) = number.checked_sub(DATABASES_MAX) else {
                continue;
            };
            let request = v1::DeleteDatabaseRequest { name: name(oldest) };
            self.write(Some(Code::NotFound), |channel| {
                let request = request.clone();
                async move {
                    let mut inventory = InventoryServiceClient::new(channel);
                    inventory.delete_database(request).await
                }
            })
            .await
            .context(name(oldest))?;
            written.deleted.insert(name(oldest));
        }
        Ok(written)
    }
}
