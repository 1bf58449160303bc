use futures::FutureExt as _;
use tidegate_core::RoleSource;

use super::*;
use crate::{
    metadata::{place::tests::cluster, verdict::tests::listed},
    testing::redshift,
};

fn host(name: &str) -> String {
    format!("{name}.abc.us-east-1.redshift.amazonaws.com")
}

/// AWS lists these clusters, each where its record says.
fn lists(names: &[&str]) -> Answer {
    let all = names.iter().map(|name| cluster(name, &host(name), 5439));
    Answer {
        listed: [(Listing::RedshiftClusters, Ok(listed(all)))].into(),
        tags: HashMap::new(),
    }
}

fn fails(class: AwsErrorClass) -> Answer {
    let failure = AwsFailure::new(class, "redshift:DescribeClusters", "no");
    Answer {
        listed: [(Listing::RedshiftClusters, Err(failure))].into(),
        tags: HashMap::new(),
    }
}

fn agent(role: Option<&str>) -> EffectiveRole {
    EffectiveRole {
        role: role.map(crate::testing::role),
        source: RoleSource::Agent,
        entry: None,
    }
}

fn complete(book: &Book, database: &Database) -> Result<Arc<Database>, Refusal> {
    book.complete(&Arc::new(database.clone()), &agent(None))
}

fn follow(book: &Book, databases: &[Database]) {
    for database in databases {
        let _ = complete(book, database);
    }
}

fn verdict(book: &Book, database: &Database) -> Verdict {
    book.verdict(&database.name).unwrap()
}

fn book() -> (Book, Arc<Names>) {
    let again = Arc::<Names>::default();
    (Book::new(Arc::clone(&again)), again)
}

/// Databases of which something was learned since this was asked last.
fn learned(again: &Names) -> usize {
    again.next().now_or_never().map_or(0, |names| names.len())
}

/// AWS answers everything that is due.
fn answer(facts: &Book, answer: &Answer) -> usize {
    let due = facts.take_due(usize::MAX, Instant::now());
    for (place, databases) in &due {
        facts.answered(place, databases, answer, Instant::now());
    }
    due.len()
}

#[tokio::test(start_paused = true)]
async fn a_discovered_database_waits_for_aws_and_not_longer_than_the_bound() {
    let ((facts, again), orders) = (book(), redshift("orders", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    assert_eq!(verdict(&facts, &orders), Verdict::Awaited);
    // Somebody asks, and AWS says nothing.
    assert_eq!(facts.take_due(9, Instant::now()).len(), 1);
    let next = facts.tick(Instant::now());
    assert_eq!(next - Instant::now(), HOLD);
    tokio::time::advance(HOLD).await;
    facts.tick(Instant::now());
    assert_eq!(verdict(&facts, &orders), Verdict::Unchecked);
    assert_eq!(learned(&again), 1);
}

#[tokio::test(start_paused = true)]
async fn what_aws_says_late_still_counts() {
    let ((facts, _), orders) = (book(), redshift("orders", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    let due = facts.take_due(9, Instant::now());
    tokio::time::advance(HOLD).await;
    facts.tick(Instant::now());
    let mut moved = lists(&["orders"]);
    let other = cluster("orders", &host("elsewhere"), 5439);
    moved
        .listed
        .insert(Listing::RedshiftClusters, Ok(listed([other])));
    facts.answered(&due[0].0, &due[0].1, &moved, Instant::now());
    assert!(matches!(verdict(&facts, &orders), Verdict::Contradicted(_)));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_changes_is_looked_at_again_and_one_that_does_not_is_not() {
    let ((facts, _), orders) = (book(), redshift("orders", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    answer(&facts, &lists(&["orders"]));
    assert_eq!(verdict(&facts, &orders), Verdict::Confirmed);
    let mut labelled = orders.clone();
    labelled.labels.insert("env", "prod");
    follow(&facts, &[labelled]);
    assert_eq!(verdict(&facts, &orders), Verdict::Confirmed);
    assert!(facts.take_due(9, Instant::now()).is_empty());

    let mut moved = orders.clone();
    moved.uri = format!("{}:5440", host("orders")).parse().unwrap();
    follow(&facts, std::slice::from_ref(&moved));
    assert_eq!(verdict(&facts, &moved), Verdict::Awaited);
    answer(&facts, &lists(&["orders"]));
    assert!(matches!(verdict(&facts, &moved), Verdict::Contradicted(_)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_an_older_record_says_nothing_about_the_new_one() {
    let ((facts, _), orders) = (book(), redshift("orders", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    let due = facts.take_due(9, Instant::now());
    let mut moved = orders.clone();
    moved.uri = format!("{}:5440", host("orders")).parse().unwrap();
    follow(&facts, std::slice::from_ref(&moved));
    facts.answered(&due[0].0, &due[0].1, &lists(&["orders"]), Instant::now());
    assert_eq!(verdict(&facts, &moved), Verdict::Awaited);
    // It came while its place was asked, so that is asked again at once.
    assert_eq!(answer(&facts, &lists(&["orders"])), 1);
    assert!(matches!(verdict(&facts, &moved), Verdict::Contradicted(_)));
}

#[tokio::test(start_paused = true)]
async fn where_aws_may_not_be_asked_nobody_waits_after_the_first() {
    let (facts, _) = book();
    let (orders, users) = (redshift("orders", &[]), redshift("users", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    answer(&facts, &fails(AwsErrorClass::AccessDenied));
    assert_eq!(verdict(&facts, &orders), Verdict::Denied);
    follow(&facts, &[orders.clone(), users.clone()]);
    assert_eq!(verdict(&facts, &users), Verdict::Denied);
    assert!(facts.take_due(9, Instant::now()).is_empty());
    // A permission that comes is noticed.
    tokio::time::advance(DENIED_INTERVAL).await;
    answer(&facts, &lists(&["orders", "users"]));
    assert_eq!(verdict(&facts, &users), Verdict::Confirmed);
}

#[tokio::test(start_paused = true)]
async fn an_aws_that_fails_takes_back_nothing_and_is_asked_less_often() {
    let (facts, _) = book();
    let (orders, users) = (redshift("orders", &[]), redshift("users", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    answer(&facts, &lists(&["orders"]));
    for _ in 0..20 {
        tokio::time::advance(REFRESH_INTERVAL).await;
        answer(&facts, &fails(AwsErrorClass::Throttled));
    }
    assert_eq!(verdict(&facts, &orders), Verdict::Confirmed);
    follow(&facts, &[orders.clone(), users.clone()]);
    assert_eq!(verdict(&facts, &users), Verdict::Unchecked);
    let next = facts.tick(Instant::now()) - Instant::now();
    assert!(next >= RETRY_MIN && next <= RETRY_MAX, "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_contradiction_is_looked_at_again_soon_and_outlives_a_failure() {
    let ((facts, _), orders) = (book(), redshift("orders", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    let elsewhere = Answer {
        listed: [(
            Listing::RedshiftClusters,
            Ok(listed([cluster("orders", &host("elsewhere"), 5439)])),
        )]
        .into(),
        tags: HashMap::new(),
    };
    answer(&facts, &elsewhere);
    tokio::time::advance(RECHECK_INTERVAL).await;
    assert_eq!(answer(&facts, &fails(AwsErrorClass::AccessDenied)), 1);
    assert!(matches!(verdict(&facts, &orders), Verdict::Contradicted(_)));
    tokio::time::advance(DENIED_INTERVAL).await;
    answer(&facts, &lists(&["orders"]));
    assert_eq!(verdict(&facts, &orders), Verdict::Confirmed);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_wrote_never_waits_and_learns_what_aws_says() {
    let (facts, again) = book();
    let mut own = redshift("orders", &[]);
    own.origin = Origin::Config;
    own.aws.account_id = None;
    let account = |book: &Book| complete(book, &own).unwrap().aws.account_id.clone();
    assert_eq!(account(&facts), None);
    assert_eq!(learned(&again), 0);
    answer(&facts, &lists(&["orders"]));
    assert_eq!(learned(&again), 1);
    assert!(account(&facts).is_some());
    // Nothing that changes nothing is told.
    tokio::time::advance(REFRESH_INTERVAL).await;
    assert_eq!(answer(&facts, &lists(&["orders"])), 1);
    assert_eq!(learned(&again), 0);
    // What AWS does not show for a moment is not forgotten.
    tokio::time::advance(REFRESH_INTERVAL).await;
    answer(&facts, &lists(&[]));
    assert!(account(&facts).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_any_more_is_not_asked_about() {
    let ((facts, _), orders) = (book(), redshift("orders", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    facts.forget(&orders.name);
    assert!(facts.take_due(9, Instant::now()).is_empty());
    assert!(facts.state().places.is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_role_is_asked_and_what_the_last_one_was_told_counts_until_then() {
    let ((facts, _), orders) = (book(), redshift("orders", &[]));
    follow(&facts, std::slice::from_ref(&orders));
    answer(&facts, &lists(&["orders"]));
    let orders = Arc::new(orders);
    assert!(facts.complete(&orders, &agent(Some("other"))).is_ok());
    assert_eq!(facts.state().places.len(), 1);
    assert_eq!(answer(&facts, &fails(AwsErrorClass::AccessDenied)), 1);
    assert_eq!(verdict(&facts, &orders), Verdict::Confirmed);
}

#[tokio::test(start_paused = true)]
async fn a_contradicted_database_is_refused_and_says_what_aws_says() {
    let ((facts, _), mut orders) = (book(), redshift("orders", &[]));
    assert_eq!(complete(&facts, &orders), Err(Refusal::Awaited));
    orders.uri = format!("{}:5440", host("orders")).parse().unwrap();
    follow(&facts, std::slice::from_ref(&orders));
    answer(&facts, &lists(&["orders"]));
    let refusal = complete(&facts, &orders).unwrap_err().to_string();
    assert!(
        refusal.contains(":5440") && refusal.contains(":5439"),
        "{refusal}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_strangers_host_is_not_even_asked_about() {
    let ((facts, _), mut orders) = (book(), redshift("orders", &[]));
    orders.uri = "orders.evil.example.com:5439".parse().unwrap();
    assert!(complete(&facts, &orders).is_ok());
    assert!(facts.take_due(9, Instant::now()).is_empty());
}

#[test]
fn a_failure_that_comes_again_under_another_request_id_is_not_another_one() {
    let failure = |id: &str| {
        let action = "redshift:DescribeClusters";
        let mut failure = AwsFailure::new(AwsErrorClass::Throttled, action, "no");
        failure.request_id = Some(id.into());
        failure
    };
    assert_eq!(kind_of(&failure("1")), kind_of(&failure("2")));
    let other = AwsFailure::new(AwsErrorClass::Timeout, "redshift:DescribeClusters", "no");
    assert_ne!(kind_of(&failure("1")), kind_of(&other));
}
