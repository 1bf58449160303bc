//! Asks the control plane what would become of the databases.

use std::time::Duration;

use tidegate_console::{
    Failure,
    client::Client,
    discovery::plan::{Change, Scopes, Source},
    rpc,
};
use tidegate_proto::v1::{
    self, PlanAction, plan_discovery_request::Frame as Request,
    plan_discovery_response::Frame as Answer,
};
use tonic::Status;

use super::look::Planned;

/// Longest wait for the whole answer: a large inventory takes its time.
const PLAN_TIMEOUT: Duration = Duration::from_secs(600);
/// Items in one message; the largest that there can be still fit.
const FRAME_ITEMS_MAX: usize = 64;

/// The answer.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) changes: Vec<Change>,
    /// Names of what stays as it is.
    pub(super) kept: Vec<String>,
    pub(super) summary: v1::PlanSummary,
}

/// Asks for a plan of these scopes.
pub(super) async fn ask(
    client: &Client,
    group: &str,
    config: &str,
    planned: &[Planned],
    source: Source,
    scopes: &Scopes,
) -> Result<Told, Failure> {
    let header = v1::PlanHeader {
        group: group.to_owned(),
        config: config.to_owned(),
        recorded: source == Source::Recorded,
    };
    let asked = tokio::time::timeout(PLAN_TIMEOUT, exchange(client, header, planned, scopes));
    let answered = asked.await.unwrap_or_else(|_| {
        let seconds = PLAN_TIMEOUT.as_secs();
        let late = format!("no answer within {seconds} seconds");
        Err(Status::deadline_exceeded(late))
    });
    answered.map_err(|status| rpc::failure("plan", &status))
}

async fn exchange(
    client: &Client,
    header: v1::PlanHeader,
    planned: &[Planned],
    scopes: &Scopes,
) -> Result<Told, Status> {
    let frames = frames(header, planned.to_vec());
    let mut discovery = client.discovery();
    let mut answers = discovery
        .plan_discovery(tokio_stream::iter(frames))
        .await?
        .into_inner();
    let mut told = Told::default();
    while let Some(answer) = answers.message().await? {
        match answer.frame {
            Some(Answer::Change(change)) if change.action() == PlanAction::Keep => {
                told.kept.extend(change.before.map(|before| before.name));
            }
            Some(Answer::Change(change)) => told.changes.extend(Change::of(&change, scopes)),
            Some(Answer::Summary(summary)) => {
                told.summary = summary;
                return Ok(told);
            }
            None => {}
        }
    }
    Err(Status::internal("the plan ended without its counts"))
}

/// The request, a message at a time.
fn frames(
    header: v1::PlanHeader,
    planned: Vec<Planned>,
) -> impl Iterator<Item = v1::PlanDiscoveryRequest> + Send {
    let items: usize = planned.iter().map(|planned| planned.items.len()).sum();
    let trailer = v1::ScanTrailer {
        items: u32::try_from(items).unwrap_or(u32::MAX),
    };
    let scopes = planned.into_iter().flat_map(|planned| {
        let Planned { scope, mut items } = planned;
        let scope = std::iter::once(Request::Scope(scope));
        scope.chain(std::iter::from_fn(move || {
            let some = items.len().min(FRAME_ITEMS_MAX);
            let items: Vec<v1::ScanItem> = items.drain(..some).collect();
            (some > 0).then_some(Request::Items(v1::ScanItems { items }))
        }))
    });
    std::iter::once(Request::Header(header))
        .chain(scopes)
        .chain(std::iter::once(Request::Trailer(trailer)))
        .map(|frame| v1::PlanDiscoveryRequest { frame: Some(frame) })
}
