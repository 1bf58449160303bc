//! Temporary database passwords: made by the API, checked by the wire fronts.
//!
//! Several passwords of one user are valid side by side, as in Redshift: a new one ends no old
//! one. Each is bound to its cluster and, if it was asked for one, to a database; it ends on the
//! simulation's clock and is looked at only at log-in.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::crypto::{Secret, random_base64};
use crate::world::ResourceId;

/// Passwords kept at once; expired ones make room first, then the oldest.
const MINTS_MAX: usize = 100_000;

/// Whom a password logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// A Redshift cluster or workgroup.
    pub(crate) at: ResourceId,
    /// As it has to be sent at log-in: `IAM:alice`, `IAMA:alice`, `IAMR:role`.
    pub(crate) login: String,
    /// The role in PostgreSQL that the session becomes.
    pub(crate) role: String,
    /// Make the user at log-in if it does not exist.
    pub(crate) creates_user: bool,
    /// The one database it is good for, if it was asked for one.
    pub(crate) db_name: Option<String>,
}

/// A temporary password.
#[derive(Debug)]
pub(crate) struct Mint {
    pub(crate) grant: Grant,
    pub(crate) password: Secret,
    pub(crate) expires_at: Timestamp,
}

/// All temporary passwords.
#[derive(Debug, Default)]
pub(crate) struct Mints {
    kept: Mutex<Vec<Arc<Mint>>>,
}

impl Mints {
    /// Makes a new password and leaves the others as they are.
    pub(crate) fn mint(&self, grant: Grant, now: Timestamp, expires_at: Timestamp) -> Arc<Mint> {
        let password = Secret::new(random_base64::<96>());
        let mint = Arc::new(Mint {
            grant,
            password,
            expires_at,
        });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MINTS_MAX {
            kept.retain(|old| old.expires_at > now);
            let overflow = (kept.len() + 1).saturating_sub(MINTS_MAX);
            kept.drain(..overflow);
        }
        kept.push(Arc::clone(&mint));
        mint
    }

    /// The passwords that would log `login` in to `database` of a cluster or workgroup now.
    pub(crate) fn valid(
        &self,
        at: &ResourceId,
        login: &str,
        database: &str,
        now: Timestamp,
    ) -> Vec<Arc<Mint>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let good = |mint: &&Arc<Mint>| {
            let grant = &mint.grant;
            let bound_elsewhere = grant
                .db_name
                .as_deref()
                .is_some_and(|bound| bound != database);
            grant.at == *at && grant.login == login && !bound_elsewhere && mint.expires_at > now
        };
        kept.iter().filter(good).cloned().collect()
    }

    /// Forgets the passwords of a cluster or workgroup that was removed.
    pub(crate) fn forget(&self, at: &ResourceId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|mint| mint.grant.at != *at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::after;
    use crate::world::ClusterId;

    fn grant(db_name: Option<&str>) -> Grant {
        Grant {
            at: ResourceId::cluster(&ClusterId::new("111111111111", "us-east-1", "c0")),
            login: "IAM:alice".to_owned(),
            role: "alice".to_owned(),
            creates_user: false,
            db_name: db_name.map(str::to_owned),
        }
    }

    #[test]
    fn a_new_password_leaves_earlier_ones_valid_until_they_expire() {
        let (mints, now) = (Mints::default(), Timestamp::UNIX_EPOCH);
        let cluster = grant(None).at;
        mints.mint(grant(None), now, after(now, 900));
        mints.mint(grant(None), now, after(now, 1800));
        let valid = |late| {
            mints
                .valid(&cluster, "IAM:alice", "dev", after(now, late))
                .len()
        };
        assert_eq!((valid(0), valid(900), valid(1800)), (2, 1, 0));
    }

    #[test]
    fn a_password_for_one_database_opens_no_other() {
        let (mints, now) = (Mints::default(), Timestamp::UNIX_EPOCH);
        let mint = mints.mint(grant(Some("dev")), now, after(now, 900));
        let valid = |db| mints.valid(&mint.grant.at, "IAM:alice", db, now).len();
        assert_eq!((valid("dev"), valid("prod")), (1, 0));
    }
}
