//! One identity: certificate, key and trust that belong together.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tidegate_core::ClusterName;
use tidegate_identity::{
    Holder, HostHolder, KeyPair, PeerIdentity,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1;

use super::HostError;

/// Whom a member of the cluster trusts. Each PEM text may hold several CAs while a rotation is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    /// The cluster.
    pub cluster: ClusterName,
    /// CAs of services.
    pub host_ca_pem: String,
    /// CAs of people.
    pub user_ca_pem: String,
    /// CAs of what agents show to clients.
    pub db_ca_pem: String,
}

impl TryFrom<v1::Trust> for TrustBundle {
    type Error = HostError;

    fn try_from(trust: v1::Trust) -> Result<Self, HostError> {
        let cluster = trust.cluster.parse().map_err(|error| HostError::Answer {
            problem: format!("{error}"),
        })?;
        for pem in [&trust.host_ca_pem, &trust.user_ca_pem, &trust.db_ca_pem] {
            tls::first_certificate_der(pem)?;
        }
        Ok(Self {
            cluster,
            host_ca_pem: trust.host_ca_pem,
            user_ca_pem: trust.user_ca_pem,
            db_ca_pem: trust.db_ca_pem,
        })
    }
}

/// An identity that was issued to this process by an auth service inside it.
#[derive(Clone, Debug)]
pub struct IssuedHost {
    /// The key that the certificate is for.
    pub key: KeyPair,
    /// The certificate, then its CA, in PEM.
    pub chain_pem: String,
    /// Whom to trust.
    pub trust: TrustBundle,
}

/// One identity, complete and consistent.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) key: KeyPair,
    pub(crate) chain_pem: String,
    pub(crate) cluster: ClusterName,
    pub(crate) holder: HostHolder,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) trust: Arc<TrustBundle>,
    /// With this identity and trust, and no ALPN yet.
    pub(crate) client_tls: Arc<ClientConfig>,
}

impl Current {
    /// Checks that the parts belong together.
    pub(crate) fn new(issued: IssuedHost, issued_at: Timestamp) -> Result<Self, HostError> {
        let peer = PeerIdentity::from_der(&tls::first_certificate_der(&issued.chain_pem)?)?;
        let Holder::Host(holder) = peer.holder else {
            return Err(HostError::Answer {
                problem: "the certificate is a person's, not a service's".to_owned(),
            });
        };
        if peer.cluster != issued.trust.cluster {
            let problem = format!(
                "the certificate is for cluster {}, not {}",
                peer.cluster, issued.trust.cluster
            );
            return Err(HostError::Answer { problem });
        }
        let client_tls = tls::client_config(ClientTls {
            roots: Roots::Pem(&issued.trust.host_ca_pem),
            identity: Some((&issued.chain_pem, &issued.key)),
            alpn: &[],
        })?;
        Ok(Self {
            key: issued.key,
            chain_pem: issued.chain_pem,
            cluster: peer.cluster,
            holder,
            issued_at,
            expires_at: peer.expires_at,
            trust: Arc::new(issued.trust),
            client_tls,
        })
    }

    pub(crate) fn client_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.client_tls);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}
