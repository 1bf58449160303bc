//! Locks. One whose time is over is in no listing, though the store keeps it for a while.

use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;
use tidegate_core::{
    LockTarget,
    access::kinds,
    predicate::{Fields, Schema},
};
use tidegate_proto::v1::{self, resource::Body};

use super::kind::{Hosts, Kind, Record, Rights, decoded, instant, moment, present, searched};
use crate::{keys, store::Entry};

/// `lock`.
pub(super) struct Locks;

impl Kind for Locks {
    fn name(&self) -> &'static str {
        kinds::LOCK
    }

    fn rights(&self) -> Rights {
        Rights {
            rule: Some(kinds::LOCK),
            // They decide about sessions.
            hosts: Hosts::Of(&["db", "proxy"]),
        }
    }

    fn schema(&self) -> &'static Schema {
        &Schema::LOCK
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &[keys::LOCKS]
    }

    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>> {
        let entry = entries.first()?;
        let message: v1::Lock = decoded(entry)?;
        let target = message.target.as_ref();
        // What ended a login is none of those that administrators make and remove.
        if target.is_some_and(|target| LockTarget::from(target.clone()).is_of_logins()) {
            return None;
        }
        Some(Arc::new(Lock(v1::Lock {
            name: keys::name_under(keys::LOCKS, &entry.key)?.to_owned(),
            revision: entry.modified,
            ..message
        })))
    }
}

struct Lock(v1::Lock);

impl Record for Lock {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn body(&self) -> Body {
        Body::Lock(self.0.clone())
    }

    fn ends_at(&self) -> Option<Timestamp> {
        moment(self.0.expires_at.as_ref())
    }
}

impl Fields for Lock {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let target = self.0.target.as_ref();
        present(match path {
            "name" => &self.0.name,
            "message" => &self.0.message,
            "created_by" => &self.0.created_by,
            "created_at" => return instant(self.0.created_at.as_ref()),
            "expires_at" => return instant(self.0.expires_at.as_ref()),
            "target.user" => &target?.user,
            "target.role" => &target?.role,
            "target.agent" => &target?.agent,
            "target.database" => &target?.database,
            "target.access_request" => &target?.access_request,
            _ => return None,
        })
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        searched(self, &Schema::LOCK, found)
    }
}
