//! Keeps database credentials, so that a burst of logins costs one call and a login seldom waits for AWS.
//!
//! Invariant: for one key there is at most one mint at a time; whoever needs it waits for it and takes its answer, be it
//! credentials or a failure. A mint runs in a task of its own: that a client leaves ends it for nobody. While credentials
//! are good nobody waits: what is about to expire is replaced in the background, for keys that were used lately.
//!
//! Expiry is told by wall clocks, ours and that of AWS: a machine that slept finds its credentials expired, and one whose
//! clock is wrong trusts none longer than it asked for them.
//!
//! Not here: what is asked and how often at most ([`crate::mint`]).

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    bounded::Bounded,
    dbcreds::DbCredentials,
    error::{AwsErrorClass, AwsFailure},
    login::LoginRequest,
    mint::PASSWORD_TTL,
    session::SessionTag,
};

/// Keys that are kept; beyond it the one used longest ago is forgotten.
pub const CREDENTIALS_MAX: usize = 4096;

/// Credentials are replaced in the background from this long before they expire, and those of a short life in its last
/// third.
pub const REFRESH_AHEAD: Duration = Duration::from_mins(5);

/// Keys that nobody used for this long are not refreshed.
pub const USED_LATELY: Duration = Duration::from_mins(5);

/// Mints in the background at once; logins come in between.
pub const REFRESHES_MAX: usize = 8;

/// Credentials are used until this long before they expire: a login has to be through by then.
pub const LOGIN_MARGIN: Duration = Duration::from_secs(60);

/// When AWS cannot be reached, old credentials are used until this long before they expire.
pub const STALE_MARGIN: Duration = Duration::from_secs(5);

/// How often what expires is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Before credentials that could not be refreshed are tried again in the background.
const REFRESH_APART_MIN: Duration = Duration::from_secs(15);

/// How far a wall clock may be set back without credentials being asked for anew.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(60);

/// How long somebody's denial, or another failure that only a person can end, is repeated.
const FAILURE_LASTING: Duration = Duration::from_secs(5);

/// Credentials that a database refuses are forgotten when they are this old. Younger ones are what AWS would give again:
/// the database refuses the user and not the password, and its attempts do not become calls.
pub const REFUSED_AGE_MIN: Duration = Duration::from_secs(10);

/// How long a failure is repeated that may be over at any moment.
const FAILURE_PASSING: Duration = Duration::from_secs(1);

/// How long AWS is left alone after it throttled to the last attempt.
const FAILURE_THROTTLED: Duration = Duration::from_secs(3);

/// What credentials are good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CredentialKey {
    /// What was asked for, as whom.
    pub request: LoginRequest,
    /// What the assumed role's session is called; `None` where no role is assumed. Policies grant by it and AWS's
    /// trail names it: two people who share a database user are still two in AWS.
    session: Option<SessionTag>,
}

impl CredentialKey {
    /// The key of a login in a session of AWS.
    #[must_use]
    pub fn new(request: LoginRequest, session: &SessionTag) -> Self {
        let session = request.chain.last().map(|_| session.clone());
        Self { request, session }
    }

    /// The session that roles are assumed in; of no meaning where none is.
    #[must_use]
    pub fn session(&self) -> SessionTag {
        self.session
            .clone()
            .unwrap_or_else(|| SessionTag::new("own-identity"))
    }
}

/// Gets credentials for keys.
pub trait Minter: Send + Sync + 'static {
    /// Gets those of one key. What it returns has to end in bounded time.
    fn mint(
        self: Arc<Self>,
        key: CredentialKey,
    ) -> BoxFuture<'static, Result<DbCredentials, AwsFailure>>;
}

/// What became of credentials that a database refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They are forgotten: AWS is asked for others.
    Forgotten,
    /// They stay, since they are as new as any.
    Kept,
    /// Others have taken their place already, or are on their way.
    Replaced,
}

/// Credentials by key; made once per process. Cloning is cheap and shares everything.
#[derive(Clone)]
pub struct CredentialCache {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    mint: Box<dyn Fn(CredentialKey) -> Minting + Send + Sync>,
    slots: Mutex<Slots>,
    /// Mints in the background.
    refreshes: AtomicUsize,
}

type Minting = BoxFuture<'static, Result<DbCredentials, AwsFailure>>;

type Slots = Bounded<CredentialKey, Slot>;

/// What a mint came to; `None` while it goes on.
type Outcome = Option<Result<DbCredentials, AwsFailure>>;

/// Why a mint was begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Somebody waits for it.
    Login,
    /// What there is will expire.
    Refresh,
}

impl CredentialCache {
    /// An empty cache; `clock` tells the wall time, `Timestamp::now` outside tests.
    pub fn new(
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        minter: Arc<impl Minter>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: Box::new(clock),
                mint: Box::new(move |key| Arc::clone(&minter).mint(key)),
                slots: Mutex::new(Bounded::new(CREDENTIALS_MAX)),
                refreshes: AtomicUsize::new(0),
            }),
        }
    }

    /// The credentials for `key`: those that there are while they are good, else those of a mint that all who want
    /// them share. Waits as long as the mint takes.
    ///
    /// # Errors
    ///
    /// What the mint failed with, now or within the last few seconds. While AWS is only unavailable,
    /// credentials that are not yet expired are given instead.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn get(&self, key: &CredentialKey) -> Result<DbCredentials, AwsFailure> {
        let mut minting = match self.shared.look(key) {
            Look::Answer(answer) => return answer,
            Look::Wait(minting) => minting,
        };
        let ended = || {
            let message = "the mint that was waited for was given up";
            Err(AwsFailure::new(
                AwsErrorClass::Unavailable,
                key.request.action(),
                message,
            ))
        };
        match minting.wait_for(Outcome::is_some).await {
            Ok(outcome) => (*outcome).clone().unwrap_or_else(ended),
            Err(_) => ended(),
        }
    }

    /// Hears that a database refused `password`, which was given for `key`, and forgets it, unless it is younger than
    /// [`REFUSED_AGE_MIN`]. However many logins were refused with one password, it is forgotten once; unless it was kept,
    /// [`Self::get`] gives all of them the next.
    #[must_use]
    pub fn refused(&self, key: &CredentialKey, password: &SecretString) -> Refused {
        let now = (self.shared.clock)();
        let mut slots = self.shared.slots();
        slots.get_mut_or_default(key).refused(password, now)
    }

    /// Refreshes what is about to expire and was used lately, and forgets what expired. Never ends; to be dropped at
    /// shutdown. Without it logins still get credentials, and then wait for them more often.
    pub async fn keep_fresh(&self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.shared.refresh_due();
        }
    }
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCache").finish_non_exhaustive()
    }
}

enum Look {
    Answer(Result<DbCredentials, AwsFailure>),
    Wait(watch::Receiver<Outcome>),
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        // A panic while the lock was held leaves at worst a slot that is filled again.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(self: &Arc<Self>, key: &CredentialKey) -> Look {
        let now = (self.clock)();
        let mut slots = self.slots();
        let slot = slots.get_mut_or_default(key);
        slot.used_at = Some(now);
        if let Some(good) = slot.good_for(LOGIN_MARGIN, now) {
            if slot.may_refresh(now) && self.may_refresh_more() {
                self.begin(&mut slots, key, Reason::Refresh);
            }
            return Look::Answer(Ok(good));
        }
        if let Some(minting) = slot.under_way() {
            return Look::Wait(minting);
        }
        if let Some(answer) = slot.recent_failure(now) {
            return Look::Answer(answer);
        }
        Look::Wait(self.begin(&mut slots, key, Reason::Login))
    }

    fn may_refresh_more(&self) -> bool {
        self.refreshes.load(Relaxed) < REFRESHES_MAX
    }

    fn refresh_due(self: &Arc<Self>) {
        let now = (self.clock)();
        let mut slots = self.slots();
        slots.retain(|_, slot| slot.is_worth_keeping(now));
        let mut due: Vec<_> = slots
            .iter()
            .filter(|(_, slot)| slot.was_used_lately(now) && slot.may_refresh(now))
            .map(|(key, slot)| (slot.expires_at(), key.clone()))
            .collect();
        due.sort_by_key(|(expires_at, _)| *expires_at);
        for (_, key) in due {
            if !self.may_refresh_more() {
                break;
            }
            self.begin(&mut slots, &key, Reason::Refresh);
        }
    }

    /// Begins to mint, in a task of its own.
    fn begin(
        self: &Arc<Self>,
        slots: &mut Slots,
        key: &CredentialKey,
        reason: Reason,
    ) -> watch::Receiver<Outcome> {
        let (done, minting) = watch::channel(None);
        slots.get_mut_or_default(key).minting = Some(minting.clone());
        let refreshing = (reason == Reason::Refresh).then(|| Refreshing::new(self));
        let (shared, key) = (Arc::clone(self), key.clone());
        tokio::spawn(async move {
            let minted = (shared.mint)(key.clone()).await;
            let answer = shared.settle(&key, minted);
            done.send_replace(Some(answer));
            drop(refreshing);
        });
        minting
    }

    fn settle(
        &self,
        key: &CredentialKey,
        minted: Result<DbCredentials, AwsFailure>,
    ) -> Result<DbCredentials, AwsFailure> {
        let now = (self.clock)();
        self.slots().get_mut_or_default(key).settle(minted, now)
    }
}

/// Counts a mint in the background until it is dropped, however it ends.
struct Refreshing(Arc<Shared>);

impl Refreshing {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.refreshes.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        // Without the lock: a runtime that ends drops tasks where they are begun, which is under it.
        self.0.refreshes.fetch_sub(1, Relaxed);
    }
}

/// What is known for one key.
#[derive(Debug, Default)]
struct Slot {
    credentials: Option<Held>,
    failure: Option<(AwsFailure, Timestamp)>,
    minting: Option<watch::Receiver<Outcome>>,
    used_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Held {
    credentials: DbCredentials,
    minted_at: Timestamp,
}

impl Slot {
    /// The mint that goes on. One whose task was ended with its runtime does not.
    fn under_way(&self) -> Option<watch::Receiver<Outcome>> {
        self.minting
            .clone()
            .filter(|minting| minting.has_changed().is_ok())
    }

    /// A failure that answers for a call that is not made.
    fn recent_failure(&self, now: Timestamp) -> Option<Result<DbCredentials, AwsFailure>> {
        let (failure, at) = self.failure.as_ref()?;
        is_within(repeated_for(failure.class), *at, now).then(|| self.stale_or(failure, now))
    }

    /// Keeps the outcome of a mint and says what it means for those who wait.
    fn settle(
        &mut self,
        minted: Result<DbCredentials, AwsFailure>,
        now: Timestamp,
    ) -> Result<DbCredentials, AwsFailure> {
        self.minting = None;
        match minted {
            Ok(mut credentials) => {
                // What AWS says is by its clock: by ours nothing lasts longer than it was asked for.
                let asked = now.saturating_add(PASSWORD_TTL).unwrap_or(now);
                credentials.expires_at = credentials.expires_at.min(asked);
                self.failure = None;
                self.credentials = Some(Held {
                    credentials: credentials.clone(),
                    minted_at: now,
                });
                Ok(credentials)
            }
            Err(failure) => {
                if ends_credentials(failure.class) {
                    self.credentials = None;
                }
                let answer = self.stale_or(&failure, now);
                self.failure = Some((failure, now));
                answer
            }
        }
    }

    fn refused(&mut self, password: &SecretString, now: Timestamp) -> Refused {
        let same =
            |held: &&Held| held.credentials.password.expose_secret() == password.expose_secret();
        match self.credentials.as_ref().filter(same) {
            None => Refused::Replaced,
            Some(held) if is_within(REFUSED_AGE_MIN, held.minted_at, now) => Refused::Kept,
            Some(_) => {
                self.credentials = None;
                Refused::Forgotten
            }
        }
    }

    /// Old credentials bridge an outage; a denial counts at once.
    fn stale_or(&self, failure: &AwsFailure, now: Timestamp) -> Result<DbCredentials, AwsFailure> {
        self.good_for(STALE_MARGIN, now)
            .ok_or_else(|| failure.clone())
    }

    fn good_for(&self, margin: Duration, now: Timestamp) -> Option<DbCredentials> {
        let held = self.credentials.as_ref()?;
        let left = held.credentials.expires_at.duration_since(now);
        let age = now.duration_since(held.minted_at);
        (left > signed(margin) && age >= -signed(CLOCK_STEP_MAX)).then(|| held.credentials.clone())
    }

    /// Whether credentials near their end may be replaced now.
    fn may_refresh(&self, now: Timestamp) -> bool {
        let Some(held) = &self.credentials else {
            return false;
        };
        let expires_at = held.credentials.expires_at;
        let life = expires_at.duration_since(held.minted_at);
        let is_due = expires_at.duration_since(now) < signed(REFRESH_AHEAD).min(life / 3);
        let failed_lately =
            |(_, at): &(AwsFailure, Timestamp)| is_within(REFRESH_APART_MIN, *at, now);
        is_due && self.under_way().is_none() && !self.failure.as_ref().is_some_and(failed_lately)
    }

    fn was_used_lately(&self, now: Timestamp) -> bool {
        self.used_at
            .is_some_and(|used_at| is_within(USED_LATELY, used_at, now))
    }

    fn expires_at(&self) -> Option<Timestamp> {
        let held = self.credentials.as_ref()?;
        Some(held.credentials.expires_at)
    }

    fn is_worth_keeping(&mut self, now: Timestamp) -> bool {
        if self
            .expires_at()
            .is_some_and(|expires_at| expires_at <= now)
        {
            self.credentials = None;
        }
        self.credentials.is_some() || self.under_way().is_some() || self.was_used_lately(now)
    }
}

/// Whether `at` is less than `time` ago. A clock that was set back must not make anything last.
fn is_within(time: Duration, at: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(at);
    SignedDuration::ZERO <= age && age < signed(time)
}

/// Whether credentials that were given before are to be used no more: what they were given for was taken away. Where
/// only this process lacks something, they serve to their end.
const fn ends_credentials(class: AwsErrorClass) -> bool {
    match class {
        AwsErrorClass::AccessDenied | AwsErrorClass::InvalidRequest | AwsErrorClass::NotFound => {
            true
        }
        AwsErrorClass::ClockSkew
        | AwsErrorClass::ExpiredCredentials
        | AwsErrorClass::Malformed
        | AwsErrorClass::NoCredentials
        | AwsErrorClass::OverBudget
        | AwsErrorClass::RegionDisabled
        | AwsErrorClass::Throttled
        | AwsErrorClass::Timeout
        | AwsErrorClass::Unavailable => false,
    }
}

/// How long a failure answers for a call that is not made.
const fn repeated_for(class: AwsErrorClass) -> Duration {
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
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
