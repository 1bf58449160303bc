//! People, roles, join tokens, and the certificates they are exchanged for.
//!
//! Secrets that people or services hand in are stored as digests: SHA-256 for tokens of 128 random bits, Argon2id for
//! passwords. Tokens live with a lease of the store, so that forgotten ones do not pile up; their expiry is checked by
//! the clock all the same.

mod amend;
mod explain;
mod factors;
pub(crate) mod join;
mod lockout;
pub(crate) mod locks;
mod login;
mod passwords;
mod people;
mod proof;
mod records;
pub(crate) mod requests;
mod roles;
mod sessions;
pub(crate) mod tokens;

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret as _;
use tidegate_core::access::RoleProblem;
use tidegate_identity::{IdentityError, secret};
use tidegate_proto::{Invalid, convert};
use tidegate_service::{
    clock::SharedClock,
    settings::{SecondFactor, StaticToken, StsEndpoint},
};

use crate::{
    audit::AuditLog,
    authority::Authority,
    inventory::Inventory,
    record::RecordError,
    store::{BoxError, CommitError, Entry, RangeQuery, Store, StoreUnavailable},
};
pub(crate) use join::new_host_id;
use join::{
    Joins,
    iam::IamError,
    sts::{Sts, Way},
};
use lockout::Lockout;
use locks::Locks;
use passwords::{PasswordError, Passwords};
pub(crate) use people::shown as shown_user;
use requests::RequestParts;
pub(crate) use sessions::{Cause, Which};
pub(crate) use tokens::shown_token;

/// Life of a token when nothing else is asked for.
const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// Longest life of a token.
const TOKEN_TTL_MAX: Duration = Duration::from_secs(48 * 3600);

/// Why something about people, roles or tokens was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// Too much is asked at once.
    #[error("too many logins at once: try again in a moment")]
    Busy,
    /// Somebody else changed the same thing.
    #[error("{what} was changed at the same time: try again")]
    Conflict {
        /// What.
        what: &'static str,
    },
    /// The secret that was shown does not allow it.
    #[error("{message}")]
    Denied {
        /// Stable name of the reason.
        reason: &'static str,
        /// For the caller.
        message: String,
    },
    /// There is one already.
    #[error("{what} `{name}` exists already")]
    Exists {
        /// What.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// It may not be done, whoever asks.
    #[error("{message}")]
    Forbidden {
        /// Stable name of the reason.
        reason: &'static str,
        /// For the caller.
        message: String,
    },
    /// Somebody did not join by its AWS identity.
    #[error(transparent)]
    Iam(#[from] IamError),
    /// A fault of ours.
    #[error("{doing} failed")]
    Internal {
        /// What was done.
        doing: &'static str,
        /// Why it failed.
        source: BoxError,
    },
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Too many wrong passwords.
    #[error("too many failed logins: try again in {} s", .wait.as_secs().max(1))]
    LockedOut {
        /// How long until the next try counts.
        wait: Duration,
    },
    /// There is none.
    #[error("no {what} `{name}`")]
    NotFound {
        /// What.
        what: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// A role has parts that cannot be used.
    #[error("{}", listed(.0))]
    Role(Vec<RoleProblem>),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
    /// The secret is wrong, used up or expired. Which of them is not told.
    #[error("{0}")]
    Unproven(&'static str),
}

impl AccessError {
    fn forbidden(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Forbidden {
            reason,
            message: message.into(),
        }
    }

    fn commit(what: &'static str, error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::Conflict { what },
            CommitError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            other => Self::Internal {
                doing: "writing the state store",
                source: other.into(),
            },
        }
    }
}

impl From<RecordError> for AccessError {
    fn from(error: RecordError) -> Self {
        Self::Internal {
            doing: "reading a stored record",
            source: error.into(),
        }
    }
}

impl From<IdentityError> for AccessError {
    fn from(error: IdentityError) -> Self {
        Self::Internal {
            doing: "making a certificate or secret",
            source: error.into(),
        }
    }
}

impl From<PasswordError> for AccessError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::Busy,
            PasswordError::Hash(source) => Self::Internal {
                doing: "hashing a password",
                source,
            },
        }
    }
}

/// What access needs of the rest.
pub(crate) struct AccessParts {
    /// The state.
    pub(crate) store: Arc<dyn Store>,
    /// The roles and databases in memory.
    pub(crate) inventory: Arc<Inventory>,
    /// Signs.
    pub(crate) authority: Arc<Authority>,
    /// Tells what happened.
    pub(crate) audit: AuditLog,
    /// The time.
    pub(crate) clock: SharedClock,
    /// Join tokens of the configuration file.
    pub(crate) static_tokens: Vec<StaticToken>,
    /// Whether people give a code beside the password.
    pub(crate) second_factor: SecondFactor,
    /// Where AWS STS is asked who somebody is, instead of its own hosts.
    pub(crate) sts_endpoint: Option<StsEndpoint>,
}

/// People, roles, tokens.
pub(crate) struct Access {
    parts: AccessParts,
    passwords: Passwords,
    lockout: Lockout,
    locks: Arc<Locks>,
    requests: RequestParts,
    joins: Joins,
}

impl Access {
    /// Ready to serve, after one password hash of work.
    pub(crate) async fn new(parts: AccessParts) -> Result<Self, AccessError> {
        let locks = Locks::open(parts.store.clone(), parts.clock.clone()).await?;
        Ok(Self {
            locks: Arc::new(locks),
            joins: Joins::new(Sts::new(Way::new(parts.sts_endpoint.clone()))),
            parts,
            passwords: Passwords::new().await?,
            lockout: Lockout::default(),
            requests: RequestParts::default(),
        })
    }

    fn store(&self) -> &dyn Store {
        self.parts.store.as_ref()
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// The end of a life that starts now.
    fn end_of(&self, ttl: Duration) -> prost_types::Timestamp {
        let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
        let end = self.now().saturating_add(ttl).unwrap_or(Timestamp::MAX);
        convert::timestamp(end)
    }

    fn is_over(&self, end: Option<&prost_types::Timestamp>) -> bool {
        let end = end.and_then(|end| convert::instant(end).ok());
        end.is_none_or(|end| end <= self.now())
    }

    async fn read_all(&self, prefix: &'static str) -> Result<Vec<Entry>, StoreUnavailable> {
        let mut query = RangeQuery::prefix(prefix);
        let mut entries = Vec::new();
        loop {
            let page = self.store().range(query.clone()).await?;
            query.after = page.entries.last().map(|entry| entry.key.clone());
            entries.extend(page.entries);
            if !page.more {
                return Ok(entries);
            }
        }
    }
}

/// Most problems of a role that are told in one line; all of them are in the status's details.
const PROBLEMS_TOLD_MAX: usize = 10;

fn listed(problems: &[RoleProblem]) -> String {
    let told: Vec<String> = problems
        .iter()
        .take(PROBLEMS_TOLD_MAX)
        .map(ToString::to_string)
        .collect();
    let mut text = told.join("; ");
    if problems.len() > PROBLEMS_TOLD_MAX {
        let more = problems.len() - PROBLEMS_TOLD_MAX;
        text.push_str(&format!("; and {more} more"));
    }
    text
}

/// The life that was asked for, within what is allowed.
fn ttl(asked: Option<&prost_types::Duration>) -> Result<Duration, Invalid> {
    let Some(asked) = asked else {
        return Ok(TOKEN_TTL_DEFAULT);
    };
    let seconds = u64::try_from(asked.seconds).unwrap_or(0);
    let ttl = Duration::from_secs(seconds);
    if ttl.is_zero() || ttl > TOKEN_TTL_MAX {
        let problem = format!("must be from 1 s to {} h", TOKEN_TTL_MAX.as_secs() / 3600);
        return Err(Invalid::new("ttl", problem));
    }
    Ok(ttl)
}

/// A new secret, and the digest that is stored of it.
fn new_secret() -> Result<(String, String), IdentityError> {
    let made = secret::new_secret()?;
    let text = made.expose_secret().to_owned();
    let digest = digest_of(&text);
    Ok((text, digest))
}

/// What is stored of a secret.
fn digest_of(text: &str) -> String {
    secret::hex(&secret::digest(text))
}

/// Names of people and roles: something that prints on one line and needs no quoting.
fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let sound = (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b));
    if sound {
        Ok(())
    } else {
        let problem = "must be 1 to 128 letters, digits or `-_.@+`";
        Err(Invalid::new(field, problem))
    }
}
