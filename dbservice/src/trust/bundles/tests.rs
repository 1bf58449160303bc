use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use jiff::Timestamp;
use tidegate_identity::{CaKind, CertificateAuthority};
use tidegate_service::{clock::ManualClock, settings::CaBundlePlace};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::metrics::BundleOf;

/// A place that has bundles, and says what a test wants.
struct Place {
    mirror: CaBundlePlace,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Place {
    async fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::<AtomicUsize>::default());
        let (says, counts) = (Arc::clone(&answer), Arc::clone(&asked));
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                counts.fetch_add(1, SeqCst);
                let answer = says.lock().unwrap().clone();
                let _ = stream.write_all(&answer).await;
            }
        });
        let mirror = CaBundlePlace::Host {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port,
            path: String::new(),
        };
        Self {
            mirror,
            answer,
            asked,
            server,
        }
    }

    fn says(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\netag: \"v\"\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

fn forbidden() -> Vec<u8> {
    b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn ca() -> String {
    let cluster = "tide.test".parse().unwrap();
    let ca = CertificateAuthority::create(CaKind::Db, &cluster, now()).unwrap();
    ca.cert_pem().to_owned()
}

fn bundles(dir: &tempfile::TempDir, mirror: &CaBundlePlace) -> Arc<Bundles> {
    let clock = Arc::new(ManualClock::new(now()));
    let folder = dir.path().join("ca-bundles");
    let settings = watch::Sender::new(DatabaseSettings {
        ca_bundles: Some(mirror.clone()),
        ..DatabaseSettings::default()
    });
    Arc::new(Bundles::new(folder, settings.subscribe(), clock))
}

fn rds(region: &str) -> BundleName {
    BundleName::Rds(region.parse().unwrap())
}

/// Waits until what was fetched is on disk.
async fn until_kept(bundles: &Bundles, name: &BundleName) {
    while bundles.files.read(name).unwrap().is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_region_that_is_compiled_in_waits_for_nobody() {
    let (dir, place) = (
        tempfile::tempdir().unwrap(),
        Place::start(forbidden()).await,
    );
    let bundles = bundles(&dir, &place.mirror);
    let anchors = bundles.get(&rds("us-east-1")).await;
    assert_eq!(
        (
            anchors.provenance,
            anchors.certificates.len(),
            place.asked()
        ),
        (Provenance::CompiledIn, 3, 0)
    );
}

#[tokio::test]
async fn a_region_that_nobody_knows_waits_for_its_download_and_goes_without_when_that_is_blocked() {
    let (dir, place) = (
        tempfile::tempdir().unwrap(),
        Place::start(forbidden()).await,
    );
    let bundles = bundles(&dir, &place.mirror);
    let name = rds("us-gov-west-1");
    let anchors = bundles.get(&name).await;
    assert_eq!(
        (
            anchors.provenance,
            anchors.certificates.len(),
            place.asked()
        ),
        (Provenance::Nowhere, 0, 1)
    );
    // Everybody who comes after asks nobody.
    bundles.get(&name).await;
    assert_eq!(place.asked(), 1);

    let another = rds("us-gov-east-1");
    place.says(ok(&ca()));
    let anchors = bundles.get(&another).await;
    assert_eq!(
        (anchors.provenance, anchors.certificates.len()),
        (Provenance::Fetched, 1)
    );
}

#[tokio::test]
async fn what_is_no_bundle_never_replaces_one() {
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::start(ok(&ca())).await);
    let bundles = bundles(&dir, &place.mirror);
    let name = rds("us-east-1");
    bundles.get(&name).await;
    bundles.refresh(&name).await;
    let good = bundles.get(&name).await;
    assert_eq!((good.provenance, good.generation), (Provenance::Fetched, 1));
    let half = ca();
    for answer in [
        ok(""),
        ok("<html>please log in</html>"),
        ok(&half[..half.len() / 2]),
        ok("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        forbidden(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\ncut".to_vec(),
        b"nonsense".to_vec(),
    ] {
        place.says(answer.clone());
        bundles.refresh(&name).await;
        let now = bundles.get(&name).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(now.certificates, good.certificates, "{text}");
        assert_eq!(now.generation, good.generation, "{text}");
    }
}

#[tokio::test]
async fn the_next_start_has_the_bundle_that_this_one_fetched() {
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::start(ok(&ca())).await);
    let name = rds("us-gov-west-1");
    let first = bundles(&dir, &place.mirror);
    let fetched = first.get(&name).await;
    until_kept(&first, &name).await;

    place.says(forbidden());
    let next = bundles(&dir, &place.mirror);
    let kept = next.get(&name).await;
    assert_eq!(
        (kept.provenance, &kept.certificates),
        (Provenance::Kept, &fetched.certificates)
    );
}

#[tokio::test]
async fn a_damaged_file_is_as_good_as_none() {
    let (dir, place) = (
        tempfile::tempdir().unwrap(),
        Place::start(forbidden()).await,
    );
    let bundles = bundles(&dir, &place.mirror);
    let (name, bytes) = (rds("us-east-1"), b"-----BEGIN CERT".to_vec());
    bundles
        .files
        .write(&name, &Kept { bytes, etag: None })
        .unwrap();
    let anchors = bundles.get(&name).await;
    assert_eq!(anchors.provenance, Provenance::CompiledIn);
}

#[tokio::test]
async fn failed_handshakes_ask_once_a_minute_however_many_they_are() {
    let (dir, place) = (
        tempfile::tempdir().unwrap(),
        Place::start(forbidden()).await,
    );
    let bundles = bundles(&dir, &place.mirror);
    let name = rds("us-east-1");
    let old = bundles.get(&name).await.generation;
    let all = (0..20).map(|_| bundles.newer_than(&name, old));
    let changed = futures::future::join_all(all).await;
    assert_eq!((changed.contains(&true), place.asked()), (false, 1));

    tokio::time::pause();
    tokio::time::advance(REFRESH_APART_MIN).await;
    tokio::time::resume();
    place.says(ok(&ca()));
    assert!(bundles.newer_than(&name, old).await);
    // Who failed with the old one learns of the new one without another request.
    assert!(bundles.newer_than(&name, old).await);
    assert_eq!(place.asked(), 2);
}

#[tokio::test]
async fn bundles_are_refreshed_every_day_and_failures_sooner() {
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::start(ok(&ca())).await);
    let bundles = bundles(&dir, &place.mirror);
    let name = rds("us-east-1");
    let due = |bundles: &Bundles| {
        bundles
            .next_due()
            .1
            .saturating_duration_since(Instant::now())
    };
    bundles.get(&name).await;
    assert_eq!(due(&bundles), Duration::ZERO);
    bundles.refresh(&name).await;
    let wait = due(&bundles);
    assert!(wait > REFRESH_INTERVAL - REFRESH_JITTER - RETRY_MIN && wait <= REFRESH_INTERVAL);
    place.says(forbidden());
    bundles.refresh(&name).await;
    assert!(due(&bundles) <= 2 * RETRY_MIN, "{:?}", due(&bundles));
}

#[tokio::test]
async fn the_task_fetches_what_is_used_and_ends_at_shutdown() {
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::start(ok(&ca())).await);
    let bundles = bundles(&dir, &place.mirror);
    let shutdown = ShutdownToken::new();
    let times = BundleTimes::default();
    let task = tokio::spawn(Arc::clone(&bundles).keep_fresh(times.clone(), shutdown.clone()));
    let name = rds("us-east-1");
    while bundles.get(&name).await.provenance != Provenance::Fetched {
        tokio::task::yield_now().await;
    }
    let of = BundleLabel { of: BundleOf::Rds };
    while times.get_or_create(&of).get() != bundles.clock.now().as_second() {
        tokio::task::yield_now().await;
    }
    // Of two the one that is not to be had counts.
    place.says(forbidden());
    bundles.get(&rds("us-east-2")).await;
    while times.get_or_create(&of).get() != 0 {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    task.await.unwrap();
}
