//! Getting the first identity: from disk, with a join token, or by an AWS identity.

pub(super) mod iam;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::ClientConfig;
use secrecy::ExposeSecret;
use tidegate_identity::{
    ALPN_AUTH, KeyPair, SERVER_NAME_AUTH,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{
    self, join_service_client::JoinServiceClient, trust_service_client::TrustServiceClient,
};
use tonic::{Code, Status, transport::Channel};
use tracing::{debug, info, warn};

use super::{
    Current, HostConfig, HostError, IssuedHost, TrustBundle, identity,
    state::{self, Earlier, Stored},
};
use crate::{
    clock::SharedClock,
    rpc::{self, Backoff},
    settings::JoinMethod,
    tasks::ShutdownToken,
    telemetry::SaidOnce,
};

/// How long one attempt to join or renew may take, connecting included.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// What to do with what was found on disk.
enum Start {
    Use(Box<Current>),
    Join {
        earlier: Option<Earlier>,
        reason: String,
    },
}

/// What a failed request means for who sent it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The service said no.
    Refused(String),
    /// No answer, or one that may be another one later.
    Unavailable(String),
    /// Whoever answered is not the service.
    Untrusted(String),
}

pub(super) async fn load_or_join(
    config: &HostConfig,
    clock: &SharedClock,
    shutdown: &ShutdownToken,
) -> Result<Current, HostError> {
    let dir = config.data_dir.clone();
    let stored = blocking(move || state::load(&dir)).await?;
    let (earlier, reason) = match decide(stored, &config.services, clock.now()) {
        Start::Use(current) => {
            info!(host.id = %current.holder.host_id, cluster = %current.cluster, "loaded the host identity");
            return Ok(*current);
        }
        Start::Join { earlier, reason } => (earlier, reason),
    };
    let joining = Joining::new(config, earlier.as_ref(), &reason)?;
    let dir = config.data_dir.clone();
    blocking(move || state::prepare(&dir)).await?;
    info!(reason, "joining the cluster");
    let mut said = SaidOnce::new();
    let mut backoff = Backoff::new();
    let current = loop {
        let attempt = shutdown
            .run_until_cancelled(joining.attempt(clock))
            .await
            .ok_or(HostError::Stopped)?;
        match attempt? {
            Ok(current) => break current,
            Err(cause) if said.is_new(&cause) => warn!(
                error = cause,
                "could not join the cluster yet; trying again"
            ),
            Err(cause) => debug!(error = cause, "could not join the cluster yet"),
        }
        let wait = tokio::time::sleep(backoff.next());
        shutdown
            .run_until_cancelled(wait)
            .await
            .ok_or(HostError::Stopped)?;
    };
    info!(host.id = %current.holder.host_id, cluster = %current.cluster, "joined the cluster");
    keep(config, &current).await?;
    Ok(current)
}

/// Writes an identity to the data directory.
pub(super) async fn keep(config: &HostConfig, current: &Current) -> Result<(), HostError> {
    let (dir, current) = (config.data_dir.clone(), current.clone());
    blocking(move || state::save(&dir, &current)).await
}

async fn blocking<T, F>(work: F) -> Result<T, HostError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, HostError> + Send + 'static,
{
    // It fails only when the runtime shuts down or the work panicked, which its hook has logged.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(HostError::Stopped))
}

/// An identity serves when it is still valid and covers everything that is wanted.
fn decide(stored: Stored, wanted: &[String], now: Timestamp) -> Start {
    let current = match stored {
        Stored::Identity(current) => current,
        Stored::Nothing { earlier, reason } => return Start::Join { earlier, reason },
    };
    let missing = wanted
        .iter()
        .find(|service| !current.holder.services.contains(service));
    let reason = if current.expires_at <= now {
        format!("its certificate ended at {}", current.expires_at)
    } else if let Some(service) = missing {
        format!("its certificate does not cover the service `{service}`")
    } else {
        return Start::Use(current);
    };
    Start::Join {
        earlier: Some(earlier(&current)),
        reason,
    }
}

pub(super) fn earlier(current: &Current) -> Earlier {
    Earlier {
        host_id: current.holder.host_id.clone(),
        trust: TrustBundle::clone(&current.trust),
    }
}

/// Everything that an attempt to join needs. The key is the same for all attempts.
pub(super) struct Joining {
    key: KeyPair,
    request: v1::JoinRequest,
    wanted: Vec<String>,
    way: Way,
}

/// How it is proven that this process may join.
enum Way {
    Iam(iam::Iam),
    Token(TrustServiceClient<Channel>),
}

impl Way {
    fn new(config: &HostConfig, channel: Channel) -> Result<Self, HostError> {
        Ok(match config.join.method {
            JoinMethod::Token => Self::Token(
                TrustServiceClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX),
            ),
            JoinMethod::Iam => Self::Iam(iam::Iam {
                client: JoinServiceClient::new(channel)
                    .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX),
                prover: config.prover.clone().ok_or(HostError::NoProver)?,
            }),
        })
    }

    async fn ask(&self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Failure> {
        match self {
            Self::Iam(iam) => iam.join(request).await,
            Self::Token(client) => match client.clone().join(request).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(classify(&status)),
            },
        }
    }
}

impl Joining {
    /// Checks that there is somebody to ask, a way to know them, and a token.
    pub(super) fn new(
        config: &HostConfig,
        earlier: Option<&Earlier>,
        reason: &str,
    ) -> Result<Self, HostError> {
        let reason = || reason.to_owned();
        let endpoints = config.endpoints();
        if endpoints.addresses().is_empty() {
            return Err(HostError::NoAddress { reason: reason() });
        }
        let Some(token) = &config.join.token else {
            return Err(HostError::NoToken {
                reason: reason(),
                services: config.services.join(","),
            });
        };
        let roots = match earlier {
            _ if !config.join.ca_pins.is_empty() => Roots::Pinned(&config.join.ca_pins),
            Some(earlier) => Roots::Pem(&earlier.trust.host_ca_pem),
            None => return Err(HostError::NoTrust { reason: reason() }),
        };
        let tls: Arc<ClientConfig> = tls::client_config(ClientTls {
            roots,
            identity: None,
            alpn: &[ALPN_AUTH],
        })?;
        let channel = rpc::channel(endpoints, move || Arc::clone(&tls), SERVER_NAME_AUTH);
        let key = KeyPair::generate()?;
        let request = v1::JoinRequest {
            token: token.expose_secret().to_owned(),
            public_key: key.public_key_der(),
            hostname: config.nodename.clone(),
            services: config.services.clone(),
            names: config.names.clone(),
            host_id: earlier
                .map(|earlier| earlier.host_id.to_string())
                .unwrap_or_default(),
        };
        Ok(Self {
            key,
            request,
            wanted: config.services.clone(),
            way: Way::new(config, channel)?,
        })
    }

    /// Asks once. The inner error is a cause that may pass; the outer one will not.
    pub(super) async fn attempt(
        &self,
        clock: &SharedClock,
    ) -> Result<Result<Current, String>, HostError> {
        let asked_at = clock.now();
        let asked = self.way.ask(self.request.clone());
        let failure = match tokio::time::timeout(ATTEMPT_TIMEOUT, asked).await {
            Ok(Ok(answer)) => return self.accept(answer, asked_at).map(Ok),
            Ok(Err(failure)) => failure,
            Err(_) => {
                Failure::Unavailable(format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()))
            }
        };
        match failure {
            Failure::Refused(message) => Err(HostError::Refused { message }),
            Failure::Unavailable(cause) => Ok(Err(cause)),
            Failure::Untrusted(message) => Err(HostError::Untrusted { message }),
        }
    }

    fn accept(&self, answer: v1::JoinResponse, asked_at: Timestamp) -> Result<Current, HostError> {
        let missing = |what: &str| HostError::Answer {
            problem: format!("it has no {what}"),
        };
        let certificate = answer.certificate.ok_or_else(|| missing("certificate"))?;
        let trust: TrustBundle = answer.trust.ok_or_else(|| missing("trust"))?.try_into()?;
        let issued = IssuedHost {
            key: self.key.clone(),
            server_chain_pem: identity::server_chain(&certificate),
            chain_pem: certificate.certificate_pem,
            trust,
        };
        let current = Current::new(issued, asked_at)?;
        match self
            .wanted
            .iter()
            .find(|service| !current.holder.services.contains(service))
        {
            Some(service) => Err(HostError::Answer {
                problem: format!("the certificate does not cover the service `{service}`"),
            }),
            None => Ok(current),
        }
    }
}

/// What a status means for a request that gets or renews an identity.
pub(super) fn classify(status: &Status) -> Failure {
    let text = rpc::describe(status);
    if rpc::connect_error(status).is_some_and(rpc::ConnectError::is_untrusted) {
        return Failure::Untrusted(text);
    }
    match status.code() {
        Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::NotFound
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Failure::Refused(text),
        Code::Aborted
        | Code::Cancelled
        | Code::DataLoss
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Ok
        | Code::ResourceExhausted
        | Code::Unavailable
        | Code::Unknown => Failure::Unavailable(text),
    }
}
