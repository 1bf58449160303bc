//! Databases and database servers as resources: asked of the inventory, with its index and its rules of who sees what.

use futures::StreamExt as _;
use tidegate_core::Labels;
use tidegate_proto::v1::{self, resource::Body};
use tonic::Status;

use super::{
    Api, Watched,
    asked::{Asked, conditions},
    page,
};
use crate::{
    grpc::guard::Caller,
    inventory::{
        Counts, Filter, ListQuery, ListRows, RowEvent, Viewer, WatchRows,
        tables::{DatabaseRow, Row as _, ServerRow, Tables},
    },
    resources::{By, Tally, mask::Mask},
};

/// The names of these kinds.
pub(super) const SERVED: [&str; 2] = [DatabaseRow::NAME, ServerRow::NAME];

/// A row of the inventory as a resource.
pub(super) trait Served: ListRows + WatchRows {
    /// The kind.
    const NAME: &'static str;

    /// The row of a name.
    fn find(tables: &Tables, name: &str) -> Option<std::sync::Arc<Self>>;
    /// Its name.
    fn resource_name(&self) -> String;
    /// What is sent of it.
    fn body(&self) -> Body;
}

impl Served for DatabaseRow {
    const NAME: &'static str = "db";

    fn find(tables: &Tables, name: &str) -> Option<std::sync::Arc<Self>> {
        tables.databases.get(name).cloned()
    }

    fn resource_name(&self) -> String {
        self.name().to_owned()
    }

    fn body(&self) -> Body {
        Body::Db(self.message())
    }
}

impl Served for ServerRow {
    const NAME: &'static str = "db_server";

    fn find(tables: &Tables, name: &str) -> Option<std::sync::Arc<Self>> {
        let (database, host_id) = name.split_once('/')?;
        let key = (database.to_owned(), host_id.to_owned());
        tables.servers.get(&key).cloned()
    }

    fn resource_name(&self) -> String {
        format!("{}/{}", self.database(), self.host_id())
    }

    fn body(&self) -> Body {
        Body::DbServer(self.message())
    }
}

fn resource<R: Served>(row: &R) -> v1::Resource {
    v1::Resource {
        kind: R::NAME.to_owned(),
        name: row.resource_name(),
        revision: row.revision(),
        body: Some(row.body()),
    }
}

fn event<R: Served>(event: RowEvent<R>) -> v1::WatchResourcesResponse {
    use v1::watch_resources_response::Event;
    let key = |row: &R| v1::ResourceKey {
        kind: R::NAME.to_owned(),
        name: row.resource_name(),
    };
    let (revision, event) = match event {
        RowEvent::Upserted(revision, row) => (revision, Event::Upserted(resource(row.as_ref()))),
        RowEvent::Deleted(revision, row) => (revision, Event::Deleted(key(&row))),
        RowEvent::Synced(revision) => (revision, Event::Synced(v1::Synced {})),
        RowEvent::Bookmark(revision) => (revision, Event::Bookmark(v1::Bookmark {})),
    };
    v1::WatchResourcesResponse {
        revision,
        event: Some(event),
    }
}

impl Api {
    pub(super) async fn list_served<R: Served>(
        &self,
        caller: &Caller,
        asked: Asked,
        mask: &Mask,
    ) -> Result<v1::ListResourcesResponse, Status> {
        let query = ListQuery::new(R::KIND, R::SCHEMA, asked.of(R::SCHEMA)?)?;
        let viewer = caller.viewer();
        let listed = self.inventory.list::<R>(&query, &viewer).await?;
        let resources = listed
            .rows
            .iter()
            .map(|row| mask.apply(self.compared(resource(row.as_ref()), &viewer)));
        let more = !listed.next_page_token.is_empty();
        let token = |place: usize| query.token_after(listed.rows[place].as_ref());
        Ok(page(resources.collect(), more, listed.revision, token))
    }

    pub(super) fn one_served<R: Served>(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Option<v1::Resource> {
        let roles = self.inventory.roles();
        let row = R::find(&self.inventory.tables(), name)?;
        let labels: &Labels = row.labels();
        let viewer = caller.viewer();
        viewer
            .sees(&roles.policy, labels)
            .then(|| self.compared(resource(row.as_ref()), &viewer))
    }

    /// A database server with what other agents say otherwise; anything else as it is.
    fn compared(&self, mut resource: v1::Resource, viewer: &Viewer) -> v1::Resource {
        resource.body = resource.body.map(|body| match body {
            Body::DbServer(server) => Body::DbServer(self.inventory.compared(server, viewer)),
            other => other,
        });
        resource
    }

    pub(super) async fn count_served<R: Served>(
        &self,
        caller: &Caller,
        by: &str,
        filter: v1::ResourceFilter,
    ) -> Result<(Counts, u64), Status> {
        let by = By::parse(R::SCHEMA, by)?;
        let conditions = conditions(R::SCHEMA, filter)?;
        let viewer = caller.viewer();
        if R::NAME == DatabaseRow::NAME
            && let Some(By::Label(label)) = &by
        {
            // The index knows.
            let inventory = &self.inventory;
            return Ok(inventory
                .count_databases(&conditions, label, &viewer)
                .await?);
        }
        let mut tally = Tally::new(by.as_ref());
        let visited = self
            .inventory
            .visit::<R>(&conditions, &viewer, |row| tally.add(row.fields()));
        let revision = visited.await?;
        Ok((tally.counts(), revision))
    }

    pub(super) async fn watch_served<R: Served>(
        &self,
        caller: &Caller,
        filter: v1::ResourceFilter,
        after_revision: u64,
    ) -> Result<Watched<v1::WatchResourcesResponse>, Status> {
        let conditions =
            conditions(R::SCHEMA, filter).map_err(|invalid| invalid.within("kinds"))?;
        let filter = Filter {
            selectors: Vec::new(),
            conditions,
            viewer: caller.viewer(),
        };
        let shutdown = self.shutdown.clone();
        let events = self
            .0
            .inventory
            .watch::<R>(filter, after_revision, shutdown)
            .await?;
        let events = events.map(|next| next.map(event).map_err(Status::from));
        Ok(self.until_expired(caller, events))
    }
}
