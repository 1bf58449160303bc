//! Keeps the dependency arrows of the architecture: each crate may use only layers below its own.
//!
//! The layers are those of `ARCHITECTURE.md`. Also kept: services never depend on each other, nothing that ships
//! depends on `dev/`, and `tg`, which users install, links no AWS SDK.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::cargo;

/// Crates by layer, lowest first. Crates of one layer do not use each other.
const LAYERS: [&[&str]; 8] = [
    &["tidegate-core", "tidegate-wire"],
    &["tidegate-proto"],
    &["tidegate-identity"],
    &["tidegate-service", "tidegate-aws"],
    &[
        "tidegate-auth",
        "tidegate-dbservice",
        "tidegate-discovery",
        "tidegate-proxy",
        "tidegate-console",
    ],
    &["tg", "tgctl", "tidegate"],
    &["awssim"],
    &["tidegate-e2e", "protogen", "xtask"],
];
/// Layers from here on are for development and do not ship.
const DEVELOPMENT_FROM: usize = 6;

/// Fails with every arrow that points up or sideways.
pub(crate) fn check() -> Result<()> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("cargo metadata")?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let mut wrong = Vec::new();
    let ours = dependencies(&metadata);
    for (name, uses) in &ours {
        let Some(layer) = layer_of(name) else {
            wrong.push(format!(
                "{name} has no layer: add it to dev/xtask/src/arrows.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for used in uses {
            match layer_of(used) {
                Some(below)
                    if below < layer && (below < DEVELOPMENT_FROM || layer >= DEVELOPMENT_FROM) => {
                }
                Some(_) => wrong.push(format!("{name} must not use {used}")),
                None => {}
            }
        }
    }
    let reached = reached_from(&metadata, "tg");
    wrong.extend(
        reached
            .iter()
            .filter(|name| name.starts_with("aws-sdk"))
            .map(|name| format!("tg must not link {name}")),
    );
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("dependency arrows:\n  {}", wrong.join("\n  "))
    }
}

fn layer_of(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// Normal and build dependencies of the workspace's own crates.
fn dependencies(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let members: BTreeSet<&str> = array(&metadata["workspace_members"])
        .filter_map(Value::as_str)
        .collect();
    array(&metadata["packages"])
        .filter(|package| {
            package["id"]
                .as_str()
                .is_some_and(|id| members.contains(id))
        })
        .map(|package| {
            let uses = array(&package["dependencies"])
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
                .collect();
            (
                package["name"].as_str().unwrap_or_default().to_owned(),
                uses,
            )
        })
        .collect()
}

/// Every package that `name` links, whatever the depth.
fn reached_from(metadata: &Value, name: &str) -> BTreeSet<String> {
    let names: BTreeMap<&str, &str> = array(&metadata["packages"])
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = array(&metadata["resolve"]["nodes"])
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&str> = names
        .iter()
        .filter(|(_, found)| **found == name)
        .map(|(id, _)| *id)
        .collect();
    while let Some(id) = waiting.pop() {
        if !reached.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        let links = array(&node["deps"]).filter(|dependency| {
            array(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null())
        });
        waiting.extend(links.filter_map(|dependency| dependency["pkg"].as_str()));
    }
    reached
        .into_iter()
        .filter_map(|id| names.get(id).map(|name| (*name).to_owned()))
        .collect()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
