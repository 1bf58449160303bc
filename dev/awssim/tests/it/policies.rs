//! Permissions boundaries, service control policies and explicit denies: what AWS says of each, and what
//! SimulatePrincipalPolicy tells before.

use std::time::SystemTime;

use aws_sdk_redshift::error::ProvideErrorMetadata;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use awssim::{Cluster, IdentityPolicy, Role, TrustPolicy, World};

use crate::machines::request_with;
use crate::{EAST, Fixture, HOME, cluster_id, world};

/// What is done to a role before it is asked for.
type Limit<'a> = &'a dyn Fn(&mut Role);

const ACTION: &str = "redshift:GetClusterCredentials";

/// A role of the worker's own account that may log everybody in to cluster `c1`, as far as its own policies go.
fn with_role(limit: impl FnOnce(&mut Role)) -> World {
    let mut world = world();
    world.put_cluster(&cluster_id(HOME, "c1"), Cluster::default());
    let account = world.account(HOME);
    let login = IdentityPolicy::allow(["redshift:*"], ["*"]);
    let worker = account.users.get_mut("worker").unwrap();
    worker
        .policies
        .push(IdentityPolicy::allow(["iam:*", "sts:AssumeRole"], ["*"]));
    let mut role = Role::new(TrustPolicy::allow([HOME]), vec![login]);
    limit(&mut role);
    account.put_role("login", role);
    world
}

/// A call of IAM by the worker, whose SDK is not at hand; status and XML.
async fn signed(fixture: &Fixture, body: &str) -> (u16, String) {
    let url = format!("{}/", fixture.sim.endpoint_url());
    let identity = crate::worker().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(EAST)
        .name("iam")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let bytes = SignableBody::Bytes(body.as_bytes());
    let request = SignableRequest::new("POST", &url, std::iter::empty(), bytes).unwrap();
    let (signing, _) = sign(request, &params.into()).unwrap().into_parts();
    let headers: Vec<(&str, &str)> = signing.headers().collect();
    let (status, _, body) = request_with("POST", &url, &headers, body).await;
    (status, body)
}

/// What AWS says when the role asks for a password.
async fn refusal(fixture: &Fixture) -> String {
    let role = format!("arn:aws:iam::{HOME}:role/login");
    let session = fixture.assume(crate::worker(), &role).await;
    let client = fixture.redshift(session);
    let request = client
        .get_cluster_credentials()
        .cluster_identifier("c1")
        .db_user("alice");
    match request.send().await {
        Ok(_) => "allowed".to_owned(),
        Err(error) => {
            let error = error.into_service_error();
            assert_eq!(error.code(), Some("AccessDenied"));
            error.message().unwrap().to_owned()
        }
    }
}

#[tokio::test]
async fn each_limit_is_told_by_its_name() {
    let all = || IdentityPolicy::allow(["*"], ["*"]);
    let other = || IdentityPolicy::allow(["s3:*"], ["*"]);
    let deny = || IdentityPolicy::deny([ACTION], ["*"]);
    let arn = "arn:aws:redshift:us-east-1:111111111111:dbuser:c1/alice";
    let head = format!(
        "User: arn:aws:sts::{HOME}:assumed-role/login/it is not authorized to perform: {ACTION} on resource: {arn}"
    );
    let told = |end: &str| format!("{head} {end}");
    let cases: [(Limit<'_>, String); 5] = [
        (&|role| role.boundary = Some(all()), "allowed".to_owned()),
        (
            &|role| role.boundary = Some(other()),
            told(&format!(
                "because no permissions boundary allows the {ACTION} action"
            )),
        ),
        (
            &|role| role.boundary = Some(deny()),
            told("with an explicit deny in a permissions boundary"),
        ),
        (
            &|role| role.policies.push(deny()),
            told("with an explicit deny in an identity-based policy"),
        ),
        (
            &|role| role.policies = vec![other()],
            told(&format!(
                "because no identity-based policy allows the {ACTION} action"
            )),
        ),
    ];
    for (limit, wanted) in cases {
        let fixture = Fixture::api(with_role(limit)).await;
        assert_eq!(refusal(&fixture).await, wanted);
    }

    for (policies, end) in [
        (vec![all()], None),
        (
            vec![IdentityPolicy::allow(["sts:*"], ["*"])],
            Some(format!(
                "because no service control policy allows the {ACTION} action"
            )),
        ),
        (
            vec![all(), deny()],
            Some("with an explicit deny in a service control policy".to_owned()),
        ),
    ] {
        let mut world = with_role(|_| ());
        world.account(HOME).service_control_policies = policies;
        let fixture = Fixture::api(world).await;
        let wanted = end.map_or("allowed".to_owned(), |end| told(&end));
        assert_eq!(refusal(&fixture).await, wanted);
    }
}

#[tokio::test]
async fn a_role_of_the_same_account_that_does_not_trust_is_told_and_of_another_is_not() {
    let mut world = with_role(|role| role.trust = TrustPolicy::allow(["999999999999"]));
    let away = world.account(crate::AWAY);
    away.put_role(
        "stranger",
        Role::new(TrustPolicy::allow(["999999999999"]), vec![]),
    );
    let fixture = Fixture::api(world).await;
    let refused = async |account: &str, role: &str| {
        let client = fixture.sts(crate::worker());
        let request = client
            .assume_role()
            .role_arn(format!("arn:aws:iam::{account}:role/{role}"));
        let error = request.role_session_name("it").send().await.unwrap_err();
        error.into_service_error().message().unwrap().to_owned()
    };
    let same = refused(HOME, "login").await;
    assert!(
        same.ends_with("because no resource-based policy allows the sts:AssumeRole action"),
        "{same}"
    );
    let other = refused(crate::AWAY, "stranger").await;
    assert!(other.ends_with("role/stranger"), "{other}");
    // Neither is it told what the caller's own side lacks.
    let mut world = with_role(|_| ());
    let trusting = Role::new(TrustPolicy::allow([HOME]), vec![]);
    world.account(crate::AWAY).put_role("friend", trusting);
    let worker = world.account(HOME).users.get_mut("worker").unwrap();
    worker.policies.clear();
    let fixture = Fixture::api(world).await;
    let client = fixture.sts(crate::worker());
    let role = format!("arn:aws:iam::{}:role/friend", crate::AWAY);
    let request = client.assume_role().role_arn(&role).role_session_name("it");
    let error = request.send().await.unwrap_err().into_service_error();
    assert!(error.message().unwrap().ends_with(&role), "{error:?}");
}

#[tokio::test]
async fn a_simulation_tells_the_decision_and_which_limit_it_is() {
    let world = with_role(|role| role.boundary = Some(IdentityPolicy::allow(["rds:*"], ["*"])));
    let fixture = Fixture::api(world).await;
    let simulate = async |source: &str, action: &str| {
        let body = format!(
            "Action=SimulatePrincipalPolicy&Version=2010-05-08&PolicySourceArn={source}&ActionNames.member.1={action}"
        );
        signed(&fixture, &body).await
    };
    let role = format!("arn:aws:iam::{HOME}:role/login");
    let (status, body) = simulate(&role, ACTION).await;
    assert_eq!(status, 200, "{body}");
    for part in [
        "<EvalDecision>implicitDeny</EvalDecision>",
        "<AllowedByPermissionsBoundary>false</AllowedByPermissionsBoundary>",
        &format!("<EvalActionName>{ACTION}</EvalActionName>"),
    ] {
        assert!(body.contains(part), "{part} in {body}");
    }
    let user = format!("arn:aws:iam::{HOME}:user/worker");
    let (_, body) = simulate(&user, "iam:GetRole").await;
    assert!(
        body.contains("<EvalDecision>allowed</EvalDecision>"),
        "{body}"
    );
    assert!(
        body.contains("<SourcePolicyType>IAM Policy</SourcePolicyType>"),
        "{body}"
    );
    let (status, body) = simulate(&format!("{role}-none"), ACTION).await;
    assert!(status == 404 && body.contains("NoSuchEntity"), "{body}");

    let (status, body) = signed(&fixture, "Action=GetRole&Version=2010-05-08&RoleName=login").await;
    assert!(
        status == 200 && body.contains("AssumeRolePolicyDocument>%7B"),
        "{body}"
    );
    assert!(
        body.contains("<PermissionsBoundaryType>Policy</PermissionsBoundaryType>"),
        "{body}"
    );
}

#[tokio::test]
async fn a_simulation_has_one_result_an_action_with_its_resources_below_and_ends_at_the_organization()
 {
    let mut world = with_role(|role| {
        role.policies = vec![
            IdentityPolicy::allow([ACTION], ["arn:one/${aws:userid}", "arn:two"]),
            IdentityPolicy::deny([ACTION], ["arn:three"]),
        ];
    });
    let role = format!("arn:aws:iam::{HOME}:role/login");
    let body = format!(
        "Action=SimulatePrincipalPolicy&Version=2010-05-08&PolicySourceArn={role}&ActionNames.member.1={ACTION}\
         &ResourceArns.member.1=arn:one/x&ResourceArns.member.2=arn:two&ResourceArns.member.3=arn:three"
    );
    let fixture = Fixture::api(world.clone()).await;
    let (_, told) = signed(&fixture, &body).await;
    assert_eq!(
        told.matches("<EvalDecision>explicitDeny</EvalDecision>")
            .count(),
        1,
        "{told}"
    );
    for part in [
        "<EvalResourceName>arn:one/x</EvalResourceName><EvalResourceDecision>implicitDeny</EvalResourceDecision>",
        "<EvalResourceName>arn:two</EvalResourceName><EvalResourceDecision>allowed</EvalResourceDecision>",
        "<member>aws:userid</member>",
        "<SourcePolicyId>policy-2</SourcePolicyId>",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }

    let all = IdentityPolicy::allow(["iam:*"], ["*"]);
    world.account(HOME).service_control_policies = vec![all];
    let fixture = Fixture::api(world).await;
    let (_, told) = signed(&fixture, &body).await;
    assert!(
        told.contains("<AllowedByOrganizations>false</AllowedByOrganizations>")
            && told.contains("<EvalDecision>implicitDeny</EvalDecision>")
            && !told.contains("SourcePolicyId"),
        "{told}"
    );
}

#[tokio::test]
async fn sessions_of_a_deleted_role_are_of_no_use_even_when_it_is_made_anew() {
    let fixture = Fixture::api(with_role(|_| {})).await;
    let role = format!("arn:aws:iam::{HOME}:role/login");
    let session = fixture.assume(crate::worker(), &role).await;
    let asked = async || {
        let client = fixture.redshift(session.clone());
        let request = client
            .get_cluster_credentials()
            .cluster_identifier("c1")
            .db_user("alice");
        let answer = request.send().await;
        answer.err().map(|error| {
            let code = error.into_service_error().code().map(str::to_owned);
            code.unwrap_or_default()
        })
    };
    assert_eq!(asked().await, None);

    fixture.sim.remove_role(HOME, "login").unwrap();
    assert_eq!(asked().await.as_deref(), Some("InvalidClientTokenId"));
    fixture.sim.remove_role(HOME, "login").unwrap_err();
    let all = IdentityPolicy::allow(["redshift:*"], ["*"]);
    let again = Role::new(TrustPolicy::allow([HOME]), vec![all]);
    fixture.sim.put_role(HOME, "login", again).unwrap();
    assert_eq!(asked().await.as_deref(), Some("InvalidClientTokenId"));
}
