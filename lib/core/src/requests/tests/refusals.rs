//! What is refused, and what the refused are told.

use super::*;

#[test]
fn a_refusal_names_the_role_that_forbids_and_never_tells_which_roles_exist() {
    let why = |holds: &[&str], role: &str| {
        let refused = policy().request(&person("alice", holds), wanted(&[role]), at(0));
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        why(&["asks", "never-dba"], "dba"),
        "you may not ask for role `dba`: role `never-dba` forbids it (`deny.request.roles`)"
    );
    let unlisted = why(&["asks"], "access");
    assert_eq!(
        unlisted,
        "you may not ask for role `access`: none of your roles lets you (`allow.request.roles`)"
    );
    assert_eq!(
        why(&["asks"], "absent"),
        unlisted.replace("access", "absent")
    );
    assert_eq!(
        why(&["asks"], "dev-absent"),
        unlisted.replace("access", "dev-absent")
    );
}

#[test]
fn a_refused_reviewer_is_told_the_role_and_the_rule() {
    let why = |name: &str, roles: &[&str], request: &AccessRequest| {
        policy().may_review(&person(name, roles), request)
    };
    let (dba, role) = (asked(&["dba"]), "dba".to_owned());
    assert_eq!(why("alice", &["reviews"], &dba), Err(ReviewRefused::Own));
    assert_eq!(
        why("bob", &["access"], &dba),
        Err(ReviewRefused::NotAllowed { role: role.clone() })
    );
    assert_eq!(
        why("bob", &["reviews", "never-dba"], &dba),
        Err(ReviewRefused::Denied {
            role: role.clone(),
            by: "never-dba".to_owned()
        })
    );
    assert_eq!(
        why("bob", &["reviews-team"], &dba),
        Err(ReviewRefused::Filtered {
            role,
            by: "reviews-team".to_owned()
        })
    );
    // Another role of the reviewer without a filter is enough.
    assert_eq!(why("bob", &["reviews-team", "reviews"], &dba), Ok(()));
    let nothing = AccessRequest {
        roles: Vec::new(),
        ..dba
    };
    assert_eq!(
        why("bob", &["reviews"], &nothing),
        Err(ReviewRefused::NoRoles)
    );
}

#[test]
fn roles_are_not_had_for_longer_than_a_login_with_them_lasts() {
    let mut short = role("dba", "{}", "{}");
    short.options.max_session_ttl = Some(hours(2));
    let roles = policy();
    let names: Vec<&str> = roles.role_names().filter(|name| *name != "dba").collect();
    let roles = names.iter().filter_map(|name| roles.role(name).cloned());
    let policy = Policy::new(roles.chain([short]));
    let alice = person("alice", &["asks"]);
    let request = policy.request(&alice, wanted(&["dba"]), at(0)).unwrap();
    assert_eq!(request.access_until, at(2));
    let longer = Wanted {
        duration: Some(hours(3)),
        ..wanted(&["dba"])
    };
    assert_eq!(
        policy.request(&alice, longer, at(0)),
        Err(RequestRefused::TooLong { most: hours(2) })
    );
}
