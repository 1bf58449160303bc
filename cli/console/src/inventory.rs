//! Listings to their last page, and databases by the names that people type.
//!
//! A database that is written in an agent's configuration lives with that agent's presence alone. To people it is a
//! database like any other, so listings hold those too.

use std::collections::BTreeMap;

use tidegate_core::{Origin, Selector, labels::ORIGIN};
use tidegate_proto::v1::{self, inventory_service_client::InventoryServiceClient};
use tonic::{Code, transport::Channel};

use crate::{Failure, resolve, rpc};

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
}

impl Query {
    fn search(word: &str) -> Self {
        Self {
            selector: None,
            search: vec![word.to_owned()],
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
            search: self.search.clone(),
        }
    }
}

/// All databases that fit, in name order: registered ones, and those of agents' configurations.
///
/// # Errors
///
/// When the service cannot be asked.
pub async fn databases(
    client: &mut InventoryServiceClient<Channel>,
    query: &Query,
) -> Result<Vec<v1::Database>, Failure> {
    let configured = servers(client, &query.configured_only(), "").await?;
    let mut found: BTreeMap<String, v1::Database> = configured
        .into_iter()
        .filter_map(|server| server.database)
        .map(|database| (database.name.clone(), database))
        .collect();
    for database in registered(client, query).await? {
        found.insert(database.name.clone(), database);
    }
    Ok(found.into_values().collect())
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

/// All database servers that fit, in order of host, then database. `database` is a name, or empty for all.
///
/// # Errors
///
/// When the service cannot be asked.
pub async fn servers(
    client: &mut InventoryServiceClient<Channel>,
    query: &Query,
    database: &str,
) -> Result<Vec<v1::DatabaseServer>, Failure> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request = v1::ListDatabaseServersRequest {
            page_size: PAGE_SIZE,
            page_token,
            selector: query.selector.clone().map(Into::into),
            search: query.search.clone(),
            database: database.to_owned(),
        };
        let page = rpc::call(
            "list database servers",
            client.list_database_servers(request),
        )
        .await?;
        found.extend(page.database_servers);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            found.sort_by(|a, b| server_order(a).cmp(&server_order(b)));
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
        };
        let configured = query.configured_only();
        assert_eq!(
            configured.selector,
            Some(Selector::new([("env", ["prod"]), (ORIGIN, ["config"])]).unwrap())
        );
        assert_eq!(configured.search, ["x"]);
    }
}
