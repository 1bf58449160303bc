//! Joining: a token becomes a host certificate, and a host certificate a fresh one.
//!
//! Invariant: a certificate never names more services than its token or its predecessor allowed, and never carries a
//! name by which the auth service or another service's role is known.

use std::net::IpAddr;

use tidegate_core::{HostId, locks::LockFacts};
use tidegate_identity::{HostHolder, Issued};
use tidegate_proto::{Invalid, convert, v1};

use super::{Access, AccessError};
use crate::{audit::event, authority::HostRequest};

/// Most DNS names and addresses of a host.
const NAMES_MAX: usize = 32;
/// Longest name of a host for people.
const HOSTNAME_CHARS_MAX: usize = 255;
/// The domain of the names that only services of a kind carry.
const RESERVED_DOMAIN: &str = "tidegate.internal";
/// What is said of a token that opens nothing.
const JOIN_REFUSED: &str = "the join token is wrong or expired";

impl Access {
    /// Lets a process in.
    pub(crate) async fn join(
        &self,
        request: v1::JoinRequest,
        remote: Option<std::net::SocketAddr>,
    ) -> Result<v1::JoinResponse, AccessError> {
        let hostname: String = request.hostname.chars().take(HOSTNAME_CHARS_MAX).collect();
        let services = request.services.join(",");
        let outcome = self.try_join(request).await;
        let mut told = event::new(if outcome.is_ok() {
            event::JOIN
        } else {
            event::JOIN_FAILED
        });
        match &outcome {
            Ok(joined) => told.server_id.clone_from(&joined.host_id),
            Err(error) => told.error = error.to_string(),
        }
        for (key, value) in [("host", hostname.clone()), ("roles", services)] {
            told.fields.insert(key.to_owned(), value);
        }
        if let Some(remote) = remote {
            told.fields
                .insert("addr.remote".to_owned(), remote.to_string());
        }
        self.parts.audit.record(told);
        match &outcome {
            Ok(joined) => {
                tracing::info!(
                    host.id = joined.host_id,
                    host.name = hostname,
                    "a host joined"
                );
            }
            Err(error) => {
                tracing::warn!(host.name = hostname, error = %error, "a host was not let in")
            }
        }
        outcome
    }

    async fn try_join(&self, request: v1::JoinRequest) -> Result<v1::JoinResponse, AccessError> {
        let types = self.token_types(&request.token).await?;
        let types = types.ok_or(AccessError::Unproven(JOIN_REFUSED))?;
        if request.services.is_empty() {
            return Err(Invalid::new("services", "must name what the process runs").into());
        }
        if let Some(service) = request
            .services
            .iter()
            .find(|service| !allows(&types, service))
        {
            let message = format!(
                "the join token does not allow `{service}`: it allows {}",
                types.join(", ")
            );
            return Err(AccessError::Denied {
                reason: "SERVICE_NOT_ALLOWED",
                message,
            });
        }
        let holder = HostHolder {
            host_id: self.host_id(&request.host_id)?,
            services: request.services,
            hostname: checked_hostname(request.hostname)?,
        };
        let host_id = holder.host_id.to_string();
        self.refuse_locked(LockFacts {
            host_id: Some(&host_id),
            hostname: Some(&holder.hostname),
            ..LockFacts::default()
        })?;
        let issued = self.host_certificate(&holder, &request.public_key, &request.names)?;
        Ok(v1::JoinResponse {
            host_id: holder.host_id.to_string(),
            certificate: Some(certificate(issued)),
            trust: Some(self.parts.authority.trust()),
        })
    }

    /// The id that the process had, or a new one when it had none or when one of that id is up: a token must not be a
    /// way to become another host.
    fn host_id(&self, kept: &str) -> Result<HostId, AccessError> {
        if !kept.is_empty() {
            let id: HostId = kept
                .parse()
                .map_err(|error| Invalid::new("host_id", error))?;
            let from = (kept.to_owned(), String::new());
            let is_up = self
                .parts
                .inventory
                .tables()
                .hosts
                .range(from..)
                .next()
                .is_some_and(|((host, _), _)| host == kept);
            if !is_up {
                return Ok(id);
            }
        }
        new_host_id()
    }

    /// A fresh certificate for a host, of the same services.
    pub(crate) fn renew(
        &self,
        holder: &HostHolder,
        request: &v1::RenewHostCertificateRequest,
    ) -> Result<v1::HostCertificate, AccessError> {
        let issued = self.host_certificate(holder, &request.public_key, &request.names)?;
        Ok(certificate(issued))
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
    ) -> Result<Issued, AccessError> {
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
        Ok(issued.map_err(|error| Invalid::new("public_key", error))?)
    }
}

/// Whether a token of these types lets a service in. An agent may discover too: `db_service.aws` is a worker of its own
/// beside the agent, and people join such agents with a token for `db`.
fn allows(types: &[String], service: &str) -> bool {
    types
        .iter()
        .any(|kind| kind == service || (kind == "db" && service == "discovery"))
}

/// A new id for a process.
pub(crate) fn new_host_id() -> Result<HostId, AccessError> {
    uuid::Uuid::new_v4()
        .to_string()
        .parse()
        .map_err(|error: tidegate_core::InvalidId| AccessError::Internal {
            doing: "making a host id",
            source: error.into(),
        })
}

fn certificate(issued: Issued) -> v1::HostCertificate {
    v1::HostCertificate {
        certificate_pem: issued.chain_pem,
        expires_at: Some(convert::timestamp(issued.expires_at)),
    }
}

fn checked_hostname(hostname: String) -> Result<String, Invalid> {
    let sound = (1..=HOSTNAME_CHARS_MAX).contains(&hostname.len())
        && !hostname.chars().any(char::is_control);
    if sound {
        Ok(hostname)
    } else {
        let problem = format!("must be 1 to {HOSTNAME_CHARS_MAX} printable characters");
        Err(Invalid::new("hostname", problem))
    }
}

/// Names that a host certificate may carry: DNS names or addresses, and none that stands for a service.
fn check_names(names: &[String]) -> Result<(), Invalid> {
    if names.len() > NAMES_MAX {
        return Err(Invalid::new("names", format!("are more than {NAMES_MAX}")));
    }
    for name in names {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        let is_dns = (1..=253).contains(&plain.len())
            && plain.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            });
        if name.parse::<IpAddr>().is_err() && !is_dns {
            let problem = format!("`{name}` is neither a DNS name nor an address");
            return Err(Invalid::new("names", problem));
        }
        if plain.to_ascii_lowercase().ends_with(RESERVED_DOMAIN) {
            let problem = format!("`{name}` stands for a service and cannot be asked for");
            return Err(Invalid::new("names", problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_stand_for_a_service_cannot_be_asked_for() {
        let check = |name: &str| check_names(&[name.to_owned()]);
        for good in [
            "proxy.example.com",
            "10.0.0.1",
            "::1",
            "*.proxy.example.com",
            "localhost",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "auth.tidegate.internal",
            "AUTH.Tidegate.Internal",
            "*.tidegate.internal",
            "tidegate.internal",
            "",
            "a b",
            "a..b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check_names(&vec!["a".to_owned(); NAMES_MAX + 1]).is_err());
    }
}
