//! Discovery of many clusters in many accounts: CPU of worker and auth service over that of the AWS SDK alone.
//!
//! Worker, auth service, floor and the simulated AWS are processes or threads beside each other; only the first three are
//! measured, by what the kernel counts for them.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use awssim::{AccessKey, Cluster, ClusterId, World};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_e2e::{Lab, Part, wait};
use tidegate_proto::v1::{
    self, discovery_service_client::DiscoveryServiceClient,
    inventory_service_client::InventoryServiceClient, watch_databases_response::Event,
};
use tokio::process::Command;

use crate::{Args, figure::Figure, usage};

/// Changes that are made to time how soon they are seen.
const CHANGES: usize = 20;
/// Longer than from one renewal of workers' leases to the next, at which scopes move.
const QUIET: Duration = Duration::from_secs(15);
/// Calls that a scan of one scope makes at least: clusters, and their VPC endpoints.
const CALLS_PER_SCOPE: usize = 2;
/// How long a scan of everything may take.
const SCAN_PATIENCE: Duration = Duration::from_secs(600);

/// What is scanned: a generated world's accounts, and the regions of each.
pub(crate) struct Extent {
    pub(crate) accounts: Vec<String>,
    pub(crate) regions: Vec<String>,
}

impl Extent {
    fn of(world: &World) -> Result<Self> {
        let (home, generated): (Vec<_>, Vec<_>) = world
            .accounts
            .iter()
            .partition(|(id, _)| id.as_str() == awssim::GENERATED_HOME);
        let (_, home) = home.first().context("a generated world has a home")?;
        Ok(Self {
            accounts: generated.into_iter().map(|(id, _)| id.clone()).collect(),
            regions: home.regions.keys().cloned().collect(),
        })
    }

    /// Scopes: one an account and region.
    fn scopes(&self) -> usize {
        self.accounts.len() * self.regions.len()
    }
}

/// The role that discovery looks with.
pub(crate) fn role(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/{}", awssim::GENERATED_ROLE)
}

/// Measures, and stops everything.
pub(crate) async fn run(args: &Args) -> Result<Vec<Figure>> {
    let mut world = World::generate(1, args.accounts, args.regions, args.clusters);
    let extent = Extent::of(&world)?;
    let worker = world
        .account(awssim::GENERATED_HOME)
        .users
        .values_mut()
        .next()
        .context("a generated world has a user")?;
    let (id, secret) = Part::Discovery.access_key().context("workers call AWS")?;
    worker.access_keys.push(AccessKey {
        id: id.to_owned(),
        secret: secret.to_owned(),
    });
    let mut lab = Lab::start_in(world, &[Part::Auth]).await?;
    let matchers: Vec<Value> = extent
        .accounts
        .iter()
        .map(|account| json!({ "types": ["redshift"], "regions": extent.regions, "assume_role_arn": role(account) }))
        .collect();
    for part in [Part::Discovery, Part::DiscoveryB, Part::DiscoveryC] {
        let auth_server = lab.auth_addr();
        lab.configure(
            part,
            json!({
                "tidegate": { "auth_server": auth_server, "proxy_server": null },
                "discovery_service": { "poll_interval": "1h", "aws": matchers },
            }),
        );
    }
    let outcome = measure(&mut lab, args, &extent).await;
    lab.stop().await?;
    outcome
}

/// CPU seconds of a stage.
struct Spent {
    worker: f64,
    auth: f64,
}

impl Spent {
    fn total(&self) -> f64 {
        self.worker + self.auth
    }

    /// Where they went, for whoever watches; figures go to standard output.
    fn tell(&self, stage: &str, floor: f64) {
        eprintln!(
            "{stage}: worker {:.2} s, auth service {:.2} s; the SDK alone {floor:.2} s",
            self.worker, self.auth
        );
    }
}

async fn measure(lab: &mut Lab, args: &Args, extent: &Extent) -> Result<Vec<Figure>> {
    let bench = "discovery";
    let total = (extent.scopes() * args.clusters) as u64;
    let auth = process_id(lab, Part::Auth)?;
    let auth_before = usage::cpu_seconds(auth)?;
    lab.start_part(Part::Discovery).await?;
    let worker = process_id(lab, Part::Discovery)?;
    scanned(lab, Timestamp::UNIX_EPOCH, 0, extent).await?;
    let found = cluster_status(lab).await?.databases;
    ensure!(
        u64::from(found) == total,
        "{found} of {total} clusters were found"
    );
    let first = Spent {
        worker: usage::cpu_seconds(worker)?,
        auth: usage::cpu_seconds(auth)? - auth_before,
    };
    let floor = floor(lab, extent).await?;
    first.tell("first scan", floor);

    let (quiet_worker, quiet_auth) = (usage::cpu_seconds(worker)?, usage::cpu_seconds(auth)?);
    let calls_before = calls_made(lab);
    // Asking for a scan is a write; what comes of it is counted from there.
    let since = request_rescan(lab, Vec::new()).await?;
    let revision = cluster_status(lab).await?.revision;
    scanned(lab, since, calls_before, extent).await?;
    let one_worker_calls = calls_made(lab) - calls_before;
    let quiet = Spent {
        worker: usage::cpu_seconds(worker)? - quiet_worker,
        auth: usage::cpu_seconds(auth)? - quiet_auth,
    };
    quiet.tell("quiet poll", floor);
    let writes = cluster_status(lab).await?.revision - revision;
    let peak = usage::peak_mib(worker)?;
    let visible = changes(lab, extent).await?;

    lab.start_part(Part::DiscoveryB).await?;
    lab.start_part(Part::DiscoveryC).await?;
    holders(lab, 3).await?;
    settled(lab).await?;
    let calls_before = calls_made(lab);
    let since = request_rescan(lab, Vec::new()).await?;
    scanned(lab, since, calls_before, extent).await?;
    settled(lab).await?;
    let three_worker_calls = calls_made(lab) - calls_before;
    let taken_over = take_over(lab).await?;
    Ok(vec![
        Figure::beside(bench, "first_scan_cpu_over_sdk", "s", first.total(), floor),
        Figure::beside(bench, "quiet_poll_cpu_over_sdk", "s", quiet.total(), floor),
        Figure::once(bench, "quiet_poll_store_writes", "writes", writes as f64),
        Figure::once(bench, "worker_peak_mib", "MiB", peak),
        Figure::beside(
            bench,
            "three_workers_calls_ratio",
            "calls",
            three_worker_calls as f64,
            one_worker_calls as f64,
        ),
        Figure::once(bench, "takeover_s", "s", taken_over),
        Figure::once(bench, "change_visible_s", "s", visible),
    ])
}

fn process_id(lab: &Lab, part: Part) -> Result<u32> {
    lab.process_ids()
        .find(|(found, _)| *found == part)
        .map(|(_, id)| id)
        .with_context(|| format!("{} is gone", part.name()))
}

async fn cluster_status(lab: &Lab) -> Result<v1::ClusterStatus> {
    let mut client = v1::access_service_client::AccessServiceClient::new(lab.admin());
    Ok(client
        .get_cluster_status(v1::GetClusterStatusRequest {})
        .await?
        .into_inner())
}

/// AWS calls so far.
fn calls_made(lab: &Lab) -> u64 {
    lab.aws().calls().last().map_or(0, |call| call.seq)
}

/// CPU seconds of the SDK alone.
async fn floor(lab: &Lab, extent: &Extent) -> Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args(["floor", "--endpoint", lab.aws().endpoint_url()])
        .args([
            "--account-list",
            &extent.accounts.join(","),
            "--region-list",
            &extent.regions.join(","),
        ])
        .envs(lab.environment(Part::Discovery)?)
        .stderr(Stdio::inherit())
        .output()
        .await?;
    let answer: Value =
        serde_json::from_slice(&output.stdout).context("the floor printed no JSON")?;
    answer["cpu_seconds"]
        .as_f64()
        .context("the floor told no CPU")
}

/// Waits until every scope was scanned whole after `since`, when AWS had been called `calls_before` times. Until all the
/// calls were made nobody else is asked: asking would be measured too.
async fn scanned(lab: &Lab, since: Timestamp, calls_before: u64, extent: &Extent) -> Result<()> {
    let wanted = extent.scopes();
    let calls = calls_before + (wanted * CALLS_PER_SCOPE) as u64;
    wait::until_within(SCAN_PATIENCE, "all calls of a scan", || async {
        let made = calls_made(lab);
        if made >= calls {
            Ok(())
        } else {
            Err(format!("{made} of {calls} were made"))
        }
    })
    .await?;
    wait::until_within(SCAN_PATIENCE, "a scan of every scope", || async {
        let scopes = lab.scopes().await.map_err(|error| format!("{error:#}"))?;
        let done = scopes
            .iter()
            .filter(|scope| last_success(scope).is_some_and(|at| at > since))
            .count();
        if done == wanted {
            Ok(())
        } else {
            Err(format!("{done} of {wanted} are done"))
        }
    })
    .await
}

fn last_success(scope: &v1::ScopeStatus) -> Option<Timestamp> {
    let at = scope.last_success.as_ref()?;
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// Asks for a scan of scopes, of all when none is named; when that was.
async fn request_rescan(lab: &Lab, scope_ids: Vec<String>) -> Result<Timestamp> {
    let since = Timestamp::now();
    let request = v1::RequestRescanRequest { scope_ids };
    DiscoveryServiceClient::new(lab.admin())
        .request_rescan(request)
        .await?;
    Ok(since)
}

/// Waits until nobody has called AWS for [`QUIET`]: a scope that moves is scanned by its new holder.
async fn settled(lab: &Lab) -> Result<()> {
    let mut seen = (calls_made(lab), Instant::now());
    wait::until_within(SCAN_PATIENCE, "AWS to be left alone", || {
        let calls = calls_made(lab);
        if calls != seen.0 {
            seen = (calls, Instant::now());
        }
        let quiet_for = seen.1.elapsed();
        async move {
            if quiet_for >= QUIET {
                Ok(())
            } else {
                Err(format!("quiet for {} s", quiet_for.as_secs()))
            }
        }
    })
    .await
}

async fn holders(lab: &Lab, wanted: usize) -> Result<()> {
    wait::until_within(SCAN_PATIENCE, "the workers to share", || async {
        let scopes = lab.scopes().await.map_err(|error| format!("{error:#}"))?;
        let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
        scopes
            .iter()
            .for_each(|scope| *holders.entry(&scope.held_by).or_default() += 1);
        if holders.len() == wanted && !holders.contains_key("") {
            Ok(())
        } else {
            Err(format!("{holders:?}"))
        }
    })
    .await
}

/// Seconds from a worker's death until every scope it held was scanned by another.
async fn take_over(lab: &mut Lab) -> Result<f64> {
    let (killed, since) = (Instant::now(), Timestamp::now());
    let lost = lab
        .scopes()
        .await?
        .into_iter()
        .map(|scope| (scope.scope.unwrap_or_default().id, scope.held_by))
        .collect::<BTreeMap<_, _>>();
    lab.kill_part(Part::DiscoveryC).await?;
    holders(lab, 2).await?;
    let survivors: Vec<String> = lab
        .scopes()
        .await?
        .into_iter()
        .map(|scope| scope.held_by)
        .collect();
    let moved: Vec<String> = lost
        .into_iter()
        .filter(|(_, holder)| !survivors.contains(holder))
        .map(|(id, _)| id)
        .collect();
    wait::until_within(SCAN_PATIENCE, "the dead worker's scopes", || async {
        let scopes = lab.scopes().await.map_err(|error| format!("{error:#}"))?;
        let is_moved = |scope: &&v1::ScopeStatus| {
            scope
                .scope
                .as_ref()
                .is_some_and(|scope| moved.contains(&scope.id))
        };
        let waiting = scopes
            .iter()
            .filter(is_moved)
            .filter(|scope| last_success(scope).is_none_or(|at| at <= since))
            .count();
        if waiting == 0 {
            Ok(())
        } else {
            Err(format!("{waiting} of {} are not scanned", moved.len()))
        }
    })
    .await?;
    Ok(killed.elapsed().as_secs_f64())
}

/// The 99th percentile of seconds from the end of the AWS answer that shows a new cluster to its event on a watch.
async fn changes(lab: &Lab, extent: &Extent) -> Result<f64> {
    let mut watch = InventoryServiceClient::new(lab.admin())
        .watch_databases(v1::WatchDatabasesRequest::default())
        .await?
        .into_inner();
    while !matches!(
        watch.message().await?.and_then(|message| message.event),
        Some(Event::Synced(_))
    ) {}
    let before = lab.aws().calls().last().map_or(0, |call| call.seq);
    let places: Vec<(String, String)> = extent
        .accounts
        .iter()
        .cloned()
        .zip(extent.regions.iter().cloned().cycle())
        .take(CHANGES)
        .collect();
    for (account, region) in &places {
        lab.aws()
            .add_cluster(
                &ClusterId::new(account, region, "brand-new"),
                Cluster {
                    unreachable: true,
                    ..Cluster::default()
                },
            )
            .await?;
    }
    let wanted: Vec<String> = lab
        .scopes()
        .await?
        .into_iter()
        .filter_map(|scope| scope.scope)
        .filter(|scope| {
            places.iter().any(|(account, region)| {
                *region == scope.region && scope.id.contains(account.as_str())
            })
        })
        .map(|scope| scope.id)
        .collect();
    request_rescan(lab, wanted).await?;
    let mut delays = Vec::new();
    while delays.len() < places.len() {
        let message = watch.message().await?.context("the watch ended")?;
        let Some(Event::Upserted(database)) = message.event else {
            continue;
        };
        if database.discovered_name != "brand-new" {
            continue;
        }
        let seen = Timestamp::now();
        let (account, region) = (&database.labels["account-id"], &database.labels["region"]);
        let calls = lab.aws().calls_since(before);
        let shown = calls.iter().rev().find(|call| {
            call.action == "DescribeClusters"
                && call.account.as_ref() == Some(account)
                && call.region == *region
        });
        let shown = shown.context("a change was seen that AWS never showed")?;
        delays.push(seen.duration_since(shown.time).as_secs_f64());
    }
    delays.sort_by(f64::total_cmp);
    delays.last().copied().context("no change was seen")
}
