//! What a kind of resource is: one file each beside this one, and one line in [`KINDS`].
//!
//! Invariant: what a [`Record`] gives away holds no secret. Records are read through the messages that listings show,
//! never sent as they are stored.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use tidegate_core::predicate::{FieldType, Fields, Schema};
use tidegate_proto::{
    convert,
    v1::{self, resource::Body},
};

use super::{
    discovery_config::DiscoveryConfigs, instance::Instances, lock::Locks, proxy::Proxies,
    role::Roles, scope::Scopes, token::Tokens, user::Users,
};
use crate::store::Entry;

/// Every kind that is kept in memory here, in name order. Databases and database servers have tables of their own.
pub(crate) const KINDS: [&dyn Kind; 8] = [
    &DiscoveryConfigs,
    &Scopes,
    &Instances,
    &Locks,
    &Proxies,
    &Roles,
    &Tokens,
    &Users,
];

/// Which hosts may ask for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// Any.
    Any,
    /// Those that run one of these services.
    Of(&'static [&'static str]),
}

/// Who may ask for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// The kind that people's rules must allow, for each resource; `None` is everybody who logged in.
    pub(crate) rule: Option<&'static str>,
    /// Hosts.
    pub(crate) hosts: Hosts,
}

/// A kind of resource.
pub(crate) trait Kind: Send + Sync {
    /// As requests name it.
    fn name(&self) -> &'static str;

    /// Who may ask for it.
    fn rights(&self) -> Rights;

    /// What predicates, orders and counts may speak of.
    fn schema(&self) -> &'static Schema;

    /// Where it is kept in the store.
    fn prefixes(&self) -> &'static [&'static str];

    /// The resource that a key is of, by what follows the prefix; `None` when it is none of this kind.
    fn id_of<'k>(&self, rest: &'k str) -> Option<&'k str> {
        Some(rest)
    }

    /// A resource, from all of its entries in key order; `None` when it cannot be read, which is logged.
    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>>;

    /// What there is without the store, by id.
    fn built_in(&self) -> Vec<(String, Arc<dyn Record>)> {
        Vec::new()
    }
}

/// One resource, as it is known from the store.
pub(crate) trait Record: Fields + Send + Sync {
    /// Its name, by which it is asked for.
    fn name(&self) -> &str;

    /// Tells apart those of one name, if there can be such.
    fn tie(&self) -> &str {
        ""
    }

    /// As it is sent.
    fn body(&self) -> Body;

    /// When it ends by itself: from then on no listing shows it.
    fn ends_at(&self) -> Option<Timestamp> {
        None
    }

    /// With what is known of it beside the store; `None` when nothing is.
    fn completed(&self, _beside: &Beside<'_>) -> Option<Arc<dyn Record>> {
        None
    }
}

/// Adds to a scope, by its id, what is known of its last scan.
pub(crate) type Scans<'s> = dyn Fn(&str, &mut v1::ScopeStatus) + Send + Sync + 's;

/// What is known beside the records of the store.
pub(crate) struct Beside<'b> {
    /// What the last scans came to.
    pub(crate) scans: &'b Scans<'b>,
    /// How many databases each host serves.
    pub(crate) serving: Arc<HashMap<String, u32>>,
}

/// The kind of this name.
pub(crate) fn kind(name: &str) -> Option<&'static dyn Kind> {
    KINDS.into_iter().find(|kind| kind.name() == name)
}

/// A record, or a line in the log: one damaged record must not take the others away.
pub(super) fn decoded<R: prost::Message + Default>(entry: &Entry) -> Option<R> {
    crate::record::decode(entry)
        .inspect_err(|error| {
            tracing::error!(error = %error, "left out a stored record that cannot be read");
        })
        .ok()
}

/// A text that is there.
pub(super) fn present(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

/// Texts as a field gives them.
pub(super) fn texts(texts: &[String]) -> Vec<Cow<'_, str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

/// An instant as a field gives it: UTC, in whole seconds, so that texts sort as instants do.
pub(super) fn instant(at: Option<&prost_types::Timestamp>) -> Option<Cow<'static, str>> {
    Some(format!("{:.0}", moment(at)?).into())
}

/// An instant of a record.
pub(super) fn moment(at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    convert::instant(at?).ok()
}

/// The ARN of a role, if one is named.
pub(super) fn role_arn(role: Option<&v1::AssumeRole>) -> Option<Cow<'_, str>> {
    present(&role?.role_arn)
}

/// Shows `search` every text and list that the kind's predicates know.
pub(super) fn searched(
    record: &dyn Fields,
    schema: &'static Schema,
    found: &mut dyn FnMut(&str) -> bool,
) -> bool {
    schema.iter().any(|field| match field.holds {
        FieldType::Text => record.text(field.path).is_some_and(|text| found(&text)),
        FieldType::List => record.list(field.path).iter().any(|text| found(text)),
        FieldType::Labels => record
            .labels(field.path)
            .is_some_and(|labels| labels.iter().any(|(key, value)| found(key) || found(value))),
        FieldType::Flag | FieldType::Number | FieldType::Traits => false,
    })
}
