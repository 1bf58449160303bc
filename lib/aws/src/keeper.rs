//! Credentials that are asked for once and shared until shortly before they expire.
//!
//! The SDK keeps credentials for its own calls, where nothing else can have them; what is signed here needs them too.
//! A [`Keeper`] stands beneath the SDK's cache, so that both use the same ones and a role is assumed once.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, future},
};

/// Credentials are used until this long before they expire. Longer than the SDK's own margin, so that it is never given
/// those that it wants to replace.
const MARGIN: Duration = Duration::from_secs(60);

/// How long credentials are used that name no end.
const ENDLESS_USED_FOR: Duration = Duration::from_mins(15);

/// Shares what a source gave.
#[derive(Clone)]
pub(crate) struct Keeper {
    source: SharedCredentialsProvider,
    kept: Arc<Mutex<Kept>>,
    /// Held by the one who asks the source.
    asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Kept {
    credentials: Option<(Credentials, SystemTime)>,
    /// Counts how often they were forgotten, so that what was asked for before that is not kept after it.
    forgotten: u64,
}

impl Keeper {
    pub(crate) fn new(source: SharedCredentialsProvider) -> Self {
        Self {
            source,
            kept: Arc::default(),
            asking: Arc::default(),
        }
    }

    /// Asks the source again at the next use.
    pub(crate) fn forget(&self) {
        let mut kept = self.kept();
        kept.credentials = None;
        kept.forgotten += 1;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // A panic while the lock was held leaves at worst credentials that are asked for again.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn good(&self) -> Option<Credentials> {
        let kept = self.kept();
        let (credentials, until) = kept.credentials.as_ref()?;
        (SystemTime::now() < *until).then(|| credentials.clone())
    }

    async fn credentials(&self) -> provider::Result {
        if let Some(good) = self.good() {
            return Ok(good);
        }
        let _asking = self.asking.lock().await;
        if let Some(good) = self.good() {
            return Ok(good);
        }
        let forgotten = self.kept().forgotten;
        let credentials = self.source.provide_credentials().await?;
        let until = match credentials.expiry() {
            Some(end) => end.checked_sub(MARGIN).unwrap_or(end),
            None => SystemTime::now() + ENDLESS_USED_FOR,
        };
        let mut kept = self.kept();
        if kept.forgotten == forgotten {
            kept.credentials = Some((credentials.clone(), until));
        }
        Ok(credentials)
    }
}

impl ProvideCredentials for Keeper {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// Gives `key-1`, `key-2`, …, which end in so many seconds.
    #[derive(Debug)]
    struct Source {
        asked: Arc<AtomicUsize>,
        ends_in: Option<u64>,
    }

    impl ProvideCredentials for Source {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                tokio::task::yield_now().await;
                let key = format!("key-{}", self.asked.fetch_add(1, Relaxed) + 1);
                let end = self
                    .ends_in
                    .map(|secs| SystemTime::now() + Duration::from_secs(secs));
                Ok(Credentials::new(key, "secret", None, end, "test"))
            })
        }
    }

    fn keeper(ends_in: Option<u64>) -> Keeper {
        let asked = Arc::default();
        Keeper::new(SharedCredentialsProvider::new(Source { asked, ends_in }))
    }

    async fn key(keeper: &Keeper) -> String {
        keeper
            .credentials()
            .await
            .unwrap()
            .access_key_id()
            .to_owned()
    }

    #[tokio::test]
    async fn many_who_want_credentials_at_once_cost_one_look() {
        for ends_in in [None, Some(3600)] {
            let keeper = keeper(ends_in);
            let keys = futures::future::join_all((0..10).map(|_| key(&keeper))).await;
            assert!(keys.iter().all(|key| key == "key-1"), "{keys:?}");
        }
    }

    #[tokio::test]
    async fn credentials_that_are_about_to_expire_are_asked_for_again() {
        let keeper = keeper(Some(59));
        assert_eq!(key(&keeper).await, "key-1");
        assert_eq!(key(&keeper).await, "key-2");
    }

    #[tokio::test]
    async fn what_was_asked_for_before_it_was_forgotten_is_not_kept() {
        let keeper = keeper(None);
        let mut asking = Box::pin(key(&keeper));
        assert!(futures::poll!(&mut asking).is_pending());
        keeper.forget();
        assert_eq!(asking.await, "key-1");
        assert_eq!(key(&keeper).await, "key-2");
        assert!(!format!("{keeper:?}").contains("key"));
    }
}
