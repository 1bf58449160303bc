//! Loads databases as a discovery worker does, and tells how fast beside the raw store.
//!
//! The worker is a joined host that holds every scope: it publishes each as a complete scan, several at once, in frames of
//! the size that the real worker sends. What the service wrote is then written again to a store of the same kind by
//! nobody but the store's own client, a part after the other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tidegate_e2e::wait;
use tidegate_proto::v1::{
    self, discovery_service_client::DiscoveryServiceClient, publish_scan_request::Frame as Request,
    publish_scan_response::Frame as Answer,
};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use super::{fleet, raw::Raw};
use crate::figure::Figure;

/// Scans that are published at once, as by a worker.
pub(super) const PUBLISHERS: usize = 5;
/// Items and bytes of one frame, as of a worker's.
const FRAME_ITEMS_MAX: usize = 256;
const FRAME_BYTES: usize = 64 * 1024;
/// Scopes that are loaded before the raw store has its turn.
const PART_SCOPES: usize = 20;
/// Signs of life of the worker within one lease.
const SIGNS_PER_LEASE: u32 = 3;
/// How long the scopes may take to be the worker's own.
const GRANT_PATIENCE: Duration = Duration::from_secs(120);

type Client = DiscoveryServiceClient<Channel>;

/// A worker that holds every scope for as long as this lives.
pub(super) struct Worker {
    client: Client,
    scopes: Arc<[v1::ScanScope]>,
    epochs: Vec<u64>,
    renewal: AbortHandle,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Worker {
    /// Gets hold of the scopes of so many databases.
    pub(super) async fn start(channel: Channel, databases: usize) -> Result<Self> {
        let scopes: Result<Arc<[_]>> = (0..fleet::scopes(databases)).map(fleet::scope).collect();
        let (client, scopes) = (DiscoveryServiceClient::new(channel), scopes?);
        let (epochs, lease) =
            wait::until_within(GRANT_PATIENCE, "all scopes to be granted", || {
                let (client, scopes) = (client.clone(), scopes.clone());
                async move {
                    acquire(client, &scopes)
                        .await
                        .map_err(|error| format!("{error:#}"))
                }
            })
            .await?;
        let (keeper, kept) = (client.clone(), scopes.clone());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(lease / SIGNS_PER_LEASE).await;
                if let Err(error) = acquire(keeper.clone(), &kept).await {
                    eprintln!("the worker cannot keep its scopes: {error:#}");
                }
            }
        });
        Ok(Self {
            client,
            scopes,
            epochs,
            renewal: renewal.abort_handle(),
        })
    }

    /// Publishes these scopes, each with its items.
    async fn publish(&self, found: Vec<(usize, Vec<v1::ScanItem>)>) -> Result<()> {
        stream::iter(found)
            .map(|(scope, items)| async move {
                let wanted = items.len();
                let header = v1::ScanHeader {
                    scope: Some(self.scopes[scope].clone()),
                    epoch: self.epochs[scope],
                    completeness: v1::Completeness::Complete.into(),
                    digest: digest(scope),
                    aws_calls: 2,
                    ..v1::ScanHeader::default()
                };
                let result = publish(self.client.clone(), header, items).await?;
                ensure!(result.created as usize == wanted, "{result:?}");
                Ok(())
            })
            .buffer_unordered(PUBLISHERS)
            .try_collect()
            .await
    }
}

/// Asks for the scopes: their epochs when all are held, and how long they are.
async fn acquire(mut client: Client, scopes: &[v1::ScanScope]) -> Result<(Vec<u64>, Duration)> {
    let request = v1::AcquireScopesRequest {
        scopes: scopes.to_vec(),
    };
    let answer = client.acquire_scopes(request).await?.into_inner();
    let held = answer.grants.iter().filter(|grant| grant.held);
    let epochs: Vec<u64> = held.map(|grant| grant.epoch).collect();
    ensure!(
        epochs.len() == scopes.len(),
        "{} of {} are held",
        epochs.len(),
        scopes.len()
    );
    Ok((epochs, Duration::from_secs(answer.lease_seconds.into())))
}

/// What the service compares scans by; the items of a scope never change, so its number does.
fn digest(scope: usize) -> Vec<u8> {
    let mut digest = vec![0; 24];
    digest.extend((scope as u64 + 1).to_be_bytes());
    digest
}

async fn publish(
    mut client: Client,
    header: v1::ScanHeader,
    items: Vec<v1::ScanItem>,
) -> Result<v1::PublishResult> {
    let trailer = v1::ScanTrailer {
        items: u32::try_from(items.len())?,
    };
    let frames = [Request::Header(header)]
        .into_iter()
        .chain(frames(items))
        .chain([Request::Trailer(trailer)])
        .map(|frame| v1::PublishScanRequest { frame: Some(frame) });
    let mut answers = client
        .publish_scan(stream::iter(frames))
        .await?
        .into_inner();
    while let Some(answer) = answers.message().await? {
        if let Some(Answer::Result(result)) = answer.frame {
            return Ok(result);
        }
    }
    anyhow::bail!("the service told no result")
}

/// Items, as many to a frame as a worker would send.
fn frames(items: Vec<v1::ScanItem>) -> impl Iterator<Item = Request> {
    let mut items = items.into_iter().peekable();
    std::iter::from_fn(move || {
        items.peek()?;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for item in items.by_ref() {
            bytes += item.encoded_len();
            taken.push(item);
            if bytes >= FRAME_BYTES || taken.len() >= FRAME_ITEMS_MAX {
                break;
            }
        }
        Some(Request::Items(v1::ScanItems { items: taken }))
    })
}

/// Loads everything; with a raw store also how fast, part by part.
pub(super) async fn load(
    bench: &'static str,
    worker: &Worker,
    databases: usize,
    mut raw: Option<&mut Raw>,
) -> Result<Figure> {
    let mut figure = Figure::of_rounds(bench, "load_per_s_over_store", "db/s");
    if let Some(raw) = raw.as_deref_mut() {
        // What was written before is nobody's load.
        raw.catch_up().await.context("the raw store")?;
    }
    let started = Instant::now();
    let scopes: Vec<usize> = (0..worker.scopes.len()).collect();
    for part in scopes.chunks(PART_SCOPES) {
        let found: Vec<(usize, Vec<v1::ScanItem>)> = part
            .iter()
            .map(|scope| (*scope, fleet::items(*scope, databases).collect()))
            .collect();
        let count: usize = found.iter().map(|(_, items)| items.len()).sum();
        let begun = Instant::now();
        worker.publish(found).await?;
        let ours = count as f64 / begun.elapsed().as_secs_f64();
        if let Some(raw) = raw.as_deref_mut() {
            let seconds = raw.catch_up().await.context("the raw store")?;
            figure.add((ours, count as f64 / seconds));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("loaded {databases} databases by PublishScan within {seconds:.1} s");
    Ok(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_travels_in_a_frame_that_a_worker_would_send() {
        let items: Vec<_> = fleet::items(0, 500).collect();
        let largest = items.iter().map(Message::encoded_len).max().unwrap();
        let mut travelled = Vec::new();
        for frame in frames(items.clone()) {
            let Request::Items(part) = frame else {
                panic!("{frame:?}")
            };
            assert!(part.items.len() <= FRAME_ITEMS_MAX);
            assert!(
                part.items.iter().map(Message::encoded_len).sum::<usize>() < FRAME_BYTES + largest
            );
            travelled.extend(part.items);
        }
        assert_eq!(travelled, items);
    }
}
