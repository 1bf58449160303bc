//! Scan scopes: the unit of scanning, failure and ownership.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AssumeRole, Region},
    matcher::{AwsMatcher, DatabaseKind, EndpointFilter, Regions},
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
    /// Which of their endpoints.
    pub endpoints: EndpointFilter,
    /// The `discovery_config` resource that asks for it; `None` is a configuration file.
    pub config: Option<String>,
    /// Place of the matcher in the configuration: of two scopes that find one database, the lower owns it.
    pub order: u32,
}

impl ScanScope {
    /// The scope's name: everything that says what it scans, and not its order, so that adding a matcher above
    /// moves no ownership. What is at its default adds nothing to the name.
    #[must_use]
    pub fn id(&self) -> ScopeId {
        use std::fmt::Write;
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
        let mut id = format!(
            "{}|{}|{}|{role}|{external}|{}",
            self.group,
            self.kind.as_str(),
            self.region,
            tags.join(",")
        );
        if !self.endpoints.is_everything() {
            // Writing to a String cannot fail.
            let _ = write!(
                id,
                "|endpoints +{:?} -{:?}",
                self.endpoints.include, self.endpoints.exclude
            );
        }
        if let Some(config) = &self.config {
            let _ = write!(id, "|config {config}");
        }
        ScopeId(id)
    }

    /// Expands matchers into scopes in configuration order; a scope that two matchers name is kept once, the first.
    ///
    /// `enabled` gives the regions of a matcher that asks for all that its account has enabled; while they are not
    /// known it gives none, and such a matcher no scopes. `config` names the resource that holds the matchers.
    #[must_use]
    pub fn expand(
        group: &str,
        config: Option<&str>,
        matchers: &[AwsMatcher],
        enabled: impl Fn(&AwsMatcher) -> Vec<Region>,
    ) -> Vec<Self> {
        let mut scopes: Vec<Self> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for matcher in matchers {
            let regions = match &matcher.regions {
                Regions::These(regions) => regions.clone(),
                Regions::Enabled => enabled(matcher),
            };
            for kind in &matcher.types {
                for region in &regions {
                    let scope = Self {
                        group: group.to_owned(),
                        kind: *kind,
                        region: region.clone(),
                        assume_role: matcher.assume_role.clone(),
                        tags: matcher.tags.clone(),
                        endpoints: matcher.endpoints.clone(),
                        config: config.map(str::to_owned),
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

    fn matcher(regions: Regions) -> AwsMatcher {
        AwsMatcher {
            types: vec![DatabaseKind::Redshift, DatabaseKind::Rds],
            regions,
            tags: Selector::everything(),
            endpoints: EndpointFilter::default(),
            assume_role: None,
        }
    }

    fn regions(names: &[&str]) -> Vec<Region> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn matchers_expand_to_one_scope_a_kind_and_region() {
        let matcher = matcher(Regions::These(regions(&["us-east-1", "us-west-2"])));
        let scopes = ScanScope::expand("prod", None, &[matcher.clone(), matcher], |_| Vec::new());
        assert_eq!(scopes.len(), 4);
        assert_eq!(
            scopes.iter().map(|scope| scope.order).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn all_enabled_regions_are_those_that_aws_lists() {
        let scopes = ScanScope::expand("prod", None, &[matcher(Regions::Enabled)], |_| {
            regions(&["eu-west-1"])
        });
        assert_eq!(scopes.len(), 2);
        assert!(
            scopes
                .iter()
                .all(|scope| scope.region.as_str() == "eu-west-1")
        );
    }

    #[test]
    fn a_scope_of_a_resource_is_another_than_that_of_a_file() {
        let matcher = matcher(Regions::These(regions(&["us-east-1"])));
        let of_file =
            ScanScope::expand("prod", None, std::slice::from_ref(&matcher), |_| Vec::new());
        let of_resource = ScanScope::expand("prod", Some("team"), &[matcher], |_| Vec::new());
        assert_ne!(of_file[0].id(), of_resource[0].id());
    }
}
