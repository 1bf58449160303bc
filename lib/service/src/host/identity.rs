//! One identity: certificate, key and trust that belong together.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tidegate_core::ClusterName;
use tidegate_identity::{
    CaPin, Holder, HostHolder, KeyPair, PeerIdentity,
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
    /// What to show as a server, where that is another certificate, for the same key: see [`server_chain`].
    pub server_chain_pem: Option<String>,
    /// Whom to trust.
    pub trust: TrustBundle,
}

/// What an issued certificate says to show as a server, where that is not what is shown as a client: a rotation of the
/// host CA reaches clients before it reaches servers.
pub(crate) fn server_chain(certificate: &v1::HostCertificate) -> Option<String> {
    Some(&certificate.server_certificate_pem)
        .filter(|chain| !chain.is_empty())
        .cloned()
}

/// One identity, complete and consistent.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) key: KeyPair,
    pub(crate) chain_pem: String,
    /// Where it is another one than `chain_pem`.
    pub(crate) server_chain_pem: Option<String>,
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
        if let Some(chain) = &issued.server_chain_pem
            && !tls::certifies(chain, &issued.key)?
        {
            return Err(HostError::Answer {
                problem: "the certificate to show as a server is for another key".to_owned(),
            });
        }
        let client_tls = tls::client_config(ClientTls {
            roots: Roots::Pem(&issued.trust.host_ca_pem),
            identity: Some((&issued.chain_pem, &issued.key)),
            alpn: &[],
        })?;
        Ok(Self {
            key: issued.key,
            chain_pem: issued.chain_pem,
            server_chain_pem: issued.server_chain_pem,
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

    /// What is shown as a server.
    pub(crate) fn server_chain_pem(&self) -> &str {
        self.server_chain_pem.as_ref().unwrap_or(&self.chain_pem)
    }

    /// The same certificate and key with other trust.
    pub(crate) fn trusting(&self, trust: TrustBundle) -> Result<Self, HostError> {
        Self::new(
            IssuedHost {
                key: self.key.clone(),
                chain_pem: self.chain_pem.clone(),
                server_chain_pem: self.server_chain_pem.clone(),
                trust,
            },
            self.issued_at,
        )
    }

    /// Whether its certificates are of the CAs that sign such now.
    pub(crate) fn is_signed_by(&self, client: CaPin, server: CaPin) -> bool {
        let signed_by =
            |chain: &str, wanted| CaPin::of_signer(chain).is_ok_and(|pin| pin == wanted);
        signed_by(&self.chain_pem, client) && signed_by(self.server_chain_pem(), server)
    }
}
