//! Drives the simulation with stock clients: the AWS SDK for Rust and `psql`.

// Helpers outside `#[test]` functions unwrap too: a panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod api;
mod caller;
mod faults;
mod kinds;
mod kms;
mod limits;
mod listings;
mod login;
mod machines;
mod mysql;
mod policies;
mod program;
mod tagging;

use std::path::PathBuf;

use aws_credential_types::Credentials;
use aws_sdk_redshift::config::retry::RetryConfig;
use aws_sdk_redshift::config::{BehaviorVersion, Region};
use awssim::{
    AccessKey, Cluster, ClusterId, IdentityPolicy, Role, Sim, SimConfig, TrustPolicy, World,
};

pub(crate) const HOME: &str = "111111111111";
pub(crate) const AWAY: &str = "222222222222";
pub(crate) const EAST: &str = "us-east-1";
pub(crate) const KEY: &str = "AKIAWORKER0000000001";
pub(crate) const SECRET: &str = "worker-secret/with+signs=";
pub(crate) const DISCOVER: &str = "arn:aws:iam::222222222222:role/discover";
pub(crate) const ACCESS: &str = "arn:aws:iam::222222222222:role/access";

/// A simulation and its folder, which goes when the test ends.
pub(crate) struct Fixture {
    pub(crate) sim: Sim,
    _dir: tempfile::TempDir,
}

impl Fixture {
    /// Without PostgreSQL, for tests of the API.
    pub(crate) async fn api(world: World) -> Self {
        Self::start(|dir| SimConfig::new(world, dir).without_postgres()).await
    }

    /// With PostgreSQL.
    pub(crate) async fn whole(world: World) -> Self {
        Self::start(|dir| SimConfig::new(world, dir)).await
    }

    async fn start(config: impl FnOnce(PathBuf) -> SimConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sim = Sim::start(config(dir.path().join("sim"))).await;
        let sim = sim.unwrap_or_else(|error| panic!("{}", awssim::error_chain(&error)));
        Self { sim, _dir: dir }
    }

    pub(crate) fn redshift(&self, credentials: Credentials) -> aws_sdk_redshift::Client {
        let config = aws_sdk_redshift::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.sim.endpoint_url())
            .region(Region::new(EAST))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(credentials)
            .build();
        aws_sdk_redshift::Client::from_conf(config)
    }

    pub(crate) fn sts(&self, credentials: Credentials) -> aws_sdk_sts::Client {
        self.sts_in(credentials, EAST)
    }

    pub(crate) fn sts_in(
        &self,
        credentials: Credentials,
        region: &'static str,
    ) -> aws_sdk_sts::Client {
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.sim.endpoint_url())
            .region(Region::new(region))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(credentials)
            .build();
        aws_sdk_sts::Client::from_conf(config)
    }

    pub(crate) fn serverless(&self) -> aws_sdk_redshiftserverless::Client {
        let config = aws_sdk_redshiftserverless::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.sim.endpoint_url())
            .region(Region::new(EAST))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(worker())
            .build();
        aws_sdk_redshiftserverless::Client::from_conf(config)
    }

    pub(crate) fn rds(&self) -> aws_sdk_rds::Client {
        let config = aws_sdk_rds::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.sim.endpoint_url())
            .region(Region::new(EAST))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(worker())
            .build();
        aws_sdk_rds::Client::from_conf(config)
    }

    pub(crate) fn tagging(&self) -> aws_sdk_resourcegroupstagging::Client {
        let config = aws_sdk_resourcegroupstagging::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.sim.endpoint_url())
            .region(Region::new(EAST))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(worker())
            .build();
        aws_sdk_resourcegroupstagging::Client::from_conf(config)
    }

    pub(crate) fn account(&self) -> aws_sdk_account::Client {
        let config = aws_sdk_account::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.sim.endpoint_url())
            .region(Region::new(EAST))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(worker())
            .build();
        aws_sdk_account::Client::from_conf(config)
    }

    /// Credentials of `role`, assumed by `caller`.
    pub(crate) async fn assume(&self, caller: Credentials, role: &str) -> Credentials {
        let request = self
            .sts(caller)
            .assume_role()
            .role_arn(role)
            .role_session_name("it");
        let answer = request.external_id("x-1").send().await.unwrap();
        let given = answer.credentials.unwrap();
        let token = Some(given.session_token);
        Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            token,
            None,
            "it",
        )
    }
}

/// The worker's long-lived key.
pub(crate) fn worker() -> Credentials {
    Credentials::new(KEY, SECRET, None, None, "it")
}

pub(crate) fn cluster_id(account: &str, id: &str) -> ClusterId {
    ClusterId::new(account, EAST, id)
}

/// Two accounts: a worker at home that may assume two roles away, one of which may list and one
/// of which may log `alice` in to cluster `c0`.
pub(crate) fn world() -> World {
    let mut world = World::new();
    let home = world.account(HOME);
    home.enable_region(EAST);
    let may_assume = IdentityPolicy::allow(["sts:*"], ["arn:aws:iam::222222222222:role/*"]);
    let may_list = [
        "account:*",
        "rds:*",
        "redshift:*",
        "redshift-serverless:*",
        "tag:*",
    ];
    let may_list = IdentityPolicy::allow(may_list, ["*"]);
    let key = AccessKey {
        id: KEY.to_owned(),
        secret: SECRET.to_owned(),
    };
    home.put_user("worker", key, vec![may_assume, may_list]);

    let away = world.account(AWAY);
    away.enable_region(EAST);
    let list = IdentityPolicy::allow(["redshift:DescribeClusters", "sts:AssumeRole"], ["*"]);
    let trust = TrustPolicy::allow([HOME]).with_external_id("x-1");
    away.put_role(
        "discover",
        Role {
            max_session_duration: 7200,
            ..Role::new(trust, vec![list])
        },
    );
    let alice = "arn:aws:redshift:us-east-1:222222222222:dbuser:c0/alice";
    let dev = "arn:aws:redshift:us-east-1:222222222222:dbname:c0/dev";
    let login = IdentityPolicy::allow(["redshift:GetClusterCredentials"], [alice, dev]);
    let trust = TrustPolicy::allow([HOME, "arn:aws:iam::222222222222:role/discover"]);
    away.put_role(
        "access",
        Role {
            max_session_duration: 7200,
            ..Role::new(trust, vec![login])
        },
    );
    let cluster = Cluster::with([("env", "prod"), ("a&b", "<c>")], ["alice"]);
    world.put_cluster(&cluster_id(AWAY, "c0"), cluster);
    world
}
