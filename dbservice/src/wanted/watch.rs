//! Follows the settings, the inventory, and what else is learned of databases, and serves what [`decide`] says.
//!
//! Each source names the databases of which something changed, and only those are decided on. While the auth service
//! is away, the last known state goes on being served; new settings count at once nevertheless.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt, TryStreamExt,
    future::Either,
    stream::{self, BoxStream},
};
use tidegate_core::{Database, DatabaseName, Selector};
use tidegate_proto::v1::{self, AuditEvent, inventory_service_client::InventoryServiceClient};
use tidegate_service::{
    clock::SharedClock,
    rpc::{self, MESSAGE_BYTES_MAX},
    settings::DatabaseSettings,
    tasks::ShutdownToken,
};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};
use tracing::{debug, error, info, warn};

use super::{Decision, Facts, Refusal, Rules, Written, decide, mirror::Mirror};
use crate::{
    audit::{self, AuditQueue, Kind, Subject},
    labels::Labelled,
    metrics::ServiceMetrics,
    names::Names,
    retry::Retry,
    served::ServedSet,
};

/// Changes that arrive within this time are planned together.
const SETTLE: Duration = Duration::from_millis(20);

/// Changes that are planned together at most.
const TOGETHER_MAX: usize = 1024;

/// Refusals that wait for room in the audit queue.
const TO_AUDIT_MAX: usize = 1024;

/// Messages of the inventory that are planned together.
type Batch = Vec<Result<v1::WatchDatabasesResponse, Status>>;

/// Keeps the served set what settings, inventory and facts want.
pub(crate) struct Reconciler {
    settings: watch::Receiver<DatabaseSettings>,
    /// Databases of the file.
    statics: BTreeMap<DatabaseName, Arc<Database>>,
    rules: Rules,
    mirror: Mirror,
    /// What commands say of the labels of databases of the file.
    labels: Arc<Labelled>,
    facts: Arc<dyn Facts>,
    again: Arc<Names>,
    served: Arc<ServedSet>,
    /// What was picked up and is not served, as it was told last.
    refused: BTreeMap<DatabaseName, Refusal>,
    /// What audit has not taken yet.
    to_audit: VecDeque<AuditEvent>,
    audit: AuditQueue,
    metrics: ServiceMetrics,
    clock: SharedClock,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").finish_non_exhaustive()
    }
}

/// What new settings ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selectors {
    /// The same databases of the inventory.
    Same,
    /// Other ones.
    Other,
}

impl Reconciler {
    /// Serves the databases of the settings at once.
    ///
    /// Databases whose names are added to `again` are decided on again: `labels` and `facts` know something new.
    pub(crate) fn new(
        settings: watch::Receiver<DatabaseSettings>,
        labels: Arc<Labelled>,
        facts: Arc<dyn Facts>,
        again: Arc<Names>,
        served: Arc<ServedSet>,
        audit: AuditQueue,
        metrics: ServiceMetrics,
        clock: SharedClock,
    ) -> Self {
        let mut reconciler = Self {
            settings,
            statics: BTreeMap::new(),
            rules: Rules::new(Vec::new()),
            mirror: Mirror::default(),
            labels,
            facts,
            again,
            served,
            refused: BTreeMap::new(),
            to_audit: VecDeque::new(),
            audit,
            metrics,
            clock,
        };
        reconciler.take_settings();
        reconciler
    }

    /// Follows everything until shutdown.
    pub(crate) async fn follow(mut self, channel: Channel, shutdown: ShutdownToken) {
        let mut retry = Retry::new();
        let mut messages = self.watch(&channel, Duration::ZERO);
        retry.begin();
        // It has seen what this has, so a change since the first look is still to be told.
        let mut settings = self.settings.clone();
        let again = Arc::clone(&self.again);
        loop {
            // A sender of settings that is gone sends no other ones.
            let changed = settings.changed().then(|changed| match changed {
                Ok(()) => Either::Left(std::future::ready(())),
                Err(_) => Either::Right(std::future::pending()),
            });
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed => {
                    if self.take_settings() == Selectors::Other {
                        messages = self.watch(&channel, Duration::ZERO);
                        retry.begin();
                    }
                }
                names = again.next() => self.reconcile(names),
                batch = messages.next() => match self.take_in(batch.unwrap_or_default()) {
                    Ok(()) => retry.succeeded(),
                    Err(status) => {
                        self.watch_ended(&status, &mut retry);
                        messages = self.watch(&channel, retry.delay());
                    }
                },
            }
        }
    }

    /// Takes the settings as they are now: decides on what they say otherwise than before.
    fn take_settings(&mut self) -> Selectors {
        let settings = self.settings.borrow_and_update().clone();
        let mut changed = BTreeSet::new();
        let mut statics = BTreeMap::new();
        for database in settings.databases {
            let name = database.name.clone();
            let database = match self.statics.remove(&name) {
                Some(then) if *then == database => then,
                _ => {
                    changed.insert(name.clone());
                    Arc::new(database)
                }
            };
            statics.insert(name, database);
        }
        let gone = std::mem::replace(&mut self.statics, statics);
        changed.extend(gone.into_keys());
        changed.extend(self.labels.run(&settings.label_commands));
        let selectors = |entries: &[_]| -> Vec<Selector> {
            let labels = |entry: &tidegate_core::ResourceMatcher| entry.labels.clone();
            entries.iter().map(labels).collect()
        };
        let is_same = selectors(self.rules.entries()) == selectors(&settings.resources);
        if self.rules.entries() != settings.resources {
            self.rules = Rules::new(settings.resources);
            changed.extend(self.mirror.names().cloned());
        }
        if self.rules.entries().is_empty() {
            self.mirror.forget(&mut changed);
        } else if !is_same {
            self.mirror.list_again();
        }
        self.reconcile(changed);
        if is_same {
            Selectors::Same
        } else {
            Selectors::Other
        }
    }

    /// Decides on these databases, and serves what was decided.
    fn reconcile(&mut self, names: BTreeSet<DatabaseName>) {
        let mut decided = Vec::with_capacity(names.len());
        for name in names {
            let Decision { wanted, refusal } = self.decide(&name);
            match refusal {
                Some(refusal) if self.refused.get(&name) != Some(&refusal) => {
                    self.refuse(&name, &refusal);
                    self.refused.insert(name.clone(), refusal);
                }
                Some(_) => {}
                None => drop(self.refused.remove(&name)),
            }
            decided.push((name, wanted));
        }
        self.tell_audit();
        self.served.apply(decided);
        let served = i64::try_from(self.served.len()).unwrap_or(i64::MAX);
        self.metrics.databases_served.set(served);
    }

    /// Says why a database is not served, and for an address that cannot be right to audit too.
    fn refuse(&mut self, name: &DatabaseName, refusal: &Refusal) {
        match refusal {
            Refusal::Awaited => debug!(db.name = %name, "{refusal}"),
            Refusal::Endpoint(_) => {
                error!(db.name = %name, error = %refusal, "refusing to serve a database whose address cannot be right");
                if self.to_audit.len() >= TO_AUDIT_MAX {
                    self.to_audit.pop_front();
                    warn!("too many refusals at once; not all of them are audited");
                }
                let subject = Subject {
                    db_service: name.to_string(),
                    ..Subject::default()
                };
                let event = AuditEvent {
                    error: refusal.to_string(),
                    ..audit::event(Kind::EndpointRefused, &subject, self.clock.now())
                };
                self.to_audit.push_back(event);
            }
            Refusal::Shadowed => {
                warn!(db.name = %name, error = %refusal, "a database is not served");
            }
        }
    }

    /// Hands over what audit takes now: nothing here waits for it, and the rest goes with the next decisions.
    fn tell_audit(&mut self) {
        while let Some(event) = self.to_audit.pop_front() {
            if !self.audit.takes_statements() || !self.audit.try_put(|| event.clone()) {
                self.to_audit.push_front(event);
                return;
            }
        }
    }

    fn decide(&self, name: &DatabaseName) -> Decision {
        let own = self.statics.get(name);
        let written = own.and_then(|own| self.written(own));
        if own.is_some() && written.is_none() {
            // Its labels say who may use it, so it waits for them; and its name is taken all the same.
            return Decision::default();
        }
        let found = self.mirror.get(name);
        let decision = decide(written.as_ref(), found, &self.rules, &*self.facts);
        if decision == Decision::default() {
            self.facts.forget(name);
        }
        decision
    }

    /// A database of the file with the labels that its commands gave it; `None` before they have run.
    fn written(&self, own: &Arc<Database>) -> Option<Written> {
        let Some(shown) = self.labels.of(&own.name) else {
            return Some(Written {
                database: Arc::clone(own),
                remarks: Vec::new(),
            });
        };
        if !shown.is_ready() {
            return None;
        }
        let mut database = Database::clone(own);
        for (label, value) in shown.values() {
            database.labels.insert(label, value);
        }
        Some(Written {
            database: Arc::new(database),
            remarks: shown.remarks(),
        })
    }

    /// Watches the inventory after a while, from where the mirror is. Without selectors there is nothing to watch.
    fn watch(&mut self, channel: &Channel, after: Duration) -> BoxStream<'static, Batch> {
        if self.rules.entries().is_empty() {
            return Box::pin(stream::pending());
        }
        let request = v1::WatchDatabasesRequest {
            selectors: self
                .rules
                .entries()
                .iter()
                .map(|entry| entry.labels.clone().into())
                .collect(),
            after_revision: self.mirror.resume_after(),
        };
        self.mirror.watch_began();
        let mut client = InventoryServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opening = async move {
            tokio::time::sleep(after).await;
            let answer = client.watch_databases(request).await?;
            Ok::<_, Status>(answer.into_inner())
        };
        let ended = stream::iter([Err(Status::unavailable("the auth service ended the watch"))]);
        let messages = futures::StreamExt::chain(stream::once(opening).try_flatten(), ended);
        Box::pin(messages.chunks_timeout(TOGETHER_MAX, SETTLE))
    }

    fn watch_ended(&mut self, status: &Status, retry: &mut Retry) {
        let cause = if status.code() == Code::OutOfRange {
            self.mirror.list_again();
            info!("the inventory's history is gone; listing it in full");
            "history is gone".to_owned()
        } else {
            rpc::describe(status)
        };
        if retry.failed(&cause) {
            warn!(
                error = cause,
                databases = self.served.len(),
                "cannot watch the inventory; serving what was last known"
            );
        }
    }

    /// Applies messages up to the end of the stream, which is an error however it came about.
    fn take_in(&mut self, batch: Batch) -> Result<(), Status> {
        let mut changed = BTreeSet::new();
        let mut ended = Ok(());
        for message in batch {
            match message {
                Err(status) => {
                    ended = Err(status);
                    break;
                }
                Ok(message) => {
                    if let Err(misunderstood) = self.mirror.apply(message, &mut changed) {
                        error!(db.name = misunderstood.name, error = %misunderstood.invalid, "a database of the inventory cannot be understood; it is not served");
                    }
                }
            }
        }
        if !changed.is_empty() {
            self.reconcile(changed);
        }
        ended
    }
}

#[cfg(test)]
mod tests;
