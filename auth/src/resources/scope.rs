//! Scan scopes: the ledger's record of each, who holds it, and what this instance knows of its last scan.

use std::{borrow::Cow, sync::Arc};

use tidegate_core::{
    RoleArn,
    access::kinds,
    predicate::{Fields, Schema},
};
use tidegate_proto::v1::{self, resource::Body};

use super::kind::{Beside, Hosts, Kind, Record, Rights, instant, present, role_arn, searched};
use crate::{keys, ledger::stored_status, store::Entry};

/// `discovery_scope`.
pub(super) struct Scopes;

impl Kind for Scopes {
    fn name(&self) -> &'static str {
        kinds::DISCOVERY_SCOPE
    }

    fn rights(&self) -> Rights {
        Rights {
            rule: Some(kinds::DISCOVERY_SCOPE),
            // Agents discover too.
            hosts: Hosts::Of(&["discovery", "db"]),
        }
    }

    fn schema(&self) -> &'static Schema {
        &Schema::SCAN_SCOPE
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &[keys::SCOPE_HOLDERS, keys::SCOPES]
    }

    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>> {
        let under = |prefix| {
            let is_under = |entry: &&Entry| keys::name_under(prefix, &entry.key).is_some();
            entries.iter().find(is_under)
        };
        let status = stored_status(under(keys::SCOPES), under(keys::SCOPE_HOLDERS));
        // Without a scope nothing in it could be read.
        status.scope.is_some().then(|| {
            let scope: Arc<dyn Record> = Arc::new(Scope(status));
            scope
        })
    }
}

struct Scope(v1::ScopeStatus);

impl Scope {
    fn id(&self) -> &str {
        self.0.scope.as_ref().map_or("", |scope| &scope.id)
    }

    /// In one word, as `tgctl discovery status` has it.
    const fn state(&self) -> &'static str {
        match (&self.0.retires_at, &self.0.failure, &self.0.last_success) {
            (Some(_), _, _) => "retiring",
            (None, Some(_), _) => "failed",
            (None, None, None) => "never",
            (None, None, Some(_)) => "ok",
        }
    }
}

impl Record for Scope {
    fn name(&self) -> &str {
        self.id()
    }

    fn body(&self) -> Body {
        Body::DiscoveryScope(self.0.clone())
    }

    fn completed(&self, beside: &Beside<'_>) -> Option<Arc<dyn Record>> {
        let mut status = self.0.clone();
        (beside.scans)(self.id(), &mut status);
        Some(Arc::new(Self(status)))
    }
}

impl Fields for Scope {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let scope = self.0.scope.as_ref()?;
        present(match path {
            "name" => &scope.id,
            "group" => &scope.group,
            "type" => &scope.kind,
            "region" => &scope.region,
            "assume_role_arn" => return role_arn(scope.assume_role.as_ref()),
            "account_id" => {
                let arn: RoleArn = role_arn(scope.assume_role.as_ref())?.parse().ok()?;
                return Some(arn.account().to_string().into());
            }
            "discovery_config" => &scope.config,
            "status" => self.state(),
            "owner" => &self.0.held_by,
            "error" => &self.0.failure.as_ref()?.class,
            "databases" => return Some(self.0.databases.to_string().into()),
            "held_deletions" => return Some(self.0.held_deletions.to_string().into()),
            "last_attempt" => return instant(self.0.last_attempt.as_ref()),
            "last_success" => return instant(self.0.last_success.as_ref()),
            _ => return None,
        })
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        searched(self, &Schema::SCAN_SCOPE, found)
    }
}
