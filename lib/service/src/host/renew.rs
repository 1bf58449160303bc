//! Keeping the identity: a new key and certificate at two thirds of the old one's life.
//!
//! A certificate that ran out all the same (the auth service was away for too long) cannot be renewed, as nothing
//! proves who asks; the process then joins again with its token, if that is still good.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_identity::{KeyPair, secret};
use tidegate_proto::v1::{self, trust_service_client::TrustServiceClient};
use tracing::{debug, error, info, warn};

use super::{
    Current, HostError, HostHandle, IssuedHost, TrustBundle, identity,
    join::{self, ATTEMPT_TIMEOUT, Failure, Joining},
};
use crate::{
    rpc::{self, Backoff},
    tasks::ShutdownToken,
    telemetry::{SaidOnce, chain},
};

/// Bounds of the wait between attempts.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two renewals that nobody asked for, should a clock be so wrong that every certificate is late.
const RENEWAL_INTERVAL_MIN: Duration = Duration::from_secs(60);
/// Renewals are spread over this share of a certificate's life, so that hosts that joined together do not come together.
const JITTER_SHARE: f64 = 0.1;

pub(super) async fn run(handle: HostHandle, shutdown: ShutdownToken) {
    // The only end is the shutdown.
    shutdown.run_until_cancelled(renew_forever(&handle)).await;
}

async fn renew_forever(handle: &HostHandle) {
    let mut rest = Duration::ZERO;
    loop {
        let (issued_at, expires_at) = {
            let current = handle.inner.current.load();
            (current.issued_at, current.expires_at)
        };
        let random = secret::random_bytes::<4>().map_or(0, u32::from_le_bytes);
        let due = async {
            tokio::time::sleep(rest).await;
            handle
                .inner
                .clock
                .wait_until(due_at(issued_at, expires_at, random))
                .await;
        };
        tokio::select! {
            () = due => {}
            () = handle.inner.renew_now.notified() => {}
        }
        renew_until_done(handle).await;
        rest = RENEWAL_INTERVAL_MIN;
    }
}

/// When to renew: two thirds into the life, and up to [`JITTER_SHARE`] of it later.
fn due_at(issued_at: Timestamp, expires_at: Timestamp, random: u32) -> Timestamp {
    let life = expires_at
        .duration_since(issued_at)
        .max(SignedDuration::ZERO);
    let jitter = JITTER_SHARE * f64::from(random) / f64::from(u32::MAX);
    let wait = life.as_secs_f64() * (2.0 / 3.0 + jitter);
    let wait = SignedDuration::try_from_secs_f64(wait).unwrap_or(SignedDuration::ZERO);
    issued_at.saturating_add(wait).unwrap_or(expires_at)
}

async fn renew_until_done(handle: &HostHandle) {
    let mut said = SaidOnce::new();
    let mut backoff = Backoff::between(RETRY_MIN, RETRY_MAX);
    loop {
        match attempt(handle).await {
            Ok(current) => {
                info!(host.id = %current.holder.host_id, expires_at = %current.expires_at, "renewed the host certificate");
                install(handle, current).await;
                return;
            }
            Err(cause) if said.is_new(&cause) => report(handle, &cause),
            Err(cause) => debug!(error = cause, "could not renew the host certificate yet"),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

fn report(handle: &HostHandle, cause: &str) {
    let expires_at = handle.expires_at();
    if expires_at <= handle.inner.clock.now() {
        error!(error = cause, %expires_at, "the host certificate has ended and could not be replaced; trying again");
    } else {
        warn!(error = cause, %expires_at, "could not renew the host certificate yet; trying again");
    }
}

/// Asks once for the next identity.
async fn attempt(handle: &HostHandle) -> Result<Current, String> {
    let expired = handle.expires_at() <= handle.inner.clock.now();
    let reason = if handle.inner.outcast.is() {
        Some("the cluster's CAs were rotated while it was away")
    } else {
        expired.then_some("its certificate has ended")
    };
    let result = match (&handle.inner.renewal.joined, reason) {
        (Some(config), Some(reason)) => {
            let earlier = join::earlier(&handle.inner.current.load());
            match Joining::new(config, Some(&earlier), reason) {
                Ok(joining) => joining.attempt(&handle.inner.clock).await,
                Err(error) => Err(error),
            }
        }
        _ => renew(handle).await,
    };
    result.unwrap_or_else(|error| Err(chain(&error)))
}

async fn renew(handle: &HostHandle) -> Result<Result<Current, String>, HostError> {
    let key = KeyPair::generate()?;
    let request = v1::RenewHostCertificateRequest {
        public_key: key.public_key_der(),
        names: handle.inner.renewal.names.clone(),
    };
    let asked_at = handle.inner.clock.now();
    let mut client = TrustServiceClient::new(handle.auth_channel())
        .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
    let asked = async {
        let certificate = client.renew_host_certificate(request).await?.into_inner();
        let trust = client.get_trust(v1::GetTrustRequest {}).await?.into_inner();
        Ok((certificate, trust))
    };
    let (certificate, trust) = match tokio::time::timeout(ATTEMPT_TIMEOUT, asked).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(status)) => {
            let (Failure::Refused(text) | Failure::Unavailable(text) | Failure::Untrusted(text)) =
                join::classify(&status);
            return Ok(Err(text));
        }
        Err(_) => {
            return Ok(Err(format!(
                "no answer within {} s",
                ATTEMPT_TIMEOUT.as_secs()
            )));
        }
    };
    let trust = TrustBundle::try_from(trust)?;
    Current::new(
        IssuedHost {
            key,
            server_chain_pem: identity::server_chain(&certificate),
            chain_pem: certificate.certificate_pem,
            trust,
        },
        asked_at,
    )
    .map(Ok)
}

/// Takes a new identity into use.
async fn install(handle: &HostHandle, current: Current) {
    let now = handle.inner.clock.now();
    if current.expires_at <= now {
        error!(%now, expires_at = %current.expires_at, "the new host certificate has ended by this machine's clock; set the clock");
    }
    let _installing = handle.inner.installing.lock().await;
    put(handle, current).await;
}

/// Takes an identity into use, and keeps it, while nobody else does. One that cannot be kept is used all the same.
pub(super) async fn put(handle: &HostHandle, current: Current) {
    if let Some(config) = &handle.inner.renewal.joined
        && let Err(error) = join::keep(config, &current).await
    {
        error!(
            error = chain(&error),
            "could not write the renewed host identity; a restart would find the old one"
        );
    }
    handle.inner.current.store(current.into());
    handle.inner.outcast.set(false);
    handle.inner.renewed.send_replace(());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_the_life_or_a_little_later() {
        assert_eq!(due_at(at(0), at(86_400), 0), at(57_600));
        assert_eq!(due_at(at(0), at(86_400), u32::MAX), at(66_240));
    }

    #[test]
    fn a_life_that_makes_no_sense_is_renewed_at_once() {
        assert_eq!(due_at(at(100), at(50), u32::MAX), at(100));
    }
}
