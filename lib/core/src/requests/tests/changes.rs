//! What changes between a request and its use.

use super::*;

/// The policy without a role.
fn without(role: &str) -> Policy {
    let roles = policy();
    let kept: Vec<Role> = roles
        .role_names()
        .filter(|name| *name != role)
        .filter_map(|name| roles.role(name).cloned())
        .collect();
    Policy::new(kept)
}

#[test]
fn a_request_for_a_role_that_is_gone_is_denied_and_never_approved() {
    let bob = person("bob", &["reviews"]);
    let gone = without("dba");
    let refused = Err(TransitionRefused::RoleGone {
        role: "dba".to_owned(),
    });
    let approve = review("bob", Verdict::Approve);
    assert_eq!(
        asked(&["dba"]).reviewed(&gone, &bob, approve, at(1)),
        refused
    );
    let decided = |verdict| Decided {
        by: "root".to_owned(),
        verdict,
        reason: String::new(),
    };
    assert_eq!(
        asked(&["dba"]).decided(&gone, decided(Verdict::Approve), at(1)),
        refused
    );
    let denied = asked(&["dba"]).reviewed(&gone, &bob, review("bob", Verdict::Deny), at(1));
    assert_eq!(denied.unwrap().state, RequestState::Denied);
    assert!(
        asked(&["dba"])
            .decided(&gone, decided(Verdict::Deny), at(1))
            .is_ok()
    );
}

#[test]
fn what_a_request_needs_stays_as_it_was_when_roles_change() {
    let mut lax = role("asks", r#"{"request": {"roles": ["dba"]}}"#, "{}");
    lax.name = "asks".to_owned();
    let roles = without("asks");
    let kept: Vec<Role> = roles
        .role_names()
        .filter_map(|name| roles.role(name).cloned())
        .collect();
    let lax = Policy::new(kept.into_iter().chain([lax]));
    let bob = person("bob", &["reviews"]);
    let once = asked(&["dba"]).reviewed(&lax, &bob, review("bob", Verdict::Approve), at(1));
    assert_eq!(once.unwrap().state, RequestState::Pending);
}

fn approved(id: &str, roles: &[&str], until: i64) -> AccessRequest {
    AccessRequest {
        id: id.to_owned(),
        state: RequestState::Approved,
        access_until: at(until),
        ..asked(roles)
    }
}

#[test]
fn several_requests_together_give_their_roles_until_the_first_ends() {
    let requests = [approved("q1", &["dba"], 3), approved("q2", &["dev-bi"], 2)];
    let together = policy().assume("alice", &requests, at(1)).unwrap();
    assert_eq!(together.roles, ["dba", "dev-bi"]);
    assert_eq!(together.until, at(2));
    let nothing = policy().assume("alice", &[], at(1)).unwrap();
    assert_eq!((nothing.roles.len(), nothing.until), (0, Timestamp::MAX));
}

#[test]
fn one_request_that_gives_nothing_refuses_all() {
    let good = approved("q1", &["dev-bi"], 3);
    let with = |other: AccessRequest| policy().assume("alice", &[good.clone(), other], at(2));
    let id = || "q2".to_owned();
    let mut pending = approved("q2", &["dba"], 3);
    pending.state = RequestState::Pending;
    assert_eq!(
        with(pending),
        Err(AssumeRefused::NotApproved {
            id: id(),
            state: RequestState::Pending
        })
    );
    assert_eq!(
        with(approved("q2", &["dba"], 2)),
        Err(AssumeRefused::Over {
            id: id(),
            until: at(2)
        })
    );
    let mut others = approved("q2", &["dba"], 3);
    others.user = "mallory".to_owned();
    assert_eq!(with(others), Err(AssumeRefused::NotYours { id: id() }));
    let requests = [approved("q2", &["dba"], 3)];
    assert_eq!(
        without("dba").assume("alice", &requests, at(2)),
        Err(AssumeRefused::RoleGone {
            id: id(),
            role: "dba".to_owned()
        })
    );
    let many = vec![good; ASSUMED_MAX + 1];
    assert_eq!(
        policy().assume("alice", &many, at(2)),
        Err(AssumeRefused::TooMany)
    );
}
