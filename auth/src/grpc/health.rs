//! `HealthService`: how agents check the databases that they serve.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use tidegate_proto::v1::{self, health_service_server::HealthService};
use tonic::{Code, Request, Response, Status};

use super::{Api, guard::Caller, status::refuse};

#[tonic::async_trait]
impl HealthService for Api {
    async fn upsert_health_check_config(
        &self,
        request: Request<v1::UpsertHealthCheckConfigRequest>,
    ) -> Result<Response<v1::HealthCheckConfig>, Status> {
        let actor = Caller::of(&request).actor();
        let config = request.into_inner().config;
        Ok(Response::new(self.health.upsert(&actor, config).await?))
    }

    async fn list_health_check_configs(
        &self,
        _request: Request<v1::ListHealthCheckConfigsRequest>,
    ) -> Result<Response<v1::ListHealthCheckConfigsResponse>, Status> {
        let configs = self.health.list();
        Ok(Response::new(v1::ListHealthCheckConfigsResponse {
            configs,
        }))
    }

    async fn delete_health_check_config(
        &self,
        request: Request<v1::DeleteHealthCheckConfigRequest>,
    ) -> Result<Response<v1::DeleteHealthCheckConfigResponse>, Status> {
        let actor = Caller::of(&request).actor();
        self.health.delete(&actor, &request.get_ref().name).await?;
        Ok(Response::new(v1::DeleteHealthCheckConfigResponse {}))
    }

    type WatchHealthCheckConfigsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchHealthCheckConfigsResponse, Status>> + Send>>;

    async fn watch_health_check_configs(
        &self,
        _request: Request<v1::WatchHealthCheckConfigsRequest>,
    ) -> Result<Response<Self::WatchHealthCheckConfigsStream>, Status> {
        let news = self
            .health
            .watch()
            .map(|configs| Ok(v1::WatchHealthCheckConfigsResponse { configs }));
        let ended = futures::stream::once(std::future::ready(Err(refuse(
            Code::Unavailable,
            "SHUTTING_DOWN",
            "the auth service is shutting down",
        ))));
        let shutdown = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(
            news.take_until(shutdown).chain(ended).boxed(),
        ))
    }
}
