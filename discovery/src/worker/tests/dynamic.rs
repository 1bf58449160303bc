//! What changes while a worker runs: resources, regions, grants, requests to scan at once.

use std::time::Duration;

use tidegate_core::ScanScope;
use tidegate_proto::v1;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::{
    fake::Event,
    lab::{FakeAws, Lab, POLL, Setup, matcher, published},
};
use crate::regions::REFRESH;

fn config(name: &str, regions: &[&str]) -> v1::DiscoveryConfig {
    v1::DiscoveryConfig {
        name: name.to_owned(),
        discovery_group: "prod".to_owned(),
        aws: vec![matcher(regions).into()],
        revision: 1,
    }
}

fn aws() -> FakeAws {
    FakeAws::with(&[
        ("us-east-1", &["a"]),
        ("us-east-2", &["b"]),
        ("us-west-2", &["c"]),
    ])
}

fn all_held(aws: &FakeAws) -> Setup {
    Setup::new(aws, &[("us-east-1", 1), ("us-east-2", 1), ("us-west-2", 1)])
}

impl Lab {
    /// The regions that the next request for scopes names.
    async fn asked_for(&mut self) -> Vec<String> {
        loop {
            if let Event::Acquired(regions) = self.events.recv().await.unwrap().1 {
                return regions;
            }
        }
    }

    /// Whether nothing is published for this long.
    async fn is_quiet_for(&mut self, time: Duration) -> bool {
        timeout(time, self.published()).await.is_err()
    }
}

fn soon(since: Instant) -> bool {
    since.elapsed() < Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_is_added_changed_and_removed_is_followed_at_once() {
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.matchers = vec![matcher(&["us-east-1"])];
    let mut lab = setup.start();
    lab.published().await;
    sleep(Duration::from_secs(3)).await;

    let added = Instant::now();
    lab.fake
        .configs
        .send_replace(vec![config("team", &["us-east-2"])]);
    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-east-2", 1, true, Some(&["b"])));
    assert!(soon(added));

    let changed = Instant::now();
    lab.fake
        .configs
        .send_replace(vec![config("team", &["us-west-2"])]);
    assert_eq!(lab.asked_for().await, ["us-east-1", "us-west-2"]);
    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-west-2", 1, true, Some(&["c"])));
    assert!(soon(changed));

    let removed = Instant::now();
    lab.fake.configs.send_replace(Vec::new());
    assert_eq!(lab.asked_for().await, ["us-east-1"]);
    assert!(soon(removed));
    sleep(POLL * 2).await;
    assert_eq!((aws.scanned("us-east-2"), aws.scanned("us-west-2")), (1, 1));
    assert!(aws.scanned("us-east-1") > 1);
}

#[tokio::test(start_paused = true)]
async fn matchers_of_the_file_that_change_are_followed_at_once_and_what_stays_is_not_scanned_again()
{
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.matchers = vec![matcher(&["us-east-1", "us-east-2"])];
    let mut lab = setup.start();
    lab.published().await;
    lab.published().await;

    let changed = Instant::now();
    lab.settings
        .send_modify(|settings| settings.matchers = vec![matcher(&["us-east-1", "us-west-2"])]);
    assert_eq!(lab.asked_for().await, ["us-east-1", "us-west-2"]);
    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-west-2", 1, true, Some(&["c"])));
    assert!(soon(changed));
    assert!(lab.is_quiet_for(POLL / 2).await);

    lab.settings
        .send_modify(|settings| settings.matchers.clear());
    assert!(lab.asked_for().await.is_empty());
    sleep(POLL * 2).await;
    assert_eq!((aws.scanned("us-east-1"), aws.scanned("us-west-2")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_resource_does_not_scan_what_stays() {
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.configs = vec![config("b", &["us-east-1"])];
    let mut lab = setup.start();
    lab.published().await;

    let both = vec![config("a", &["us-west-2"]), config("b", &["us-east-1"])];
    lab.fake.configs.send_replace(both);
    assert_eq!(lab.asked_for().await, ["us-west-2", "us-east-1"]);
    lab.published().await;
    assert!(lab.is_quiet_for(POLL / 2).await);
    assert_eq!((aws.scanned("us-east-1"), aws.scanned("us-west-2")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_malformed_resource_is_skipped_and_the_others_are_scanned() {
    let aws = aws();
    let mut setup = all_held(&aws);
    let mut bad = config("bad", &["us-east-2"]);
    bad.aws[0].types = vec!["dbase".to_owned()];
    setup.configs = vec![bad, config("good", &["us-west-2"])];
    let mut lab = setup.start();
    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-west-2", 1, true, Some(&["c"])));
    let text = lab.metrics.encode();
    for line in [
        "tidegate_discovery_configs{state=\"in_force\"} 1",
        "tidegate_discovery_configs{state=\"malformed\"} 1",
        "tidegate_discovery_scopes{kind=\"redshift\",state=\"held\"} 1",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_is_resumed_and_what_was_known_stays_meanwhile() {
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.configs = vec![config("team", &["us-east-2"])];
    let mut lab = setup.start();
    lab.published().await;
    {
        let mut state = lab.fake.state.lock().unwrap();
        state.refuse_watch = (0..5).map(|_| Status::unavailable("away")).collect();
    }
    lab.fake.break_watches();
    assert_eq!(lab.asked_for().await, ["us-east-2"]);

    lab.fake
        .configs
        .send_replace(vec![config("team", &["us-west-2"])]);
    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-west-2", 1, true, Some(&["c"])));
    assert!(lab.fake.state.lock().unwrap().refuse_watch.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_group_follows_no_resources() {
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.group = "";
    setup.matchers = vec![matcher(&["us-east-1"])];
    setup.configs = vec![config("team", &["us-east-2"])];
    let mut lab = setup.start();
    lab.published().await;
    assert!(lab.is_quiet_for(POLL / 2).await);
}

#[tokio::test(start_paused = true)]
async fn the_first_request_names_what_resources_and_regions_add() {
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.matchers = vec![matcher(&["us-east-1"]), matcher(&["*"])];
    setup.lister.set(Some(&["us-west-2"]));
    setup.configs = vec![config("team", &["us-east-2"])];
    setup.state.refuse_watch = [Status::unavailable("starting")].into();
    let mut lab = setup.start();
    let asked = lab.asked_for().await;
    assert_eq!(asked, ["us-east-1", "us-west-2", "us-east-2"]);
}

#[tokio::test(start_paused = true)]
async fn regions_appear_with_the_next_list_and_stay_when_asking_fails() {
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.matchers = vec![matcher(&["*"])];
    setup.lister.set(Some(&["us-east-1"]));
    let lister = setup.lister.clone();
    let mut lab = setup.start();
    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-east-1", 1, true, Some(&["a"])));

    lister.set(Some(&["us-east-1", "us-west-2"]));
    sleep(REFRESH + Duration::from_secs(5)).await;
    assert_eq!(aws.scanned("us-west-2"), 1);

    lister.set(None);
    sleep(REFRESH * 2).await;
    assert!(*lister.asked.lock().unwrap() > 4);
    while lab.events.try_recv().is_ok() {}
    assert_eq!(lab.asked_for().await, ["us-east-1", "us-west-2"]);

    lister.set(Some(&["us-west-2"]));
    sleep(REFRESH * 2).await;
    while lab.events.try_recv().is_ok() {}
    assert_eq!(lab.asked_for().await, ["us-west-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_list_regions_goes_on_with_those_that_are_remembered() {
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.matchers = vec![matcher(&["*"])];
    let remembered = |group: &str, config: Option<&str>, region: &str| {
        let scopes = ScanScope::expand(group, config, &[matcher(&[region])], |_| Vec::new());
        v1::ScopeStatus {
            scope: scopes.first().map(Into::into),
            ..Default::default()
        }
    };
    setup.state.remembered = vec![
        remembered("prod", None, "us-east-2"),
        remembered("prod", Some("team"), "us-west-2"),
        remembered("dev", None, "us-east-1"),
    ];
    let mut lab = setup.start();
    assert_eq!(lab.asked_for().await, ["us-east-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_is_asked_for_is_made_at_once_and_once() {
    let aws = aws();
    let mut setup = all_held(&aws);
    setup.matchers = vec![matcher(&["us-east-1", "us-east-2"])];
    setup.state.rescans = [("us-east-1".to_owned(), 4)].into();
    let mut lab = setup.start();
    lab.published().await;
    lab.published().await;

    lab.fake.rescan("us-east-1");
    let (at, event) = lab.published().await;
    assert_eq!(event, published("us-east-1", 1, true, None));
    assert_eq!(*aws.asked_for.lock().unwrap(), [false, false, true]);
    assert!(at < Duration::from_secs(15), "{at:?}");
    assert!(lab.is_quiet_for(POLL / 2).await);
    let text = lab.metrics.encode();
    let line = "tidegate_discovery_rescans_total{kind=\"redshift\"} 1";
    assert!(text.contains(line), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_is_asked_for_during_one_follows_it() {
    let aws = FakeAws {
        delay: Duration::from_secs(30),
        ..aws()
    };
    let mut setup = all_held(&aws);
    setup.matchers = vec![matcher(&["us-east-1"])];
    let mut lab = setup.start();
    sleep(Duration::from_secs(1)).await;
    lab.fake.rescan("us-east-1");
    lab.published().await;
    let (at, _) = lab.published().await;
    assert!(at < Duration::from_secs(65), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_taken_away_stops_its_scan_and_nothing_is_published() {
    let aws = FakeAws {
        delay: Duration::from_secs(60),
        ..aws()
    };
    let mut setup = all_held(&aws);
    setup.matchers = vec![matcher(&["us-east-1"])];
    let mut lab = setup.start();
    sleep(Duration::from_secs(1)).await;
    lab.fake.take_away("us-east-1");
    sleep(Duration::from_secs(15)).await;
    lab.fake.hand_over("us-east-1", 2);

    let (at, event) = lab.published().await;
    assert_eq!(event, published("us-east-1", 2, true, Some(&["a"])));
    // Well before the end of two scans in a row.
    assert!(at < Duration::from_secs(95), "{at:?}");
    assert_eq!(aws.scanned("us-east-1"), 2);
    let text = lab.metrics.encode();
    let line = "tidegate_discovery_publications_total{outcome=\"lease_lost\"} 1";
    assert!(text.contains(line), "{text}");
}

#[tokio::test(start_paused = true)]
async fn scopes_of_one_account_and_region_share_their_calls() {
    let aws = aws();
    let mut setup = all_held(&aws);
    // Thirty scopes that differ in the resource that names them.
    setup.configs = (0..30)
        .map(|n| config(&format!("c{n}"), &["us-east-1"]))
        .collect();
    let mut lab = setup.start();
    let mut last = Duration::ZERO;
    for _ in 0..30 {
        last = lab.published().await.0;
    }
    // Twenty at once, then five a second.
    assert!((2..=3).contains(&last.as_secs()), "{last:?}");
}
