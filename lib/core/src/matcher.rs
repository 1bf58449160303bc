//! What discovery looks for: kinds × regions × role × tags.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AssumeRole, InvalidId, Region},
    selector::Selector,
};

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

/// One entry of `discovery_service.aws`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsMatcher {
    /// What to look for; never empty.
    pub types: Vec<DatabaseKind>,
    /// Where; never empty.
    pub regions: Vec<Region>,
    /// Which of them, over tags and generated labels.
    pub tags: Selector,
    /// The role to look with; databases found carry it on.
    pub assume_role: Option<AssumeRole>,
}
