//! `tgctl discovery`: what discovery looks for, how that goes, and why a database is where it is.

pub(crate) mod plan;

use std::time::Duration;

use jiff::Timestamp;
use tidegate_console::{
    Failure, Format, Output,
    client::Client,
    discovery::{self, Scope, State, explain},
    inventory::{self, Query},
    output, rpc,
    table::{self, visible},
};
use tidegate_core::{
    Selector,
    labels::{ACCOUNT_ID, REGION},
};
use tidegate_proto::{
    scopes,
    v1::{self, AdoptDatabasesRequest, RequestRescanRequest},
};

use crate::args::{AdoptArgs, DiscoveryStatusArgs, ExplainArgs, RescanArgs};

/// How often `--watch` shows the status again.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// All scopes.
pub(crate) async fn scopes(client: &Client) -> Result<Vec<Scope>, Failure> {
    Ok(discovery::scopes(statuses(client).await?))
}

/// All scopes as they are listed.
async fn statuses(client: &Client) -> Result<Vec<v1::ScopeStatus>, Failure> {
    let mut service = client.discovery();
    let listed = async { scopes::all(&mut service).await.map(tonic::Response::new) };
    rpc::call("list scan scopes", listed).await
}

pub(crate) async fn status(client: &Client, args: DiscoveryStatusArgs) -> Result<(), Failure> {
    if args.watch {
        return watch(client, &args).await;
    }
    let scopes = scopes(client).await?;
    show(&scopes, &args)?;
    if scopes.is_empty() && args.format == Format::Text {
        output::remark(
            "No worker has named a scope yet. Workers are processes with `discovery_service` enabled, and matchers in \
             their file or in a `discovery_config` of their group.",
        );
    }
    if args.check && scopes.iter().any(|scope| scope.state == State::Failed) {
        return Err(Failure::unwell());
    }
    Ok(())
}

fn show(scopes: &[Scope], args: &DiscoveryStatusArgs) -> Result<(), Failure> {
    let now = Timestamp::now();
    let width = table::terminal_width();
    match args.format {
        Format::Text => output::print(&discovery::status_text(scopes, now, args.verbose, width)),
        Format::Json | Format::Yaml => Output::new(args.format).list(scopes, || {
            discovery::status_table(scopes, now, args.verbose)
        }),
    }
}

/// Shows the status until Ctrl-C. Only a first failure ends it: a control plane that is away for a moment comes back.
async fn watch(client: &Client, args: &DiscoveryStatusArgs) -> Result<(), Failure> {
    let mut interval = tokio::time::interval(WATCH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut shown = false;
    loop {
        let next = async {
            interval.tick().await;
            scopes(client).await
        };
        let asked = tokio::select! {
            stop = &mut interrupted => {
                return stop.map_err(|error| Failure::new(format!("cannot wait for Ctrl-C: {error}")));
            }
            asked = next => asked,
        };
        match asked {
            Ok(scopes) => {
                if args.format == Format::Text && output::for_a_person() {
                    output::print(CLEAR)?;
                } else if shown && args.format != Format::Json {
                    output::print(if args.format == Format::Yaml {
                        "---\n"
                    } else {
                        "\n"
                    })?;
                }
                show(&scopes, args)?;
                shown = true;
            }
            Err(failure) if shown => output::remark(&failure.to_string()),
            Err(failure) => return Err(failure),
        }
    }
}

pub(crate) async fn rescan(client: &Client, args: RescanArgs) -> Result<(), Failure> {
    let request = RequestRescanRequest {
        scope_ids: args.scopes,
    };
    let asked = rpc::call("ask for scans", client.discovery().request_rescan(request)).await?;
    if asked.scopes == 0 {
        output::remark(
            "No live worker holds such a scope: `tgctl discovery status` shows who holds what.",
        );
    }
    output::print(&format!(
        "Asked for a scan of {} now.\n",
        counted(asked.scopes, "scope")
    ))
}

pub(crate) async fn adopt(client: &Client, args: AdoptArgs) -> Result<(), Failure> {
    if args.from == args.to {
        return Err(Failure::usage("`--from` and `--to` name one group"));
    }
    let doing = format!("hand over the databases of group `{}`", args.from);
    let request = AdoptDatabasesRequest {
        from_group: args.from.clone(),
        to_group: args.to.clone(),
    };
    let adopted = rpc::call(&doing, client.discovery().adopt_databases(request)).await?;
    output::print(&format!(
        "{} of group \"{}\" went to group \"{}\".\n",
        counted(adopted.databases, "database"),
        visible(&args.from),
        visible(&args.to)
    ))
}

pub(crate) async fn explain(client: &Client, args: ExplainArgs) -> Result<(), Failure> {
    let wanted = args.database.as_str();
    let found = if wanted.starts_with("arn:") {
        of_arn(client, wanted).await?
    } else {
        vec![inventory::find(&mut client.inventory(), wanted).await?]
    };
    let scopes = scopes(client).await?;
    let mut explanations: Vec<explain::Explanation> = found
        .iter()
        .map(|database| explain::database(database, &scopes))
        .collect();
    if explanations.is_empty() {
        explanations.push(explain::absent(wanted, &scopes));
    }
    let now = Timestamp::now();
    match (args.format, explanations.as_slice()) {
        (Format::Text, all) => {
            let texts: Vec<String> = all
                .iter()
                .map(|one| explain::text(one, &scopes, now))
                .collect();
            output::print(&texts.join("\n"))
        }
        (_, [one]) => Output::new(args.format).value(one, String::new),
        (Format::Json, all) => output::print(&output::json(&all)?),
        (Format::Yaml, all) => output::print(&output::yaml_documents(all)?),
    }
}

/// The databases of an ARN: with the endpoint role behind `#` the one, without all of them.
async fn of_arn(client: &Client, wanted: &str) -> Result<Vec<v1::Database>, Failure> {
    let (arn, role) = match wanted.split_once('#') {
        Some((arn, role)) => (arn, Some(role)),
        None => (wanted, None),
    };
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let &[_, _, _, region, account, _] = parts.as_slice() else {
        return Err(
            Failure::usage(format!("`{wanted}` is no ARN of a database"))
                .hint("write it as arn:aws:redshift:REGION:ACCOUNT:cluster:NAME"),
        );
    };
    let query = Query {
        selector: Selector::new([(REGION, [region]), (ACCOUNT_ID, [account])]).ok(),
        ..Query::default()
    };
    let mut found = inventory::databases(&mut client.inventory(), &query).await?;
    found.retain(|database| {
        let identity = database.identity.as_str();
        match role {
            Some(_) => identity == wanted,
            None => identity.split('#').next() == Some(arn),
        }
    });
    Ok(found)
}

fn counted(count: u32, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}
