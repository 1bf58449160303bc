//! Instances: processes that are up, each with all services that it announced.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use tidegate_core::{
    access::kinds,
    predicate::{Fields, Schema},
};
use tidegate_proto::v1::{self, resource::Body};

use super::kind::{
    Beside, Hosts, Kind, Record, Rights, decoded, instant, present, searched, texts,
};
use crate::{keys, store::Entry};

/// `instance`.
pub(super) struct Instances;

impl Kind for Instances {
    fn name(&self) -> &'static str {
        kinds::INSTANCE
    }

    fn rights(&self) -> Rights {
        Rights {
            rule: Some(kinds::INSTANCE),
            hosts: Hosts::Of(&[]),
        }
    }

    fn schema(&self) -> &'static Schema {
        &Schema::INSTANCE
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &[keys::HOSTS]
    }

    fn id_of<'k>(&self, rest: &'k str) -> Option<&'k str> {
        rest.split_once('/').map(|(host_id, _)| host_id)
    }

    /// One entry a service; each says all that its stream announced.
    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>> {
        let (host_id, _) = service(entries.first()?)?;
        let mut instance = v1::Instance {
            host_id: host_id.to_owned(),
            ..v1::Instance::default()
        };
        let mut services = BTreeSet::new();
        for entry in entries {
            let Some(hello) = decoded::<v1::Hello>(entry) else {
                continue;
            };
            services.extend(service(entry).map(|(_, service)| service.to_owned()));
            instance.hostname = hello.hostname;
            instance.version = hello.version;
            instance.revision = instance.revision.max(entry.modified);
            if !hello.public_addr.is_empty() {
                instance.public_addr = hello.public_addr;
            }
            let earlier = [instance.since, hello.since].into_iter().flatten();
            instance.since = earlier.min_by_key(|at| (at.seconds, at.nanos));
        }
        if services.is_empty() {
            return None;
        }
        instance.services = services.into_iter().collect();
        Some(Arc::new(Instance(instance)))
    }
}

/// The host and the service of an entry.
pub(super) fn service(entry: &Entry) -> Option<(&str, &str)> {
    keys::name_under(keys::HOSTS, &entry.key)?.split_once('/')
}

struct Instance(v1::Instance);

impl Record for Instance {
    fn name(&self) -> &str {
        &self.0.host_id
    }

    fn body(&self) -> Body {
        Body::Instance(self.0.clone())
    }

    fn completed(&self, beside: &Beside<'_>) -> Option<Arc<dyn Record>> {
        let databases = *beside.serving.get(&self.0.host_id)?;
        Some(Arc::new(Self(v1::Instance {
            databases,
            ..self.0.clone()
        })))
    }
}

impl Fields for Instance {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        present(match path {
            "name" => &self.0.host_id,
            "hostname" => &self.0.hostname,
            "version" => &self.0.version,
            "public_addr" => &self.0.public_addr,
            "databases" => return Some(self.0.databases.to_string().into()),
            "since" => return instant(self.0.since.as_ref()),
            _ => return None,
        })
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        match path {
            "services" => texts(&self.0.services),
            _ => Vec::new(),
        }
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        searched(self, &Schema::INSTANCE, found)
    }
}
