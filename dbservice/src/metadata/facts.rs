//! Completing a record with what AWS says. Pure.
//!
//! What somebody wrote stays: only what is missing is filled in. AWS tags become labels as discovery makes them: a
//! generated label, or one that the author wrote, keeps its key, and the tag goes below `aws/`.

use std::borrow::Cow;

use tidegate_aws::describe::Described;
use tidegate_core::{AccountId, AwsMetadata, Database, DatabaseKind, Origin, endpoint, labels};

/// Statuses in which nothing of any kind can be connected to.
///
/// Source: the tables of statuses in the user guides of Redshift and RDS.
const UNAVAILABLE: [&str; 6] = [
    "creating", "deleting", "paused", "starting", "stopped", "stopping",
];

/// What AWS says of one database that somebody wrote down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    account: Option<AccountId>,
    aws: AwsMetadata,
    labels: Vec<(&'static str, String)>,
    tags: Vec<(String, String)>,
    status: String,
    /// The endpoint's own name, where the record has another.
    own_name: Option<String>,
}

impl Known {
    /// Of what listens at the database's address; `tags` are those that its listing left out.
    pub(crate) fn new(
        database: &Database,
        described: &Described,
        tags: Option<Vec<(String, String)>>,
    ) -> Self {
        let (host, port) = (database.uri.host(), database.uri.port());
        let mut endpoints = described.endpoints.iter();
        let at = endpoints.find(|endpoint| endpoint.host.eq_ignore_ascii_case(host));
        let mut listening = described
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.port.is_none_or(|told| told == port));
        // Which of several an alias leads to nobody here can tell.
        let meant = listening.next().filter(|_| listening.next().is_none());
        let endpoint = at.or(meant);
        let own_name = meant.filter(|_| at.is_none()).map(|meant| &meant.host);
        let mut labels = described.labels.clone();
        labels.extend(endpoint.map(|at| (labels::ENDPOINT_TYPE, at.endpoint_type.to_owned())));
        Self {
            account: described.account.clone(),
            aws: described.aws.clone(),
            labels,
            tags: described.tags.clone().or(tags).unwrap_or_default(),
            status: described.status.clone(),
            own_name: own_name.map(|name| name.to_ascii_lowercase()),
        }
    }
}

/// A record with what its host name tells, and what AWS says of it where that is known. Records of discovery are whole.
pub(crate) fn completed<'d>(database: &'d Database, known: Option<&Known>) -> Cow<'d, Database> {
    if database.origin == Origin::Cloud {
        return Cow::Borrowed(database);
    }
    let by_name = endpoint::read(database.uri.host()).ok().flatten();
    if by_name.is_none() && known.is_none() {
        return Cow::Borrowed(database);
    }
    let mut whole = database.clone();
    if let Some(found) = by_name {
        let kind = *whole.kind.get_or_insert(found.kind);
        whole.aws.region.get_or_insert(found.region);
        if let Some(account) = found.account {
            whole.aws.account_id.get_or_insert(account);
        }
        if kind == found.kind {
            found.name.fill_in(&mut whole.aws);
        }
    }
    if let Some(known) = known {
        fill_in(&mut whole, known);
    }
    generate(&mut whole, known);
    Cow::Owned(whole)
}

fn fill_in(database: &mut Database, known: &Known) {
    let (aws, from) = (&mut database.aws, &known.aws);
    let texts = [
        (&mut aws.redshift_cluster_id, &from.redshift_cluster_id),
        (
            &mut aws.redshift_serverless_workgroup,
            &from.redshift_serverless_workgroup,
        ),
        (
            &mut aws.redshift_serverless_endpoint,
            &from.redshift_serverless_endpoint,
        ),
        (&mut aws.rds_instance_id, &from.rds_instance_id),
        (&mut aws.rds_cluster_id, &from.rds_cluster_id),
        (&mut aws.rds_resource_id, &from.rds_resource_id),
        (&mut aws.rdsproxy_name, &from.rdsproxy_name),
    ];
    for (field, told) in texts {
        if field.is_none() {
            field.clone_from(told);
        }
    }
    aws.rds_iam_auth = aws.rds_iam_auth.or(from.rds_iam_auth);
    if aws.account_id.is_none() {
        aws.account_id.clone_from(&known.account);
    }
    // The certificates of RDS carry its own names, and tokens are signed for them. Redshift has certificates for others too.
    let is_rds = matches!(
        database.kind,
        Some(DatabaseKind::Rds | DatabaseKind::Rdsproxy)
    );
    if is_rds && database.tls.server_name.is_none() {
        database.tls.server_name.clone_from(&known.own_name);
    }
    if database.unavailable.is_empty() && UNAVAILABLE.contains(&known.status.as_str()) {
        database.unavailable.clone_from(&known.status);
    }
}

/// Adds generated labels, and then tags.
fn generate(database: &mut Database, known: Option<&Known>) {
    let aws = &database.aws;
    let mut generated: Vec<(&str, String)> = Vec::new();
    generated.extend(database.kind.map(|_| (labels::CLOUD, "AWS".to_owned())));
    generated.extend(
        aws.account_id
            .as_ref()
            .map(|id| (labels::ACCOUNT_ID, id.to_string())),
    );
    generated.extend(
        aws.region
            .as_ref()
            .map(|region| (labels::REGION, region.to_string())),
    );
    if let Some(known) = known {
        generated.extend(known.labels.iter().cloned());
        if !known.status.is_empty() {
            generated.push(("status", known.status.clone()));
        }
    }
    for (key, value) in generated {
        if database.labels.get(key).is_none() {
            database.labels.insert(key, value);
        }
    }
    let tags = known.map(|known| known.tags.as_slice()).unwrap_or_default();
    let tags = tags
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let left_out = database.labels.add_tags(tags);
    if left_out > 0 {
        tracing::debug!(db.name = %database.name, left_out, "left out tags that cannot be labels");
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Labels;

    use super::*;
    use tidegate_aws::describe::DescribedEndpoint;

    use crate::{
        metadata::{place::tests::cluster, verdict::tests::listed},
        testing::redshift,
    };

    const HOST: &str = "orders.abc.us-east-1.redshift.amazonaws.com";

    /// As somebody writes it down who knows the address and no more.
    fn written(host: &str, labels: &[(&str, &str)]) -> Database {
        Database {
            origin: Origin::Config,
            uri: format!("{host}:5439").parse().unwrap(),
            aws: AwsMetadata::default(),
            kind: None,
            ..redshift("orders", labels)
        }
    }

    fn known(database: &Database, tags: &[(&str, &str)]) -> Known {
        let mut described = cluster("orders", HOST, 5439);
        described.labels = vec![("vpc-id", "vpc-1".to_owned())];
        described.tags = Some(
            tags.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        );
        Known::new(database, &described, None)
    }

    #[test]
    fn a_host_name_alone_tells_kind_region_and_name() {
        let database = written(HOST, &[]);
        let whole = completed(&database, None);
        assert_eq!(whole.kind, Some(DatabaseKind::Redshift));
        assert_eq!(whole.aws.redshift_cluster_id.as_deref(), Some("orders"));
        assert_eq!(whole.labels.get("region"), Some("us-east-1"));
        assert_eq!(whole.labels.get(labels::CLOUD), Some("AWS"));
        assert_eq!(whole.aws.account_id, None);
    }

    #[test]
    fn aws_tells_the_rest_and_its_tags_become_labels() {
        let database = written(HOST, &[("env", "prod")]);
        let tags = [
            ("team", "data"),
            ("env", "dev"),
            ("account-id", "1"),
            ("a b", "x"),
        ];
        let whole = completed(&database, Some(&known(&database, &tags))).into_owned();
        assert_eq!(whole.aws.account_id.unwrap().as_str(), "123456789012");
        let expected: Labels = [
            ("account-id", "123456789012"),
            ("aws/account-id", "1"),
            ("aws/env", "dev"),
            ("endpoint-type", "cluster"),
            ("env", "prod"),
            ("region", "us-east-1"),
            ("status", "available"),
            ("team", "data"),
            (labels::CLOUD, "AWS"),
            ("vpc-id", "vpc-1"),
        ]
        .into_iter()
        .collect();
        assert_eq!(whole.labels, expected);
    }

    /// An RDS database that is reached by a name of its author's own.
    fn behind_an_alias() -> Database {
        let mut database = written("db.corp.example", &[]);
        database.kind = Some(DatabaseKind::Rds);
        database.aws.region = Some("us-east-1".parse().unwrap());
        database.aws.rds_instance_id = Some("app".to_owned());
        database
    }

    fn instance(hosts: &[(&str, u16)]) -> Described {
        let mut described = cluster("app", HOST, 5439);
        described.kind = DatabaseKind::Rds;
        described.aws = AwsMetadata {
            rds_instance_id: Some("app".to_owned()),
            ..AwsMetadata::default()
        };
        let endpoint = described.endpoints.remove(0);
        let at = |(host, port): &(&str, u16)| DescribedEndpoint {
            host: (*host).to_owned(),
            port: Some(*port),
            ..endpoint.clone()
        };
        described.endpoints = hosts.iter().map(at).collect();
        described
    }

    fn server_name(database: &Database, described: Described) -> Option<String> {
        let listed = listed([described]);
        let found = listed.behind_alias(database)?;
        let known = Known::new(database, found, None);
        let whole = completed(database, Some(&known)).into_owned();
        whole.tls.server_name
    }

    #[test]
    fn behind_an_alias_rds_is_known_by_its_own_name_when_only_one_can_be_meant() {
        const OWN: &str = "App.abc.us-east-1.rds.amazonaws.com";
        let database = behind_an_alias();
        let named = |hosts: &[(&str, u16)]| server_name(&database, instance(hosts));
        let own = Some(OWN.to_lowercase());
        assert_eq!(named(&[(OWN, 5439)]), own);
        assert_eq!(named(&[(OWN, 5439), ("other", 1)]), own);
        assert_eq!(named(&[(OWN, 5439), ("other", 5439)]), None);
        assert_eq!(named(&[(OWN, 5440)]), None);
        let mut renamed = behind_an_alias();
        renamed.aws.rds_instance_id = Some("another".to_owned());
        assert_eq!(server_name(&renamed, instance(&[(OWN, 5439)])), None);
        let mut written = behind_an_alias();
        written.tls.server_name = Some("mine".to_owned());
        let found = server_name(&written, instance(&[(OWN, 5439)]));
        assert_eq!(found.as_deref(), Some("mine"));
        let mut redshift = behind_an_alias();
        redshift.kind = Some(DatabaseKind::Redshift);
        assert_eq!(server_name(&redshift, instance(&[(OWN, 5439)])), None);
    }

    #[test]
    fn a_name_of_aws_s_own_is_no_alias() {
        let mut database = behind_an_alias();
        database.uri = "old.abc.us-east-1.rds.amazonaws.com:5439".parse().unwrap();
        let described = instance(&[("app.abc.us-east-1.rds.amazonaws.com", 5439)]);
        assert_eq!(server_name(&database, described), None);
    }

    #[test]
    fn what_somebody_wrote_stays() {
        let mut database = written(HOST, &[("vpc-id", "mine")]);
        database.aws.account_id = Some("999988887777".parse().unwrap());
        database.aws.rds_iam_auth = Some(false);
        let whole = completed(&database, Some(&known(&database, &[]))).into_owned();
        assert_eq!(whole.aws.account_id.unwrap().as_str(), "999988887777");
        assert_eq!(whole.labels.get("vpc-id"), Some("mine"));
        assert_eq!(whole.labels.get("account-id"), Some("999988887777"));
        assert_eq!(whole.aws.rds_iam_auth, Some(false));
    }

    #[test]
    fn a_paused_database_says_so_and_a_resumed_one_says_nothing() {
        let database = written(HOST, &[]);
        let mut known = known(&database, &[]);
        known.status = "paused".to_owned();
        assert_eq!(completed(&database, Some(&known)).unavailable, "paused");
        known.status = "available".to_owned();
        assert_eq!(completed(&database, Some(&known)).unavailable, "");
    }

    #[test]
    fn what_discovery_found_and_what_is_not_in_aws_stay_as_they_are() {
        let found = redshift("orders", &[]);
        assert!(matches!(
            completed(&found, Some(&known(&found, &[("team", "data")]))),
            Cow::Borrowed(_)
        ));
        let own = written("db.example.com", &[]);
        assert!(matches!(completed(&own, None), Cow::Borrowed(_)));
    }
}
