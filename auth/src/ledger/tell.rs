//! What the ledger tells: audit events of scopes and figures.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tidegate_core::DatabaseKind;
use tidegate_proto::v1;
use tidegate_service::metrics::Metrics;

use super::{
    Header, Ledger,
    plan::{Plan, Shadowed},
};
use crate::{audit::event, record::ScopeRecord};

/// Conflicts of one scan that are told one by one; the rest is in the scope's status.
const CONFLICTS_TOLD_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScanLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Figures by kind and outcome.
pub(super) struct Counters {
    scans: Family<ScanLabels, Counter>,
    databases: Family<ScanLabels, Counter>,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            scans: metrics.register(
                "tidegate_auth_scans_total",
                "Scans that workers published, by kind and outcome (complete, partial, unchanged)",
                Family::default(),
            ),
            databases: metrics.register(
                "tidegate_auth_scanned_databases_total",
                "Databases that scans created, updated, deleted, or did not: held (deletion held back), shadowed (owned \
                 by another scope), unjudged (tags unknown); by kind and outcome",
                Family::default(),
            ),
        }
    }

    /// Counts a scan.
    pub(super) fn scan(&self, kind: DatabaseKind, outcome: &'static str) {
        let kind = kind.as_str();
        self.scans
            .get_or_create(&ScanLabels { kind, outcome })
            .inc();
    }

    /// Counts databases.
    pub(super) fn databases(&self, kind: DatabaseKind, total: &v1::PublishResult, unjudged: usize) {
        let kind = kind.as_str();
        let unjudged = u32::try_from(unjudged).unwrap_or(u32::MAX);
        for (outcome, count) in [
            ("created", total.created),
            ("updated", total.updated),
            ("deleted", total.deleted),
            ("held", total.held),
            ("shadowed", total.shadowed),
            ("unjudged", unjudged),
        ] {
            if count > 0 {
                self.databases
                    .get_or_create(&ScanLabels { kind, outcome })
                    .inc_by(count.into());
            }
        }
    }
}

impl Ledger {
    /// Tells of a scan that was applied: `conflicts` are those that no earlier scan met.
    pub(super) async fn report(
        &self,
        header: &Header,
        before: &ScopeRecord,
        plan: &Plan,
        total: &v1::PublishResult,
        conflicts: &[Shadowed],
    ) {
        let outcome = if header.complete {
            "complete"
        } else {
            "partial"
        };
        self.counters.scan(header.scope.kind, outcome);
        self.counters
            .databases(header.scope.kind, total, plan.unjudged);
        let events = events(header, before, plan, conflicts);
        if !events.is_empty() {
            self.audit.record_all(events).await;
        }
        let scope = header.message.id.as_str();
        if let Some(held) = &plan.held {
            tracing::warn!(
                scope,
                held = held.count,
                "a scan would delete many databases: holding until the next complete scan agrees"
            );
        }
        if plan.unjudged > 0 {
            tracing::warn!(
                scope,
                databases = plan.unjudged,
                "left out new databases whose tags could not be read"
            );
        }
        if total.created + total.updated + total.deleted > 0 {
            tracing::info!(
                scope,
                created = total.created,
                updated = total.updated,
                deleted = total.deleted,
                shadowed = total.shadowed,
                "applied a scan"
            );
        }
    }
}

/// The audit events of one scan beside those of its databases.
fn events(
    header: &Header,
    before: &ScopeRecord,
    plan: &Plan,
    conflicts: &[Shadowed],
) -> Vec<v1::AuditEvent> {
    let scope = header.message.id.as_str();
    let mut events = Vec::new();
    let class =
        |failure: &Option<v1::ScanFailure>| failure.as_ref().map(|failure| failure.class.clone());
    if class(&before.failure) != class(&header.failure) {
        events.push(match &header.failure {
            Some(failure) => made(
                event::SCOPE_FAILED,
                scope,
                &[
                    ("class", &failure.class),
                    ("aws_code", &failure.aws_code),
                    ("action", &failure.action),
                    ("message", &failure.message),
                ],
            ),
            None => made(event::SCOPE_RECOVERED, scope, &[]),
        });
    }
    if let Some(held) = &plan.held
        && held.digest.as_slice() != before.held_digest
    {
        let count = held.count.to_string();
        events.push(made(event::DELETION_HELD, scope, &[("databases", &count)]));
    }
    events.extend(conflicts.iter().take(CONFLICTS_TOLD_MAX).map(|shadowed| {
        made(
            event::DISCOVERY_CONFLICT,
            scope,
            &[
                ("identity", &shadowed.identity),
                ("owned_by", &shadowed.owned_by),
            ],
        )
    }));
    events
}

fn made(kind: event::Kind, scope: &str, fields: &[(&str, &str)]) -> v1::AuditEvent {
    let mut made = event::new(kind);
    made.fields.insert("scope".to_owned(), scope.to_owned());
    let told = fields.iter().filter(|(_, value)| !value.is_empty());
    made.fields
        .extend(told.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    made
}
