//! A plan for people: a line a database, what could not be seen, the counts.

use super::{
    Action, Change, DiscoveryPlan, Scopes, Source, Summary, Unseen,
    difference::{Difference, LABEL, OWNER},
};
use crate::table::visible;

/// The class of a failure that only a change of a policy heals.
const ACCESS_DENIED: &str = "access_denied";
/// Most parts that could not be seen which are told to a person; the rest is counted.
const UNSEEN_SHOWN_MAX: usize = 20;

/// The plan of `file` as text.
#[must_use]
pub fn text(plan: &DiscoveryPlan, file: &str, scopes: &Scopes) -> String {
    let mut text = format!("{}\n", visible(&heading(plan, file)));
    let mut section = |lines: Vec<String>| {
        if !lines.is_empty() {
            text.push('\n');
        }
        for line in lines {
            text.push_str(&visible(&line));
            text.push('\n');
        }
    };
    let changes = plan.changes.iter().map(|change| line(change, scopes));
    let kept = plan.kept.iter().map(|name| format!("    {name}"));
    section(changes.chain(kept).collect());
    section(unseen(&plan.unseen));
    section(left_out(plan));
    section(closing(&plan.summary));
    text
}

fn heading(plan: &DiscoveryPlan, file: &str) -> String {
    let group = if plan.group.is_empty() {
        "workers without a group".to_owned()
    } else {
        format!("group {}", plan.group)
    };
    let what = if plan.config.is_empty() {
        group
    } else {
        format!("discovery_config {} of {group}", plan.config)
    };
    let over = match plan.source {
        Source::Live => "AWS as it is now",
        Source::Recorded => "the recorded inventory (--live looks at AWS itself)",
    };
    format!("{file}, for {what}, over {over}:")
}

fn line(change: &Change, scopes: &Scopes) -> String {
    let name = &change.name;
    match change.action {
        Action::Add => format!("  + {name}  {}", scopes.named(&change.owner_after)),
        Action::Remove => format!("  - {name}  {}", change.why),
        Action::Change => {
            let told: Vec<String> = change
                .differences
                .iter()
                .map(|difference| changed(difference, scopes))
                .collect();
            format!("  ~ {name}  {}", told.join("; "))
        }
    }
}

fn changed(difference: &Difference, scopes: &Scopes) -> String {
    let Difference {
        field,
        before,
        after,
    } = difference;
    if before.is_none() && after.is_none() {
        return field.clone();
    }
    // Scopes that differ in what a sentence leaves out are told by their ids.
    let named = |id: &Option<String>| id.as_deref().map(|id| scopes.named(id).to_owned());
    let by_name = field == OWNER && named(before) != named(after);
    let show = |value: &Option<String>| match value {
        None => "none".to_owned(),
        Some(value) if field.starts_with(LABEL) => format!("\"{value}\""),
        Some(id) if by_name => scopes.named(id).to_owned(),
        Some(value) => value.clone(),
    };
    let field = field.strip_prefix(LABEL).unwrap_or(field);
    format!("{field}: {} -> {}", show(before), show(after))
}

fn unseen(unseen: &[Unseen]) -> Vec<String> {
    let mut lines = Vec::new();
    if !unseen.is_empty() {
        lines.push("Not seen in full, so nothing that is missing there counts as gone:".to_owned());
    }
    for part in unseen.iter().take(UNSEEN_SHOWN_MAX) {
        lines.push(format!("  {}", part.what));
        lines.push(format!("    {}", part.failure.message));
        lines.extend(permission(part).map(|line| format!("    {line}")));
    }
    let more = unseen.len().saturating_sub(UNSEEN_SHOWN_MAX);
    if more > 0 {
        lines.push(format!("  and {more} more (--format=json has all)"));
    }
    lines
}

/// What a policy lacks, or the call that failed.
fn permission(part: &Unseen) -> Option<String> {
    let failure = &part.failure;
    if failure.action.is_empty() {
        return None;
    }
    if failure.class != ACCESS_DENIED {
        return Some(format!("call: {}", failure.action));
    }
    let own = "your own AWS identity";
    let who = match part.assume_role_arn.as_str() {
        "" => own.to_owned(),
        role if failure.action == "sts:AssumeRole" => format!("{own}, for {role}"),
        role => role.to_owned(),
    };
    Some(format!("missing permission: {} for {who}", failure.action))
}

fn left_out(plan: &DiscoveryPlan) -> Vec<String> {
    let mut lines = Vec::new();
    if !plan.left_out.is_empty() {
        lines.push("Found, and not to be listed, since no agent could serve it:".to_owned());
    }
    lines.extend(plan.left_out.iter().map(|of| {
        let (count, reason) = (of.left_out.count, &of.left_out.reason);
        format!("  {}: {}: {reason}", of.what, databases(count))
    }));
    lines
}

fn closing(summary: &Summary) -> Vec<String> {
    let kept = match summary.kept {
        1 => "1 stays as it is".to_owned(),
        kept => format!("{kept} stay as they are"),
    };
    let mut lines = Vec::new();
    if summary.changes_something() {
        let Summary {
            added,
            changed,
            removed,
            ..
        } = summary;
        lines.push(format!(
            "{added} to add, {changed} to change, {removed} to remove; {kept}."
        ));
    } else if summary.kept == 0 {
        lines.push("Nothing to do: there are no databases here, now or then.".to_owned());
    } else {
        lines.push(format!("Nothing to do: {kept}."));
    }
    let mut remark = |count: u32, one: &str, many: &str| match count {
        0 => {}
        1 => lines.push(format!("1 {one}.")),
        count => lines.push(format!("{count} {many}.")),
    };
    remark(
        summary.held,
        "removal would be held back until a second scan agrees",
        "removals would be held back until a second scan agrees",
    );
    remark(
        summary.retired_scopes,
        "scope is no longer named: it ends after its time of grace, and what it owned goes then",
        "scopes are no longer named: they end after their time of grace, and what they owned goes then",
    );
    remark(
        summary.shadowed,
        "sighting is of a database that another group or a matcher before it owns",
        "sightings are of databases that another group or a matcher before them owns",
    );
    remark(
        summary.unjudged,
        "database was left alone, since its tags could not be read",
        "databases were left alone, since their tags could not be read",
    );
    lines
}

fn databases(count: u32) -> String {
    if count == 1 {
        "1 database".to_owned()
    } else {
        format!("{count} databases")
    }
}
