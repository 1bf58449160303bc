//! Joining: a token becomes a host certificate, and a host certificate a fresh one.
//!
//! Invariant: a certificate never names more services than its token or its predecessor allowed, and never carries a
//! name by which the auth service or another service's role is known.

mod admit;
mod facts;
pub(crate) mod iam;
mod names;
mod proof;
pub(crate) mod sts;

use std::net::SocketAddr;

use tidegate_identity::{HostHolder, Issued};
use tidegate_proto::{Invalid, convert, v1};

use super::{Access, AccessError};
use crate::authority::HostRequest;
pub(crate) use admit::Joins;
use admit::Proven;
use facts::JoinFacts;
use names::check_names;
pub(crate) use names::new_host_id;

/// Longest name of a host for people.
const HOSTNAME_CHARS_MAX: usize = 255;
/// What is said of a token that opens nothing.
const JOIN_REFUSED: &str = "the join token is wrong or expired";

impl Access {
    /// Lets in a process that knows a token's secret.
    pub(crate) async fn join(
        &self,
        request: v1::JoinRequest,
        remote: Option<SocketAddr>,
    ) -> Result<v1::JoinResponse, AccessError> {
        let mut facts = JoinFacts::of(&request, remote);
        let joined = self.admit(&request, Proven::Secret, &mut facts).await;
        self.tell_join(&facts, joined.as_ref());
        joined
    }

    /// A fresh certificate for a host, of the same services.
    pub(crate) fn renew(
        &self,
        holder: &HostHolder,
        request: &v1::RenewHostCertificateRequest,
    ) -> Result<v1::HostCertificate, AccessError> {
        self.host_certificate(holder, &request.public_key, &request.names)
    }

    /// What an agent shows to clients.
    pub(crate) fn issue_database_server(
        &self,
        public_key: &[u8],
    ) -> Result<v1::HostCertificate, AccessError> {
        let issued = self
            .parts
            .authority
            .issue_database_server(public_key)
            .map_err(|error| Invalid::new("public_key", error))?;
        Ok(certificate(issued))
    }

    fn host_certificate(
        &self,
        holder: &HostHolder,
        public_key: &[u8],
        names: &[String],
    ) -> Result<v1::HostCertificate, AccessError> {
        // Only proxies are reached by names of their own.
        let names = if holder.services.iter().any(|service| service == "proxy") {
            check_names(names)?;
            names
        } else {
            &[]
        };
        let issued = self.parts.authority.issue_host(HostRequest {
            public_key,
            host_id: &holder.host_id,
            hostname: &holder.hostname,
            services: &holder.services,
            names,
        });
        let issued = issued.map_err(|error| Invalid::new("public_key", error))?;
        Ok(issued.into())
    }
}

/// Whether a token of these types lets a service in. An agent may discover too: `db_service.aws` is a worker of its own
/// beside the agent, and people join such agents with a token for `db`.
fn allows(types: &[String], service: &str) -> bool {
    types
        .iter()
        .any(|kind| kind == service || (kind == "db" && service == "discovery"))
}

fn certificate(issued: Issued) -> v1::HostCertificate {
    v1::HostCertificate {
        certificate_pem: issued.chain_pem,
        expires_at: Some(convert::timestamp(issued.expires_at)),
        server_certificate_pem: String::new(),
    }
}
