//! Reads databases from AWS: one file a kind.
//!
//! A fetcher puts what it reads into a [`Reading`] as it goes, so that what was seen before a failure
//! is kept, and returns an error when it could not go on. What it could not read of a single database
//! it reports with [`Reading::missed`] and goes on. What every kind does the same way — labels, the
//! scope's filters, names, addresses — is in [`draft`].
//!
//! A call that some endpoints need and that no policy allows takes away those endpoints and nothing
//! else: what was found without it is published, and deletions wait only where it could have told of
//! something ([`redshift`] says how that is known).
//!
//! Not here: time limits and what a failure means for the scan ([`crate::scan`]); retries and
//! time-outs of single calls (`tidegate-aws`).

mod arn;
mod clients;
mod draft;
mod error;
mod pages;
mod rds;
mod rdsproxy;
mod redshift;
mod redshift_serverless;
mod refusals;
pub(crate) mod regions;
mod status;
mod tags;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use futures::future::BoxFuture;
use tidegate_aws::{AwsFactory, RoleChain, SessionTag};
use tidegate_core::{DatabaseKind, HostId, ScanScope};
use tidegate_service::telemetry::SaidOnce;

pub(crate) use error::FetchError;

use self::{clients::Clients, refusals::Refusals, status::StrangeStatuses, tags::TagCache};
use crate::found::{Databases, Found};

/// What has been read of a scope so far.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) found: Databases,
    /// The first database that could not be read.
    pub(crate) missed: Option<FetchError>,
    /// How many more could not be read.
    pub(crate) missed_further: usize,
    /// Calls to AWS, not counting retries within one call and role assumption.
    pub(crate) aws_calls: u32,
    /// How many were left out because no agent could serve them, by reason.
    pub(crate) left_out: BTreeMap<&'static str, usize>,
}

impl Reading {
    /// A call is about to be made.
    pub(crate) fn called(&mut self) {
        self.aws_calls = self.aws_calls.saturating_add(1);
    }

    /// A database was read. Of two with one identity (a list that moved between pages) the later counts.
    pub(crate) fn found(&mut self, found: Found) {
        self.found.insert(found.database.identity.clone(), found);
    }

    /// A database is there and could not be read: the scan is not complete.
    pub(crate) fn missed(&mut self, error: FetchError) {
        if self.missed.is_none() {
            self.missed = Some(error);
        } else {
            self.missed_further += 1;
        }
    }

    /// What became of one endpoint.
    fn take(&mut self, found: Result<Option<Found>, FetchError>) {
        match found {
            Ok(Some(found)) => self.found(found),
            Ok(None) => {}
            Err(error) => self.missed(error),
        }
    }

    /// Something is there that no agent could serve: it is no database here, and no doubt either.
    fn left_out(&mut self, reason: &'static str) {
        *self.left_out.entry(reason).or_default() += 1;
    }
}

/// Reads one scope.
pub(crate) trait Fetch: Send + Sync + 'static {
    /// Reads all of `scope` into `reading`; an error ends it early.
    fn fetch<'f>(
        &'f self,
        scope: &'f ScanScope,
        reading: &'f mut Reading,
    ) -> BoxFuture<'f, Result<(), FetchError>>;
}

/// The first call that a scan of a kind makes, as a policy names it.
pub(crate) const fn first_action(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Rds => rds::DESCRIBE_INSTANCES,
        DatabaseKind::Rdsproxy => rdsproxy::DESCRIBE_PROXIES,
        DatabaseKind::Redshift => redshift::DESCRIBE_CLUSTERS,
        DatabaseKind::RedshiftServerless => redshift_serverless::LIST_WORKGROUPS,
    }
}

/// What is remembered from scan to scan.
#[derive(Debug, Default)]
struct Memory {
    left_out: Mutex<SaidOnce>,
    refusals: Refusals,
    statuses: StrangeStatuses,
    tags: TagCache,
}

impl Memory {
    /// Tells of what a scan left out: each reason once, later counts for those who look for them.
    fn tell_left_out(&self, scope: &ScanScope, left_out: &BTreeMap<&'static str, usize>) {
        let (kind, region) = (scope.kind.as_str(), scope.region.as_str());
        for (reason, count) in left_out {
            let mut said = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
            if said.is_new(reason) {
                tracing::info!(
                    scope.kind = kind,
                    cloud.region = region,
                    count,
                    reason,
                    "left out what cannot be served"
                );
            } else {
                tracing::debug!(
                    scope.kind = kind,
                    cloud.region = region,
                    count,
                    reason,
                    "left out what cannot be served"
                );
            }
        }
    }
}

/// Reads from AWS with the role of each scope.
#[derive(Debug)]
pub(crate) struct AwsFetch {
    factory: AwsFactory,
    session: SessionTag,
    clients: Clients,
    memory: Memory,
}

impl AwsFetch {
    /// Assumed-role sessions are named after the worker, so that CloudTrail tells which one scanned.
    pub(crate) fn new(factory: AwsFactory, host_id: &HostId) -> Self {
        Self {
            factory,
            session: SessionTag::new(&format!("tidegate-discovery-{host_id}")),
            clients: Clients::default(),
            memory: Memory::default(),
        }
    }

    async fn read(&self, scope: &ScanScope, reading: &mut Reading) -> Result<(), FetchError> {
        let chain = RoleChain::new(scope.assume_role.clone(), None);
        let (factory, session) = (&self.factory, &self.session);
        let (clients, memory) = (&self.clients, &self.memory);
        let read = match scope.kind {
            DatabaseKind::Rds => {
                let client = clients.rds(factory, &chain, &scope.region, session).await;
                rds::fetch(&client, scope, reading, memory).await
            }
            DatabaseKind::Rdsproxy => {
                let client = clients.rds(factory, &chain, &scope.region, session).await;
                rdsproxy::fetch(&client, scope, reading, memory).await
            }
            DatabaseKind::Redshift => {
                let client = factory.redshift(&chain, &scope.region, session).await;
                redshift::fetch(&client, scope, reading, memory).await
            }
            DatabaseKind::RedshiftServerless => {
                let client = clients
                    .serverless(factory, &chain, &scope.region, session)
                    .await;
                redshift_serverless::fetch(&client, scope, reading, memory).await
            }
        };
        memory.tell_left_out(scope, &reading.left_out);
        read
    }
}

impl Fetch for AwsFetch {
    fn fetch<'f>(
        &'f self,
        scope: &'f ScanScope,
        reading: &'f mut Reading,
    ) -> BoxFuture<'f, Result<(), FetchError>> {
        Box::pin(self.read(scope, reading))
    }
}

#[cfg(test)]
mod testing;
