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
pub(crate) mod calls;
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
mod tagging;
mod tags;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use tidegate_aws::{AwsFactory, RoleChain, SessionTag};
use tidegate_core::{DatabaseKind, ScanScope};
use tidegate_service::telemetry::SaidOnce;

pub(crate) use error::{FetchError, Viewpoint};

use self::{
    calls::Calls, clients::Clients, refusals::Refusals, status::StrangeStatuses, tags::TagCache,
};
use crate::{
    found::{Databases, Found},
    known::Comparison,
};

/// What has been read of a scope so far.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Makes every call.
    pub(crate) calls: Arc<Calls>,
    /// Somebody asked for this scan: what is remembered of tags and refusals does not count.
    pub(crate) fresh: bool,
    /// Tells whether AWS answers as it did.
    pub(crate) comparison: Comparison,
    pub(crate) found: Databases,
    /// The first database that could not be read.
    pub(crate) missed: Option<FetchError>,
    /// How many more could not be read.
    pub(crate) missed_further: usize,
    /// How many were left out because no agent could serve them, by reason.
    pub(crate) left_out: BTreeMap<&'static str, usize>,
}

impl Reading {
    /// Nothing yet.
    pub(crate) fn new(calls: Calls, fresh: bool, comparison: Comparison) -> Self {
        Self {
            calls: Arc::new(calls),
            fresh,
            comparison,
            found: Databases::new(),
            missed: None,
            missed_further: 0,
            left_out: BTreeMap::new(),
        }
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

#[cfg(test)]
impl Default for Reading {
    /// With a budget of its own.
    fn default() -> Self {
        let end = tokio::time::Instant::now() + crate::scan::SCAN_TIMEOUT;
        Self::new(
            Calls::new(Arc::default(), end),
            false,
            Comparison::default(),
        )
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
    said: Mutex<SaidOnce>,
    refusals: Refusals,
    statuses: StrangeStatuses,
    tags: TagCache,
}

impl Memory {
    /// Tells of what a scan left out: each reason once, later counts for those who look for them.
    fn tell_left_out(&self, scope: &ScanScope, left_out: &BTreeMap<&'static str, usize>) {
        let (kind, region) = (scope.kind.as_str(), scope.region.as_str());
        for (reason, count) in left_out {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
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
    /// Assumed-role sessions are named as `session` says.
    pub(crate) fn new(factory: AwsFactory, session: SessionTag) -> Self {
        Self {
            factory,
            session,
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
                let tagging = clients.tagging(factory, &chain, &scope.region, session);
                let tagging = tagging.await;
                redshift_serverless::fetch(&client, &tagging, scope, reading, memory).await
            }
        };
        memory.tell_left_out(scope, &reading.left_out);
        let failure = read.as_ref().err().or(reading.missed.as_ref());
        let role = scope.assume_role.as_ref();
        if failure.is_some_and(|failure| failure.refuses_credentials(role)) {
            factory.refused(&chain, session);
        }
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
pub(crate) mod testing;
