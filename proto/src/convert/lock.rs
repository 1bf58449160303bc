//! Locks: who and what is shut out.

use jiff::Timestamp;
use tidegate_core::{Lock, LockTarget};

use super::{Invalid, instant, some, timestamp};
use crate::v1;

impl From<LockTarget> for v1::LockTarget {
    fn from(target: LockTarget) -> Self {
        Self {
            user: target.user.unwrap_or_default(),
            role: target.role.unwrap_or_default(),
            agent: target.agent.unwrap_or_default(),
            database: target.database.unwrap_or_default(),
            access_request: target.access_request.unwrap_or_default(),
            login: target.login.unwrap_or_default(),
            logins_until: target.logins_until.map(timestamp),
        }
    }
}

impl From<v1::LockTarget> for LockTarget {
    fn from(target: v1::LockTarget) -> Self {
        Self {
            user: some(target.user),
            role: some(target.role),
            agent: some(target.agent),
            database: some(target.database),
            access_request: some(target.access_request),
            login: some(target.login),
            // An instant that cannot be read strikes all logins rather than none.
            logins_until: target
                .logins_until
                .map(|at| instant(&at).unwrap_or(Timestamp::MAX)),
        }
    }
}

impl From<Lock> for v1::Lock {
    fn from(lock: Lock) -> Self {
        Self {
            name: lock.name,
            target: Some(lock.target.into()),
            message: lock.message,
            created_at: Some(timestamp(lock.created)),
            expires_at: lock.expires.map(timestamp),
            created_by: lock.created_by,
            revision: 0,
        }
    }
}

impl TryFrom<v1::Lock> for Lock {
    type Error = Invalid;

    fn try_from(lock: v1::Lock) -> Result<Self, Invalid> {
        let created = lock
            .created_at
            .ok_or_else(|| Invalid::new("created_at", "is missing"))?;
        Ok(Self {
            name: lock.name,
            target: lock.target.unwrap_or_default().into(),
            message: lock.message,
            created: instant(&created).map_err(|invalid| invalid.within("created_at"))?,
            expires: lock
                .expires_at
                .map(|at| instant(&at).map_err(|invalid| invalid.within("expires_at")))
                .transpose()?,
            created_by: lock.created_by,
        })
    }
}
