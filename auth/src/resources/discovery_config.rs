//! Matchers that are kept in the cluster.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use tidegate_core::{
    access::kinds,
    predicate::{Fields, Schema},
};
use tidegate_proto::v1::{self, resource::Body};

use super::kind::{Hosts, Kind, Record, Rights, decoded, present, role_arn, searched};
use crate::{keys, store::Entry};

/// `discovery_config`.
pub(super) struct DiscoveryConfigs;

impl Kind for DiscoveryConfigs {
    fn name(&self) -> &'static str {
        kinds::DISCOVERY_CONFIG
    }

    fn rights(&self) -> Rights {
        Rights {
            rule: Some(kinds::DISCOVERY_CONFIG),
            // Agents discover too.
            hosts: Hosts::Of(&["discovery", "db"]),
        }
    }

    fn schema(&self) -> &'static Schema {
        &Schema::DISCOVERY_CONFIG
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &[keys::DISCOVERY_CONFIGS]
    }

    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>> {
        let entry = entries.first()?;
        let message: v1::DiscoveryConfig = decoded(entry)?;
        Some(Arc::new(DiscoveryConfig(v1::DiscoveryConfig {
            revision: entry.modified,
            ..message
        })))
    }
}

struct DiscoveryConfig(v1::DiscoveryConfig);

impl Record for DiscoveryConfig {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn body(&self) -> Body {
        Body::DiscoveryConfig(self.0.clone())
    }
}

impl Fields for DiscoveryConfig {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        match path {
            "name" => present(&self.0.name),
            "group" => present(&self.0.discovery_group),
            _ => None,
        }
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        let matchers = self.0.aws.iter();
        let texts: BTreeSet<Cow<'_, str>> = match path {
            "types" => matchers
                .flat_map(|matcher| &matcher.types)
                .map(|text| text.as_str().into())
                .collect(),
            "regions" => matchers
                .flat_map(|matcher| &matcher.regions)
                .map(|text| text.as_str().into())
                .collect(),
            "assume_role_arns" => matchers
                .filter_map(|matcher| role_arn(matcher.assume_role.as_ref()))
                .collect(),
            _ => BTreeSet::new(),
        };
        texts.into_iter().collect()
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        searched(self, &Schema::DISCOVERY_CONFIG, found)
    }
}
