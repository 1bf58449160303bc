//! What the host name of an AWS database endpoint tells: its kind, region, account and name.
//!
//! Source: the endpoint formats in Amazon's Redshift, Redshift Serverless and RDS guides.

use tidegate_core::{AccountId, AwsMetadata, DatabaseKind, Region};

/// The port of Redshift endpoints, which AWS shows without it.
pub(super) const REDSHIFT_PORT: u16 = 5439;

/// What an endpoint tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AwsEndpoint {
    pub(super) kind: DatabaseKind,
    pub(super) region: Region,
    pub(super) account: Option<AccountId>,
    pub(super) name: Name,
}

/// What the database is called in AWS, as far as its endpoint tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    RdsCluster(String),
    RdsInstance(String),
    RdsProxy(String),
    RedshiftCluster(String),
    /// The endpoint has a name of its own.
    Untold,
    Workgroup(String),
    WorkgroupEndpoint(String),
}

impl Name {
    /// Puts the name where nothing is said yet.
    pub(super) fn fill_in(self, aws: &mut AwsMetadata) {
        let (field, name) = match self {
            Self::RdsCluster(name) => (&mut aws.rds_cluster_id, name),
            Self::RdsInstance(name) => (&mut aws.rds_instance_id, name),
            Self::RdsProxy(name) => (&mut aws.rdsproxy_name, name),
            Self::RedshiftCluster(name) => (&mut aws.redshift_cluster_id, name),
            Self::Workgroup(name) => (&mut aws.redshift_serverless_workgroup, name),
            Self::WorkgroupEndpoint(name) => (&mut aws.redshift_serverless_endpoint, name),
            Self::Untold => return,
        };
        field.get_or_insert(name);
    }
}

/// A host under one of AWS' database domains that does not have the form of an endpoint there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAnEndpoint(pub(super) DatabaseKind);

const DOMAINS: [(&str, DatabaseKind); 3] = [
    ("redshift", DatabaseKind::Redshift),
    ("redshift-serverless", DatabaseKind::RedshiftServerless),
    ("rds", DatabaseKind::Rds),
];

/// The kind of database that lives in the domain of this host.
pub(super) fn kind_of(host: &str) -> Option<DatabaseKind> {
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let rest = host.strip_suffix(".amazonaws.com")?;
    let domain = rest.rsplit('.').next()?;
    DOMAINS
        .into_iter()
        .find(|(name, _)| *name == domain)
        .map(|(_, kind)| kind)
}

/// Reads an endpoint; `None` for a host outside AWS.
pub(super) fn read(host: &str) -> Result<Option<AwsEndpoint>, NotAnEndpoint> {
    let host = host.to_ascii_lowercase();
    let Some(kind) = kind_of(&host) else {
        return Ok(None);
    };
    parts(&host, kind).map(Some).ok_or(NotAnEndpoint(kind))
}

fn parts(host: &str, kind: DatabaseKind) -> Option<AwsEndpoint> {
    let mut labels: Vec<&str> = host.split('.').collect();
    // `<endpoint>.endpoint.proxy-<hash>…`: an endpoint of a proxy beside its own.
    let of_proxy = kind == DatabaseKind::Rds
        && matches!(labels.as_slice(), [_, "endpoint", proxy, ..] if proxy.starts_with("proxy-"));
    if of_proxy {
        labels.remove(1);
    }
    let [id, second, region, _, "amazonaws", "com", rest @ ..] = labels.as_slice() else {
        return None;
    };
    if id.is_empty() || second.is_empty() || !matches!(rest, [] | ["cn"]) {
        return None;
    }
    let name = if of_proxy {
        Name::Untold
    } else {
        name(id, second, kind)
    };
    Some(AwsEndpoint {
        kind: if kind == DatabaseKind::Rds && second.starts_with("proxy-") {
            DatabaseKind::Rdsproxy
        } else {
            kind
        },
        region: region.parse().ok()?,
        account: match kind {
            DatabaseKind::RedshiftServerless => Some(second.parse().ok()?),
            _ => None,
        },
        name,
    })
}

/// The name in the first label; the second says of what.
fn name(first: &str, second: &str, kind: DatabaseKind) -> Name {
    let id = first.to_owned();
    match kind {
        DatabaseKind::Redshift => Name::RedshiftCluster(id),
        DatabaseKind::RedshiftServerless => match first.rsplit_once("-endpoint-") {
            Some((endpoint, _)) => Name::WorkgroupEndpoint(endpoint.to_owned()),
            None => Name::Workgroup(id),
        },
        DatabaseKind::Rds | DatabaseKind::Rdsproxy => {
            if second.starts_with("proxy-") {
                Name::RdsProxy(id)
            } else if second.starts_with("cluster-custom-") {
                Name::Untold
            } else if second.starts_with("cluster-") {
                Name::RdsCluster(id)
            } else {
                Name::RdsInstance(id)
            }
        }
    }
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
        assert_eq!(cluster.name, Name::RedshiftCluster("dw-1".to_owned()));
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
                Name::Workgroup(id()),
            ),
            (
                "x-endpoint-abc.111122223333.eu-west-1.redshift-serverless.amazonaws.com",
                Name::WorkgroupEndpoint(id()),
            ),
            ("x.abc.us-east-1.rds.amazonaws.com", Name::RdsInstance(id())),
            (
                "x.cluster-abc.us-east-1.rds.amazonaws.com",
                Name::RdsCluster(id()),
            ),
            (
                "x.cluster-ro-abc.us-east-1.rds.amazonaws.com",
                Name::RdsCluster(id()),
            ),
            (
                "x.cluster-custom-abc.us-east-1.rds.amazonaws.com",
                Name::Untold,
            ),
            (
                "x.proxy-abc.us-east-1.rds.amazonaws.com",
                Name::RdsProxy(id()),
            ),
            (
                "x.endpoint.proxy-abc.us-east-1.rds.amazonaws.com",
                Name::Untold,
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
}
