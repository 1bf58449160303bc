//! Whether a discovered database's address is one that AWS gives to such a database.
//!
//! Invariant: an inventory that somebody tampered with cannot aim an agent's credentials at a stranger's host. The
//! suffix is owned by Amazon, and the first label is the cluster that the credentials are asked for.
//!
//! Source: Amazon Redshift management guide, "Connection strings": `<cluster>.<id>.<region>.redshift.amazonaws.com`,
//! in China `….com.cn`.

use tidegate_core::{Database, Region};

/// Why an address is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EndpointError {
    /// The first label is another cluster's.
    #[error("address `{host}` does not start with its cluster `{cluster}`")]
    Cluster { host: String, cluster: String },

    /// The database does not say what to compare with.
    #[error("a discovered Redshift database must carry its {missing}")]
    Incomplete { missing: &'static str },

    /// Not a name that Amazon gives in that region.
    #[error("address `{host}` does not end in `{expected}`")]
    Suffix { host: String, expected: String },
}

/// Checks the address of a provisioned Redshift cluster against its own AWS facts.
pub(crate) fn check_redshift(database: &Database) -> Result<(), EndpointError> {
    let region = database
        .aws
        .region
        .as_ref()
        .ok_or(EndpointError::Incomplete { missing: "region" })?;
    let cluster = database
        .aws
        .redshift_cluster_id
        .as_deref()
        .filter(|cluster| !cluster.is_empty())
        .ok_or(EndpointError::Incomplete {
            missing: "cluster identifier",
        })?;
    let host = database.uri.host().to_ascii_lowercase();
    let expected = suffix(region);
    let Some(front) = host.strip_suffix(&expected) else {
        return Err(EndpointError::Suffix { host, expected });
    };
    match front.split_once('.') {
        Some((first, id))
            if first == cluster.to_ascii_lowercase() && !id.is_empty() && !id.contains('.') =>
        {
            Ok(())
        }
        _ => Err(EndpointError::Cluster {
            host,
            cluster: cluster.to_owned(),
        }),
    }
}

fn suffix(region: &Region) -> String {
    let country = if region.as_str().starts_with("cn-") {
        ".cn"
    } else {
        ""
    };
    format!(".{region}.redshift.amazonaws.com{country}")
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
                matches!(at(host, "us-east-1"), Err(EndpointError::Cluster { .. })),
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
}
