//! Who this process is: its id, and the certificate that its own port shows.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use tidegate_core::HostId;
use tidegate_identity::{
    ALPN_AUTH, ALPN_H2, HOST_CERT_TTL, IdentityError, KeyPair,
    tls::{self, ClientAuth, ServerTls},
};
use tidegate_service::{clock::SharedClock, rpc::Backoff, tasks::ShutdownToken, telemetry::chain};
use tokio::sync::watch;

use super::{AuthError, setup};
use crate::{
    access::new_host_id,
    authority::{Authority, HostRequest, Sets},
};

/// The file that keeps the process's id.
const HOST_ID_NAME: &str = "host_id";

/// The process's id: kept in its data directory, made when there is none.
pub(super) fn own_host_id(data_dir: &Path) -> Result<HostId, AuthError> {
    const DOING: &str = "the host id in the data directory";
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(setup(DOING))?;
    let path = data_dir.join(HOST_ID_NAME);
    match std::fs::read_to_string(&path) {
        Ok(kept) => kept.trim().parse().map_err(setup(DOING)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = new_host_id().map_err(setup(DOING))?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(setup(DOING))?;
            writeln!(file, "{made}")
                .and_then(|()| file.sync_all())
                .map_err(setup(DOING))?;
            Ok(made)
        }
        Err(error) => Err(setup(DOING)(error)),
    }
}

/// The service's own certificate, in the configuration that its port uses.
pub(super) struct OwnIdentity {
    authority: Arc<Authority>,
    host_id: HostId,
    nodename: String,
    clock: SharedClock,
    /// Since before the certificate was made, so that no change is missed.
    cas: watch::Receiver<Arc<Sets>>,
    /// Read for each connection.
    pub(super) current: Arc<ArcSwap<ServerConfig>>,
    expires_at: Timestamp,
}

impl OwnIdentity {
    pub(super) fn new(
        authority: Arc<Authority>,
        host_id: HostId,
        nodename: String,
        clock: SharedClock,
    ) -> Result<Self, IdentityError> {
        let cas = authority.watch();
        let (config, expires_at) = issue_own(&authority, &host_id, &nodename)?;
        Ok(Self {
            authority,
            host_id,
            nodename,
            clock,
            cas,
            current: Arc::new(ArcSwap::new(config)),
            expires_at,
        })
    }

    /// Replaces the certificate when a third of its life is left, and when the CAs changed.
    pub(super) async fn keep(mut self, shutdown: ShutdownToken) {
        let left = SignedDuration::try_from(HOST_CERT_TTL / 3).unwrap_or(SignedDuration::ZERO);
        let mut backoff = Backoff::new();
        loop {
            let due = self
                .expires_at
                .saturating_sub(left)
                .unwrap_or(self.expires_at);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.clock.wait_until(due) => {}
                changed = self.cas.changed() => if changed.is_err() {
                    return;
                },
            }
            match issue_own(&self.authority, &self.host_id, &self.nodename) {
                Ok((config, expires_at)) => {
                    self.current.store(config);
                    self.expires_at = expires_at;
                    backoff.reset();
                    tracing::info!(%expires_at, "renewed the auth service's own certificate");
                }
                Err(error) => {
                    tracing::error!(
                        error = chain(&error),
                        "cannot renew the auth service's own certificate"
                    );
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(backoff.next()) => {}
                    }
                }
            }
        }
    }
}

fn issue_own(
    authority: &Authority,
    host_id: &HostId,
    nodename: &str,
) -> Result<(Arc<ServerConfig>, Timestamp), IdentityError> {
    let key = KeyPair::generate()?;
    let issued = authority.issue_own(HostRequest {
        public_key: &key.public_key_der(),
        host_id,
        hostname: nodename,
        services: &["auth".to_owned()],
        names: &[],
    })?;
    let config = tls::server_config(ServerTls {
        chain_pem: &issued.chain_pem,
        key: &key,
        clients: ClientAuth::Optional {
            ca_pem: authority.client_cas_pem(),
        },
        alpn: &[ALPN_AUTH, ALPN_H2],
    })?;
    Ok((config, issued.expires_at))
}
