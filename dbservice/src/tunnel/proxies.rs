//! Which proxies to connect to: the one of the settings, or all that the inventory lists.
//!
//! While the auth service is away the last known proxies stay; one that is listed no longer is let go of. At a start they
//! are those that were kept, once that is used ([`crate::offline`]).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tidegate_proto::v1::{self, inventory_service_client::InventoryServiceClient};
use tidegate_service::{
    rpc::{self, MESSAGE_BYTES_MAX},
    tasks::ShutdownToken,
};
use tonic::{Status, transport::Channel};
use tracing::{info, warn};

use super::{Tunnel, control};
use crate::{
    offline::{KeptProxies, Told},
    retry::Retry,
};

/// How often the inventory is asked for proxies.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// How long an answer may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Proxies that an agent connects to at once.
const PROXIES_MAX: usize = 256;

/// Keeps a control connection to every proxy until shutdown.
pub(crate) async fn keep_connected(
    tunnel: Arc<Tunnel>,
    proxy_server: Option<String>,
    told: Told,
    mut kept: KeptProxies,
) {
    let shutdown = tunnel.tasks.shutdown();
    let mut connections = Connections::new(Arc::clone(&tunnel));
    if let Some(address) = proxy_server {
        connections.follow(BTreeSet::from([address]));
        shutdown.cancelled().await;
        return;
    }
    let mut retry = Retry::new();
    let mut is_told = false;
    loop {
        retry.begin();
        let listed = shutdown
            .run_until_cancelled(list(tunnel.host.auth_channel()))
            .await;
        match listed {
            None => return,
            Some(Ok(addresses)) => {
                retry.succeeded();
                told.proxies(&addresses);
                is_told = true;
                connections.follow(addresses);
                if shutdown
                    .run_until_cancelled(tokio::time::sleep(POLL_INTERVAL))
                    .await
                    .is_none()
                {
                    return;
                }
            }
            Some(Err(status)) => {
                let cause = rpc::describe(&status);
                if retry.failed(&cause) {
                    warn!(
                        error = cause,
                        "cannot list proxies; staying with those that are known"
                    );
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = retry.pause() => {}
                    Ok(()) = kept.changed(), if !is_told => {
                        let addresses = kept.borrow_and_update().clone();
                        connections.follow(addresses);
                    }
                }
            }
        }
    }
}

async fn list(channel: Channel) -> Result<BTreeSet<String>, Status> {
    let mut client =
        InventoryServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let listing = client.list_proxies(v1::ListProxiesRequest {});
    let answer = tokio::time::timeout(LIST_TIMEOUT, listing)
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    Ok(answer
        .into_inner()
        .proxies
        .into_iter()
        .map(|proxy| proxy.public_addr)
        .filter(|address| !address.is_empty())
        .take(PROXIES_MAX)
        .collect())
}

/// The control connections, by address.
struct Connections {
    tunnel: Arc<Tunnel>,
    running: HashMap<String, ShutdownToken>,
}

impl Connections {
    fn new(tunnel: Arc<Tunnel>) -> Self {
        Self {
            tunnel,
            running: HashMap::new(),
        }
    }

    /// Connects to what is new, and lets go of what is gone.
    fn follow(&mut self, addresses: BTreeSet<String>) {
        self.running.retain(|address, stop| {
            let stays = addresses.contains(address);
            if !stays {
                info!(proxy.address = address, "letting go of a proxy");
                stop.cancel();
            }
            stays
        });
        for address in addresses {
            if self.running.contains_key(&address) {
                continue;
            }
            let stop = self.tunnel.tasks.shutdown().child_token();
            self.running.insert(address.clone(), stop.clone());
            let tunnel = Arc::clone(&self.tunnel);
            self.tunnel
                .tasks
                .spawn_quiet("tunnel_control", control::keep(tunnel, address, stop));
        }
    }
}
