//! Keeps up to date what the worker wants to scan.
//!
//! It follows the matchers of the file, the group's `discovery_config` resources ([`crate::configs`]) and the regions that accounts have
//! enabled ([`crate::regions`]), and tells who keeps leases and who scans of every change.
//!
//! A worker that starts while AWS does not say which regions are enabled names the scopes that the auth service
//! remembers for its matchers: not naming them would retire them, and their databases with them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tidegate_aws::AwsFailure;
use tidegate_core::{AwsMatcher, Region, Regions, ScanScope};
use tidegate_proto::{scopes, v1};
use tidegate_service::{rpc, settings::DiscoverySettings, tasks::ShutdownToken};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tonic::Status;
use tracing::{error, info, warn};

use crate::{
    configs::Configs,
    metrics::Meters,
    publish::Client,
    regions::{Caller, ListRegions, RegionBook},
    wanted::{self, Expansion},
};

/// Accounts that are asked for their regions at once.
pub(crate) const LISTS_AT_ONCE_MAX: usize = 5;
/// Longest wait for the scopes that the auth service remembers.
const RECALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What the worker wants to scan.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// In order.
    pub(crate) scopes: Arc<[ScanScope]>,
    /// Resources and regions were asked for, each once at least.
    complete: bool,
}

impl Wanted {
    /// Whether nothing more is about to come from what was asked for at the start.
    pub(crate) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The scopes as they are asked for.
    pub(crate) fn messages(&self) -> Vec<v1::ScanScope> {
        self.scopes.iter().map(Into::into).collect()
    }
}

/// What a list of regions came to.
struct Listed {
    caller: Caller,
    answer: Result<Vec<Region>, AwsFailure>,
    /// What the auth service remembers, when there is nothing else to go by.
    recalled: Option<Vec<ScanScope>>,
}

/// Computes what is wanted.
pub(crate) struct Planner {
    group: String,
    /// Of which the matchers are followed.
    settings: watch::Receiver<DiscoverySettings>,
    configs: watch::Receiver<Option<Configs>>,
    client: Client,
    lister: Arc<dyn ListRegions>,
    meters: Meters,
    wanted: watch::Sender<Wanted>,
    book: RegionBook,
    recalled: Vec<ScanScope>,
    asking: FuturesUnordered<BoxFuture<'static, Listed>>,
    left_out: usize,
}

impl Planner {
    /// Plans with the matchers of the file, until more is known; the second value is what they come to.
    pub(crate) fn new(
        group: String,
        settings: watch::Receiver<DiscoverySettings>,
        configs: watch::Receiver<Option<Configs>>,
        client: Client,
        lister: Arc<dyn ListRegions>,
        meters: Meters,
    ) -> (Self, Expansion) {
        let start = Wanted {
            scopes: Arc::new([]),
            complete: false,
        };
        let mut planner = Self {
            group,
            settings,
            configs,
            client,
            lister,
            meters,
            wanted: watch::Sender::new(start),
            book: RegionBook::default(),
            recalled: Vec::new(),
            asking: FuturesUnordered::new(),
            left_out: 0,
        };
        let expansion = planner.expand();
        planner.wanted.send_replace(Wanted {
            scopes: expansion.scopes.clone().into(),
            complete: planner.is_complete(),
        });
        (planner, expansion)
    }

    /// Tells of every change of what is wanted.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    /// Keeps it up to date, until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: ShutdownToken) {
        loop {
            self.ask_due();
            let room = self.asking.len() < LISTS_AT_ONCE_MAX;
            let next_due = self.book.next_due().filter(|_| room);
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(listed) = self.asking.next() => self.settle(listed),
                // Fails when no resources are followed; the other branches go on then.
                Ok(()) = self.configs.changed() => self.plan(),
                // Fails when nobody is left who would change them.
                Ok(()) = self.settings.changed() => self.plan(),
                () = async { sleep_until(next_due.unwrap_or_else(Instant::now)).await }, if next_due.is_some() => {}
            }
        }
    }

    fn ask_due(&mut self) {
        while self.asking.len() < LISTS_AT_ONCE_MAX {
            let Some(caller) = self.book.start_due(Instant::now()) else {
                return;
            };
            let known = self.book.known(&caller).is_some();
            let (lister, client) = (Arc::clone(&self.lister), self.client.clone());
            let group = self.group.clone();
            self.asking.push(Box::pin(async move {
                let answer = lister.list(&caller).await;
                let recalled = if answer.is_err() && !known {
                    recall(client, &group).await
                } else {
                    None
                };
                Listed {
                    caller,
                    answer,
                    recalled,
                }
            }));
        }
    }

    fn settle(&mut self, listed: Listed) {
        self.meters.regions_listed(listed.answer.is_ok());
        self.book
            .settle(&listed.caller, listed.answer, Instant::now());
        if let Some(recalled) = listed.recalled {
            self.recalled = recalled;
        }
        self.plan();
    }

    /// Expands anew, and tells when it came out otherwise than before.
    fn plan(&mut self) {
        let expansion = self.expand();
        if expansion.left_out != self.left_out {
            self.left_out = expansion.left_out;
            tell_left_out(&expansion);
        }
        let complete = self.is_complete();
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted.scopes != *expansion.scopes;
            if changed {
                info!(
                    scopes = expansion.scopes.len(),
                    before = wanted.scopes.len(),
                    "what is scanned changed"
                );
                wanted.scopes = expansion.scopes.into();
            }
            let completed = complete && !wanted.complete;
            wanted.complete |= complete;
            changed || completed
        });
    }

    fn is_complete(&self) -> bool {
        self.configs.borrow().is_some() && self.book.is_settled()
    }

    fn expand(&mut self) -> Expansion {
        let configs = self.configs.borrow_and_update().clone().unwrap_or_default();
        let matchers = self.settings.borrow_and_update().matchers.clone();
        let callers: BTreeSet<Caller> = matchers
            .iter()
            .chain(configs.values().flat_map(|matchers| matchers.iter()))
            .filter(|matcher| matcher.regions == Regions::Enabled)
            .map(|matcher| matcher.assume_role.clone())
            .collect();
        self.book.need(&callers, Instant::now());
        wanted::expand(&self.group, &matchers, &configs, |matcher, config| {
            self.book.known(&matcher.assume_role).map_or_else(
                || remembered(&self.recalled, matcher, config),
                <[Region]>::to_vec,
            )
        })
    }
}

/// The regions that a matcher had scopes in.
fn remembered(scopes: &[ScanScope], matcher: &AwsMatcher, config: Option<&str>) -> Vec<Region> {
    let regions: BTreeSet<Region> = scopes
        .iter()
        .filter(|scope| {
            scope.config.as_deref() == config
                && matcher.types.contains(&scope.kind)
                && scope.assume_role == matcher.assume_role
                && scope.tags.written() == matcher.tags.written()
                && scope.endpoints == matcher.endpoints
        })
        .map(|scope| scope.region.clone())
        .collect();
    regions.into_iter().collect()
}

/// The scopes of the group that the auth service remembers; `None` when it does not say.
async fn recall(mut client: Client, group: &str) -> Option<Vec<ScanScope>> {
    let answer = timeout(RECALL_TIMEOUT, scopes::all(&mut client))
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    match answer {
        Ok(known) => Some(
            known
                .into_iter()
                .filter_map(|status| ScanScope::try_from(status.scope?).ok())
                .filter(|scope| scope.group == group)
                .collect(),
        ),
        Err(status) => {
            warn!(
                error = rpc::describe(&status),
                "could not learn which scopes were scanned before"
            );
            None
        }
    }
}

fn tell_left_out(expansion: &Expansion) {
    if expansion.left_out == 0 {
        info!("all scan scopes fit again");
        return;
    }
    error!(
        scopes = expansion.scopes.len(),
        left_out = expansion.left_out,
        bytes = expansion.bytes,
        "the matchers make more scan scopes than one worker may have, and the last are not scanned: share them among \
         more discovery groups"
    );
}
