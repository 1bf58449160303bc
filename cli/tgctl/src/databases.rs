//! `tgctl db`: which agent serves which database.

use tidegate_console::{
    Failure, Format, Output, Table,
    client::Client,
    inventory::{self, Query},
    labels, output, resource,
};
use tidegate_core::Labels;

use crate::args::DbLsArgs;

pub(crate) async fn ls(client: &Client, args: DbLsArgs) -> Result<(), Failure> {
    let query = Query {
        selector: args.labels.as_deref().map(labels::filter).transpose()?,
        search: args.search,
        filter: args.query,
        order_by: args.sort,
    };
    let servers = inventory::servers(&mut client.inventory(), &query, "").await?;
    let servers: Vec<resource::DatabaseServer> =
        servers.iter().map(resource::DatabaseServer::from).collect();
    Output::new(args.format).list(&servers, || table(&servers, args.verbose))?;
    if servers.is_empty() && args.format == Format::Text {
        output::remark("No agent serves such a database. `tgctl get db` lists what is registered.");
    }
    Ok(())
}

/// What there is to say of a database server beside its figures: what others say otherwise, and the agent's remarks.
fn notes(status: &resource::ServerStatus) -> String {
    let conflict = Some(status.conflict.as_str()).filter(|conflict| !conflict.is_empty());
    let remarks = status.remarks.iter().map(String::as_str);
    let notes: Vec<&str> = conflict.into_iter().chain(remarks).collect();
    notes.join("; ")
}

/// One row a database server. Columns that would be empty in every row are left out.
pub(crate) fn table(servers: &[resource::DatabaseServer], verbose: bool) -> Table {
    let mut columns = vec!["Host", "Name", "Protocol", "URI"];
    if verbose {
        columns.extend(["Health", "Role", "Role Source"]);
    }
    let statuses = || servers.iter().filter_map(|server| server.status.as_ref());
    let has_reasons = verbose && statuses().any(|status| !status.role_reason.is_empty());
    let has_notes = statuses().any(|status| !notes(status).is_empty());
    if has_reasons {
        columns.push("Why");
    }
    if has_notes {
        columns.push("Notes");
    }
    columns.extend(["Labels", "Version"]);
    let mut table = Table::new(columns);
    if !verbose {
        table = table.shrinking("Labels");
    }
    for server in servers {
        let database = &server.spec.database;
        let mut row = vec![
            server.spec.hostname.clone(),
            database.metadata.name.clone(),
            database.spec.protocol.clone(),
            database.spec.uri.clone(),
        ];
        if let (true, Some(status)) = (verbose, &server.status) {
            row.extend([
                status.target_health.status.clone(),
                status.effective_role_arn.clone(),
                status.role_source.to_owned(),
            ]);
        }
        let status = server.status.as_ref();
        if has_reasons {
            row.push(
                status
                    .map(|status| status.role_reason.clone())
                    .unwrap_or_default(),
            );
        }
        if has_notes {
            row.push(status.map(notes).unwrap_or_default());
        }
        row.extend([
            labels_text(&database.metadata, verbose),
            server.spec.version.clone(),
        ]);
        table.row(row);
    }
    table
}

/// The labels of a resource in one cell.
pub(crate) fn labels_text(metadata: &resource::Metadata, all: bool) -> String {
    let labels: Labels = metadata.labels.clone().into_iter().collect();
    labels::text(&labels, all)
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1;

    use super::*;

    fn server(hostname: &str) -> v1::DatabaseServer {
        v1::DatabaseServer {
            hostname: hostname.to_owned(),
            database: Some(v1::Database {
                name: "orders".to_owned(),
                uri: "x:1".to_owned(),
                ..v1::Database::default()
            }),
            role_source: v1::RoleSource::Override.into(),
            role_reason: "entry 2 of `db_service.resources` (line 14)".to_owned(),
            ..v1::DatabaseServer::default()
        }
    }

    fn printed(servers: &[v1::DatabaseServer], verbose: bool) -> String {
        let servers: Vec<_> = servers.iter().map(resource::DatabaseServer::from).collect();
        table(&servers, verbose).render(None)
    }

    #[test]
    fn why_a_role_won_is_shown_to_who_asks_for_more() {
        let servers = [server("a")];
        assert!(printed(&servers, true).contains("entry 2 of `db_service.resources` (line 14)"));
        let short = printed(&servers, false);
        assert!(
            !short.contains("Why") && !short.contains("Notes"),
            "{short}"
        );
    }

    #[test]
    fn what_agents_say_otherwise_and_what_fails_is_shown_to_everybody() {
        let (mut one, two) = (server("a"), server("b"));
        one.conflict = "agent `b` serves y:1 (postgres) from its own file".to_owned();
        one.remarks = vec!["label `load`: the command took longer than 10 s".to_owned()];
        let text = printed(&[one, two], false);
        assert!(
            text.contains("agent `b` serves y:1 (postgres) from its own file; label `load`: the"),
            "{text}"
        );
    }
}
