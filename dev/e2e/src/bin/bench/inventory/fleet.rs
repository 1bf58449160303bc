//! The databases that are loaded: made from their number alone, so that every run has the same ones.
//!
//! Each has 20 labels once it is listed: 16 that a worker would send, and four that the service adds. Two of them differ
//! from database to database, one is of some thousand values, the others of a few; so the index by label has the mixture
//! that tags of a large company have.

use std::collections::BTreeMap;

use anyhow::Result;
use tidegate_core::{AssumeRole, DatabaseKind, EndpointFilter, ScanScope, Selector};
use tidegate_proto::v1;

/// Databases of one scan scope.
pub(super) const SCOPE_DATABASES: usize = 1_000;
/// Labels that each database has when it is listed.
pub(super) const LABELS: usize = 20;
/// Values of the label [`TEAM`]: each is of one database in a hundred.
pub(super) const TEAMS: usize = 100;
/// The label that pages are asked for by, and whose values are counted.
pub(super) const TEAM: &str = "team";
/// The label that a predicate searches; it differs from database to database.
pub(super) const CONTACT: &str = "contact";
/// The label that tells watched databases apart.
pub(super) const SHARD: &str = "shard";
/// What all names begin with.
pub(super) const NAME_PREFIX: &str = "dw-";

const GROUP: &str = "bench";
const KIND: &str = "redshift";
const REGIONS: [&str; 10] = [
    "ap-northeast-1",
    "ap-south-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "us-east-1",
    "us-east-2",
    "us-west-2",
];
const ENVIRONMENTS: [&str; 4] = ["prod", "stage", "test", "dev"];
const VERSIONS: [&str; 5] = [
    "1.0.77467",
    "1.0.80021",
    "1.0.84305",
    "1.0.89621",
    "1.0.94081",
];

/// How many scopes so many databases take.
pub(super) const fn scopes(databases: usize) -> usize {
    databases.div_ceil(SCOPE_DATABASES)
}

/// The scope of this number.
pub(super) fn scope(number: usize) -> Result<v1::ScanScope> {
    let assume_role = AssumeRole {
        role_arn: role(number).parse()?,
        external_id: None,
    };
    let scope = ScanScope {
        group: GROUP.to_owned(),
        kind: DatabaseKind::Redshift,
        region: region(number).parse()?,
        assume_role: Some(assume_role),
        tags: Selector::everything(),
        endpoints: EndpointFilter::default(),
        config: None,
        order: u32::try_from(number)?,
    };
    Ok(v1::ScanScope::from(&scope))
}

/// What a scan of a scope finds, of so many databases in all.
pub(super) fn items(scope: usize, databases: usize) -> impl Iterator<Item = v1::ScanItem> {
    let first = scope * SCOPE_DATABASES;
    (first..databases.min(first + SCOPE_DATABASES)).map(item)
}

/// The value of [`CONTACT`] of a database: nobody else's, but for chance.
pub(super) fn contact(number: usize) -> String {
    format!("owner+{:08x}@example.com", mixed(number, 1) as u32)
}

/// The value of [`TEAM`] of this number.
pub(super) fn team(number: usize) -> String {
    format!("team-{number:02}")
}

/// A database that is written over the API, with as many labels; no other has its value of [`SHARD`].
pub(super) fn watched(number: usize) -> v1::Database {
    let mut labels = labels(number);
    labels.insert(SHARD.to_owned(), shard(number));
    // The service adds its origin.
    labels.extend(["tier", "owner"].map(|key| (key.to_owned(), "none".to_owned())));
    v1::Database {
        name: format!("watched-{number:05}"),
        labels,
        protocol: "postgres".to_owned(),
        uri: format!("watched-{number:05}.example.com:5432"),
        ..v1::Database::default()
    }
}

/// The value of [`SHARD`] of a watched database.
pub(super) fn shard(number: usize) -> String {
    format!("shard-{number:05}")
}

fn account(scope: usize) -> String {
    format!("{:012}", 100_000_000_000 + scope / REGIONS.len())
}

const fn region(scope: usize) -> &'static str {
    REGIONS[scope % REGIONS.len()]
}

fn role(scope: usize) -> String {
    format!("arn:aws:iam::{}:role/tidegate-discovery", account(scope))
}

/// The labels that a worker would send: generated ones, then tags.
fn labels(number: usize) -> BTreeMap<String, String> {
    let scope = number / SCOPE_DATABASES;
    let pick = |salt: u64, of: usize| (mixed(number, salt) % of as u64) as usize;
    let pairs = [
        ("account-id", account(scope)),
        ("region", region(scope).to_owned()),
        ("engine", KIND.to_owned()),
        ("engine-version", VERSIONS[pick(2, 5)].to_owned()),
        ("endpoint-type", "cluster".to_owned()),
        ("vpc-id", format!("vpc-{:017x}", 31 * scope + pick(3, 4))),
        ("namespace", format!("{:036x}", mixed(number, 4))),
        ("status", "available".to_owned()),
        ("env", ENVIRONMENTS[pick(5, 4)].to_owned()),
        (TEAM, team(pick(6, TEAMS))),
        (CONTACT, contact(number)),
        ("service", format!("warehouse-{:03}", pick(7, 500))),
        ("cost-center", format!("cc-{:04}", pick(8, 300))),
        (
            "data-class",
            ["public", "internal", "secret"][pick(9, 3)].to_owned(),
        ),
        (
            "managed-by",
            ["terraform", "cdk", "console"][pick(10, 3)].to_owned(),
        ),
        ("backup", format!("daily-{}", pick(11, 8))),
    ];
    let pairs = pairs.into_iter();
    pairs.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn item(number: usize) -> v1::ScanItem {
    let scope = number / SCOPE_DATABASES;
    let (account, region) = (account(scope), region(scope));
    let id = format!("{NAME_PREFIX}{number:07}");
    let host = format!(
        "{id}.c{:011x}.{region}.redshift.amazonaws.com",
        mixed(scope, 12) >> 20
    );
    let aws = v1::AwsMetadata {
        region: region.to_owned(),
        account_id: account.clone(),
        assume_role: Some(v1::AssumeRole {
            role_arn: role(scope),
            external_id: String::new(),
        }),
        redshift_cluster_id: id.clone(),
        ..v1::AwsMetadata::default()
    };
    let database = v1::Database {
        description: format!("Redshift cluster in {region}"),
        labels: labels(number),
        protocol: "postgres".to_owned(),
        uri: format!("{host}:5439"),
        aws: Some(aws),
        kind: KIND.to_owned(),
        identity: format!("arn:aws:redshift:{region}:{account}:cluster:{id}"),
        ..v1::Database::default()
    };
    let suffix = [KIND, region, &account];
    v1::ScanItem {
        database: Some(database),
        name_base: id,
        name_suffix: suffix.map(str::to_owned).to_vec(),
        ..v1::ScanItem::default()
    }
}

/// A number that looks like chance, and is always the same. This is SplitMix64.
const fn mixed(number: usize, salt: u64) -> u64 {
    let mut state = (number as u64)
        .wrapping_add(salt << 40)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels that the service adds: origin, cloud, type and group.
    const ADDED: usize = 4;

    #[test]
    fn a_database_has_the_labels_that_the_bench_speaks_of() {
        assert!((0..100).all(|number| labels(number).len() + ADDED == LABELS));
        assert_eq!(watched(7).labels.len() + 1, LABELS);
    }

    #[test]
    fn a_team_has_about_one_database_in_a_hundred() {
        let of_one = (0..100_000).filter(|number| labels(*number)[TEAM] == team(17));
        assert!((900..1_100).contains(&of_one.count()));
    }

    #[test]
    fn every_database_is_in_one_scope() {
        let databases = 2 * SCOPE_DATABASES + 1;
        let found: usize = (0..scopes(databases))
            .map(|scope| items(scope, databases).count())
            .sum();
        assert_eq!(found, databases);
    }
}
