//! What a scope's status says of each fault, and that a good scan follows.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use axum::http::StatusCode;

use super::*;

/// A fault, and what the status has to say of it.
struct Row {
    answer: fn() -> Answer,
    class: &'static str,
    code: &'static str,
    /// What to do, or what happens.
    says: &'static str,
}

fn refusal(code: &str, message: &str) -> Answer {
    let (status, body) = xml_refusal(code);
    (
        status,
        body.replace("<Message>no<", &format!("<Message>{message}<")),
    )
}

const ROWS: [Row; 9] = [
    Row {
        answer: || xml_refusal("AccessDenied"),
        class: "access_denied",
        code: "AccessDenied",
        says: "allow redshift:DescribeClusters for the worker's own AWS identity",
    },
    Row {
        answer: || xml_refusal("ExpiredToken"),
        class: "expired_credentials",
        code: "ExpiredToken",
        says: "AWS credentials that are valid",
    },
    Row {
        answer: || xml_refusal("Throttling"),
        class: "throttled",
        code: "Throttling",
        says: "calls less often there",
    },
    Row {
        answer: || xml_refusal("InvalidClientTokenId"),
        class: "region_disabled",
        code: "InvalidClientTokenId",
        says: "enable the region",
    },
    Row {
        answer: || {
            refusal(
                "SignatureDoesNotMatch",
                "Signature expired: 20260101T000000Z is now earlier than …",
            )
        },
        class: "clock_skew",
        code: "SignatureDoesNotMatch",
        says: "set the clock",
    },
    Row {
        answer: || refusal("SignatureDoesNotMatch", "The signature does not match"),
        class: "no_credentials",
        code: "SignatureDoesNotMatch",
        says: "AWS credentials that are valid",
    },
    Row {
        answer: || {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "<html>away</html>".to_owned(),
            )
        },
        class: "unavailable",
        code: "",
        says: "tries again by itself",
    },
    Row {
        answer: || (StatusCode::OK, "<Clusters".to_owned()),
        class: "malformed",
        code: "",
        says: "tries again by itself",
    },
    Row {
        answer: || page(&["b"], "m2"),
        class: "repeated_marker",
        code: "",
        says: "cannot be read to its end",
    },
];

#[tokio::test]
async fn every_fault_is_told_with_its_class_and_what_to_do_and_a_good_scan_heals_it() {
    for row in ROWS {
        let broken = Arc::new(AtomicBool::new(true));
        let is_broken = Arc::clone(&broken);
        let aws = aws(move |marker| match marker {
            "" => page(&["a"], "m2"),
            _ if is_broken.load(Relaxed) => (row.answer)(),
            _ => page(&["b"], ""),
        })
        .await;
        let observed = aws.scan(&everything()).await;
        assert!(ids(&observed).contains(&"a"), "{}", row.class);
        let status = observed
            .cause()
            .unwrap()
            .status(&everything(), Viewpoint::Worker, 0);
        assert_eq!(
            (&*status.class, &*status.aws_code, &*status.action),
            (row.class, row.code, DESCRIBE_CLUSTERS)
        );
        assert!(status.message.contains(row.says), "{}", status.message);

        broken.store(false, Relaxed);
        let observed = aws.scan(&everything()).await;
        assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
        assert_eq!(ids(&observed), ["a", "b"]);
    }
}

#[test]
fn no_two_faults_share_a_class() {
    let classes: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.class).collect();
    assert_eq!(classes.len(), ROWS.len());
}
