//! A small system to measure sessions in: one agent, and one cluster that is a PostgreSQL with TLS of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use awssim::{Cluster, ClusterId, Native, PasswordEncryption, Region, World};

use super::{Lab, Part};

impl Lab {
    /// Starts a system of one agent and one cluster that is a PostgreSQL with TLS of its own, to measure against.
    ///
    /// # Errors
    ///
    /// When a part does not start.
    pub async fn start_bench() -> Result<Self> {
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
            ..Cluster::with([("env", "prod")], ["reader"])
        };
        world.put_cluster(&bench_cluster(), cluster);
        let lab = Self::start_in(
            world,
            &[Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA],
        )
        .await?;
        lab.aws()
            .sql(
                &bench_cluster(),
                "CREATE ROLE direct LOGIN SUPERUSER PASSWORD 'direct'",
            )
            .await?;
        lab.wait_for_databases(&["bench"]).await?;
        lab.wait_for_servers(&["bench"], 1).await?;
        Ok(lab)
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
        let endpoint = self
            .aws()
            .endpoint(&bench_cluster())
            .await
            .context("the measured cluster is gone")?;
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
    ClusterId::new("111111111111", "us-east-1", "bench")
}
