//! `ResourceService` of the fake: users, and one instance.

use tidegate_proto::v1::{
    self, resource::Body, resource_service_server::ResourceService, watch_resources_response::Event,
};
use tokio_stream::Iter;
use tonic::{Request, Response, Status, async_trait};

use super::{Answer, Fake, IntoIter, page};

fn of_user(user: &v1::User) -> v1::Resource {
    v1::Resource {
        kind: "user".to_owned(),
        name: user.name.clone(),
        revision: user.revision,
        body: Some(Body::User(user.clone())),
    }
}

fn instance() -> v1::Resource {
    let instance = v1::Instance {
        host_id: "h1".to_owned(),
        hostname: "node".to_owned(),
        services: vec!["db".to_owned()],
        databases: 2,
        revision: 7,
        ..v1::Instance::default()
    };
    v1::Resource {
        kind: "instance".to_owned(),
        name: "h1".to_owned(),
        revision: 7,
        body: Some(Body::Instance(instance)),
    }
}

impl Fake {
    fn of_kind(&self, kind: &str) -> Vec<v1::Resource> {
        match kind {
            "user" => self.state().users.values().map(of_user).collect(),
            "instance" => vec![instance()],
            _ => Vec::new(),
        }
    }
}

#[async_trait]
impl ResourceService for Fake {
    async fn list_resources(
        &self,
        request: Request<v1::ListResourcesRequest>,
    ) -> Answer<v1::ListResourcesResponse> {
        let request = request.into_inner();
        let mut all = self.of_kind(&request.kind);
        if request.order_by == "name desc" {
            all.reverse();
        }
        all.retain(|resource| {
            !request
                .filter
                .contains(&format!("name != \"{}\"", resource.name))
        });
        let (resources, next_page_token) = page(&all, &request.page_token);
        Ok(Response::new(v1::ListResourcesResponse {
            resources,
            next_page_token,
            revision: 1,
        }))
    }

    async fn get_resource(&self, request: Request<v1::GetResourceRequest>) -> Answer<v1::Resource> {
        let request = request.into_inner();
        let mut found = self.of_kind(&request.kind).into_iter();
        let found = found.find(|resource| resource.name == request.name);
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("no {} `{}`", request.kind, request.name)))
    }

    async fn count_resources(
        &self,
        request: Request<v1::CountResourcesRequest>,
    ) -> Answer<v1::CountResourcesResponse> {
        let total = self.of_kind(&request.get_ref().kind).len() as u64;
        Ok(Response::new(v1::CountResourcesResponse {
            total,
            ..v1::CountResourcesResponse::default()
        }))
    }

    type WatchResourcesStream = Iter<IntoIter<Result<v1::WatchResourcesResponse, Status>>>;

    async fn watch_resources(
        &self,
        request: Request<v1::WatchResourcesRequest>,
    ) -> Answer<Self::WatchResourcesStream> {
        let kind = &request.get_ref().kinds[0].kind;
        let mut events: Vec<(u64, Event)> = self
            .of_kind(kind)
            .into_iter()
            .map(|resource| (0, Event::Upserted(resource)))
            .collect();
        events.push((8, Event::Synced(v1::Synced {})));
        let gone = v1::ResourceKey {
            kind: kind.clone(),
            name: "gone".to_owned(),
        };
        events.push((9, Event::Deleted(gone)));
        let events: Vec<_> = events
            .into_iter()
            .map(|(revision, event)| {
                Ok(v1::WatchResourcesResponse {
                    revision,
                    event: Some(event),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(events)))
    }
}
