//! How seldom credentials are asked for. Wall time is a number that the tests move; the runtime's time is paused.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _, join_all};
use jiff::Timestamp;
use tidegate_aws::{
    AwsErrorClass, AwsFailure, CredentialCache, CredentialKey, DbCredentials, Login, LoginRequest,
    Minter, Refused, RoleChain, SessionTag, cache::REFUSED_AGE_MIN,
};
use tidegate_core::AssumeRole;

const LIFE_SECONDS: i64 = 900;

type Outcome = Result<(), AwsErrorClass>;

/// An AWS that counts: the user of the n-th password is `IAM:alice-n`.
struct Aws {
    now: Arc<AtomicI64>,
    mints: AtomicUsize,
    outcome: Mutex<Outcome>,
    life_seconds: AtomicI64,
    takes: Mutex<Duration>,
}

impl Minter for Aws {
    fn mint(
        self: Arc<Self>,
        _: CredentialKey,
    ) -> BoxFuture<'static, Result<DbCredentials, AwsFailure>> {
        async move {
            let number = self.mints.fetch_add(1, SeqCst) + 1;
            let (outcome, takes) = (
                *self.outcome.lock().expect("no test panics with it"),
                *self.takes.lock().expect("no test panics with it"),
            );
            tokio::time::sleep(takes).await;
            let life = self.life_seconds.load(SeqCst);
            match outcome {
                Ok(()) => Ok(DbCredentials {
                    user: format!("IAM:alice-{number}"),
                    password: format!("hunter{number}").into(),
                    expires_at: Timestamp::from_second(self.now.load(SeqCst) + life)
                        .expect("a valid time"),
                }),
                Err(class) => Err(AwsFailure::new(
                    class,
                    "redshift:GetClusterCredentials",
                    "no",
                )),
            }
        }
        .boxed()
    }
}

struct World {
    cache: CredentialCache,
    aws: Arc<Aws>,
}

impl World {
    fn new() -> Self {
        let now = Arc::new(AtomicI64::new(1_800_000_000));
        let aws = Arc::new(Aws {
            now: now.clone(),
            mints: AtomicUsize::new(0),
            outcome: Mutex::new(Ok(())),
            life_seconds: AtomicI64::new(LIFE_SECONDS),
            takes: Mutex::new(Duration::from_millis(10)),
        });
        let clock = move || Timestamp::from_second(now.load(SeqCst)).expect("a valid time");
        Self {
            cache: CredentialCache::new(clock, aws.clone()),
            aws,
        }
    }

    /// Lets wall time pass, and nothing else.
    fn wait(&self, seconds: i64) {
        self.aws.now.fetch_add(seconds, SeqCst);
    }

    fn mints(&self) -> usize {
        self.aws.mints.load(SeqCst)
    }

    fn answers(&self, outcome: Outcome) {
        *self.aws.outcome.lock().expect("no test panics with it") = outcome;
    }

    /// The user logged in as, or why not.
    async fn get(&self, key: &CredentialKey) -> Result<String, AwsErrorClass> {
        let answer = self.cache.get(key).await;
        answer
            .map(|credentials| credentials.user)
            .map_err(|failure| failure.class)
    }

    async fn get_now(&self, key: &CredentialKey) -> Result<String, AwsErrorClass> {
        self.get(key).now_or_never().expect("nobody waits")
    }

    /// Lets the tasks that were begun end.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn key(db_user: &str) -> CredentialKey {
    let login = Login::ClusterUser {
        cluster: "c0".into(),
        db_user: db_user.into(),
        db_name: "dev".into(),
        create: None,
    };
    let request = LoginRequest {
        login,
        region: "eu-west-1".parse().expect("a region"),
        account: None,
        chain: RoleChain::default(),
    };
    CredentialKey::new(request, &SessionTag::new("alice"))
}

fn user(number: usize) -> Result<String, AwsErrorClass> {
    Ok(format!("IAM:alice-{number}"))
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_logins_costs_one_call() {
    let world = World::new();
    let key = key("alice");
    let logins = join_all((0..1000).map(|_| world.get(&key))).await;
    assert!(logins.iter().all(|login| *login == user(1)));
    assert_eq!(world.mints(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_denied_logins_costs_one_call_too() {
    let world = World::new();
    world.answers(Err(AwsErrorClass::AccessDenied));
    let key = key("alice");
    let logins = join_all((0..100).map(|_| world.get(&key))).await;
    assert!(
        logins
            .iter()
            .all(|login| *login == Err(AwsErrorClass::AccessDenied))
    );
    assert_eq!(world.mints(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_credentials_of_its_own() {
    let world = World::new();
    assert_eq!(world.get(&key("alice")).await, user(1));
    assert_eq!(world.get(&key("bob")).await, user(2));
    assert_eq!(world.get(&key("alice")).await, user(1));
}

#[test]
fn people_share_what_they_ask_for_as_the_agent_and_never_what_they_ask_for_as_a_role() {
    let of = |person: &str, role: Option<&str>| {
        let role = role.map(|role_arn| AssumeRole {
            role_arn: role_arn.parse().unwrap(),
            external_id: None,
        });
        let request = LoginRequest {
            chain: RoleChain::new(role, None),
            ..key("reader").request
        };
        CredentialKey::new(request, &SessionTag::new(person))
    };
    let dba = Some("arn:aws:iam::123456789012:role/dba");
    assert_eq!(of("alice", None), of("bob", None));
    assert_eq!(of("alice", dba), of("alice", dba));
    assert_ne!(of("alice", dba), of("bob", dba));
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_expire_is_replaced_behind_a_login_that_does_not_wait() {
    let world = World::new();
    let key = key("alice");
    world.get(&key).await.unwrap();

    world.wait(LIFE_SECONDS - 301);
    assert_eq!(world.get_now(&key).await, user(1));
    world.settle().await;
    assert_eq!(world.mints(), 1);
    world.wait(2);
    for _ in 0..10 {
        assert_eq!(world.get_now(&key).await, user(1));
    }
    world.settle().await;
    assert_eq!(world.get_now(&key).await, user(2));
    assert_eq!(world.mints(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_used_lately_is_replaced_though_nobody_logs_in() {
    let world = World::new();
    let (busy, idle) = (key("busy"), key("idle"));
    world.get(&busy).await.unwrap();
    world.get(&idle).await.unwrap();
    let cache = world.cache.clone();
    let keeping = tokio::spawn(async move { cache.keep_fresh().await });

    world.wait(500);
    assert_eq!(world.get_now(&busy).await, user(1));
    world.wait(LIFE_SECONDS - 500 - 290);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.mints(), 3, "one more, for the one in use");
    // Past the end of the first password.
    world.wait(300);
    assert_eq!(world.get_now(&busy).await, user(3));
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn at_most_eight_are_replaced_at_once_and_those_that_end_first_before_others() {
    let world = World::new();
    let keys: Vec<_> = (0..20)
        .map(|number| key(&format!("user-{number}")))
        .collect();
    for key in &keys {
        world.get(key).await.unwrap();
    }
    *world.aws.takes.lock().unwrap() = Duration::from_secs(3600);
    world.wait(500);
    for key in &keys {
        world.get_now(key).await.unwrap();
    }
    world.wait(LIFE_SECONDS - 500 - 200);
    let cache = world.cache.clone();
    let keeping = tokio::spawn(async move { cache.keep_fresh().await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.mints(), 28);
    // A login is none of them: it mints beside them.
    let login = world.get(&key("new")).now_or_never();
    assert!(login.is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.mints(), 29);
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_uses_no_password_that_ended_meanwhile() {
    let world = World::new();
    world.get(&key("alice")).await.unwrap();
    world.wait(LIFE_SECONDS - 60);
    assert_eq!(world.get(&key("alice")).await, user(2));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_trusts_no_password_longer_than_it_was_asked_for() {
    let world = World::new();
    // AWS's clock is an hour ahead.
    world.aws.life_seconds.store(LIFE_SECONDS + 3600, SeqCst);
    world.get(&key("alice")).await.unwrap();
    world.wait(LIFE_SECONDS - 60);
    assert_eq!(world.get(&key("alice")).await, user(2));
    // Ours is set back by an hour.
    world.wait(-3600);
    assert_eq!(world.get(&key("alice")).await, user(3));
}

#[tokio::test(start_paused = true)]
async fn passwords_of_a_short_life_are_replaced_in_its_last_third() {
    let world = World::new();
    world.aws.life_seconds.store(240, SeqCst);
    let key = key("alice");
    world.get(&key).await.unwrap();
    world.wait(150);
    assert_eq!(world.get_now(&key).await, user(1));
    world.settle().await;
    assert_eq!(world.mints(), 1);
    world.wait(11);
    assert_eq!(world.get_now(&key).await, user(1));
    world.settle().await;
    assert_eq!(world.get_now(&key).await, user(2));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_repeated_for_seconds_by_its_class() {
    for (class, seconds) in [
        (AwsErrorClass::AccessDenied, 5),
        (AwsErrorClass::NotFound, 5),
        (AwsErrorClass::OverBudget, 1),
        (AwsErrorClass::Throttled, 3),
        (AwsErrorClass::Timeout, 1),
    ] {
        let world = World::new();
        world.answers(Err(class));
        assert_eq!(world.get(&key("alice")).await, Err(class));
        world.answers(Ok(()));
        world.wait(seconds - 1);
        assert_eq!(world.get_now(&key("alice")).await, Err(class));
        world.wait(1);
        assert_eq!(world.get(&key("alice")).await, user(2), "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_does_not_make_a_failure_last() {
    let world = World::new();
    world.answers(Err(AwsErrorClass::AccessDenied));
    assert!(world.get(&key("alice")).await.is_err());
    world.answers(Ok(()));
    world.wait(-3600);
    assert_eq!(world.get(&key("alice")).await, user(2));
}

#[tokio::test(start_paused = true)]
async fn while_aws_or_the_agents_own_credentials_are_away_old_credentials_serve_until_they_expire()
{
    for class in [
        AwsErrorClass::Unavailable,
        AwsErrorClass::ExpiredCredentials,
    ] {
        let world = World::new();
        world.get(&key("alice")).await.unwrap();
        world.answers(Err(class));

        world.wait(LIFE_SECONDS - 30);
        assert_eq!(world.get(&key("alice")).await, user(1), "{class}");
        world.wait(26);
        assert_eq!(world.get(&key("alice")).await, Err(class));
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_counts_at_once_also_when_it_came_in_the_background() {
    let world = World::new();
    let key = key("alice");
    world.get(&key).await.unwrap();
    world.answers(Err(AwsErrorClass::AccessDenied));

    world.wait(LIFE_SECONDS - 200);
    assert_eq!(world.get_now(&key).await, user(1));
    world.settle().await;
    assert_eq!(world.get_now(&key).await, Err(AwsErrorClass::AccessDenied));
    world.wait(6);
    assert_eq!(world.get(&key).await, Err(AwsErrorClass::AccessDenied));
    assert_eq!(world.mints(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_replaced_is_not_tried_at_every_login() {
    let world = World::new();
    let key = key("alice");
    world.get(&key).await.unwrap();
    world.answers(Err(AwsErrorClass::Unavailable));
    world.wait(LIFE_SECONDS - 200);
    for _ in 0..10 {
        assert_eq!(world.get_now(&key).await, user(1));
        world.settle().await;
    }
    assert_eq!(world.mints(), 2);
    world.wait(15);
    assert_eq!(world.get_now(&key).await, user(1));
    world.settle().await;
    assert_eq!(world.mints(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_while_minting_costs_the_others_nothing() {
    let world = World::new();
    let key = key("alice");
    let mut first = Box::pin(world.get(&key));
    assert!((&mut first).now_or_never().is_none());
    let mut second = Box::pin(world.get(&key));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    assert_eq!(second.await, user(1));
}

/// Panics once, then works.
struct Fragile(AtomicUsize);

impl Minter for Fragile {
    fn mint(
        self: Arc<Self>,
        _: CredentialKey,
    ) -> BoxFuture<'static, Result<DbCredentials, AwsFailure>> {
        async move {
            assert!(self.0.fetch_add(1, SeqCst) > 0, "on purpose");
            Ok(DbCredentials {
                user: "IAM:alice".to_owned(),
                password: "hunter2".to_owned().into(),
                expires_at: Timestamp::MAX,
            })
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_mint_that_panicked_leaves_nobody_waiting() {
    let cache = CredentialCache::new(Timestamp::now, Arc::new(Fragile(AtomicUsize::new(0))));
    let failure = cache.get(&key("alice")).await.unwrap_err();
    assert_eq!(failure.class, AwsErrorClass::Unavailable);
    assert_eq!(cache.get(&key("alice")).await.unwrap().user, "IAM:alice");
    assert!(!format!("{cache:?}").contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn a_password_that_a_database_refuses_is_forgotten_once_for_all_who_used_it() {
    let world = World::new();
    let key = key("alice");
    let first = world.cache.get(&key).await.unwrap().password;
    world.wait(REFUSED_AGE_MIN.as_secs().cast_signed());
    assert_eq!(world.cache.refused(&key, &first), Refused::Forgotten);
    assert_eq!(world.cache.refused(&key, &first), Refused::Replaced);
    let again = join_all((0..100).map(|_| world.get(&key))).await;
    assert!(again.into_iter().all(|login| login == user(2)));
    assert_eq!(world.cache.refused(&key, &first), Refused::Replaced);
    assert_eq!(world.get_now(&key).await, user(2));
    assert_eq!(world.mints(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_user_whom_a_database_refuses_costs_no_call_for_each_attempt() {
    let world = World::new();
    let key = key("nobody");
    let mut forgotten = 0;
    for _ in 0..100 {
        let login = world.cache.get(&key).await.unwrap();
        if world.cache.refused(&key, &login.password) == Refused::Forgotten {
            forgotten += 1;
            // Tried once more, and refused again: these are new.
            let login = world.cache.get(&key).await.unwrap();
            assert_eq!(world.cache.refused(&key, &login.password), Refused::Kept);
        }
        world.wait(1);
    }
    assert_eq!((forgotten, world.mints()), (9, 10));
}
