//! What the index answers is what every row by itself would answer.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestRunner};
use tidegate_core::Predicate;

use super::*;

/// What is done to the tables before they are asked.
#[derive(Clone, Debug)]
enum Act {
    Put(u8, Vec<(u8, u8)>),
    Delete(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let labels = prop::collection::vec((0..4_u8, 0..3_u8), 0..4);
    let act = prop_oneof![
        4 => (0..40_u8, labels).prop_map(|(name, labels)| Act::Put(name, labels)),
        1 => (0..40_u8).prop_map(Act::Delete),
    ];
    prop::collection::vec(act, 0..120)
}

fn tables(acts: &[Act]) -> Tables {
    let mut tables = Tables::default();
    for act in acts {
        let (name, current) = match act {
            Act::Put(name, labels) => {
                let name = format!("n{name:02}");
                let labels: Vec<(String, String)> = labels
                    .iter()
                    .map(|(key, value)| (format!("k{key}"), format!("v{value}")))
                    .collect();
                let labels: Vec<(&str, &str)> = labels
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str()))
                    .collect();
                let value = labelled(&name, &labels);
                (name, Some(value))
            }
            Act::Delete(name) => (format!("n{name:02}"), None),
        };
        let key = keys::database(&name);
        let revision = tables.revision + 1;
        let current = current.map(|value| crate::store::Entry {
            key: key.clone(),
            value,
            created: revision,
            modified: revision,
            lease: None,
        });
        let change = crate::store::Change {
            key,
            current,
            previous: None,
        };
        tables.apply(&Batch {
            revision,
            changes: vec![change],
        });
    }
    tables
}

#[test]
fn what_is_deleted_leaves_nothing_in_the_index() {
    let mut acts: Vec<Act> = (0..40)
        .map(|name| Act::Put(name, vec![(name % 4, name % 3), (3, 2)]))
        .collect();
    acts.extend((0..40).map(|name| Act::Put(name, vec![(name % 2, 0)])));
    assert!(!tables(&acts).database_labels.is_empty());
    acts.extend((0..40).map(Act::Delete));
    let left = tables(&acts).database_labels;
    assert!(left.is_empty(), "{left:?}");
}

fn selectors() -> impl Strategy<Value = Option<Selector>> {
    let values = prop::collection::vec(
        prop_oneof![
            6 => (0..4_u8).prop_map(|value| format!("v{value}")),
            1 => Just("*".to_owned()),
            1 => Just("^v[01]$".to_owned()),
        ],
        1..3,
    );
    let keys = prop_oneof![
        8 => (0..5_u8).prop_map(|key| format!("k{key}")),
        1 => Just("teleport.dev/k0".to_owned()),
    ];
    let selector = prop::collection::btree_map(keys, values, 0..3);
    prop::option::of(selector.prop_map(|terms| Selector::new(terms).unwrap()))
}

const FILTERS: [&str; 5] = [
    "",
    "labels[\"k0\"] == \"v1\"",
    "labels[\"k1\"] == \"v0\" && name != \"n07\"",
    "labels[\"k2\"] == \"\"",
    "labels[\"k0\"] == \"v0\" || labels[\"k1\"] == \"v1\"",
];

const ORDERS: [&str; 4] = ["", "name desc", "labels.k0 desc, labels.k1", "labels.k3"];

/// The rows that each by itself is meant, in order.
fn one_by_one(tables: &Tables, request: &ListRequest) -> Vec<String> {
    let label = |row: &DatabaseRow, key: &str| row.labels().get(key).unwrap_or_default().to_owned();
    let filter = Predicate::parse(&request.filter);
    let meant = |row: &&Arc<DatabaseRow>| {
        let selected = |selector: &Selector| selector.matches(row.labels());
        request.selector.as_ref().is_none_or(selected)
            && filter
                .as_ref()
                .map_or(true, |filter| filter.matches(row.fields()))
    };
    let mut rows: Vec<&Arc<DatabaseRow>> = tables.databases.values().filter(meant).collect();
    match request.order_by.as_str() {
        "" => {}
        "name desc" => rows.reverse(),
        "labels.k3" => rows.sort_by_key(|row| label(row, "k3")),
        _ => rows.sort_by_key(|row| (std::cmp::Reverse(label(row, "k0")), label(row, "k1"))),
    }
    rows.iter().map(|row| row.name().to_owned()).collect()
}

async fn page_by_page(inventory: &Inventory, mut request: ListRequest) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let query = ListQuery::new("db", DatabaseRow::SCHEMA, request.clone()).unwrap();
        let page = inventory
            .list::<DatabaseRow>(&query, &Viewer::All)
            .await
            .unwrap();
        assert!(page.rows.len() <= usize::try_from(request.page_size).unwrap());
        found.extend(page.rows.iter().map(|row| row.name().to_owned()));
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

#[test]
fn a_listing_and_a_count_by_the_index_are_those_by_every_row() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let house = runtime.block_on(House::new());
    let cases = (
        acts(),
        selectors(),
        0..FILTERS.len(),
        0..ORDERS.len(),
        1..9_i32,
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&cases, |(acts, selector, filter, order, page_size)| {
        let request = ListRequest {
            page_size,
            selector,
            filter: FILTERS[filter].to_owned(),
            order_by: ORDERS[order].to_owned(),
            ..ListRequest::default()
        };
        let tables = tables(&acts);
        let expected = one_by_one(&tables, &request);
        let mut by_value: BTreeMap<String, u64> = BTreeMap::new();
        for name in &expected {
            let value = tables.databases[name].labels().get("k0");
            *by_value
                .entry(value.unwrap_or_default().to_owned())
                .or_default() += 1;
        }
        let conditions = Conditions::new(
            DatabaseRow::SCHEMA,
            request.selector.clone(),
            &[],
            &request.filter,
        )
        .unwrap();
        let read = Read {
            tables,
            resources: resources::Tables::new(),
        };
        let inventory = Inventory::new(house.store.clone(), read);
        let found = runtime.block_on(page_by_page(&inventory, request));
        prop_assert_eq!(&found, &expected);
        let counted = inventory.count_databases(&conditions, "k0", &Viewer::All);
        let (counts, _) = runtime.block_on(counted).unwrap();
        prop_assert_eq!(counts.total, expected.len() as u64);
        let counted: BTreeMap<String, u64> = counts.values.into_iter().collect();
        prop_assert_eq!(counted, by_value);
        Ok(())
    });
    outcome.unwrap();
}
