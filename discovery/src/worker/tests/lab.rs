//! A worker in a laboratory: its AWS and its auth service are in memory, and paused time is the only clock.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tidegate_aws::{AwsErrorClass, AwsFailure};
use tidegate_core::{
    AwsMatcher, DatabaseKind, EndpointFilter, Region, Regions, ScanScope, Selector,
};
use tidegate_proto::v1::{self, discovery_service_server::DiscoveryServiceServer};
use tidegate_service::clock::SystemClock;
use tokio::{io::duplex, sync::mpsc, time::Instant};
use tonic::transport::{Endpoint, Server};

use super::{
    super::*,
    fake::{Event, Fake, FakeService, Pipe, State},
};
use crate::{
    fetch::{FetchError, Reading, regions::LIST_REGIONS},
    regions::Caller,
};

pub(super) const POLL: Duration = Duration::from_secs(300);
/// How long a call lasts that is not answered.
const HANG: Duration = Duration::from_secs(30);

/// What AWS returns by region; an error where nothing is set.
#[derive(Clone, Default)]
pub(super) struct FakeAws {
    pub(super) regions: Arc<Mutex<HashMap<String, Vec<&'static str>>>>,
    pub(super) scans: Arc<Mutex<Vec<String>>>,
    /// Of each scan: whether somebody asked for it.
    pub(super) asked_for: Arc<Mutex<Vec<bool>>>,
    /// Of each scan that ended well: whether AWS answered as to the one before, so that nothing was read.
    pub(super) same: Arc<Mutex<Vec<bool>>>,
    /// How long a scan takes.
    pub(super) delay: Duration,
    /// Regions in which a scan takes half a minute, and fails.
    pub(super) hung: Arc<Mutex<HashSet<String>>>,
    pub(super) at_once: Arc<Mutex<(usize, usize)>>,
}

impl FakeAws {
    pub(super) fn with(regions: &[(&str, &[&'static str])]) -> Self {
        let regions = regions
            .iter()
            .map(|(region, ids)| ((*region).to_owned(), ids.to_vec()))
            .collect();
        Self {
            regions: Arc::new(Mutex::new(regions)),
            ..Self::default()
        }
    }

    pub(super) fn set(&self, region: &str, ids: &[&'static str]) {
        let mut regions = self.regions.lock().unwrap();
        regions.insert(region.to_owned(), ids.to_vec());
    }

    pub(super) fn scanned(&self, region: &str) -> usize {
        let scans = self.scans.lock().unwrap();
        scans.iter().filter(|scanned| *scanned == region).count()
    }
}

impl Fetch for FakeAws {
    fn fetch<'f>(
        &'f self,
        scope: &'f ScanScope,
        reading: &'f mut Reading,
    ) -> BoxFuture<'f, Result<(), FetchError>> {
        Box::pin(async move {
            let region = scope.region.to_string();
            self.scans.lock().unwrap().push(region.clone());
            self.asked_for.lock().unwrap().push(reading.fresh);
            reading.calls.start("redshift:DescribeClusters").await?;
            {
                let mut at_once = self.at_once.lock().unwrap();
                at_once.0 += 1;
                at_once.1 = at_once.1.max(at_once.0);
            }
            let hangs = self.hung.lock().unwrap().contains(&region);
            tokio::time::sleep(if hangs { HANG } else { self.delay }).await;
            self.at_once.lock().unwrap().0 -= 1;
            let ids = self.regions.lock().unwrap().get(&region).cloned();
            let ids = ids.filter(|_| !hangs).ok_or(FetchError::RepeatedMarker {
                action: "a:List",
                pages: 1,
            })?;
            let comparison = &mut reading.comparison;
            comparison.answers.hear(ids.join(" ").as_bytes());
            comparison.goes_on(false);
            let same = comparison.ends_the_same();
            self.same.lock().unwrap().push(same);
            for id in ids.into_iter().filter(|_| !same) {
                reading.found(database(id));
            }
            Ok(())
        })
    }
}

fn database(id: &str) -> crate::found::Found {
    let name = crate::found::NameBase {
        base: id.to_owned(),
        tagged: false,
        endpoint: String::new(),
        suffix: Vec::new(),
    };
    let database = tidegate_core::Database {
        name: name.likely(id),
        description: String::new(),
        labels: tidegate_core::Labels::new(),
        origin: tidegate_core::Origin::Cloud,
        protocol: tidegate_core::Protocol::Postgres,
        uri: "h:5439".parse().unwrap(),
        tls: tidegate_core::TlsSettings::default(),
        aws: tidegate_core::AwsMetadata::default(),
        kind: Some(DatabaseKind::Redshift),
        identity: id.to_owned(),
        discovered_name: id.to_owned(),
        unavailable: String::new(),
    };
    crate::found::Found {
        database,
        name,
        tags_unknown: false,
    }
}

/// Regions as an account has them, by role.
#[derive(Clone, Default)]
pub(super) struct FakeRegions {
    pub(super) enabled: Arc<Mutex<Option<Vec<&'static str>>>>,
    pub(super) asked: Arc<Mutex<usize>>,
}

impl FakeRegions {
    /// What AWS answers from here on; `None` is a denial.
    pub(super) fn set(&self, regions: Option<&[&'static str]>) {
        *self.enabled.lock().unwrap() = regions.map(<[_]>::to_vec);
    }
}

impl ListRegions for FakeRegions {
    fn list<'f>(&'f self, _caller: &'f Caller) -> BoxFuture<'f, Result<Vec<Region>, AwsFailure>> {
        *self.asked.lock().unwrap() += 1;
        let enabled = self.enabled.lock().unwrap().clone();
        let denied = || AwsFailure::new(AwsErrorClass::AccessDenied, LIST_REGIONS, "no");
        let regions = enabled
            .map(|names| names.iter().map(|name| name.parse().unwrap()).collect())
            .ok_or_else(denied);
        Box::pin(async move { regions })
    }
}

/// A worker, its AWS and its auth service.
pub(super) struct Lab {
    pub(super) fake: Arc<Fake>,
    pub(super) events: mpsc::UnboundedReceiver<(Instant, Event)>,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) tasks: Tasks,
    pub(super) started: Instant,
    pub(super) settings: watch::Sender<DiscoverySettings>,
}

/// A worker that is about to start.
pub(super) struct Setup {
    pub(super) aws: FakeAws,
    pub(super) lister: FakeRegions,
    pub(super) group: &'static str,
    pub(super) matchers: Vec<AwsMatcher>,
    pub(super) state: State,
    pub(super) configs: Vec<v1::DiscoveryConfig>,
}

impl Setup {
    /// With these regions held.
    pub(super) fn new(aws: &FakeAws, held: &[(&str, u64)]) -> Self {
        Self {
            aws: aws.clone(),
            lister: FakeRegions::default(),
            group: "prod",
            matchers: Vec::new(),
            state: holds(held),
            configs: Vec::new(),
        }
    }

    pub(super) fn start(self) -> Lab {
        self.try_start().unwrap()
    }

    pub(super) fn try_start(self) -> Result<Lab, DiscoveryError> {
        let (sender, events) = mpsc::unbounded_channel();
        let fake = Fake::new(sender, self.state);
        fake.configs.send_replace(self.configs);
        let lab = Lab {
            fake: Arc::new(fake),
            events,
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            tasks: Tasks::new(),
            started: Instant::now(),
            settings: watch::Sender::new(DiscoverySettings {
                group: self.group.to_owned(),
                poll_interval: POLL,
                matchers: self.matchers,
            }),
        };
        let outside = Outside {
            client: lab.client(),
            fetch: Arc::new(self.aws),
            lister: Arc::new(self.lister),
            clock: Arc::new(SystemClock),
        };
        let meters = Meters::new(&lab.metrics);
        let settings = lab.settings.subscribe();
        start(settings, outside, meters, &lab.readiness, &lab.tasks)?;
        Ok(lab)
    }
}

/// Redshift in these regions; `*` is all that are enabled.
pub(super) fn matcher(regions: &[&str]) -> AwsMatcher {
    let regions = match regions {
        ["*"] => Regions::Enabled,
        names => Regions::These(names.iter().map(|name| name.parse().unwrap()).collect()),
    };
    AwsMatcher {
        types: vec![DatabaseKind::Redshift],
        regions,
        tags: Selector::everything(),
        endpoints: EndpointFilter::default(),
        assume_role: None,
    }
}

impl Lab {
    pub(super) fn start(aws: &FakeAws, regions: &[&str], state: State) -> Self {
        let mut setup = Setup::new(aws, &[]);
        setup.matchers = vec![matcher(regions)];
        setup.state = state;
        setup.start()
    }

    fn client(&self) -> Client {
        let (near, far) = duplex(1 << 16);
        let service = DiscoveryServiceServer::new(FakeService(Arc::clone(&self.fake)));
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(Pipe(far)));
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let mut near = Some(near);
        let connector = tower::service_fn(move |_| {
            let near = near.take();
            async move {
                let gone = || std::io::Error::other("connected once already");
                near.map(TokioIo::new).ok_or_else(gone)
            }
        });
        Client::new(Endpoint::from_static("http://fake").connect_with_connector_lazy(connector))
    }

    /// The next publication, and how long after the start it came.
    pub(super) async fn published(&mut self) -> (Duration, Event) {
        loop {
            let (at, event) = self.events.recv().await.unwrap();
            if !matches!(event, Event::Acquired(_)) {
                return (at - self.started, event);
            }
        }
    }
}

pub(super) fn holds(regions: &[(&str, u64)]) -> State {
    State {
        epochs: regions
            .iter()
            .map(|(region, epoch)| ((*region).to_owned(), *epoch))
            .collect(),
        ..State::default()
    }
}

pub(super) fn published(region: &str, epoch: u64, complete: bool, items: Option<&[&str]>) -> Event {
    Event::Published {
        region: region.to_owned(),
        epoch,
        complete,
        items: items.map(|items| items.iter().map(|item| (*item).to_owned()).collect()),
    }
}
