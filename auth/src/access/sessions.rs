//! Logins: each is written down for as long as its certificate lives, and can be ended before.
//!
//! What ends a login is a lock on it ([`tidegate_core::locks`]): it reaches this service's calls and streams, and the
//! sessions at agents, the way every lock does. The record of a login is for listings alone; that it is gone ends nothing.
//!
//! Invariant: there is at most one lock a person for all that ended together, and one more for each login that was ended
//! while others of the person went on; all of them go when the last certificate that they strike does.
//!
//! What to write is decided by [`plan`](mod@plan).

mod plan;

use std::{net::SocketAddr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tidegate_core::{
    Lock,
    locks::{LoginMark, login_time},
};
use tidegate_proto::{convert, v1};

use super::{Access, AccessError, records::LoginRecord};
use crate::{
    audit::event,
    keys,
    record::{decode, encode},
    store::{Entry, RangeQuery, Txn},
};
pub(crate) use plan::Which;
use plan::{LOGINS_KEPT_MAX, Listed, plan};

/// Most locks on logins, of all people. Ending all logins of a person is possible beyond it, and makes room.
const ENDED_MAX: usize = 10_000;
/// How much longer than certificates locks on their logins strike, and records of either stay in the store than that:
/// clocks of instances and agents differ, and no lock may go while some agent takes the certificate for good.
const KEPT_AFTER_END: Duration = Duration::from_mins(10);
/// Longest text that a program may call itself.
const CLIENT_CHARS_MAX: usize = 64;
/// Begins the names of locks on one login. No name that an administrator may choose holds a colon.
const ONE: &str = "login:";
/// Begins the names of locks on all logins of a person.
const ALL: &str = "logins:";

/// Why logins are ended, as those whose they are may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Administrator,
    Owner,
    Removed,
    Reset,
}

impl Cause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Administrator => "an administrator ended it",
            Self::Owner => "you ended it",
            Self::Removed => "your user was removed",
            Self::Reset => "your user was reset",
        }
    }
}

/// Logins that end with a transaction that is not carried out yet.
pub(super) struct Ending {
    lock: Lock,
    ended: Vec<String>,
}

/// What is known of a new login beside who it is.
pub(super) struct NewLogin<'n> {
    pub(super) mark: &'n LoginMark,
    pub(super) user: &'n str,
    pub(super) ends: Timestamp,
    pub(super) remote: Option<SocketAddr>,
    pub(super) client: &'n str,
    pub(super) second_factor: bool,
}

impl Access {
    /// Marks a login that happens now.
    pub(super) fn new_mark(&self, user: &str) -> LoginMark {
        let known = self.locks.known();
        LoginMark {
            // In order of time, so that listings are too.
            id: uuid::Uuid::now_v7().to_string(),
            at: login_time(known.locks(), user, self.now()),
        }
    }

    /// Writes a login down, together with what else must hold for it.
    pub(super) async fn write_login(
        &self,
        guards: Txn,
        login: NewLogin<'_>,
    ) -> Result<(), AccessError> {
        let NewLogin {
            mark, user, ends, ..
        } = login;
        let record = LoginRecord {
            id: mark.id.clone(),
            created_at: Some(convert::timestamp(mark.at)),
            expires_at: Some(convert::timestamp(ends)),
            remote_addr: login
                .remote
                .map(|addr| addr.to_string())
                .unwrap_or_default(),
            client: login.client.chars().take(CLIENT_CHARS_MAX).collect(),
            second_factor: login.second_factor,
        };
        let kept = self.kept_logins(user).await?;
        let lease = self
            .store()
            .grant(self.until(ends) + KEPT_AFTER_END)
            .await?;
        let mut txn = guards.put_with(keys::login(user, &mark.id), encode(&record), Some(lease));
        if kept.len() >= LOGINS_KEPT_MAX
            && let Some(oldest) = kept.first()
        {
            txn = txn.delete(oldest.key.clone());
        }
        if let Err(error) = self.store().commit(txn).await {
            self.store().revoke(lease).await?;
            return Err(AccessError::commit("the user", error));
        }
        Ok(())
    }

    fn until(&self, end: Timestamp) -> Duration {
        Duration::try_from(end.duration_since(self.now())).unwrap_or_default()
    }

    /// Records of a person's logins, oldest first.
    async fn kept_logins(&self, user: &str) -> Result<Vec<Entry>, AccessError> {
        let query = RangeQuery {
            limit: LOGINS_KEPT_MAX,
            ..RangeQuery::prefix(keys::logins_of(user))
        };
        Ok(self.store().range(query).await?.entries)
    }

    /// A person's logins that go on, oldest first. `current` is the caller's own.
    pub(crate) async fn list_logins(
        &self,
        user: &str,
        current: Option<&LoginMark>,
    ) -> Result<Vec<v1::Login>, AccessError> {
        let mut logins = Vec::new();
        for entry in self.kept_logins(user).await? {
            let record: LoginRecord = decode(&entry)?;
            if self.is_over(record.expires_at.as_ref()) {
                continue;
            }
            logins.push(v1::Login {
                current: current.is_some_and(|mark| mark.id == record.id),
                id: record.id,
                user: user.to_owned(),
                created_at: record.created_at,
                expires_at: record.expires_at,
                remote_addr: record.remote_addr,
                client: record.client,
                second_factor: record.second_factor,
            });
        }
        Ok(logins)
    }

    /// Ends logins of a person. When this returns, their certificates are refused at this instance. How many of those
    /// that were listed ended.
    pub(crate) async fn end_logins(
        &self,
        actor: &str,
        user: &str,
        which: Which<'_>,
        cause: Cause,
    ) -> Result<u32, AccessError> {
        let Some((txn, ending)) = self.ending(Txn::new(), actor, user, which, cause).await? else {
            let Which::One { id, .. } = which else {
                return Ok(0);
            };
            return Err(AccessError::NotFound {
                what: "login",
                name: id.chars().take(128).collect(),
            });
        };
        let committed = self.store().commit(txn).await;
        committed.map_err(|error| AccessError::commit("the login", error))?;
        self.ended(actor, user, ending).await
    }

    /// Adds to a transaction what ends all logins of a person; when it was carried out, [`Self::ended`] is due.
    pub(super) async fn ending_all(
        &self,
        txn: Txn,
        actor: &str,
        user: &str,
        cause: Cause,
    ) -> Result<(Txn, Ending), AccessError> {
        let ending = self.ending(txn, actor, user, Which::All, cause).await?;
        // All are there even when none is.
        ending.ok_or_else(|| AccessError::Internal {
            doing: "ending logins",
            source: "nothing was planned".into(),
        })
    }

    /// Adds to a transaction what ends logins; when it was carried out, [`Self::ended`] is due.
    async fn ending(
        &self,
        txn: Txn,
        actor: &str,
        user: &str,
        which: Which<'_>,
        cause: Cause,
    ) -> Result<Option<(Txn, Ending)>, AccessError> {
        let now = self.now();
        let mut listed = Vec::new();
        for login in self.list_logins(user, None).await? {
            let read = |at: Option<prost_types::Timestamp>| {
                at.and_then(|at| convert::instant(&at).ok()).unwrap_or(now)
            };
            listed.push(Listed {
                at: read(login.created_at),
                ends: read(login.expires_at),
                id: login.id,
            });
        }
        let known = self.locks.known();
        let ended_until = known.logins_ended_until(user);
        let Some(plan) = plan(user, &listed, ended_until, which, now) else {
            return Ok(None);
        };
        if plan.target.login.is_some() && known.of_logins() >= ENDED_MAX {
            let message = format!(
                "{ENDED_MAX} logins were ended one by one already: end all of this person's at once"
            );
            return Err(AccessError::forbidden("TOO_MANY", message));
        }
        let beyond = SignedDuration::try_from(KEPT_AFTER_END).unwrap_or_default();
        let expires = plan.ends.saturating_add(beyond).unwrap_or(Timestamp::MAX);
        let lock = Lock {
            name: match &plan.target.login {
                Some(id) => format!("{ONE}{id}"),
                None => format!("{ALL}{user}"),
            },
            target: plan.target,
            message: cause.as_str().to_owned(),
            created: now,
            expires: Some(expires),
            created_by: actor.to_owned(),
        };
        let lease = self
            .store()
            .grant(self.until(expires) + KEPT_AFTER_END)
            .await?;
        let stored = encode(&v1::Lock::from(lock.clone()));
        let txn = txn.put_with(keys::lock(&lock.name), stored, Some(lease));
        Ok(Some((
            txn,
            Ending {
                lock,
                ended: plan.ended,
            },
        )))
    }

    /// Makes known that logins have ended, and clears up after them.
    pub(super) async fn ended(
        &self,
        actor: &str,
        user: &str,
        ending: Ending,
    ) -> Result<u32, AccessError> {
        let Ending { lock, ended } = ending;
        let mut told = event::new(event::LOGINS_ENDED);
        actor.clone_into(&mut told.user);
        for (key, value) in [
            ("name", user.to_owned()),
            ("login", lock.target.login.clone().unwrap_or_default()),
            ("logins", ended.len().to_string()),
            ("reason", lock.message.clone()),
        ] {
            if !value.is_empty() {
                told.fields.insert(key.to_owned(), value);
            }
        }
        self.parts.audit.record(told);
        self.locks.read().await?;
        let mut rest = Txn::new();
        for id in &ended {
            rest = rest.delete(keys::login(user, id));
        }
        if lock.target.login.is_none() {
            // One lock strikes what these do.
            for name in self.locks.known().of_one_login(user, LOGINS_KEPT_MAX) {
                rest = rest.delete(keys::lock(&name));
            }
        }
        self.store()
            .commit(rest)
            .await
            .map_err(|error| AccessError::commit("the logins", error))?;
        Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX))
    }
}
