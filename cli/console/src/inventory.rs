//! Listings to their last page, and databases by the names that people type.
//!
//! A database that is written in an agent's configuration lives with that agent's presence alone. To people it is a
//! database like any other, so listings hold those too.

use std::{cmp::Ordering, collections::BTreeMap};

use tidegate_core::{
    Database, Origin, Predicate, Selector,
    labels::ORIGIN,
    predicate::{Fields as _, Schema},
};
use tidegate_proto::v1::{self, inventory_service_client::InventoryServiceClient};
use tonic::{Code, transport::Channel};

use crate::{Failure, resolve, rpc, table::visible};

/// Asked for at once: with many long labels each, this many still fit into a message.
const PAGE_SIZE: i32 = 250;
/// A listing of more pages than this has no end that anybody waits for.
const PAGES_MAX: usize = 10_000;

/// Which entries of a listing are wanted.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only these; `None` is all.
    pub selector: Option<Selector>,
    /// Words that must all occur.
    pub search: Vec<String>,
    /// A predicate; empty is all.
    pub filter: String,
    /// Fields to order by, as the service takes them (`labels.env, name desc`); empty is by name.
    pub order_by: String,
}

impl Query {
    /// Whether it leaves nothing out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.selector.is_none() && self.search.is_empty() && self.filter.trim().is_empty()
    }

    fn search(word: &str) -> Self {
        Self {
            search: vec![word.to_owned()],
            ..Self::default()
        }
    }

    /// The same, of databases in agents' configurations alone. Who asks for another origin by label gets what that
    /// label says.
    fn configured_only(&self) -> Self {
        let mut terms = self
            .selector
            .as_ref()
            .map(|selector| selector.written().clone())
            .unwrap_or_default();
        terms
            .entry(ORIGIN.to_owned())
            .or_insert_with(|| vec![Origin::Config.as_str().to_owned()]);
        Self {
            selector: Selector::new(terms).ok(),
            ..self.clone()
        }
    }
}

/// All databases that fit, in the order that the query asks for: registered ones, and those of agents' configurations.
///
/// # Errors
///
/// When the service cannot be asked.
pub async fn databases(
    client: &mut InventoryServiceClient<Channel>,
    query: &Query,
) -> Result<Vec<v1::Database>, Failure> {
    check(&Schema::DATABASE, query)?;
    let configured = servers(client, &query.configured_only(), "").await?;
    let mut found: BTreeMap<String, v1::Database> = configured
        .into_iter()
        .filter_map(|server| server.database)
        .map(|database| (database.name.clone(), database))
        .collect();
    for database in registered(client, query).await? {
        found.insert(database.name.clone(), database);
    }
    Ok(ordered(found.into_values().collect(), &query.order_by))
}

/// A predicate that does not parse is told with its place before anything is asked.
fn check(schema: &'static Schema, query: &Query) -> Result<(), Failure> {
    if query.filter.trim().is_empty() {
        return Ok(());
    }
    let parsed = Predicate::parse_for(schema, &query.filter);
    parsed.map(drop).map_err(|error| {
        let shown = error.with_caret(&query.filter);
        let lines = shown.lines().map(|line| format!("\n  {}", visible(line)));
        Failure::usage(format!(
            "the query does not parse:{}",
            lines.collect::<String>()
        ))
    })
}

/// Two listings in one order. The service has refused what it does not know, so that nothing is refused here.
fn ordered(databases: Vec<v1::Database>, order_by: &str) -> Vec<v1::Database> {
    let fields: Vec<(&str, bool)> = order_by
        .split(',')
        .filter_map(|part| {
            let mut words = part.split_whitespace();
            Some((words.next()?, words.next() == Some("desc")))
        })
        .collect();
    let mut keyed: Vec<(Vec<String>, v1::Database)> = databases
        .into_iter()
        .map(|database| {
            let known = Database::try_from(database.clone()).ok();
            let value = |(field, _): &(&str, bool)| known.as_ref().map(|known| value(known, field));
            let values = fields.iter().filter_map(value).collect();
            (values, database)
        })
        .collect();
    keyed.sort_by(|(a, left), (b, right)| {
        let by = fields.iter().zip(a.iter().zip(b));
        let by = by.map(|((_, descending), (a, b))| match a.cmp(b) {
            ordering if *descending => ordering.reverse(),
            ordering => ordering,
        });
        by.fold(Ordering::Equal, Ordering::then)
            .then_with(|| left.name.cmp(&right.name))
    });
    keyed.into_iter().map(|(_, database)| database).collect()
}

fn value(database: &Database, field: &str) -> String {
    if let Some(key) = field.strip_prefix("labels.") {
        return database.labels.get(key).unwrap_or_default().to_owned();
    }
    let field = if field == "status" {
        "unavailable"
    } else {
        field
    };
    let path = Schema::DATABASE.field(field).map(|field| field.path);
    let text = path.and_then(|path| database.text(path));
    text.unwrap_or_default().into_owned()
}

async fn registered(
    client: &mut InventoryServiceClient<Channel>,
    query: &Query,
) -> Result<Vec<v1::Database>, Failure> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request = v1::ListDatabasesRequest {
            page_size: PAGE_SIZE,
            page_token,
            selector: query.selector.clone().map(Into::into),
            search: query.search.clone(),
            filter: query.filter.clone(),
            order_by: query.order_by.clone(),
            ..v1::ListDatabasesRequest::default()
        };
        let page = rpc::call("list databases", client.list_databases(request)).await?;
        found.extend(page.databases);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
    Err(endless("databases"))
}

/// All database servers that fit, in the order that the query asks for, else by host, then database. `database` is a name, or empty for all.
///
/// # Errors
///
/// When the service cannot be asked.
pub async fn servers(
    client: &mut InventoryServiceClient<Channel>,
    query: &Query,
    database: &str,
) -> Result<Vec<v1::DatabaseServer>, Failure> {
    check(&Schema::DATABASE_SERVER, query)?;
    let mut found = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request = v1::ListDatabaseServersRequest {
            page_size: PAGE_SIZE,
            page_token,
            selector: query.selector.clone().map(Into::into),
            search: query.search.clone(),
            filter: query.filter.clone(),
            order_by: query.order_by.clone(),
            database: database.to_owned(),
            ..v1::ListDatabaseServersRequest::default()
        };
        let page = rpc::call(
            "list database servers",
            client.list_database_servers(request),
        )
        .await?;
        found.extend(page.database_servers);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            if query.order_by.is_empty() {
                found.sort_by(|a, b| server_order(a).cmp(&server_order(b)));
            }
            return Ok(found);
        }
    }
    Err(endless("database servers"))
}

/// The database that a person means by a name: see [`resolve::choose`].
///
/// # Errors
///
/// When there is none, several fit, or the service cannot be asked.
pub async fn find(
    client: &mut InventoryServiceClient<Channel>,
    wanted: &str,
) -> Result<v1::Database, Failure> {
    let exact = v1::GetDatabaseRequest {
        name: wanted.to_owned(),
    };
    match tokio::time::timeout(rpc::CALL_TIMEOUT, client.get_database(exact)).await {
        Ok(Ok(found)) => return Ok(found.into_inner()),
        Ok(Err(status)) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {}
        Ok(Err(status)) => return Err(rpc::failure("look up the database", &status)),
        Err(_) => return Err(Failure::new("could not look up the database: no answer")),
    }
    let candidates = databases(client, &Query::search(wanted)).await?;
    match resolve::choose(wanted, &candidates) {
        Ok(database) => Ok(database.clone()),
        // A database is never named after an identifier that starts with a digit, so searching names misses it.
        Err(resolve::ResolveError::NotFound { .. })
            if !wanted.starts_with(|c: char| c.is_ascii_alphabetic()) =>
        {
            let all = databases(client, &Query::default()).await?;
            Ok(resolve::choose(wanted, &all)?.clone())
        }
        Err(error) => Err(error.into()),
    }
}

/// The database that a person means by a name, labels, or a predicate; by several of them, the one that fits all.
///
/// # Errors
///
/// When there is none, several fit, or the service cannot be asked.
pub async fn find_among(
    client: &mut InventoryServiceClient<Channel>,
    wanted: Option<&str>,
    query: &Query,
) -> Result<v1::Database, Failure> {
    match wanted {
        Some(wanted) if query.is_everything() => find(client, wanted).await,
        Some(wanted) => {
            let candidates = databases(client, query).await?;
            Ok(resolve::choose(wanted, &candidates)?.clone())
        }
        None => {
            let candidates = databases(client, query).await?;
            Ok(resolve::the_one(&candidates)?.clone())
        }
    }
}

fn server_order(server: &v1::DatabaseServer) -> (&str, &str, &str) {
    let name = server
        .database
        .as_ref()
        .map_or("", |database| database.name.as_str());
    (server.hostname.as_str(), name, server.host_id.as_str())
}

fn endless(what: &str) -> Failure {
    Failure::new(format!(
        "could not list {what}: more than {PAGES_MAX} pages of {PAGE_SIZE}"
    ))
    .hint("narrow the listing with labels or `--search`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_of_configurations_are_asked_for_by_their_origin() {
        let query = Query {
            selector: Some(Selector::new([("env", ["prod"])]).unwrap()),
            search: vec!["x".to_owned()],
            filter: "name == \"a\"".to_owned(),
            ..Query::default()
        };
        let configured = query.configured_only();
        assert_eq!(
            configured.selector,
            Some(Selector::new([("env", ["prod"]), (ORIGIN, ["config"])]).unwrap())
        );
        assert_eq!(configured.search, ["x"]);
        assert_eq!(configured.filter, query.filter);
    }

    #[test]
    fn databases_of_both_listings_come_in_the_order_that_was_asked_for() {
        let database = |name: &str, env: &str| v1::Database {
            name: name.to_owned(),
            labels: [("env".to_owned(), env.to_owned())].into(),
            origin: v1::Origin::Dynamic.into(),
            protocol: "postgres".to_owned(),
            uri: "h:5432".to_owned(),
            ..v1::Database::default()
        };
        let all = || {
            vec![
                database("a", "dev"),
                database("b", "prod"),
                database("c", "dev"),
            ]
        };
        let names = |order_by: &str| {
            let ordered = ordered(all(), order_by);
            ordered
                .into_iter()
                .map(|database| database.name)
                .collect::<String>()
        };
        assert_eq!(names(""), "abc");
        assert_eq!(names("name desc"), "cba");
        assert_eq!(names("labels.env desc"), "bac");
        assert_eq!(names("labels.env, name desc"), "cab");
        assert_eq!(names("status, labels.env"), "acb");
    }

    #[test]
    fn a_query_that_does_not_parse_is_shown_with_its_fault() {
        let query = Query {
            filter: "nmae == \"x\"".to_owned(),
            ..Query::default()
        };
        let failure = check(&Schema::DATABASE, &query).unwrap_err();
        assert!(
            failure.message().contains("\n  nmae == \"x\"\n  ^ "),
            "{failure}"
        );
    }
}
