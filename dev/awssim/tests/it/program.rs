//! The `awssim` program, driven from outside.

use std::process::Stdio;

use awssim::{
    Cluster, ClusterId, Fault, FaultKind, Info, Kind, RateLimit, SimClient, Workgroup, World,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::{EAST, HOME, cluster_id, world};

#[tokio::test]
async fn the_program_is_scripted_over_http_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("world.json");
    std::fs::write(&file, serde_json::to_string(&world()).unwrap()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_awssim"))
        .arg("--world")
        .arg(&file)
        .arg("--dir")
        .arg(dir.path().join("sim"))
        .arg("--exit-with-parent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready: Info = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(ready.clusters.len(), 1);

    let sim = SimClient::new(&ready.endpoint_url);
    let id = cluster_id(HOME, "c1");
    let endpoint = sim
        .add_cluster(&id, Cluster::with([], ["alice"]))
        .await
        .unwrap();
    assert!(endpoint.listening);
    assert_eq!(
        sim.sql(&id, "SELECT 1, NULL").await.unwrap(),
        [[Some("1".to_owned()), None]]
    );
    let hosts = std::fs::read_to_string(&ready.hosts_file).unwrap();
    assert!(hosts.contains(&format!("{} {}\n", endpoint.address, endpoint.host)));
    assert!(!sim.set_status(&id, "paused").await.unwrap().listening);
    sim.fault(&Fault::new(FaultKind::Throttling).times(3))
        .await
        .unwrap();
    sim.clear_faults().await.unwrap();
    let etl = cluster_id(HOME, "etl");
    sim.put(&etl, Workgroup::default()).await.unwrap();
    sim.remove(&etl, Kind::Workgroup).await.unwrap();
    assert!(sim.remove(&etl, Kind::Workgroup).await.is_err());
    sim.set_region_enabled(HOME, EAST, false).await.unwrap();
    sim.set_region_enabled(HOME, EAST, true).await.unwrap();
    assert!(
        sim.set_region_enabled(HOME, "eu-west-1", true)
            .await
            .is_err()
    );
    let limit = RateLimit {
        per_second: 1.0,
        burst: 1,
    };
    let limits = [("sts:AssumeRole".to_owned(), limit)];
    sim.set_rate_limits(&limits.into()).await.unwrap();
    let before = sim.set_clock_offset(0).await.unwrap();
    let after = sim.advance_clock(1000).await.unwrap();
    assert!((after - before).get_seconds() >= 1000);
    assert!(sim.calls().await.unwrap().is_empty() && sim.logins().await.unwrap().is_empty());
    sim.remove_cluster(&id).await.unwrap();
    assert!(sim.remove_cluster(&id).await.is_err());

    let pid = std::fs::read_to_string(postmaster_pid(&ready)).unwrap();
    let pid: u32 = pid.lines().next().unwrap().parse().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().await.unwrap().success());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn the_program_makes_large_worlds_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_awssim"))
        .args([
            "--generate",
            "7,2,2,50",
            "--without-postgres",
            "--exit-with-parent",
        ])
        .arg("--dir")
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready: Info = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert!(ready.clusters.is_empty() && ready.postgres_home.is_none());
    let sim = SimClient::new(&ready.endpoint_url);
    let id = ClusterId::new(&World::generated_account(1), "us-east-2", "extra");
    let added = sim.add_cluster(&id, Cluster::listed([])).await.unwrap();
    assert!(!added.listening && added.host.starts_with("extra."));
    sim.remove_cluster(&id).await.unwrap();
    drop(child.stdin.take());
    assert!(child.wait().await.unwrap().success());
}

/// The temporary folder of this test is closed to others, so the server's folder is elsewhere
/// when run by root; its lock file says which process it is.
fn postmaster_pid(info: &Info) -> std::path::PathBuf {
    info.postgres_home
        .as_ref()
        .expect("PostgreSQL was started")
        .join("data/postmaster.pid")
}
