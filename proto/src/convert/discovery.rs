//! What discovery looks for: matchers and scan scopes.

use tidegate_core::{AwsMatcher, EndpointFilter, Regions, ScanScope, Selector};

use super::{Invalid, assume_role, parse, some};
use crate::v1;

impl From<EndpointFilter> for v1::EndpointFilter {
    fn from(filter: EndpointFilter) -> Self {
        Self {
            include: filter.include,
            exclude: filter.exclude,
        }
    }
}

impl From<v1::EndpointFilter> for EndpointFilter {
    fn from(filter: v1::EndpointFilter) -> Self {
        Self {
            include: filter.include,
            exclude: filter.exclude,
        }
    }
}

impl From<AwsMatcher> for v1::AwsMatcher {
    fn from(matcher: AwsMatcher) -> Self {
        let regions = match matcher.regions {
            Regions::Enabled => vec!["*".to_owned()],
            Regions::These(regions) => regions.into_iter().map(Into::into).collect(),
        };
        Self {
            types: matcher
                .types
                .iter()
                .map(|kind| kind.as_str().to_owned())
                .collect(),
            regions,
            tags: Some(matcher.tags.into()),
            assume_role: matcher.assume_role.map(Into::into),
            endpoints: (!matcher.endpoints.is_everything()).then(|| matcher.endpoints.into()),
        }
    }
}

impl TryFrom<v1::AwsMatcher> for AwsMatcher {
    type Error = Invalid;

    fn try_from(matcher: v1::AwsMatcher) -> Result<Self, Invalid> {
        if matcher.types.is_empty() || matcher.regions.is_empty() {
            let field = if matcher.types.is_empty() {
                "types"
            } else {
                "regions"
            };
            return Err(Invalid::new(field, "must name at least one"));
        }
        let regions = if matcher.regions == ["*"] {
            Regions::Enabled
        } else {
            Regions::These(
                matcher
                    .regions
                    .iter()
                    .map(|region| parse("regions", region))
                    .collect::<Result<_, _>>()?,
            )
        };
        let endpoints = EndpointFilter::from(matcher.endpoints.unwrap_or_default());
        let unknown = endpoints
            .include
            .iter()
            .chain(&endpoints.exclude)
            .find(|name| !EndpointFilter::TYPES.contains(&name.as_str()));
        if let Some(name) = unknown {
            return Err(Invalid::new(
                "endpoints",
                format!("`{name}` is no endpoint type"),
            ));
        }
        let tags = match matcher.tags {
            Some(tags) => tags
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("tags"))?,
            None => Selector::everything(),
        };
        Ok(Self {
            types: matcher
                .types
                .iter()
                .map(|kind| parse("types", kind))
                .collect::<Result<_, _>>()?,
            regions,
            tags,
            endpoints,
            assume_role: assume_role("assume_role", matcher.assume_role)?,
        })
    }
}

impl From<&ScanScope> for v1::ScanScope {
    fn from(scope: &ScanScope) -> Self {
        Self {
            id: scope.id().0,
            group: scope.group.clone(),
            kind: scope.kind.as_str().to_owned(),
            region: scope.region.to_string(),
            assume_role: scope.assume_role.clone().map(Into::into),
            tags: Some(scope.tags.clone().into()),
            order: scope.order,
            endpoints: (!scope.endpoints.is_everything()).then(|| scope.endpoints.clone().into()),
            config: scope.config.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::ScanScope> for ScanScope {
    type Error = Invalid;

    fn try_from(scope: v1::ScanScope) -> Result<Self, Invalid> {
        let checked = Self {
            kind: parse("kind", &scope.kind)?,
            region: parse("region", &scope.region)?,
            assume_role: assume_role("assume_role", scope.assume_role)?,
            tags: scope
                .tags
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("tags"))?,
            order: scope.order,
            group: scope.group,
            endpoints: scope.endpoints.unwrap_or_default().into(),
            config: some(scope.config),
        };
        if checked.id().0 == scope.id {
            Ok(checked)
        } else {
            Err(Invalid::new(
                "id",
                "does not name the scope that the other fields describe",
            ))
        }
    }
}
