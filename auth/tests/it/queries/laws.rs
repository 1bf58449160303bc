//! What holds whatever is asked.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::*;

/// Walks of one run.
const WALKS: u32 = 12;
/// Requests of one run.
const REQUESTS: u32 = 300;

fn kinds() -> impl Strategy<Value = String> {
    let known = KINDS
        .iter()
        .map(|(kind, _)| (*kind).to_owned())
        .collect::<Vec<_>>();
    prop_oneof![9 => proptest::sample::select(known), 1 => ".{0,12}"]
}

/// Texts that are nearly right.
fn pieces() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "name",
        "labels",
        "labels.env",
        "roles",
        "traits",
        "traits.team",
        "signed_up",
        "databases",
        "desc",
        "asc",
        ",",
        " ",
        "&&",
        "||",
        "!",
        "(",
        ")",
        "[",
        "]",
        "\"x\"",
        "==",
        "contains(",
        "search(",
        "regexp.match(",
        "*",
        ".",
        "target.user",
        "created_at",
        "health.status",
        "^(",
        "é",
    ]);
    let piece = prop_oneof![8 => words.prop_map(str::to_owned), 1 => ".{0,8}"];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn masks() -> impl Strategy<Value = Option<FieldMask>> {
    let path = prop_oneof![
        4 => proptest::sample::select(vec!["name", "labels", "labels.env", "target.user", "*", "aws.region", "scope.tags"])
            .prop_map(str::to_owned),
        1 => "[a-z_.*]{0,40}",
        1 => ".{0,20}",
    ];
    proptest::option::of(vec(path, 0..140).prop_map(|paths| FieldMask { paths }))
}

fn selectors() -> impl Strategy<Value = Option<v1::Selector>> {
    let values = vec(pieces(), 0..3).prop_map(|values| v1::LabelValues { values });
    let labels = proptest::collection::btree_map("[a-z*/.]{0,12}", values, 0..4);
    let selector = labels.prop_map(|labels: BTreeMap<_, _>| v1::Selector { labels });
    proptest::option::weighted(0.3, selector)
}

fn requests() -> impl Strategy<Value = v1::ListResourcesRequest> {
    let token = prop_oneof![5 => Just(String::new()), 2 => "[0-9a-f]{0,80}", 1 => ".{0,60}"];
    let sized = prop_oneof![6 => 0..2000_i32, 1 => any::<i32>()];
    let long = prop_oneof![20 => pieces(), 1 => pieces().prop_map(|text| text.repeat(400))];
    (
        kinds(),
        sized,
        token,
        selectors(),
        vec(".{0,20}", 0..20),
        long,
        pieces(),
        masks(),
    )
        .prop_map(
            |(kind, page_size, page_token, selector, search, filter, order_by, read_mask)| {
                v1::ListResourcesRequest {
                    kind,
                    page_size,
                    page_token,
                    selector,
                    search,
                    filter,
                    order_by,
                    read_mask,
                }
            },
        )
}

/// Whether a refusal says what kind it is, and of a wrong field which.
fn is_typed<T>(outcome: &Result<T, Status>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(status) => match status.code() {
            Code::InvalidArgument => !field(status).is_empty(),
            Code::ResourceExhausted | Code::NotFound => true,
            _ => false,
        },
    }
}

#[test]
fn whatever_is_asked_is_answered_or_refused_with_its_field() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (house, _secrets, _presence) = runtime.block_on(furnished());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(REQUESTS)
    };
    let outcome = TestRunner::new(config).run(&requests(), |request| {
        let as_databases = v1::ListDatabasesRequest {
            page_size: request.page_size,
            page_token: request.page_token.clone(),
            selector: request.selector.clone(),
            search: request.search.clone(),
            filter: request.filter.clone(),
            order_by: request.order_by.clone(),
            read_mask: request.read_mask.clone(),
        };
        let count = v1::CountResourcesRequest {
            kind: request.kind.clone(),
            by: request.order_by.clone(),
            selector: request.selector.clone(),
            search: request.search.clone(),
            filter: request.filter.clone(),
        };
        let get = v1::GetResourceRequest {
            kind: request.kind.clone(),
            name: request.order_by.clone(),
            read_mask: request.read_mask.clone(),
        };
        runtime.block_on(async {
            let admin = house.admin();
            let listed = list(&admin, request).await;
            prop_assert!(is_typed(&listed), "{listed:?}");
            let listed = admin.inventory().list_databases(as_databases).await;
            prop_assert!(is_typed(&listed), "{listed:?}");
            let counted = admin.resources().count_resources(count).await;
            prop_assert!(is_typed(&counted), "{counted:?}");
            let got = admin.resources().get_resource(get).await;
            prop_assert!(is_typed(&got), "{got:?}");
            Ok(())
        })
    });
    outcome.unwrap();
}

#[test]
fn a_walk_sees_each_lock_that_stays_exactly_once_whatever_comes_and_goes() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let house = runtime.block_on(House::new());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(WALKS)
    };
    let orders = proptest::sample::select(vec!["", "name desc", "target.user, name desc"]);
    // What is there at first, whether it stays, and after which page what comes and goes.
    let locks = vec((0..30_u32, 0..3_u32, any::<bool>()), 1..14);
    let cases = (locks, 1..4_i32, orders, vec(0..30_u32, 0..8));
    let outcome = TestRunner::new(config).run(&cases, |(locks, page_size, order_by, new)| {
        runtime.block_on(async {
            let mut stays = BTreeMap::new();
            for (name, user, stay) in locks {
                let name = format!("l{name:02}");
                lock(&house, &name, &format!("u{user}")).await;
                stays.insert(name, stay);
            }
            let mut goes: Vec<String> = stays
                .iter()
                .filter(|(_, stay)| !**stay)
                .map(|(name, _)| name.clone())
                .collect();
            let mut comes = new.into_iter().map(|name| format!("n{name:02}"));
            let mut came = Vec::new();
            let mut seen = BTreeMap::<String, u32>::new();
            let mut request = v1::ListResourcesRequest {
                page_size,
                order_by: order_by.to_owned(),
                ..of("lock")
            };
            loop {
                let page = list(&house.admin(), request.clone()).await.unwrap();
                for resource in page.resources {
                    *seen.entry(resource.name).or_default() += 1;
                }
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
                if let Some(name) = goes.pop() {
                    unlock(&house, &name).await;
                    stays.remove(&name);
                }
                if let Some(name) = comes.next() {
                    lock(&house, &name, "u1").await;
                    came.push(name);
                }
            }
            for (name, stay) in &stays {
                let times = seen.get(name).copied().unwrap_or_default();
                prop_assert!(times == 1, "{name} was seen {times} times (stays: {stay})");
            }
            prop_assert!(seen.values().all(|times| *times == 1), "{seen:?}");
            came.sort();
            came.dedup();
            for name in stays.keys().chain(&came) {
                unlock(&house, name).await;
            }
            Ok(())
        })
    });
    outcome.unwrap();
}
