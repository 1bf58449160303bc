use std::collections::BTreeSet;

use super::{
    viewpoint::{LOADING, NOWHERE},
    *,
};

fn role(arn: &str) -> AssumeRole {
    AssumeRole {
        role_arn: arn.parse().unwrap(),
        external_id: None,
    }
}

/// Each, by naming the one behind each: a new one cannot be forgotten.
fn aws_classes() -> impl Iterator<Item = AwsErrorClass> {
    use AwsErrorClass as Class;
    let behind = |class: &Class| match class {
        Class::AccessDenied => Some(Class::ClockSkew),
        Class::ClockSkew => Some(Class::ExpiredCredentials),
        Class::ExpiredCredentials => Some(Class::NoCredentials),
        Class::NoCredentials => Some(Class::Throttled),
        Class::Throttled => Some(Class::NotFound),
        Class::NotFound => Some(Class::RegionDisabled),
        Class::RegionDisabled => Some(Class::InvalidRequest),
        Class::InvalidRequest => Some(Class::Timeout),
        Class::Timeout => Some(Class::Unavailable),
        Class::Unavailable => Some(Class::Malformed),
        Class::Malformed => Some(Class::OverBudget),
        Class::OverBudget => None,
    };
    std::iter::successors(Some(Class::AccessDenied), behind)
}

/// One error of each sort, found likewise.
fn errors() -> impl Iterator<Item = FetchError> {
    let action = "a";
    let behind = move |error: &FetchError| match error {
        FetchError::Aws(_) => Some(FetchError::malformed(action, "r", "f")),
        FetchError::Malformed { .. } => Some(FetchError::NoAddress {
            action,
            resource: "r".to_owned(),
            status: "s".to_owned(),
        }),
        FetchError::NoAddress { .. } => Some(denied("").in_part("tags", &[])),
        FetchError::NotAllowedInPart { .. } => Some(FetchError::OverBudget { action, calls: 1 }),
        FetchError::OverBudget { .. } => Some(FetchError::RepeatedMarker { action, pages: 1 }),
        FetchError::RepeatedMarker { .. } => Some(FetchError::TimedOut {
            action,
            after: Duration::from_secs(1),
        }),
        FetchError::TimedOut { .. } => Some(FetchError::TooManyPages { action }),
        FetchError::TooManyPages { .. } => None,
    };
    std::iter::successors(Some(denied("")), behind)
}

fn denied(message: &str) -> FetchError {
    AwsFailure::new(
        AwsErrorClass::AccessDenied,
        "redshift:DescribeClusters",
        message,
    )
    .into()
}

#[test]
fn a_denial_names_the_missing_action_and_the_role() {
    let role = role("arn:aws:iam::123456789012:role/finder");
    let status = denied("no\nway").met_with(Some(&role), Viewpoint::Worker, 2);
    assert_eq!(status.class, "access_denied");
    assert_eq!(status.action, "redshift:DescribeClusters");
    assert!(
        status
            .message
            .contains("allow redshift:DescribeClusters for arn:aws:iam::123456789012:role/finder")
    );
    assert!(status.message.ends_with("and 2 more"), "{}", status.message);
    assert!(!status.message.contains('\n'));
    assert!(
        denied("")
            .explain(None, Viewpoint::Worker)
            .contains("worker's own AWS identity")
    );
}

#[test]
fn one_cause_has_one_key_however_aws_words_it() {
    assert_eq!(denied("request 1").key(), denied("request 2").key());
    let other = FetchError::TooManyPages { action: "a" };
    assert_ne!(denied("").key(), other.key());
}

#[test]
fn what_is_withheld_in_part_is_no_denial_of_the_scan_and_says_both_ways_out() {
    let failure = AwsFailure::new(
        AwsErrorClass::AccessDenied,
        "redshift:DescribeEndpointAccess",
        "no",
    );
    let error = FetchError::from(failure).in_part("VPC endpoints", &["vpc-endpoint"]);
    assert!(!error.is_denial() && !error.broke_off());
    let text = error.explain(None, Viewpoint::Worker);
    assert!(text.contains("allows redshift:DescribeEndpointAccess for the worker's"));
    assert!(text.contains("excludes endpoints of type `vpc-endpoint`"));

    let tags = denied("")
        .in_part("tags", &[])
        .explain(None, Viewpoint::Worker);
    assert!(tags.contains("tags cannot be read") && !tags.contains("excludes"));
    let throttled = AwsFailure::new(AwsErrorClass::Throttled, "a", "");
    let error = FetchError::from(throttled).in_part("tags", &[]);
    assert!(matches!(error, FetchError::Aws(_)));
}

#[test]
fn a_person_reads_of_their_own_identity_and_no_promise_of_a_worker() {
    let person = |error: &FetchError| error.explain(None, Viewpoint::Person);
    assert!(person(&denied("")).ends_with("for your own AWS identity"));
    for error in errors() {
        let text = person(&error);
        assert!(
            !text.contains("worker") && !text.contains("deleted"),
            "{text}"
        );
    }
    for class in aws_classes() {
        let text = person(&AwsFailure::new(class, "a", "").into());
        assert!(
            !text.contains("worker") && !text.contains("by itself"),
            "{text}"
        );
        assert!(!text.contains("the service"), "{text}");
    }
}

#[test]
fn missing_credentials_take_one_line_with_what_was_tried_and_what_to_do() {
    let error = |said: &str| {
        let action = "redshift:DescribeClusters";
        FetchError::from(AwsFailure::new(AwsErrorClass::NoCredentials, action, said))
    };
    let chain = format!(
        "dispatch failure: other: {LOADING}{NOWHERE}. Attempted:\n  Environment: not set\n  Profile: {}",
        "no profile ".repeat(80)
    );
    let text = error(&chain).explain(None, Viewpoint::Person);
    assert!(text.len() < 400, "{text}");
    assert!(text.contains("none in environment variables, ") && text.contains("set AWS_PROFILE"));
    let text = error(&format!("dispatch failure: other: {LOADING}no profile `x`"));
    let text = text.explain(None, Viewpoint::Worker);
    assert!(
        text.contains("credentials: no profile `x`; an operator"),
        "{text}"
    );
}

#[test]
fn what_one_call_was_refused_another_may_still_get() {
    assert!(!denied("").concerns_every_call());
    for class in [
        AwsErrorClass::Throttled,
        AwsErrorClass::RegionDisabled,
        AwsErrorClass::Timeout,
    ] {
        let error = FetchError::from(AwsFailure::new(class, "a", ""));
        assert!(error.concerns_every_call(), "{class}");
    }
    let mut hop = AwsFailure::new(AwsErrorClass::AccessDenied, "sts:AssumeRole", "");
    hop.hop = Some("arn:aws:iam::123456789012:role/finder".parse().unwrap());
    assert!(FetchError::from(hop).concerns_every_call());
}

#[test]
fn the_guide_says_of_every_class_what_it_means_and_who_acts() {
    let guide = include_str!("../../../../docs/guides/discovery.md");
    let (_, rest) = guide
        .split_once("## When a scan fails")
        .expect("a section of its own");
    let section = rest.split("\n## ").next().unwrap_or_default();
    let rows: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let own = errors().map(|error| error.class());
    let classes: BTreeSet<&str> = aws_classes()
        .map(AwsErrorClass::as_str)
        .chain(own)
        .collect();
    assert_eq!(rows, classes);
}
