//! `InventoryService`: listings, watches, and databases that administrators write.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use tidegate_core::{Selector, labels::is_label_key};
use tidegate_proto::{
    Invalid,
    v1::{self, inventory_service_server::InventoryService},
};
use tonic::{Code, Request, Response, Status};

use super::{Api, guard::Caller, status::refuse};
use crate::inventory::{
    Conditions, Filter, ListQuery, ListRequest, ListRows, QueryError, RowEvent, WatchEnd,
    WatchRows,
    mask::{DatabaseMask, ServerMask},
    tables::{DatabaseRow, Row as _, ServerRow},
};

/// Most selectors of one watch.
const SELECTORS_MAX: usize = 256;

pub(super) type Watched<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

pub(super) fn selector(message: Option<v1::Selector>) -> Result<Option<Selector>, Invalid> {
    message.map(Selector::try_from).transpose()
}

/// The name of a database as people type it; what no name could be is simply not there.
fn not_found(name: &str) -> Status {
    let name: String = name.chars().take(253).collect();
    refuse(Code::NotFound, "NOT_FOUND", format!("no database `{name}`"))
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        match error {
            QueryError::TooExpensive => {
                refuse(Code::ResourceExhausted, "QUERY_TOO_EXPENSIVE", message)
            }
        }
    }
}

impl Api {
    /// A watch as messages. It ends with the certificate of the person who watches.
    async fn watch<R: WatchRows, M: Send + 'static>(
        &self,
        caller: &Caller,
        selectors: Vec<Selector>,
        after_revision: u64,
        message: fn(RowEvent<R>) -> M,
    ) -> Result<Watched<M>, Status> {
        self.check_resumable(after_revision)?;
        let filter = Filter {
            selectors,
            conditions: Conditions::default(),
            viewer: caller.viewer(),
        };
        let watch = self
            .0
            .inventory
            .watch::<R>(filter, after_revision, self.shutdown.clone());
        let events = watch
            .await?
            .map(move |event: Result<RowEvent<R>, WatchEnd>| {
                event.map(message).map_err(Status::from)
            });
        Ok(self.until_expired(caller, events))
    }

    /// Refuses to go on from a revision of the state before it was restored; 0 asks for a full listing.
    pub(super) fn check_resumable(&self, after_revision: u64) -> Result<(), WatchEnd> {
        if after_revision == 0 || self.restores.is_of_this_state(after_revision) {
            return Ok(());
        }
        Err(WatchEnd::HistoryGone(after_revision))
    }

    /// A stream that ends with the certificate of the person who asked for it.
    pub(super) fn until_expired<M: Send + 'static>(
        &self,
        caller: &Caller,
        events: impl Stream<Item = Result<M, Status>> + Send + 'static,
    ) -> Watched<M> {
        let Ok((_, expires_at)) = caller.user() else {
            return events.boxed();
        };
        let clock = self.clock.clone();
        let expiry = async move { clock.wait_until(expires_at).await };
        let expired = futures::stream::once(std::future::ready(Err(refuse(
            Code::Unauthenticated,
            "CERTIFICATE_EXPIRED",
            "your certificate has expired: log in again",
        ))));
        // After an end of its own nobody asks for more.
        events.take_until(expiry).chain(expired).boxed()
    }
}

fn database_event(event: RowEvent<DatabaseRow>) -> v1::WatchDatabasesResponse {
    use v1::watch_databases_response::Event;
    let (revision, event) = match event {
        RowEvent::Upserted(revision, row) => (revision, Event::Upserted(row.message())),
        RowEvent::Deleted(revision, row) => (revision, Event::Deleted(row.name().to_owned())),
        RowEvent::Synced(revision) => (revision, Event::Synced(v1::Synced {})),
        RowEvent::Bookmark(revision) => (revision, Event::Bookmark(v1::Bookmark {})),
    };
    v1::WatchDatabasesResponse {
        revision,
        event: Some(event),
    }
}

fn server_event(event: RowEvent<ServerRow>) -> v1::WatchDatabaseServersResponse {
    use v1::watch_database_servers_response::Event;
    let key = |row: &ServerRow| v1::DatabaseServerKey {
        database: row.database().to_owned(),
        host_id: row.host_id().to_owned(),
    };
    let (revision, event) = match event {
        RowEvent::Upserted(revision, row) => (revision, Event::Upserted(row.message())),
        RowEvent::Deleted(revision, row) => (revision, Event::Deleted(key(&row))),
        RowEvent::Synced(revision) => (revision, Event::Synced(v1::Synced {})),
        RowEvent::Bookmark(revision) => (revision, Event::Bookmark(v1::Bookmark {})),
    };
    v1::WatchDatabaseServersResponse {
        revision,
        event: Some(event),
    }
}

#[tonic::async_trait]
impl InventoryService for Api {
    async fn list_databases(
        &self,
        request: Request<v1::ListDatabasesRequest>,
    ) -> Result<Response<v1::ListDatabasesResponse>, Status> {
        let viewer = Caller::of(&request).viewer();
        let asked = request.into_inner();
        let mask = DatabaseMask::new(asked.read_mask)?;
        let request = ListRequest {
            page_size: asked.page_size,
            page_token: asked.page_token,
            selector: selector(asked.selector)?,
            search: asked.search,
            database: String::new(),
            filter: asked.filter,
            order_by: asked.order_by,
        };
        let query = ListQuery::new(DatabaseRow::KIND, DatabaseRow::SCHEMA, request)?;
        let page = self.inventory.list::<DatabaseRow>(&query, &viewer).await?;
        let databases = page.rows.iter().map(|row| mask.apply(row.message()));
        Ok(Response::new(v1::ListDatabasesResponse {
            databases: databases.collect(),
            next_page_token: page.next_page_token,
            revision: page.revision,
        }))
    }

    async fn get_database(
        &self,
        request: Request<v1::GetDatabaseRequest>,
    ) -> Result<Response<v1::Database>, Status> {
        let viewer = Caller::of(&request).viewer();
        let name = &request.get_ref().name;
        let policy = self.inventory.roles().policy.clone();
        let row = self.inventory.tables().databases.get(name).cloned();
        row.filter(|row| viewer.sees(&policy, row.labels()))
            .map(|row| Response::new(row.message()))
            .ok_or_else(|| not_found(name))
    }

    type WatchDatabasesStream = Watched<v1::WatchDatabasesResponse>;

    async fn watch_databases(
        &self,
        request: Request<v1::WatchDatabasesRequest>,
    ) -> Result<Response<Self::WatchDatabasesStream>, Status> {
        let caller = Caller::of(&request);
        let asked = request.into_inner();
        if asked.selectors.len() > SELECTORS_MAX {
            return Err(Invalid::new("selectors", format!("are more than {SELECTORS_MAX}")).into());
        }
        let selectors = asked.selectors.into_iter().map(Selector::try_from);
        let selectors = selectors.collect::<Result<Vec<_>, _>>()?;
        let watch = self.watch(&caller, selectors, asked.after_revision, database_event);
        Ok(Response::new(watch.await?))
    }

    async fn create_database(
        &self,
        request: Request<v1::CreateDatabaseRequest>,
    ) -> Result<Response<v1::Database>, Status> {
        let actor = Caller::of(&request).actor();
        let created = self.databases.create(&actor, request.into_inner().database);
        Ok(Response::new(created.await?))
    }

    async fn update_database(
        &self,
        request: Request<v1::UpdateDatabaseRequest>,
    ) -> Result<Response<v1::Database>, Status> {
        let actor = Caller::of(&request).actor();
        let updated = self.databases.update(&actor, request.into_inner().database);
        Ok(Response::new(updated.await?))
    }

    async fn count_databases(
        &self,
        request: Request<v1::CountDatabasesRequest>,
    ) -> Result<Response<v1::CountDatabasesResponse>, Status> {
        let viewer = Caller::of(&request).viewer();
        let asked = request.into_inner();
        if !is_label_key(&asked.label) {
            return Err(Invalid::new("label", "is no label key").into());
        }
        let conditions = Conditions::new(
            DatabaseRow::SCHEMA,
            selector(asked.selector)?,
            &asked.search,
            &asked.filter,
        )?;
        let (counts, revision) = self
            .inventory
            .count_databases(&conditions, &asked.label, &viewer)
            .await?;
        let values = counts.values.into_iter();
        Ok(Response::new(v1::CountDatabasesResponse {
            counts: values
                .map(|(value, count)| v1::LabelCount { value, count })
                .collect(),
            total: counts.total,
            revision,
        }))
    }

    async fn delete_database(
        &self,
        request: Request<v1::DeleteDatabaseRequest>,
    ) -> Result<Response<v1::DeleteDatabaseResponse>, Status> {
        let actor = Caller::of(&request).actor();
        self.databases
            .delete(&actor, &request.get_ref().name)
            .await?;
        Ok(Response::new(v1::DeleteDatabaseResponse {}))
    }

    async fn list_database_servers(
        &self,
        request: Request<v1::ListDatabaseServersRequest>,
    ) -> Result<Response<v1::ListDatabaseServersResponse>, Status> {
        let viewer = Caller::of(&request).viewer();
        let asked = request.into_inner();
        let mask = ServerMask::new(asked.read_mask)?;
        let request = ListRequest {
            page_size: asked.page_size,
            page_token: asked.page_token,
            selector: selector(asked.selector)?,
            search: asked.search,
            database: asked.database,
            filter: asked.filter,
            order_by: asked.order_by,
        };
        let query = ListQuery::new(ServerRow::KIND, ServerRow::SCHEMA, request)?;
        let page = self.inventory.list::<ServerRow>(&query, &viewer).await?;
        let servers = page.rows.iter().map(|row| {
            let server = self.inventory.compared(row.message(), &viewer);
            mask.apply(server)
        });
        Ok(Response::new(v1::ListDatabaseServersResponse {
            database_servers: servers.collect(),
            next_page_token: page.next_page_token,
            revision: page.revision,
        }))
    }

    type WatchDatabaseServersStream = Watched<v1::WatchDatabaseServersResponse>;

    async fn watch_database_servers(
        &self,
        request: Request<v1::WatchDatabaseServersRequest>,
    ) -> Result<Response<Self::WatchDatabaseServersStream>, Status> {
        let caller = Caller::of(&request);
        let after_revision = request.get_ref().after_revision;
        let watch = self.watch(&caller, Vec::new(), after_revision, server_event);
        Ok(Response::new(watch.await?))
    }

    async fn list_proxies(
        &self,
        _request: Request<v1::ListProxiesRequest>,
    ) -> Result<Response<v1::ListProxiesResponse>, Status> {
        let proxies = self
            .inventory
            .hosts()
            .into_iter()
            .filter(|((_, service), _)| service == "proxy")
            .map(|((host_id, _), hello)| v1::Proxy {
                host_id,
                hostname: hello.hostname.clone(),
                version: hello.version.clone(),
                public_addr: hello.public_addr.clone(),
            })
            .collect();
        Ok(Response::new(v1::ListProxiesResponse { proxies }))
    }
}
