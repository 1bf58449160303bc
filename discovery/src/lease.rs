//! Keeps the right to scan.
//!
//! Of several workers that name a scope the auth service lets one scan it, for a lease time, and gives it an
//! epoch that fences out whoever held it before. [`keep`] asks again well within that time; while the auth
//! service is away it keeps trying, and says so once per distinct cause.
//!
//! It asks for what is wanted at the moment ([`crate::planner`]), and at once when that changes: what it no longer
//! names it has let go. The auth service deals the scopes of a group out among its live workers, so a grant may be
//! taken away with any answer.
//!
//! Invariant: a scope counts as held no longer than the lease time after the request that it was granted to was
//! sent, whatever the auth service may have answered later.

use std::{collections::HashMap, time::Duration};

use tidegate_core::ScopeId;
use tidegate_proto::v1;
use tidegate_service::{
    admin::ComponentHandle,
    rpc::{self, Backoff},
    tasks::ShutdownToken,
    telemetry::SaidOnce,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tonic::Status;
use tracing::{debug, error, info, warn};

use crate::{planner::Wanted, publish::Client};

/// Longest wait for an answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Parts of the lease time after which it is asked for again.
const RENEWALS_PER_LEASE: u32 = 3;
/// Shortest wait between two requests that went well, however short the lease.
const RENEW_WAIT_MIN: Duration = Duration::from_millis(500);
/// Longest wait, before the first request, for the resources and regions that complete what is wanted: asking for a
/// part of it would let go of scopes that this worker held before a restart.
const COMPLETE_WAIT_MAX: Duration = Duration::from_secs(5);

/// The right to scan one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    epoch: u64,
    /// Grows with every request to scan at once.
    rescan: u64,
    until: Instant,
}

/// What this worker may scan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants {
    held: HashMap<ScopeId, Grant>,
}

impl Grants {
    /// The epoch to publish a scope with; `None` when it is not held.
    pub(crate) fn epoch(&self, scope: &ScopeId, now: Instant) -> Option<u64> {
        self.grant(scope, now).map(|grant| grant.epoch)
    }

    /// How often a scan of a scope at once was asked for; `None` when it is not held.
    pub(crate) fn rescan(&self, scope: &ScopeId, now: Instant) -> Option<u64> {
        self.grant(scope, now).map(|grant| grant.rescan)
    }

    fn grant(&self, scope: &ScopeId, now: Instant) -> Option<&Grant> {
        self.held.get(scope).filter(|grant| now < grant.until)
    }

    fn new(answer: v1::AcquireScopesResponse, until: Instant) -> Self {
        let held = answer
            .grants
            .into_iter()
            .filter(|grant| grant.held)
            .map(|grant| {
                let v1::ScopeGrant { epoch, rescan, .. } = grant;
                let held = Grant {
                    epoch,
                    rescan,
                    until,
                };
                (ScopeId(grant.scope_id), held)
            })
            .collect();
        Self { held }
    }
}

/// The grants of the moment, for those who scan.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    grants: watch::Sender<Grants>,
    acquire_now: Notify,
}

impl Leases {
    /// Tells of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Grants> {
        self.grants.subscribe()
    }

    /// How often a scan at once was asked for, of a scope that is held now.
    pub(crate) fn rescan(&self, scope: &ScopeId) -> Option<u64> {
        self.grants.borrow().rescan(scope, Instant::now())
    }

    /// Returns when `epoch` is over because of an answer of the auth service.
    pub(crate) async fn over(&self, scope: &ScopeId, epoch: u64) {
        let mut grants = self.subscribe();
        let over = |grants: &Grants| grants.epoch(scope, Instant::now()) != Some(epoch);
        // `self` holds the sender, so it does not fail.
        let _ = grants.wait_for(over).await;
    }

    /// The epoch of a scope that is held now.
    pub(crate) fn epoch(&self, scope: &ScopeId) -> Option<u64> {
        self.grants.borrow().epoch(scope, Instant::now())
    }

    /// The auth service says that `epoch` is over: stops counting the scope as held, and asks anew at once.
    pub(crate) fn lost(&self, scope: &ScopeId, epoch: u64) {
        self.grants.send_if_modified(|grants| {
            let stale = grants
                .held
                .get(scope)
                .is_some_and(|grant| grant.epoch <= epoch);
            stale && grants.held.remove(scope).is_some()
        });
        self.acquire_now.notify_one();
    }
}

/// Acquires what is wanted and keeps it, until `shutdown`.
pub(crate) async fn keep(
    client: Client,
    mut wanted: watch::Receiver<Wanted>,
    leases: std::sync::Arc<Leases>,
    readiness: ComponentHandle,
    shutdown: ShutdownToken,
) {
    let mut keeper = Keeper {
        client,
        backoff: Backoff::new(),
        said: SaidOnce::new(),
    };
    let run = async {
        // Whichever way it ends, what there is then is asked for.
        let _ = timeout(COMPLETE_WAIT_MAX, wanted.wait_for(Wanted::is_complete)).await;
        loop {
            let request = v1::AcquireScopesRequest {
                scopes: wanted.borrow_and_update().messages(),
            };
            let wait = match keeper.acquire(request).await {
                Ok((grants, lease)) => {
                    tell(&leases.grants.borrow(), &grants);
                    leases.grants.send_replace(grants);
                    readiness.ready();
                    (lease / RENEWALS_PER_LEASE).max(RENEW_WAIT_MIN)
                }
                Err(wait) => wait,
            };
            tokio::select! {
                () = sleep(wait) => {}
                Ok(()) = wanted.changed() => {}
                () = leases.acquire_now.notified() => {
                    // Not at once again and again: a lost lease is news, not a reason to hurry a struggling server.
                    sleep(RENEW_WAIT_MIN.min(wait)).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(run).await;
}

struct Keeper {
    client: Client,
    backoff: Backoff,
    said: SaidOnce,
}

impl Keeper {
    /// Asks once. `Err` is how long to wait before asking again.
    async fn acquire(
        &mut self,
        request: v1::AcquireScopesRequest,
    ) -> Result<(Grants, Duration), Duration> {
        let asked = Instant::now();
        let answer = timeout(ACQUIRE_TIMEOUT, self.client.acquire_scopes(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.backoff.reset();
                self.said.clear();
                let lease = Duration::from_secs(answer.lease_seconds.into());
                Ok((Grants::new(answer, asked + lease), lease))
            }
            Err(status) => {
                self.complain(&status);
                Err(self.backoff.next())
            }
        }
    }

    fn complain(&mut self, status: &Status) {
        let cause = rpc::describe(status);
        if !self.said.is_new(&format!("{:?} {cause}", status.code())) {
            debug!(error = cause, "could not acquire scan scopes; keeps trying");
        } else if needs_somebody(status) {
            error!(
                error = cause,
                "the auth service does not let this worker scan; keeps trying"
            );
        } else {
            warn!(error = cause, "could not acquire scan scopes; keeps trying");
        }
    }
}

/// Whether waiting alone will not help.
pub(crate) fn needs_somebody(status: &Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

/// Logs what changed hands.
fn tell(before: &Grants, now: &Grants) {
    for (scope, grant) in &now.held {
        if before.held.get(scope).map(|old| old.epoch) != Some(grant.epoch) {
            info!(scope.id = %scope, scope.epoch = grant.epoch, "holds a scan scope");
        }
    }
    for scope in before.held.keys() {
        if !now.held.contains_key(scope) {
            info!(scope.id = %scope, "no longer holds a scan scope");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(scope: &str, held: bool, epoch: u64) -> v1::AcquireScopesResponse {
        let grant = v1::ScopeGrant {
            scope_id: scope.to_owned(),
            held,
            epoch,
            held_by: String::new(),
            rescan: 0,
        };
        v1::AcquireScopesResponse {
            grants: vec![grant],
            lease_seconds: 30,
        }
    }

    #[test]
    fn a_grant_ends_with_its_lease_and_one_that_somebody_else_holds_is_none() {
        let (now, scope) = (Instant::now(), ScopeId("a".to_owned()));
        let until = now + Duration::from_secs(30);
        let grants = Grants::new(answer("a", true, 7), until);
        assert_eq!(grants.epoch(&scope, now), Some(7));
        assert_eq!(grants.epoch(&scope, until), None);
        assert_eq!(
            Grants::new(answer("a", false, 0), until).epoch(&scope, now),
            None
        );
    }

    #[tokio::test]
    async fn a_lost_epoch_is_dropped_and_a_newer_one_stays() {
        let (leases, scope) = (Leases::default(), ScopeId("a".to_owned()));
        let until = Instant::now() + Duration::from_secs(30);
        leases
            .grants
            .send_replace(Grants::new(answer("a", true, 7), until));
        leases.lost(&scope, 6);
        assert_eq!(leases.epoch(&scope), Some(7));
        leases.lost(&scope, 7);
        assert_eq!(leases.epoch(&scope), None);
    }
}
