//! Worlds of any size from a seed number.

use std::collections::BTreeMap;

use super::{
    AccessKey, Cluster, ClusterId, DEFAULT_REGIONS, OPT_IN_REGIONS, Role, World, derived_hex,
};
use crate::iam::{IdentityPolicy, TrustPolicy};

/// The account of the one user that generated worlds have, `tidegate-worker`.
pub const GENERATED_HOME: &str = "999999999999";
/// Access key id of that user.
pub const GENERATED_KEY: &str = "AKIAGENERATED0000001";
/// Its secret; opens nothing but a simulation.
pub const GENERATED_SECRET: &str = "generated-worlds-have-one-secret";
/// The role in each generated account that lists databases and trusts that user alone.
pub const GENERATED_ROLE: &str = "tidegate-discovery";

/// What a discovery role may do.
const DISCOVERY_ACTIONS: [&str; 14] = [
    "account:ListRegions",
    "rds:DescribeDBClusters",
    "rds:DescribeDBInstances",
    "rds:DescribeDBProxies",
    "rds:DescribeDBProxyEndpoints",
    "rds:ListTagsForResource",
    "redshift-serverless:GetWorkgroup",
    "redshift-serverless:ListEndpointAccess",
    "redshift-serverless:ListTagsForResource",
    "redshift-serverless:ListWorkgroups",
    "redshift:DescribeClusters",
    "redshift:DescribeCustomDomainAssociations",
    "redshift:DescribeEndpointAccess",
    "tag:GetResources",
];
const ENVIRONMENTS: [&str; 4] = ["prod", "prod", "staging", "dev"];
const TEAMS: [&str; 8] = [
    "billing",
    "catalog",
    "finance",
    "growth",
    "logistics",
    "orders",
    "risk",
    "search",
];
/// Accounts that a generated world has at most.
const ACCOUNTS_MAX: usize = 100_000;

impl World {
    /// A world of `accounts` × `regions` × `clusters` listed clusters, always the same for the
    /// same numbers.
    ///
    /// The accounts are those of [`World::generated_account`], each with the first `regions` of
    /// AWS's (32 at most) and the role [`GENERATED_ROLE`], which the user of account
    /// [`GENERATED_HOME`] may assume. Clusters are tagged `env`, `team` and `index`; they are
    /// [`Cluster::unreachable`].
    pub fn generate(seed: u64, accounts: usize, regions: usize, clusters: usize) -> Self {
        let regions: Vec<&str> = DEFAULT_REGIONS
            .into_iter()
            .chain(OPT_IN_REGIONS)
            .take(regions)
            .collect();
        let mut world = Self::new();
        world.add_generated_home(&regions);
        let mut random = Random(seed);
        for n in 0..accounts.min(ACCOUNTS_MAX) {
            let id = Self::generated_account(n);
            world.add_generated_role(&id);
            for region in &regions {
                world.account(&id).enable_region(region);
                for index in 0..clusters {
                    let (name, cluster) = random.cluster(&id, region, index);
                    world.put_cluster(&ClusterId::new(&id, region, &name), cluster);
                }
            }
        }
        world
    }

    /// The id of the account numbered `n` (from 0) of a generated world.
    pub fn generated_account(n: usize) -> String {
        format!("{:012}", 100_000_000_000 + n)
    }

    fn add_generated_home(&mut self, regions: &[&str]) {
        let home = self.account(GENERATED_HOME);
        for region in regions {
            home.enable_region(region);
        }
        let key = AccessKey {
            id: GENERATED_KEY.to_owned(),
            secret: GENERATED_SECRET.to_owned(),
        };
        let role = format!("arn:aws:iam::*:role/{GENERATED_ROLE}");
        let assume = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"];
        let policy = IdentityPolicy::allow(assume, [role.as_str()]);
        home.put_user("tidegate-worker", key, vec![policy]);
    }

    fn add_generated_role(&mut self, account: &str) {
        let user = format!("arn:aws:iam::{GENERATED_HOME}:user/tidegate-worker");
        let policy = IdentityPolicy::allow(DISCOVERY_ACTIONS, ["*"]);
        let role = Role::new(TrustPolicy::allow([user.as_str()]), vec![policy]);
        self.account(account).put_role(GENERATED_ROLE, role);
    }
}

/// SplitMix64: small, and good enough to vary tags.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let n = usize::try_from(self.next() % of.len() as u64).expect("below a length");
        of[n]
    }

    fn cluster(&mut self, account: &str, region: &str, index: usize) -> (String, Cluster) {
        let team = self.pick(&TEAMS);
        let tags = [
            ("env", self.pick(&ENVIRONMENTS).to_owned()),
            ("index", index.to_string()),
            ("team", team.to_owned()),
        ];
        let tags: BTreeMap<_, _> = tags.map(|(k, v)| (k.to_owned(), v)).into();
        let cluster = Cluster {
            tags,
            vpc_id: derived_hex("vpc-", &format!("{account}/{region}")),
            version: format!("1.0.{}", 60_000 + self.next() % 100),
            unreachable: true,
            ..Cluster::default()
        };
        (format!("{team}-{index:05}"), cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_valid_world_of_the_size_asked_for() {
        let world = World::generate(7, 3, 2, 25);
        world.validate().unwrap();
        assert_eq!(world.cluster_ids().len(), 3 * 2 * 25);
        assert_eq!(world, World::generate(7, 3, 2, 25));
        assert_ne!(world, World::generate(8, 3, 2, 25));
    }
}
