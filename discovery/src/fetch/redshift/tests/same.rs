//! A scan whose answers are those of the last one finds the same, without reading them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::*;

/// An AWS that answers as `version` says: clusters and endpoints of 0 are told first.
async fn changing(version: Arc<AtomicUsize>) -> Aws {
    Aws::start(move |call| {
        let now = version.load(Relaxed);
        match call.action.as_str() {
            "DescribeClusters" if now == 1 => page(&["a", "b", "c"], ""),
            "DescribeClusters" => page(&["a", "b"], ""),
            "DescribeEndpointAccess" if now == 2 => endpoints(&[("a", "private")]),
            "DescribeEndpointAccess" if now == 3 => xml_refusal("AccessDenied"),
            "DescribeEndpointAccess" => endpoints(&[]),
            other => panic!("unexpected call of {other}"),
        }
    })
    .await
}

#[tokio::test]
async fn the_same_answers_are_not_read_again() {
    let aws = changing(Arc::default()).await;
    let known = aws.scan_and_know(&everything()).await.unwrap();
    let scan = aws.scan_after(&everything(), &known).await;
    assert!(matches!(&scan.observed, Observed::Same(same) if same.databases == 2));
    assert_eq!((scan.aws_calls, aws.calls("DescribeClusters")), (2, 2));
}

#[tokio::test]
async fn any_other_answer_is_read_and_so_is_what_came_before_it() {
    for (now, found) in [(1, vec!["a", "b", "c"]), (2, vec!["a", "a", "b"])] {
        let version = Arc::<AtomicUsize>::default();
        let aws = changing(Arc::clone(&version)).await;
        let known = aws.scan_and_know(&everything()).await.unwrap();
        version.store(now, Relaxed);
        let scan = aws.scan_after(&everything(), &known).await;
        assert!(matches!(&scan.observed, Observed::Complete(_)), "{now}");
        assert_eq!(ids(&scan.observed), found);
    }
}

#[tokio::test]
async fn a_refusal_is_no_answer_to_compare_with() {
    let version = Arc::<AtomicUsize>::default();
    let aws = changing(Arc::clone(&version)).await;
    let known = aws.scan_and_know(&everything()).await.unwrap();
    version.store(3, Relaxed);
    let scan = aws.scan_after(&everything(), &known).await;
    assert_eq!(ids(&scan.observed), ["a", "b"]);
    assert!(scan.trace.is_none());
    assert!(aws.scan_and_know(&everything()).await.is_none());
}
