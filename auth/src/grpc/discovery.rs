//! `DiscoveryService`: who scans what, and what was found.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _};
use tidegate_proto::{
    Invalid,
    v1::{
        self, discovery_service_server::DiscoveryService, plan_discovery_request as planning,
        publish_scan_request as request, publish_scan_response as response,
    },
};
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Api, guard::Caller, status::refuse, undecodable::received};
use crate::ledger::{Asking, Begun, Header, Items, PlanQuestion, Pushed, Turn, Worker};

/// How long a caller may take from one frame to the next.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

type Frame = request::Frame;

/// A scan that is being published.
enum Publishing {
    Header(Box<Streaming<v1::PublishScanRequest>>),
    Items(Box<Streaming<v1::PublishScanRequest>>, Box<Header>),
    Done,
}

async fn frame(frames: &mut Streaming<v1::PublishScanRequest>) -> Result<Frame, Status> {
    let missing = "is missing: a scan is a header, items and a trailer";
    let next = next(frames).await?;
    next.and_then(|message| message.frame)
        .ok_or_else(|| Invalid::new("frame", missing).into())
}

async fn plan_frame(
    frames: &mut Streaming<v1::PlanDiscoveryRequest>,
) -> Result<planning::Frame, Status> {
    let missing =
        "is missing: a plan is asked for by a header, scopes with their items, and a trailer";
    let next = next(frames).await?;
    next.and_then(|message| message.frame)
        .ok_or_else(|| Invalid::new("frame", missing).into())
}

async fn next<M>(frames: &mut Streaming<M>) -> Result<Option<M>, Status> {
    let next = tokio::time::timeout(FRAME_TIMEOUT, received(frames)).await;
    next.map_err(|_| {
        refuse(
            Code::DeadlineExceeded,
            "FRAME_TIMEOUT",
            "the next frame did not come in time",
        )
    })?
}

/// Reads what a plan is asked for.
async fn question(mut frames: Streaming<v1::PlanDiscoveryRequest>) -> Result<PlanQuestion, Status> {
    let planning::Frame::Header(header) = plan_frame(&mut frames).await? else {
        return Err(Invalid::new("frame", "must be a header first").into());
    };
    let mut asking = Asking::new(header)?;
    loop {
        match asking.push(plan_frame(&mut frames).await?)? {
            Pushed::Done(asked) => return Ok(asked),
            Pushed::More(more) => asking = *more,
        }
    }
}

impl Api {
    async fn step(
        &self,
        host_id: &str,
        publishing: Publishing,
    ) -> Result<Option<(v1::PublishScanResponse, Publishing)>, Status> {
        let (answer, next) = match publishing {
            Publishing::Done => return Ok(None),
            Publishing::Header(mut frames) => {
                let Frame::Header(header) = frame(&mut frames).await? else {
                    return Err(Invalid::new("frame", "must be a header first").into());
                };
                let header = Header::try_from(header)?;
                match self.ledger.begin(host_id, &header).await? {
                    Begun::Unchanged(result) => (response::Frame::Result(result), Publishing::Done),
                    Begun::SendItems => (
                        response::Frame::SendItems(v1::SendItems {}),
                        Publishing::Items(frames, Box::new(header)),
                    ),
                }
            }
            Publishing::Items(mut frames, header) => {
                let mut items = Items::new(&header);
                let seen = loop {
                    match frame(&mut frames).await? {
                        Frame::Items(some) => items.extend(some)?,
                        Frame::Trailer(trailer) => break items.finish(trailer)?,
                        Frame::Header(_) => {
                            return Err(Invalid::new("frame", "is a second header").into());
                        }
                    }
                };
                let result = self.ledger.apply(host_id, &header, &seen).await?;
                (response::Frame::Result(result), Publishing::Done)
            }
        };
        let answer = v1::PublishScanResponse {
            frame: Some(answer),
        };
        Ok(Some((answer, next)))
    }
}

#[tonic::async_trait]
impl DiscoveryService for Api {
    async fn acquire_scopes(
        &self,
        request: Request<v1::AcquireScopesRequest>,
    ) -> Result<Response<v1::AcquireScopesResponse>, Status> {
        let caller = Caller::of(&request);
        let host = caller.host()?;
        let worker = Worker {
            host_id: host.host_id.as_str(),
            hostname: &host.hostname,
        };
        let scopes = request.into_inner().scopes;
        let granted = self.ledger.acquire(worker, scopes).await?;
        Ok(Response::new(granted))
    }

    type PublishScanStream =
        Pin<Box<dyn Stream<Item = Result<v1::PublishScanResponse, Status>> + Send>>;

    async fn publish_scan(
        &self,
        request: Request<Streaming<v1::PublishScanRequest>>,
    ) -> Result<Response<Self::PublishScanStream>, Status> {
        let host_id = Caller::of(&request).host()?.host_id.to_string();
        let start = Publishing::Header(Box::new(request.into_inner()));
        let api = self.clone();
        let answers = futures::stream::unfold(Some(start), move |publishing| {
            let (api, host_id) = (api.clone(), host_id.clone());
            async move {
                match api.step(&host_id, publishing?).await {
                    Ok(Some((answer, next))) => Some((Ok(answer), Some(next))),
                    Ok(None) => None,
                    Err(status) => Some((Err(status), None)),
                }
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn list_scopes(
        &self,
        request: Request<v1::ListScopesRequest>,
    ) -> Result<Response<v1::ListScopesResponse>, Status> {
        let listed = self.ledger.list_scopes(request.get_ref()).await?;
        Ok(Response::new(listed))
    }

    type PlanDiscoveryStream =
        Pin<Box<dyn Stream<Item = Result<v1::PlanDiscoveryResponse, Status>> + Send>>;

    async fn plan_discovery(
        &self,
        request: Request<Streaming<v1::PlanDiscoveryRequest>>,
    ) -> Result<Response<Self::PlanDiscoveryStream>, Status> {
        let turn = Turn::wait().await?;
        let asked = question(request.into_inner()).await?;
        let answer = self.ledger.what_if(asked, turn).await?;
        let frames = answer.into_frames().map(Ok);
        Ok(Response::new(futures::stream::iter(frames).boxed()))
    }

    async fn request_rescan(
        &self,
        request: Request<v1::RequestRescanRequest>,
    ) -> Result<Response<v1::RequestRescanResponse>, Status> {
        let scopes = self.ledger.rescan(request.into_inner()).await?;
        Ok(Response::new(v1::RequestRescanResponse { scopes }))
    }

    async fn adopt_databases(
        &self,
        request: Request<v1::AdoptDatabasesRequest>,
    ) -> Result<Response<v1::AdoptDatabasesResponse>, Status> {
        let v1::AdoptDatabasesRequest {
            from_group,
            to_group,
        } = request.into_inner();
        let databases = self.ledger.adopt(&from_group, &to_group).await?;
        Ok(Response::new(v1::AdoptDatabasesResponse { databases }))
    }

    async fn upsert_discovery_config(
        &self,
        request: Request<v1::UpsertDiscoveryConfigRequest>,
    ) -> Result<Response<v1::DiscoveryConfig>, Status> {
        let actor = Caller::of(&request).actor();
        let config = request.into_inner().config;
        Ok(Response::new(self.configs.upsert(&actor, config).await?))
    }

    async fn list_discovery_configs(
        &self,
        _request: Request<v1::ListDiscoveryConfigsRequest>,
    ) -> Result<Response<v1::ListDiscoveryConfigsResponse>, Status> {
        let configs = self.configs.list();
        Ok(Response::new(v1::ListDiscoveryConfigsResponse { configs }))
    }

    async fn delete_discovery_config(
        &self,
        request: Request<v1::DeleteDiscoveryConfigRequest>,
    ) -> Result<Response<v1::DeleteDiscoveryConfigResponse>, Status> {
        let actor = Caller::of(&request).actor();
        self.configs.delete(&actor, &request.get_ref().name).await?;
        Ok(Response::new(v1::DeleteDiscoveryConfigResponse {}))
    }

    type WatchDiscoveryConfigsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchDiscoveryConfigsResponse, Status>> + Send>>;

    async fn watch_discovery_configs(
        &self,
        request: Request<v1::WatchDiscoveryConfigsRequest>,
    ) -> Result<Response<Self::WatchDiscoveryConfigsStream>, Status> {
        let caller = Caller::of(&request);
        let group = request.into_inner().discovery_group;
        if group.is_empty() {
            let problem = "is missing: only workers of a group have configurations";
            return Err(Invalid::new("discovery_group", problem).into());
        }
        let host = caller.host().ok();
        let watching = host.map(|host| self.ledger.watching(host.host_id.as_str(), &group));
        let mut last: Option<Vec<v1::DiscoveryConfig>> = None;
        let own = WatchStream::new(self.inventory.watch_configs()).filter_map(move |all| {
            let _kept = &watching;
            let configs: Vec<v1::DiscoveryConfig> = all
                .iter()
                .filter(|config| config.discovery_group == group)
                .cloned()
                .collect();
            let is_news = last.as_ref() != Some(&configs);
            last = Some(configs.clone());
            let news = is_news.then_some(Ok(v1::WatchDiscoveryConfigsResponse { configs }));
            std::future::ready(news)
        });
        let ended = futures::stream::once(std::future::ready(Err(refuse(
            Code::Unavailable,
            "SHUTTING_DOWN",
            "the auth service is shutting down",
        ))));
        let shutdown = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(own.take_until(shutdown).chain(ended).boxed()))
    }
}
