//! From a role chain and a region to an SDK configuration and clients, each made once.
//!
//! A configuration holds credentials, a connection pool and retry state, so it is kept and cloned,
//! never rebuilt. The own identity comes from the SDK's default chain (environment, profile, web
//! identity, container, instance), read at the start and again when AWS says that its credentials expired;
//! otherwise they renew themselves. A role is assumed once for all regions.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials as _, SharedCredentialsProvider, error::CredentialsError},
};
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};
use tidegate_core::{AccountId, AssumeRole, Region};

use crate::{
    bounded::Bounded,
    chain::RoleChain,
    error::{AwsErrorClass, AwsFailure, classify, classify_credentials},
    hop::{Caller, Hop},
    identity::{Forgetful, Own, OwnIdentity, Renewed},
    keeper::Keeper,
    session::SessionTag,
};

/// Attempts of one call, the first included.
pub const ATTEMPTS_MAX: u32 = 3;

/// From the start of a connection to its end of handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One attempt, from request to the end of its answer.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// One call with all its attempts, the roles that have to be assumed for it included.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Role chains whose credentials are kept; beyond it those used longest ago are assumed anew when needed.
pub const CHAINS_MAX: usize = 4096;

/// Clients that are kept; beyond it the one used longest ago is made anew when needed, which costs no call. One takes some
/// hundred KiB, so a worker with thousands of accounts and regions must not keep them all.
pub const CLIENTS_MAX: usize = 256;

/// How long the account of this process's own identity is remembered.
pub const OWN_ACCOUNT_KEPT: Duration = Duration::from_mins(10);

const GET_CALLER_IDENTITY: &str = "sts:GetCallerIdentity";

/// How long and how often a call is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts of one call, the first included. Default [`ATTEMPTS_MAX`].
    pub attempts_max: u32,
    /// Default [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// Default [`ATTEMPT_TIMEOUT`].
    pub attempt_timeout: Duration,
    /// Default [`OPERATION_TIMEOUT`].
    pub operation_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts_max: ATTEMPTS_MAX,
            connect_timeout: CONNECT_TIMEOUT,
            attempt_timeout: ATTEMPT_TIMEOUT,
            operation_timeout: OPERATION_TIMEOUT,
        }
    }
}

/// Makes a factory with other limits, or from another base than the environment.
#[derive(Debug, Default)]
pub struct AwsFactoryBuilder {
    limits: Limits,
    loader: Option<ConfigLoader>,
}

impl AwsFactoryBuilder {
    /// How long and how often each call is tried.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where the own identity, region and endpoints come from, instead of the default chain alone.
    /// Behaviour version, retries and timeouts are set over it.
    #[must_use]
    pub fn loader(mut self, loader: ConfigLoader) -> Self {
        self.loader = Some(loader);
        self
    }

    /// Reads the base configuration. Credentials are looked for at the first call only.
    pub async fn load(self) -> AwsFactory {
        let limits = self.limits;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(limits.connect_timeout)
            .operation_attempt_timeout(limits.attempt_timeout)
            .operation_timeout(limits.operation_timeout)
            .build();
        let ours = move |loader: ConfigLoader| {
            loader
                .behavior_version(BehaviorVersion::v2026_01_12())
                .retry_config(RetryConfig::standard().with_max_attempts(limits.attempts_max))
                .timeout_config(timeouts.clone())
        };
        let cache = Forgetful::default();
        let is_default = self.loader.is_none();
        let loader = ours(self.loader.unwrap_or_default());
        let mut base = loader.identity_cache(cache.clone()).load().await;
        let source = is_default.then(|| {
            let look = move || {
                let loader = ours(ConfigLoader::default());
                let found = async move { loader.load().await.credentials_provider() };
                Box::pin(found) as _
            };
            Own::new(base.credentials_provider(), Arc::new(look))
        });
        let provider = source
            .clone()
            .map(SharedCredentialsProvider::new)
            .or_else(|| base.credentials_provider());
        let keeper = provider.map(Keeper::new);
        if let Some(keeper) = &keeper {
            let keeper = SharedCredentialsProvider::new(keeper.clone());
            base = base.into_builder().credentials_provider(keeper).build();
        }
        let sts = base
            .region()
            .is_some()
            .then(|| aws_sdk_sts::Client::new(&base));
        AwsFactory {
            shared: Arc::new(Shared {
                base,
                own: Arc::new(OwnIdentity {
                    cache,
                    source,
                    keeper,
                }),
                own_account: tokio::sync::Mutex::new(None),
                sts,
                roles: Mutex::new(Bounded::new(CHAINS_MAX)),
                ready: Mutex::new(Bounded::new(CLIENTS_MAX)),
            }),
        }
    }
}

/// Makes and keeps SDK configurations and clients. Cloning is cheap and shares everything.
#[derive(Clone, Debug)]
pub struct AwsFactory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    base: SdkConfig,
    /// STS in this process's own region, where it has one: always enabled for the own account, and
    /// near. Credentials from any regional endpoint are good everywhere.
    sts: Option<aws_sdk_sts::Client>,
    own: Arc<OwnIdentity>,
    /// What STS last said, and when.
    own_account: tokio::sync::Mutex<Option<(AccountId, Instant)>>,
    roles: Mutex<Bounded<RoleKey, Renewed>>,
    ready: Mutex<Bounded<Key, Arc<Ready>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    chain: RoleChain,
    region: Region,
    /// Not part of it for the own identity, which has no session to name.
    session: Option<SessionTag>,
}

/// Which session of a role: credentials are good in every region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RoleKey {
    hops: Vec<AssumeRole>,
    session: SessionTag,
    /// Where STS is asked, when this process has no region of its own.
    sts_region: Option<Region>,
}

#[derive(Debug)]
struct Ready {
    config: SdkConfig,
    redshift: OnceLock<aws_sdk_redshift::Client>,
    redshift_serverless: OnceLock<aws_sdk_redshiftserverless::Client>,
}

impl AwsFactory {
    /// A factory on the SDK's default chain, with default limits.
    pub async fn load() -> Self {
        Self::builder().load().await
    }

    /// A factory with other limits or another base.
    #[must_use]
    pub fn builder() -> AwsFactoryBuilder {
        AwsFactoryBuilder::default()
    }

    /// The region that the environment gives this process, if any.
    #[must_use]
    pub fn own_region(&self) -> Option<Region> {
        self.shared
            .base
            .region()
            .and_then(|region| region.as_ref().parse().ok())
    }

    /// The endpoint that stands in place of AWS's own, if any.
    pub(crate) fn own_endpoint(&self) -> Option<&str> {
        self.shared.base.endpoint_url()
    }

    /// The configuration for calls in `region` as the last role of `chain`.
    ///
    /// Kept per chain, region and session name. No call is made here: roles are assumed when a
    /// client first needs credentials, and again before they expire.
    // Async so that callers need no change once a configuration has to be looked up.
    #[allow(clippy::unused_async)]
    pub async fn config(
        &self,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
    ) -> SdkConfig {
        self.ready(chain, region, session).config.clone()
    }

    /// The Redshift client for calls in `region` as the last role of `chain`; kept as its
    /// configuration is.
    #[allow(clippy::unused_async)]
    pub async fn redshift(
        &self,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
    ) -> aws_sdk_redshift::Client {
        let ready = self.ready(chain, region, session);
        ready
            .redshift
            .get_or_init(|| aws_sdk_redshift::Client::new(&ready.config))
            .clone()
    }

    /// The Redshift Serverless client for calls in `region` as the last role of `chain`; kept as its configuration is.
    #[must_use]
    pub fn redshift_serverless(
        &self,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
    ) -> aws_sdk_redshiftserverless::Client {
        let ready = self.ready(chain, region, session);
        ready
            .redshift_serverless
            .get_or_init(|| aws_sdk_redshiftserverless::Client::new(&ready.config))
            .clone()
    }

    /// The credentials of the last role of `chain`, for what is signed here; `action` is what they are wanted for, as
    /// policies name it. They are those that calls use: a role is not assumed a second time for them.
    ///
    /// # Errors
    ///
    /// [`AwsFailure`]: a role could not be assumed, or there are no credentials within [`OPERATION_TIMEOUT`].
    pub async fn credentials(
        &self,
        action: &'static str,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
    ) -> Result<Credentials, AwsFailure> {
        let ready = self.ready(chain, region, session);
        let none = || {
            let message = "no source of credentials is set";
            AwsFailure::new(AwsErrorClass::NoCredentials, action, message)
        };
        let provider = ready.config.credentials_provider().ok_or_else(none)?;
        match tokio::time::timeout(OPERATION_TIMEOUT, provider.provide_credentials()).await {
            Ok(found) => found.map_err(|error| classify_credentials(action, &error)),
            Err(_) => {
                let message = format!("no credentials in {} s", OPERATION_TIMEOUT.as_secs());
                Err(AwsFailure::new(AwsErrorClass::Timeout, action, message))
            }
        }
    }

    /// The account of this process's own identity, as STS in `region` says (in its own region, where it has one).
    /// Remembered for [`OWN_ACCOUNT_KEPT`]; one question at a time. AWS asks no permission for it.
    ///
    /// # Errors
    ///
    /// [`AwsFailure`]: STS did not answer, or there are no credentials.
    pub async fn own_account(&self, region: &Region) -> Result<AccountId, AwsFailure> {
        let mut known = self.shared.own_account.lock().await;
        if let Some((account, at)) = known.as_ref()
            && at.elapsed() < OWN_ACCOUNT_KEPT
        {
            return Ok(account.clone());
        }
        let own = self.own_region();
        let sts = self.own_sts(own.as_ref().unwrap_or(region));
        let answer = sts.get_caller_identity().send().await.map_err(|error| {
            let failure = classify(GET_CALLER_IDENTITY, error);
            if failure.class.is_of_credentials() {
                self.shared.own.refused();
            }
            failure
        })?;
        let account: Option<AccountId> = answer.account().and_then(|account| account.parse().ok());
        let account = account.ok_or_else(|| {
            let message = "answer without Account";
            AwsFailure::new(AwsErrorClass::Malformed, GET_CALLER_IDENTITY, message)
        })?;
        *known = Some((account.clone(), Instant::now()));
        Ok(account)
    }

    /// STS as this process itself, in `region`: for `GetCallerIdentity` and the like.
    #[must_use]
    pub fn own_sts(&self, region: &Region) -> aws_sdk_sts::Client {
        aws_sdk_sts::Client::new(&in_region(&self.shared.base, region))
    }

    /// AWS says that the credentials of `chain` expired: they are looked for again at the next call, and not
    /// before a few seconds have passed since the last time.
    pub fn refused(&self, chain: &RoleChain, session: &SessionTag) {
        if chain.hops().is_empty() {
            return self.shared.own.refused();
        }
        let roles = self
            .shared
            .roles
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (key, assumed) in roles.iter() {
            if key.hops == chain.hops() && key.session == *session {
                assumed.refused();
            }
        }
    }

    /// This process's own credentials, looked for anew: what was found at the start may have been replaced.
    pub(crate) async fn own_credentials(&self) -> Result<Credentials, CredentialsError> {
        self.shared.own.look_again();
        let provider = self.shared.base.credentials_provider();
        let provider = provider
            .ok_or_else(|| CredentialsError::not_loaded("no source of credentials is set"))?;
        provider.provide_credentials().await
    }

    fn ready(&self, chain: &RoleChain, region: &Region, session: &SessionTag) -> Arc<Ready> {
        let session = (!chain.hops().is_empty()).then(|| session.clone());
        let key = Key {
            chain: chain.clone(),
            region: region.clone(),
            session,
        };
        // A panic while the lock was held leaves at worst an entry that is made again.
        let mut ready = self
            .shared
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ready.get_or_insert_with(&key, || {
            Arc::new(Ready {
                config: self.shared.make(&key),
                redshift: OnceLock::new(),
                redshift_serverless: OnceLock::new(),
            })
        })
    }
}

impl Shared {
    fn make(&self, key: &Key) -> SdkConfig {
        let mut config = in_region(&self.base, &key.region);
        let Some(session) = &key.session else {
            return config;
        };
        let mut caller = Caller::Own(Arc::clone(&self.own));
        for hops in 1..=key.chain.hops().len() {
            let key = RoleKey {
                hops: key.chain.hops()[..hops].to_vec(),
                session: session.clone(),
                sts_region: self.base.region().is_none().then(|| key.region.clone()),
            };
            // A panic while the lock was held leaves at worst an entry that is made again.
            let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
            let assumed = roles.get_or_insert_with(&key, || self.assume(&key, &config, &caller));
            drop(roles);
            config = config
                .into_builder()
                .credentials_provider(SharedCredentialsProvider::new(assumed.keeper.clone()))
                .identity_cache(assumed.cache.clone())
                .build();
            caller = Caller::Role(assumed);
        }
        config
    }

    /// The last hop of `key`, taken with the credentials of `config`.
    fn assume(&self, key: &RoleKey, config: &SdkConfig, caller: &Caller) -> Renewed {
        let is_first = key.hops.len() == 1;
        let sts = self.sts.clone().filter(|_| is_first);
        let hop = Hop {
            sts: sts.unwrap_or_else(|| aws_sdk_sts::Client::new(&self.in_sts_region(config))),
            role: key.hops[key.hops.len() - 1].clone(),
            session: key.session.clone(),
            is_first,
            caller: caller.clone(),
        };
        Renewed::new(SharedCredentialsProvider::new(hop))
    }

    fn in_sts_region(&self, config: &SdkConfig) -> SdkConfig {
        match self.base.region() {
            Some(region) => config.to_builder().region(region.clone()).build(),
            None => config.clone(),
        }
    }
}

fn in_region(config: &SdkConfig, region: &Region) -> SdkConfig {
    config
        .to_builder()
        .region(aws_config::Region::new(region.as_str().to_owned()))
        .build()
}
