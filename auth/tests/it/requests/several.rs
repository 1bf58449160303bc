//! Two instances of the control plane over one store.

use super::{etcd::Etcd, *};
use crate::house::Options;

/// Most requests of one person that wait.
const OPEN_MAX: usize = 20;

async fn two_instances() -> (Etcd, House, House) {
    let etcd = Etcd::start();
    let options = Options {
        storage: Some(etcd.storage()),
        ..Options::default()
    };
    let first = House::with_options(options).await;
    let second = first.beside().await;
    (etcd, first, second)
}

/// A person of the first instance, as a caller of either.
async fn person(first: &House, second: &House, name: &str, roles: &[&str]) -> (Caller, Caller) {
    let login = first.person(name, roles).await;
    (first.known(&login), second.known(&login))
}

/// Waits until an instance has what another wrote in its memory.
async fn until_admitted(caller: &Caller, id: &str) {
    let looking = async {
        while let Err(status) = get(caller, id).await {
            assert_eq!(status.code(), Code::Unauthenticated, "{}", status.message());
            sleep(LOOK_APART).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap();
}

#[tokio::test]
async fn of_reviewers_at_two_instances_none_is_lost_and_no_decision_is_made_twice() {
    let (_etcd, first, second) = two_instances().await;
    role(&first, "asks", may_ask("access", 2)).await;
    let (alice, _) = person(&first, &second, "alice", &["asks"]).await;
    let mut reviewers = Vec::new();
    for name in ["bob", "carol", "dave", "erin"] {
        reviewers.push(person(&first, &second, name, &["reviewer"]).await);
    }
    for _ in 0..5 {
        let made = ask(&alice, &["access"]).await;
        for (here, there) in &reviewers {
            until_admitted(here, &made.id).await;
            until_admitted(there, &made.id).await;
        }
        let [b, c, d, e] = &reviewers[..] else {
            unreachable!("there are four")
        };
        let approve = ReviewVerdict::Approve;
        let outcomes = tokio::join!(
            review(&b.0, &made.id, approve),
            review(&c.1, &made.id, approve),
            review(&d.0, &made.id, approve),
            review(&e.1, &made.id, approve),
        );
        let outcomes = [outcomes.0, outcomes.1, outcomes.2, outcomes.3];
        let counted: Vec<&v1::AccessRequest> = outcomes
            .iter()
            .filter_map(|outcome| outcome.as_ref().ok())
            .collect();
        assert_eq!(counted.len(), 2, "{outcomes:?}");
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(reason(refused), "CLOSED");
        }
        let approved = counted
            .iter()
            .filter(|request| request.state() == AccessRequestState::Approved);
        assert_eq!(approved.count(), 1);
        let now = get(&second.admin(), &made.id).await.unwrap();
        assert_eq!(
            (now.state(), now.reviews.len()),
            (AccessRequestState::Approved, 2)
        );
    }
}

#[tokio::test]
async fn nobody_has_more_requests_open_by_asking_at_two_instances_at_once() {
    let (_etcd, first, second) = two_instances().await;
    let (here, there) = person(&first, &second, "alice", &["requester"]).await;
    let made = ask(&here, &["access"]).await;
    until_admitted(&there, &made.id).await;
    for _ in 0..OPEN_MAX - 3 {
        ask(&here, &["access"]).await;
    }
    let (mut at_here, mut at_there) = (requests(&here), requests(&there));
    let (mut again_here, mut again_there) = (requests(&here), requests(&there));
    let outcomes = tokio::join!(
        at_here.create_access_request(asking(&["access"])),
        at_there.create_access_request(asking(&["access"])),
        again_here.create_access_request(asking(&["access"])),
        again_there.create_access_request(asking(&["access"])),
    );
    let outcomes = [outcomes.0, outcomes.1, outcomes.2, outcomes.3];
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(made, 2, "{outcomes:?}");
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(reason(&refused), "TOO_MANY");
    }
    assert_eq!(
        ids(&there, v1::AccessRequestScope::Mine).await.len(),
        OPEN_MAX
    );
}

#[tokio::test]
async fn a_request_that_nobody_decided_expires_and_one_instance_tells_of_it() {
    let (_etcd, first, second) = two_instances().await;
    let (here, _) = person(&first, &second, "alice", &["requester"]).await;
    let asked = v1::CreateAccessRequestRequest {
        max_duration: Some(prost_types::Duration {
            seconds: 600,
            nanos: 0,
        }),
        ..asking(&["access"])
    };
    let made = requests(&here).create_access_request(asked).await;
    let made = made.unwrap().into_inner();
    first.clock.advance(Duration::from_secs(602));
    // It is over at once, whoever asks, before anything is written down.
    let late = decide(&second.admin(), &made.id, ReviewVerdict::Approve).await;
    assert_eq!(reason(&late.unwrap_err()), "CLOSED");
    let looking = async {
        loop {
            let now = get(&first.admin(), &made.id).await.unwrap();
            assert_eq!(now.state(), AccessRequestState::Expired);
            if now.revision != made.revision {
                return;
            }
            sleep(LOOK_APART).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap();
    let looking = async {
        loop {
            let mut found = events(&first, "access_request.expire").await;
            found.extend(events(&second, "access_request.expire").await);
            if !found.is_empty() {
                return found;
            }
            sleep(LOOK_APART).await;
        }
    };
    let found = timeout(PATIENCE, looking).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, "T5005I");
    // A week later it is forgotten.
    first.clock.advance(Duration::from_secs(8 * 24 * 3600));
    let looking = async {
        while get(&first.admin(), &made.id).await.is_ok() {
            sleep(LOOK_APART).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap();
    let mut all = events(&first, "access_request.expire").await;
    all.extend(events(&second, "access_request.expire").await);
    assert_eq!(all, found);
}
