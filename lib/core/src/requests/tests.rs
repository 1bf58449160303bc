use proptest::prelude::*;

use super::*;
use crate::access::Role;

mod changes;
mod refusals;

fn at(hour: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + hour * 3600).unwrap()
}

fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

fn role(name: &str, allow: &str, deny: &str) -> Role {
    serde_json::from_str(&format!(
        r#"{{"name": "{name}", "allow": {allow}, "deny": {deny}}}"#
    ))
    .unwrap()
}

/// A cluster with something to ask for, and people who ask and review.
fn policy() -> Policy {
    let mut roles = Role::builtin();
    roles.extend([
        role("dba", "{}", "{}"),
        role("dev-bi", "{}", "{}"),
        role(
            "asks",
            r#"{"request": {"roles": ["dba", "dev-*"], "thresholds": [{"approve": 2, "deny": 1}], "max_duration": "4h"}}"#,
            "{}",
        ),
        role("asks-own-team", r#"{"request": {"roles": ["dev-{{external.team}}"]}}"#, "{}"),
        role("never-dba", "{}", r#"{"request": {"roles": ["dba"]}, "review_requests": {"roles": ["dba"]}}"#),
        role("broken", "{}", r#"{"request": {"roles": ["{{x"]}, "review_requests": {"roles": ["{{x"]}}"#),
        role("reviews", r#"{"review_requests": {"roles": ["*"]}}"#, "{}"),
        role(
            "reviews-team",
            r#"{"review_requests": {"roles": ["^d.*$"], "where": "contains(request.roles, \"dev-bi\") && request.user != \"mallory\" && contains(reviewer.traits[\"team\"], \"bi\")"}}"#,
            "{}",
        ),
    ]);
    Policy::new(roles)
}

fn person(user: &str, roles: &[&str]) -> Subject {
    Subject {
        user: user.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        traits: [("team".to_owned(), vec!["bi".to_owned()])].into(),
    }
}

fn wanted(roles: &[&str]) -> Wanted {
    Wanted {
        id: "q1".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        reason: "deploy".to_owned(),
        duration: None,
    }
}

fn asked(roles: &[&str]) -> AccessRequest {
    let alice = person("alice", &["asks"]);
    policy().request(&alice, wanted(roles), at(0)).unwrap()
}

fn review(reviewer: &str, verdict: Verdict) -> Review {
    Review {
        reviewer: reviewer.to_owned(),
        verdict,
        reason: String::new(),
        at: at(1),
    }
}

fn reviewed(
    request: AccessRequest,
    name: &str,
    verdict: Verdict,
) -> Result<AccessRequest, TransitionRefused> {
    let reviewer = person(name, &["reviews"]);
    request.reviewed(&policy(), &reviewer, review(name, verdict), at(1))
}

#[test]
fn people_ask_for_what_some_role_lets_them_and_none_forbids() {
    for (holds, asks, allowed) in [
        (vec!["asks"], "dba", true),
        (vec!["asks"], "dev-bi", true),
        (vec!["asks"], "access", false),
        (vec!["asks"], "dev-absent", false),
        (vec!["requester"], "access", true),
        (vec!["requester"], "editor", false),
        (vec!["asks-own-team"], "dev-bi", true),
        (vec!["asks-own-team"], "dba", false),
        (vec!["asks", "never-dba"], "dba", false),
        (vec!["asks", "never-dba"], "dev-bi", true),
        (vec!["asks", "broken"], "dev-bi", false),
        (vec!["gone"], "dba", false),
        (vec![], "dba", false),
    ] {
        let alice = person("alice", &holds);
        let request = policy().request(&alice, wanted(&[asks]), at(0));
        assert_eq!(request.is_ok(), allowed, "{holds:?} ask for {asks}");
        let requestable = policy().requestable(&alice);
        assert_eq!(requestable.iter().any(|role| role == asks), allowed);
    }
    assert_eq!(
        policy().request(&person("alice", &["asks", "dba"]), wanted(&["dba"]), at(0)),
        Err(RequestRefused::AlreadyHeld {
            role: "dba".to_owned()
        })
    );
}

#[test]
fn a_request_is_bounded_in_roles_reason_and_time() {
    let refused = |wanted: Wanted| {
        let alice = person("alice", &["asks"]);
        policy().request(&alice, wanted, at(0)).unwrap_err()
    };
    assert_eq!(refused(wanted(&[])), RequestRefused::NoRoles);
    let names: Vec<String> = (0..=REQUEST_ROLES_MAX)
        .map(|number| format!("r{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(refused(wanted(&names)), RequestRefused::TooManyRoles);
    assert_eq!(
        refused(Wanted {
            reason: "x".repeat(REASON_BYTES_MAX + 1),
            ..wanted(&["dba"])
        }),
        RequestRefused::ReasonTooLong
    );
    for duration in [hours(5), Duration::ZERO] {
        assert_eq!(
            refused(Wanted {
                duration: Some(duration),
                ..wanted(&["dba"])
            }),
            RequestRefused::TooLong { most: hours(4) }
        );
    }
}

#[test]
fn approved_roles_last_as_long_as_was_asked_within_what_the_role_gives() {
    assert_eq!(asked(&["dba"]).access_until, at(4));
    let alice = person("alice", &["requester"]);
    let request = policy()
        .request(&alice, wanted(&["access"]), at(0))
        .unwrap();
    assert_eq!(request.access_until, at(12));
    let shorter = Wanted {
        duration: Some(hours(1)),
        ..wanted(&["access"])
    };
    let request = policy().request(&alice, shorter, at(0)).unwrap();
    assert_eq!(
        (request.access_until, request.pending_until),
        (at(1), at(1))
    );
    let approved = AccessRequest {
        state: RequestState::Approved,
        ..request
    };
    assert!(approved.grants_now(at(0)));
    assert!(!approved.grants_now(at(1)));
}

#[test]
fn enough_approvals_approve_and_the_first_denial_here_denies() {
    let once = reviewed(asked(&["dba", "dev-bi"]), "bob", Verdict::Approve).unwrap();
    assert_eq!((once.state, once.resolved), (RequestState::Pending, None));
    let twice = reviewed(once.clone(), "carol", Verdict::Approve).unwrap();
    assert_eq!(
        (twice.state, twice.resolved),
        (RequestState::Approved, Some(at(1)))
    );
    assert!(twice.grants_now(at(2)));
    let denied = reviewed(once, "carol", Verdict::Deny).unwrap();
    assert_eq!(denied.state, RequestState::Denied);
    assert!(!denied.grants_now(at(2)));
}

#[test]
fn every_role_has_to_reach_a_threshold_of_its_own() {
    // One role needs two approvals, the other one: together they need two.
    let alice = person("alice", &["asks", "requester"]);
    let request = policy()
        .request(&alice, wanted(&["access", "dba"]), at(0))
        .unwrap();
    let once = reviewed(request, "bob", Verdict::Approve).unwrap();
    assert_eq!(once.state, RequestState::Pending);
    // Whoever may ask for one role by two grants needs the easier one.
    let alice = person("alice", &["asks", "asks-own-team"]);
    let request = policy()
        .request(&alice, wanted(&["dev-bi"]), at(0))
        .unwrap();
    let once = reviewed(request, "bob", Verdict::Approve).unwrap();
    assert_eq!(once.state, RequestState::Approved);
}

#[test]
fn only_reviewers_of_every_role_review_and_nobody_their_own() {
    for (name, roles, request, allowed) in [
        ("bob", vec!["reviews"], asked(&["dba"]), true),
        ("alice", vec!["reviews"], asked(&["dba"]), false),
        ("bob", vec!["access"], asked(&["dba"]), false),
        ("bob", vec!["reviewer"], asked(&["dba"]), false),
        ("bob", vec!["reviews", "never-dba"], asked(&["dba"]), false),
        (
            "bob",
            vec!["reviews", "never-dba"],
            asked(&["dev-bi"]),
            true,
        ),
        ("bob", vec!["reviews", "broken"], asked(&["dev-bi"]), false),
        ("bob", vec!["reviews-team"], asked(&["dba", "dev-bi"]), true),
        ("bob", vec!["reviews-team"], asked(&["dba"]), false),
        ("bob", vec![], asked(&["dba"]), false),
    ] {
        let reviewer = person(name, &roles);
        let what = request.roles.clone();
        let said = request.reviewed(&policy(), &reviewer, review(name, Verdict::Approve), at(1));
        assert_eq!(
            said.is_ok(),
            allowed,
            "{name} with {roles:?} reviews {what:?}"
        );
    }
    // Nobody speaks for somebody else.
    let bob = person("bob", &["reviews"]);
    let said = asked(&["dba"]).reviewed(&policy(), &bob, review("carol", Verdict::Deny), at(1));
    assert!(matches!(said, Err(TransitionRefused::NotAllowed { .. })));
}

#[test]
fn a_reviewer_speaks_once_and_briefly() {
    let once = reviewed(asked(&["dba"]), "bob", Verdict::Approve).unwrap();
    assert!(matches!(
        reviewed(once.clone(), "bob", Verdict::Approve),
        Err(TransitionRefused::ReviewedAlready { .. })
    ));
    let mut long = review("carol", Verdict::Deny);
    long.reason = "x".repeat(REASON_BYTES_MAX + 1);
    let carol = person("carol", &["reviews"]);
    assert_eq!(
        once.clone().reviewed(&policy(), &carol, long, at(1)),
        Err(TransitionRefused::ReasonTooLong)
    );
    let mut crowded = once;
    crowded.reviews = (0..REVIEWS_MAX)
        .map(|number| review(&format!("r{number}"), Verdict::Approve))
        .collect();
    assert_eq!(
        reviewed(crowded, "carol", Verdict::Approve),
        Err(TransitionRefused::TooManyReviews)
    );
}

#[test]
fn an_administrator_decides_alone() {
    let decided = |verdict| Decided {
        by: "root".to_owned(),
        verdict,
        reason: "outage".to_owned(),
    };
    let approved = asked(&["dba"])
        .decided(&policy(), decided(Verdict::Approve), at(1))
        .unwrap();
    assert_eq!(approved.state, RequestState::Approved);
    assert_eq!(approved.reviews[0].reviewer, "root");
    let denied = asked(&["dba"])
        .decided(&policy(), decided(Verdict::Deny), at(1))
        .unwrap();
    assert_eq!(denied.state, RequestState::Denied);
    let own = Decided {
        by: "alice".to_owned(),
        ..decided(Verdict::Approve)
    };
    assert_eq!(
        asked(&["dba"]).decided(&policy(), own, at(1)),
        Err(TransitionRefused::NotAllowed {
            reviewer: "alice".to_owned(),
            why: ReviewRefused::Own
        })
    );
    assert_eq!(
        denied.decided(&policy(), decided(Verdict::Approve), at(1)),
        Err(TransitionRefused::Closed {
            state: RequestState::Denied
        })
    );
}

#[test]
fn what_nobody_decided_in_time_expires_and_stays_so() {
    let request = asked(&["dba"]);
    assert_eq!(request.clone().at(at(3)).state, RequestState::Pending);
    let expired = request.clone().at(at(4));
    assert_eq!(
        (expired.state, expired.resolved),
        (RequestState::Expired, Some(at(4)))
    );
    let bob = person("bob", &["reviews"]);
    assert_eq!(
        request.reviewed(&policy(), &bob, review("bob", Verdict::Approve), at(4)),
        Err(TransitionRefused::Closed {
            state: RequestState::Expired
        })
    );
}

#[test]
fn a_threshold_of_none_never_decides_without_anybody() {
    let mut request = asked(&["dba"]);
    for threshold in &mut request.needs[0].thresholds {
        (threshold.approve, threshold.deny) = (0, 0);
    }
    let reviewed = reviewed(request, "bob", Verdict::Approve).unwrap();
    assert_eq!(reviewed.state, RequestState::Approved);
    assert_eq!(reviewed.reviews.len(), 1);
}

#[test]
fn a_request_prints_and_reads_back() {
    let request = reviewed(asked(&["dba"]), "bob", Verdict::Approve).unwrap();
    let printed = serde_json::to_string(&request).unwrap();
    assert_eq!(
        serde_json::from_str::<AccessRequest>(&printed).unwrap(),
        request
    );
}

proptest! {
    #[test]
    fn a_closed_request_never_changes_and_approval_takes_two(
        steps in prop::collection::vec((0_u8..4, any::<bool>(), 0_i64..6), 0..8)
    ) {
        let mut request = asked(&["dba"]);
        let mut now = 0;
        for (who, approve, later) in steps {
            now += later;
            let name = format!("r{who}");
            let verdict = if approve { Verdict::Approve } else { Verdict::Deny };
            let reviewer = person(&name, &["reviews"]);
            let before = request.clone().at(at(now));
            let after = before.clone().reviewed(&policy(), &reviewer, review(&name, verdict), at(now));
            if before.state != RequestState::Pending {
                prop_assert_eq!(after.clone(), Err(TransitionRefused::Closed { state: before.state }));
            }
            request = after.unwrap_or(before);
            let approvals = request.reviews.iter().filter(|r| r.verdict == Verdict::Approve).count();
            prop_assert_eq!(request.state == RequestState::Approved, approvals == 2 && !request.reviews.iter().any(|r| r.verdict == Verdict::Deny));
            prop_assert_eq!(request.resolved.is_some(), request.state != RequestState::Pending);
        }
    }
}
