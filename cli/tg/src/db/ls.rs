//! `tg db ls`.

use jiff::Timestamp;
use tidegate_console::{
    Failure, Format, Output, Table,
    client::Client,
    inventory::{self, Query},
    labels, output,
    profile::{Home, ProxyAddr},
    resource,
};
use tidegate_core::Labels;

use crate::args::LsArgs;

/// From this many rows on, a listing says how to narrow it.
const SEARCH_HINT_ROWS: usize = 20;

pub(crate) async fn ls(proxy: Option<&ProxyAddr>, args: LsArgs) -> Result<(), Failure> {
    let query = Query {
        selector: args.labels.as_deref().map(labels::filter).transpose()?,
        search: args.search.clone(),
        filter: args.query.clone().unwrap_or_default(),
        order_by: args.sort.clone().unwrap_or_default(),
    };
    let profile = Home::locate()?.profile(proxy)?;
    let client = Client::of_profile(&profile)?;
    let databases = inventory::databases(&mut client.inventory(), &query).await?;
    let databases: Vec<resource::Database> =
        databases.iter().map(resource::Database::from).collect();
    let active = super::active_names(&profile, Timestamp::now())?;
    Output::new(args.format).list(&databases, || table(&databases, &active, args.verbose))?;
    if args.format == Format::Text {
        remark(databases.len(), &args);
    }
    Ok(())
}

fn remark(found: usize, args: &LsArgs) {
    let narrowed = args.labels.is_some() || !args.search.is_empty() || args.query.is_some();
    if found == 0 && narrowed {
        output::remark("No database that you may see fits.");
    } else if found == 0 {
        output::remark("There is no database that your roles let you see.");
    } else if found >= SEARCH_HINT_ROWS && !narrowed && output::for_a_person() {
        output::remark(
            "hint: narrow the list with `tg db ls --search=WORD` or `tg db ls key=value`",
        );
    }
}

/// One row a database; those that the person is logged in to are marked.
fn table(databases: &[resource::Database], active: &[String], verbose: bool) -> Table {
    let mut columns = vec!["Name", "Description"];
    if verbose {
        columns.extend(["Protocol", "Type", "URI", "Status"]);
    }
    columns.push("Labels");
    let mut table = Table::new(columns);
    if !verbose {
        table = table.shrinking("Labels");
    }
    for database in databases {
        let metadata = &database.metadata;
        let mark = if active.contains(&metadata.name) {
            "> "
        } else {
            ""
        };
        let mut row = vec![
            format!("{mark}{}", metadata.name),
            metadata.description.clone(),
        ];
        if let (true, Some(status)) = (verbose, &database.status) {
            let state = if status.unavailable.is_empty() {
                "available"
            } else {
                &status.unavailable
            };
            row.extend([
                database.spec.protocol.clone(),
                status.kind.clone(),
                database.spec.uri.clone(),
                state.to_owned(),
            ]);
        }
        let labels: Labels = metadata.labels.clone().into_iter().collect();
        row.push(labels::text(&labels, verbose));
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1;

    use super::*;

    fn database(name: &str, unavailable: &str) -> resource::Database {
        resource::Database::from(&v1::Database {
            name: name.to_owned(),
            description: "Redshift cluster in us-east-1".to_owned(),
            labels: [
                ("env".to_owned(), "dev".to_owned()),
                ("tidegate.dev/origin".to_owned(), "cloud".to_owned()),
            ]
            .into(),
            origin: v1::Origin::Cloud.into(),
            protocol: "postgres".to_owned(),
            uri: "h:5439".to_owned(),
            kind: "redshift".to_owned(),
            unavailable: unavailable.to_owned(),
            ..v1::Database::default()
        })
    }

    #[test]
    fn the_list_has_the_guides_columns() {
        let databases = [database("my-redshift", ""), database("orders", "paused")];
        assert_eq!(
            table(&databases, &["orders".to_owned()], false).render(None),
            "\
Name         Description                    Labels
-----------  -----------------------------  -------
my-redshift  Redshift cluster in us-east-1  env=dev
> orders     Redshift cluster in us-east-1  env=dev
"
        );
    }

    #[test]
    fn the_long_list_says_what_cannot_be_connected_to() {
        let text = table(&[database("orders", "paused")], &[], true).render(None);
        assert_eq!(
            text,
            "\
Name    Description                    Protocol  Type      URI     Status  Labels
------  -----------------------------  --------  --------  ------  ------  ---------------------------------
orders  Redshift cluster in us-east-1  postgres  redshift  h:5439  paused  env=dev,tidegate.dev/origin=cloud
"
        );
    }
}
