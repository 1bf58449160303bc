//! What each thing that was seen does to the list of policies.

use tidegate_core::AssumeRole;

use super::{super::Actor, *};
use crate::{
    chain::RoleChain,
    diagnosis::diagnose,
    iam::Decision,
    login::{Login, LoginRequest},
    session::SessionTag,
};

const OWN: &str = "arn:aws:sts::111111111111:assumed-role/tidegate/i-1";
const HERE: &str = "111111111111";
const AWAY: &str = "222222222222";

struct Refusal {
    failure: AwsFailure,
    step: Step,
}

/// A refused hop from this process to a role, of which AWS says no more than that.
fn hop(account: &str, external_id: Option<&str>, session: &SessionTag) -> Refusal {
    let role_arn: RoleArn = format!("arn:aws:iam::{account}:role/dba").parse().unwrap();
    let role = AssumeRole {
        role_arn: role_arn.clone(),
        external_id: external_id.map(|id| id.parse().unwrap()),
    };
    let request = request(RoleChain::new(Some(role), None));
    let said =
        format!("User: {OWN} is not authorized to perform: sts:AssumeRole on resource: {role_arn}");
    let mut failure = AwsFailure::new(AwsErrorClass::AccessDenied, "sts:AssumeRole", said);
    failure.hop = Some(role_arn);
    let step = Step::of_failure(&failure, &request, session);
    Refusal { failure, step }
}

fn mint() -> Refusal {
    let action = "redshift:GetClusterCredentials";
    let failure = AwsFailure::new(AwsErrorClass::AccessDenied, action, "Access denied");
    let request = request(RoleChain::default());
    let step = Step::of_failure(&failure, &request, &SessionTag::new("alice"));
    Refusal { failure, step }
}

fn request(chain: RoleChain) -> LoginRequest {
    LoginRequest {
        login: Login::ClusterUser {
            cluster: "orders".to_owned(),
            db_user: "reader".to_owned(),
            db_name: "dev".to_owned(),
            create: None,
        },
        region: "us-east-1".parse().unwrap(),
        account: Some(HERE.parse().unwrap()),
        chain,
    }
}

fn plain() -> SessionTag {
    SessionTag::new("alice")
}

impl Refusal {
    fn with(&self, evidence: &Evidence) -> (Diagnosis, String) {
        let diagnosis = diagnose(&self.failure, &self.step);
        let (diagnosis, told) = narrow(diagnosis, &self.failure, &self.step, OWN, evidence);
        (diagnosis, told.join("\n"))
    }
}

fn kinds(diagnosis: &Diagnosis) -> Vec<PolicyKind> {
    let changes = diagnosis.changes.iter();
    changes.map(|change| change.policy).collect()
}

fn simulated(decision: Decision) -> Simulated {
    Simulated {
        action: "sts:AssumeRole".to_owned(),
        resource: "arn:aws:iam::222222222222:role/dba".to_owned(),
        decision,
        matched: Vec::new(),
        missing_keys: Vec::new(),
        by_boundary: None,
        by_organization: None,
    }
}

fn saw(simulated: Simulated) -> Evidence {
    Evidence {
        source: "arn:aws:iam::111111111111:role/ops/tidegate".to_owned(),
        caller: Look::Seen(vec![simulated]),
        boundary: None,
        role: Look::Elsewhere(AWAY.to_owned()),
    }
}

fn trusting(statement: &str) -> Look<RoleSeen> {
    let json = format!(r#"{{"Statement":[{statement}]}}"#);
    Look::Seen(RoleSeen {
        arn: format!("arn:aws:iam::{HERE}:role/dba"),
        trust: Some(TrustPolicy::read(&json).unwrap()),
    })
}

#[test]
fn iam_is_asked_only_about_what_aws_left_open_and_only_in_its_own_account() {
    let cross = hop(AWAY, None, &plain());
    let inquiry = Inquiry::of(&cross.failure, &cross.step, OWN).unwrap();
    assert_eq!(
        inquiry.caller,
        Some(Subject::Here {
            arn: "arn:aws:iam::111111111111:role/tidegate".to_owned(),
            role_of_session: Some("tidegate".to_owned()),
        })
    );
    assert_eq!(inquiry.role.unwrap().1, Subject::Elsewhere(AWAY.to_owned()));

    let mut told = hop(HERE, None, &plain());
    told.failure.message = "x because no role trust policy allows the sts:AssumeRole action".into();
    let inquiry = Inquiry::of(&told.failure, &told.step, OWN).unwrap();
    assert_eq!(inquiry.caller, None);
    assert!(matches!(inquiry.role, Some((_, Subject::Here { .. }))));

    told.failure.message =
        "x because no permissions boundary allows the sts:AssumeRole action".into();
    assert_eq!(Inquiry::of(&told.failure, &told.step, OWN), None);
    let mut throttled = hop(HERE, None, &plain());
    throttled.failure.class = AwsErrorClass::Throttled;
    assert_eq!(Inquiry::of(&throttled.failure, &throttled.step, OWN), None);
}

#[test]
fn a_simulation_asks_for_what_the_statement_would_allow() {
    let minting = mint();
    let inquiry = Inquiry::of(&minting.failure, &minting.step, OWN).unwrap();
    assert_eq!(inquiry.role, None);
    let questions = inquiry.simulations("arn:x");
    let [
        IamQuestion::Simulate {
            actions, resources, ..
        },
    ] = &questions[..]
    else {
        panic!("{questions:?}");
    };
    assert_eq!(actions, &["redshift:GetClusterCredentials"]);
    assert_eq!(resources.len(), 2);
}

#[test]
fn a_limit_that_does_not_let_the_call_through_is_the_only_policy_to_change() {
    let refusal = hop(AWAY, None, &plain());
    for (by_boundary, by_organization, kind, who) in [
        (
            Some(false),
            Some(true),
            PolicyKind::Boundary,
            Actor::AwsAdministrator,
        ),
        (
            None,
            Some(false),
            PolicyKind::ServiceControl,
            Actor::OrganizationAdministrator,
        ),
        (
            Some(true),
            Some(true),
            PolicyKind::Identity,
            Actor::AwsAdministrator,
        ),
    ] {
        let evidence = saw(Simulated {
            by_boundary,
            by_organization,
            ..simulated(Decision::ImplicitDeny)
        });
        let (found, told) = refusal.with(&evidence);
        assert_eq!(kinds(&found), [kind], "{told}");
        assert_eq!((found.who, found.any_of), (who, false));
        assert!(matches!(found.changes[0].edit, Edit::Add(_)));
    }
}

#[test]
fn a_statement_that_denies_is_named_and_to_be_taken_away() {
    let evidence = saw(Simulated {
        matched: vec!["no-roles".to_owned()],
        ..simulated(Decision::ExplicitDeny)
    });
    let (found, told) = hop(AWAY, None, &plain()).with(&evidence);
    assert!(told.contains("matched in no-roles"), "{told}");
    assert_eq!(
        found.changes[0].edit,
        Edit::StopDenying {
            action: "sts:AssumeRole".to_owned(),
            policy_arn: Some("no-roles".to_owned())
        }
    );
}

#[test]
fn a_caller_whose_policies_allow_it_leaves_the_trust_policy_of_another_account() {
    let (found, told) = hop(AWAY, None, &plain()).with(&saw(simulated(Decision::Allowed)));
    assert_eq!(kinds(&found), [PolicyKind::Trust]);
    assert!(!found.any_of);
    assert!(
        found.remedy.contains("no external id is sent"),
        "{}",
        found.remedy
    );
    assert!(
        told.contains("is allowed") && told.contains("account 222222222222"),
        "{told}"
    );
}

#[test]
fn a_decision_that_hangs_on_keys_of_a_real_call_takes_nothing_off_the_list() {
    let evidence = saw(Simulated {
        missing_keys: vec!["aws:SourceIp".to_owned()],
        ..simulated(Decision::ImplicitDeny)
    });
    let (found, told) = hop(AWAY, None, &plain()).with(&evidence);
    assert_eq!(kinds(&found), [PolicyKind::Trust, PolicyKind::Identity]);
    assert!(found.any_of && told.contains("aws:SourceIp"), "{told}");
}

#[test]
fn without_the_right_to_look_the_list_stays_and_it_is_said() {
    let denied = || IamRefusal::Denied {
        code: "AccessDenied".to_owned(),
    };
    let evidence = Evidence {
        caller: Look::Refused(denied()),
        role: Look::Refused(denied()),
        ..Evidence::default()
    };
    let refusal = hop(HERE, None, &plain());
    let (found, told) = refusal.with(&evidence);
    assert_eq!(found, diagnose(&refusal.failure, &refusal.step));
    assert_eq!(told.matches("not permitted to look").count(), 2, "{told}");
}

#[test]
fn each_gap_of_a_trust_policy_has_its_own_remedy() {
    let tagged = plain().with_tag("team", "data");
    let account = r#""Principal":{"AWS":"111111111111"}"#;
    let allowed = |source: &str| Evidence {
        role: trusting(source),
        ..saw(simulated(Decision::Allowed))
    };
    let stranger = r#"{"Effect":"Allow","Principal":{"AWS":"AROADELETED"},"Action":"sts:*"}"#;
    let (found, told) = hop(HERE, None, &plain()).with(&allowed(stranger));
    assert_eq!(kinds(&found), [PolicyKind::Trust]);
    assert!(
        told.contains("AROADELETED") && told.contains("deleted"),
        "{told}"
    );
    assert!(found.remedy.contains("role/tidegate"), "{}", found.remedy);

    let id = format!(
        r#"{{"Effect":"Allow",{account},"Action":"sts:AssumeRole","Condition":{{"StringEquals":{{"sts:ExternalId":"s3cret"}}}}}}"#
    );
    for (sent, word) in [(None, "none is sent"), (Some("other"), "another is sent")] {
        let (found, told) = hop(HERE, sent, &plain()).with(&allowed(&id));
        assert_eq!((kinds(&found), found.who), (vec![], Actor::Operator));
        assert!(found.remedy.contains(word), "{}", found.remedy);
        assert!(!told.contains("s3cret") && !found.remedy.contains("s3cret"));
    }

    let assume = format!(r#"{{"Effect":"Allow",{account},"Action":"sts:AssumeRole"}}"#);
    let (found, told) = hop(HERE, None, &tagged).with(&allowed(&assume));
    assert_eq!(kinds(&found), [PolicyKind::Trust]);
    assert!(
        found.remedy.contains("db_service.aws_session.tags"),
        "{}",
        found.remedy
    );
    assert!(told.contains("not for sts:TagSession"), "{told}");

    let denies =
        format!(r#"{assume},{{"Effect":"Deny","Principal":"*","Action":"sts:AssumeRole"}}"#);
    let (found, _) = hop(HERE, None, &plain()).with(&allowed(&denies));
    assert!(matches!(found.changes[0].edit, Edit::StopDenying { .. }));

    let unclear = format!(
        r#"{{"Effect":"Allow",{account},"Action":"sts:AssumeRole","Condition":{{"Bool":{{"aws:MultiFactorAuthPresent":"true"}}}}}}"#
    );
    let (found, told) = hop(HERE, None, &plain()).with(&allowed(&unclear));
    assert_eq!(kinds(&found), [PolicyKind::Trust]);
    assert!(told.contains("aws:MultiFactorAuthPresent"), "{told}");
}

#[test]
fn who_is_named_by_a_role_of_its_own_account_needs_no_policy_of_its_own() {
    let direct = r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:role/tidegate"},"Action":"sts:AssumeRole"}"#;
    let of_account =
        r#"{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"sts:AssumeRole"}"#;
    let with = |statement| Evidence {
        role: trusting(statement),
        ..saw(simulated(Decision::ImplicitDeny))
    };
    let (found, _) = hop(HERE, None, &plain()).with(&with(direct));
    assert_eq!(kinds(&found), []);
    assert!(found.remedy.contains("session policy"), "{}", found.remedy);
    let (found, _) = hop(HERE, None, &plain()).with(&with(of_account));
    assert_eq!(kinds(&found), [PolicyKind::Identity]);
}

#[test]
fn a_role_that_is_not_there_or_has_another_path_is_told_as_that() {
    let with = |role| Evidence {
        role,
        ..saw(simulated(Decision::Allowed))
    };
    let (found, told) = hop(HERE, None, &plain()).with(&with(Look::Refused(IamRefusal::Absent)));
    assert_eq!((kinds(&found), found.who), (vec![], Actor::Operator));
    assert!(told.contains("finds no role"), "{told}");
    let other = Look::Seen(RoleSeen {
        arn: "arn:aws:iam::111111111111:role/data/dba".to_owned(),
        trust: None,
    });
    let (found, _) = hop(HERE, None, &plain()).with(&with(other));
    assert!(found.remedy.contains("role/data/dba"), "{}", found.remedy);
}

#[test]
fn a_login_that_all_policies_allow_points_where_iam_shows_nothing() {
    let mut one = simulated(Decision::Allowed);
    one.action = "redshift:GetClusterCredentials".to_owned();
    let (found, _) = mint().with(&saw(one.clone()));
    assert_eq!(kinds(&found), []);
    assert!(found.remedy.contains("VPC endpoint"), "{}", found.remedy);
    one.decision = Decision::ImplicitDeny;
    one.by_boundary = Some(false);
    let evidence = Evidence {
        boundary: Some("arn:aws:iam::111111111111:policy/limit".to_owned()),
        ..saw(one)
    };
    let (found, _) = mint().with(&evidence);
    assert_eq!(kinds(&found), [PolicyKind::Boundary]);
    assert!(
        found.changes[0].of.contains("policy/limit"),
        "{:?}",
        found.changes
    );
}
