//! RDS: instances, and the endpoints of Aurora and Multi-AZ clusters.
//!
//! Two lists give all, tags included. `DescribeDBInstances` lists the members of clusters too: Aurora's become no
//! databases of their own, but they alone know the VPC of their cluster. When that list could not be read in full,
//! the VPC of a cluster may be unknown, which is not the same as having none.
//!
//! AWS refuses to list by an engine that a region does not know. Engines are then asked for one by one, and what each
//! gives is added up.
//!
//! Left out, with a count: what cannot log in with IAM (see [`instances`] and [`clusters`]).
//!
//! Source: Amazon RDS API reference, `DescribeDBInstances`, `DescribeDBClusters`.

mod clusters;
mod engines;
mod instances;

use std::collections::HashMap;

use aws_sdk_rds::{
    Client,
    types::{DbCluster, DbInstance, Filter, Tag},
};
use tidegate_core::{Protocol, ScanScope};

use self::engines::Engines;
use super::{FetchError, Memory, Reading, draft::some};

/// The first permission that scanning needs.
pub(super) const DESCRIBE_INSTANCES: &str = "rds:DescribeDBInstances";
const DESCRIBE_CLUSTERS: &str = "rds:DescribeDBClusters";

/// Instances or clusters asked for a page, the most that AWS gives.
const PAGE_RECORDS: i32 = 100;

/// Engines whose instances are databases.
const INSTANCE_ENGINES: [&str; 3] = ["mariadb", "mysql", "postgres"];
/// Engines whose instances are members of clusters only.
const AURORA_ENGINES: [&str; 2] = ["aurora-mysql", "aurora-postgresql"];
/// Engines of clusters: Aurora's, and those of Multi-AZ clusters.
const CLUSTER_ENGINES: [&str; 4] = ["aurora-mysql", "aurora-postgresql", "mysql", "postgres"];

/// The VPC of each cluster, by its identifier.
#[derive(Debug)]
struct Vpcs {
    of: HashMap<String, String>,
    /// Whether a cluster that is not listed has none for certain.
    complete: bool,
}

/// Reads instances, then clusters.
pub(super) async fn fetch(
    client: &Client,
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
) -> Result<(), FetchError> {
    let mut all = Vec::new();
    let listed = list_instances(client, reading, &mut all).await;
    let vpcs = Vpcs {
        of: all.iter().filter_map(cluster_and_vpc).collect(),
        complete: listed.is_ok(),
    };
    for instance in &all {
        instances::take(scope, instance, reading, memory);
    }
    match listed {
        Err(error) if error.concerns_every_call() => return Err(error),
        Err(error) => reading.missed(error),
        Ok(()) => {}
    }
    let mut all = Vec::new();
    let listed = list_clusters(client, reading, &mut all).await;
    for cluster in &all {
        clusters::take(scope, cluster, &vpcs, reading, memory);
    }
    listed
}

fn cluster_and_vpc(instance: &DbInstance) -> Option<(String, String)> {
    let cluster = some(instance.db_cluster_identifier())?;
    let vpc = some(instance.db_subnet_group()?.vpc_id())?;
    Some((cluster.to_owned(), vpc.to_owned()))
}

async fn list_instances(
    client: &Client,
    reading: &mut Reading,
    listed: &mut Vec<DbInstance>,
) -> Result<(), FetchError> {
    let mut engines = Engines::new(INSTANCE_ENGINES.iter().chain(&AURORA_ENGINES).copied());
    while let Some(group) = engines.next() {
        let read = instances_of(client, &group, reading, listed).await;
        engines.answered(read)?;
    }
    engines.end()
}

async fn instances_of(
    client: &Client,
    engines: &[&str],
    reading: &mut Reading,
    listed: &mut Vec<DbInstance>,
) -> Result<(), FetchError> {
    let ask = |marker| {
        client
            .describe_db_instances()
            .filters(engine_filter(engines))
            .max_records(PAGE_RECORDS)
            .set_marker(marker)
            .send()
    };
    reading
        .calls
        .list(DESCRIBE_INSTANCES, ask, |page| {
            listed.extend(page.db_instances.unwrap_or_default());
            page.marker
        })
        .await
}

async fn list_clusters(
    client: &Client,
    reading: &mut Reading,
    listed: &mut Vec<DbCluster>,
) -> Result<(), FetchError> {
    let mut engines = Engines::new(CLUSTER_ENGINES);
    while let Some(group) = engines.next() {
        let read = clusters_of(client, &group, reading, listed).await;
        engines.answered(read)?;
    }
    engines.end()
}

async fn clusters_of(
    client: &Client,
    engines: &[&str],
    reading: &mut Reading,
    listed: &mut Vec<DbCluster>,
) -> Result<(), FetchError> {
    let ask = |marker| {
        client
            .describe_db_clusters()
            .filters(engine_filter(engines))
            .max_records(PAGE_RECORDS)
            .set_marker(marker)
            .send()
    };
    reading
        .calls
        .list(DESCRIBE_CLUSTERS, ask, |page| {
            listed.extend(page.db_clusters.unwrap_or_default());
            page.marker
        })
        .await
}

fn engine_filter(engines: &[&str]) -> Filter {
    let values = engines.iter().map(|engine| (*engine).to_owned()).collect();
    Filter::builder()
        .name("engine")
        .set_values(Some(values))
        .build()
}

/// What is spoken with an engine.
fn protocol(engine: &str) -> Option<Protocol> {
    match engine {
        "aurora-postgresql" | "postgres" => Some(Protocol::Postgres),
        "aurora-mysql" | "mariadb" | "mysql" => Some(Protocol::Mysql),
        _ => None,
    }
}

fn tags(tags: &[Tag]) -> Vec<(&str, &str)> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default())))
        .collect()
}

#[cfg(test)]
mod tests;
