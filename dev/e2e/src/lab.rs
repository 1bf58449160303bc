//! The whole system on loopback: simulated AWS, auth, proxy, discovery, agents, and people who use it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result, bail, ensure};
use awssim::{Cluster, ClusterId, Native, PasswordEncryption, Sim, SimConfig, World};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_proto::v1::{
    self, access_service_client::AccessServiceClient, audit_service_client::AuditServiceClient,
    discovery_service_client::DiscoveryServiceClient,
    inventory_service_client::InventoryServiceClient,
};
use tidegate_service::rpc;
use tokio::process::Command;
use tonic::transport::Channel;

use crate::{Process, config, wait};

/// The cluster's name in the example configurations.
pub const CLUSTER: &str = "tidegate.example.com";
/// The password of everybody in the laboratory.
const PASSWORD: &str = "correct horse battery staple";
/// Loopback networks that are tried for a free one.
const NETWORK_TRIES_MAX: u32 = 200;

/// A part of the system that runs as a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The control plane.
    Auth,
    /// The proxy.
    Proxy,
    /// The discovery worker.
    Discovery,
    /// Another worker of the same group. Started on demand.
    DiscoveryB,
    /// A third one. Started on demand.
    DiscoveryC,
    /// An agent with its own role overrides.
    AgentA,
    /// Another agent with others.
    AgentB,
}

impl Part {
    /// All parts, in the order in which they start.
    pub const ALL: [Self; 5] = [
        Self::Auth,
        Self::Proxy,
        Self::Discovery,
        Self::AgentA,
        Self::AgentB,
    ];

    /// The example configuration that it runs.
    const fn example(self) -> &'static str {
        match self {
            Self::Auth => "auth.yaml",
            Self::Proxy => "proxy.yaml",
            Self::Discovery | Self::DiscoveryB | Self::DiscoveryC => "discovery.yaml",
            Self::AgentA => "agent-a.yaml",
            Self::AgentB => "agent-b.yaml",
        }
    }

    /// Its name, also that of its node.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Proxy => "proxy",
            Self::Discovery => "discovery",
            Self::DiscoveryB => "discovery-b",
            Self::DiscoveryC => "discovery-c",
            Self::AgentA => "agent-a",
            Self::AgentB => "agent-b",
        }
    }

    /// The access key that it calls AWS with, if it does.
    #[must_use]
    pub const fn access_key(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Auth | Self::Proxy => None,
            Self::Discovery | Self::DiscoveryB | Self::DiscoveryC => {
                Some(("AKIADISCOVERY0000001", "simulated-secret-of-discovery"))
            }
            Self::AgentA => Some(("AKIAAGENTA0000000001", "simulated-secret-of-agent-a")),
            Self::AgentB => Some(("AKIAAGENTB0000000001", "simulated-secret-of-agent-b")),
        }
    }
}

/// Somebody with a home folder and a login.
#[derive(Debug)]
pub struct Person {
    name: String,
    home: PathBuf,
}

/// A running system.
#[derive(Debug)]
pub struct Lab {
    processes: BTreeMap<Part, Process>,
    sim: Sim,
    network: [u8; 2],
    ca_pin: String,
    /// What a test changes in a part's configuration on top of what the laboratory does.
    changes: BTreeMap<Part, Value>,
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

    /// Starts a system of one agent and one cluster that is a PostgreSQL with TLS of its own, to measure against.
    ///
    /// # Errors
    ///
    /// When a part does not start.
    pub async fn start_bench() -> Result<Self> {
        let mut world = World::from_json(crate::DEMO_WORLD)?;
        for id in world.cluster_ids() {
            if let Some(region) = world.account(&id.account).regions.get_mut(&id.region) {
                region.clusters.remove(&id.id);
            }
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

    /// The environment that `tg db env` gives a stock client.
    ///
    /// # Errors
    ///
    /// When `tg` fails.
    pub async fn client_environment(
        &self,
        person: &Person,
        database: &str,
        db_user: &str,
    ) -> Result<BTreeMap<String, String>> {
        let db_user = format!("--db-user={db_user}");
        let login = self
            .tg(
                person,
                &["db", "login", database, &db_user, "--db-name=dev"],
            )
            .await?;
        ensure!(login.status.success(), "tg db login: {}", words(&login));
        let output = self
            .tg(person, &["db", "env", database, "--format=json"])
            .await?;
        ensure!(output.status.success(), "tg db env: {}", words(&output));
        serde_json::from_slice(&output.stdout)
            .context("`tg db env` printed no JSON object of strings")
    }

    /// Starts these parts in this world.
    ///
    /// # Errors
    ///
    /// When a part does not start; the error holds its log.
    pub async fn start_in(world: World, parts: &[Part]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidegate-").tempdir()?;
        open_to_all(dir.path())?;
        let sim = Sim::start(SimConfig::new(world, dir.path().join("aws")))
            .await
            .context("the simulated AWS did not start")?;
        let network = free_network()?;
        let mut lab = Self {
            processes: BTreeMap::new(),
            sim,
            network,
            ca_pin: String::new(),
            changes: BTreeMap::new(),
            dir,
        };
        for part in parts {
            lab.start_part(*part).await?;
        }
        Ok(lab)
    }

    /// Changes a part's configuration from its next start on; what was changed before is forgotten.
    pub fn configure(&mut self, part: Part, changes: Value) {
        self.changes.insert(part, changes);
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
        let file = self.dir.path().join(format!("{}.json", part.name()));
        let patches = [Some(self.patch(part)), self.changes.get(&part).cloned()];
        config::render(part.example(), patches.into_iter().flatten(), &file)?;
        let file = file
            .to_str()
            .context("a temporary folder with an odd name")?;
        let process = Process::start(
            part.name(),
            &program("tidegate")?,
            &["start", "-c", file],
            &self.environment(part)?,
            self.dir.path(),
        )?;
        self.processes.insert(part, process);
        if part == Part::Auth {
            self.settle_auth().await?;
        }
        Ok(())
    }

    /// Waits for the control plane, and prepares what the others need to join.
    async fn settle_auth(&mut self) -> Result<()> {
        let status = wait::until("the auth service", || async {
            AccessServiceClient::new(self.admin())
                .get_cluster_status(v1::GetClusterStatusRequest {})
                .await
        })
        .await
        .with_context(|| self.log(Part::Auth))?
        .into_inner();
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
        format!("{}:3080", self.address(Part::Proxy))
    }

    /// The auth service's address.
    #[must_use]
    pub fn auth_addr(&self) -> String {
        format!("{}:3025", self.address(Part::Auth))
    }

    /// Where a part serves `/healthz`, `/readyz` and `/metrics`.
    #[must_use]
    pub fn diag_addr(&self, part: Part) -> String {
        format!("{}:3000", self.address(part))
    }

    /// A channel with an administrator's rights, over the auth host's socket.
    #[must_use]
    pub fn admin(&self) -> Channel {
        rpc::unix_channel(&self.data_dir(Part::Auth).join("auth.sock"))
    }

    /// The inventory, for an administrator.
    #[must_use]
    pub fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.admin())
    }

    /// All databases of the inventory, by name.
    ///
    /// # Errors
    ///
    /// When the auth service does not answer.
    pub async fn databases(&self) -> Result<Vec<v1::Database>> {
        let request = v1::ListDatabasesRequest {
            page_size: 1000,
            ..v1::ListDatabasesRequest::default()
        };
        Ok(self
            .inventory()
            .list_databases(request)
            .await?
            .into_inner()
            .databases)
    }

    /// All database servers.
    ///
    /// # Errors
    ///
    /// When the auth service does not answer.
    pub async fn database_servers(&self) -> Result<Vec<v1::DatabaseServer>> {
        let request = v1::ListDatabaseServersRequest {
            page_size: 1000,
            ..v1::ListDatabaseServersRequest::default()
        };
        Ok(self
            .inventory()
            .list_database_servers(request)
            .await?
            .into_inner()
            .database_servers)
    }

    /// What is known of each scan scope.
    ///
    /// # Errors
    ///
    /// When the auth service does not answer.
    pub async fn scopes(&self) -> Result<Vec<v1::ScopeStatus>> {
        Ok(DiscoveryServiceClient::new(self.admin())
            .list_scopes(v1::ListScopesRequest {})
            .await?
            .into_inner()
            .scopes)
    }

    /// The newest audit events of one kind.
    ///
    /// # Errors
    ///
    /// When the auth service does not answer.
    pub async fn audit(&self, event: &str) -> Result<Vec<v1::AuditEvent>> {
        let request = v1::ListEventsRequest {
            event: event.to_owned(),
            limit: 1000,
            ..v1::ListEventsRequest::default()
        };
        Ok(AuditServiceClient::new(self.admin())
            .list_events(request)
            .await?
            .into_inner()
            .events)
    }

    /// Waits until exactly these undecorated names are in the inventory.
    ///
    /// # Errors
    ///
    /// When that does not happen.
    pub async fn wait_for_databases(&self, wanted: &[&str]) -> Result<Vec<v1::Database>> {
        wait::until(&format!("databases {wanted:?}"), || async {
            let found = self
                .databases()
                .await
                .map_err(|error| format!("{error:#}"))?;
            let mut names: Vec<&str> = found
                .iter()
                .map(|database| database.discovered_name.as_str())
                .collect();
            names.sort_unstable();
            if names == wanted {
                Ok(found)
            } else {
                Err(format!("there are {names:?}"))
            }
        })
        .await
        .with_context(|| format!("{}\n{}", self.log(Part::Auth), self.log(Part::Discovery)))
    }

    /// Waits until every database of these undecorated names has so many healthy servers.
    ///
    /// # Errors
    ///
    /// When that does not happen.
    pub async fn wait_for_servers(
        &self,
        names: &[&str],
        servers_each: usize,
    ) -> Result<Vec<v1::DatabaseServer>> {
        wait::until(
            &format!("{servers_each} healthy servers of each of {names:?}"),
            || async {
                let found = self
                    .database_servers()
                    .await
                    .map_err(|error| format!("{error:#}"))?;
                let healthy = |name: &&str| {
                    let of_it = found.iter().filter(|server| {
                        server
                            .database
                            .as_ref()
                            .is_some_and(|database| database.discovered_name == **name)
                    });
                    of_it
                        .filter(|server| {
                            server
                                .target_health
                                .as_ref()
                                .is_some_and(|health| health.status == "healthy")
                        })
                        .count()
                };
                let counts: Vec<(&&str, usize)> =
                    names.iter().map(|name| (name, healthy(name))).collect();
                if counts.iter().all(|(_, count)| *count == servers_each) {
                    Ok(found)
                } else {
                    Err(format!("there are {counts:?}"))
                }
            },
        )
        .await
        .with_context(|| format!("{}\n{}", self.log(Part::AgentA), self.log(Part::AgentB)))
    }

    /// Runs `tgctl` on the auth host; its standard output.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub async fn tgctl(&self, args: &[&str]) -> Result<String> {
        let data_dir = self.data_dir(Part::Auth);
        let mut command = Command::new(program("tgctl")?);
        command
            .arg("--data-dir")
            .arg(data_dir)
            .args(args)
            .env("RUST_BACKTRACE", "0")
            .kill_on_drop(true);
        succeeded("tgctl", args, command.output().await?)
    }

    /// Creates a user who may be these database users, and logs in as them.
    ///
    /// # Errors
    ///
    /// When either does not work.
    pub async fn person(&self, name: &str, db_users: &str, db_names: &str) -> Result<Person> {
        let args = [
            "users".to_owned(),
            "add".to_owned(),
            "--roles=access".to_owned(),
            format!("--db-users={db_users}"),
            format!("--db-names={db_names}"),
            "--format=json".to_owned(),
            name.to_owned(),
        ];
        let answer = self
            .tgctl(&args.iter().map(String::as_str).collect::<Vec<_>>())
            .await?;
        let answer: Value = serde_json::from_str(&answer)
            .with_context(|| format!("`tgctl users add` printed {answer}"))?;
        let token = answer["signup_token"]
            .as_str()
            .context("no sign-up token")?
            .to_owned();
        let person = Person {
            name: name.to_owned(),
            home: self.dir.path().join(format!("home-{name}")),
        };
        std::fs::create_dir_all(&person.home)?;
        self.login(&person, Some(&token)).await?;
        Ok(person)
    }

    /// Logs a person in, the first time with the sign-up token.
    ///
    /// # Errors
    ///
    /// When `tg login` fails.
    pub async fn login(&self, person: &Person, token: Option<&str>) -> Result<String> {
        let mut args = vec![
            "login".to_owned(),
            format!("--proxy={}", self.proxy_addr()),
            format!("--user={}", person.name),
            format!("--ca-pin={}", self.ca_pin),
            "--password-stdin".to_owned(),
        ];
        args.extend(token.map(|token| format!("--token={token}")));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        wait::until("the proxy", || async {
            let output = self
                .tg_with_input(person, &args, &format!("{PASSWORD}\n"))
                .await
                .map_err(|error| format!("{error:#}"))?;
            if output.status.success() {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            } else {
                Err(words(&output))
            }
        })
        .await
        .with_context(|| self.log(Part::Proxy))
    }

    /// Runs `tg` as a person.
    ///
    /// # Errors
    ///
    /// When it cannot be started; how it ended is in the output.
    pub async fn tg(&self, person: &Person, args: &[&str]) -> Result<Output> {
        self.tg_with_input(person, args, "").await
    }

    async fn tg_with_input(&self, person: &Person, args: &[&str], input: &str) -> Result<Output> {
        use tokio::io::AsyncWriteExt;
        let mut command = Command::new(program("tg")?);
        command
            .args(args)
            .env("HOME", &person.home)
            .env("TIDEGATE_HOME", person.home.join(".tidegate"))
            .env("RUST_BACKTRACE", "0");
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .context("could not start tg")?;
        let mut stdin = child.stdin.take().context("tg has no input")?;
        stdin.write_all(input.as_bytes()).await.ok(); // tg may have ended without reading
        drop(stdin);
        Ok(child.wait_with_output().await?)
    }

    /// Runs one statement with `psql` through `tg db connect`; the rows, unaligned, one a line.
    ///
    /// # Errors
    ///
    /// When psql fails, with what it said.
    pub async fn query(
        &self,
        person: &Person,
        database: &str,
        db_user: &str,
        statement: &str,
    ) -> Result<String> {
        let db_user = format!("--db-user={db_user}");
        let args = [
            "db",
            "connect",
            database,
            &db_user,
            "--db-name=dev",
            "--",
            "-X",
            "-A",
            "-t",
            "-c",
            statement,
        ];
        let output = self.tg(person, &args).await?;
        ensure!(output.status.success(), "{}", words(&output));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
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

    /// What the laboratory changes in a part's example configuration.
    fn patch(&self, part: Part) -> Value {
        let mut patch = json!({
            "tidegate": {
                "nodename": part.name(),
                "data_dir": self.data_dir(part),
                "diag_addr": self.diag_addr(part),
                "storage": null,
                "log": { "output": "stderr", "severity": "INFO" },
            }
        });
        match part {
            Part::Auth => patch["auth_service"] = json!({ "listen_addr": self.auth_addr() }),
            Part::Proxy => {
                patch["proxy_service"] = json!({ "listen_addr": self.proxy_addr(), "public_addr": self.proxy_addr(), "https_keypairs": null });
            }
            Part::Discovery | Part::DiscoveryB | Part::DiscoveryC => {
                patch["discovery_service"] = json!({ "poll_interval": "1s" })
            }
            Part::AgentA | Part::AgentB => {}
        }
        if part != Part::Auth {
            let process = &mut patch["tidegate"];
            process["ca_pin"] = json!(self.ca_pin);
            process["auth_token"] = json!(self.token_file());
            process["join_params"] = Value::Null;
            match part {
                Part::Proxy => process["auth_server"] = json!(self.auth_addr()),
                _ => {
                    process["auth_server"] = Value::Null;
                    process["proxy_server"] = json!(self.proxy_addr());
                }
            }
        }
        patch
    }

    /// What a part sees of the environment: its AWS identity, and where AWS is.
    ///
    /// # Errors
    ///
    /// When libnss-wrapper is not installed.
    pub fn environment(&self, part: Part) -> Result<BTreeMap<String, String>> {
        let mut environment = BTreeMap::from([("RUST_BACKTRACE".to_owned(), "1".to_owned())]);
        if let Some((id, secret)) = part.access_key() {
            let path = |path: &Path| {
                path.to_str()
                    .map(str::to_owned)
                    .context("a temporary folder with an odd name")
            };
            environment.extend([
                (
                    "AWS_ENDPOINT_URL".to_owned(),
                    self.sim.endpoint_url().to_owned(),
                ),
                ("AWS_ACCESS_KEY_ID".to_owned(), id.to_owned()),
                ("AWS_SECRET_ACCESS_KEY".to_owned(), secret.to_owned()),
                ("AWS_REGION".to_owned(), "us-east-1".to_owned()),
                ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()),
                // The clusters' certificates are signed by the simulated AWS, which plays Amazon's public CA.
                ("SSL_CERT_FILE".to_owned(), path(&self.sim.ca_pem_path())?),
                // Their AWS host names stand for loopback addresses.
                ("LD_PRELOAD".to_owned(), path(&nss_wrapper()?)?),
                (
                    "NSS_WRAPPER_HOSTS".to_owned(),
                    path(&self.sim.hosts_file())?,
                ),
            ]);
        }
        Ok(environment)
    }
}

impl Person {
    /// The person's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of the person's profile.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }
}

fn bench_cluster() -> ClusterId {
    ClusterId::new("111111111111", "us-east-1", "bench")
}

/// What a program said on both outputs.
#[must_use]
pub fn words(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn succeeded(program: &str, args: &[&str], output: Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        words(&output)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A program of this workspace, built beside the running one.
///
/// # Errors
///
/// When it was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let found = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("`{name}` was not built: run `cargo build --workspace --bins`"))
}

/// A server program of PostgreSQL, from the newest version that is installed.
///
/// # Errors
///
/// When there is none.
pub fn postgres_program(name: &str) -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin").join(name),
            ))
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    versions.sort();
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let found = versions.pop().map(|(_, path)| path).or_else(|| {
        on_path
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
    });
    found.with_context(|| format!("PostgreSQL's `{name}` is not installed"))
}

fn nss_wrapper() -> Result<PathBuf> {
    let dirs = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ];
    let found = dirs
        .iter()
        .map(|dir| Path::new(dir).join("libnss_wrapper.so"))
        .find(|path| path.exists());
    found.context("libnss_wrapper.so is not installed")
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
        if is_free {
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
