//! People. Their password hashes and second factors are in the same records and never leave them.

use std::{borrow::Cow, sync::Arc};

use tidegate_core::{
    Traits,
    access::kinds,
    predicate::{Fields, Schema},
};
use tidegate_proto::{
    convert,
    v1::{self, resource::Body},
};

use super::kind::{Hosts, Kind, Record, Rights, decoded, instant, present, searched, texts};
use crate::{access, keys, record::UserRecord, store::Entry};

/// `user`.
pub(super) struct Users;

impl Kind for Users {
    fn name(&self) -> &'static str {
        kinds::USER
    }

    fn rights(&self) -> Rights {
        Rights {
            rule: Some(kinds::USER),
            hosts: Hosts::Of(&[]),
        }
    }

    fn schema(&self) -> &'static Schema {
        &Schema::USER
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &[keys::USERS]
    }

    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>> {
        let entry = entries.first()?;
        let record: UserRecord = decoded(entry)?;
        let message = access::shown_user(record, entry.modified)?;
        let traits = convert::traits(message.traits.clone());
        Some(Arc::new(User { message, traits }))
    }
}

struct User {
    message: v1::User,
    traits: Traits,
}

impl Record for User {
    fn name(&self) -> &str {
        &self.message.name
    }

    fn body(&self) -> Body {
        Body::User(self.message.clone())
    }
}

impl Fields for User {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        match path {
            "name" => present(&self.message.name),
            "created_at" => instant(self.message.created_at.as_ref()),
            _ => None,
        }
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        match path {
            "roles" => texts(&self.message.roles),
            _ => Vec::new(),
        }
    }

    fn flag(&self, path: &str) -> bool {
        path == "signed_up" && self.message.signed_up
    }

    fn traits(&self, path: &str) -> Option<&Traits> {
        (path == "traits").then_some(&self.traits)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        searched(self, &Schema::USER, found)
            || self.traits.values().flatten().any(|text| found(text))
    }
}
