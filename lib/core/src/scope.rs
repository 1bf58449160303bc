//! Scan scopes: the unit of scanning, failure and ownership.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AssumeRole, Region},
    matcher::{AwsMatcher, DatabaseKind},
    selector::Selector,
};

/// Names a scope: stable over restarts and equal on every worker with the same configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeId(pub String);

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One kind of database in one account and region, as one matcher asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanScope {
    /// The discovery group; empty when none is configured.
    pub group: String,
    /// What to look for.
    pub kind: DatabaseKind,
    /// Where.
    pub region: Region,
    /// The role to look with; `None` is the worker's own identity.
    pub assume_role: Option<AssumeRole>,
    /// Which of them.
    pub tags: Selector,
    /// Place of the matcher in the configuration: of two scopes that find one database, the lower owns it.
    pub order: u32,
}

impl ScanScope {
    /// The scope's name: everything that says what it scans, and not its order, so that adding a matcher above
    /// moves no ownership.
    #[must_use]
    pub fn id(&self) -> ScopeId {
        let role = self
            .assume_role
            .as_ref()
            .map_or("-", |role| role.role_arn.as_str());
        let external = self
            .assume_role
            .as_ref()
            .and_then(|role| role.external_id.as_ref())
            .map_or("-", |id| id.as_str());
        let tags: Vec<String> = self
            .tags
            .written()
            .iter()
            .map(|(key, values)| format!("{key:?}={values:?}"))
            .collect();
        ScopeId(format!(
            "{}|{}|{}|{role}|{external}|{}",
            self.group,
            self.kind.as_str(),
            self.region,
            tags.join(",")
        ))
    }

    /// Expands matchers into scopes in configuration order; a scope that two matchers name is kept once, the first.
    #[must_use]
    pub fn expand(group: &str, matchers: &[AwsMatcher]) -> Vec<Self> {
        let mut scopes: Vec<Self> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for matcher in matchers {
            for kind in &matcher.types {
                for region in &matcher.regions {
                    let scope = Self {
                        group: group.to_owned(),
                        kind: *kind,
                        region: region.clone(),
                        assume_role: matcher.assume_role.clone(),
                        tags: matcher.tags.clone(),
                        order: u32::try_from(scopes.len()).unwrap_or(u32::MAX),
                    };
                    if seen.insert(scope.id()) {
                        scopes.push(scope);
                    }
                }
            }
        }
        scopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_expand_to_one_scope_a_kind_and_region() {
        let matcher = AwsMatcher {
            types: vec![DatabaseKind::Redshift, DatabaseKind::Rds],
            regions: vec!["us-east-1".parse().unwrap(), "us-west-2".parse().unwrap()],
            tags: Selector::everything(),
            assume_role: None,
        };
        let scopes = ScanScope::expand("prod", &[matcher.clone(), matcher]);
        assert_eq!(scopes.len(), 4);
        assert_eq!(
            scopes.iter().map(|scope| scope.order).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
    }
}
