//! Following the cluster's CAs: what is trusted and who signs, as the auth service tells it while the process runs.
//!
//! Trust is taken up at once, with the certificate that there is. A certificate that another CA signed than the one that
//! signs now is renewed, as before its end.
//!
//! Invariant: what was told last is what is trusted, whatever a renewal that was under way brought meanwhile.
//!
//! A process that was away while a whole rotation passed trusts nobody any more, or is trusted by nobody. It finds that
//! out here, and joins again with its token, if it has one: [`super::renew`].

use std::{sync::Arc, time::Duration};

use tidegate_identity::{
    ALPN_AUTH, CaPin, SERVER_NAME_AUTH, secret,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{
    self, cert_authority_service_client::CertAuthorityServiceClient,
    trust_service_client::TrustServiceClient,
};
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use super::{
    Current, HostError, HostHandle, TrustBundle,
    join::{self, ATTEMPT_TIMEOUT, Failure},
    renew,
};
use crate::{
    rpc::{self, Backoff},
    tasks::ShutdownToken,
    telemetry::{SaidOnce, chain},
};

/// Longest wait before a certificate of another CA is asked for: hosts hear of a phase at the same moment, and are not to
/// ask at the same moment.
const RENEWAL_SPREAD: Duration = Duration::from_secs(1);
/// How long to wait when the auth service cannot tell: an older one, which rotates nothing.
const UNKNOWN_RETRY_DELAY: Duration = Duration::from_secs(300);
/// Longest wait between two attempts to hear.
const RETRY_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(200);

/// Why nothing is heard any more.
enum Ended {
    /// The auth service, or the way to it.
    Call(Status),
    /// What was told cannot be used.
    Told(HostError),
}

pub(super) async fn run(handle: HostHandle, shutdown: ShutdownToken) {
    // The only end is the shutdown.
    shutdown.run_until_cancelled(follow_forever(&handle)).await;
}

async fn follow_forever(handle: &HostHandle) {
    let mut backoff = Backoff::between(RETRY_MIN, RETRY_MAX);
    let mut said = SaidOnce::new();
    let mut db_signer = None;
    loop {
        match follow(handle, &mut db_signer, &mut backoff).await {
            Ended::Call(status) if status.code() == Code::Unimplemented => {
                debug!("the auth service does not tell of its CAs");
                tokio::time::sleep(UNKNOWN_RETRY_DELAY).await;
                continue;
            }
            Ended::Call(status) => {
                debug!(
                    error = rpc::describe(&status),
                    "hears nothing of the cluster's CAs"
                );
                if was_passed_by(handle, &status).await && handle.inner.outcast.set(true) {
                    warn!(
                        "the cluster's CAs were rotated while this process was away: it has to join again"
                    );
                    handle.renew_now();
                }
            }
            Ended::Told(error) => {
                let cause = chain(&error);
                if said.is_new(&cause) {
                    warn!(error = cause, "could not take up the cluster's CAs");
                }
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Listens until the stream ends.
async fn follow(
    handle: &HostHandle,
    db_signer: &mut Option<String>,
    backoff: &mut Backoff,
) -> Ended {
    let mut renewed = handle.renewed();
    let mut client = CertAuthorityServiceClient::new(handle.auth_channel())
        .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
    let mut stream = match client.watch_trust(v1::WatchTrustRequest {}).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return Ended::Call(status),
    };
    let mut latest: Option<v1::WatchTrustResponse> = None;
    loop {
        tokio::select! {
            told = stream.message() => match told {
                Ok(Some(told)) => {
                    backoff.reset();
                    if let Err(error) = take_up(handle, &told, db_signer).await {
                        return Ended::Told(error);
                    }
                    latest = Some(told);
                }
                Ok(None) => return Ended::Call(Status::unavailable("the stream ended")),
                Err(status) => return Ended::Call(status),
            },
            changed = renewed.changed() => {
                // The handle that is held here has the sender, so this is a change.
                let _ = changed;
                let told = latest.as_ref().and_then(|told| told.trust.clone());
                if let Some(trust) = told
                    && let Err(error) = trust_in(handle, trust).await
                {
                    return Ended::Told(error);
                }
            }
        }
    }
}

async fn take_up(
    handle: &HostHandle,
    told: &v1::WatchTrustResponse,
    db_signer: &mut Option<String>,
) -> Result<(), HostError> {
    let unusable = |what: &str| HostError::Answer {
        problem: format!("it tells of no usable {what}"),
    };
    let trust = told.trust.clone().ok_or_else(|| unusable("trust"))?;
    let pin = |text: &str| text.parse::<CaPin>().map_err(|_| unusable("signer"));
    let (client, server) = (
        pin(&told.host_client_signer)?,
        pin(&told.host_server_signer)?,
    );
    trust_in(handle, trust).await?;
    if !handle.inner.current.load().is_signed_by(client, server) {
        info!(signer.client = %client, signer.server = %server, "another CA signs host certificates now");
        tokio::time::sleep(spread()).await;
        handle.renew_now();
    }
    if db_signer.as_ref() != Some(&told.db_signer) {
        *db_signer = Some(told.db_signer.clone());
        // Whoever shows a certificate of the database CA asks for it anew.
        handle.inner.renewed.send_replace(());
    }
    Ok(())
}

/// Takes up trust that differs from what is known, and keeps it.
async fn trust_in(handle: &HostHandle, trust: v1::Trust) -> Result<(), HostError> {
    let trust = TrustBundle::try_from(trust)?;
    let _installing = handle.inner.installing.lock().await;
    let current: Arc<Current> = handle.inner.current.load_full();
    if *current.trust == trust {
        return Ok(());
    }
    let pins = CaPin::all_of_pem(&trust.host_ca_pem)?.len();
    let next = current.trusting(trust)?;
    info!(host_cas = pins, "took up other CAs of the cluster");
    renew::put(handle, next).await;
    Ok(())
}

/// Whether a call failed because the process and the cluster have no CA in common any more.
async fn was_passed_by(handle: &HostHandle, status: &Status) -> bool {
    if let Some(error) = rpc::connect_error(status) {
        return error.is_untrusted();
    }
    if matches!(join::classify(status), Failure::Refused(_)) {
        return false;
    }
    // A certificate that is refused looks like a connection that was lost: ask as a stranger who is trusted.
    let current = handle.inner.current.load_full();
    let Ok(signer) = CaPin::of_signer(&current.chain_pem) else {
        return false;
    };
    let trusted = tokio::time::timeout(ATTEMPT_TIMEOUT, trusted_now(handle, &current)).await;
    matches!(trusted, Ok(Some(pins)) if !pins.contains(&signer))
}

/// The host CAs that the auth service trusts, when it can be asked.
async fn trusted_now(handle: &HostHandle, current: &Current) -> Option<Vec<CaPin>> {
    let tls = tls::client_config(ClientTls {
        roots: Roots::Pem(&current.trust.host_ca_pem),
        identity: None,
        alpn: &[ALPN_AUTH],
    })
    .ok()?;
    let endpoints = handle.inner.endpoints.clone();
    let channel = rpc::channel(endpoints, move || Arc::clone(&tls), SERVER_NAME_AUTH);
    let mut client =
        TrustServiceClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
    let trust = client.get_trust(v1::GetTrustRequest {}).await.ok()?;
    CaPin::all_of_pem(&trust.into_inner().host_ca_pem).ok()
}

fn spread() -> Duration {
    let random = secret::random_bytes::<4>().map_or(0, u32::from_le_bytes);
    RENEWAL_SPREAD.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
