//! From what a kind reads of one endpoint to the database that it becomes.
//!
//! Every kind fills a [`Draft`]; here alone is decided which labels it gets, whether the scope asks for it, and what
//! happens when it has no address. Generated labels go first, so that no tag can take their place.
//!
//! An endpoint without an address cannot be listed: while it is `creating` it was never there and is left out; in
//! any other status it may have been, so it is a doubt, which keeps what the inventory has of it.
//!
//! Labels that could not be read are not missing labels: a clause of the matcher over such a label counts as met,
//! and the database goes out with `tags_unknown`, so that the ledger keeps what it knew of it.

use tidegate_core::{
    AccountId, AwsMetadata, Database, Labels, Origin, Protocol, ScanScope, Selector, TlsSettings,
    Uri, labels, naming,
};

use super::{
    FetchError,
    status::{CREATING, Status},
};
use crate::found::{Found, NameBase};

/// Labels that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    /// This generated label, where it is not told.
    Label(&'static str),
    /// All tags.
    Tags,
}

/// What a kind reads of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Draft<'d> {
    /// The call that listed it, as a policy names it.
    pub(super) action: &'static str,
    /// What it is, for people: `cluster`.
    pub(super) what: &'static str,
    /// The ARN, with `#<endpoint role>` unless it is the main endpoint.
    pub(super) identity: String,
    pub(super) account: AccountId,
    /// The identifier in AWS.
    pub(super) id: &'d str,
    /// What the name gets between identifier and suffix; empty for the main endpoint.
    pub(super) endpoint: String,
    /// The value of the label `endpoint-type`.
    pub(super) endpoint_type: &'d str,
    /// What the name gets behind the kind, such as `aurora`.
    pub(super) subtype: Option<&'static str>,
    pub(super) description: String,
    pub(super) protocol: Protocol,
    pub(super) host: Option<&'d str>,
    pub(super) port: Option<i32>,
    /// The name in its certificate, when that is not `host`.
    pub(super) server_name: Option<String>,
    /// Region, account and role are filled in from the scope.
    pub(super) aws: AwsMetadata,
    pub(super) status: Status,
    /// Generated labels of this kind, beside those that every kind has.
    pub(super) told: Vec<(&'static str, Option<&'d str>)>,
    pub(super) tags: Vec<(&'d str, &'d str)>,
    pub(super) unread: Unread,
}

impl Draft<'_> {
    /// The database; `None` when the scope does not ask for it, or it is not there yet.
    pub(super) fn find(self, scope: &ScanScope) -> Result<Option<Found>, FetchError> {
        let labels = self.labels(scope);
        if !scope.endpoints.admits(self.endpoint_type) || !self.is_wanted(scope, &labels) {
            return Ok(None);
        }
        let Some(uri) = self.uri()? else {
            return Ok(None);
        };
        let name = self.name(scope);
        Ok(Some(Found {
            database: Database {
                name: name.likely(&self.identity),
                description: self.description,
                labels,
                origin: Origin::Cloud,
                protocol: self.protocol,
                uri,
                tls: TlsSettings {
                    server_name: self.server_name,
                    ..TlsSettings::default()
                },
                aws: AwsMetadata {
                    region: Some(scope.region.clone()),
                    account_id: Some(self.account),
                    assume_role: scope.assume_role.clone(),
                    ..self.aws
                },
                kind: Some(scope.kind),
                identity: self.identity,
                discovered_name: name.undecorated(),
                unavailable: self.status.unavailable().to_owned(),
            },
            name,
            tags_unknown: self.unread != Unread::Nothing,
        }))
    }

    fn labels(&self, scope: &ScanScope) -> Labels {
        let (group, status) = (scope.group.as_str(), self.status.word.as_str());
        let sometimes = [
            (labels::DISCOVERY_GROUP, some(Some(group))),
            (labels::DISCOVERY_CONFIG, scope.config.as_deref()),
            ("status", some(Some(status))),
        ];
        let told = self.told.iter().map(|(key, value)| (*key, some(*value)));
        let always = [
            (labels::ACCOUNT_ID, self.account.as_str()),
            (labels::REGION, scope.region.as_str()),
            (labels::CLOUD, "AWS"),
            (labels::ORIGIN, Origin::Cloud.as_str()),
            (labels::DISCOVERY_TYPE, scope.kind.as_str()),
            (labels::ENDPOINT_TYPE, self.endpoint_type),
        ];
        let sometimes = sometimes.into_iter().chain(told);
        let mut all: Labels = always
            .into_iter()
            .chain(sometimes.filter_map(|(key, value)| Some((key, value?))))
            .collect();
        let left_out = all.add_tags(self.tags.iter().copied());
        if left_out > 0 {
            tracing::debug!(
                resource = self.identity,
                left_out,
                "left out tags that cannot be labels"
            );
        }
        all
    }

    fn is_wanted(&self, scope: &ScanScope, labels: &Labels) -> bool {
        let met = |known: &dyn Fn(&str) -> bool| {
            clauses(&scope.tags, known).is_none_or(|selector| selector.matches(labels))
        };
        match self.unread {
            Unread::Nothing => scope.tags.matches(labels),
            Unread::Tags => met(&|key| labels.get(key).is_some()),
            Unread::Label(label) => met(&|key| key != label || labels.get(key).is_some()),
        }
    }

    /// Where it listens; `None` when it is only coming up.
    fn uri(&self) -> Result<Option<Uri>, FetchError> {
        let resource = || format!("{} `{}`", self.what, self.id);
        let (Some(host), Some(port)) = (some(self.host), self.port) else {
            return if self.status.word == CREATING {
                Ok(None)
            } else {
                Err(FetchError::NoAddress {
                    action: self.action,
                    resource: resource(),
                    status: self.status.word.clone(),
                })
            };
        };
        u16::try_from(port)
            .ok()
            .and_then(|port| Uri::new(host, port).ok())
            .map(Some)
            .ok_or_else(|| FetchError::malformed(self.action, resource(), "Endpoint"))
    }

    fn name(&self, scope: &ScanScope) -> NameBase {
        let tag = naming::name_tag(|wanted| {
            let tag = self.tags.iter().find(|(key, _)| *key == wanted);
            tag.map(|(_, value)| *value)
        });
        let suffix = [
            Some(scope.kind.as_str()),
            self.subtype,
            Some(scope.region.as_str()),
            Some(self.account.as_str()),
        ];
        NameBase {
            base: tag.unwrap_or(self.id).to_owned(),
            tagged: tag.is_some(),
            endpoint: self.endpoint.clone(),
            suffix: suffix.into_iter().flatten().map(str::to_owned).collect(),
        }
    }
}

/// The clauses of a selector over the keys that `concerned` names; `None` when there are none.
fn clauses(selector: &Selector, concerned: &dyn Fn(&str) -> bool) -> Option<Selector> {
    if selector.is_empty() {
        return Some(selector.clone());
    }
    let kept: Vec<_> = selector
        .written()
        .iter()
        .filter(|(key, _)| concerned(key))
        .map(|(key, values)| (key.as_str(), values.iter().map(String::as_str)))
        .collect();
    (!kept.is_empty())
        .then(|| Selector::new(kept).ok())
        .flatten()
}

/// A text that says something.
pub(super) fn some(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// A flag as a label has it.
pub(super) fn yes_or_no(value: Option<bool>) -> Option<&'static str> {
    value.map(|yes| if yes { "true" } else { "false" })
}

/// What the name of something is, or that it has none.
pub(super) fn named<'n>(
    name: Option<&'n str>,
    action: &'static str,
    what: &str,
    field: &'static str,
) -> Result<&'n str, FetchError> {
    some(name).ok_or_else(|| FetchError::malformed(action, what, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(pairs: &[(&str, &str)]) -> Selector {
        Selector::new(pairs.iter().map(|(key, value)| (*key, [*value]))).unwrap()
    }

    #[test]
    fn clauses_over_what_was_not_read_are_set_aside_and_the_others_are_not() {
        let both = selector(&[("env", "prod"), ("region", "us-*")]);
        let known = clauses(&both, &|key| key == "region").unwrap();
        assert_eq!(known.written().len(), 1);
        assert!(clauses(&both, &|_| false).is_none());
        assert!(clauses(&Selector::default(), &|_| true).unwrap().is_empty());
    }
}
