//! Whether a discovered database's address is one that AWS gives to such a database.
//!
//! Invariant: an inventory that somebody tampered with cannot aim an agent's credentials at a stranger's host. The
//! domain is owned by Amazon, and the name in it is that of the database which the credentials are asked for.
//!
//! Not here: what endpoints look like ([`tidegate_core::endpoint`]), and what AWS says of this one when it may be
//! asked ([`crate::metadata`]).

use tidegate_core::{
    Database, DatabaseKind,
    endpoint::{self, AwsEndpoint, EndpointName},
};

/// Why an address is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EndpointError {
    /// AWS says something else.
    #[error("address `{host}` is not the database's: {said}")]
    Contradicted {
        /// The address.
        host: String,
        /// What AWS says.
        said: String,
    },

    /// The database does not say what to compare with.
    #[error("a discovered database must carry its {missing}")]
    Incomplete {
        /// What is not there.
        missing: &'static str,
    },

    /// The name in it is another's.
    #[error("address `{host}` is not that of {what} `{name}`")]
    Name {
        /// The address.
        host: String,
        /// What it should name.
        what: &'static str,
        /// What that is called.
        name: String,
    },

    /// Not a name that Amazon gives in that region.
    #[error("address `{host}` is not one of {kind} in {region}")]
    Suffix {
        /// The address.
        host: String,
        /// What the database is said to be.
        kind: &'static str,
        /// Where.
        region: String,
    },
}

/// Checks the address of a discovered database against its own AWS facts.
pub(crate) fn check(database: &Database, kind: DatabaseKind) -> Result<(), EndpointError> {
    let region = database.aws.region.as_ref();
    let region = region.ok_or(EndpointError::Incomplete { missing: "region" })?;
    let host = database.uri.host();
    let found = endpoint::read(host).ok().flatten();
    let found = found.filter(|found| found.kind == kind && found.region == *region);
    let Some(found) = found else {
        return Err(EndpointError::Suffix {
            host: host.to_owned(),
            kind: kind.as_str(),
            region: region.to_string(),
        });
    };
    check_account(database, &found)?;
    check_name(database, &found)
}

fn check_account(database: &Database, found: &AwsEndpoint) -> Result<(), EndpointError> {
    let (Some(told), Some(account)) = (&found.account, &database.aws.account_id) else {
        return Ok(());
    };
    if told == account {
        return Ok(());
    }
    Err(EndpointError::Name {
        host: database.uri.host().to_owned(),
        what: "account",
        name: account.to_string(),
    })
}

fn check_name(database: &Database, found: &AwsEndpoint) -> Result<(), EndpointError> {
    let aws = &database.aws;
    let (what, known, told) = match &found.name {
        EndpointName::RdsCluster(told) => ("cluster", aws.rds_cluster_id.as_deref(), Some(told)),
        EndpointName::RdsInstance(told) => ("instance", aws.rds_instance_id.as_deref(), Some(told)),
        EndpointName::RdsProxy(told) => ("proxy", aws.rdsproxy_name.as_deref(), Some(told)),
        EndpointName::RedshiftCluster(told) => {
            ("cluster", aws.redshift_cluster_id.as_deref(), Some(told))
        }
        EndpointName::RedshiftEndpoint(told) => {
            ("VPC endpoint", vpc_endpoint(database), Some(told))
        }
        // Its own name is in the host, its cluster's or proxy's is what credentials are asked for.
        EndpointName::Untold if found.kind == DatabaseKind::Rds => {
            ("cluster", aws.rds_cluster_id.as_deref(), None)
        }
        EndpointName::Untold => ("proxy", aws.rdsproxy_name.as_deref(), None),
        EndpointName::Workgroup(told) => (
            "workgroup",
            aws.redshift_serverless_workgroup.as_deref(),
            Some(told),
        ),
        EndpointName::WorkgroupEndpoint(told) => (
            "VPC endpoint",
            aws.redshift_serverless_endpoint.as_deref(),
            Some(told),
        ),
    };
    let known = known.filter(|known| !known.is_empty());
    let known = known.ok_or(EndpointError::Incomplete { missing: what })?;
    match told {
        Some(told) if !told.eq_ignore_ascii_case(known) => Err(EndpointError::Name {
            host: database.uri.host().to_owned(),
            what,
            name: known.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The name of a Redshift cluster's VPC endpoint, which stands in the database's identity alone.
pub(crate) fn vpc_endpoint(database: &Database) -> Option<&str> {
    let (_, endpoint) = database.identity.split_once('#')?;
    endpoint.strip_prefix("vpc-endpoint/")
}

#[cfg(test)]
mod tests {
    use tidegate_core::AwsMetadata;

    use super::*;
    use crate::testing::redshift;

    fn at(host: &str, region: &str) -> Result<(), EndpointError> {
        let mut database = redshift("orders", &[]);
        database.aws.redshift_cluster_id = Some("orders".to_owned());
        database.aws.region = Some(region.parse().unwrap());
        database.uri = format!("{host}:5439").parse().unwrap();
        check(&database, DatabaseKind::Redshift)
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
            ("orders.us-east-1.redshift.amazonaws.com", "us-east-1"),
            ("orders.a.b.us-east-1.redshift.amazonaws.com", "us-east-1"),
            ("orders.abc.us-east-1.rds.amazonaws.com", "us-east-1"),
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
        ] {
            assert!(
                matches!(at(host, "us-east-1"), Err(EndpointError::Name { .. })),
                "{host}"
            );
        }
    }

    #[test]
    fn without_facts_to_compare_with_nothing_is_served() {
        let mut database = redshift("orders", &[]);
        database.aws.region = None;
        assert_eq!(
            check(&database, DatabaseKind::Redshift),
            Err(EndpointError::Incomplete { missing: "region" })
        );
        let mut database = redshift("orders", &[]);
        database.aws.redshift_cluster_id = None;
        assert_eq!(
            check(&database, DatabaseKind::Redshift),
            Err(EndpointError::Incomplete { missing: "cluster" })
        );
    }

    #[test]
    fn every_kind_is_held_to_the_name_that_its_credentials_are_asked_for() {
        use DatabaseKind::{Rds, Rdsproxy, RedshiftServerless};
        let some = |name: &str| Some(name.to_owned());
        let instance = AwsMetadata {
            rds_instance_id: some("x"),
            ..AwsMetadata::default()
        };
        let cluster = AwsMetadata {
            rds_cluster_id: some("x"),
            ..AwsMetadata::default()
        };
        let proxy = AwsMetadata {
            rdsproxy_name: some("x"),
            ..AwsMetadata::default()
        };
        let workgroup = AwsMetadata {
            redshift_serverless_workgroup: some("x"),
            account_id: Some("111122223333".parse().unwrap()),
            ..AwsMetadata::default()
        };
        let endpoint = AwsMetadata {
            redshift_serverless_endpoint: some("e"),
            ..workgroup.clone()
        };
        for (kind, aws, host, is_right) in [
            (Rds, &instance, "x.abc.us-east-1.rds.amazonaws.com", true),
            (Rds, &instance, "y.abc.us-east-1.rds.amazonaws.com", false),
            (Rds, &instance, "x.cluster-abc.us-east-1.rds.amazonaws.com", false),
            (Rds, &cluster, "x.cluster-abc.us-east-1.rds.amazonaws.com", true),
            (Rds, &cluster, "x.cluster-ro-abc.us-east-1.rds.amazonaws.com", true),
            (Rds, &cluster, "z.cluster-custom-abc.us-east-1.rds.amazonaws.com", true),
            (Rds, &instance, "z.cluster-custom-abc.us-east-1.rds.amazonaws.com", false),
            (Rds, &proxy, "x.proxy-abc.us-east-1.rds.amazonaws.com", false),
            (Rdsproxy, &proxy, "x.proxy-abc.us-east-1.rds.amazonaws.com", true),
            (Rdsproxy, &proxy, "z.endpoint.proxy-abc.us-east-1.rds.amazonaws.com", true),
            (Rdsproxy, &proxy, "y.proxy-abc.us-east-1.rds.amazonaws.com", false),
            (
                RedshiftServerless,
                &workgroup,
                "x.111122223333.us-east-1.redshift-serverless.amazonaws.com",
                true,
            ),
            (
                RedshiftServerless,
                &workgroup,
                "x.999922223333.us-east-1.redshift-serverless.amazonaws.com",
                false,
            ),
            (
                RedshiftServerless,
                &endpoint,
                "e-endpoint-0a1b2c3d.111122223333.us-east-1.redshift-serverless.amazonaws.com",
                true,
            ),
            (
                RedshiftServerless,
                &workgroup,
                "e-endpoint-0a1b2c3d.111122223333.us-east-1.redshift-serverless.amazonaws.com",
                false,
            ),
        ] {
            let mut database = redshift("x", &[]);
            database.aws = AwsMetadata {
                region: Some("us-east-1".parse().unwrap()),
                ..aws.clone()
            };
            database.uri = format!("{host}:5432").parse().unwrap();
            let checked = check(&database, kind);
            assert_eq!(checked.is_ok(), is_right, "{host}: {checked:?}");
        }
    }

    #[test]
    fn a_vpc_endpoint_of_a_cluster_is_the_one_in_its_identity() {
        let mut database = redshift("orders", &[]);
        database.identity =
            "arn:aws:redshift:us-east-1:111122223333:cluster:orders#vpc-endpoint/dev".to_owned();
        for (host, is_right) in [("dev-endpoint-0a1b2c3d", true), ("x-endpoint-0a1b2c3d", false)] {
            database.uri = format!("{host}.abc.us-east-1.redshift.amazonaws.com:5439")
                .parse()
                .unwrap();
            let checked = check(&database, DatabaseKind::Redshift);
            assert_eq!(checked.is_ok(), is_right, "{checked:?}");
        }
    }
}
