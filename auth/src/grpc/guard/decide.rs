//! Whether a caller may pass. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use tidegate_core::{ClusterName, Lock, Policy};
use tidegate_service::rpc::Peer;
use tonic::{Code, Status};

use super::{
    REASON_NOT_ALLOWED,
    caller::Caller,
    table::{Callers, People, Requirement},
};
use crate::{
    access::locks::{self, Known},
    grpc::status::refuse,
};

/// What a decision needs to know of the cluster.
pub(super) struct Cluster<'c> {
    pub(super) name: &'c ClusterName,
    pub(super) now: Timestamp,
    pub(super) policy: &'c Arc<Policy>,
    pub(super) locks: &'c Known,
    pub(super) has_account: &'c dyn Fn(&str) -> bool,
}

/// Why somebody was not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    AccountGone,
    CertificateExpired,
    /// What the lock says.
    Locked(String),
    /// Who or what ended it.
    LoginEnded(String),
    NoCertificate,
    /// What is missing.
    NotAllowed(String),
    OtherCluster,
    UnknownMethod,
}

impl Refusal {
    /// What a lock that strikes comes to.
    pub(super) fn of_lock(lock: &Lock) -> Self {
        if lock.target.is_of_logins() {
            Self::LoginEnded(format!(
                "your login has ended ({}): log in again",
                lock.message
            ))
        } else {
            Self::Locked(locks::told(lock))
        }
    }

    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::AccountGone => "ACCOUNT_GONE",
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::Locked(_) => "LOCKED",
            Self::LoginEnded(_) => "LOGIN_ENDED",
            Self::NoCertificate => "NO_CERTIFICATE",
            Self::NotAllowed(_) => REASON_NOT_ALLOWED,
            Self::OtherCluster => "OTHER_CLUSTER",
            Self::UnknownMethod => "UNKNOWN_METHOD",
        }
    }

    pub(super) fn status(&self) -> Status {
        let (code, message) = match self {
            Self::AccountGone => (Code::Unauthenticated, "your user was deleted"),
            Self::CertificateExpired => (
                Code::Unauthenticated,
                "your certificate has expired: log in again",
            ),
            Self::Locked(message) | Self::NotAllowed(message) => {
                (Code::PermissionDenied, message.as_str())
            }
            Self::LoginEnded(message) => (Code::Unauthenticated, message.as_str()),
            Self::NoCertificate => (
                Code::Unauthenticated,
                "this needs a certificate: log in, or join, first",
            ),
            Self::OtherCluster => (
                Code::Unauthenticated,
                "your certificate is of another cluster",
            ),
            Self::UnknownMethod => (Code::Unimplemented, "this service has no such method"),
        };
        refuse(code, self.reason(), message)
    }
}

/// Whether a peer may call a method that requires this.
pub(super) fn decide(
    requirement: Requirement,
    peer: &Peer,
    cluster: &Cluster<'_>,
) -> Result<Caller, Refusal> {
    let known = || Caller::known(peer, cluster.policy);
    let callers = match requirement {
        Requirement::Elsewhere => return Err(Refusal::UnknownMethod),
        // A certificate is not looked at: whoever lost the right to one must be able to log in or join again.
        Requirement::Public => return Ok(known().unwrap_or(Caller::Anonymous)),
        Requirement::Callers(callers) => callers,
    };
    if let Peer::Certified(identity) = peer {
        if identity.cluster != *cluster.name {
            return Err(Refusal::OtherCluster);
        }
        if identity.expires_at <= cluster.now {
            return Err(Refusal::CertificateExpired);
        }
    }
    let caller = known().ok_or(Refusal::NoCertificate)?;
    if let Caller::User(person) = &caller
        && !(cluster.has_account)(&person.holder.name)
    {
        return Err(Refusal::AccountGone);
    }
    if let Some(lock) = cluster.locks.strikes(caller.facts(), cluster.now) {
        return Err(Refusal::of_lock(lock));
    }
    match missing(callers, &caller) {
        None => Ok(caller),
        Some(missing) => Err(Refusal::NotAllowed(missing)),
    }
}

/// What a caller lacks.
fn missing(callers: Callers, caller: &Caller) -> Option<String> {
    let no = |text: &str| Some(text.to_owned());
    match caller {
        Caller::Anonymous => no("this needs a certificate"),
        Caller::Local if callers.local => None,
        Caller::Local => no("only holders of a certificate may call this"),
        Caller::Host(_, host) => match callers.hosts {
            None => no("only people may call this"),
            Some([]) => None,
            Some(services)
                if host
                    .services
                    .iter()
                    .any(|own| services.contains(&own.as_str())) =>
            {
                None
            }
            Some(services) => Some(format!(
                "only hosts that run one of {} may call this",
                services.join(", ")
            )),
        },
        Caller::User(person) => match callers.people {
            People::Nobody => no("only hosts of the cluster may call this"),
            People::AllCertificates => None,
            _ if person.is_bound() => no("your certificate opens one database and nothing else"),
            People::All => None,
            People::Whole(needs) => person.may_whole(needs).err(),
            People::Each(needs) => person.may_each(needs).err(),
        },
    }
}
