//! What is asked together: a place, and the lists to read there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_aws::describe::Listing;
use tidegate_core::{
    AssumeRole, Database, DatabaseKind, Region,
    endpoint::{self, EndpointName},
};

/// Databases of one listing that are asked for by name; where there are more of them all are listed.
const NAMED_MAX: usize = 2;

/// What one role may list in one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) kind: DatabaseKind,
    pub(crate) region: Region,
    /// `None` is the agent's own identity.
    pub(crate) role: Option<AssumeRole>,
}

impl Place {
    /// Where a database is asked about; `None` when it is not known to be in AWS.
    pub(crate) fn of(database: &Database, role: Option<&AssumeRole>) -> Option<Self> {
        question(database)?;
        Some(Self {
            kind: database.kind?,
            region: database.aws.region.clone()?,
            role: role.cloned(),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {} as ", self.kind.as_str(), self.region)?;
        match &self.role {
            Some(role) => write!(f, "{}", role.role_arn),
            None => f.write_str("the agent itself"),
        }
    }
}

/// One list to read, of all or of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Question {
    pub(crate) listing: Listing,
    pub(crate) name: Option<String>,
}

/// The lists to read for these databases, each once.
pub(crate) fn questions<'d>(databases: impl Iterator<Item = &'d Database>) -> Vec<Question> {
    let mut names: BTreeMap<Listing, BTreeSet<String>> = BTreeMap::new();
    for (listing, name) in databases.filter_map(question) {
        names.entry(listing).or_default().insert(name);
    }
    names
        .into_iter()
        .flat_map(|(listing, names)| {
            // Asking for one VPC endpoint would be one more permission than discovery needs.
            let all = names.len() > NAMED_MAX || listing == Listing::ServerlessEndpoints;
            let named = names.into_iter().map(Some);
            let names: Vec<_> = if all { vec![None] } else { named.collect() };
            names
                .into_iter()
                .map(move |name| Question { listing, name })
        })
        .collect()
}

/// The list that a database is in, and its name there; `None` when its record does not tell.
pub(crate) fn question(database: &Database) -> Option<(Listing, String)> {
    let aws = &database.aws;
    let host = database.uri.host();
    let told = endpoint::read(host).ok().flatten().map(|found| found.name);
    let named = |listing, name: Option<&String>| name.map(|name| (listing, name.clone()));
    match (database.kind?, told) {
        (DatabaseKind::Redshift, Some(EndpointName::RedshiftEndpoint(name))) => {
            Some((Listing::RedshiftEndpoints, name))
        }
        (DatabaseKind::Redshift, _) => {
            named(Listing::RedshiftClusters, aws.redshift_cluster_id.as_ref())
        }
        (DatabaseKind::RedshiftServerless, Some(EndpointName::WorkgroupEndpoint(name))) => {
            Some((Listing::ServerlessEndpoints, name))
        }
        (DatabaseKind::RedshiftServerless, _) => named(
            Listing::ServerlessWorkgroups,
            aws.redshift_serverless_workgroup.as_ref(),
        ),
        (DatabaseKind::Rds, Some(EndpointName::RdsCluster(_) | EndpointName::Untold)) => {
            named(Listing::RdsClusters, aws.rds_cluster_id.as_ref())
        }
        (DatabaseKind::Rds, _) => named(Listing::RdsInstances, aws.rds_instance_id.as_ref())
            .or_else(|| named(Listing::RdsClusters, aws.rds_cluster_id.as_ref())),
        (DatabaseKind::Rdsproxy, Some(EndpointName::Untold)) => {
            let name = host.split('.').next()?.to_owned();
            Some((Listing::RdsProxyEndpoints, name))
        }
        (DatabaseKind::Rdsproxy, _) => named(Listing::RdsProxies, aws.rdsproxy_name.as_ref()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tidegate_aws::describe::{Described, DescribedEndpoint};
    use tidegate_core::AwsMetadata;

    use super::*;
    use crate::testing::{redshift, role};

    /// A cluster as AWS describes it.
    pub(crate) fn cluster(name: &str, host: &str, port: u16) -> Described {
        Described {
            kind: DatabaseKind::Redshift,
            name: name.to_owned(),
            arn: None,
            account: Some("123456789012".parse().unwrap()),
            endpoints: vec![DescribedEndpoint {
                host: host.to_owned(),
                port: Some(port),
                endpoint_type: "cluster",
            }],
            aws: AwsMetadata {
                redshift_cluster_id: Some(name.to_owned()),
                ..AwsMetadata::default()
            },
            labels: Vec::new(),
            tags: Some(Vec::new()),
            status: "available".to_owned(),
        }
    }

    #[test]
    fn a_place_is_a_kind_a_region_and_a_role() {
        let (orders, users) = (redshift("orders", &[]), redshift("users", &[]));
        let other = role("other");
        assert_eq!(Place::of(&orders, None), Place::of(&users, None));
        assert_ne!(Place::of(&orders, None), Place::of(&orders, Some(&other)));
        let mut elsewhere = redshift("orders", &[]);
        elsewhere.kind = None;
        assert_eq!(Place::of(&elsewhere, None), None);
    }

    #[test]
    fn few_are_asked_for_by_name_and_many_are_one_list() {
        let names = |count: usize| {
            let all: Vec<_> = (0..count)
                .map(|number| redshift(&format!("c{number}"), &[]))
                .collect();
            questions(all.iter())
        };
        let named = |name: &str| Question {
            listing: Listing::RedshiftClusters,
            name: Some(name.to_owned()),
        };
        assert_eq!(names(2), [named("c0"), named("c1")]);
        let all = Question {
            listing: Listing::RedshiftClusters,
            name: None,
        };
        assert_eq!(names(5000), [all]);
    }

    #[test]
    fn each_form_of_address_is_looked_for_in_the_list_that_has_it() {
        use DatabaseKind::{Rds, Rdsproxy, Redshift, RedshiftServerless};
        for (kind, host, listing, name) in [
            (
                Redshift,
                "orders.abc.us-east-1.redshift",
                Listing::RedshiftClusters,
                "id",
            ),
            (
                Redshift,
                "e-endpoint-0a1b2c3d.abc.us-east-1.redshift",
                Listing::RedshiftEndpoints,
                "e",
            ),
            (
                RedshiftServerless,
                "w.111122223333.us-east-1.redshift-serverless",
                Listing::ServerlessWorkgroups,
                "id",
            ),
            (
                RedshiftServerless,
                "e-endpoint-0a1b2c3d.111122223333.us-east-1.redshift-serverless",
                Listing::ServerlessEndpoints,
                "e",
            ),
            (Rds, "i.abc.us-east-1.rds", Listing::RdsInstances, "id"),
            (
                Rds,
                "c.cluster-ro-abc.us-east-1.rds",
                Listing::RdsClusters,
                "id",
            ),
            (
                Rds,
                "x.cluster-custom-abc.us-east-1.rds",
                Listing::RdsClusters,
                "id",
            ),
            (
                Rdsproxy,
                "p.proxy-abc.us-east-1.rds",
                Listing::RdsProxies,
                "id",
            ),
            (
                Rdsproxy,
                "x.endpoint.proxy-abc.us-east-1.rds",
                Listing::RdsProxyEndpoints,
                "x",
            ),
        ] {
            let id = Some("id".to_owned());
            let mut database = redshift("orders", &[]);
            database.kind = Some(kind);
            database.uri = format!("{host}.amazonaws.com:1").parse().unwrap();
            database.aws = AwsMetadata {
                redshift_cluster_id: id.clone(),
                redshift_serverless_workgroup: id.clone(),
                rds_instance_id: id.clone(),
                rds_cluster_id: id.clone(),
                rdsproxy_name: id,
                ..AwsMetadata::default()
            };
            let asked = question(&database);
            assert_eq!(asked, Some((listing, name.to_owned())), "{host}");
        }
    }
}
