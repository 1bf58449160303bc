mod fake;

use std::{collections::HashMap, sync::Mutex};

use hyper_util::rt::TokioIo;
use tidegate_core::{AwsMatcher, DatabaseKind, Region, Selector};
use tidegate_proto::v1::discovery_service_server::DiscoveryServiceServer;
use tidegate_service::clock::SystemClock;
use tokio::{io::duplex, sync::mpsc};
use tonic::{
    Status,
    transport::{Endpoint, Server},
};

use self::fake::{Event, Fake, FakeService, Pipe, State};
use super::*;
use crate::fetch::{FetchError, Reading};

const POLL: Duration = Duration::from_secs(300);
const LEASE_SECONDS: u32 = 30;

/// What AWS returns by region; an error where nothing is set.
#[derive(Clone, Default)]
struct FakeAws {
    regions: Arc<Mutex<HashMap<String, Vec<&'static str>>>>,
    scans: Arc<Mutex<Vec<String>>>,
    /// How long a scan takes.
    delay: Duration,
    at_once: Arc<Mutex<(usize, usize)>>,
}

impl FakeAws {
    fn with(regions: &[(&str, &[&'static str])]) -> Self {
        let regions = regions
            .iter()
            .map(|(region, ids)| ((*region).to_owned(), ids.to_vec()))
            .collect();
        Self {
            regions: Arc::new(Mutex::new(regions)),
            ..Self::default()
        }
    }

    fn set(&self, region: &str, ids: &[&'static str]) {
        let mut regions = self.regions.lock().unwrap();
        regions.insert(region.to_owned(), ids.to_vec());
    }

    fn scanned(&self, region: &str) -> usize {
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
            reading.called();
            {
                let mut at_once = self.at_once.lock().unwrap();
                at_once.0 += 1;
                at_once.1 = at_once.1.max(at_once.0);
            }
            tokio::time::sleep(self.delay).await;
            self.at_once.lock().unwrap().0 -= 1;
            let ids = self.regions.lock().unwrap().get(&region).cloned();
            let ids = ids.ok_or(FetchError::RepeatedMarker {
                action: "a:List",
                pages: 1,
            })?;
            for id in ids {
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
    crate::found::Found { database, name }
}

/// A worker, its AWS and its auth service.
struct Lab {
    fake: Arc<Fake>,
    events: mpsc::UnboundedReceiver<(Instant, Event)>,
    metrics: Metrics,
    readiness: Readiness,
    tasks: Tasks,
    started: Instant,
}

impl Lab {
    fn start(aws: &FakeAws, regions: &[&str], state: State) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let fake = Arc::new(Fake {
            events: sender,
            state: Mutex::new(state),
        });
        let lab = Self {
            fake,
            events,
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            tasks: Tasks::new(),
            started: Instant::now(),
        };
        let regions = regions.iter().map(|region| region.parse().unwrap());
        let matcher = AwsMatcher {
            types: vec![DatabaseKind::Redshift],
            regions: regions.collect::<Vec<Region>>(),
            tags: Selector::everything(),
            assume_role: None,
        };
        let settings = DiscoverySettings {
            group: "prod".to_owned(),
            poll_interval: POLL,
            matchers: vec![matcher],
        };
        start(
            &settings,
            lab.client(),
            Arc::new(aws.clone()),
            Meters::new(&lab.metrics),
            &lab.readiness,
            Arc::new(SystemClock),
            &lab.tasks,
        )
        .unwrap();
        lab
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
    async fn published(&mut self) -> (Duration, Event) {
        loop {
            let (at, event) = self.events.recv().await.unwrap();
            if event != Event::Acquired {
                return (at - self.started, event);
            }
        }
    }
}

fn holds(regions: &[(&str, u64)]) -> State {
    State {
        epochs: regions
            .iter()
            .map(|(region, epoch)| ((*region).to_owned(), *epoch))
            .collect(),
        ..State::default()
    }
}

fn published(region: &str, epoch: u64, complete: bool, items: Option<&[&str]>) -> Event {
    Event::Published {
        region: region.to_owned(),
        epoch,
        complete,
        items: items.map(|items| items.iter().map(|item| (*item).to_owned()).collect()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_is_published_at_once_and_a_quiet_poll_sends_no_items() {
    let aws = FakeAws::with(&[("us-east-1", &["b", "a"])]);
    let mut lab = Lab::start(&aws, &["us-east-1"], holds(&[("us-east-1", 3)]));

    let (at, first) = lab.published().await;
    assert_eq!(first, published("us-east-1", 3, true, Some(&["a", "b"])));
    assert!(at < Duration::from_secs(1), "{at:?}");
    assert!(lab.readiness.is_ready());

    let (at, second) = lab.published().await;
    assert_eq!(second, published("us-east-1", 3, true, None));
    assert!((270..=331).contains(&at.as_secs()), "{at:?}");

    aws.set("us-east-1", &["a"]);
    let (_, third) = lab.published().await;
    assert_eq!(third, published("us-east-1", 3, true, Some(&["a"])));

    let text = lab.metrics.encode();
    for line in [
        "tidegate_discovery_scans_total{kind=\"redshift\",outcome=\"complete\"} 3",
        "tidegate_discovery_aws_calls_total{kind=\"redshift\"} 3",
        "tidegate_discovery_publications_total{outcome=\"unchanged\"} 1",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_another_worker_holds_is_not_scanned() {
    let aws = FakeAws::with(&[("us-east-1", &["a"]), ("us-west-2", &["b"])]);
    let regions = ["us-east-1", "us-west-2"];
    let mut lab = Lab::start(&aws, &regions, holds(&[("us-west-2", 1)]));
    lab.published().await;
    lab.published().await;
    assert_eq!(aws.scanned("us-east-1"), 0);

    lab.fake.hand_over("us-east-1", 9);
    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-east-1", 9, true, Some(&["a"])));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_acquired_again_and_the_scan_repeated_with_the_new_epoch() {
    let aws = FakeAws {
        delay: Duration::from_secs(2),
        ..FakeAws::with(&[("us-east-1", &["a"])])
    };
    let mut lab = Lab::start(&aws, &["us-east-1"], holds(&[("us-east-1", 1)]));
    assert_eq!(lab.events.recv().await.unwrap().1, Event::Acquired);
    // While the first scan runs, and before the lease is asked for again.
    lab.fake.hand_over("us-east-1", 2);

    let (at, event) = lab.published().await;
    assert_eq!(event, published("us-east-1", 2, true, Some(&["a"])));
    assert_eq!(aws.scanned("us-east-1"), 2);
    assert!(at < Duration::from_secs(30), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_partial_scan_is_published_as_such_and_tried_again_before_the_next_poll() {
    let aws = FakeAws::default();
    let mut lab = Lab::start(&aws, &["us-east-1"], holds(&[("us-east-1", 1)]));
    let (_, first) = lab.published().await;
    assert_eq!(first, published("us-east-1", 1, false, Some(&[])));

    aws.set("us-east-1", &["a"]);
    let (at, second) = lab.published().await;
    assert_eq!(second, published("us-east-1", 1, true, Some(&["a"])));
    assert!(at < Duration::from_secs(12), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn an_auth_service_that_is_away_is_asked_until_it_answers() {
    let aws = FakeAws::with(&[("us-east-1", &["a"])]);
    let mut state = holds(&[("us-east-1", 1)]);
    state.refuse = (0..5).map(|_| Status::unavailable("away")).collect();
    let mut lab = Lab::start(&aws, &["us-east-1"], state);
    assert!(!lab.readiness.is_ready());

    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-east-1", 1, true, Some(&["a"])));
    assert!(lab.readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_lease_ran_out_scans_no_more() {
    let aws = FakeAws::with(&[("us-east-1", &["a"])]);
    let mut lab = Lab::start(&aws, &["us-east-1"], holds(&[("us-east-1", 1)]));
    lab.published().await;
    {
        let mut state = lab.fake.state.lock().unwrap();
        state.refuse = (0..10_000).map(|_| Status::unavailable("away")).collect();
    }
    tokio::time::sleep(POLL * 4).await;
    assert_eq!(aws.scanned("us-east-1"), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_scans_run_at_once_than_allowed() {
    let regions: Vec<String> = (0..20).map(|n| format!("us-east-{n}")).collect();
    let regions: Vec<&str> = regions.iter().map(String::as_str).collect();
    let aws = FakeAws {
        delay: Duration::from_secs(1),
        ..FakeAws::default()
    };
    for region in &regions {
        aws.set(region, &["a"]);
    }
    let held: Vec<(&str, u64)> = regions.iter().map(|region| (*region, 1)).collect();
    let mut lab = Lab::start(&aws, &regions, holds(&held));
    for _ in &regions {
        lab.published().await;
    }
    assert_eq!(aws.at_once.lock().unwrap().1, SCANS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_asked_to_stop_ends_in_the_middle_of_a_scan() {
    let aws = FakeAws {
        delay: Duration::from_secs(100),
        ..FakeAws::with(&[("us-east-1", &["a"])])
    };
    let mut lab = Lab::start(&aws, &["us-east-1"], holds(&[("us-east-1", 1)]));
    lab.events.recv().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(aws.scanned("us-east-1"), 1);
    assert!(lab.tasks.close_and_wait(Duration::from_secs(1)).await);
    assert_eq!(lab.tasks.failure(), None);
}

#[test]
fn more_scopes_than_one_message_holds_are_refused_at_the_start() {
    let scope = |n: usize| ScanScope {
        group: format!("{n}-{}", "g".repeat(1_000)),
        kind: DatabaseKind::Redshift,
        region: "us-east-1".parse().unwrap(),
        assume_role: None,
        tags: Selector::everything(),
        order: 0,
    };
    let few: Vec<ScanScope> = (0..10).map(scope).collect();
    assert_eq!(checked(&few).unwrap().len(), 10);
    let many: Vec<ScanScope> = (0..5_000).map(scope).collect();
    let error = checked(&many).unwrap_err().to_string();
    assert!(error.contains("5000 scan scopes"), "{error}");
}
