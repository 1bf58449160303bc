//! The first step: whether an agent serves a database at all, and as which role. Pure.

use std::sync::Arc;

use tidegate_core::{
    Database, DatabaseName, ErrorCode, ResourceMatcher,
    doctor::{Stop, Verdict, Who},
};

use crate::wanted::{AsWritten, Refusal, Rules, Wanted, Written, decide};

/// The database as an agent with these settings serves it, as far as settings and inventory tell.
///
/// # Errors
///
/// When it does not.
pub(super) fn find(
    statics: &[Database],
    entries: &[ResourceMatcher],
    name: &DatabaseName,
    inventory: Option<&Database>,
) -> Result<Wanted, Stop> {
    let written = statics
        .iter()
        .find(|own| own.name == *name)
        .map(|own| Written {
            database: Arc::new(own.clone()),
            remarks: Vec::new(),
        });
    let found = inventory.cloned().map(Arc::new);
    let rules = Rules::new(entries.to_vec());
    let decision = decide(written.as_ref(), found.as_ref(), &rules, &AsWritten);
    match (decision.wanted, decision.refusal) {
        (Some(wanted), _) => Ok(Wanted::clone(&wanted)),
        (None, Some(refusal)) => Err(refused(name, &refusal)),
        (None, None) => Err(match inventory {
            Some(database) => not_selected(database, entries.len()),
            None => unknown(name),
        }),
    }
}

/// Whether the database can be connected to, as far as AWS says.
///
/// # Errors
///
/// When it cannot.
pub(super) fn available(wanted: &Wanted) -> Result<(), Stop> {
    let database = &wanted.database;
    if database.unavailable.is_empty() {
        return Ok(());
    }
    let verdict = Verdict::new(
        ErrorCode::DatabaseNotAvailable,
        format!("database `{}` cannot be connected to now", database.name),
        Who::Operator,
    )
    .how("resume or start it; discovery sees it with its next poll");
    let evidence = format!("AWS tells the status `{}`", database.unavailable);
    Err(Stop::new(verdict, evidence))
}

/// What is served, and with which role.
pub(super) fn describe(wanted: &Wanted) -> Vec<String> {
    let database = &wanted.database;
    let kind = database.kind.map_or("none", |kind| kind.as_str());
    [
        format!(
            "{} at {}, kind {kind}, origin {}",
            database.protocol.as_str(),
            database.uri,
            database.origin.as_str()
        ),
        role(wanted),
    ]
    .into_iter()
    .chain(wanted.remarks.iter().cloned())
    .collect()
}

fn role(wanted: &Wanted) -> String {
    let external_id = |has_one: bool| if has_one { ", with an external id" } else { "" };
    let role = wanted.effective.role.as_ref().map_or_else(
        || "none, the agent's own identity".to_owned(),
        |role| {
            format!(
                "{}{}",
                role.role_arn,
                external_id(role.external_id.is_some())
            )
        },
    );
    format!("effective role: {role} ({})", wanted.role_reason)
}

fn refused(name: &DatabaseName, refusal: &Refusal) -> Stop {
    let verdict = Verdict::new(
        ErrorCode::AgentUnavailable,
        format!("this agent picks database `{name}` up and does not serve it"),
        Who::Administrator,
    );
    let verdict = match refusal {
        Refusal::Endpoint(_) => verdict.how(
            "compare the address in the inventory with what AWS tells of the database: discovery, or a person, wrote one that \
             AWS does not give to it",
        ),
        _ => verdict,
    };
    Stop::new(verdict, refusal.to_string())
}

fn not_selected(database: &Database, entries: usize) -> Stop {
    let name = &database.name;
    let verdict = Verdict::new(
        ErrorCode::AgentUnavailable,
        format!("this agent does not pick database `{name}` up"),
        Who::Operator,
    )
    .how(format!(
        "add an entry to `db_service.resources` whose labels match those of `{name}`, or ask an agent that serves it: \
         `tgctl get db_server/{name}`"
    ));
    let labels: Vec<String> = database
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let evidence = format!(
        "none of {entries} entries in `db_service.resources` matches its labels: {}",
        labels.join(", ")
    );
    Stop::new(verdict, evidence)
}

fn unknown(name: &DatabaseName) -> Stop {
    let verdict = Verdict::new(
        ErrorCode::UnknownDatabase,
        format!("no database `{name}` is known here"),
        Who::User,
    )
    .how("`tgctl get db` lists what is registered, `tgctl db ls` what is served");
    Stop::new(
        verdict,
        "neither the agent's configuration nor the inventory has it",
    )
}

#[cfg(test)]
mod tests {
    use tidegate_core::Selector;

    use super::*;
    use crate::testing::{redshift, role as role_named};

    fn entry(env: &str) -> ResourceMatcher {
        ResourceMatcher {
            labels: Selector::new([("env", [env])]).unwrap(),
            assume_role: Some(role_named("agent")),
            line: 3,
        }
    }

    #[test]
    fn who_decides_about_the_role_is_told() {
        let orders = redshift("orders", &[("env", "prod")]);
        let wanted = find(
            &[],
            &[entry("dev"), entry("prod")],
            &orders.name,
            Some(&orders),
        )
        .unwrap();
        let told = &describe(&wanted)[1];
        assert!(
            told.starts_with("effective role: arn:aws:iam::123456789012:role/agent ("),
            "{told}"
        );
        assert!(told.contains("line 3"), "{told}");
    }

    #[test]
    fn a_database_that_no_entry_matches_is_told_with_its_labels() {
        let orders = redshift("orders", &[("env", "prod")]);
        let stop = find(&[], &[entry("dev")], &orders.name, Some(&orders)).unwrap_err();
        assert_eq!(stop.verdict.code, "agent_unavailable");
        assert!(stop.evidence[0].contains("env=prod"), "{stop:?}");
    }

    #[test]
    fn a_database_at_a_strangers_host_and_one_that_nobody_knows_are_told_apart() {
        let mut orders = redshift("orders", &[("env", "prod")]);
        orders.uri = "orders.evil.example.com:5439".parse().unwrap();
        let stop = find(&[], &[entry("prod")], &orders.name, Some(&orders)).unwrap_err();
        assert!(stop.evidence[0].contains("evil.example.com"), "{stop:?}");
        let stop = find(&[], &[entry("prod")], &orders.name, None).unwrap_err();
        assert_eq!(stop.verdict.code, "unknown_database");
    }
}
