//! A simulated AWS with databases that really answer.
//!
//! [`Sim::start`] runs, inside this process or in the `awssim` program:
//!
//! - one HTTP address that speaks STS, IAM, Redshift, Redshift Serverless, RDS, the tagging API and
//!   account management as AWS does and **verifies signatures**. Stock SDKs are pointed at it by `AWS_ENDPOINT_URL`
//!   ([`Sim::endpoint_url`]);
//! - one loopback address per endpoint with its port and AWS host name, where a **wire front** over real PostgreSQL
//!   accepts what AWS accepts: at Redshift clusters and workgroups the passwords that the API minted, at RDS
//!   instances, Aurora clusters and RDS proxies of PostgreSQL the IAM tokens that are good for them;
//! - what programs get their own credentials from: instance metadata, container credentials and web identities of
//!   [`Machine`]s, whose sessions end by the simulation's clock ([`Sim::environment_of`]), and the CA bundles that AWS
//!   publishes ([`Sim::trust_url`]);
//! - a control plane, as methods of [`Sim`] and over HTTP under `/_sim/` ([`SimClient`]): order
//!   [`Fault`]s, move the clock, add, change and remove clusters, and read the journal of every
//!   [`Call`] and [`Login`].
//!
//! What exists is a [`World`], in JSON or in code. Names are resolved by the file
//! [`Sim::hosts_file`] (for `libnss-wrapper`, or to be read), certificates are signed by the CA in
//! [`Sim::ca_pem_path`]. Time is the simulation's: sessions, passwords, signatures and the `Date`
//! header follow [`Sim::set_clock_offset`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use awssim::{AccessKey, Cluster, ClusterId, IdentityPolicy, Sim, SimConfig, World};
//!
//! let mut world = World::new();
//! let account = world.account("111111111111");
//! let key = AccessKey { id: "AKIAEXAMPLE".into(), secret: "secret".into() };
//! account.put_user("worker", key, vec![IdentityPolicy::allow(["redshift:*"], ["*"])]);
//! let orders = ClusterId::new("111111111111", "us-east-1", "orders");
//! world.put_cluster(&orders, Cluster::with([("env", "prod")], ["alice"]));
//!
//! let sim = Sim::start(SimConfig::new(world, "/tmp/sim")).await?;
//! sim.sql(&orders, "CREATE TABLE t (n int); GRANT SELECT ON t TO alice").await?;
//! println!("AWS_ENDPOINT_URL={}", sim.endpoint_url());
//! sim.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! It is written to catch mistakes, so it is strict where AWS is, and says aloud what it does not
//! simulate (`NotSimulated`, or an error when the world is read). It shares no code with the programs
//! that are tested against it. RDS databases of other engines are listed, not served: nothing listens on their
//! endpoints.

mod api;
mod bundles;
mod client;
mod clock;
mod control;
mod crypto;
mod faults;
mod fleet;
mod front;
mod http_server;
pub mod iam;
mod journal;
mod lag;
mod limits;
mod machines;
mod mariadb;
mod mint;
mod postgres;
mod presigned;
mod sessions;
mod sigv4;
mod sim;
mod state;
mod tls;
mod verbs;
mod world;

pub use client::{ClientError, SimClient};
pub use faults::{Fault, FaultKind};
pub use fleet::{Endpoint, FleetError};
pub use front::Manner;
pub use iam::{IdentityPolicy, TrustPolicy};
pub use journal::{Call, Login, RECORDS_MAX};
pub use mariadb::MariadbError;
pub use postgres::PostgresError;
pub use postgres::sql::{Rows, SqlError};
pub use sim::{Sim, SimConfig, StartError};
pub use tls::{Certificate, TlsError};
pub use verbs::{ClusterPatch, Info, SimError};
pub use world::{
    AccessKey, Account, AuthCode, Cluster, ClusterId, CredentialSource, DbCluster, DbInstance,
    DbProxy, DbProxyEndpoint, GENERATED_HOME, GENERATED_KEY, GENERATED_ROLE, GENERATED_SECRET,
    Kind, KmsKey, Machine, Native, OidcProvider, ParseClusterIdError, PasswordEncryption,
    REDSHIFT_PORT, RateLimit, Region, Resource, ResourceId, Role, User, VpcEndpoint, Workgroup,
    World, WorldError,
};

/// Causes that are followed at most when an error is written out.
const CAUSES_MAX: usize = 16;

/// An error and its causes in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source()).take(CAUSES_MAX);
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
