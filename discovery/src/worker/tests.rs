mod dynamic;
mod fake;
mod lab;

use std::time::Duration;

use tidegate_core::{AwsMatcher, Selector};
use tonic::Status;

use self::{
    fake::Event,
    lab::{FakeAws, Lab, POLL, holds, published},
};
use super::*;

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
async fn items_that_are_wanted_of_a_scan_that_found_the_same_are_read_and_sent_at_once() {
    let aws = FakeAws::with(&[("us-east-1", &["b", "a"])]);
    let mut lab = Lab::start(&aws, &["us-east-1"], holds(&[("us-east-1", 3)]));
    let with_items = published("us-east-1", 3, true, Some(&["a", "b"]));
    assert_eq!(lab.published().await.1, with_items);

    // As one whose store was restored from an older copy.
    lab.fake.state.lock().unwrap().digests.clear();
    let (at, event) = lab.published().await;
    assert_eq!(event, with_items);
    assert!(at <= POLL.mul_f64(1.11), "{at:?}");
    assert_eq!(*aws.same.lock().unwrap(), [false, true, false]);

    let (_, event) = lab.published().await;
    assert_eq!(event, published("us-east-1", 3, true, None));
    assert_eq!(*aws.same.lock().unwrap(), [false, true, false, true]);
    let metrics = lab.metrics.encode();
    assert!(!metrics.contains("outcome=\"failed\""), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_scan_of_which_something_was_held_back_or_shadowed_is_not_taken_for_settled() {
    for (held_back, shadowed) in [(1, 0), (0, 1)] {
        let aws = FakeAws::with(&[("us-east-1", &["a"])]);
        let mut state = holds(&[("us-east-1", 3)]);
        (state.held_back, state.shadowed) = (held_back, shadowed);
        let mut lab = Lab::start(&aws, &["us-east-1"], state);
        lab.published().await;
        lab.published().await;
        {
            let mut state = lab.fake.state.lock().unwrap();
            (state.held_back, state.shadowed) = (0, 0);
        }
        lab.published().await;
        lab.published().await;
        assert_eq!(*aws.same.lock().unwrap(), [false, false, false, true]);
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
    assert!(matches!(
        lab.events.recv().await.unwrap().1,
        Event::Acquired(_)
    ));
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
async fn scopes_that_hang_hold_up_others_for_a_moment_once_and_never_again() {
    let hung: Vec<String> = (0..20).map(|n| format!("af-south-{n}")).collect();
    let names: Vec<&str> = hung
        .iter()
        .map(String::as_str)
        .chain(["us-east-1"])
        .collect();
    let aws = FakeAws {
        hung: Arc::new(std::sync::Mutex::new(hung.iter().cloned().collect())),
        ..FakeAws::default()
    };
    for region in &names {
        aws.set(region, &["a"]);
    }
    let held: Vec<(&str, u64)> = names.iter().map(|region| (*region, 1)).collect();
    let mut lab = Lab::start(&aws, &names, holds(&held));
    let mut answered = Vec::new();
    while answered.len() < 4 {
        let (at, event) = lab.published().await;
        if event == published("us-east-1", 1, true, Some(&["a"]))
            || event == published("us-east-1", 1, true, None)
        {
            answered.push(at);
        }
    }
    // Twenty that hang, five at a time, each for the time after which a scan counts as slow.
    assert!(answered[0] <= Duration::from_secs(13), "{answered:?}");
    for pair in answered.windows(2) {
        assert!(pair[1] - pair[0] <= POLL.mul_f64(1.1), "{answered:?}");
    }
    assert!(aws.at_once.lock().unwrap().1 > SCANS_MAX);

    aws.hung.lock().unwrap().clear();
    loop {
        let (_, event) = lab.published().await;
        if event == published("af-south-7", 1, true, Some(&["a"])) {
            break;
        }
    }
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

#[tokio::test]
async fn more_scopes_than_one_message_holds_are_refused_at_the_start() {
    let regions: Vec<String> = (0..100).map(|n| format!("us-east-{n}")).collect();
    let regions: Vec<&str> = regions.iter().map(String::as_str).collect();
    let mut setup = lab::Setup::new(&FakeAws::default(), &[]);
    setup.matchers = (0..=SCOPES_MAX / regions.len())
        .map(|n| AwsMatcher {
            tags: Selector::new([("team".to_owned(), vec![n.to_string()])]).unwrap(),
            ..lab::matcher(&regions)
        })
        .collect();
    let error = setup.try_start().map(drop).unwrap_err().to_string();
    assert!(error.contains("10100 scan scopes"), "{error}");
}
