//! Proxies that are up. Whoever may log in may know them: they are where people connect.

use std::{borrow::Cow, sync::Arc};

use tidegate_core::predicate::{Fields, Schema};
use tidegate_proto::v1::{self, resource::Body};

use super::{
    instance::service,
    kind::{Hosts, Kind, Record, Rights, decoded, present, searched},
};
use crate::{keys, store::Entry};

/// The kind, and the service that such a process announces.
const PROXY: &str = "proxy";

/// `proxy`.
pub(super) struct Proxies;

impl Kind for Proxies {
    fn name(&self) -> &'static str {
        PROXY
    }

    fn rights(&self) -> Rights {
        Rights {
            rule: None,
            hosts: Hosts::Any,
        }
    }

    fn schema(&self) -> &'static Schema {
        &Schema::PROXY
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &[keys::HOSTS]
    }

    fn id_of<'k>(&self, rest: &'k str) -> Option<&'k str> {
        let (host_id, service) = rest.split_once('/')?;
        (service == PROXY).then_some(host_id)
    }

    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>> {
        let entry = entries.first()?;
        let (host_id, _) = service(entry)?;
        let hello: v1::Hello = decoded(entry)?;
        Some(Arc::new(Proxy(v1::Proxy {
            host_id: host_id.to_owned(),
            hostname: hello.hostname,
            version: hello.version,
            public_addr: hello.public_addr,
        })))
    }
}

struct Proxy(v1::Proxy);

impl Record for Proxy {
    fn name(&self) -> &str {
        &self.0.host_id
    }

    fn body(&self) -> Body {
        Body::Proxy(self.0.clone())
    }
}

impl Fields for Proxy {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        present(match path {
            "name" => &self.0.host_id,
            "hostname" => &self.0.hostname,
            "version" => &self.0.version,
            "public_addr" => &self.0.public_addr,
            _ => return None,
        })
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        searched(self, &Schema::PROXY, found)
    }
}
