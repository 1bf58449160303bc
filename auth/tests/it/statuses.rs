//! What is told of scopes: page by page, and what their scans left out.

use tidegate_core::{ScanScope, Selector};
use tidegate_proto::v1;
use tonic::{Code, Status};

use crate::{
    discovery::{Worker, items, publish, scope},
    house::{House, code},
    sharing::{ask, scopes, statuses, worker},
};

/// Reasons that are kept of one scan, and the length of each.
const LEFT_OUT_MAX: usize = 32;
const REASON_CHARS_MAX: usize = 1024;

async fn page(
    house: &House,
    page_size: u32,
    page_token: &str,
) -> Result<v1::ListScopesResponse, Status> {
    let request = v1::ListScopesRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let listed = house.admin().discovery().list_scopes(request).await;
    listed.map(tonic::Response::into_inner)
}

fn ids(page: &v1::ListScopesResponse) -> Vec<String> {
    let scopes = page
        .scopes
        .iter()
        .filter_map(|status| status.scope.as_ref());
    scopes.map(|scope| scope.id.clone()).collect()
}

#[tokio::test]
async fn pages_of_scopes_neither_repeat_nor_hide_one_when_others_come_in_between() {
    let house = House::new().await;
    let caller = worker(&house).await;
    let mut all = scopes("prod", 6);
    // In order of id, as they are listed.
    all.sort_by(|left, right| left.id.cmp(&right.id));
    let (early, late) = (all.remove(0), all.remove(3));
    ask(&caller, &all).await;

    let first = page(&house, 2, "").await.unwrap();
    assert_eq!(ids(&first), [all[0].id.clone(), all[1].id.clone()]);
    let before: Vec<v1::ScanScope> = all.clone();
    all.extend([early.clone(), late.clone()]);
    ask(&caller, &all).await;
    let second = page(&house, 2, &first.next_page_token).await.unwrap();
    let third = page(&house, 2, &second.next_page_token).await.unwrap();
    assert_eq!(third.next_page_token, "");
    let rest = [ids(&second), ids(&third)].concat();
    let expected = [&before[2], &late, &before[3]].map(|scope| scope.id.clone());
    assert_eq!(
        rest, expected,
        "what comes before the page is not on a later one"
    );

    let whole = page(&house, 0, "").await.unwrap();
    assert_eq!((ids(&whole).len(), whole.next_page_token.as_str()), (6, ""));
    assert_eq!(ids(&whole)[0], early.id);
}

#[tokio::test]
async fn a_page_goes_on_after_a_scope_that_went_away() {
    let house = House::new().await;
    let caller = worker(&house).await;
    let mut all = scopes("prod", 4);
    all.sort_by(|left, right| left.id.cmp(&right.id));
    ask(&caller, &all).await;
    let first = page(&house, 2, "").await.unwrap();
    let gone = all.remove(1);
    assert_eq!(ids(&first)[1], gone.id);
    ask(&caller, &all).await;
    let second = page(&house, 2, &first.next_page_token).await.unwrap();
    assert_eq!(ids(&second), [all[1].id.clone(), all[2].id.clone()]);
}

#[tokio::test]
async fn a_damaged_page_token_and_one_of_another_listing_are_refused() {
    let house = House::new().await;
    let caller = worker(&house).await;
    ask(&caller, &scopes("prod", 2)).await;
    for name in ["orders", "users"] {
        house.add_database(name, "prod").await;
    }
    let token = page(&house, 1, "").await.unwrap().next_page_token;
    let request = v1::ListDatabasesRequest {
        page_size: 1,
        ..v1::ListDatabasesRequest::default()
    };
    let databases = house.admin().inventory().list_databases(request).await;
    let of_another = databases.unwrap().into_inner().next_page_token;
    assert!(!of_another.is_empty());
    let cut = &token[..token.len() - 2];
    let flipped = format!(
        "{}{}",
        if token.starts_with('0') { "1" } else { "0" },
        &token[1..]
    );
    for bad in [cut, &flipped, "zz", &of_another] {
        assert_eq!(
            code(page(&house, 1, bad).await),
            Code::InvalidArgument,
            "{bad}"
        );
    }
    assert_eq!(page(&house, 1, &token).await.unwrap().scopes.len(), 1);
}

#[tokio::test]
async fn the_longest_scope_id_still_makes_a_page_token_that_is_taken() {
    let house = House::new().await;
    let caller = worker(&house).await;
    let long = |order: u32| {
        let plain = ScanScope::try_from(scope("prod", order)).unwrap();
        let values: Vec<String> = (0..60).map(|n| format!("{order}-{n:0>240}")).collect();
        let tags = Selector::new([("team".to_owned(), values)]).unwrap();
        v1::ScanScope::from(&ScanScope { tags, ..plain })
    };
    let all = [long(0), long(1)];
    assert!(all[0].id.len() > 14 * 1024, "{}", all[0].id.len());
    ask(&caller, &all).await;
    let first = page(&house, 1, "").await.unwrap();
    let second = page(&house, 1, &first.next_page_token).await.unwrap();
    assert_eq!(
        [ids(&first), ids(&second)].concat(),
        all.map(|scope| scope.id)
    );
}

fn left_out(count: usize, reason_chars: usize) -> Vec<v1::LeftOut> {
    (0..count)
        .map(|index| v1::LeftOut {
            reason: format!("{index:0>reason_chars$}"),
            count: u32::try_from(index).unwrap() + 1,
        })
        .collect()
}

async fn told(house: &House) -> Vec<v1::LeftOut> {
    statuses(house).await.remove(0).left_out
}

#[tokio::test]
async fn what_a_scan_left_out_is_told_until_the_next_one_says_otherwise() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    let scan = async |worker: &Worker, digest: u8, left_out: Vec<v1::LeftOut>| {
        let header = v1::ScanHeader {
            left_out,
            ..worker.header(true, digest)
        };
        publish(&worker.caller, header, items(&["orders"]), 1)
            .await
            .unwrap()
    };
    scan(&worker, 1, left_out(2, 20)).await;
    assert_eq!(told(&house).await, left_out(2, 20));
    // What is left out is no item: the digest stays, and the answer is short.
    assert!(scan(&worker, 1, left_out(1, 20)).await.unchanged);
    assert_eq!(told(&house).await, left_out(1, 20));

    scan(&worker, 2, left_out(100, 5000)).await;
    let told_of_many = told(&house).await;
    assert_eq!(told_of_many.len(), LEFT_OUT_MAX);
    for (told, sent) in told_of_many.iter().zip(left_out(100, 5000)) {
        assert_eq!(told.reason, sent.reason[..REASON_CHARS_MAX]);
        assert_eq!(told.count, sent.count);
    }

    scan(&worker, 3, Vec::new()).await;
    assert!(told(&house).await.is_empty());
}
