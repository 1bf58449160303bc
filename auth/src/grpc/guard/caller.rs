//! Who called, and what that somebody may do.

use std::sync::Arc;

use jiff::Timestamp;
use tidegate_core::{
    Policy, Subject, Traits,
    access::{Outcome, Rule, Target, Verb},
    locks::LockFacts,
};
use tidegate_identity::{Holder, HostHolder, PeerIdentity, UserHolder};
use tidegate_service::rpc::Peer;
use tonic::{Code, Request, Status};

use super::table::{Need, SEE_DATABASES};
use crate::{grpc::status::refuse, inventory::Viewer};

/// Somebody who was let through.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Nobody known.
    Anonymous,
    /// A service.
    Host(Arc<PeerIdentity>, HostHolder),
    /// Root or the service's user on this machine.
    Local,
    /// A person.
    User(Box<Person>),
}

/// A person, with the roles of the certificate as they are defined now.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    identity: Arc<PeerIdentity>,
    pub(super) holder: UserHolder,
    subject: Subject,
    policy: Arc<Policy>,
}

impl Caller {
    /// Who is at the other end of a connection, if it said so.
    pub(super) fn known(peer: &Peer, policy: &Arc<Policy>) -> Option<Self> {
        match peer {
            Peer::Anonymous => None,
            Peer::Local => Some(Self::Local),
            Peer::Certified(identity) => Some(match &identity.holder {
                Holder::Host(host) => Self::Host(identity.clone(), host.clone()),
                Holder::User(user) => Self::User(Box::new(Person {
                    identity: identity.clone(),
                    subject: user.subject(),
                    holder: user.clone(),
                    policy: policy.clone(),
                })),
            }),
        }
    }

    /// Who sent a request. The guard has put it there.
    pub(in crate::grpc) fn of<T>(request: &Request<T>) -> Self {
        let caller = request.extensions().get::<Self>();
        caller.cloned().unwrap_or(Self::Anonymous)
    }

    /// What it may see of the inventory.
    pub(in crate::grpc) fn viewer(&self) -> Viewer {
        match self {
            Self::Host(..) | Self::Local => Viewer::All,
            Self::User(person) if person.may_whole(SEE_DATABASES).is_ok() => Viewer::AllByRule,
            Self::User(person) => Viewer::Person(person.subject.clone()),
            Self::Anonymous => Viewer::Person(Subject {
                user: String::new(),
                roles: Vec::new(),
                traits: Traits::new(),
            }),
        }
    }

    /// Its name in the audit log.
    pub(in crate::grpc) fn actor(&self) -> String {
        match self {
            Self::Anonymous => String::new(),
            Self::Host(_, host) => host.host_id.to_string(),
            Self::Local => "local administrator".to_owned(),
            Self::User(person) => person.holder.name.clone(),
        }
    }

    /// The host that it is.
    pub(in crate::grpc) fn host(&self) -> Result<&HostHolder, Status> {
        match self {
            Self::Host(_, host) => Ok(host),
            _ => Err(denied("only hosts of the cluster may call this")),
        }
    }

    /// The person that it is, and until when it is known.
    pub(in crate::grpc) fn user(&self) -> Result<(&UserHolder, Timestamp), Status> {
        match self {
            Self::User(person) => Ok((&person.holder, person.identity.expires_at)),
            _ => Err(denied("only people who logged in may call this")),
        }
    }

    /// The certificate that it showed.
    pub(in crate::grpc) const fn identity(&self) -> Option<&Arc<PeerIdentity>> {
        match self {
            Self::Host(identity, _) => Some(identity),
            Self::User(person) => Some(&person.identity),
            Self::Anonymous | Self::Local => None,
        }
    }

    /// Refuses a person whose roles do not allow all of this with one resource. Others were let through by the table.
    pub(in crate::grpc) fn may(
        &self,
        kind: &str,
        name: &str,
        verbs: &[Verb],
    ) -> Result<(), Status> {
        let Self::User(person) = self else {
            return Ok(());
        };
        let target = Target::named(kind, name);
        verbs
            .iter()
            .try_for_each(|verb| person.may(target, *verb))
            .map_err(denied)
    }

    /// Whether it may see a resource in a listing.
    pub(in crate::grpc) fn sees(&self, kind: &str, name: &str) -> bool {
        let verbs = [Verb::List, Verb::ReadNoSecrets];
        self.may(kind, name, &verbs).is_ok()
    }

    /// What locks may strike.
    pub(super) fn facts(&self) -> LockFacts<'_> {
        match self {
            Self::Anonymous | Self::Local => LockFacts::default(),
            Self::Host(_, host) => LockFacts {
                host_id: Some(host.host_id.as_str()),
                hostname: Some(&host.hostname),
                ..LockFacts::default()
            },
            Self::User(person) => LockFacts {
                user: Some(&person.holder.name),
                roles: &person.holder.roles,
                access_requests: &person.holder.access_requests,
                login: person.holder.login.as_ref().into(),
                ..LockFacts::default()
            },
        }
    }
}

impl Person {
    /// Whether the certificate opens one database only.
    pub(super) const fn is_bound(&self) -> bool {
        self.holder.route.is_some()
    }

    fn may(&self, target: Target<'_>, verb: Verb) -> Result<(), String> {
        let explained = self.policy.may(&self.subject, target, verb);
        match &explained.outcome {
            Outcome::Allowed { .. } => Ok(()),
            Outcome::Denied { role, .. } => Err(forbids(role, target.kind, verb)),
            _ => Err(self.lacks(target.kind, verb)),
        }
    }

    /// Whether the roles allow all of this, whatever the resource. A deny that hangs on the resource cannot be told
    /// here, and so counts.
    pub(super) fn may_whole(&self, needs: &[Need]) -> Result<(), String> {
        needs.iter().try_for_each(|(kind, verb)| {
            self.may(Target::kind(kind), *verb)?;
            match self.denying(|rule| rule.covers(kind, *verb)) {
                None => Ok(()),
                Some(role) => Err(forbids(role, kind, *verb)),
            }
        })
    }

    /// Whether the roles allow all of this with some resource.
    pub(super) fn may_each(&self, needs: &[Need]) -> Result<(), String> {
        let grants = self.policy.grants(&self.subject);
        needs.iter().try_for_each(|(kind, verb)| {
            if grants.may_some(kind, *verb) {
                return Ok(());
            }
            let denies = |rule: &Rule| rule.covers(kind, *verb) && rule.filter.is_none();
            match self.denying(denies) {
                None => Err(self.lacks(kind, *verb)),
                Some(role) => Err(forbids(role, kind, *verb)),
            }
        })
    }

    /// The first role with a deny rule like this.
    fn denying(&self, rule: impl Fn(&Rule) -> bool) -> Option<&str> {
        let names = self.subject.roles.iter().map(String::as_str);
        let mut roles = names.filter_map(|name| self.policy.role(name));
        roles
            .find(|role| role.deny.rules.iter().any(&rule))
            .map(|role| role.name.as_str())
    }

    fn lacks(&self, kind: &str, verb: Verb) -> String {
        let verb = verb.as_str();
        if self.subject.roles.is_empty() {
            return format!("you have no role, and need one with a rule for `{verb}` on `{kind}`");
        }
        let roles = self.subject.roles.join("`, `");
        format!("no rule of your roles (`{roles}`) allows `{verb}` on `{kind}`")
    }
}

fn forbids(role: &str, kind: &str, verb: Verb) -> String {
    let verb = verb.as_str();
    format!("role `{role}` denies `{verb}` on `{kind}`")
}

pub(super) fn denied(message: impl Into<String>) -> Status {
    refuse(Code::PermissionDenied, super::REASON_NOT_ALLOWED, message)
}
