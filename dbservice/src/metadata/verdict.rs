//! Whether AWS confirms the address of a database that discovery found. Pure.
//!
//! | verdict | when | the database |
//! |---|---|---|
//! | `Awaited` | the record is new or has changed, and AWS is being asked | waits, [`super::book::HOLD`] at most |
//! | `Unchecked` | AWS has not answered in that time, or cannot be reached | is served, if its address has AWS's form |
//! | `Confirmed` | AWS names this host and port | is served |
//! | `Denied` | the role may not ask | is served, if its address has AWS's form |
//! | `Absent` | AWS knows nothing of that name there | is served, if its address has AWS's form |
//! | `Contradicted` | AWS names it, at another host or port | is refused |
//!
//! `Absent` is no contradiction: lists lag behind, and a role may see another account than the database's. Credentials
//! for what is not there are not to be had either.

use std::collections::HashMap;

use tidegate_aws::describe::{Described, DescribedEndpoint};
use tidegate_core::{
    Database,
    endpoint::{self, EndpointName},
};

use crate::metrics::VerdictWord;

/// What is known of a database's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// AWS knows nothing of that name.
    Absent,
    /// AWS is being asked.
    Awaited,
    /// It is AWS's.
    Confirmed,
    /// AWS says this instead.
    Contradicted(String),
    /// AWS may not be asked.
    Denied,
    /// AWS was not asked, or did not answer.
    Unchecked,
}

impl Verdict {
    /// For counting.
    pub(crate) fn word(&self) -> VerdictWord {
        match self {
            Self::Absent => VerdictWord::Absent,
            Self::Awaited => VerdictWord::Awaited,
            Self::Confirmed => VerdictWord::Confirmed,
            Self::Contradicted(_) => VerdictWord::Contradicted,
            Self::Denied => VerdictWord::Denied,
            Self::Unchecked => VerdictWord::Unchecked,
        }
    }
}

/// What AWS lists, to be looked up by address: there may be thousands, and thousands of databases to look for.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    all: Vec<Described>,
    /// Places in `all`, by host in lower case.
    by_host: HashMap<String, usize>,
}

impl Listed {
    /// Adds what another page or call told.
    pub(crate) fn extend(&mut self, more: Vec<Described>) {
        for one in more {
            let place = self.all.len();
            let hosts = one.endpoints.iter();
            let hosts = hosts.map(|endpoint| (endpoint.host.to_ascii_lowercase(), place));
            self.by_host.extend(hosts);
            self.all.push(one);
        }
    }

    /// What listens where the record says.
    pub(crate) fn at(&self, database: &Database) -> Option<&Described> {
        let host = database.uri.host().to_ascii_lowercase();
        let one = self.all.get(*self.by_host.get(&host)?)?;
        listens_at(one, database).then_some(one)
    }

    /// What a database is that is reached by a name of somebody's own, such as a CNAME: what AWS has by the name that the
    /// record gives beside it. `None` where several could be meant.
    pub(crate) fn behind_alias(&self, database: &Database) -> Option<&Described> {
        if !matches!(endpoint::read(database.uri.host()), Ok(None)) {
            return None;
        }
        let mut named = self.all.iter().filter(|one| is_named(one, database));
        named.next().filter(|_| named.next().is_none())
    }
}

/// What a listing says of a database's address.
pub(crate) fn judge(database: &Database, listed: &Listed) -> Verdict {
    if listed.at(database).is_some() {
        return Verdict::Confirmed;
    }
    let all = listed.all.iter();
    let named: Vec<&Described> = all.filter(|one| is_named(one, database)).collect();
    let at: Vec<String> = named
        .iter()
        .flat_map(|one| &one.endpoints)
        .map(show)
        .collect();
    if at.is_empty() {
        // What is being made has no address yet.
        return Verdict::Absent;
    }
    Verdict::Contradicted(format!("AWS has it at {}", at.join(", ")))
}

/// Whether something listens where the record says.
fn listens_at(one: &Described, database: &Database) -> bool {
    let (host, port) = (database.uri.host(), database.uri.port());
    one.endpoints.iter().any(|endpoint| {
        endpoint.host.eq_ignore_ascii_case(host) && endpoint.port.is_none_or(|told| told == port)
    })
}

/// Whether something is what the record names.
fn is_named(one: &Described, database: &Database) -> bool {
    let aws = &database.aws;
    let same = |left: &Option<String>, right: &Option<String>| match (left, right) {
        (Some(left), Some(right)) => left.eq_ignore_ascii_case(right),
        _ => false,
    };
    let host = endpoint::read(database.uri.host()).ok().flatten();
    match host.map(|found| found.name) {
        Some(EndpointName::RedshiftEndpoint(name) | EndpointName::WorkgroupEndpoint(name)) => {
            one.name.eq_ignore_ascii_case(&name)
        }
        _ => {
            same(&one.aws.redshift_cluster_id, &aws.redshift_cluster_id)
                || (aws.redshift_serverless_endpoint.is_none()
                    && same(
                        &one.aws.redshift_serverless_workgroup,
                        &aws.redshift_serverless_workgroup,
                    ))
                || same(&one.aws.rds_instance_id, &aws.rds_instance_id)
                || (aws.rds_instance_id.is_none()
                    && one.aws.rds_instance_id.is_none()
                    && same(&one.aws.rds_cluster_id, &aws.rds_cluster_id))
                || same(&one.aws.rdsproxy_name, &aws.rdsproxy_name)
        }
    }
}

fn show(endpoint: &DescribedEndpoint) -> String {
    match endpoint.port {
        Some(port) => format!("{}:{port}", endpoint.host),
        None => endpoint.host.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tidegate_core::{AwsMetadata, DatabaseKind};

    use super::*;
    use crate::{metadata::place::tests::cluster, testing::redshift};

    const HOST: &str = "orders.abc.us-east-1.redshift.amazonaws.com";

    pub(crate) fn listed(all: impl IntoIterator<Item = Described>) -> Listed {
        let mut listed = Listed::default();
        listed.extend(all.into_iter().collect());
        listed
    }

    #[test]
    fn host_and_port_have_to_be_those_that_aws_names() {
        let database = redshift("orders", &[]);
        let judged = |host: &str, port| judge(&database, &listed([cluster("orders", host, port)]));
        assert_eq!(judged(HOST, 5439), Verdict::Confirmed);
        assert_eq!(judged(&HOST.to_uppercase(), 5439), Verdict::Confirmed);
        for (host, port) in [
            (HOST, 5440),
            ("orders.zzz.us-east-1.redshift.amazonaws.com", 5439),
        ] {
            let said = format!("AWS has it at {host}:{port}");
            assert_eq!(judged(host, port), Verdict::Contradicted(said));
        }
    }

    #[test]
    fn what_aws_does_not_list_is_absent_and_not_contradicted() {
        let database = redshift("orders", &[]);
        let other = cluster("users", "users.abc.us-east-1.redshift.amazonaws.com", 5439);
        assert_eq!(judge(&database, &listed([])), Verdict::Absent);
        assert_eq!(judge(&database, &listed([other])), Verdict::Absent);
        let mut creating = cluster("orders", HOST, 5439);
        creating.endpoints.clear();
        assert_eq!(judge(&database, &listed([creating])), Verdict::Absent);
    }

    #[test]
    fn a_member_of_a_cluster_is_not_the_cluster() {
        let member = Described {
            kind: DatabaseKind::Rds,
            aws: AwsMetadata {
                rds_instance_id: Some("member".to_owned()),
                rds_cluster_id: Some("c".to_owned()),
                ..AwsMetadata::default()
            },
            ..cluster("member", "member.abc.us-east-1.rds.amazonaws.com", 5432)
        };
        let mut database = redshift("orders", &[]);
        database.kind = Some(DatabaseKind::Rds);
        database.aws.redshift_cluster_id = None;
        database.aws.rds_cluster_id = Some("c".to_owned());
        database.uri = "c.cluster-abc.us-east-1.rds.amazonaws.com:5432"
            .parse()
            .unwrap();
        assert_eq!(judge(&database, &listed([member])), Verdict::Absent);
    }
}
