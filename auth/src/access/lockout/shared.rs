//! Failed tries in the store, for all instances: by digest of the name, since what is typed there may be a password.
//!
//! Unknown names are written like known ones, so that neither the time nor the store tells which are which. Records live
//! with leases of [`REMEMBERED`]; how many there can be is bounded by how many passwords are hashed in that time.

use std::collections::HashMap;

use jiff::Timestamp;
use tidegate_proto::convert;

use super::{Failures, REMEMBERED};
use crate::{
    access::{Access, AccessError, digest_of, records::FailuresRecord},
    audit::event,
    keys,
    record::{decode, encode},
    store::{CommitError, Entry, Txn},
};

/// How often a record is written when others write it at the same time.
const TRIES_MAX: u32 = 3;

fn failures_of(entry: &Entry) -> Result<Failures, AccessError> {
    let record: FailuresRecord = decode(entry)?;
    let last = record.last.and_then(|at| convert::instant(&at).ok());
    Ok(Failures {
        count: record.failures,
        last: last.unwrap_or(Timestamp::MIN),
    })
}

impl Access {
    /// What the store knows of a name.
    pub(in crate::access) async fn stored_failures(
        &self,
        name: &str,
    ) -> Result<Option<Failures>, AccessError> {
        let entry = self.store().get(keys::failures(&digest_of(name))).await?;
        entry.as_ref().map(failures_of).transpose()
    }

    /// Tells all instances of a failure, from the one on that makes the name wait.
    pub(in crate::access) async fn share_failure(
        &self,
        name: &str,
        failures: Failures,
    ) -> Result<(), AccessError> {
        if !failures.makes_wait() {
            return Ok(());
        }
        let mut told = event::new(event::LOCKED_OUT);
        told.user = name.chars().take(128).collect();
        told.fields
            .insert("failures".to_owned(), failures.count.to_string());
        told.fields.insert(
            "wait_seconds".to_owned(),
            failures.wait().as_secs().to_string(),
        );
        self.parts.audit.record(told);
        self.write_failures(name, failures).await
    }

    /// Forgets what failed, at all instances. Whether the name had to wait.
    pub(in crate::access) async fn forget_failures(&self, name: &str) -> Result<bool, AccessError> {
        let stored = self.stored_failures(name).await?;
        let waited = !self.lockout.wait(name, stored, self.now()).is_zero();
        self.lockout.clear(name);
        if stored.is_some_and(|stored| stored.count > 0) {
            let forgiven = Failures {
                count: 0,
                last: self.now(),
            };
            self.write_failures(name, forgiven).await?;
        }
        Ok(waited)
    }

    /// Writes what is known now. Others that write at the same time know of a failure more each; who forgives is right.
    async fn write_failures(&self, name: &str, failures: Failures) -> Result<(), AccessError> {
        let key = keys::failures(&digest_of(name));
        let lease = self.store().grant(REMEMBERED).await?;
        let mut wanted = failures;
        for _ in 0..TRIES_MAX {
            let before = self.store().get(key.clone()).await?;
            let mut txn = Txn::new();
            txn = match &before {
                Some(entry) => txn.at(key.clone(), entry.modified),
                None => txn.absent(key.clone()),
            };
            if let Some(entry) = &before
                && failures.count > 0
            {
                let stored = failures_of(entry)?;
                wanted.count = failures.count.max(stored.count.saturating_add(1));
                wanted.last = failures.last.max(stored.last);
            }
            let record = FailuresRecord {
                failures: wanted.count,
                last: Some(convert::timestamp(wanted.last)),
            };
            let txn = txn.put_with(key.clone(), encode(&record), Some(lease));
            match self.store().commit(txn).await {
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(AccessError::commit("the count of failed logins", error)),
                Ok(_) => return Ok(()),
            }
        }
        // Others counted in the meantime, and this instance remembers its own.
        self.store().revoke(lease).await?;
        Ok(())
    }

    /// Until when names have to wait, by digest of the name, for those that have to.
    pub(in crate::access) async fn all_failures(
        &self,
    ) -> Result<HashMap<String, Failures>, AccessError> {
        let mut all = HashMap::new();
        for entry in self.read_all(keys::FAILURES).await? {
            if let Some(digest) = keys::name_under(keys::FAILURES, &entry.key) {
                all.insert(digest.to_owned(), failures_of(&entry)?);
            }
        }
        Ok(all)
    }
}
