use jiff::Timestamp;
use tidegate_core::{
    AwsMetadata, Database, DatabaseKind, Labels, Origin, Protocol, Selector, TlsSettings,
};

use super::*;
use crate::{
    fetch::FetchError,
    found::{Databases, Found, NameBase},
};

fn scope() -> ScanScope {
    ScanScope {
        group: "prod".to_owned(),
        kind: DatabaseKind::Redshift,
        region: "us-east-1".parse().unwrap(),
        assume_role: None,
        tags: Selector::everything(),
        endpoints: tidegate_core::EndpointFilter::default(),
        config: None,
        order: 0,
    }
}

fn found(id: &str, labels: &[(&str, &str)]) -> Found {
    let mut all = Labels::new();
    for (key, value) in labels {
        all.insert(*key, *value);
    }
    let database = Database {
        name: id.parse().unwrap(),
        description: String::new(),
        labels: all,
        origin: Origin::Cloud,
        protocol: Protocol::Postgres,
        uri: "h:5439".parse().unwrap(),
        tls: TlsSettings::default(),
        aws: AwsMetadata::default(),
        kind: Some(DatabaseKind::Redshift),
        identity: format!("arn:{id}"),
        discovered_name: id.to_owned(),
        unavailable: String::new(),
    };
    let name = NameBase {
        base: id.to_owned(),
        tagged: false,
        endpoint: String::new(),
        suffix: vec!["redshift".to_owned()],
    };
    Found {
        database,
        name,
        tags_unknown: false,
    }
}

fn seen(found: impl IntoIterator<Item = Found>) -> Databases {
    found
        .into_iter()
        .map(|found| (found.database.identity.clone(), found))
        .collect()
}

fn publication(observed: Observed) -> Publication {
    let scan = Scan {
        observed,
        aws_calls: 2,
        left_out: std::collections::BTreeMap::new(),
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        trace: None,
    };
    Publication::new(&scope(), 7, scan)
}

fn digest(found: impl IntoIterator<Item = Found>) -> Vec<u8> {
    publication(Observed::Complete(seen(found))).header.digest
}

#[test]
fn the_digest_does_not_depend_on_the_order_in_which_aws_lists_and_tags() {
    let one = digest([
        found("a", &[("x", "1"), ("y", "2")]),
        found("b", &[]),
        found("c", &[]),
    ]);
    let other = digest([
        found("c", &[]),
        found("b", &[]),
        found("a", &[("y", "2"), ("x", "1")]),
    ]);
    assert_eq!(one, other);
    assert_eq!(one.len(), 32);
}

#[test]
fn the_digest_changes_with_any_item() {
    let before = digest([found("a", &[("x", "1")])]);
    assert_ne!(before, digest([found("a", &[("x", "2")])]));
    assert_ne!(before, digest([found("a", &[("x", "1")]), found("b", &[])]));
    assert_ne!(before, digest([]));
}

#[test]
fn items_travel_in_identity_order_without_the_name_that_the_ledger_gives() {
    let publication = publication(Observed::Complete(seen([found("b", &[]), found("a", &[])])));
    let items = publication.items.unwrap();
    let identities: Vec<_> = items
        .iter()
        .map(|item| item.database.clone().unwrap())
        .map(|database| (database.identity, database.name))
        .collect();
    assert_eq!(
        identities,
        [
            ("arn:a".to_owned(), String::new()),
            ("arn:b".to_owned(), String::new())
        ]
    );
    assert_eq!(items[0].name_base, "a");
    assert_eq!(publication.header.epoch, 7);
}

#[test]
fn a_partial_scan_is_published_as_partial_with_its_cause() {
    let cause = FetchError::RepeatedMarker {
        action: "redshift:DescribeClusters",
        pages: 2,
    };
    let header = publication(Observed::Partial {
        seen: seen([found("a", &[])]),
        cause,
        further: 0,
    })
    .header;
    assert_eq!(header.completeness(), v1::Completeness::Partial);
    assert_eq!(header.failure.unwrap().action, "redshift:DescribeClusters");
}
