//! Roles: the built-in ones, and those in the store, which take the place of built-in ones of their name.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use tidegate_core::{
    Role as CoreRole,
    access::kinds,
    predicate::{Fields, Schema},
};
use tidegate_proto::v1::{self, resource::Body};

use super::kind::{Hosts, Kind, Record, Rights, decoded, present, searched, texts};
use crate::{keys, store::Entry};

/// `role`.
pub(super) struct Roles;

impl Kind for Roles {
    fn name(&self) -> &'static str {
        kinds::ROLE
    }

    fn rights(&self) -> Rights {
        Rights {
            rule: Some(kinds::ROLE),
            // They decide about sessions.
            hosts: Hosts::Of(&["db", "proxy"]),
        }
    }

    fn schema(&self) -> &'static Schema {
        &Schema::ROLE
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &[keys::ROLES]
    }

    /// What cannot be read is shown as what it decides as: a role that denies everything.
    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>> {
        let entry = entries.first()?;
        let name = keys::name_under(keys::ROLES, &entry.key)?;
        let message = decoded::<v1::Role>(entry).map_or_else(
            || CoreRole::unreadable(name).into(),
            |role| v1::Role {
                name: name.to_owned(),
                revision: entry.modified,
                ..role
            },
        );
        Some(Arc::new(Role(message)))
    }

    fn built_in(&self) -> Vec<(String, Arc<dyn Record>)> {
        let roles = CoreRole::builtin().into_iter().map(|role| {
            let record: Arc<dyn Record> = Arc::new(Role(role.clone().into()));
            (role.name, record)
        });
        roles.collect()
    }
}

struct Role(v1::Role);

impl Role {
    fn side(&self, path: &str) -> Option<&v1::RoleConditions> {
        if path.starts_with("allow.") {
            self.0.allow.as_ref()
        } else {
            self.0.deny.as_ref()
        }
    }
}

impl Record for Role {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn body(&self) -> Body {
        Body::Role(self.0.clone())
    }
}

impl Fields for Role {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        match path {
            "name" => present(&self.0.name),
            _ => None,
        }
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        let Some(side) = self.side(path) else {
            return Vec::new();
        };
        match path {
            "allow.db_users" | "deny.db_users" => texts(&side.db_users),
            "allow.db_names" | "deny.db_names" => texts(&side.db_names),
            "allow.db_roles" | "deny.db_roles" => texts(&side.db_roles),
            "allow.resources" | "deny.resources" => {
                let named = side.rules.iter().flat_map(|rule| &rule.resources);
                let named: BTreeSet<&str> = named.map(String::as_str).collect();
                named.into_iter().map(Cow::Borrowed).collect()
            }
            _ => Vec::new(),
        }
    }

    fn flag(&self, path: &str) -> bool {
        path == "built_in" && self.0.revision == 0
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        searched(self, &Schema::ROLE, found)
    }
}
