//! The floor of discovery: the AWS SDK alone, paging through what a worker has to read, and nothing else.
//!
//! It assumes the same roles, asks the same calls with the same concurrency, and lets the answers go. It runs as a
//! process of its own, so that its CPU can be told.

use anyhow::{Context, Result};
use aws_config::{BehaviorVersion, Region, sts::AssumeRoleProvider};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::{Args, discovery, usage};

/// Scopes that are read at once, as in a worker.
const SCANS_MAX: usize = 5;

/// Reads everything once and prints its CPU.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let endpoint = args.endpoint.as_deref().context("--endpoint is missing")?;
    let base = aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .load()
        .await;
    let scopes = args
        .account_list
        .iter()
        .flat_map(|account| args.region_list.iter().map(move |region| (account, region)));
    let mut configs = std::collections::HashMap::new();
    for account in &args.account_list {
        let provider = AssumeRoleProvider::builder(discovery::role(account))
            .configure(&base)
            .session_name("floor")
            .region(Region::from_static("us-east-1"))
            .build()
            .await;
        configs.insert(
            account,
            base.to_builder()
                .credentials_provider(
                    aws_credential_types::provider::SharedCredentialsProvider::new(provider),
                )
                .build(),
        );
    }
    let clusters: usize = stream::iter(scopes)
        .map(|(account, region)| {
            read(
                configs[account]
                    .to_builder()
                    .region(Region::new(region.clone()))
                    .build(),
            )
        })
        .buffer_unordered(SCANS_MAX)
        .try_fold(0, |sum, found| async move { Ok(sum + found) })
        .await?;
    println!(
        "{}",
        json!({ "clusters": clusters, "cpu_seconds": usage::cpu_seconds(std::process::id())? })
    );
    Ok(())
}

async fn read(config: aws_config::SdkConfig) -> Result<usize> {
    let client = aws_sdk_redshift::Client::new(&config);
    let mut pages = client.describe_clusters().into_paginator().send();
    let mut found = 0;
    while let Some(page) = pages.next().await {
        found += page?.clusters().len();
    }
    // A worker asks for managed VPC endpoints too.
    let mut pages = client.describe_endpoint_access().into_paginator().send();
    while let Some(page) = pages.next().await {
        page?;
    }
    Ok(found)
}
