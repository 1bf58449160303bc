//! Remembers which calls that are not needed for everything AWS does not allow, so as not to ask in vain each poll
//! (unless somebody asked for the scan), and which of them once told of something, so that a permission that is taken away counts as doubt.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tidegate_aws::{AwsErrorClass, AwsFailure};
use tidegate_core::{AssumeRole, Region, ScanScope};
use tokio::time::Instant;

use super::FetchError;

/// How long a refusal answers for a call that is not made. A policy that was changed counts after that.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(30 * 60);

/// Refusals and tellings remembered, of each; beyond it all are forgotten.
const REFUSALS_MAX: usize = 10_000;

type Key = (&'static str, Option<AssumeRole>, Region);

/// Refusals by call, role and region.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// With the time until which they count.
    known: Mutex<HashMap<Key, (AwsFailure, Instant)>>,
    told: Mutex<HashSet<Key>>,
}

impl Refusals {
    /// The refusal of `action` that still counts.
    pub(super) fn known(&self, action: &'static str, scope: &ScanScope) -> Option<AwsFailure> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (failure, until) = known.get(&key(action, scope))?;
        (Instant::now() < *until).then(|| failure.clone())
    }

    /// `action` told of something that became, or may have become, a database.
    pub(super) fn told(&self, action: &'static str, scope: &ScanScope) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= REFUSALS_MAX {
            told.clear();
        }
        told.insert(key(action, scope));
    }

    /// Whether `action` told of something since this process started.
    pub(super) fn has_told(&self, action: &'static str, scope: &ScanScope) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.contains(&key(action, scope))
    }

    /// The refusal in `error`, which is remembered; `Err` when it is another failure.
    pub(super) fn remember(
        &self,
        action: &'static str,
        scope: &ScanScope,
        error: FetchError,
    ) -> Result<AwsFailure, FetchError> {
        match error {
            FetchError::Aws(failure)
                if failure.class == AwsErrorClass::AccessDenied && failure.hop.is_none() =>
            {
                self.keep(action, scope, (*failure).clone(), REMEMBERED_FOR);
                Ok(*failure)
            }
            other => Err(other),
        }
    }

    /// `failure` answers for `action`, whatever it was, for this long.
    pub(super) fn keep(
        &self,
        action: &'static str,
        scope: &ScanScope,
        failure: AwsFailure,
        time: Duration,
    ) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REFUSALS_MAX {
            known.clear();
        }
        known.insert(key(action, scope), (failure, Instant::now() + time));
    }
}

fn key(action: &'static str, scope: &ScanScope) -> Key {
    (action, scope.assume_role.clone(), scope.region.clone())
}
