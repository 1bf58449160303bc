//! Credentials that can be forgotten, so that good ones are found without a restart.
//!
//! The SDK keeps credentials until they expire by their own account, and reads profile files once. AWS may refuse
//! them before: a session that somebody wrote into a file or gave to the container ran out and was replaced. Whoever
//! sees that says so, and the next call looks for credentials again.
//!
//! Not here: who says so ([`crate::factory::AwsFactory::refused`]).

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_config::identity::IdentityCache;
use aws_credential_types::provider::{
    self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future,
};
use aws_smithy_runtime_api::client::{
    identity::{
        IdentityFuture, ResolveCachedIdentity, SharedIdentityCache, SharedIdentityResolver,
    },
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::config_bag::ConfigBag;
use tokio::sync::OnceCell;

use crate::keeper::Keeper;

/// Shortest time between two times of forgetting: many calls meet the same refusal at once, and one new look at the
/// credentials is enough for all.
pub(crate) const FORGET_APART_MIN: Duration = Duration::from_secs(5);

/// The SDK's identity cache, but for [`Forgetful::forget`].
#[derive(Clone, Debug)]
pub(crate) struct Forgetful {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    cache: SharedIdentityCache,
    forgot_at: Option<Instant>,
}

impl Default for Forgetful {
    fn default() -> Self {
        let kept = Kept {
            cache: IdentityCache::lazy().build(),
            forgot_at: None,
        };
        Self {
            kept: Arc::new(Mutex::new(kept)),
        }
    }
}

impl Forgetful {
    /// Forgets what is kept; `false` when that was done a moment ago.
    pub(crate) fn forget(&self) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: Instant| at.elapsed() < FORGET_APART_MIN;
        if kept.forgot_at.is_some_and(recent) {
            return false;
        }
        *kept = Kept {
            cache: IdentityCache::lazy().build(),
            forgot_at: Some(Instant::now()),
        };
        true
    }

    fn cache(&self) -> SharedIdentityCache {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.cache.clone()
    }
}

impl ResolveCachedIdentity for Forgetful {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        let cache = self.cache();
        IdentityFuture::new(async move {
            cache
                .resolve_cached_identity(resolver, components, config)
                .await
        })
    }
}

type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

type Look = Arc<dyn Fn() -> BoxFuture<Option<SharedCredentialsProvider>> + Send + Sync>;

/// The credentials of a role, for the configurations of all regions.
#[derive(Clone, Debug)]
pub(crate) struct Renewed {
    /// Beneath the cache, for calls and for what is signed here.
    pub(crate) keeper: Keeper,
    pub(crate) cache: Forgetful,
}

impl Renewed {
    pub(crate) fn new(source: SharedCredentialsProvider) -> Self {
        Self {
            keeper: Keeper::new(source),
            cache: Forgetful::default(),
        }
    }

    /// AWS says that they expired.
    pub(crate) fn refused(&self) {
        if self.cache.forget() {
            self.keeper.forget();
        }
    }
}

/// This process's own identity: where its credentials come from, and what is kept of them.
#[derive(Debug, Default)]
pub(crate) struct OwnIdentity {
    pub(crate) cache: Forgetful,
    /// `None`: the source is somebody else's, and is asked again.
    pub(crate) source: Option<Own>,
    /// Above the source; `None` where there is none.
    pub(crate) keeper: Option<Keeper>,
}

impl OwnIdentity {
    /// AWS says that the credentials expired.
    pub(crate) fn refused(&self) {
        if self.cache.forget() {
            self.look_again();
        }
    }

    /// Has the source asked at the next use, and where it is this process's environment looked for anew.
    pub(crate) fn look_again(&self) {
        if let Some(source) = &self.source {
            source.forget();
        }
        if let Some(keeper) = &self.keeper {
            keeper.forget();
        }
    }
}

/// This process's own credentials: from where they were found at the start, and looked for anew when they are
/// forgotten.
#[derive(Clone)]
pub(crate) struct Own {
    look: Look,
    found: Arc<Mutex<Found>>,
}

type Found = Arc<OnceCell<Option<SharedCredentialsProvider>>>;

impl Own {
    /// Begins with what was `found`; `look` finds others.
    pub(crate) fn new(found: Option<SharedCredentialsProvider>, look: Look) -> Self {
        Self {
            look,
            found: Arc::new(Mutex::new(Arc::new(OnceCell::new_with(Some(found))))),
        }
    }

    /// Looks again before the next use.
    pub(crate) fn forget(&self) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        *found = Arc::default();
    }

    async fn credentials(&self) -> provider::Result {
        let found = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&found)
        };
        let found = found.get_or_init(|| (self.look)()).await;
        match found {
            Some(provider) => provider.provide_credentials().await,
            None => Err(CredentialsError::not_loaded("no source of credentials")),
        }
    }
}

impl ProvideCredentials for Own {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use aws_credential_types::Credentials;

    use super::*;

    fn key(id: &str) -> Option<SharedCredentialsProvider> {
        let keys = Credentials::new(id, "secret", None, None, "test");
        Some(SharedCredentialsProvider::new(keys))
    }

    #[tokio::test]
    async fn forgotten_credentials_are_looked_for_again_once() {
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let look: Look = Arc::new(move || {
            let look = counted.fetch_add(1, Relaxed);
            Box::pin(async move { key(&format!("new-{look}")) })
        });
        let own = Own::new(key("old"), look);
        for expected in ["old", "old"] {
            assert_eq!(own.credentials().await.unwrap().access_key_id(), expected);
        }
        own.forget();
        for expected in ["new-0", "new-0"] {
            assert_eq!(own.credentials().await.unwrap().access_key_id(), expected);
        }
        assert_eq!(looks.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn no_source_of_credentials_is_an_error_and_one_that_comes_later_is_found() {
        let look: Look = Arc::new(|| Box::pin(async { key("new") }));
        let own = Own::new(None, look);
        assert!(own.credentials().await.is_err());
        own.forget();
        assert!(own.credentials().await.is_ok());
    }

    #[test]
    fn many_refusals_at_once_are_one() {
        let cache = Forgetful::default();
        assert!(cache.forget());
        assert!(!cache.forget());
    }
}
