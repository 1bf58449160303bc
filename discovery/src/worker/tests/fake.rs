//! An auth service in memory, as far as the worker talks to it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use tidegate_proto::v1::{
    self, discovery_service_server::DiscoveryService, publish_scan_request::Frame as Request,
    publish_scan_response::Frame as Answer,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming, transport::server::Connected};

/// How long a grant lasts.
const LEASE_SECONDS: u32 = 30;

/// What the fake auth service saw.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// The regions of the scopes that were asked for.
    Acquired(Vec<String>),
    Published {
        region: String,
        epoch: u64,
        complete: bool,
        items: Option<Vec<String>>,
    },
}

/// A discovery service that grants what it is told to, and remembers digests.
pub(super) struct Fake {
    pub(super) events: mpsc::UnboundedSender<(Instant, Event)>,
    pub(super) state: Mutex<State>,
    /// The resources, whatever their group.
    pub(super) configs: watch::Sender<Vec<v1::DiscoveryConfig>>,
    /// Every change breaks the watches that are open.
    pub(super) breaks: watch::Sender<u32>,
}

#[derive(Default)]
pub(super) struct State {
    /// Epoch by region; a region that is not here is held by somebody else.
    pub(super) epochs: HashMap<String, u64>,
    pub(super) digests: HashMap<String, Vec<u8>>,
    /// Statuses to refuse the next requests for scopes with.
    pub(super) refuse: VecDeque<Status>,
    /// Statuses to refuse the next watches with.
    pub(super) refuse_watch: VecDeque<Status>,
    /// Requests to scan at once, by region.
    pub(super) rescans: HashMap<String, u64>,
    /// What the results of publications say is held back, and shadowed.
    pub(super) held_back: u32,
    pub(super) shadowed: u32,
    /// What is known of scopes.
    pub(super) remembered: Vec<v1::ScopeStatus>,
}

pub(super) struct FakeService(pub(super) Arc<Fake>);

impl Fake {
    pub(super) fn new(events: mpsc::UnboundedSender<(Instant, Event)>, state: State) -> Self {
        Self {
            events,
            state: Mutex::new(state),
            configs: watch::Sender::default(),
            breaks: watch::Sender::default(),
        }
    }

    /// Breaks the watches that are open.
    pub(super) fn break_watches(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// Takes the scopes of a region away.
    pub(super) fn take_away(&self, region: &str) {
        self.state.lock().unwrap().epochs.remove(region);
    }

    /// Asks for a scan of a region at once.
    pub(super) fn rescan(&self, region: &str) {
        let mut state = self.state.lock().unwrap();
        *state.rescans.entry(region.to_owned()).or_default() += 1;
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send((Instant::now(), event));
    }

    fn epoch(&self, region: &str) -> Option<u64> {
        self.state.lock().unwrap().epochs.get(region).copied()
    }

    /// Grants the scopes of a region with this epoch from here on.
    pub(super) fn hand_over(&self, region: &str, epoch: u64) {
        let mut state = self.state.lock().unwrap();
        state.epochs.insert(region.to_owned(), epoch);
    }

    async fn receive(
        &self,
        mut frames: Streaming<v1::PublishScanRequest>,
        answers: mpsc::Sender<Result<v1::PublishScanResponse, Status>>,
    ) -> Result<(), Status> {
        let Some(Request::Header(header)) = next(&mut frames).await? else {
            return Err(Status::invalid_argument("no header"));
        };
        let complete = header.completeness() == v1::Completeness::Complete;
        let (scope, epoch) = (header.scope.unwrap_or_default(), header.epoch);
        if self.epoch(&scope.region) != Some(epoch) {
            return Err(Status::failed_precondition("another epoch"));
        }
        let unchanged = {
            let state = self.state.lock().unwrap();
            state.digests.get(&scope.id) == Some(&header.digest)
        };
        let mut items = None;
        if !unchanged {
            reply(&answers, Answer::SendItems(v1::SendItems {})).await;
            items = Some(collect(&mut frames).await?);
        }
        let result = {
            let mut state = self.state.lock().unwrap();
            state.digests.insert(scope.id, header.digest);
            v1::PublishResult {
                unchanged,
                held: state.held_back,
                shadowed: state.shadowed,
                ..Default::default()
            }
        };
        reply(&answers, Answer::Result(result)).await;
        self.tell(Event::Published {
            region: scope.region,
            epoch,
            complete,
            items,
        });
        Ok(())
    }
}

async fn next(frames: &mut Streaming<v1::PublishScanRequest>) -> Result<Option<Request>, Status> {
    Ok(frames.message().await?.and_then(|frame| frame.frame))
}

async fn reply(answers: &mpsc::Sender<Result<v1::PublishScanResponse, Status>>, frame: Answer) {
    let _ = answers
        .send(Ok(v1::PublishScanResponse { frame: Some(frame) }))
        .await;
}

async fn collect(frames: &mut Streaming<v1::PublishScanRequest>) -> Result<Vec<String>, Status> {
    let mut items = Vec::new();
    while let Some(frame) = next(frames).await? {
        match frame {
            Request::Items(some) => {
                items.extend(some.items.into_iter().map(|item| item.name_base));
            }
            Request::Trailer(trailer) if trailer.items as usize == items.len() => return Ok(items),
            other => return Err(Status::invalid_argument(format!("{other:?}"))),
        }
    }
    Err(Status::invalid_argument("no trailer"))
}

#[tonic::async_trait]
impl DiscoveryService for FakeService {
    async fn acquire_scopes(
        &self,
        request: tonic::Request<v1::AcquireScopesRequest>,
    ) -> Result<Response<v1::AcquireScopesResponse>, Status> {
        if let Some(status) = self.0.state.lock().unwrap().refuse.pop_front() {
            return Err(status);
        }
        let scopes = request.into_inner().scopes;
        let regions = scopes.iter().map(|scope| scope.region.clone()).collect();
        let grants = scopes.into_iter().map(|scope| {
            let epoch = self.0.epoch(&scope.region);
            let rescans = self.0.state.lock().unwrap().rescans.clone();
            v1::ScopeGrant {
                scope_id: scope.id,
                held: epoch.is_some(),
                epoch: epoch.unwrap_or_default(),
                held_by: String::new(),
                rescan: rescans.get(&scope.region).copied().unwrap_or_default(),
            }
        });
        self.0.tell(Event::Acquired(regions));
        Ok(Response::new(v1::AcquireScopesResponse {
            grants: grants.collect(),
            lease_seconds: LEASE_SECONDS,
        }))
    }

    type PublishScanStream = ReceiverStream<Result<v1::PublishScanResponse, Status>>;

    async fn publish_scan(
        &self,
        request: tonic::Request<Streaming<v1::PublishScanRequest>>,
    ) -> Result<Response<Self::PublishScanStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        let fake = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(status) = fake.receive(request.into_inner(), answers.clone()).await {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_scopes(
        &self,
        _request: tonic::Request<v1::ListScopesRequest>,
    ) -> Result<Response<v1::ListScopesResponse>, Status> {
        let scopes = self.0.state.lock().unwrap().remembered.clone();
        Ok(Response::new(v1::ListScopesResponse {
            scopes,
            ..v1::ListScopesResponse::default()
        }))
    }

    type PlanDiscoveryStream = ReceiverStream<Result<v1::PlanDiscoveryResponse, Status>>;

    async fn plan_discovery(
        &self,
        _request: tonic::Request<tonic::Streaming<v1::PlanDiscoveryRequest>>,
    ) -> Result<Response<Self::PlanDiscoveryStream>, Status> {
        Err(Status::unimplemented("plan"))
    }

    type WatchDiscoveryConfigsStream =
        ReceiverStream<Result<v1::WatchDiscoveryConfigsResponse, Status>>;

    async fn watch_discovery_configs(
        &self,
        _request: tonic::Request<v1::WatchDiscoveryConfigsRequest>,
    ) -> Result<Response<Self::WatchDiscoveryConfigsStream>, Status> {
        if let Some(status) = self.0.state.lock().unwrap().refuse_watch.pop_front() {
            return Err(status);
        }
        let (answers, stream) = mpsc::channel(4);
        let mut configs = self.0.configs.subscribe();
        let mut breaks = self.0.breaks.subscribe();
        configs.mark_changed();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok(()) = configs.changed() => {
                        let configs = configs.borrow_and_update().clone();
                        let _ = answers.send(Ok(v1::WatchDiscoveryConfigsResponse { configs })).await;
                    }
                    _ = breaks.changed() => {
                        let _ = answers.send(Err(Status::unavailable("broken"))).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn request_rescan(
        &self,
        _request: tonic::Request<v1::RequestRescanRequest>,
    ) -> Result<Response<v1::RequestRescanResponse>, Status> {
        Err(not_for_workers())
    }

    async fn adopt_databases(
        &self,
        _request: tonic::Request<v1::AdoptDatabasesRequest>,
    ) -> Result<Response<v1::AdoptDatabasesResponse>, Status> {
        Err(not_for_workers())
    }

    async fn upsert_discovery_config(
        &self,
        _request: tonic::Request<v1::UpsertDiscoveryConfigRequest>,
    ) -> Result<Response<v1::DiscoveryConfig>, Status> {
        Err(not_for_workers())
    }

    async fn list_discovery_configs(
        &self,
        _request: tonic::Request<v1::ListDiscoveryConfigsRequest>,
    ) -> Result<Response<v1::ListDiscoveryConfigsResponse>, Status> {
        Err(not_for_workers())
    }

    async fn delete_discovery_config(
        &self,
        _request: tonic::Request<v1::DeleteDiscoveryConfigRequest>,
    ) -> Result<Response<v1::DeleteDiscoveryConfigResponse>, Status> {
        Err(not_for_workers())
    }
}

fn not_for_workers() -> Status {
    Status::permission_denied("workers do not call this")
}

/// An in-memory connection, so that paused time is the only clock.
pub(super) struct Pipe(pub(super) tokio::io::DuplexStream);

impl Connected for Pipe {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Pipe {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Pipe {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(context)
    }
}
