//! Reads databases from AWS: one file a kind.
//!
//! A fetcher puts what it reads into a [`Reading`] as it goes, so that what was seen before a failure
//! is kept, and returns an error when it could not go on. What it could not read of a single database
//! it reports with [`Reading::missed`] and goes on. It filters by the scope's tags over the full set of
//! labels, generated and from tags.
//!
//! Not here: time limits and what a failure means for the scan ([`crate::scan`]); retries and
//! time-outs of single calls (`tidegate-aws`).

mod error;
mod pages;
mod redshift;

use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use tidegate_aws::{AwsFactory, RoleChain, SessionTag};
use tidegate_core::{DatabaseKind, HostId, ScanScope};
use tidegate_service::telemetry::SaidOnce;

pub(crate) use error::FetchError;

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

/// Whether this version can scan a kind.
pub(crate) const fn is_supported(kind: DatabaseKind) -> bool {
    match kind {
        DatabaseKind::Redshift => true,
        DatabaseKind::Rds | DatabaseKind::Rdsproxy | DatabaseKind::RedshiftServerless => false,
    }
}

/// The first call that a scan of a kind makes, as a policy names it; empty when none is made.
pub(crate) const fn first_action(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Redshift => redshift::DESCRIBE_CLUSTERS,
        DatabaseKind::Rds | DatabaseKind::Rdsproxy | DatabaseKind::RedshiftServerless => "",
    }
}

/// Reads from AWS with the role of each scope.
#[derive(Debug)]
pub(crate) struct AwsFetch {
    factory: AwsFactory,
    session: SessionTag,
    strange_statuses: StrangeStatuses,
}

impl AwsFetch {
    /// Assumed-role sessions are named after the worker, so that CloudTrail tells which one scanned.
    pub(crate) fn new(factory: AwsFactory, host_id: &HostId) -> Self {
        Self {
            factory,
            session: SessionTag::new(&format!("tidegate-discovery-{host_id}")),
            strange_statuses: StrangeStatuses::default(),
        }
    }

    async fn read(&self, scope: &ScanScope, reading: &mut Reading) -> Result<(), FetchError> {
        let chain = RoleChain::new(scope.assume_role.clone(), None);
        match scope.kind {
            DatabaseKind::Redshift => {
                let client = self
                    .factory
                    .redshift(&chain, &scope.region, &self.session)
                    .await;
                redshift::fetch(&client, scope, reading, &self.strange_statuses).await
            }
            kind @ (DatabaseKind::Rds
            | DatabaseKind::Rdsproxy
            | DatabaseKind::RedshiftServerless) => Err(FetchError::Unsupported { kind }),
        }
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

/// Warns of each status that this version does not know, once.
#[derive(Debug, Default)]
struct StrangeStatuses {
    said: Mutex<SaidOnce>,
}

impl StrangeStatuses {
    fn met(&self, kind: DatabaseKind, status: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_new(&format!("{} {status}", kind.as_str())) {
            tracing::warn!(
                scope.kind = kind.as_str(),
                status,
                "unknown database status; taken for available"
            );
        }
    }
}
