//! How etcd is reached, and who we are there.

use std::{path::PathBuf, time::Duration};

use http::Uri;
use secrecy::SecretString;

/// Revisions of history kept when nothing else is said.
const HISTORY_REVISIONS_MIN_DEFAULT: u64 = 10_000;

/// How the etcd store is run.
#[derive(Clone, Debug)]
pub(crate) struct EtcdOptions {
    /// Members of the cluster (`https://host:2379`), any of which will do; tried in order.
    pub(crate) endpoints: Vec<Uri>,
    /// Where our keys are, such as `/tidegate`; everything under it is ours alone.
    pub(crate) prefix: String,
    /// For `https` endpoints; without it the system's roots are trusted and no certificate is shown.
    pub(crate) tls: EtcdTls,
    /// For etcd with authentication switched on, unless it goes by the client certificate.
    pub(crate) login: Option<EtcdLogin>,
    /// How long one member may take to accept a connection, TLS included. Default 3 s.
    pub(crate) dial_timeout: Duration,
    /// How long one read or write may take, further attempts included. Default 8 s: longer than an election.
    pub(crate) request_timeout: Duration,
    /// Revisions of history kept at least; older ones are given up (compacted) for the whole of etcd, whoever wrote
    /// them. `None` leaves that to etcd's own `--auto-compaction-retention`.
    pub(crate) history_revisions_min: Option<u64>,
}

impl EtcdOptions {
    /// The usual times and history.
    pub(crate) fn new(endpoints: Vec<Uri>, prefix: impl Into<String>) -> Self {
        Self {
            endpoints,
            prefix: prefix.into(),
            tls: EtcdTls::default(),
            login: None,
            dial_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(8),
            history_revisions_min: Some(HISTORY_REVISIONS_MIN_DEFAULT),
        }
    }
}

/// Files in PEM, read anew for each connection, so that renewed ones are used from then on.
#[derive(Clone, Debug, Default)]
pub(crate) struct EtcdTls {
    /// CAs that members' certificates must come from; the system's when missing.
    pub(crate) ca_file: Option<PathBuf>,
    /// What we show.
    pub(crate) identity: Option<EtcdIdentity>,
}

/// A client certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct EtcdIdentity {
    /// The certificate, then the CAs above it.
    pub(crate) cert_file: PathBuf,
    /// Its key.
    pub(crate) key_file: PathBuf,
}

/// An etcd user.
#[derive(Clone, Debug)]
pub(crate) struct EtcdLogin {
    /// Its name.
    pub(crate) username: String,
    /// Its password.
    pub(crate) password: SecretString,
}
