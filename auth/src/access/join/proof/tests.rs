use proptest::prelude::*;

use super::*;

const CHALLENGE: &str = "c2VudCBieSB0aGUgYXV0aCBzZXJ2aWNl";
const SIGNED: &str = "accept;content-type;host;x-amz-date;x-tidegate-challenge";

fn now() -> Timestamp {
    "2026-11-22T17:00:00Z".parse().unwrap()
}

fn authorization(region: &str, signed: &str) -> String {
    let signature = "0".repeat(64);
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261122/{region}/sts/aws4_request, SignedHeaders={signed}, \
         Signature={signature}"
    )
}

fn request() -> v1::SignedRequest {
    let headers = [
        (ACCEPT, "application/json"),
        (CONTENT_TYPE, CONTENT_TYPES[0]),
        (HOST, "sts.us-east-1.amazonaws.com"),
        (DATE, "20261122T165900Z"),
        (CHALLENGE_HEADER, CHALLENGE),
        (AUTHORIZATION, &authorization("us-east-1", SIGNED)),
    ];
    v1::SignedRequest {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| v1::HttpHeader {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect(),
        body: BODY.as_bytes().to_vec(),
    }
}

/// The request with another value of a header; with none, without the header.
fn with(name: &str, value: Option<&str>) -> v1::SignedRequest {
    let mut request = request();
    request.headers.retain(|header| header.name != name);
    request.headers.extend(value.map(|value| v1::HttpHeader {
        name: name.to_owned(),
        value: value.to_owned(),
    }));
    request
}

fn refused(request: &v1::SignedRequest) -> ProofError {
    check(request, CHALLENGE, now()).unwrap_err()
}

#[test]
fn a_request_that_answers_the_challenge_passes_and_keeps_what_was_signed() {
    let proof = check(&request(), CHALLENGE, now()).unwrap();
    assert_eq!(proof.host, "sts.us-east-1.amazonaws.com");
    assert_eq!(proof.headers.len(), 6);
    let hash = secret::hex(&secret::digest(BODY));
    for (name, value) in [
        (CONTENT_LENGTH, BODY.len().to_string().as_str()),
        (HASH, hash.as_str()),
        (CONTENT_TYPE, "application/x-www-form-urlencoded"),
    ] {
        assert!(
            check(&with(name, Some(value)), CHALLENGE, now()).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn a_request_for_another_challenge_is_refused() {
    let other = with(CHALLENGE_HEADER, Some("YW5vdGhlciBjaGFsbGVuZ2U="));
    assert_eq!(refused(&other), ProofError::Challenge);
    assert_eq!(
        refused(&with(CHALLENGE_HEADER, Some(""))),
        ProofError::Challenge
    );
    let missing = refused(&with(CHALLENGE_HEADER, None));
    assert_eq!(missing, ProofError::HeaderMissing(CHALLENGE_HEADER));
}

#[test]
fn what_is_relied_on_must_be_under_the_signature() {
    for name in [CHALLENGE_HEADER, HOST, DATE] {
        let signed: Vec<&str> = SIGNED.split(';').filter(|signed| *signed != name).collect();
        let authorization = authorization("us-east-1", &signed.join(";"));
        let unsigned = with(AUTHORIZATION, Some(&authorization));
        assert_eq!(refused(&unsigned), ProofError::Unsigned(name));
    }
    let with_token = with(SESSION_TOKEN, Some("token"));
    assert_eq!(refused(&with_token), ProofError::Unsigned(SESSION_TOKEN));
}

#[test]
fn only_get_caller_identity_is_sent() {
    let changed = |change: &dyn Fn(&mut v1::SignedRequest)| {
        let mut request = request();
        change(&mut request);
        refused(&request)
    };
    assert_eq!(
        changed(&|request| request.method = "GET".to_owned()),
        ProofError::Line
    );
    for path in ["", "/?Action=AssumeRole", "//", "/x", "http://127.0.0.1/"] {
        assert_eq!(
            changed(&|request| request.path = path.to_owned()),
            ProofError::Line,
            "{path}"
        );
    }
    for body in [
        "",
        "Action=AssumeRole&Version=2011-06-15",
        "Action=GetCallerIdentity&Version=2011-06-15&Action=AssumeRole",
        "Version=2011-06-15&Action=GetCallerIdentity",
    ] {
        assert_eq!(
            changed(&|request| request.body = body.as_bytes().to_vec()),
            ProofError::Body,
            "{body}"
        );
    }
}

#[test]
fn only_hosts_of_the_security_token_service_are_asked() {
    for (host, region) in [
        ("sts.amazonaws.com", "us-east-1"),
        ("sts.eu-central-1.amazonaws.com", "eu-central-1"),
        ("sts-fips.us-west-2.amazonaws.com", "us-west-2"),
        ("sts.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("sts.cn-northwest-1.amazonaws.com.cn", "cn-northwest-1"),
        ("sts.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"),
    ] {
        let mut request = with(HOST, Some(host));
        request
            .headers
            .retain(|header| header.name != AUTHORIZATION);
        request.headers.push(v1::HttpHeader {
            name: AUTHORIZATION.to_owned(),
            value: authorization(region, SIGNED),
        });
        assert!(check(&request, CHALLENGE, now()).is_ok(), "{host}");
    }
    for host in [
        "",
        "127.0.0.1",
        "169.254.169.254",
        "localhost:8080",
        "sts.us-east-1.amazonaws.com:443",
        "sts.us-east-1.amazonaws.com.",
        "sts.us-east-1.amazonaws.com.evil.example",
        "sts.us-east-1.amazonaws.com@evil.example",
        "sts.evil.example",
        "STS.us-east-1.amazonaws.com",
        "sts.s3-us-east-1.amazonaws.com",
        "iam.us-east-1.amazonaws.com",
        "sts.cn-north-1.amazonaws.com",
        "sts.us-east-1.amazonaws.com.cn",
        "sts-fips.evil.example",
        "x.sts.us-east-1.amazonaws.com",
    ] {
        assert_eq!(refused(&with(HOST, Some(host))), ProofError::Host, "{host}");
    }
}

#[test]
fn a_signature_for_another_region_service_or_day_is_refused() {
    let said = |authorization: &str| refused(&with(AUTHORIZATION, Some(authorization)));
    for wrong in [
        authorization("eu-west-1", SIGNED),
        authorization("us-east-1", SIGNED).replace("/sts/", "/iam/"),
        authorization("us-east-1", SIGNED).replace("20261122/", "20261121/"),
        authorization("us-east-1", SIGNED).replace("AKIAEXAMPLE", ""),
        authorization("us-east-1", SIGNED).replace("Signature=0", "Signature=x"),
        authorization("us-east-1", SIGNED) + ", Signature=0",
        "Bearer token".to_owned(),
        String::new(),
    ] {
        assert!(
            matches!(said(&wrong), ProofError::Authorization(_)),
            "{wrong}"
        );
    }
}

#[test]
fn headers_that_are_unknown_doubled_or_many_are_refused() {
    let unknown = refused(&with("x-amz-target", Some("x")));
    assert_eq!(
        unknown,
        ProofError::HeaderUnknown("`x-amz-target`".to_owned())
    );
    let odd = refused(&with("x\r\nhost", Some("x")));
    assert!(!odd.to_string().contains('\n'), "{odd}");

    let mut doubled = request();
    let again = v1::HttpHeader {
        name: "X-Tidegate-Challenge".to_owned(),
        value: CHALLENGE.to_owned(),
    };
    doubled.headers.push(again);
    assert_eq!(refused(&doubled), ProofError::HeaderTwice(CHALLENGE_HEADER));

    let mut many = request();
    many.headers = vec![many.headers[0].clone(); HEADERS_MAX + 1];
    assert_eq!(refused(&many), ProofError::TooManyHeaders);
}

#[test]
fn values_that_could_become_other_headers_are_refused() {
    let long = "x".repeat(HEADER_VALUE_BYTES_MAX + 1);
    for value in ["a\r\nhost: evil", "\u{0}", "\u{e9}", &long] {
        let said = refused(&with(SESSION_TOKEN, Some(value)));
        assert!(
            matches!(
                said,
                ProofError::HeaderValue {
                    name: SESSION_TOKEN,
                    ..
                }
            ),
            "{said}"
        );
    }
    for (name, value) in [
        (ACCEPT, "text/xml"),
        (CONTENT_TYPE, "application/json"),
        (CONTENT_LENGTH, "1"),
        (HASH, "UNSIGNED-PAYLOAD"),
        (DATE, "yesterday"),
    ] {
        let said = refused(&with(name, Some(value)));
        assert!(
            matches!(said, ProofError::HeaderValue { name: told, .. } if told == name),
            "{name}: {said}"
        );
    }
}

#[test]
fn a_signature_of_another_time_tells_both_clocks() {
    for date in ["20261122T165400Z", "20261122T170600Z"] {
        let said = refused(&with(DATE, Some(date)));
        assert_eq!(said.reason(), "CLOCK_SKEW", "{date}");
        assert!(said.to_string().contains("2026-11-22T17:00:00Z"), "{said}");
    }
    for date in ["20261122T165500Z", "20261122T170500Z"] {
        assert!(
            check(&with(DATE, Some(date)), CHALLENGE, now()).is_ok(),
            "{date}"
        );
    }
}

#[test]
fn a_proof_does_not_print_its_signature() {
    let proof = check(&request(), CHALLENGE, now()).unwrap();
    assert!(!format!("{proof:?}").contains("AKIA"));
}

proptest! {
    #[test]
    fn no_request_makes_it_panic_and_what_passes_goes_to_aws(
        method in "POST|GET|",
        path in "/|/x|",
        body in "Action=GetCallerIdentity&Version=2011-06-15|[a-z=&]{0,20}",
        headers in proptest::collection::vec(
            (
                "(?i)accept|authorization|content-type|host|x-amz-date|x-tidegate-challenge|.{0,8}",
                prop_oneof![
                    Just("application/json".to_owned()),
                    Just(CHALLENGE.to_owned()),
                    Just("20261122T165900Z".to_owned()),
                    Just(authorization("us-east-1", SIGNED)),
                    "sts[.a-z0-9-]{0,30}",
                    ".{0,40}",
                ],
            ),
            0..12,
        ),
    ) {
        let request = v1::SignedRequest {
            method,
            path,
            headers: headers
                .into_iter()
                .map(|(name, value)| v1::HttpHeader { name, value })
                .collect(),
            body: body.into_bytes(),
        };
        if let Ok(proof) = check(&request, CHALLENGE, now()) {
            prop_assert!(proof.host.starts_with("sts"));
        }
    }
}
