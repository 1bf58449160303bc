use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::{
    metadata::{Verdict, place::tests::cluster},
    testing::redshift,
};

/// AWS with this many clusters, in pages of a hundred.
#[derive(Default)]
struct Fake {
    clusters: usize,
    calls: AtomicUsize,
    began: Mutex<Vec<Instant>>,
    panics: bool,
}

fn name(number: usize) -> String {
    format!("c{number:04}")
}

fn described(number: usize) -> Described {
    let name = name(number);
    let host = format!("{name}.abc.us-east-1.redshift.amazonaws.com");
    cluster(&name, &host, 5439)
}

impl Describe for Fake {
    fn page<'d>(
        &'d self,
        _place: &'d Place,
        _listing: Listing,
        wanted: Option<&'d str>,
        marker: Option<String>,
    ) -> BoxFuture<'d, Result<Page, AwsFailure>> {
        Box::pin(async move {
            assert!(!self.panics, "as the test wants it");
            self.calls.fetch_add(1, SeqCst);
            self.began.lock().unwrap().push(Instant::now());
            let first: usize = marker.map_or(0, |marker| marker.parse().unwrap());
            let last = (first + 100).min(self.clusters);
            let page = match wanted {
                Some(wanted) => (0..self.clusters)
                    .filter(|number| name(*number) == wanted)
                    .map(described)
                    .collect(),
                None => (first..last).map(described).collect(),
            };
            Ok(Page {
                items: page,
                next: (wanted.is_none() && last < self.clusters).then(|| last.to_string()),
            })
        })
    }

    fn tags<'d>(
        &'d self,
        _place: &'d Place,
        _arn: &'d str,
    ) -> BoxFuture<'d, Result<Vec<(String, String)>, AwsFailure>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn wanted(count: usize) -> Vec<Database> {
    (0..count).map(|number| redshift(&name(number), &[])).collect()
}

fn start(fake: Fake, databases: &[Database]) -> (Arc<Facts>, Arc<Fake>, ShutdownToken) {
    let (facts, fake) = (Arc::new(Facts::new()), Arc::new(fake));
    facts.follow(databases.iter().map(|one| (one, None)), Instant::now());
    let shutdown = ShutdownToken::new();
    let describe: Arc<dyn Describe> = fake.clone();
    tokio::spawn(keep(Arc::clone(&facts), describe, shutdown.clone()));
    (facts, fake, shutdown)
}

async fn until(facts: &Facts, database: &Database, verdict: &Verdict) {
    let mut changes = facts.changes();
    while facts.verdict(database) != *verdict {
        changes.changed().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_databases_are_fifty_calls_at_the_bounded_rate() {
    let databases = wanted(5000);
    let fake = Fake {
        clusters: 5000,
        ..Fake::default()
    };
    let (facts, fake, _shutdown) = start(fake, &databases);
    until(&facts, &databases[4999], &Verdict::Confirmed).await;
    assert_eq!(fake.calls.load(SeqCst), 50);
    let began = fake.began.lock().unwrap();
    let apart = began.windows(2).map(|two| two[1] - two[0]);
    assert!(apart.min().unwrap() >= CALL_APART);
    assert!(databases.iter().all(|one| facts.verdict(one) == Verdict::Confirmed));
}

#[tokio::test(start_paused = true)]
async fn one_database_is_one_call_and_confirmed_at_once() {
    let databases = wanted(1);
    let fake = Fake {
        clusters: 5000,
        ..Fake::default()
    };
    let began = Instant::now();
    let (facts, fake, shutdown) = start(fake, &databases);
    until(&facts, &databases[0], &Verdict::Confirmed).await;
    assert_eq!((fake.calls.load(SeqCst), began.elapsed()), (1, Duration::ZERO));
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_database_that_comes_later_is_asked_about_when_it_comes() {
    let databases = wanted(2);
    let fake = Fake {
        clusters: 2,
        ..Fake::default()
    };
    let (facts, _fake, _shutdown) = start(fake, &databases[..1]);
    until(&facts, &databases[0], &Verdict::Confirmed).await;
    let began = Instant::now();
    facts.follow(databases.iter().map(|one| (one, None)), began);
    until(&facts, &databases[1], &Verdict::Confirmed).await;
    assert!(began.elapsed() <= 2 * CALL_APART, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_call_holds_nobody_up() {
    let databases = wanted(1);
    let fake = Fake {
        panics: true,
        ..Fake::default()
    };
    let (facts, _fake, _shutdown) = start(fake, &databases);
    until(&facts, &databases[0], &Verdict::Unchecked).await;
}
