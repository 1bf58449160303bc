use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tidegate_core::{EffectiveRole, RoleSource};

use super::*;
use crate::{
    metadata::{place::tests::cluster, verdict::Verdict},
    metrics::{VerdictLabel, VerdictWord},
    names::Names,
    testing::redshift,
    wanted::Facts as _,
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
    (0..count)
        .map(|number| redshift(&name(number), &[]))
        .collect()
}

struct Bed {
    book: Arc<Book>,
    again: Arc<Names>,
    fake: Arc<Fake>,
    counts: VerdictCounts,
    shutdown: ShutdownToken,
}

impl Bed {
    fn start(fake: Fake, databases: &[Database]) -> Self {
        let again = Arc::<Names>::default();
        let (book, fake) = (Arc::new(Book::new(Arc::clone(&again))), Arc::new(fake));
        let shutdown = ShutdownToken::new();
        let describe: Arc<dyn Describe> = fake.clone();
        let counts = VerdictCounts::default();
        tokio::spawn(keep(
            Arc::clone(&book),
            describe,
            counts.clone(),
            shutdown.clone(),
        ));
        let bed = Self {
            book,
            again,
            fake,
            counts,
            shutdown,
        };
        bed.want(databases);
        bed
    }

    fn want(&self, databases: &[Database]) {
        let role = EffectiveRole {
            role: None,
            source: RoleSource::Agent,
            entry: None,
        };
        for database in databases {
            let _ = self.book.complete(&Arc::new(database.clone()), &role);
        }
    }

    /// Lets everything settle, and tells how many databases have this verdict in the metrics.
    async fn counted(&self, verdict: VerdictWord) -> i64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let counts = self.counts.get_or_create(&VerdictLabel { verdict });
        counts.get()
    }

    async fn until(&self, database: &Database, verdict: &Verdict) {
        while self.book.verdict(&database.name).as_ref() != Some(verdict) {
            self.again.next().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_databases_are_fifty_calls_at_the_bounded_rate() {
    let databases = wanted(5000);
    let fake = Fake {
        clusters: 5000,
        ..Fake::default()
    };
    let bed = Bed::start(fake, &databases);
    bed.until(&databases[4999], &Verdict::Confirmed).await;
    assert_eq!(bed.fake.calls.load(SeqCst), 50);
    let began = bed.fake.began.lock().unwrap();
    let (burst, took) = (BURST_CALLS as usize, began[49] - began[0]);
    assert!(began[burst - 1] == began[0] && took >= CALL_APART * (50 - BURST_CALLS));
    assert!(
        databases
            .iter()
            .all(|one| bed.book.verdict(&one.name) == Some(Verdict::Confirmed))
    );
}

#[tokio::test(start_paused = true)]
async fn one_database_is_one_call_and_confirmed_at_once() {
    let databases = wanted(1);
    let fake = Fake {
        clusters: 5000,
        ..Fake::default()
    };
    let began = Instant::now();
    let bed = Bed::start(fake, &databases);
    bed.until(&databases[0], &Verdict::Confirmed).await;
    assert_eq!(
        (bed.fake.calls.load(SeqCst), began.elapsed()),
        (1, Duration::ZERO)
    );
    assert_eq!(bed.counted(VerdictWord::Confirmed).await, 1);
    assert_eq!(bed.counted(VerdictWord::Awaited).await, 0);
    bed.book.forget(&databases[0].name);
    assert_eq!(bed.counted(VerdictWord::Confirmed).await, 0);
    bed.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_database_that_comes_later_is_asked_about_when_it_comes() {
    let databases = wanted(2);
    let fake = Fake {
        clusters: 2,
        ..Fake::default()
    };
    let bed = Bed::start(fake, &databases[..1]);
    bed.until(&databases[0], &Verdict::Confirmed).await;
    let began = Instant::now();
    bed.want(&databases);
    bed.until(&databases[1], &Verdict::Confirmed).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_call_holds_nobody_up() {
    let databases = wanted(1);
    let fake = Fake {
        panics: true,
        ..Fake::default()
    };
    let bed = Bed::start(fake, &databases);
    bed.until(&databases[0], &Verdict::Unchecked).await;
}
