//! What a question comes to. Pure.
//!
//! The scopes are scanned in rank order, then those that are named no more end. When scopes were in the way of others,
//! or hand something over in their end, all scan once more: only then everything looks as its owner sees it.

use std::collections::BTreeMap;

use tidegate_proto::v1::{self, PlanAction};

use super::{
    super::plan::{self, Inventory, Owner, Plan, Registered, Seen},
    overlay::{Changed, Overlay},
    question::{Asked, Question},
};

/// The answer.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What becomes of each database concerned, by its name before or else after, and identity.
    pub(super) fates: BTreeMap<(String, String), PlanAction>,
    /// How the changed ones are in the end.
    pub(super) changed: Changed,
    /// The counts.
    pub(super) summary: v1::PlanSummary,
}

/// Answers a question over an inventory.
pub(super) fn outcome(base: &impl Inventory, question: &Question) -> Outcome {
    let mut overlay = Overlay::new(base, question);
    let mut summary = v1::PlanSummary {
        retired_scopes: count(question.retired.len()),
        ..v1::PlanSummary::default()
    };
    let mut left = Left::default();
    for asked in &question.scopes {
        let (more, held) = scan(&mut overlay, asked, question);
        left.add(more);
        summary.held += count(held);
        summary.partial_scopes += u32::from(matches!(asked.seen, Seen::Partial(_)));
    }
    let mut handed_over = false;
    for scope_id in &question.retired {
        handed_over |= end(&mut overlay, scope_id, question);
    }
    if handed_over || (left.shadowed > 0 && !question.retired.is_empty()) {
        left = Left::default();
        for asked in &question.scopes {
            left.add(scan(&mut overlay, asked, question).0);
        }
    }
    summary.shadowed = count(left.shadowed);
    summary.unjudged = count(left.unjudged);
    let changed = overlay.into_changed();
    let fates = fates(base, question, &changed);
    for action in fates.values() {
        match action {
            PlanAction::Add => summary.added += 1,
            PlanAction::Change => summary.changed += 1,
            PlanAction::Keep => summary.kept += 1,
            PlanAction::Remove => summary.removed += 1,
            PlanAction::Unspecified => {}
        }
    }
    Outcome {
        fates,
        changed,
        summary,
    }
}

/// What scans saw and could not have.
#[derive(Clone, Copy, Default)]
struct Left {
    shadowed: usize,
    unjudged: usize,
}

impl Left {
    const fn add(&mut self, more: Self) {
        self.shadowed += more.shadowed;
        self.unjudged += more.unjudged;
    }
}

/// Ends a scope; whether it had something to hand over.
fn end(overlay: &mut Overlay<'_, impl Inventory>, scope_id: &str, question: &Question) -> bool {
    overlay.turn_of(scope_id);
    let plan = plan::retire(scope_id, &*overlay);
    let hands_over = !plan.hand_overs.is_empty();
    // Who ends makes nothing: what it lets go of says itself who gets it.
    let nobody = Owner {
        scope_id: scope_id.to_owned(),
        group: question.group.clone(),
        order: 0,
        config: None,
    };
    overlay.carry_out(&nobody, plan);
    hands_over
}

/// Scans; deletions that a scan would hold back are made, and counted.
fn scan(
    overlay: &mut Overlay<'_, impl Inventory>,
    asked: &Asked,
    question: &Question,
) -> (Left, usize) {
    let owner = Owner::of(&asked.scope);
    overlay.turn_of(&owner.scope_id);
    let trusted = question.held.get(&owner.scope_id).copied();
    let plan = |trusted| plan::plan(&asked.scope, &*overlay, &asked.seen, trusted);
    let first: Plan = plan(trusted);
    let (plan, held) = match &first.held {
        Some(held) => (plan(Some(held.digest)), held.count),
        None => (first, 0),
    };
    let left = Left {
        shadowed: plan.shadowed.len(),
        unjudged: plan.unjudged,
    };
    overlay.carry_out(&owner, plan);
    (left, held)
}

/// What becomes of what the configuration's scopes own before or after.
fn fates(
    base: &impl Inventory,
    question: &Question,
    changed: &Changed,
) -> BTreeMap<(String, String), PlanAction> {
    let mut fates = BTreeMap::new();
    let named = question.scopes.iter().map(|asked| asked.scope.id().0);
    for scope_id in named.chain(question.retired.iter().cloned()) {
        for kept in base.owned_by(&scope_id) {
            if !changed.contains_key(&kept.database.identity) {
                let key = (kept.database.name.to_string(), kept.database.identity);
                fates.insert(key, PlanAction::Keep);
            }
        }
    }
    for (identity, after) in changed {
        let before = base.with_identity(identity);
        let Some(known) = before.as_ref().or(after.as_ref()) else {
            continue; // It came and went.
        };
        let key = (known.database.name.to_string(), identity.clone());
        let action = match (&before, after) {
            (None, _) => PlanAction::Add,
            (Some(_), None) => PlanAction::Remove,
            (Some(before), Some(after)) if is_same(before, after) => PlanAction::Keep,
            (Some(_), Some(_)) => PlanAction::Change,
        };
        fates.insert(key, action);
    }
    fates
}

/// Whether nobody could see a difference: the owner's place in its configuration is not shown.
fn is_same(before: &Registered, after: &Registered) -> bool {
    before.database == after.database && before.owner.scope_id == after.owner.scope_id
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
