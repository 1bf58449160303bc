//! What this agent shows to clients: a certificate for `*.db.<cluster>` from the cluster's database CA.
//!
//! Asked for at start, again at two thirds of its life, and again when the host's identity or the cluster's CAs
//! changed. Until the first one is here no session can be taken; when renewing fails the old one goes on.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use tidegate_identity::{
    ALPN_MYSQL, ALPN_POSTGRES, IdentityError, KeyPair,
    tls::{self, ClientAuth, ServerTls},
};
use tidegate_proto::{
    convert,
    v1::{self, trust_service_client::TrustServiceClient},
};
use tidegate_service::{
    admin::ComponentHandle,
    clock::SharedClock,
    host::HostHandle,
    rpc::{self, MESSAGE_BYTES_MAX},
    tasks::ShutdownToken,
    telemetry,
};
use tonic::Status;
use tracing::{info, warn};

use crate::{
    offline::{Certificate, Told},
    retry::Retry,
};

/// How long the auth service may take to answer.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Shortest time between two certificates, should a clock be so wrong that each is late at once.
const RENEWAL_INTERVAL_MIN: Duration = Duration::from_secs(60);

/// The present TLS configuration for clients; absent until the first certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientTls {
    config: Arc<ArcSwapOption<ServerConfig>>,
}

impl ClientTls {
    /// The configuration of this moment.
    pub(crate) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.config.load_full()
    }

    /// Shows a certificate that was kept, while none was issued.
    pub(crate) fn stand_in(&self, config: Arc<ServerConfig>) {
        self.config
            .compare_and_swap(&None::<Arc<ServerConfig>>, Some(config));
    }
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("could not use the certificate that the auth service issued")]
    Identity(#[from] IdentityError),
    #[error("the auth service did not issue a certificate: {}", rpc::describe(.0))]
    Issue(#[from] Status),
    #[error("the auth service issued a certificate without an end")]
    NoEnd,
    #[error("the auth service did not answer in {} s", ISSUE_TIMEOUT.as_secs())]
    TimedOut,
}

/// Keeps the certificate fresh until shutdown.
pub(crate) async fn keep_fresh(
    host: HostHandle,
    client_tls: ClientTls,
    told: Told,
    clock: SharedClock,
    component: ComponentHandle,
    shutdown: ShutdownToken,
) {
    let mut renewed = host.renewed();
    let mut retry = Retry::new();
    loop {
        retry.begin();
        renewed.mark_unchanged();
        let Some(issued) = shutdown.run_until_cancelled(issue(&host, &*clock)).await else {
            return;
        };
        match issued {
            Ok((config, certificate, due_at)) => {
                told.certificate(certificate);
                client_tls.config.store(Some(config));
                component.ready();
                retry.succeeded();
                info!(renewal_at = %due_at, "has a certificate for database clients");
                let due = async {
                    tokio::time::sleep(RENEWAL_INTERVAL_MIN).await;
                    clock.wait_until(due_at).await;
                };
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = due => {}
                    changed = renewed.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                }
            }
            Err(error) => {
                let cause = telemetry::chain(&error);
                if client_tls.config().is_none() {
                    component.not_ready(cause.clone());
                    if client_tls.config().is_some() {
                        component.degraded("shows clients the certificate that was kept");
                    }
                }
                if retry.failed(&cause) {
                    warn!(
                        error = cause,
                        "has no new certificate for database clients yet"
                    );
                }
                if !retry.wait(&shutdown).await {
                    return;
                }
            }
        }
    }
}

/// Asks for a certificate for a new key, and says when the next one is due.
async fn issue(
    host: &HostHandle,
    clock: &dyn tidegate_service::clock::Clock,
) -> Result<(Arc<ServerConfig>, Certificate, Timestamp), RenewalError> {
    let key = KeyPair::generate()?;
    let request = v1::IssueDatabaseServerCertificateRequest {
        public_key: key.public_key_der(),
    };
    let mut client =
        TrustServiceClient::new(host.auth_channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let asked_at = clock.now();
    let certificate = tokio::time::timeout(
        ISSUE_TIMEOUT,
        client.issue_database_server_certificate(request),
    )
    .await
    .map_err(|_| RenewalError::TimedOut)??
    .into_inner();
    let expires_at = certificate
        .expires_at
        .as_ref()
        .and_then(|at| convert::instant(at).ok())
        .ok_or(RenewalError::NoEnd)?;
    let config = client_facing(
        &certificate.certificate_pem,
        &key,
        &host.trust().user_ca_pem,
    )?;
    let issued = Certificate {
        chain_pem: certificate.certificate_pem,
        key,
        ends: expires_at,
    };
    Ok((config, issued, due_at(asked_at, expires_at)))
}

/// The configuration towards clients. A certificate is asked for and not insisted on, so that a client without one
/// can be told in its own protocol what to do.
pub(crate) fn client_facing(
    chain_pem: &str,
    key: &KeyPair,
    user_ca_pem: &str,
) -> Result<Arc<ServerConfig>, IdentityError> {
    tls::server_config(ServerTls {
        chain_pem,
        key,
        clients: ClientAuth::Optional {
            ca_pem: user_ca_pem.to_owned(),
        },
        alpn: &[ALPN_POSTGRES, ALPN_MYSQL],
    })
}

/// Two thirds into the life.
fn due_at(issued_at: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = expires_at
        .duration_since(issued_at)
        .max(SignedDuration::ZERO);
    issued_at.checked_add(life / 3 * 2).unwrap_or(expires_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_two_thirds_of_the_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(due_at(at(0), at(86_400)), at(57_600));
        assert_eq!(due_at(at(100), at(50)), at(100));
    }
}
