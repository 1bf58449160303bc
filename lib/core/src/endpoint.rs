//! What the host name of an AWS database endpoint tells: its kind, region, account and name. Pure.
//!
//! | endpoint | form, below `<region>.<service>.<DNS suffix of the partition>` |
//! |---|---|
//! | Redshift cluster | `<cluster>.<hash>` |
//! | VPC endpoint of a Redshift cluster | `<endpoint>-endpoint-<hash>.<hash>` |
//! | Redshift Serverless workgroup | `<workgroup>.<account>` |
//! | VPC endpoint of a workgroup | `<endpoint>-endpoint-<hash>.<account>` |
//! | RDS instance | `<instance>.<hash>` |
//! | Aurora and Multi-AZ cluster, its reader | `<cluster>.cluster-<hash>`, `<cluster>.cluster-ro-<hash>` |
//! | custom endpoint of a cluster | `<endpoint>.cluster-custom-<hash>` |
//! | RDS Proxy, an endpoint of it | `<proxy>.proxy-<hash>`, `<endpoint>.endpoint.proxy-<hash>` |
//!
//! Source: the endpoint formats in Amazon's Redshift, Redshift Serverless and RDS guides.

use crate::{
    database::AwsMetadata,
    ids::{AccountId, Region},
    matcher::DatabaseKind,
};

/// The port of Redshift endpoints, which AWS shows without it.
pub const REDSHIFT_PORT: u16 = 5439;

/// Fewest characters of the hash in a VPC endpoint's name; what is shorter is part of a cluster's own name.
const HASH_CHARS_MIN: usize = 8;

/// What an endpoint tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsEndpoint {
    /// The kind of database.
    pub kind: DatabaseKind,
    /// Where it is.
    pub region: Region,
    /// Whose it is; Redshift Serverless alone tells.
    pub account: Option<AccountId>,
    /// What it is called.
    pub name: EndpointName,
}

/// What the database is called in AWS, as far as its endpoint tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointName {
    /// An Aurora or Multi-AZ cluster, by its writer's or reader's endpoint.
    RdsCluster(String),
    /// An RDS instance.
    RdsInstance(String),
    /// An RDS Proxy, by its own endpoint.
    RdsProxy(String),
    /// A provisioned Redshift cluster.
    RedshiftCluster(String),
    /// A VPC endpoint of a Redshift cluster, which the host does not name.
    RedshiftEndpoint(String),
    /// The endpoint has a name of its own.
    Untold,
    /// A Redshift Serverless workgroup.
    Workgroup(String),
    /// A VPC endpoint of a workgroup, which the host does not name.
    WorkgroupEndpoint(String),
}

impl EndpointName {
    /// Puts the name where nothing is said yet.
    pub fn fill_in(self, aws: &mut AwsMetadata) {
        let (field, name) = match self {
            Self::RdsCluster(name) => (&mut aws.rds_cluster_id, name),
            Self::RdsInstance(name) => (&mut aws.rds_instance_id, name),
            Self::RdsProxy(name) => (&mut aws.rdsproxy_name, name),
            Self::RedshiftCluster(name) => (&mut aws.redshift_cluster_id, name),
            Self::Workgroup(name) => (&mut aws.redshift_serverless_workgroup, name),
            Self::WorkgroupEndpoint(name) => (&mut aws.redshift_serverless_endpoint, name),
            Self::RedshiftEndpoint(_) | Self::Untold => return,
        };
        field.get_or_insert(name);
    }
}

/// A host under one of AWS' database domains that does not have the form of an endpoint there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnEndpoint(pub DatabaseKind);

const DOMAINS: [(&str, DatabaseKind); 3] = [
    ("redshift", DatabaseKind::Redshift),
    ("redshift-serverless", DatabaseKind::RedshiftServerless),
    ("rds", DatabaseKind::Rds),
];

/// What names of AWS end in, over all partitions ([`Region::dns_suffix`]).
const SUFFIXES: [&str; 7] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
    "sc2s.sgov.gov",
];

/// The kind of database that lives in the domain of this host.
#[must_use]
pub fn kind_of(host: &str) -> Option<DatabaseKind> {
    split(host).map(|(kind, _, _)| kind)
}

/// In China RDS also puts its own name before the region: `….rds.<region>.amazonaws.com.cn`.
fn in_usual_order(host: String) -> String {
    let Some((front, region)) = host
        .strip_suffix(".amazonaws.com.cn")
        .and_then(|rest| rest.rsplit_once(".rds."))
    else {
        return host;
    };
    format!("{front}.{region}.rds.amazonaws.com.cn")
}

/// The kind, what stands before the domain, and the suffix behind it.
fn split(host: &str) -> Option<(DatabaseKind, &str, &'static str)> {
    SUFFIXES.into_iter().find_map(|suffix| {
        let rest = host.strip_suffix(suffix)?.strip_suffix('.')?;
        let (front, domain) = rest.rsplit_once('.').unwrap_or(("", rest));
        let known = DOMAINS.into_iter().find(|(name, _)| *name == domain);
        known.map(|(_, kind)| (kind, front, suffix))
    })
}

/// Reads an endpoint, in any case; `None` for a host outside AWS.
///
/// # Errors
///
/// For a host inside AWS' domain of a kind that is no endpoint of one.
pub fn read(host: &str) -> Result<Option<AwsEndpoint>, NotAnEndpoint> {
    let host = in_usual_order(host.to_ascii_lowercase());
    let Some((kind, front, suffix)) = split(&host) else {
        return Ok(None);
    };
    parts(front, suffix, kind)
        .map(Some)
        .ok_or(NotAnEndpoint(kind))
}

fn parts(front: &str, suffix: &str, kind: DatabaseKind) -> Option<AwsEndpoint> {
    let mut labels: Vec<&str> = front.split('.').collect();
    // `<endpoint>.endpoint.proxy-<hash>…`: an endpoint of a proxy beside its own.
    let of_proxy = kind == DatabaseKind::Rds
        && matches!(labels.as_slice(), [_, "endpoint", proxy, ..] if proxy.starts_with("proxy-"));
    if of_proxy {
        labels.remove(1);
    }
    let [id, second, region] = labels.as_slice() else {
        return None;
    };
    let region: Region = region.parse().ok()?;
    if id.is_empty() || second.is_empty() || region.dns_suffix() != suffix {
        return None;
    }
    let name = if of_proxy {
        EndpointName::Untold
    } else {
        name(id, second, kind)
    };
    Some(AwsEndpoint {
        kind: if kind == DatabaseKind::Rds && second.starts_with("proxy-") {
            DatabaseKind::Rdsproxy
        } else {
            kind
        },
        region,
        account: match kind {
            DatabaseKind::RedshiftServerless => Some(second.parse().ok()?),
            _ => None,
        },
        name,
    })
}

/// The name in the first label; the second says of what.
fn name(first: &str, second: &str, kind: DatabaseKind) -> EndpointName {
    let id = first.to_owned();
    let vpc_endpoint = vpc_endpoint(first).map(str::to_owned);
    match (kind, vpc_endpoint) {
        (DatabaseKind::Redshift, Some(endpoint)) => EndpointName::RedshiftEndpoint(endpoint),
        (DatabaseKind::Redshift, None) => EndpointName::RedshiftCluster(id),
        (DatabaseKind::RedshiftServerless, Some(endpoint)) => {
            EndpointName::WorkgroupEndpoint(endpoint)
        }
        (DatabaseKind::RedshiftServerless, None) => EndpointName::Workgroup(id),
        (DatabaseKind::Rds | DatabaseKind::Rdsproxy, _) => {
            if second.starts_with("proxy-") {
                EndpointName::RdsProxy(id)
            } else if second.starts_with("cluster-custom-") {
                EndpointName::Untold
            } else if second.starts_with("cluster-") {
                EndpointName::RdsCluster(id)
            } else {
                EndpointName::RdsInstance(id)
            }
        }
    }
}

/// The name in `<name>-endpoint-<hash>`. A cluster may be called `x-endpoint-reports`: a hash is long and has digits.
fn vpc_endpoint(label: &str) -> Option<&str> {
    let (endpoint, hash) = label.rsplit_once("-endpoint-")?;
    let is_hash = hash.len() >= HASH_CHARS_MIN
        && hash.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && hash.bytes().any(|byte| byte.is_ascii_digit());
    (is_hash && !endpoint.is_empty()).then_some(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_tell_kind_region_and_account() {
        let read = |host| read(host).unwrap().unwrap();
        let cluster = read("dw-1.cabc123.us-west-2.redshift.amazonaws.com");
        assert_eq!(cluster.kind, DatabaseKind::Redshift);
        assert_eq!(cluster.region.as_str(), "us-west-2");
        assert_eq!(
            cluster.name,
            EndpointName::RedshiftCluster("dw-1".to_owned())
        );
        assert_eq!(cluster.account, None);
        let chinese = read("dw.cabc.cn-north-1.redshift.amazonaws.com.cn");
        assert_eq!(chinese.region.as_str(), "cn-north-1");
        let workgroup = read("wg.123456789012.eu-west-1.redshift-serverless.amazonaws.com");
        assert_eq!(workgroup.account.unwrap().as_str(), "123456789012");
        let proxy = read("p.proxy-abc.us-east-1.rds.amazonaws.com");
        assert_eq!(proxy.kind, DatabaseKind::Rdsproxy);
    }

    #[test]
    fn endpoints_tell_what_the_database_is_called() {
        let id = || "x".to_owned();
        for (host, name) in [
            (
                "x.111122223333.eu-west-1.redshift-serverless.amazonaws.com",
                EndpointName::Workgroup(id()),
            ),
            (
                "x-endpoint-0a1b2c3d.111122223333.eu-west-1.redshift-serverless.amazonaws.com",
                EndpointName::WorkgroupEndpoint(id()),
            ),
            (
                "x.abc.us-east-1.rds.amazonaws.com",
                EndpointName::RdsInstance(id()),
            ),
            (
                "x.cluster-abc.us-east-1.rds.amazonaws.com",
                EndpointName::RdsCluster(id()),
            ),
            (
                "x.cluster-ro-abc.us-east-1.rds.amazonaws.com",
                EndpointName::RdsCluster(id()),
            ),
            (
                "x.cluster-custom-abc.us-east-1.rds.amazonaws.com",
                EndpointName::Untold,
            ),
            (
                "x.proxy-abc.us-east-1.rds.amazonaws.com",
                EndpointName::RdsProxy(id()),
            ),
            (
                "x.endpoint.proxy-abc.us-east-1.rds.amazonaws.com",
                EndpointName::Untold,
            ),
            (
                "x-endpoint-0a1b2c3d4e.abc.us-east-1.redshift.amazonaws.com",
                EndpointName::RedshiftEndpoint(id()),
            ),
            (
                "x-endpoint-reports.abc.us-east-1.redshift.amazonaws.com",
                EndpointName::RedshiftCluster("x-endpoint-reports".to_owned()),
            ),
            (
                "X.ABC.us-gov-west-1.rds.amazonaws.com",
                EndpointName::RdsInstance(id()),
            ),
        ] {
            assert_eq!(read(host).unwrap().unwrap().name, name, "{host}");
        }
        let beside = read("x.endpoint.proxy-abc.us-east-1.rds.amazonaws.com");
        assert_eq!(beside.unwrap().unwrap().kind, DatabaseKind::Rdsproxy);
    }

    #[test]
    fn other_hosts_are_none_and_malformed_endpoints_are_told() {
        assert_eq!(read("db.example.com"), Ok(None));
        assert_eq!(read("redshift.amazonaws.com.example.com"), Ok(None));
        for host in [
            "redshift.amazonaws.com",
            "dw.us-west-2.redshift.amazonaws.com",
            "dw.abc.nowhere.redshift.amazonaws.com",
        ] {
            assert_eq!(
                read(host),
                Err(NotAnEndpoint(DatabaseKind::Redshift)),
                "{host}"
            );
        }
    }

    #[test]
    fn each_partition_has_its_own_domain_and_no_other() {
        for (host, region) in [
            (
                "x.abc.us-gov-east-1.redshift.amazonaws.com",
                "us-gov-east-1",
            ),
            ("x.abc.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
            ("x.abc.rds.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("x.abc.eusc-de-east-1.rds.amazonaws.eu", "eusc-de-east-1"),
            ("x.abc.us-iso-east-1.redshift.c2s.ic.gov", "us-iso-east-1"),
        ] {
            assert_eq!(read(host).unwrap().unwrap().region.as_str(), region);
        }
        for host in [
            "x.abc.us-east-1.rds.amazonaws.com.cn",
            "x.abc.cn-north-1.rds.amazonaws.com",
            "x.abc.us-east-1.rds.amazonaws.eu",
        ] {
            assert_eq!(read(host), Err(NotAnEndpoint(DatabaseKind::Rds)), "{host}");
        }
    }
}
