//! The configuration file: what an operator writes, and what the services use.
//!
//! Each section exists twice: as written (a tree of values that know their line and column) and as used (the types
//! here, each value usable as it stands). [`load`] goes from one to the other, refuses unknown keys, tells everything
//! that is wrong at once, and touches nothing but the file and the files that it names (token, pins, certificates).
//!
//! What is fine for a fragment that is looked at, and not for a process that starts, waits in
//! [`Settings::check_startable`].

mod audit;
mod auth;
mod authentication;
mod aws_session;
mod ca_bundles;
mod ca_keys;
mod changes;
mod database;
mod discovery;
mod document;
mod error;
mod join;
mod metadata;
mod network;
mod overlap;
mod process;
mod proxy;
mod regions;
mod report;
pub mod resource;
mod section;
mod spec;
mod storage;
mod values;
mod words;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use tidegate_core::{
    AwsMatcher, ClusterName, Database, DatabaseName, ResourceMatcher, aws_session::SessionNaming,
};
use tidegate_identity::CaPin;

pub use audit::{AuditTarget, S3Target};
pub use ca_bundles::{CaBundlePlace, InvalidCaBundlePlace};
pub use error::{ConfigError, ConfigProblem, PROBLEMS_MAX};
pub use join::{InvalidStsEndpoint, JoinMethod, StsEndpoint};
pub use network::Network;

/// Largest configuration file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a configuration file.
///
/// # Errors
///
/// When the file cannot be read, or for everything that is wrong in it, with line and column.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        file: path.to_owned(),
        source,
    };
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    parse(&text, path)
}

/// Reads a configuration; `path` is what errors call it.
///
/// # Errors
///
/// For everything that is wrong in it, with line and column.
pub fn parse(text: &str, path: &Path) -> Result<Settings, ConfigError> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            file: path.to_owned(),
            bytes_max: FILE_BYTES_MAX,
        });
    }
    let documents = yaml::documents(text).map_err(|error| syntax_error(path, error))?;
    let unusable = |at: yaml::Position, problem: &str| {
        let problem = problem.to_owned();
        Err(syntax_error(path, yaml::SyntaxError { at, problem }))
    };
    let start = yaml::Position { line: 1, column: 1 };
    let root = match documents.as_slice() {
        [] => return unusable(start, "holds no settings"),
        [root] if matches!(root.value, yaml::Value::Null) => {
            return unusable(start, "holds no settings");
        }
        [root] => root,
        [_, second, ..] => return unusable(second.at, "holds more than one document"),
    };
    let report = report::Report::default();
    let settings = document::read(root, path, &report);
    let remarks = report.finish(path)?;
    match settings {
        Some(mut settings) => {
            settings.said = changes::Said::by(root);
            Ok(document::with_remarks(settings, remarks))
        }
        None => unusable(root.at, "cannot be read as settings"),
    }
}

fn syntax_error(path: &Path, error: yaml::SyntaxError) -> ConfigError {
    let problem = ConfigProblem {
        line: error.at.line,
        column: error.at.column,
        key: String::new(),
        problem: error.problem,
        expected: None,
        nearest: None,
    };
    ConfigError::of(path, vec![problem])
}

/// Everything that one process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file, for messages.
    pub file: PathBuf,
    /// Section `tidegate` (alias `teleport`).
    pub process: ProcessSettings,
    /// Section `auth_service`, when enabled.
    pub auth: Option<AuthSettings>,
    /// Section `proxy_service`, when enabled.
    pub proxy: Option<ProxySettings>,
    /// Section `discovery_service`, when enabled.
    pub discovery: Option<DiscoverySettings>,
    /// Section `db_service`, when enabled.
    pub database: Option<DatabaseSettings>,
    /// What was read but is not served, or looks wrong without being wrong; each is logged once.
    pub warnings: Vec<Warning>,
    /// What keeps a process from starting, though the file as such is sound; see [`Settings::check_startable`].
    pub blockers: Vec<ConfigProblem>,
    /// What is as it should be and worth knowing, such as where the order of entries decides.
    pub notes: Vec<Warning>,
    /// What is written, to compare with.
    said: changes::Said,
}

impl Settings {
    /// The keys that `other` says something else under, or that only one of the two has, such as
    /// `tidegate.log.severity` or `db_service.resources`, in order. What is in files that keys name is not compared.
    #[must_use]
    pub fn differences(&self, other: &Self) -> BTreeSet<String> {
        self.said.differences(&other.said)
    }

    /// Whether a process can start with this: a service is enabled, there is a way to the auth service, and the
    /// files that are named for the start can be read.
    ///
    /// # Errors
    ///
    /// When it cannot, with the reasons.
    pub fn check_startable(&self) -> Result<(), ConfigError> {
        if self.blockers.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::of(&self.file, self.blockers.clone()))
        }
    }
}

/// Something in the file that the operator should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Line in the file, from 1; 0 when it is about no one line.
    pub line: u64,
    /// One line of text.
    pub message: String,
}

/// What every service of the process shares.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// The process's name for people. Default: the host's name.
    pub nodename: String,
    /// Where identities and state are kept. Default `/var/lib/tidegate`.
    pub data_dir: PathBuf,
    /// Auth service addresses (`host:port`), tried in order. Default port 3025.
    pub auth_servers: Vec<String>,
    /// Proxy address (`host:port`), by which the auth service can be reached too. Default port 3080.
    pub proxy_server: Option<String>,
    /// How a new process joins; not needed once it has joined, nor beside an auth service in the same process.
    pub join: JoinSettings,
    /// Logging.
    pub log: LogSettings,
    /// Where `/healthz`, `/readyz` and `/metrics` are served; `None` is nowhere.
    pub diag_addr: Option<SocketAddr>,
    /// Where the process is, such as an availability zone: `zone`, else `TIDEGATE_ZONE`. Empty is unknown. Proxies
    /// prefer agents of their own zone.
    pub zone: String,
    /// From the signal to stop until nothing new is taken: `/readyz` says `draining` meanwhile, so that balancers
    /// notice. Default 0 s, since only who has a balancer that asks gains by it.
    pub shutdown_delay: Duration,
    /// How long sessions may go on from then: `drain_timeout`. Default 30 s; whoever stops the process must wait longer.
    pub drain_timeout: Duration,
}

/// How long sessions may go on by default once their process is told to stop.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// How a new process proves that it may join.
#[derive(Clone, Debug, Default)]
pub struct JoinSettings {
    /// How it proves that it may: `join_params.method`. Default `token`.
    pub method: JoinMethod,
    /// The join token, which is a secret unless the method is `iam`; read from `auth_token`, `join_params.token_name`, or the file that either names.
    pub token: Option<SecretString>,
    /// Pins of the cluster's host CA; any may match.
    pub ca_pins: Vec<CaPin>,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A filter such as `info` or `info,tidegate_proxy=debug`.
    pub filter: String,
    /// How events are written.
    pub format: LogFormat,
    /// Where to.
    pub output: LogOutput,
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where events are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogOutput {
    /// Appended to a file.
    File(PathBuf),
    /// Standard error. The default.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
}

/// The control plane.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// The cluster's name, which is also its DNS domain. Default: the node's name, when that is a DNS name.
    pub cluster_name: ClusterName,
    /// Where gRPC is served. Default `0.0.0.0:3025`.
    pub listen_addr: SocketAddr,
    /// Where the cluster's state is. Default: the embedded store in `<data_dir>/backend`.
    pub storage: StorageSettings,
    /// Directory of this instance's audit log: the embedded store's, or `<data_dir>/backend` beside etcd.
    pub audit_dir: PathBuf,
    /// Where this instance exports audit events to (`storage.audit_events_uri`). Default: nowhere.
    pub audit_targets: Vec<AuditTarget>,
    /// Join tokens from the file (`tokens: ["db,discovery:secret"]`), which never expire.
    pub static_tokens: Vec<StaticToken>,
    /// Where AWS STS is asked who joins by `iam` (`sts_endpoint_url`), such as a VPC endpoint. Default: what
    /// `AWS_ENDPOINT_URL_STS` or `AWS_ENDPOINT_URL` say, else AWS's own hosts.
    pub sts_endpoint: Option<StsEndpoint>,
    /// What the private keys of the CAs are encrypted with in the store. Default: they are not.
    pub ca_keys: Option<CaKeySettings>,
    /// How people prove who they are.
    pub authentication: AuthenticationSettings,
}

/// How people prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationSettings {
    /// Whether a code of an authenticator app is asked for beside the password. Default: of those who added one.
    pub second_factor: SecondFactor,
}

/// Whether people give a code of an authenticator app beside the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondFactor {
    /// Nobody does: what people added is not looked at.
    Off,
    /// Those who added one do. The default: nobody's login breaks, and nobody's second factor is for nothing.
    #[default]
    Optional,
    /// Everybody does; who has none adds one with the next login. In files `on` and `otp`.
    On,
}

/// What the private keys of the cluster's CAs are encrypted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaKeySettings {
    /// Encrypts.
    pub seal: CaKey,
    /// Decrypt what they encrypted earlier.
    pub previous: Vec<CaKey>,
}

/// A key that encrypts keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaKey {
    /// A key of AWS KMS.
    AwsKms {
        /// Its id, ARN or alias.
        key: String,
        /// Where it is.
        region: String,
    },
    /// A file that holds 32 random bytes, which only its owner may read.
    File(PathBuf),
}

/// Where the control plane keeps its state.
#[derive(Clone, Debug)]
pub enum StorageSettings {
    /// In etcd, which several auth instances share.
    Etcd(EtcdSettings),
    /// Embedded, for one auth instance.
    Sqlite {
        /// Its directory.
        dir: PathBuf,
    },
}

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    /// Members as `https://host:port`, all of one scheme and never none. Default port 2379.
    pub peers: Vec<String>,
    /// Under which all keys are. Default `/tidegate`.
    pub prefix: String,
    /// PEM file of the CAs of members' certificates. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to etcd.
    pub identity: Option<KeyPairFiles>,
    /// Who logs in, where that does not go by the certificate.
    pub login: Option<EtcdLogin>,
    /// How long one member may take to accept a connection; `None` is the store's default, 3 s.
    pub dial_timeout: Option<Duration>,
    /// How long one read or write may take, further attempts included; `None` is the store's default, 8 s.
    pub request_timeout: Option<Duration>,
}

/// An etcd user.
#[derive(Clone, Debug)]
pub struct EtcdLogin {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: SecretString,
}

/// A join token written in the file.
#[derive(Clone, Debug)]
pub struct StaticToken {
    /// What may join with it.
    pub types: Vec<String>,
    /// The secret.
    pub secret: SecretString,
}

/// The proxy.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// The one port. Default `0.0.0.0:3080`.
    pub listen_addr: SocketAddr,
    /// `host:port` that clients and agents reach it by; first of `public_addr`. Default: node name and listen port.
    pub public_addr: String,
    /// Certificates for its public name; empty is one of the cluster's own.
    pub https_keypairs: Vec<KeyPairFiles>,
    /// The port for MySQL clients that make no tunnel with `tg`; `None` serves none.
    pub mysql: Option<MysqlSettings>,
    /// Where the proxy is; that of the process. Empty is unknown.
    pub zone: String,
    /// Networks of balancers that say in a PROXY header where a client is (`proxy_protocol_from`, when `proxy_protocol`
    /// is on): each of their connections must begin with one, and nobody else's may. Empty: nobody's may.
    pub balancers: Vec<Network>,
    /// How much of the proxy one source or one database may have.
    pub limits: ProxyLimits,
    /// How long sessions may go on in a process that has handed its sockets over to a new one. Default 1 h.
    pub handover_timeout: Duration,
}

/// How much of a proxy one source or one database may have: section `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Connections of one source of which it is not known yet what they want. Default 512, an eighth of all: above what
    /// an office behind one address opens at once. Agents are exempt, since they dial back for everybody.
    pub handshakes_per_source: usize,
    /// Sessions of one source. Default 4,096, a quarter of all.
    pub sessions_per_source: usize,
    /// Sessions of one database. Default 4,096, a quarter of all.
    pub sessions_per_route: usize,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            handshakes_per_source: 512,
            sessions_per_source: 4_096,
            sessions_per_route: 4_096,
        }
    }
}

/// The proxy's port for MySQL clients. Their protocol has the server speak first, so they need one of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlSettings {
    /// Where it listens: `mysql_listen_addr`.
    pub listen_addr: SocketAddr,
    /// The version that clients are told before it is known which server they want: `mysql_server_version`.
    pub server_version: String,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// PEM file of the private key.
    pub key_file: PathBuf,
    /// PEM file of the certificate chain.
    pub cert_file: PathBuf,
}

/// The discovery worker.
#[derive(Clone, Debug)]
pub struct DiscoverySettings {
    /// Workers of one group share the same work. Empty is allowed, with a warning.
    pub group: String,
    /// From the start of one scan to the start of the next, before jitter. Default 5 min, at least 1 s.
    pub poll_interval: Duration,
    /// What to look for.
    pub matchers: Vec<AwsMatcher>,
}

/// The database service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Which databases of the inventory to serve, and with which roles. Empty is none.
    pub resources: Vec<ResourceMatcher>,
    /// Databases written in the file.
    pub databases: Vec<Database>,
    /// Commands that give labels to databases written in the file; only those that have some are here.
    pub label_commands: BTreeMap<DatabaseName, Vec<LabelCommand>>,
    /// Matchers of the service's own discovery worker, run beside it with a group of its own.
    pub matchers: Vec<AwsMatcher>,
    /// What sessions of IAM roles are called, and what is sent along with them.
    pub aws_session: SessionNaming,
    /// Where CA bundles are fetched; `None` is from AWS.
    pub ca_bundles: Option<CaBundlePlace>,
    /// How long after the control plane last said so an agent that starts without it lets people in by the roles and
    /// locks that it kept; `None` is never, and nothing is kept then. From 1 min to 24 h, in files 1 h unless said.
    pub offline_start: Option<Duration>,
    /// Whether the ARNs of `IAM_ROLE` clauses are left out of audited statements, beside their secrets. Default no.
    pub redact_iam_roles: bool,
}

/// A label whose value a command prints: one of `dynamic_labels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelCommand {
    /// The label. Its value replaces that of a static label of the same key.
    pub label: String,
    /// The program and its arguments, given to it as they are: there is no shell. Never empty.
    pub command: Vec<String>,
    /// From the end of one run to the start of the next. Default 1 min, at least 1 s.
    pub period: Duration,
}
