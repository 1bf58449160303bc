//! `tgctl discovery plan`: what a configuration would change, told before it does, from the inventory or from AWS.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::{Lab, Part, config, lab::words};
use tidegate_proto::v1;

use crate::main_job::{LISTED, world};

const ACCOUNTS: [(&str, &str); 2] = [
    ("111111111111", ""),
    ("222222222222", "tidegate-discovery-2f9c"),
];

/// The example configuration with other regions and tags.
fn matchers(regions: &[&str], environments: &[&str]) -> Value {
    let matcher = |(account, external_id): (&str, &str)| {
        let mut matcher = json!({
            "types": ["redshift", "redshift-serverless", "rds", "rdsproxy"],
            "regions": regions,
            "tags": { "env": environments },
            "assume_role_arn": format!("arn:aws:iam::{account}:role/tidegate-discovery"),
        });
        if !external_id.is_empty() {
            matcher["external_id"] = json!(external_id);
        }
        matcher
    };
    json!(ACCOUNTS.map(matcher))
}

/// What a plan with these matchers says, and the exit code.
async fn plan(lab: &Lab, matchers: Value, more: &[&str]) -> Result<(Value, Option<i32>)> {
    let file = lab.dir().join("planned.json");
    let patch = json!({ "discovery_service": { "aws": matchers } });
    config::render("discovery.yaml", [patch], &file)?;
    let file = file
        .to_str()
        .context("a temporary folder with an odd name")?;
    let is_live = more.contains(&"--live");
    let args = [&["discovery", "plan", "-f", file, "--format=json"], more].concat();
    let environment = match is_live {
        true => lab.environment(Part::Discovery)?,
        false => BTreeMap::new(),
    };
    let output = lab.tgctl_with(&args, environment).await?;
    let plan = serde_json::from_slice(&output.stdout).with_context(|| words(&output))?;
    Ok((plan, output.status.code()))
}

/// Names of what would come or go.
fn changes(plan: &Value) -> Vec<(&str, &str)> {
    let changes = plan["changes"].as_array().into_iter().flatten();
    let mut changes: Vec<_> = changes
        .filter_map(|change| Some((change["action"].as_str()?, change["name"].as_str()?)))
        .filter(|(action, _)| *action != "change")
        .collect();
    changes.sort_unstable();
    changes
}

/// What a plan must leave as it is: every database with its revision, and the scopes.
async fn stored(lab: &Lab) -> Result<(Vec<v1::Database>, BTreeSet<String>)> {
    let scopes = lab.scopes().await?.into_iter();
    let ids = scopes.filter_map(|scope| Some(scope.scope?.id));
    Ok((lab.databases().await?, ids.collect()))
}

#[tokio::test]
async fn a_plan_tells_what_a_configuration_would_change_and_changes_nothing() -> Result<()> {
    let lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy, Part::Discovery]).await?;
    lab.wait_for_databases(&LISTED).await?;
    let before = stored(&lab).await?;
    let (both, fail_on_change) = (["us-east-1", "us-west-2"], "--fail-on=change");

    for source in [&[fail_on_change][..], &[fail_on_change, "--live"]] {
        let (same, code) = plan(&lab, matchers(&both, &["prod"]), source).await?;
        ensure!(changes(&same).is_empty() && code == Some(0), "{same:#}");
        ensure!(same["summary"]["changed"] == 0, "{same:#}");
        ensure!(same["summary"]["kept"] == LISTED.len(), "{same:#}");
        ensure!(same["summary"]["complete"] == true, "{same:#}");
    }

    let (fewer, code) = plan(
        &lab,
        matchers(&["us-east-1"], &["prod"]),
        &["--fail-on=remove"],
    )
    .await?;
    let removed = [("remove", "reporting-redshift-us-west-2-111111111111")];
    ensure!(changes(&fewer) == removed && code == Some(3), "{fewer:#}");

    // The inventory cannot know of what nobody asked for yet; AWS does. All that stays has another scope.
    let wider = || matchers(&both, &["prod", "dev"]);
    let (recorded, _) = plan(&lab, wider(), &[]).await?;
    ensure!(changes(&recorded).is_empty(), "{recorded:#}");
    ensure!(
        recorded["summary"]["changed"] == LISTED.len(),
        "{recorded:#}"
    );
    let (live, code) = plan(&lab, wider(), &["--live", fail_on_change]).await?;
    let added = [
        ("add", "sandbox-redshift-us-east-1-111111111111"),
        ("add", "scratch-redshift-us-west-2-222222222222"),
    ];
    ensure!(changes(&live) == added && code == Some(3), "{live:#}");

    let after = stored(&lab).await?;
    ensure!(after == before, "{after:#?}\ninstead of\n{before:#?}");
    lab.stop().await
}
