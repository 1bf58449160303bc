//! Callers: IAM users with access keys, and sessions that AssumeRole made.
//!
//! Sessions live in memory, end on the simulation's clock, and are never refreshed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::crypto::{Secret, derived_id, random_base64, random_id};
use crate::iam::{Context, IdentityPolicy, TrustedCaller};
use crate::world::IamName;

/// Sessions kept at once; the one that ends first makes room.
const SESSIONS_MAX: usize = 50_000;

/// What AssumeRole was asked to put into a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionSpec {
    pub(crate) account: String,
    pub(crate) role: String,
    pub(crate) role_arn: String,
    pub(crate) name: String,
    pub(crate) source_identity: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    /// Keys of tags that the next session of the chain inherits.
    pub(crate) transitive: BTreeSet<String>,
    /// Restricts the role's policies further.
    pub(crate) policy: Option<IdentityPolicy>,
}

/// Temporary credentials and who they are.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) spec: SessionSpec,
    pub(crate) access_key: String,
    pub(crate) secret: Secret,
    pub(crate) token: Secret,
    pub(crate) expires_at: Timestamp,
}

/// Who signed a request.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    User {
        /// Of the account: `aws`, `aws-cn` or `aws-us-gov`.
        partition: &'static str,
        account: String,
        name: String,
    },
    Session(Arc<Session>),
}

impl Caller {
    pub(crate) fn account(&self) -> &str {
        match self {
            Self::User { account, .. } => account,
            Self::Session(session) => &session.spec.account,
        }
    }

    /// As GetCallerIdentity and CloudTrail show it.
    pub(crate) fn arn(&self) -> String {
        match self {
            Self::User {
                partition,
                account,
                name,
            } => format!("arn:{partition}:iam::{account}:user/{name}"),
            Self::Session(session) => session.arn(),
        }
    }

    /// `aws:userid`.
    pub(crate) fn user_id(&self) -> String {
        match self {
            Self::User { account, name, .. } => derived_id("AIDA", &format!("{account}/{name}")),
            Self::Session(session) => session.user_id(),
        }
    }

    /// Whether a session policy narrows what its role allows.
    pub(crate) fn is_restricted(&self) -> bool {
        matches!(self, Self::Session(session) if session.spec.policy.is_some())
    }

    /// Whose policies count.
    pub(crate) fn principal(&self) -> IamName {
        match self {
            Self::User { name, .. } => IamName::User(name.clone()),
            Self::Session(session) => IamName::Role(session.spec.role.clone()),
        }
    }

    /// The tags that a session which it starts inherits.
    pub(crate) fn transitive_tags(&self) -> BTreeMap<String, String> {
        let Self::Session(session) = self else {
            return BTreeMap::new();
        };
        let mut tags = session.spec.tags.clone();
        tags.retain(|key, _| session.spec.transitive.contains(key));
        tags
    }

    pub(crate) fn trusted(&self) -> TrustedCaller {
        let role_arn = match self {
            Self::User { .. } => None,
            Self::Session(session) => Some(session.spec.role_arn.clone()),
        };
        TrustedCaller {
            account: self.account().to_owned(),
            arn: self.arn(),
            role_arn,
        }
    }

    /// The global condition keys of this caller.
    pub(crate) fn context(&self, region: &str) -> Context {
        let mut context = Context::default();
        let trusted = self.trusted();
        context
            .set("aws:PrincipalArn", trusted.role_arn.unwrap_or(trusted.arn))
            .set("aws:PrincipalAccount", self.account())
            .set("aws:RequestedRegion", region)
            .set("aws:userid", self.user_id());
        match self {
            Self::User { name, .. } => {
                context.set("aws:username", name.as_str());
            }
            Self::Session(session) => {
                for (key, value) in &session.spec.tags {
                    context.set(&format!("aws:PrincipalTag/{key}"), value.as_str());
                }
                if let Some(source) = &session.spec.source_identity {
                    context.set("aws:SourceIdentity", source.as_str());
                }
            }
        }
        context
    }
}

impl Session {
    /// `ROLEID:session-name`.
    pub(crate) fn user_id(&self) -> String {
        let role = derived_id("AROA", &format!("{}/{}", self.spec.account, self.spec.role));
        format!("{role}:{}", self.spec.name)
    }

    pub(crate) fn arn(&self) -> String {
        let SessionSpec {
            account,
            role,
            role_arn,
            name,
            ..
        } = &self.spec;
        let partition = role_arn.split(':').nth(1).unwrap_or("aws");
        format!("arn:{partition}:sts::{account}:assumed-role/{role}/{name}")
    }
}

/// Every session by its access key.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_key: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// Makes temporary credentials.
    pub(crate) fn start(&self, spec: SessionSpec, expires_at: Timestamp) -> Arc<Session> {
        let session = Arc::new(Session {
            spec,
            access_key: random_id("ASIA"),
            secret: Secret::new(random_base64::<30>()),
            token: Secret::new(random_base64::<270>()),
            expires_at,
        });
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if by_key.len() >= SESSIONS_MAX {
            let first = by_key
                .values()
                .min_by_key(|s| s.expires_at)
                .map(|s| s.access_key.clone());
            first.map(|key| by_key.remove(&key));
        }
        by_key.insert(session.access_key.clone(), Arc::clone(&session));
        session
    }

    /// The session of an access key, ended or not.
    pub(crate) fn find(&self, access_key: &str) -> Option<Arc<Session>> {
        self.by_key
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(access_key)
            .cloned()
    }

    /// Ends all sessions of a role.
    pub(crate) fn forget_role(&self, account: &str, role: &str) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key
            .retain(|_, session| (&*session.spec.account, &*session.spec.role) != (account, role));
    }
}
