//! A host of the cluster as a real one is: joined with a token, with a certificate and TLS connections of its own.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use rustls::ClientConfig;
use tidegate_e2e::Lab;
use tidegate_identity::{
    ALPN_AUTH, CaPin, KeyPair, SERVER_NAME_AUTH,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{
    self, access_service_client::AccessServiceClient, trust_service_client::TrustServiceClient,
};
use tidegate_service::rpc::{self, Endpoints};
use tonic::transport::Channel;

/// Hosts that join at once.
const JOINS_MAX: usize = 16;

/// Makes members of a cluster.
#[derive(Clone)]
pub(super) struct Gate {
    trust: TrustServiceClient<Channel>,
    token: String,
    address: String,
}

impl Gate {
    /// Finds out what newcomers have to know.
    pub(super) async fn of(lab: &Lab) -> Result<Self> {
        let status = AccessServiceClient::new(lab.admin())
            .get_cluster_status(v1::GetClusterStatusRequest {})
            .await?
            .into_inner();
        let pins: Vec<CaPin> = status
            .ca_pins
            .iter()
            .map(|pin| pin.parse())
            .collect::<Result<_, _>>()?;
        let config = tls::client_config(ClientTls {
            roots: Roots::Pinned(&pins),
            identity: None,
            alpn: &[ALPN_AUTH],
        })?;
        let address = lab.auth_addr();
        let channel = rpc::channel(
            Endpoints::new([address.as_str()]),
            move || Arc::clone(&config),
            SERVER_NAME_AUTH,
        );
        let token = std::fs::read_to_string(lab.dir().join("token"))?;
        Ok(Self {
            trust: TrustServiceClient::new(channel),
            token: token.trim().to_owned(),
            address,
        })
    }

    /// Joins a new host that may run `service`.
    pub(super) async fn join(&self, hostname: &str, service: &str) -> Result<Member> {
        let key = KeyPair::generate()?;
        let request = v1::JoinRequest {
            token: self.token.clone(),
            public_key: key.public_key_der(),
            hostname: hostname.to_owned(),
            services: vec![service.to_owned()],
            ..v1::JoinRequest::default()
        };
        let answer = self.trust.clone().join(request).await?.into_inner();
        let chain = answer
            .certificate
            .context("no certificate")?
            .certificate_pem;
        let trust = answer.trust.context("no trust")?;
        let config = tls::client_config(ClientTls {
            roots: Roots::Pem(&trust.host_ca_pem),
            identity: Some((&chain, &key)),
            alpn: &[ALPN_AUTH],
        })?;
        Ok(Member {
            address: self.address.clone(),
            config,
        })
    }

    /// Joins so many hosts that may run `service`.
    pub(super) async fn join_many(&self, count: usize, service: &str) -> Result<Vec<Member>> {
        stream::iter(0..count)
            .map(|number| async move { self.join(&format!("{service}-{number}"), service).await })
            .buffered(JOINS_MAX)
            .try_collect()
            .await
    }
}

/// Somebody who may connect.
pub(super) struct Member {
    address: String,
    config: Arc<ClientConfig>,
}

impl Member {
    /// Somebody who knows a server by its CA, and is unknown to it.
    pub(super) fn stranger(address: String, ca_pem: &str) -> Result<Self> {
        let config = tls::client_config(ClientTls {
            roots: Roots::Pem(ca_pem),
            identity: None,
            alpn: &[ALPN_AUTH],
        })?;
        Ok(Self { address, config })
    }

    /// A connection of its own, which opens with its first request.
    pub(super) fn channel(&self) -> Channel {
        let config = Arc::clone(&self.config);
        let endpoints = Endpoints::new([self.address.as_str()]);
        rpc::channel(endpoints, move || Arc::clone(&config), SERVER_NAME_AUTH)
    }
}
