//! A small system to measure sessions in: one agent, and one cluster that is a PostgreSQL with TLS of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use awssim::{Cluster, ClusterId, Endpoint, Native, PasswordEncryption, Region, World};

use super::{Lab, Part};

/// Where the measured cluster is.
pub const BENCH_ACCOUNT: &str = "111111111111";
/// Where the measured cluster is.
pub const BENCH_REGION: &str = "us-east-1";
/// Its identifier.
pub const BENCH_CLUSTER: &str = "bench";

impl Lab {
    /// Starts a system of one agent and one cluster that is a PostgreSQL with TLS of its own, to measure against.
    ///
    /// # Errors
    ///
    /// When a part does not start.
    pub async fn start_bench() -> Result<Self> {
        let world = bench_world(&["reader"])?;
        let lab = Self::start_in(
            world,
            &[Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA],
        )
        .await?;
        lab.prepare_direct().await?;
        lab.wait_for_databases(&["bench"]).await?;
        lab.wait_for_servers(&["bench"], 1).await?;
        Ok(lab)
    }

    /// Starts a control plane, a proxy and that cluster, with these database users, and neither worker nor agent.
    ///
    /// # Errors
    ///
    /// When a part does not start.
    pub async fn start_bench_cluster(db_users: &[&str]) -> Result<Self> {
        let lab = Self::start_in(bench_world(db_users)?, &[Part::Auth, Part::Proxy]).await?;
        lab.prepare_direct().await?;
        Ok(lab)
    }

    /// A user for who comes straight to the measured database.
    async fn prepare_direct(&self) -> Result<()> {
        let statement = "CREATE ROLE direct LOGIN SUPERUSER PASSWORD 'direct'";
        self.aws().sql(&bench_cluster(), statement).await?;
        Ok(())
    }

    /// Where the measured database listens.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub async fn bench_endpoint(&self) -> Result<Endpoint> {
        self.aws()
            .endpoint(&bench_cluster())
            .await
            .context("the measured cluster is gone")
    }

    /// What a stock client needs to reach the measured database through proxy and agent.
    ///
    /// # Errors
    ///
    /// When the login or `tg db env` fails.
    pub async fn bench_route(&self) -> Result<BTreeMap<String, String>> {
        let person = self.person("bench", "*", "*").await?;
        self.client_environment(&person, "bench", "reader").await
    }

    /// What a stock client needs to reach the measured database straight, over TLS.
    ///
    /// # Errors
    ///
    /// When the database is gone.
    pub async fn bench_direct(&self) -> Result<BTreeMap<String, String>> {
        let endpoint = self.bench_endpoint().await?;
        let ca = self.sim.ca_pem_path();
        let pairs = [
            ("PGHOST", endpoint.host),
            ("PGHOSTADDR", endpoint.address.to_string()),
            ("PGPORT", endpoint.port.to_string()),
            ("PGSSLMODE", "verify-full".to_owned()),
            (
                "PGSSLROOTCERT",
                ca.to_str()
                    .context("a temporary folder with an odd name")?
                    .to_owned(),
            ),
            ("PGUSER", "direct".to_owned()),
            ("PGPASSWORD", "direct".to_owned()),
            ("PGDATABASE", "dev".to_owned()),
        ];
        Ok(pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect())
    }
}

fn bench_cluster() -> ClusterId {
    ClusterId::new(BENCH_ACCOUNT, BENCH_REGION, BENCH_CLUSTER)
}

/// The demo's accounts and people, and nothing in them but that cluster.
fn bench_world(db_users: &[&str]) -> Result<World> {
    let mut world = World::from_json(crate::DEMO_WORLD)?;
    for account in world.accounts.values_mut() {
        account
            .regions
            .values_mut()
            .for_each(|region| *region = Region::default());
    }
    let native = Native {
        password_encryption: PasswordEncryption::ScramSha256,
    };
    let cluster = Cluster {
        native: Some(native),
        ..Cluster::with([("env", "prod")], db_users.iter().copied())
    };
    world.put_cluster(&bench_cluster(), cluster);
    Ok(world)
}
