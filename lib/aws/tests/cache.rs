//! How seldom credentials are asked for. Time is a number that the tests move.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
};

use jiff::Timestamp;
use tidegate_aws::{
    AwsErrorClass, AwsFailure, CredentialCache, CredentialKey, DbCredentials, RoleChain,
};

const LIFE_SECONDS: i64 = 900;

/// A cache, its clock, and an AWS that counts.
struct World {
    cache: CredentialCache,
    now: Arc<AtomicI64>,
    mints: AtomicUsize,
}

impl World {
    fn new() -> Self {
        let now = Arc::new(AtomicI64::new(1_800_000_000));
        let clock = now.clone();
        let cache = CredentialCache::new(move || {
            Timestamp::from_second(clock.load(SeqCst)).expect("a valid time")
        });
        Self {
            cache,
            now,
            mints: AtomicUsize::new(0),
        }
    }

    fn wait(&self, seconds: i64) {
        self.now.fetch_add(seconds, SeqCst);
    }

    fn mints(&self) -> usize {
        self.mints.load(SeqCst)
    }

    fn mint(&self, outcome: Outcome) -> Result<DbCredentials, AwsFailure> {
        let number = self.mints.fetch_add(1, SeqCst) + 1;
        match outcome {
            Ok(()) => Ok(DbCredentials {
                user: format!("IAM:alice-{number}"),
                password: "hunter2".to_owned().into(),
                expires_at: Timestamp::from_second(self.now.load(SeqCst) + LIFE_SECONDS)
                    .expect("a valid time"),
            }),
            Err(class) => Err(AwsFailure::new(
                class,
                "redshift:GetClusterCredentials",
                "no",
            )),
        }
    }

    /// The user logged in as, or why not.
    async fn get(&self, key: &CredentialKey, outcome: Outcome) -> Result<String, AwsErrorClass> {
        let answer = self.cache.get(key, || async {
            tokio::task::yield_now().await;
            self.mint(outcome)
        });
        answer
            .await
            .map(|credentials| credentials.user)
            .map_err(|failure| failure.class)
    }
}

type Outcome = Result<(), AwsErrorClass>;

fn key(db_user: &str) -> CredentialKey {
    CredentialKey {
        chain: RoleChain::default(),
        session: None,
        region: "eu-west-1".parse().expect("a region"),
        cluster: "c0".into(),
        db_user: db_user.into(),
        db_name: "dev".into(),
    }
}

#[tokio::test]
async fn a_burst_of_logins_costs_one_call() {
    let world = World::new();
    let key = key("alice");
    let mut logins: Vec<_> = (0..1000)
        .map(|_| Box::pin(world.get(&key, Ok(()))))
        .collect();
    // All are started before any ends.
    for login in &mut logins {
        assert!(poll_once(login).await.is_pending());
    }
    for login in logins {
        assert_eq!(login.await, Ok("IAM:alice-1".into()));
    }

    assert_eq!(world.mints(), 1);
}

#[tokio::test]
async fn a_burst_of_denied_logins_costs_one_call_too() {
    let world = World::new();
    let key = key("alice");
    let mut logins: Vec<_> = (0..100)
        .map(|_| Box::pin(world.get(&key, Err(AwsErrorClass::AccessDenied))))
        .collect();
    for login in &mut logins {
        assert!(poll_once(login).await.is_pending());
    }
    for login in logins {
        assert_eq!(login.await, Err(AwsErrorClass::AccessDenied));
    }

    assert_eq!(world.mints(), 1);
}

#[tokio::test]
async fn credentials_are_used_until_a_minute_before_they_expire() {
    let world = World::new();
    world.get(&key("alice"), Ok(())).await.unwrap();

    world.wait(LIFE_SECONDS - 61);
    assert_eq!(
        world.get(&key("alice"), Ok(())).await,
        Ok("IAM:alice-1".into())
    );
    world.wait(1);
    assert_eq!(
        world.get(&key("alice"), Ok(())).await,
        Ok("IAM:alice-2".into())
    );
}

#[tokio::test]
async fn each_key_has_credentials_of_its_own() {
    let world = World::new();

    assert_eq!(
        world.get(&key("alice"), Ok(())).await,
        Ok("IAM:alice-1".into())
    );
    assert_eq!(
        world.get(&key("bob"), Ok(())).await,
        Ok("IAM:alice-2".into())
    );
    assert_eq!(
        world.get(&key("alice"), Ok(())).await,
        Ok("IAM:alice-1".into())
    );
}

#[tokio::test]
async fn a_failure_is_repeated_for_seconds_by_its_class() {
    for (class, seconds) in [
        (AwsErrorClass::AccessDenied, 5),
        (AwsErrorClass::NotFound, 5),
        (AwsErrorClass::Throttled, 3),
        (AwsErrorClass::Timeout, 1),
    ] {
        let world = World::new();
        assert_eq!(world.get(&key("alice"), Err(class)).await, Err(class));
        world.wait(seconds - 1);
        assert_eq!(world.get(&key("alice"), Ok(())).await, Err(class));
        world.wait(1);
        assert_eq!(
            world.get(&key("alice"), Ok(())).await,
            Ok("IAM:alice-2".into()),
            "{class}"
        );
    }
}

#[tokio::test]
async fn a_clock_set_back_does_not_make_a_failure_last() {
    let world = World::new();
    assert!(
        world
            .get(&key("alice"), Err(AwsErrorClass::AccessDenied))
            .await
            .is_err()
    );
    world.wait(-3600);

    assert_eq!(
        world.get(&key("alice"), Ok(())).await,
        Ok("IAM:alice-2".into())
    );
}

#[tokio::test]
async fn while_aws_is_away_old_credentials_serve_until_they_expire() {
    let world = World::new();
    world.get(&key("alice"), Ok(())).await.unwrap();

    world.wait(LIFE_SECONDS - 30);
    assert_eq!(
        world
            .get(&key("alice"), Err(AwsErrorClass::Unavailable))
            .await,
        Ok("IAM:alice-1".into())
    );
    world.wait(26);
    assert_eq!(
        world.get(&key("alice"), Err(AwsErrorClass::Timeout)).await,
        Err(AwsErrorClass::Timeout)
    );
}

#[tokio::test]
async fn a_denial_counts_at_once_even_with_old_credentials() {
    let world = World::new();
    world.get(&key("alice"), Ok(())).await.unwrap();

    world.wait(LIFE_SECONDS - 30);
    assert_eq!(
        world
            .get(&key("alice"), Err(AwsErrorClass::AccessDenied))
            .await,
        Err(AwsErrorClass::AccessDenied)
    );
}

#[tokio::test]
async fn who_gives_up_while_minting_leaves_the_next_to_mint() {
    let world = World::new();
    let key = key("alice");
    let mut first = Box::pin(world.get(&key, Ok(())));
    assert!(poll_once(&mut first).await.is_pending());
    let mut second = Box::pin(world.get(&key, Ok(())));
    assert!(poll_once(&mut second).await.is_pending());
    drop(first);

    assert_eq!(second.await, Ok("IAM:alice-1".into()));
}

/// Polls once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context)))
        .await
}
