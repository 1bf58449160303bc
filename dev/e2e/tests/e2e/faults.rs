//! AWS misbehaves: nothing is deleted, the scope says why, and the first good scan heals everything.

use anyhow::{Result, ensure};
use awssim::{ClusterId, Fault, FaultKind};
use tidegate_e2e::{Lab, Part, wait};

use crate::main_job::{LISTED, listed, world};

/// Waits until the failing scope of account 1 in us-east-1 reports a failure of this class.
async fn failing(lab: &Lab, class: &str) -> Result<()> {
    wait::until(&format!("a scope that failed with {class}"), || async {
        let scopes = lab.scopes().await.map_err(|error| format!("{error:#}"))?;
        let failures: Vec<String> = scopes
            .iter()
            .filter_map(|scope| Some(scope.failure.as_ref()?.class.clone()))
            .collect();
        if failures.iter().any(|found| found == class) {
            Ok(())
        } else {
            Err(format!("failures are {failures:?}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_partial_scan_deletes_nothing_and_the_next_whole_one_does() -> Result<()> {
    let mut world = world()?;
    world.page_records_max = Some(1); // analytics and sandbox are on two pages
    let lab = Lab::start_in(world, &[Part::Auth, Part::Proxy, Part::Discovery]).await?;
    lab.wait_for_databases(&LISTED).await?;

    let broken = Fault {
        page: Some(2),
        ..Fault::new(FaultKind::InternalFailure).on("redshift", "DescribeClusters")
    };
    lab.aws().fault(broken)?;
    failing(&lab, "unavailable").await?;
    // Analytics is on a page that is read no longer: unknown is not absent.
    lab.aws()
        .fault(Fault::new(FaultKind::EmptyPage).on("redshift", "DescribeClusters"))?;
    let seen = lab.aws().calls().len();
    wait::until("further scans", || async {
        if lab.aws().calls().len() > seen + 12 {
            Ok(())
        } else {
            Err("too few calls")
        }
    })
    .await?;
    lab.wait_for_databases(&LISTED).await?;

    lab.aws().clear_faults();
    lab.aws()
        .remove_cluster(&ClusterId::new("111111111111", "us-east-1", "analytics"))
        .await?;
    lab.wait_for_databases(&listed(&[], &["analytics", "analytics-bi"]))
        .await?;
    lab.stop().await
}

#[tokio::test]
async fn an_access_denied_region_is_loud_and_loses_nothing() -> Result<()> {
    let lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy, Part::Discovery]).await?;
    lab.wait_for_databases(&LISTED).await?;
    lab.aws().fault(Fault {
        region: Some("us-east-1".to_owned()),
        ..Fault::new(FaultKind::AccessDenied).on("redshift", "DescribeClusters")
    })?;
    failing(&lab, "access_denied").await?;

    let scopes = lab.scopes().await?;
    let denied = scopes
        .iter()
        .filter_map(|scope| scope.failure.as_ref())
        .find(|failure| failure.class == "access_denied");
    ensure!(
        denied.is_some_and(|failure| failure.action == "redshift:DescribeClusters"),
        "{scopes:?}"
    );
    ensure!(
        lab.log(Part::Discovery)
            .contains("redshift:DescribeClusters"),
        "{}",
        lab.log(Part::Discovery)
    );
    ensure!(lab.databases().await?.len() == LISTED.len());
    lab.stop().await
}

#[tokio::test]
async fn throttling_passes_and_a_paused_cluster_stays_listed() -> Result<()> {
    let lab = Lab::start_in(
        world()?,
        &[Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA],
    )
    .await?;
    lab.wait_for_databases(&LISTED).await?;
    lab.aws().fault(Fault {
        times: Some(4),
        ..Fault::new(FaultKind::Throttling).on("redshift", "DescribeClusters")
    })?;
    lab.aws()
        .set_status(
            &ClusterId::new("222222222222", "us-east-1", "finance"),
            "paused",
        )
        .await?;
    wait::until("finance to be listed as paused", || async {
        let databases = lab
            .databases()
            .await
            .map_err(|error| format!("{error:#}"))?;
        let finance = databases
            .iter()
            .find(|database| database.discovered_name == "finance");
        if finance.is_some_and(|database| database.unavailable == "paused") {
            Ok(())
        } else {
            Err(format!("{finance:?}"))
        }
    })
    .await?;
    lab.wait_for_databases(&LISTED).await?;

    let alice = lab.person("alice", "*", "*").await?;
    let refused = wait::until("a refusal that says why", || async {
        let error = lab
            .query(&alice, "finance", "reader", "SELECT 1")
            .await
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        // `tg` says by itself that it was paused when it was last looked at; the agent's word counts here.
        if error.contains("FATAL") && error.contains("paused") {
            Ok(error)
        } else {
            Err(error)
        }
    })
    .await?;
    ensure!(refused.contains("FATAL"), "{refused}");
    lab.stop().await
}
