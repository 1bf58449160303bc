//! What the host name of an AWS database endpoint tells: its kind, region, account and cluster.
//!
//! Source: the endpoint formats in Amazon's Redshift, Redshift Serverless and RDS guides.

use tidegate_core::{AccountId, DatabaseKind, Region};

/// The port of Redshift endpoints, which AWS shows without it.
pub(super) const REDSHIFT_PORT: u16 = 5439;

/// What an endpoint tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AwsEndpoint {
    pub(super) kind: DatabaseKind,
    pub(super) region: Region,
    pub(super) account: Option<AccountId>,
    pub(super) redshift_cluster_id: Option<String>,
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
    let labels: Vec<&str> = host.split('.').collect();
    let [id, second, region, _, "amazonaws", "com", rest @ ..] = labels.as_slice() else {
        return None;
    };
    if id.is_empty() || second.is_empty() || !matches!(rest, [] | ["cn"]) {
        return None;
    }
    let region = region.parse().ok()?;
    let kind = if kind == DatabaseKind::Rds && second.starts_with("proxy-") {
        DatabaseKind::Rdsproxy
    } else {
        kind
    };
    Some(AwsEndpoint {
        kind,
        region,
        account: match kind {
            DatabaseKind::RedshiftServerless => Some(second.parse().ok()?),
            _ => None,
        },
        redshift_cluster_id: (kind == DatabaseKind::Redshift).then(|| (*id).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_tell_kind_region_account_and_cluster() {
        let read = |host| read(host).unwrap().unwrap();
        let cluster = read("dw-1.cabc123.us-west-2.redshift.amazonaws.com");
        assert_eq!(cluster.kind, DatabaseKind::Redshift);
        assert_eq!(cluster.region.as_str(), "us-west-2");
        assert_eq!(cluster.redshift_cluster_id.as_deref(), Some("dw-1"));
        assert_eq!(cluster.account, None);
        let chinese = read("dw.cabc.cn-north-1.redshift.amazonaws.com.cn");
        assert_eq!(chinese.region.as_str(), "cn-north-1");
        let workgroup = read("wg.123456789012.eu-west-1.redshift-serverless.amazonaws.com");
        assert_eq!(workgroup.account.unwrap().as_str(), "123456789012");
        let proxy = read("p.proxy-abc.us-east-1.rds.amazonaws.com");
        assert_eq!(proxy.kind, DatabaseKind::Rdsproxy);
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
