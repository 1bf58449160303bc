//! Keeps database credentials, so that a burst of logins costs one call.
//!
//! Invariant: for one key there is at most one mint at a time; whoever comes meanwhile waits for it
//! and takes its answer, be it credentials or a failure. A waiter whose minter gave up (its client
//! left) mints in its place.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate_core::Region;

use crate::{
    bounded::Bounded,
    chain::RoleChain,
    dbcreds::DbCredentials,
    error::{AwsErrorClass, AwsFailure},
    session::SessionTag,
};

/// Keys that are kept; beyond it the one used longest ago is forgotten.
pub const CREDENTIALS_MAX: usize = 4096;

/// Credentials are used until this long before they expire, then new ones are asked for.
pub const REFRESH_AHEAD: Duration = Duration::from_secs(60);

/// When AWS cannot be reached, old credentials are used until this long before they expire.
pub const STALE_MARGIN: Duration = Duration::from_secs(5);

/// How long somebody's denial, or another failure that only a person can end, is repeated.
const FAILURE_LASTING: Duration = Duration::from_secs(5);

/// How long a failure is repeated that may be over at any moment.
const FAILURE_PASSING: Duration = Duration::from_secs(1);

/// How long AWS is left alone after it throttled to the last attempt.
const FAILURE_THROTTLED: Duration = Duration::from_secs(3);

/// What credentials are good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CredentialKey {
    /// Who asked for them.
    pub chain: RoleChain,
    /// What the assumed role's session is called; `None` where no role is assumed. Policies grant by it and AWS's
    /// trail names it: two people who share a database user are still two in AWS.
    pub session: Option<SessionTag>,
    /// The cluster's region.
    pub region: Region,
    /// The cluster's identifier in AWS; with the chain's account and the region it is unique.
    pub cluster: String,
    /// The database user; empty where the calling role decides it.
    pub db_user: String,
    /// The database.
    pub db_name: String,
}

/// Credentials by key; made once per process and shared.
pub struct CredentialCache {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    slots: Mutex<Bounded<CredentialKey, Arc<tokio::sync::Mutex<Slot>>>>,
}

impl CredentialCache {
    /// An empty cache; `clock` tells the wall time, `Timestamp::now` outside tests.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            clock: Box::new(clock),
            slots: Mutex::new(Bounded::new(CREDENTIALS_MAX)),
        }
    }

    /// The credentials for `key`, minted by `mint` only where none are fresh and none are being
    /// minted. Waits as long as the mint takes, which has to be bounded.
    ///
    /// # Errors
    ///
    /// What `mint` failed with, now or within the last few seconds. While AWS is only unavailable,
    /// credentials that are not yet expired are given instead.
    pub async fn get<F, Fut>(
        &self,
        key: &CredentialKey,
        mint: F,
    ) -> Result<DbCredentials, AwsFailure>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<DbCredentials, AwsFailure>>,
    {
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if let Some(answer) = slot.answer((self.clock)()) {
            return answer;
        }
        let minted = mint().await;
        slot.settle(minted, (self.clock)())
    }

    fn slot(&self, key: &CredentialKey) -> Arc<tokio::sync::Mutex<Slot>> {
        // A panic while the lock was held leaves at worst a slot that is filled again.
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(key, Arc::default)
    }
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCache").finish_non_exhaustive()
    }
}

/// What is known for one key.
#[derive(Debug, Default)]
struct Slot {
    credentials: Option<DbCredentials>,
    failure: Option<(AwsFailure, Timestamp)>,
}

impl Slot {
    /// What can be said at `now` without a call.
    fn answer(&self, now: Timestamp) -> Option<Result<DbCredentials, AwsFailure>> {
        if let Some(fresh) = self.good_for(REFRESH_AHEAD, now) {
            return Some(Ok(fresh));
        }
        let (failure, at) = self.failure.as_ref()?;
        let age = now.duration_since(*at);
        // A clock that was set back must not make a failure last.
        let recent = SignedDuration::ZERO <= age && age < signed(repeated_for(failure.class));
        recent.then(|| self.stale_or(failure, now))
    }

    /// Keeps the outcome of a mint and says what it means for those who wait.
    fn settle(
        &mut self,
        minted: Result<DbCredentials, AwsFailure>,
        now: Timestamp,
    ) -> Result<DbCredentials, AwsFailure> {
        match minted {
            Ok(credentials) => {
                *self = Self {
                    credentials: Some(credentials.clone()),
                    failure: None,
                };
                Ok(credentials)
            }
            Err(failure) => {
                let answer = self.stale_or(&failure, now);
                self.failure = Some((failure, now));
                answer
            }
        }
    }

    /// Old credentials bridge an outage; a denial counts at once.
    fn stale_or(&self, failure: &AwsFailure, now: Timestamp) -> Result<DbCredentials, AwsFailure> {
        let stale = self
            .good_for(STALE_MARGIN, now)
            .filter(|_| failure.class.is_transient());
        stale.ok_or_else(|| failure.clone())
    }

    fn good_for(&self, margin: Duration, now: Timestamp) -> Option<DbCredentials> {
        self.credentials
            .clone()
            .filter(|known| known.expires_at.duration_since(now) > signed(margin))
    }
}

/// How long a failure answers for a call that is not made.
fn repeated_for(class: AwsErrorClass) -> Duration {
    match class {
        AwsErrorClass::AccessDenied
        | AwsErrorClass::ClockSkew
        | AwsErrorClass::ExpiredCredentials
        | AwsErrorClass::InvalidRequest
        | AwsErrorClass::NoCredentials
        | AwsErrorClass::NotFound
        | AwsErrorClass::RegionDisabled => FAILURE_LASTING,
        AwsErrorClass::Malformed
        | AwsErrorClass::OverBudget
        | AwsErrorClass::Timeout
        | AwsErrorClass::Unavailable => FAILURE_PASSING,
        AwsErrorClass::Throttled => FAILURE_THROTTLED,
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}
