//! What discovery looks for: kinds × regions × role × tags.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AssumeRole, InvalidId, Region},
    selector::Selector,
};

/// The discovery group of the workers that run beside agents with matchers of their own (`db_service.aws`).
///
/// Nobody else may have it: workers of one process and one group take each other's scopes away.
pub const DB_SERVICE_GROUP: &str = "db_service";

/// A kind of database in AWS, by the name that configuration uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseKind {
    /// RDS instances and Aurora clusters.
    Rds,
    /// RDS Proxy.
    Rdsproxy,
    /// Provisioned Redshift clusters.
    Redshift,
    /// Redshift Serverless workgroups.
    RedshiftServerless,
}

impl DatabaseKind {
    /// All kinds that a configuration may name.
    pub const ALL: [Self; 4] = [
        Self::Rds,
        Self::Rdsproxy,
        Self::Redshift,
        Self::RedshiftServerless,
    ];

    /// The name used in configuration, labels and names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rds => "rds",
            Self::Rdsproxy => "rdsproxy",
            Self::Redshift => "redshift",
            Self::RedshiftServerless => "redshift-serverless",
        }
    }
}

impl FromStr for DatabaseKind {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| InvalidId {
                what: "database type",
                value: text.to_owned(),
                expected: "`rds`, `rdsproxy`, `redshift` or `redshift-serverless`",
            })
    }
}

/// Where a matcher looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regions {
    /// Every region that the account has enabled (`regions: ["*"]`), as AWS lists them at scan time.
    Enabled,
    /// These; never empty.
    These(Vec<Region>),
}

/// Which endpoints of what was found become databases, by the value of their label `endpoint-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointFilter {
    /// Only these types; empty is all.
    pub include: Vec<String>,
    /// None of these types, whatever `include` says.
    pub exclude: Vec<String>,
}

impl EndpointFilter {
    /// Every endpoint type that a configuration may name.
    pub const TYPES: [&'static str; 10] = [
        "READ_ONLY",
        "READ_WRITE",
        "cluster",
        "custom",
        "instance",
        "primary",
        "proxy",
        "reader",
        "vpc-endpoint",
        "workgroup",
    ];

    /// Whether every endpoint is wanted.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether endpoints of this type become databases.
    #[must_use]
    pub fn admits(&self, endpoint_type: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == endpoint_type);
        (self.include.is_empty() || named(&self.include)) && !named(&self.exclude)
    }
}

/// One entry of `discovery_service.aws`, or of a `discovery_config` resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsMatcher {
    /// What to look for; never empty.
    pub types: Vec<DatabaseKind>,
    /// Where.
    pub regions: Regions,
    /// Which of them, over tags and generated labels.
    pub tags: Selector,
    /// Which of their endpoints.
    pub endpoints: EndpointFilter,
    /// The role to look with; databases found carry it on.
    pub assume_role: Option<AssumeRole>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excluded_endpoint_is_out_even_when_it_is_included() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let filter = EndpointFilter {
            include: names(&["primary", "reader"]),
            exclude: names(&["reader"]),
        };
        assert!(filter.admits("primary"));
        assert!(!filter.admits("reader"));
        assert!(!filter.admits("custom"));
        assert!(EndpointFilter::default().admits("custom"));
    }
}
