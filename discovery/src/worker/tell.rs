//! What an operator reads of scans, each thing once per change: a scope that is not read in full (an error
//! when AWS denies it, with the missing action and the role), that recovers, and an auth service that does
//! not take scans.

use tidegate_core::ScanScope;
use tidegate_proto::v1;
use tidegate_service::telemetry::SaidOnce;
use tracing::{debug, error, info, warn};

use crate::{
    fetch::{FetchError, Viewpoint},
    publish::PublishError,
};

/// Why a scan was not complete, for the log.
pub(super) struct Cause {
    key: String,
    denied: bool,
    broke_off: bool,
    action: String,
    text: String,
}

impl Cause {
    pub(super) fn new(error: &FetchError, scope: &ScanScope) -> Self {
        Self {
            key: error.key(),
            denied: error.is_denial(),
            broke_off: error.broke_off(),
            action: error.action().to_owned(),
            text: error.explain(scope.assume_role.as_ref(), Viewpoint::Worker),
        }
    }

    /// Whether trying again soon may bring more.
    pub(super) const fn broke_off(&self) -> bool {
        self.broke_off
    }

    /// One line for the operator.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Logs what kept a scan from being complete when it is another cause than `before`, which it replaces.
pub(super) fn cause(scope: &ScanScope, before: &mut Option<String>, cause: Option<Cause>) {
    let key = cause.as_ref().map(|cause| cause.key.clone());
    if key == *before {
        return;
    }
    *before = key;
    let (kind, region) = (scope.kind.as_str(), scope.region.as_str());
    let role = scope
        .assume_role
        .as_ref()
        .map_or("own identity", |role| role.role_arn.as_str());
    match cause {
        Some(cause) if cause.denied => error!(
            scope.kind = kind,
            cloud.region = region,
            aws.role = role,
            aws.action = cause.action,
            error = cause.text,
            "AWS does not allow this scan; nothing is deleted, and nothing new is found"
        ),
        Some(cause) => warn!(
            scope.kind = kind,
            cloud.region = region,
            aws.role = role,
            aws.action = cause.action,
            error = cause.text,
            "read a scope in part; nothing is deleted"
        ),
        None => info!(
            scope.kind = kind,
            cloud.region = region,
            aws.role = role,
            "reads the scope in full again"
        ),
    }
}

/// Logs that a scan was stopped.
pub(super) fn moved(scope: &ScanScope) {
    info!(
        scope.kind = scope.kind.as_str(),
        cloud.region = scope.region.as_str(),
        "stopped a scan: the scope is no longer this worker's"
    );
}

/// Logs what became of a publication; a failure that `said` knows is not repeated.
pub(super) fn published(
    scope: &ScanScope,
    published: &Result<v1::PublishResult, PublishError>,
    said: &mut SaidOnce,
) {
    let (kind, region) = (scope.kind.as_str(), scope.region.as_str());
    match published {
        Ok(result) => {
            said.clear();
            result_of(kind, region, result);
        }
        Err(error @ PublishError::LeaseLost(_)) => {
            info!(scope.kind = kind, cloud.region = region, cause = %error, "did not publish a scan");
        }
        Err(error) => {
            let text = error.to_string();
            if said.is_new(&text) {
                warn!(
                    scope.kind = kind,
                    cloud.region = region,
                    error = text,
                    "could not publish a scan; tries again"
                );
            }
        }
    }
}

fn result_of(kind: &str, region: &str, result: &v1::PublishResult) {
    let v1::PublishResult {
        created,
        updated,
        deleted,
        held,
        shadowed,
        unchanged,
    } = *result;
    if held > 0 {
        warn!(
            scope.kind = kind,
            cloud.region = region,
            held,
            "deletions are held back until the next complete scan agrees"
        );
    }
    if created + updated + deleted > 0 {
        info!(
            scope.kind = kind,
            cloud.region = region,
            created,
            updated,
            deleted,
            shadowed,
            "published a scan"
        );
    } else {
        debug!(
            scope.kind = kind,
            cloud.region = region,
            unchanged,
            shadowed,
            "published a scan that changed nothing"
        );
    }
}
