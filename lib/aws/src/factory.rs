//! From a role chain and a region to an SDK configuration and clients, each made once.
//!
//! A configuration holds credentials, a connection pool and retry state, so it is kept and cloned,
//! never rebuilt. The own identity comes from the SDK's default chain (environment, profile, web
//! identity, container, instance), read once at start; its credentials renew themselves.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig, identity::IdentityCache};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};
use tidegate_core::Region;

use crate::{
    bounded::Bounded,
    chain::{RoleChain, SessionTag},
    hop::Hop,
};

/// Attempts of one call, the first included.
pub const ATTEMPTS_MAX: u32 = 3;

/// From the start of a connection to its end of handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One attempt, from request to the end of its answer.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// One call with all its attempts, the roles that have to be assumed for it included.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Configurations that are kept; beyond it the one used longest ago is made anew when needed.
pub const CONFIGS_MAX: usize = 4096;

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
        let base = self
            .loader
            .unwrap_or_default()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .retry_config(RetryConfig::standard().with_max_attempts(limits.attempts_max))
            .timeout_config(timeouts)
            .identity_cache(IdentityCache::lazy().build())
            .load()
            .await;
        let sts = base
            .region()
            .is_some()
            .then(|| aws_sdk_sts::Client::new(&base));
        AwsFactory {
            shared: Arc::new(Shared {
                base,
                sts,
                ready: Mutex::new(Bounded::new(CONFIGS_MAX)),
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
    ready: Mutex<Bounded<Key, Arc<Ready>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    chain: RoleChain,
    region: Region,
    /// Not part of it for the own identity, which has no session to name.
    session: Option<SessionTag>,
}

#[derive(Debug)]
struct Ready {
    config: SdkConfig,
    redshift: OnceLock<aws_sdk_redshift::Client>,
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

    /// STS as this process itself, in `region`: for `GetCallerIdentity` and the like.
    #[must_use]
    pub fn own_sts(&self, region: &Region) -> aws_sdk_sts::Client {
        aws_sdk_sts::Client::new(&in_region(&self.shared.base, region))
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
            })
        })
    }
}

impl Shared {
    fn make(&self, key: &Key) -> SdkConfig {
        let own = in_region(&self.base, &key.region);
        let Some(session) = &key.session else {
            return own;
        };
        let mut sts = self.sts.clone();
        let mut config = own;
        for (index, role) in key.chain.hops().iter().enumerate() {
            let hop = Hop {
                sts: sts
                    .take()
                    .unwrap_or_else(|| aws_sdk_sts::Client::new(&self.in_sts_region(&config))),
                role: role.clone(),
                session: session.clone(),
                is_first: index == 0,
            };
            config = config
                .into_builder()
                .credentials_provider(SharedCredentialsProvider::new(hop))
                .identity_cache(IdentityCache::lazy().build())
                .build();
        }
        config
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
