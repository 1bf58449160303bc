//! Says what a configuration would change, and changes nothing.
//!
//! The scopes of the configuration take the place of those that are stored of the same group and `discovery_config`
//! (or, without one, of its files). Their plans are made by the ledger's own rules ([`super::plan`]) and carried out in
//! memory, on a copy; what the configuration no longer names ends there as it would in the ledger
//! ([`super::retire`]). The answer is the end of that: as things stand when every scope has scanned and every time of
//! grace is over.
//!
//! Invariant: nothing is written and nothing is remembered. A test compares the answer with what publishing the same
//! scans leads to.
//!
//! Not here: looking at AWS, which the caller does (`tidegate-discovery`).

mod frames;
mod outcome;
mod overlay;
mod question;
mod recorded;
mod snapshot;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tidegate_proto::{
    Invalid,
    v1::{self, PlanAction, plan_discovery_response::Frame},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Ledger,
    plan::{Owner, Registered},
    workers::Live,
};
use crate::{
    inventory::tables::{DatabaseRow, Row as _},
    store::StoreUnavailable,
};
pub(crate) use frames::{Asking, Pushed, Request};
use frames::{LookedAt, PLAN_ITEMS_MAX};
use outcome::outcome;
use question::{Question, Stored};
use snapshot::{Rows, Snapshot};

/// Plans that are made at once: each holds what it was sent, and a copy of what it looks at.
const PLANS_AT_ONCE_MAX: usize = 2;
/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// Rows looked at with the ledger's memory locked.
const ROWS_PER_LOOK: usize = 4_096;

static TURNS: Semaphore = Semaphore::const_new(PLANS_AT_ONCE_MAX);

/// Why a plan was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WhatIfError {
    /// Others are being made.
    #[error("{PLANS_AT_ONCE_MAX} plans are being made already: try again in a moment")]
    Busy,
    /// The plan did not come to its end.
    #[error("the plan was not finished")]
    Fault(#[from] tokio::task::JoinError),
    /// What was sent is not a request for a plan.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The scopes see too much of the inventory.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// The scopes see more than one plan may hold.
#[derive(Debug, thiserror::Error)]
#[error("the scopes see more than {PLAN_ITEMS_MAX} databases: plan for fewer matchers at a time")]
pub(crate) struct TooMuch;

/// The right to make a plan.
#[derive(Debug)]
pub(crate) struct Turn(
    #[expect(dead_code, reason = "held, not looked at")] SemaphorePermit<'static>,
);

impl Turn {
    /// Waits for it.
    ///
    /// # Errors
    ///
    /// [`WhatIfError::Busy`] when others take too long.
    pub(crate) async fn wait() -> Result<Self, WhatIfError> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, TURNS.acquire()).await;
        match turn {
            Ok(Ok(permit)) => Ok(Self(permit)),
            Ok(Err(_)) | Err(_) => Err(WhatIfError::Busy),
        }
    }
}

/// One database's part of the answer.
struct Change {
    action: PlanAction,
    before: Option<Arc<DatabaseRow>>,
    /// `None` also when it stays as it is.
    after: Option<Registered>,
}

/// The answer.
pub(crate) struct Answer {
    changes: Vec<Change>,
    summary: v1::PlanSummary,
}

impl Answer {
    /// As it is sent: changes in name order, then the summary.
    pub(crate) fn into_frames(self) -> impl Iterator<Item = v1::PlanDiscoveryResponse> + Send {
        let changes = self.changes.into_iter();
        let changes = changes.map(|change| Frame::Change(change.into()));
        let summary = std::iter::once(Frame::Summary(self.summary));
        changes
            .chain(summary)
            .map(|frame| v1::PlanDiscoveryResponse { frame: Some(frame) })
    }
}

impl From<Change> for v1::PlannedChange {
    fn from(change: Change) -> Self {
        let before = change.before.map(|row| row.message());
        let after = match change.action {
            PlanAction::Keep => before.clone(),
            _ => change.after.map(|after| {
                let mut message = v1::Database::from(after.database);
                message.scope_id = after.owner.scope_id;
                message
            }),
        };
        Self {
            action: change.action.into(),
            before,
            after,
        }
    }
}

/// What is known of the ledger, beside what is asked.
struct Known {
    stored: BTreeMap<String, Stored>,
    other_heirs: HashMap<String, Owner>,
    rows: Rows,
}

impl Ledger {
    /// Answers a request.
    pub(crate) async fn what_if(
        &self,
        request: Request,
        turn: Turn,
    ) -> Result<Answer, WhatIfError> {
        self.catch_up().await?;
        let stored = self.stored_scopes().await?;
        let live = self.live().await?;
        let rows = snapshot::rows(&self.inventory.tables());
        let known = Known {
            other_heirs: self.other_heirs(&request, &rows, &live),
            stored,
            rows,
        };
        let made = tokio::task::spawn_blocking(move || {
            let _until_done = turn;
            answer(request, known)
        });
        Ok(made.await??)
    }

    /// Every scope of which something is stored.
    async fn stored_scopes(&self) -> Result<BTreeMap<String, Stored>, StoreUnavailable> {
        let records = self.scope_records().await?;
        let scopes = records.into_iter().filter_map(|record| {
            let scope = record.scope?;
            let stored = Stored {
                group: scope.group,
                config: some(&scope.config),
                order: scope.order,
                held: record.held_digest.as_slice().try_into().ok(),
            };
            Some((scope.id, stored))
        });
        Ok(scopes.collect())
    }

    /// Who goes on with what the configuration's scopes own, of those whose part in this is not asked about: scopes
    /// of other configurations that a live worker names, and what the ledger remembers of scopes that did not see all.
    fn other_heirs(&self, request: &Request, rows: &Rows, live: &Live) -> HashMap<String, Owner> {
        let v1::PlanHeader { group, config, .. } = &request.header;
        let in_part = request.looked_at.in_part();
        let config_name = some(config);
        let may = |owner: &Owner| {
            if owner.group == *group && owner.config == config_name {
                in_part.contains(&owner.scope_id)
            } else {
                live.names(&owner.group, &owner.scope_id)
            }
        };
        let of_config = |row: &&Arc<DatabaseRow>| row.group() == *group && row.config() == *config;
        let mut heirs = HashMap::new();
        for some_rows in rows.chunks(ROWS_PER_LOOK) {
            let memory = self.memory();
            if memory.shadows.is_empty() {
                break;
            }
            for row in some_rows.iter().filter(of_config) {
                if let Some(heir) = memory.shadows.heir(row.identity(), group, may) {
                    heirs.insert(row.identity().to_owned(), heir);
                }
            }
        }
        heirs
    }
}

fn some(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// Answers a request with what is known. Pure, and long.
fn answer(request: Request, known: Known) -> Result<Answer, TooMuch> {
    let Known {
        mut stored,
        other_heirs,
        rows,
    } = known;
    let v1::PlanHeader { group, config, .. } = request.header;
    let scopes = match request.looked_at {
        LookedAt::Aws(scopes) => scopes,
        LookedAt::Recorded(scopes) => {
            recorded::look(&group, scopes, &rows, PLAN_ITEMS_MAX as usize)?
        }
    };
    snapshot::add_owners(&mut stored, &rows);
    let mut question = Question::new(group, some(&config), scopes, &stored);
    question.other_heirs = other_heirs
        .into_iter()
        .map(|(identity, heir)| (identity, question.placed_owner(heir)))
        .collect();
    let snapshot = Snapshot::new(&rows);
    let mut came_to = outcome(&snapshot, &question);
    let changes = came_to.fates.into_iter();
    let changes = changes.map(|((_, identity), action)| Change {
        action,
        before: snapshot.row(&identity).cloned(),
        after: match action {
            PlanAction::Keep => None,
            _ => came_to.changed.remove(&identity).flatten(),
        },
    });
    Ok(Answer {
        changes: changes.collect(),
        summary: came_to.summary,
    })
}

#[cfg(test)]
mod tests;
