//! The whole system on loopback: simulated AWS, auth, proxy, discovery, agents, and people who use it.

mod drivers;
mod etcd;
mod given;
mod measured;
mod part;
mod people;
mod programs;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use awssim::{Sim, SimConfig, World};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_proto::v1::{self, access_service_client::AccessServiceClient};

use crate::{Process, config, wait};
pub use drivers::{Driver, Walked};
use etcd::Etcd;
pub use measured::{BENCH_ACCOUNT, BENCH_CLUSTER, BENCH_REGION};
pub use part::Part;
pub use people::{PASSWORD, Person, words};
use programs::Names;
pub use programs::{postgres_program, program};

/// The cluster's name in the example configurations.
pub const CLUSTER: &str = "tidegate.example.com";
/// The access key of the control plane, for worlds that have a user with it.
pub const AUTH_KEY: (&str, &str) = ("AKIAAUTH000000000001", "simulated-secret-of-auth");
/// Where agents find the CA bundles of AWS, in the laboratory's folder.
const CA_BUNDLES: &str = "published";
/// Loopback networks that are tried for a free one.
const NETWORK_TRIES_MAX: u32 = 200;

/// A running system.
#[derive(Debug)]
pub struct Lab {
    processes: BTreeMap<Part, Process>,
    sim: Sim,
    names: Names,
    network: [u8; 2],
    ca_pin: String,
    /// Where the control plane keeps its state, unless each instance keeps its own.
    etcd: Option<Etcd>,
    /// What a test changes in a part's configuration on top of what the laboratory does.
    changes: BTreeMap<Part, Value>,
    /// The simulated machines that parts run on, instead of having keys of their own.
    machines: BTreeMap<Part, String>,
    dir: TempDir,
}
impl Lab {
    /// Starts everything, in the world of the demo.
    ///
    /// # Errors
    ///
    /// When a part does not start; the error holds its log.
    pub async fn start() -> Result<Self> {
        Self::start_in(World::from_json(crate::DEMO_WORLD)?, &Part::ALL).await
    }

    /// Starts these parts in this world.
    ///
    /// # Errors
    ///
    /// When a part does not start; the error holds its log.
    pub async fn start_in(world: World, parts: &[Part]) -> Result<Self> {
        let mut lab = Self::prepare(world).await?;
        for part in parts {
            lab.start_part(*part).await?;
        }
        Ok(lab)
    }

    /// As [`Self::start_in`], with an etcd server that the control plane keeps its state in. Every other part knows all
    /// three instances of the control plane, each beginning with another one.
    ///
    /// # Errors
    ///
    /// When a part does not start; the error holds its log.
    pub async fn start_over_etcd(world: World, parts: &[Part]) -> Result<Self> {
        let mut lab = Self::prepare(world).await?;
        lab.etcd = Some(Etcd::start(lab.network, lab.dir.path())?);
        for part in parts {
            lab.start_part(*part).await?;
        }
        Ok(lab)
    }

    async fn prepare(world: World) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidegate-").tempdir()?;
        open_to_all(dir.path())?;
        let regions: BTreeSet<String> = world
            .accounts
            .values()
            .flat_map(|account| account.regions.keys().cloned())
            .collect();
        let mut config = SimConfig::new(world, dir.path().join("aws"));
        // Where nothing can be logged in to, no PostgreSQL is started.
        config.start_postgres = config.world.is_served();
        let sim = Sim::start(config)
            .await
            .context("the simulated AWS did not start")?;
        publish_bundles(&dir.path().join(CA_BUNDLES), &regions, &sim.ca_pem_path())?;
        let network = free_network()?;
        Ok(Self {
            processes: BTreeMap::new(),
            sim,
            names: Names::of_this_machine(),
            network,
            ca_pin: String::new(),
            etcd: None,
            changes: BTreeMap::new(),
            machines: BTreeMap::new(),
            dir,
        })
    }

    /// Changes a part's configuration from its next start on; what was changed before is forgotten.
    pub fn configure(&mut self, part: Part, changes: Value) {
        self.changes.insert(part, changes);
    }

    /// From its next start on a part has no access key of its own, and gets credentials as a program on this machine of
    /// the world does.
    pub fn run_on(&mut self, part: Part, machine: &str) {
        self.machines.insert(part, machine.to_owned());
    }

    /// Starts one part, or starts it again after it was stopped or killed.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn start_part(&mut self, part: Part) -> Result<()> {
        ensure!(
            !self.processes.contains_key(&part),
            "{} is running",
            part.name()
        );
        let file = self.write_config(part)?;
        let file = file
            .to_str()
            .context("a temporary folder with an odd name")?;
        let tidegate = program("tidegate")?;
        let run = [
            tidegate.to_str().context("an odd path")?,
            "start",
            "-c",
            file,
        ];
        let hosts = self.sim.hosts_file();
        let (starter, args) = match self.names {
            Names::Namespace if part.access_key().is_some() => {
                let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
                let hosts = hosts.to_str().context("an odd path")?;
                (
                    "unshare",
                    [&["--mount", "--", "sh", "-c", mount, hosts], &run[..]].concat(),
                )
            }
            _ => (run[0], run[1..].to_vec()),
        };
        let environment = self.environment(part)?;
        let process = Process::start(
            part.name(),
            Path::new(starter),
            &args,
            &environment,
            self.dir.path(),
        )?;
        self.processes.insert(part, process);
        if part.is_auth() {
            self.settle_auth(part).await?;
        }
        Ok(())
    }

    /// Writes a part's configuration as it is to be from now on.
    fn write_config(&self, part: Part) -> Result<PathBuf> {
        let file = self.config_file(part);
        let patches = [Some(self.patch(part)), self.changes.get(&part).cloned()];
        config::render(part.example(), patches.into_iter().flatten(), &file)?;
        Ok(file)
    }

    /// The configuration file that a part was started with.
    #[must_use]
    pub fn config_file(&self, part: Part) -> PathBuf {
        self.dir.path().join(format!("{}.json", part.name()))
    }

    /// Changes a part's configuration, as [`Self::configure`] does, and has the running part read it.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn reconfigure(&mut self, part: Part, changes: Value) -> Result<()> {
        self.configure(part, changes);
        self.write_config(part)?;
        self.hang_up(part)
    }

    /// Has a running part read its configuration file again.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn hang_up(&self, part: Part) -> Result<()> {
        match self.processes.get(&part) {
            Some(process) => process.hang_up(),
            None => bail!("{} is not running", part.name()),
        }
    }

    /// Waits for the control plane, and prepares what the others need to join.
    async fn settle_auth(&mut self, part: Part) -> Result<()> {
        let status = wait::until("the auth service", || async {
            AccessServiceClient::new(self.admin_of(part))
                .get_cluster_status(v1::GetClusterStatusRequest {})
                .await
        })
        .await
        .with_context(|| self.log(part))?
        .into_inner();
        if part != Part::Auth {
            ensure!(
                status.ca_pins.contains(&self.ca_pin),
                "{} has other CAs: {:?}",
                part.name(),
                status.ca_pins
            );
            return Ok(());
        }
        self.ca_pin = status
            .ca_pins
            .first()
            .cloned()
            .context("the cluster has no CA pin")?;
        let token = self
            .tgctl(&[
                "tokens",
                "add",
                "--type=db,discovery,proxy",
                "--ttl=1h",
                "--format=text",
            ])
            .await?;
        std::fs::write(self.token_file(), token)?;
        Ok(())
    }

    /// Stops a part as an operator would.
    ///
    /// # Errors
    ///
    /// When it does not stop cleanly.
    pub async fn stop_part(&mut self, part: Part) -> Result<()> {
        match self.processes.remove(&part) {
            Some(process) => process.stop().await,
            None => bail!("{} is not running", part.name()),
        }
    }

    /// Kills a part as a crash would.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn kill_part(&mut self, part: Part) -> Result<()> {
        match self.processes.remove(&part) {
            Some(process) => process.kill().await,
            None => bail!("{} is not running", part.name()),
        }
    }

    /// The instance of the control plane that administrators use: the first that runs.
    pub(crate) fn auth(&self) -> Part {
        let runs = |part: &Part| self.processes.contains_key(part);
        Part::AUTHS.into_iter().find(runs).unwrap_or(Part::Auth)
    }

    /// Stops everything, agents first.
    ///
    /// # Errors
    ///
    /// When a part does not stop cleanly; the others are stopped all the same.
    pub async fn stop(mut self) -> Result<()> {
        let mut outcome = Ok(());
        while let Some((_, process)) = self.processes.pop_last() {
            outcome = outcome.and(process.stop().await);
        }
        if let Some(etcd) = self.etcd.take() {
            outcome = outcome.and(etcd.end().await);
        }
        self.sim.stop().await;
        outcome
    }

    /// What a part has logged.
    #[must_use]
    pub fn log(&self, part: Part) -> String {
        let text = self
            .processes
            .get(&part)
            .map(Process::log)
            .unwrap_or_default();
        format!("log of {}:\n{text}", part.name())
    }

    /// Process ids of the parts that run.
    pub fn process_ids(&self) -> impl Iterator<Item = (Part, u32)> {
        self.processes
            .iter()
            .filter_map(|(part, process)| Some((*part, process.id()?)))
    }

    /// The simulated AWS.
    #[must_use]
    pub fn aws(&self) -> &Sim {
        &self.sim
    }

    /// The folder that holds everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The proxy's address.
    #[must_use]
    pub fn proxy_addr(&self) -> String {
        self.proxy_addr_of(Part::Proxy)
    }

    /// The address of one of several proxies.
    #[must_use]
    pub fn proxy_addr_of(&self, proxy: Part) -> String {
        format!("{}:3080", self.address(proxy))
    }

    /// The proxy's address for MySQL clients.
    #[must_use]
    pub fn mysql_addr(&self) -> String {
        format!("{}:3036", self.address(Part::Proxy))
    }

    /// The auth service's address.
    #[must_use]
    pub fn auth_addr(&self) -> String {
        self.auth_addr_of(Part::Auth)
    }

    /// Where the etcd server is that the control plane keeps its state in, if it is in one.
    #[must_use]
    pub fn etcd_url(&self) -> Option<&str> {
        self.etcd.as_ref().map(Etcd::url)
    }

    fn auth_addr_of(&self, part: Part) -> String {
        format!("{}:3025", self.address(part))
    }

    /// The addresses of all instances of the control plane, beginning with another one for each part.
    fn auth_addrs(&self, part: Part) -> Vec<String> {
        let mut addresses = Part::AUTHS.map(|auth| self.auth_addr_of(auth));
        addresses.rotate_left(part as usize % Part::AUTHS.len());
        addresses.to_vec()
    }

    /// Where a part serves `/healthz`, `/readyz` and `/metrics`.
    #[must_use]
    pub fn diag_addr(&self, part: Part) -> String {
        format!("{}:3000", self.address(part))
    }

    fn address(&self, part: Part) -> Ipv4Addr {
        let [second, third] = self.network;
        Ipv4Addr::new(127, second, third, part as u8 + 1)
    }

    fn data_dir(&self, part: Part) -> PathBuf {
        self.dir.path().join(part.name())
    }

    fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }
}

/// Makes the simulated AWS's CA what RDS and Redshift publish, since it signs for their databases.
fn publish_bundles(place: &Path, regions: &BTreeSet<String>, ca: &Path) -> Result<()> {
    let rds = regions
        .iter()
        .map(|region| format!("{region}/{region}-bundle.pem"));
    for file in rds.chain(["aws/amazon-trust-ca-bundle.crt".to_owned()]) {
        let file = place.join(file);
        std::fs::create_dir_all(file.parent().context("a file in no folder")?)?;
        std::fs::copy(ca, file)?;
    }
    Ok(())
}

/// A loopback network 127.x.y.0/24 on which nobody listens, so that every part keeps its usual port.
fn free_network() -> Result<[u8; 2]> {
    let seed = std::process::id().wrapping_mul(2_654_435_761)
        ^ jiff::Timestamp::now().subsec_nanosecond().unsigned_abs();
    for step in 0..NETWORK_TRIES_MAX {
        let number = seed.wrapping_add(step.wrapping_mul(7919));
        let network = [128 + (number >> 8) as u8 % 120, number as u8];
        let is_free = Part::ALL.iter().all(|part| {
            let address = Ipv4Addr::new(127, network[0], network[1], *part as u8 + 1);
            [3000, 3025, 3080]
                .iter()
                .all(|port| TcpListener::bind((address, *port)).is_ok())
        });
        if is_free && Etcd::is_free(network) {
            return Ok(network);
        }
    }
    bail!("found no free loopback network")
}

/// PostgreSQL runs as another user when we are root, and has to reach its folder.
fn open_to_all(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(
        dir,
        std::fs::Permissions::from_mode(0o755),
    )?)
}
