//! `ResourceService`: one way to ask for every kind. Databases and database servers are the inventory's
//! ([`served`]); everything else is in [`crate::resources`].
//!
//! Who asks is checked against the kind's own rule before anything is looked at. What may not be seen is as if it were
//! not there: only whoever may see nothing of a kind is told so.

mod asked;
mod served;

use prost::Message as _;
use tidegate_core::access::Verb;
use tidegate_proto::{
    Invalid,
    v1::{self, resource_service_server::ResourceService},
};
use tidegate_service::rpc::MESSAGE_BYTES_MAX;
use tonic::{Code, Request, Response, Status};

use futures::StreamExt as _;

use self::{
    asked::{Asked, conditions, nothing_named, unknown},
    served::Served,
};
use super::{
    Api,
    guard::{Caller, Sight},
    inventory::Watched,
    status::refuse,
};
use crate::{
    inventory::{
        Counts, ListQuery, RowEvent,
        tables::{DatabaseRow, ServerRow},
    },
    resources::{Asking, By, Kind, KindFilter, Row, Scans, WatchParts, mask::Mask, watch},
};

/// Size from which a page takes no further resource: well within a message, also when some are large.
const PAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Most filters of one watch.
const FILTERS_MAX: usize = 32;
/// What it takes to be shown a resource in a listing.
const LISTED: &[Verb] = &[Verb::List, Verb::ReadNoSecrets];
/// What it takes to be shown one that is named.
const READ: &[Verb] = &[Verb::ReadNoSecrets];

/// A kind by the name that a request gave.
enum Named {
    Database,
    DatabaseServer,
    Other(&'static dyn Kind),
}

impl Named {
    fn parse(name: &str) -> Result<Self, Invalid> {
        match name {
            DatabaseRow::NAME => Ok(Self::Database),
            ServerRow::NAME => Ok(Self::DatabaseServer),
            _ => crate::resources::kind(name)
                .map(Self::Other)
                .ok_or_else(|| unknown(name)),
        }
    }
}

/// What is sent of a row.
fn resource(row: &Row) -> v1::Resource {
    v1::Resource {
        kind: row.kind.name().to_owned(),
        name: row.record.name().to_owned(),
        revision: row.revision,
        body: Some(row.record.body()),
    }
}

/// How many resources make a page; one at least, so that a listing always goes on.
fn page_end(resources: &[v1::Resource]) -> usize {
    let mut bytes = 0;
    let fits = |resource: &&v1::Resource| {
        bytes += resource.encoded_len();
        bytes <= PAGE_BYTES_MAX
    };
    resources.iter().take_while(fits).count().max(1)
}

/// A page as it is sent. `token` gives the token after the resource at a place.
fn page(
    mut resources: Vec<v1::Resource>,
    more: bool,
    revision: u64,
    token: impl Fn(usize) -> String,
) -> v1::ListResourcesResponse {
    let end = page_end(&resources).min(resources.len());
    let more = more || end < resources.len();
    resources.truncate(end);
    v1::ListResourcesResponse {
        next_page_token: if more && end > 0 {
            token(end - 1)
        } else {
            String::new()
        },
        resources,
        revision,
    }
}

fn counted((counts, revision): (Counts, u64)) -> v1::CountResourcesResponse {
    let values = counts.values.into_iter();
    v1::CountResourcesResponse {
        counts: values
            .map(|(value, count)| v1::ValueCount { value, count })
            .collect(),
        total: counts.total,
        revision,
    }
}

fn event(event: RowEvent<Row>) -> v1::WatchResourcesResponse {
    use v1::watch_resources_response::Event;
    let key = |row: &Row| v1::ResourceKey {
        kind: row.kind.name().to_owned(),
        name: row.record.name().to_owned(),
    };
    let (revision, event) = match event {
        RowEvent::Upserted(revision, row) => (revision, Event::Upserted(resource(&row))),
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
    async fn list_of(
        &self,
        kind: &'static dyn Kind,
        sight: &Sight,
        asked: Asked,
        mask: &Mask,
    ) -> Result<v1::ListResourcesResponse, Status> {
        let request = asked.of(kind.schema())?;
        let query = ListQuery::new(kind.name(), kind.schema(), request)?;
        let sees = |row: &Row| sight.sees(row.record.name());
        let scans = |id: &str, status: &mut v1::ScopeStatus| self.complete_scope(id, status);
        let asking = self.asking(&sees, &scans);
        let listed = self
            .inventory
            .resources()
            .list(kind, &query, &asking)
            .await?;
        let resources = listed.rows.iter().map(|row| mask.apply(resource(row)));
        let token = |place: usize| query.token_after(listed.rows[place].as_ref());
        Ok(page(
            resources.collect(),
            listed.more,
            listed.revision,
            token,
        ))
    }

    fn asking<'a>(
        &self,
        sees: &'a (dyn Fn(&Row) -> bool + Send + Sync),
        scans: &'a Scans<'a>,
    ) -> Asking<'a> {
        Asking {
            sees,
            scans,
            now: self.clock.now(),
        }
    }

    /// What this instance knows of a scope's last scan.
    fn complete_scope(&self, id: &str, status: &mut v1::ScopeStatus) {
        self.ledger.complete_status(id, status);
    }

    fn one_of(&self, kind: &'static dyn Kind, sight: &Sight, name: &str) -> Option<v1::Resource> {
        let sees = |row: &Row| sight.sees(row.record.name());
        let scans = |id: &str, status: &mut v1::ScopeStatus| self.complete_scope(id, status);
        let asking = self.asking(&sees, &scans);
        let found = self.inventory.resources().get(kind, name, &asking);
        found.map(|row| resource(&row))
    }

    async fn watch_of(
        &self,
        caller: &Caller,
        filters: Vec<v1::ResourceFilter>,
        after_revision: u64,
    ) -> Result<Watched<v1::WatchResourcesResponse>, Status> {
        let mut by_roles = false;
        let mut watched: Vec<KindFilter> = Vec::new();
        for filter in filters {
            let kind = match Named::parse(&filter.kind)? {
                Named::Other(kind) => kind,
                Named::Database | Named::DatabaseServer => {
                    let problem = format!("holds `{}` beside others: watch it alone", filter.kind);
                    return Err(Invalid::new("kinds", problem).into());
                }
            };
            if watched.iter().any(|known| known.kind.name() == kind.name()) {
                let problem = format!("holds `{}` twice", kind.name());
                return Err(Invalid::new("kinds", problem).into());
            }
            let sight = caller.sight(kind.rights(), LISTED)?;
            by_roles |= caller.user().is_ok() && kind.rights().rule.is_some();
            let conditions =
                conditions(kind.schema(), filter).map_err(|invalid| invalid.within("kinds"))?;
            watched.push(KindFilter {
                kind,
                conditions,
                sees: Box::new(move |row: &Row| sight.sees(row.record.name())),
            });
        }
        let parts = WatchParts {
            inventory: self.inventory.clone(),
            filters: watched,
            by_roles,
            shutdown: self.shutdown.clone(),
        };
        let events = watch(parts, after_revision).await?;
        let events = events.map(|next| next.map(event).map_err(Status::from));
        Ok(self.until_expired(caller, events))
    }
}

#[tonic::async_trait]
impl ResourceService for Api {
    async fn list_resources(
        &self,
        request: Request<v1::ListResourcesRequest>,
    ) -> Result<Response<v1::ListResourcesResponse>, Status> {
        let caller = Caller::of(&request);
        let mut asked = request.into_inner();
        let named = Named::parse(&asked.kind)?;
        let mask = asked.read_mask.take();
        let mask = Mask::new(&asked.kind, mask);
        let asked = Asked::new(asked);
        let listed = match named {
            Named::Database => {
                self.list_served::<DatabaseRow>(&caller, asked, &mask?)
                    .await
            }
            Named::DatabaseServer => self.list_served::<ServerRow>(&caller, asked, &mask?).await,
            Named::Other(kind) => {
                let sight = caller.sight(kind.rights(), LISTED)?;
                self.list_of(kind, &sight, asked, &mask?).await
            }
        };
        listed.map(Response::new)
    }

    async fn get_resource(
        &self,
        request: Request<v1::GetResourceRequest>,
    ) -> Result<Response<v1::Resource>, Status> {
        let caller = Caller::of(&request);
        let v1::GetResourceRequest {
            kind,
            name,
            read_mask,
        } = request.into_inner();
        let named = Named::parse(&kind)?;
        if name.is_empty() {
            return Err(nothing_named().into());
        }
        let mask = Mask::new(&kind, read_mask);
        let (found, mask) = match named {
            Named::Database => (self.one_served::<DatabaseRow>(&caller, &name), mask?),
            Named::DatabaseServer => (self.one_served::<ServerRow>(&caller, &name), mask?),
            Named::Other(of) => {
                let sight = caller.sight(of.rights(), READ)?;
                (self.one_of(of, &sight, &name), mask?)
            }
        };
        let found = found.ok_or_else(|| {
            let name: String = name.chars().take(253).collect();
            refuse(Code::NotFound, "NOT_FOUND", format!("no {kind} `{name}`"))
        })?;
        Ok(Response::new(mask.apply(found)))
    }

    async fn count_resources(
        &self,
        request: Request<v1::CountResourcesRequest>,
    ) -> Result<Response<v1::CountResourcesResponse>, Status> {
        let caller = Caller::of(&request);
        let asked = request.into_inner();
        let named = Named::parse(&asked.kind)?;
        let by = asked.by.clone();
        let filter = v1::ResourceFilter {
            kind: asked.kind,
            selector: asked.selector,
            search: asked.search,
            filter: asked.filter,
        };
        let counts = match named {
            Named::Database => {
                self.count_served::<DatabaseRow>(&caller, &by, filter)
                    .await?
            }
            Named::DatabaseServer => self.count_served::<ServerRow>(&caller, &by, filter).await?,
            Named::Other(kind) => {
                let sight = caller.sight(kind.rights(), LISTED)?;
                let by = By::parse(kind.schema(), &by)?;
                let conditions = conditions(kind.schema(), filter)?;
                let sees = |row: &Row| sight.sees(row.record.name());
                let resources = self.inventory.resources();
                let scans =
                    |id: &str, status: &mut v1::ScopeStatus| self.complete_scope(id, status);
                let asking = self.asking(&sees, &scans);
                resources
                    .count(kind, &conditions, by.as_ref(), &asking)
                    .await?
            }
        };
        Ok(Response::new(counted(counts)))
    }

    type WatchResourcesStream = Watched<v1::WatchResourcesResponse>;

    async fn watch_resources(
        &self,
        request: Request<v1::WatchResourcesRequest>,
    ) -> Result<Response<Self::WatchResourcesStream>, Status> {
        let caller = Caller::of(&request);
        let v1::WatchResourcesRequest {
            mut kinds,
            after_revision,
        } = request.into_inner();
        if kinds.is_empty() {
            return Err(Invalid::new("kinds", "is empty: name what to watch").into());
        }
        if kinds.len() > FILTERS_MAX {
            return Err(Invalid::new("kinds", format!("are more than {FILTERS_MAX}")).into());
        }
        let alone = match kinds.as_slice() {
            [only] => Some(Named::parse(&only.kind)?),
            _ => None,
        };
        self.check_resumable(after_revision)?;
        let watched = match alone {
            Some(Named::Database) => {
                let filter = kinds.remove(0);
                self.watch_served::<DatabaseRow>(&caller, filter, after_revision)
                    .await?
            }
            Some(Named::DatabaseServer) => {
                let filter = kinds.remove(0);
                self.watch_served::<ServerRow>(&caller, filter, after_revision)
                    .await?
            }
            Some(Named::Other(_)) | None => self.watch_of(&caller, kinds, after_revision).await?,
        };
        Ok(Response::new(watched))
    }
}
