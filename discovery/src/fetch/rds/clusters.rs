//! Aurora and Multi-AZ clusters: one database for each endpoint.
//!
//! The writer's endpoint is there while the cluster has a writer (the second cluster of a global database has none),
//! the reader's while it has a reader, custom endpoints always. While members change their parts (a failover), a part
//! that nobody plays is a doubt and not gone.
//!
//! Left out: Aurora Serverless v1 and the parallel-query versions of old, which have no IAM login.

use aws_sdk_rds::types::DbCluster;
use tidegate_core::{AwsMetadata, Protocol, ScanScope};

use super::{AURORA_ENGINES, DESCRIBE_CLUSTERS, Vpcs, protocol, tags};
use crate::{
    fetch::{
        FetchError, Memory, Reading,
        arn::{self, Arn},
        draft::{Draft, Unread, named, some, yes_or_no},
        status::{Availability, CREATING, Status},
    },
    found::Found,
};

const SERVERLESS_V1: &str = "Aurora Serverless v1 has no IAM login";
const PARALLEL_QUERY: &str = "this parallel-query version of Aurora MySQL has no IAM login";

/// Versions of Aurora MySQL that have no IAM login in parallel-query mode.
const PARALLEL_QUERY_VERSIONS: [&str; 4] = ["1.19.6", "1.20.1", "1.22.2", "5.6.10a"];

/// Takes the databases that the endpoints of a cluster are.
pub(super) fn take(
    scope: &ScanScope,
    cluster: &DbCluster,
    vpcs: &Vpcs,
    reading: &mut Reading,
    memory: &Memory,
) {
    if let Some(reason) = unsupported(cluster) {
        reading.left_out(reason);
        return;
    }
    match Parent::read(cluster, vpcs) {
        Ok(parent) => {
            memory.statuses.look(scope.kind, &parent.status);
            for found in parent.endpoints(scope) {
                reading.take(found);
            }
        }
        Err(error) => reading.missed(error),
    }
}

/// Why a cluster is left out, if it is.
pub(super) fn unsupported(cluster: &DbCluster) -> Option<&'static str> {
    let version = cluster.engine_version().unwrap_or_default();
    let version = version
        .rsplit_once("mysql_aurora.")
        .map_or(version, |(_, version)| version);
    match cluster.engine_mode() {
        Some("serverless") => Some(SERVERLESS_V1),
        Some("parallelquery")
            if cluster.engine() == Some("aurora-mysql")
                && PARALLEL_QUERY_VERSIONS.contains(&version) =>
        {
            Some(PARALLEL_QUERY)
        }
        _ => None,
    }
}

/// A cluster, as its endpoints need it.
#[derive(Debug)]
pub(super) struct Parent<'c> {
    cluster: &'c DbCluster,
    id: &'c str,
    arn_text: &'c str,
    arn: Arn<'c>,
    protocol: Protocol,
    is_aurora: bool,
    status: Status,
    vpc: Option<&'c str>,
    unread: Unread,
}

impl<'c> Parent<'c> {
    pub(super) fn read(cluster: &'c DbCluster, vpcs: &'c Vpcs) -> Result<Self, FetchError> {
        let id = cluster.db_cluster_identifier();
        let id = named(id, DESCRIBE_CLUSTERS, "a cluster", "DBClusterIdentifier")?;
        let lacks = |field| {
            let cluster = format!("cluster `{id}`");
            FetchError::malformed(DESCRIBE_CLUSTERS, cluster, field)
        };
        let arn_text = cluster.db_cluster_arn().unwrap_or_default();
        let arn = arn::read(arn_text, "rds").ok_or_else(|| lacks("DBClusterArn"))?;
        let engine = cluster.engine().unwrap_or_default();
        let vpc = vpcs.of.get(id).map(String::as_str);
        Ok(Self {
            cluster,
            id,
            arn_text,
            arn,
            protocol: protocol(engine).ok_or_else(|| lacks("Engine"))?,
            is_aurora: AURORA_ENGINES.contains(&engine),
            status: Status::read(cluster.status(), availability),
            vpc,
            unread: if vpc.is_none() && !vpcs.complete {
                Unread::Label("vpc-id")
            } else {
                Unread::Nothing
            },
        })
    }

    /// What became of each endpoint.
    pub(super) fn endpoints(&self, scope: &ScanScope) -> Vec<Result<Option<Found>, FetchError>> {
        let members = self.cluster.db_cluster_members();
        let has = |writer: bool| {
            members
                .iter()
                .any(|member| member.is_cluster_writer().unwrap_or(false) == writer)
        };
        let mut all = Vec::new();
        if has(true) {
            all.push(self.draft(scope).find(scope));
        } else if self.is_in_change() && scope.endpoints.admits("primary") {
            all.push(Err(self.lacks("writer")));
        }
        if has(false) {
            all.push(self.reader(scope).find(scope));
        } else if self.is_in_change() && scope.endpoints.admits("reader") {
            all.push(Err(self.lacks("reader")));
        }
        for host in self.cluster.custom_endpoints() {
            all.push(self.custom(scope, host));
        }
        all
    }

    /// Whether members are changing their parts.
    fn is_in_change(&self) -> bool {
        matches!(self.status.word.as_str(), "failing-over" | "promoting")
    }

    fn lacks(&self, field: &'static str) -> FetchError {
        let cluster = format!("cluster `{}` in status `{}`", self.id, self.status.word);
        FetchError::malformed(DESCRIBE_CLUSTERS, cluster, field)
    }

    /// The endpoint of the writer.
    fn draft(&self, scope: &ScanScope) -> Draft<'c> {
        let cluster = self.cluster;
        let (subtype, product) = if self.is_aurora {
            ("aurora", "Aurora cluster")
        } else {
            ("cluster", "RDS Multi-AZ cluster")
        };
        Draft {
            action: DESCRIBE_CLUSTERS,
            what: "cluster",
            identity: self.arn_text.to_owned(),
            account: self.arn.account.clone(),
            id: self.id,
            endpoint: String::new(),
            endpoint_type: "primary",
            subtype: Some(subtype),
            description: format!("{product} in {}", scope.region),
            protocol: self.protocol,
            host: cluster.endpoint(),
            port: cluster.port(),
            server_name: None,
            aws: AwsMetadata {
                rds_cluster_id: Some(self.id.to_owned()),
                rds_resource_id: some(cluster.db_cluster_resource_id()).map(str::to_owned),
                rds_iam_auth: cluster.iam_database_authentication_enabled(),
                ..AwsMetadata::default()
            },
            status: self.status.clone(),
            told: vec![
                ("encrypted", yes_or_no(cluster.storage_encrypted())),
                ("engine", cluster.engine()),
                ("engine-version", cluster.engine_version()),
                (
                    "publicly-accessible",
                    yes_or_no(cluster.publicly_accessible()),
                ),
                ("vpc-id", self.vpc),
            ],
            tags: tags(cluster.tag_list()),
            unread: self.unread,
        }
    }

    fn reader(&self, scope: &ScanScope) -> Draft<'c> {
        Draft {
            what: "reader endpoint of cluster",
            identity: format!("{}#reader", self.arn_text),
            endpoint: "reader".to_owned(),
            endpoint_type: "reader",
            host: self.cluster.reader_endpoint(),
            ..self.draft(scope)
        }
    }

    /// A custom endpoint; its certificate names the writer's host.
    fn custom(&self, scope: &ScanScope, host: &'c str) -> Result<Option<Found>, FetchError> {
        let name = custom_name(host).ok_or_else(|| self.lacks("custom endpoint"))?;
        let primary = some(self.cluster.endpoint());
        let draft = Draft {
            what: "custom endpoint of cluster",
            identity: format!("{}#custom/{name}", self.arn_text),
            endpoint: format!("custom-{name}"),
            endpoint_type: "custom",
            host: primary.and(Some(host)),
            server_name: primary.map(str::to_owned),
            ..self.draft(scope)
        };
        draft.find(scope)
    }
}

/// The name in `<name>.cluster-custom-<hash>.<region>.rds.amazonaws.com`.
pub(super) fn custom_name(host: &str) -> Option<&str> {
    let (name, rest) = host.split_once('.')?;
    (!name.is_empty() && rest.starts_with("cluster-custom-")).then_some(name)
}

pub(super) fn availability(status: &str) -> Availability {
    match status {
        "active"
        | "available"
        | "backing-up"
        | "backtracking"
        | "failing-over"
        | "maintenance"
        | "migrating"
        | "modifying"
        | "promoting"
        | "renaming"
        | "resetting-master-credentials"
        | "update-iam-db-auth"
        | "upgrading" => Availability::Available,
        "cloning-failed"
        | CREATING
        | "deleting"
        | "inaccessible-encryption-credentials"
        | "migration-failed"
        | "starting"
        | "stopped"
        | "stopping" => Availability::Unavailable,
        _ => Availability::Unknown,
    }
}
