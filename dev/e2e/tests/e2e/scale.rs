//! What must hold however many databases and workers there are. How fast it is, `cargo xtask bench discovery` measures.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use awssim::{AccessKey, Cluster, ClusterId, World};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_e2e::{Lab, Part, wait};
use tidegate_proto::v1::{
    self, access_service_client::AccessServiceClient,
    discovery_service_client::DiscoveryServiceClient, watch_databases_response::Event,
};

const REGIONS: usize = 10;
/// AWS counts as left alone after so long without a call: a scope that moved is scanned at once.
const QUIET: Duration = Duration::from_secs(1);
/// By when a killed worker's scopes have to be scanned by others.
const TAKE_OVER_MAX: Duration = Duration::from_secs(45);
/// By when a change has to be seen, after the answer of AWS that shows it.
const VISIBLE_SECONDS_MAX: f64 = 1.0;
/// Changes that are timed; half of them may meet a machine that is busy with something else.
const CHANGES: usize = 5;
const WORKER_PEAK_MIB_MAX: u64 = 300;

/// Starts a control plane beside a generated world, and prepares three workers that scan all of it.
async fn lab(accounts: usize, clusters: usize, poll_interval: &str) -> Result<Lab> {
    let mut world = World::generate(1, accounts, REGIONS, clusters);
    let home = world.account(awssim::GENERATED_HOME);
    let regions: Vec<String> = home.regions.keys().cloned().collect();
    let (id, secret) = Part::Discovery.access_key().context("workers call AWS")?;
    let user = home.users.values_mut().next().context("no user at home")?;
    user.access_keys.push(AccessKey {
        id: id.to_owned(),
        secret: secret.to_owned(),
    });
    let matchers: Vec<Value> = (0..accounts)
        .map(|account| {
            let role = format!(
                "arn:aws:iam::{}:role/{}",
                World::generated_account(account),
                awssim::GENERATED_ROLE
            );
            json!({ "types": ["redshift"], "regions": regions, "assume_role_arn": role })
        })
        .collect();
    let mut lab = Lab::start_in(world, &[Part::Auth]).await?;
    for part in [Part::Discovery, Part::DiscoveryB, Part::DiscoveryC] {
        let auth_server = lab.auth_addr();
        lab.configure(
            part,
            json!({
                "tidegate": { "auth_server": auth_server, "proxy_server": null },
                "discovery_service": { "poll_interval": poll_interval, "aws": matchers },
            }),
        );
    }
    Ok(lab)
}

fn scanned_at(scope: &v1::ScopeStatus) -> Timestamp {
    let at = scope.last_success.unwrap_or_default();
    Timestamp::new(at.seconds, at.nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Waits until every one of `wanted` scopes was scanned whole after `since`.
async fn scanned(lab: &Lab, since: Timestamp, wanted: usize) -> Result<Vec<v1::ScopeStatus>> {
    wait::until("a scan of every scope", || async {
        let scopes = lab.scopes().await.map_err(|error| format!("{error:#}"))?;
        let done = scopes.iter().filter(|scope| scanned_at(scope) > since);
        match done.count() {
            done if done == wanted => Ok(scopes),
            done => Err(format!("{done} of {wanted} are done")),
        }
    })
    .await
    .with_context(|| lab.log(Part::Discovery))
}

/// The store's revision, and how many databases there are.
async fn revision(lab: &Lab) -> Result<(u64, u32)> {
    let request = v1::GetClusterStatusRequest {};
    let mut client = AccessServiceClient::new(lab.admin());
    let status = client.get_cluster_status(request).await?.into_inner();
    Ok((status.revision, status.databases))
}

fn peak_mib(lab: &Lab, part: Part) -> Result<u64> {
    let found = lab.process_ids().find(|(found, _)| *found == part);
    let (_, id) = found.with_context(|| format!("{} is gone", part.name()))?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    Ok(kib.context("no VmHWM")?.parse::<u64>()? / 1024)
}

#[tokio::test]
async fn a_quiet_poll_writes_nothing_and_a_change_is_seen_within_a_second_in_bounded_memory()
-> Result<()> {
    let (accounts, clusters) = (3, 100);
    let scopes = accounts * REGIONS;
    let mut lab = lab(accounts, clusters, "5s").await?;
    lab.start_part(Part::Discovery).await?;
    scanned(&lab, Timestamp::UNIX_EPOCH, scopes).await?;

    let before = revision(&lab).await?;
    scanned(&lab, Timestamp::now(), scopes).await?;
    let after = revision(&lab).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    ensure!(after.1 as usize == scopes * clusters, "{after:?}");

    let mut delays = changes(&lab).await?;
    delays.sort_by(f64::total_cmp);
    ensure!(delays[CHANGES / 2] <= VISIBLE_SECONDS_MAX, "{delays:?}");
    let peak = peak_mib(&lab, Part::Discovery)?;
    ensure!(peak < WORKER_PEAK_MIB_MAX, "the worker took {peak} MiB");
    lab.stop().await
}

/// Adds clusters, one an account and region; seconds from the end of the answer that shows each to its event on a watch.
async fn changes(lab: &Lab) -> Result<Vec<f64>> {
    let request = v1::WatchDatabasesRequest::default();
    let mut watch = lab.inventory().watch_databases(request).await?.into_inner();
    let mut next = async || -> Result<Event> {
        let message = tokio::time::timeout(wait::PATIENCE, watch.message()).await??;
        message
            .and_then(|message| message.event)
            .context("the watch ended")
    };
    while !matches!(next().await?, Event::Synced(_)) {}
    let account = World::generated_account(0);
    let before = lab.aws().calls().last().map_or(0, |call| call.seq);
    let scopes = lab.scopes().await?.into_iter();
    let places = scopes
        .filter_map(|scope| scope.scope)
        .filter(|scope| scope.id.contains(&account));
    for scope in places.take(CHANGES) {
        let id = ClusterId::new(&account, &scope.region, "brand-new");
        lab.aws().add_cluster(&id, Cluster::listed([])).await?;
    }
    let mut delays = Vec::new();
    while delays.len() < CHANGES {
        let Event::Upserted(database) = next().await? else {
            continue;
        };
        let seen = Timestamp::now();
        ensure!(database.discovered_name == "brand-new", "{database:?}");
        let calls = lab.aws().calls_since(before);
        let shown = calls.iter().rev().find(|call| {
            call.action == "DescribeClusters"
                && call.account.as_ref() == Some(&account)
                && call.region == database.labels["region"]
        });
        let shown = shown.context("a change was seen that AWS never showed")?;
        delays.push(seen.duration_since(shown.time).as_secs_f64());
    }
    Ok(delays)
}

/// Who holds each scope, and since which epoch.
type Holders = BTreeMap<String, (String, u64)>;

fn holders(scopes: Vec<v1::ScopeStatus>) -> Holders {
    let holder = |scope: v1::ScopeStatus| {
        let id = scope.scope.unwrap_or_default().id;
        (id, (scope.held_by, scope.epoch))
    };
    scopes.into_iter().map(holder).collect()
}

/// How many workers hold scopes; none while some scope is held by nobody.
fn sharing(holders: &Holders) -> usize {
    let names: std::collections::BTreeSet<&str> =
        holders.values().map(|(name, _)| name.as_str()).collect();
    if names.contains("") { 0 } else { names.len() }
}

async fn shared_by(lab: &Lab, workers: usize) -> Result<()> {
    wait::until("the workers to share", || async {
        let scopes = lab.scopes().await.map_err(|error| format!("{error:#}"))?;
        match sharing(&holders(scopes)) {
            found if found == workers => Ok(()),
            found => Err(format!("{found} of {workers} hold scopes")),
        }
    })
    .await
}

/// Calls so far that scans made.
fn calls_of_scans(lab: &Lab) -> usize {
    let calls = lab.aws().calls();
    calls
        .iter()
        .filter(|call| call.service == "redshift")
        .count()
}

async fn left_alone(lab: &Lab) -> Result<()> {
    let mut seen = (calls_of_scans(lab), Instant::now());
    wait::until("AWS to be left alone", || {
        let calls = calls_of_scans(lab);
        if calls != seen.0 {
            seen = (calls, Instant::now());
        }
        let quiet = seen.1.elapsed() >= QUIET;
        std::future::ready(if quiet { Ok(()) } else { Err("it is called") })
    })
    .await
}

/// Has everything scanned once: calls that were made, and calls that the scopes count for their last scan. An error
/// when scopes moved meanwhile.
async fn scan_once(lab: &Lab, wanted: usize) -> Result<(usize, usize)> {
    left_alone(lab).await?;
    let (before, calls) = (holders(lab.scopes().await?), calls_of_scans(lab));
    let since = Timestamp::now();
    DiscoveryServiceClient::new(lab.admin())
        .request_rescan(v1::RequestRescanRequest::default())
        .await?;
    let scopes = scanned(lab, since, wanted).await?;
    left_alone(lab).await?;
    let calls = calls_of_scans(lab) - calls;
    let counted = scopes.iter().map(|scope| scope.aws_calls as usize).sum();
    ensure!(before == holders(lab.scopes().await?), "scopes moved");
    Ok((calls, counted))
}

#[tokio::test]
async fn three_workers_call_aws_as_one_would_and_the_others_take_over_from_a_killed_one()
-> Result<()> {
    let accounts = 4;
    let scopes = accounts * REGIONS;
    let mut lab = lab(accounts, 10, "1h").await?;
    for part in [Part::Discovery, Part::DiscoveryB, Part::DiscoveryC] {
        lab.start_part(part).await?;
    }
    scanned(&lab, Timestamp::UNIX_EPOCH, scopes).await?;
    shared_by(&lab, 3).await?;
    let (calls, of_one) = wait::until("a scan of everything while nothing moves", || async {
        let counts = scan_once(&lab, scopes).await;
        counts.map_err(|error| format!("{error:#}"))
    })
    .await?;
    ensure!(of_one >= 2 * scopes, "{of_one} calls are too few");
    ensure!(calls * 100 <= of_one * 105, "{calls} instead of {of_one}");

    let (killed, since) = (Instant::now(), Timestamp::now());
    let before = holders(lab.scopes().await?);
    lab.kill_part(Part::DiscoveryC).await?;
    let lost = wait::until_within(TAKE_OVER_MAX, "the dead worker's scopes", || async {
        let now = lab.scopes().await.map_err(|error| format!("{error:#}"))?;
        let is_scanned = |scope: &v1::ScopeStatus| scanned_at(scope) > since;
        let moved = now.iter().filter(|scope| {
            let id = &scope
                .scope
                .as_ref()
                .map_or("", |scope| scope.id.as_str())
                .to_owned();
            before
                .get(id)
                .is_some_and(|(holder, _)| *holder != scope.held_by)
        });
        let waiting = moved.clone().filter(|scope| !is_scanned(scope)).count();
        let moved = moved.count();
        if sharing(&holders(now)) == 2 && waiting == 0 && moved > 0 {
            Ok(moved)
        } else {
            Err(format!("{moved} moved, {waiting} of them are not scanned"))
        }
    })
    .await?;
    ensure!(lost < scopes && killed.elapsed() <= TAKE_OVER_MAX, "{lost}");
    ensure!(
        revision(&lab).await?.1 as usize == scopes * 10,
        "none is lost"
    );
    lab.stop().await
}
