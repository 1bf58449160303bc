//! How a process joins, and where the auth service asks who joins.

use secrecy::ExposeSecret as _;
use tidegate_service::settings::JoinMethod;

use super::{errors, good, warnings};

#[test]
fn joining_by_iam_is_read_as_the_known_guides_write_it() {
    let text = "teleport:\n  join_params:\n    token_name: iam-token\n    method: iam\n  proxy_server: tidegate.example.com:443\n";
    let join = good(text).process.join;
    assert_eq!(join.method, JoinMethod::Iam);
    assert_eq!(join.token.unwrap().expose_secret(), "iam-token");
    assert_eq!(
        good("tidegate: {auth_token: x}\n").process.join.method,
        JoinMethod::Token
    );
}

#[test]
fn what_does_not_go_with_a_method_is_refused() {
    for (params, says) in [
        ("join_params: {method: iam}", "names no token"),
        (
            "join_params: {method: iam}, auth_token: x",
            "is a secret, and joining by `iam` needs none",
        ),
        (
            "join_params: {method: ec2, token_name: x}",
            "unknown value `ec2`",
        ),
        (
            "join_params: {token_name: x}, auth_token: y",
            "is given beside",
        ),
    ] {
        let told = errors(&format!("tidegate: {{{params}}}\n")).join("\n");
        assert!(told.contains(says), "{told}");
    }
    assert_eq!(
        warnings("tidegate: {join_params: {token_name: x, azure: {}}}\n").len(),
        1
    );
}

#[test]
fn the_endpoint_of_sts_is_under_tls_or_on_this_machine() {
    let read = |url: &str| {
        format!("auth_service: {{cluster_name: c.example.com, sts_endpoint_url: '{url}'}}\n")
    };
    let settings = good(&read("https://vpce-1.sts.us-east-1.vpce.amazonaws.com"));
    let endpoint = settings.auth.unwrap().sts_endpoint.unwrap();
    assert_eq!((endpoint.port, endpoint.tls), (443, true));
    let told = errors(&read("http://10.0.0.1")).join("\n");
    assert!(told.contains("is no endpoint of AWS STS"), "{told}");
}
