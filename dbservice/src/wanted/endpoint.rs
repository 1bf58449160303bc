//! Whether a discovered database's address is one that AWS gives to such a database.
//!
//! Invariant: an inventory that somebody tampered with cannot aim an agent's credentials at a stranger's host. The
//! suffix is owned by Amazon, and the first label is the cluster that the credentials are asked for.
//!
//! Source: Amazon Redshift management guide, "Connection strings": `<cluster>.<id>.<region>.redshift.amazonaws.com`,
//! `<workgroup>.<account>.<region>.redshift-serverless.amazonaws.com`; Amazon RDS user guide, Amazon Aurora user guide,
//! "Endpoint connections": `<instance>.<id>.<region>.rds.amazonaws.com`, `<cluster>.cluster-<id>…`, `cluster-ro-<id>` for
//! readers and `cluster-custom-<id>` for custom endpoints, `<proxy>.proxy-<id>…`, and
//! `<endpoint>.endpoint.proxy-<id>…` for a proxy's further endpoints. In China names end in `….com.cn`, those of RDS also
//! with `rds` before the region.

use tidegate_core::{AccountId, Database, Region};

/// Why an address is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EndpointError {
    /// The first labels are another database's.
    #[error("address `{host}` does not start with its {what} `{name}`")]
    Another {
        host: String,
        what: &'static str,
        name: String,
    },

    /// AWS says something else.
    #[error("address `{address}` is not the database's: {said}")]
    Contradicted { address: String, said: String },

    /// The database does not say what to compare with.
    #[error("a discovered database must carry its {missing}")]
    Incomplete { missing: &'static str },

    /// Not a name that Amazon gives in that region.
    #[error("address `{host}` does not end in `{expected}`")]
    Suffix { host: String, expected: String },
}

/// Checks the address of a provisioned Redshift cluster, or of a VPC endpoint of one, against its own AWS facts.
pub(crate) fn check_redshift(database: &Database) -> Result<(), EndpointError> {
    let region = region(database)?;
    let what = "cluster identifier";
    let cluster = fact(database.aws.redshift_cluster_id.as_deref(), what)?;
    let ends = [format!(".{region}.redshift.{}", region.dns_suffix())];
    let front = Front::of(database, &ends)?;
    if let Some((_, endpoint)) = database.identity.split_once("#vpc-endpoint/") {
        let endpoint = endpoint.to_ascii_lowercase();
        let opening = format!("{endpoint}-endpoint-");
        return match front.labels().as_slice() {
            [first, id] if goes_on(first, &opening) && !id.is_empty() => Ok(()),
            _ => Err(front.another("VPC endpoint", &endpoint)),
        };
    }
    match front.labels().as_slice() {
        [first, id] if *first == cluster && !id.is_empty() => Ok(()),
        _ => Err(front.another("cluster", &cluster)),
    }
}

/// Checks the address of a Redshift Serverless workgroup, or of a VPC endpoint of one.
pub(crate) fn check_serverless(database: &Database) -> Result<(), EndpointError> {
    let (region, aws) = (region(database)?, &database.aws);
    let account = fact(aws.account_id.as_ref().map(AccountId::as_str), "account")?;
    let domain = region.dns_suffix();
    let ends = [format!(".{account}.{region}.redshift-serverless.{domain}")];
    let front = Front::of(database, &ends)?;
    if let Some(endpoint) = &aws.redshift_serverless_endpoint {
        let endpoint = endpoint.to_ascii_lowercase();
        let opening = format!("{endpoint}-endpoint-");
        return match front.labels().as_slice() {
            [first] if first.len() > opening.len() && first.starts_with(&opening) => Ok(()),
            _ => Err(front.another("VPC endpoint", &endpoint)),
        };
    }
    let workgroup = fact(aws.redshift_serverless_workgroup.as_deref(), "workgroup")?;
    match front.labels().as_slice() {
        [first] if *first == workgroup => Ok(()),
        _ => Err(front.another("workgroup", &workgroup)),
    }
}

/// Checks the address of an RDS instance, or of an endpoint of an Aurora or Multi-AZ cluster.
pub(crate) fn check_rds(database: &Database) -> Result<(), EndpointError> {
    let front = Front::of(database, &rds_ends(region(database)?))?;
    let aws = &database.aws;
    let Some(cluster) = &aws.rds_cluster_id else {
        let what = "instance or cluster identifier";
        let instance = fact(aws.rds_instance_id.as_deref(), what)?;
        return match front.labels().as_slice() {
            [first, id] if *first == instance && is_plain_id(id) => Ok(()),
            _ => Err(front.another("instance", &instance)),
        };
    };
    let cluster = cluster.to_ascii_lowercase();
    // A custom endpoint has a name of its own, which is in the identity; AWS alone knows whose it is.
    let custom = database.identity.split_once("#custom/");
    let (first, begins): (String, &[&str]) = match custom {
        Some((_, name)) => (name.to_ascii_lowercase(), &["cluster-custom-"]),
        None => (cluster, &["cluster-ro-", "cluster-"]),
    };
    match front.labels().as_slice() {
        [given, id] if *given == first && begins.iter().any(|begin| goes_on(id, begin)) => Ok(()),
        _ => Err(front.another("cluster", &first)),
    }
}

/// Checks the address of an RDS Proxy, or of a further endpoint of one.
pub(crate) fn check_rdsproxy(database: &Database) -> Result<(), EndpointError> {
    let front = Front::of(database, &rds_ends(region(database)?))?;
    let proxy = fact(database.aws.rdsproxy_name.as_deref(), "proxy name")?;
    if let Some((_, endpoint)) = database.identity.split_once("#endpoint/") {
        let endpoint = endpoint.to_ascii_lowercase();
        return match front.labels().as_slice() {
            [first, "endpoint", id] if *first == endpoint && goes_on(id, "proxy-") => Ok(()),
            _ => Err(front.another("proxy endpoint", &endpoint)),
        };
    }
    match front.labels().as_slice() {
        [first, id] if *first == proxy && goes_on(id, "proxy-") => Ok(()),
        _ => Err(front.another("proxy", &proxy)),
    }
}

fn rds_ends(region: &Region) -> [String; 2] {
    let domain = region.dns_suffix();
    [
        format!(".{region}.rds.{domain}"),
        format!(".rds.{region}.{domain}"),
    ]
}

fn region(database: &Database) -> Result<&Region, EndpointError> {
    let region = database.aws.region.as_ref();
    region.ok_or(EndpointError::Incomplete { missing: "region" })
}

/// A fact to compare with, in lower case as host names are.
fn fact(value: Option<&str>, missing: &'static str) -> Result<String, EndpointError> {
    value
        .filter(|value| !value.is_empty())
        .map(str::to_ascii_lowercase)
        .ok_or(EndpointError::Incomplete { missing })
}

/// Whether a label is the id that endpoints of instances have: no kind of endpoint and a hyphen before it.
fn is_plain_id(id: &str) -> bool {
    !id.is_empty() && !id.starts_with("cluster-") && !id.starts_with("proxy-")
}

fn goes_on(id: &str, begin: &str) -> bool {
    id.strip_prefix(begin).is_some_and(|rest| !rest.is_empty())
}

/// A host, and what is before the end that Amazon owns.
struct Front {
    host: String,
    length: usize,
}

impl Front {
    fn of(database: &Database, ends: &[String]) -> Result<Self, EndpointError> {
        let host = database.uri.host().to_ascii_lowercase();
        let front = ends.iter().find_map(|end| host.strip_suffix(end.as_str()));
        match front.map(str::len) {
            Some(length) => Ok(Self { host, length }),
            None => Err(EndpointError::Suffix {
                host,
                expected: ends[0].clone(),
            }),
        }
    }

    fn labels(&self) -> Vec<&str> {
        self.host[..self.length].split('.').collect()
    }

    fn another(&self, what: &'static str, name: &str) -> EndpointError {
        EndpointError::Another {
            host: self.host.clone(),
            what,
            name: name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::redshift;

    fn at(host: &str, region: &str) -> Result<(), EndpointError> {
        let mut database = redshift("orders", &[]);
        database.aws.redshift_cluster_id = Some("orders".to_owned());
        database.aws.region = Some(region.parse().unwrap());
        database.uri = format!("{host}:5439").parse().unwrap();
        check_redshift(&database)
    }

    #[test]
    fn an_address_of_amazon_for_that_cluster_and_region_is_served() {
        for (host, region) in [
            (
                "orders.abc123.us-east-1.redshift.amazonaws.com",
                "us-east-1",
            ),
            (
                "Orders.abc123.us-east-1.redshift.amazonaws.com",
                "us-east-1",
            ),
            (
                "orders.abc123.cn-north-1.redshift.amazonaws.com.cn",
                "cn-north-1",
            ),
        ] {
            assert_eq!(at(host, region), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_strangers_host_never_gets_credentials() {
        for (host, region) in [
            ("orders.evil.example.com", "us-east-1"),
            ("10.0.0.1", "us-east-1"),
            (
                "orders.abc.us-east-1.redshift.amazonaws.com.evil.com",
                "us-east-1",
            ),
            (
                "orders.abc.us-east-1.redshift.amazonaws.com.cn",
                "us-east-1",
            ),
            ("orders.abc.us-west-2.redshift.amazonaws.com", "us-east-1"),
            (
                "orders.abc.evil-us-east-1.redshift.amazonaws.com",
                "us-east-1",
            ),
            ("orders.abc.cn-north-1.redshift.amazonaws.com", "cn-north-1"),
        ] {
            assert!(
                matches!(at(host, region), Err(EndpointError::Suffix { .. })),
                "{host}"
            );
        }
    }

    #[test]
    fn another_clusters_host_is_refused() {
        for host in [
            "users.abc.us-east-1.redshift.amazonaws.com",
            "orders2.abc.us-east-1.redshift.amazonaws.com",
            "orders.us-east-1.redshift.amazonaws.com",
            "orders.a.b.us-east-1.redshift.amazonaws.com",
        ] {
            assert!(
                matches!(at(host, "us-east-1"), Err(EndpointError::Another { .. })),
                "{host}"
            );
        }
    }

    #[test]
    fn without_facts_to_compare_with_nothing_is_served() {
        let mut database = redshift("orders", &[]);
        database.aws.region = None;
        assert_eq!(
            check_redshift(&database),
            Err(EndpointError::Incomplete { missing: "region" })
        );
    }

    fn rds(host: &str, region: &str, change: impl FnOnce(&mut Database)) -> Database {
        let mut database = redshift("app", &[]);
        database.aws.redshift_cluster_id = None;
        database.aws.region = Some(region.parse().unwrap());
        database.uri = format!("{host}:5432").parse().unwrap();
        change(&mut database);
        database
    }

    fn instance(host: &str, region: &str) -> Result<(), EndpointError> {
        check_rds(&rds(host, region, |database| {
            database.aws.rds_instance_id = Some("App".to_owned());
        }))
    }

    fn cluster(host: &str, identity: &str) -> Result<(), EndpointError> {
        check_rds(&rds(host, "us-east-1", |database| {
            database.aws.rds_cluster_id = Some("app".to_owned());
            database.identity = format!("arn:aws:rds:us-east-1:1:cluster:app{identity}");
        }))
    }

    fn proxy(host: &str, identity: &str) -> Result<(), EndpointError> {
        check_rdsproxy(&rds(host, "us-east-1", |database| {
            database.aws.rdsproxy_name = Some("app".to_owned());
            database.identity = format!("arn:aws:rds:us-east-1:1:db-proxy:prx-1{identity}");
        }))
    }

    fn workgroup(host: &str, endpoint: Option<&str>) -> Result<(), EndpointError> {
        check_serverless(&rds(host, "us-east-1", |database| {
            database.aws.redshift_serverless_workgroup = Some("app".to_owned());
            database.aws.redshift_serverless_endpoint = endpoint.map(str::to_owned);
        }))
    }

    #[test]
    fn endpoints_of_every_kind_are_served() {
        for verdict in [
            instance("app.abc123.us-east-1.rds.amazonaws.com", "us-east-1"),
            instance("app.abc.rds.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            instance("app.abc.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
            cluster("app.cluster-abc.us-east-1.rds.amazonaws.com", ""),
            cluster("app.cluster-ro-abc.us-east-1.rds.amazonaws.com", "#reader"),
            cluster(
                "bi.cluster-custom-abc.us-east-1.rds.amazonaws.com",
                "#custom/BI",
            ),
            proxy("app.proxy-abc.us-east-1.rds.amazonaws.com", ""),
            proxy(
                "ro.endpoint.proxy-abc.us-east-1.rds.amazonaws.com",
                "#endpoint/ro",
            ),
            workgroup(
                "app.123456789012.us-east-1.redshift-serverless.amazonaws.com",
                None,
            ),
            workgroup(
                "in-endpoint-abc.123456789012.us-east-1.redshift-serverless.amazonaws.com",
                Some("in"),
            ),
        ] {
            assert_eq!(verdict, Ok(()));
        }
    }

    #[test]
    fn another_databases_endpoint_is_refused_for_every_kind() {
        for verdict in [
            instance("app2.abc.us-east-1.rds.amazonaws.com", "us-east-1"),
            instance("app.cluster-abc.us-east-1.rds.amazonaws.com", "us-east-1"),
            instance("app.us-east-1.rds.amazonaws.com", "us-east-1"),
            instance("x.app.abc.us-east-1.rds.amazonaws.com", "us-east-1"),
            cluster("app.abc.us-east-1.rds.amazonaws.com", ""),
            cluster("app.cluster-.us-east-1.rds.amazonaws.com", ""),
            cluster(
                "app.cluster-custom-abc.us-east-1.rds.amazonaws.com",
                "#custom/bi",
            ),
            proxy("app.abc.us-east-1.rds.amazonaws.com", ""),
            proxy("app.proxy-abc.us-east-1.rds.amazonaws.com", "#endpoint/ro"),
            proxy("app.endpoint.proxy-abc.us-east-1.rds.amazonaws.com", ""),
            workgroup(
                "app2.123456789012.us-east-1.redshift-serverless.amazonaws.com",
                None,
            ),
            workgroup(
                "app.x.123456789012.us-east-1.redshift-serverless.amazonaws.com",
                None,
            ),
            workgroup(
                "app.123456789012.us-east-1.redshift-serverless.amazonaws.com",
                Some("in"),
            ),
            workgroup(
                "in-endpoint-.123456789012.us-east-1.redshift-serverless.amazonaws.com",
                Some("in"),
            ),
        ] {
            assert!(
                matches!(verdict, Err(EndpointError::Another { .. })),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn a_strangers_host_is_refused_for_every_kind() {
        for verdict in [
            instance("app.abc.us-east-1.rds.amazonaws.com.evil.com", "us-east-1"),
            instance("app.abc.us-west-2.rds.amazonaws.com", "us-east-1"),
            instance("app.abc.us-east-1.rds.amazonaws.com", "cn-north-1"),
            cluster("app.cluster-abc.evil.com", ""),
            proxy("app.proxy-abc.us-east-1.rds.evil.com", ""),
            // A workgroup of somebody else's account.
            workgroup(
                "app.999999999999.us-east-1.redshift-serverless.amazonaws.com",
                None,
            ),
            workgroup("app.123456789012.us-east-1.redshift.amazonaws.com", None),
        ] {
            assert!(
                matches!(verdict, Err(EndpointError::Suffix { .. })),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn a_vpc_endpoint_of_a_cluster_is_the_one_in_its_identity() {
        let mut database = redshift("orders", &[]);
        database.identity =
            "arn:aws:redshift:us-east-1:111122223333:cluster:orders#vpc-endpoint/dev".to_owned();
        for (first, is_right) in [("dev-endpoint-0a1b2c", true), ("x-endpoint-0a1b2c", false)] {
            let host = format!("{first}.abc.us-east-1.redshift.amazonaws.com:5439");
            database.uri = host.parse().unwrap();
            let checked = check_redshift(&database);
            assert_eq!(checked.is_ok(), is_right, "{checked:?}");
        }
    }
}
