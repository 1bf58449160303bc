//! How the scopes fare, as text: a table, and below it what somebody should know or do.

use std::collections::HashMap;

use jiff::Timestamp;

use super::scope::{Scope, ScopeFailure, State};
use crate::{Table, table::visible, when};

/// Most databases named for one scope; the rest is counted.
const SHADOWED_SHOWN_MAX: usize = 20;
/// Most reasons to leave databases out that are told of one scope; the rest is counted.
const LEFT_OUT_SHOWN_MAX: usize = 5;
/// The class of a failure that only a change of a policy heals.
const ACCESS_DENIED: &str = "access_denied";

/// One line a scope. `verbose` adds what `tgctl discovery rescan` takes.
#[must_use]
pub fn status_table(scopes: &[Scope], now: Timestamp, verbose: bool) -> Table {
    let mut columns = vec![
        "Group",
        "Type",
        "Region",
        "Account/Role",
        "Databases",
        "Last Success",
        "Held By",
        "State",
    ];
    if verbose {
        columns.push("Scope");
    }
    let mut table = Table::new(columns);
    for scope in scopes {
        let mut row = vec![
            or_dash(&scope.group),
            scope.kind.clone(),
            scope.region.clone(),
            scope.role_text(),
            scope.databases.to_string(),
            relative(scope.last_success, now),
            or_dash(&scope.held_by),
            state(scope, now),
        ];
        if verbose {
            row.push(scope.id.clone());
        }
        table.row(row);
    }
    table
}

/// The table, and what follows from it. `width` is the terminal's, if there is one.
#[must_use]
pub fn status_text(scopes: &[Scope], now: Timestamp, verbose: bool, width: Option<u16>) -> String {
    let mut text = status_table(scopes, now, verbose).render(width);
    let of_id: HashMap<&str, &Scope> = scopes
        .iter()
        .map(|scope| (scope.id.as_str(), scope))
        .collect();
    for scope in scopes {
        let notes = notes(scope, &of_id, now);
        if !notes.is_empty() {
            text.push_str(&format!("\n{}\n", heading(scope)));
            for note in notes {
                text.push_str(&format!("  {}\n", visible(&note)));
            }
        }
    }
    text
}

/// `2m ago`, or `never`.
#[must_use]
pub fn relative(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "never".to_owned(), |at| when::ago(at, now))
}

fn state(scope: &Scope, now: Timestamp) -> String {
    match (scope.state, &scope.failure, scope.retires_at) {
        (State::Failed, Some(failure), _) => failed(failure),
        (State::Retiring, _, Some(at)) if at > now => format!("retires in {}", when::left(at, now)),
        (State::Retiring, _, _) => "retires now".to_owned(),
        (State::Never, _, _) => "never".to_owned(),
        (State::Failed | State::Ok, _, _) => "ok".to_owned(),
    }
}

/// `failed access_denied (AccessDenied)`.
pub(super) fn failed(failure: &ScopeFailure) -> String {
    if failure.aws_code.is_empty() {
        format!("failed {}", failure.class)
    } else {
        format!("failed {} ({})", failure.class, failure.aws_code)
    }
}

fn heading(scope: &Scope) -> String {
    let group = if scope.group.is_empty() {
        "no group".to_owned()
    } else {
        format!("group {}", scope.group)
    };
    let config = if scope.config.is_empty() {
        String::new()
    } else {
        format!(", discovery_config {}", scope.config)
    };
    visible(&format!("{} ({group}{config}):", scope.sentence()))
}

fn notes(scope: &Scope, of_id: &HashMap<&str, &Scope>, now: Timestamp) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(failure) = &scope.failure {
        notes.push(failure.message.clone());
        notes.extend(permission(scope, failure));
        notes.push(format!(
            "last tried {}; nothing is deleted meanwhile",
            relative(scope.last_attempt, now)
        ));
    }
    match scope.held_deletions {
        0 => {}
        1 => notes.push("1 deletion is held back until the next complete scan agrees".to_owned()),
        held => notes.push(format!(
            "{held} deletions are held back until the next complete scan agrees"
        )),
    }
    if let Some(at) = scope.retires_at {
        notes.push(format!(
            "no live worker names it: it goes at {1}, with {0}",
            databases(scope.databases),
            when::utc(at)
        ));
    }
    notes.extend(left_out(scope));
    notes.extend(shadows(scope, of_id));
    notes
}

fn left_out(scope: &Scope) -> Vec<String> {
    let mut lines: Vec<String> = scope
        .left_out
        .iter()
        .take(LEFT_OUT_SHOWN_MAX)
        .map(|left_out| {
            format!(
                "left out {}: {}",
                databases(left_out.count),
                left_out.reason
            )
        })
        .collect();
    let more = scope.left_out.iter().skip(LEFT_OUT_SHOWN_MAX);
    let more = more.fold(0_u32, |sum, left_out| sum.saturating_add(left_out.count));
    if more > 0 {
        lines.push(format!("and {more} more for other reasons"));
    }
    lines
}

/// What a policy lacks, or the call that failed.
fn permission(scope: &Scope, failure: &ScopeFailure) -> Option<String> {
    if failure.action.is_empty() {
        return None;
    }
    if failure.class != ACCESS_DENIED {
        return Some(format!("call: {}", failure.action));
    }
    let who = if scope.assume_role_arn.is_empty() {
        "the worker's own identity".to_owned()
    } else if failure.action == "sts:AssumeRole" {
        format!("the worker, for {}", scope.assume_role_arn)
    } else {
        scope.assume_role_arn.clone()
    };
    Some(format!("missing permission: {} for {who}", failure.action))
}

fn shadows(scope: &Scope, of_id: &HashMap<&str, &Scope>) -> Vec<String> {
    let mut lines: Vec<String> = scope
        .shadowed
        .iter()
        .take(SHADOWED_SHOWN_MAX)
        .map(|shadowed| {
            let owner = of_id
                .get(shadowed.owned_by.as_str())
                .map_or_else(|| shadowed.owned_by.clone(), |owner| named(owner));
            format!("also found {}, owned by {owner}", shadowed.identity)
        })
        .collect();
    let more = scope.shadowed.len().saturating_sub(SHADOWED_SHOWN_MAX);
    if more > 0 {
        lines.push(format!("and {more} more that other scopes own"));
    }
    lines
}

fn named(scope: &Scope) -> String {
    if scope.group.is_empty() {
        scope.sentence()
    } else {
        format!("group {}: {}", scope.group, scope.sentence())
    }
}

fn databases(count: u32) -> String {
    if count == 1 {
        "1 database".to_owned()
    } else {
        format!("{count} databases")
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}
