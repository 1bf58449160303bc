//! The shape of a role in a file, with the places of what may be wrong in it.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, de::IgnoredAny};
use serde_yaml::Spanned;
use tidegate_core::{
    RoleConditions, Selector,
    access::{
        DbUserMode, LabelExpression, LockMode, RecordSession, ReviewFilter, RoleOptions, Rule,
        RuleFilter, VerbPattern,
    },
    requests::{RequestConditions, ReviewConditions, Threshold},
};

use crate::create::place::Place;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    #[expect(dead_code, reason = "told apart before")]
    kind: String,
    pub(super) version: Spanned<String>,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; it is not asked for")]
    status: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "roles have no description here")]
    description: Option<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; it is not asked for")]
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) options: Options,
    #[serde(default)]
    pub(super) allow: Conditions,
    #[serde(default)]
    pub(super) deny: Conditions,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Options {
    max_session_ttl: Option<Span>,
    client_idle_timeout: Option<Span>,
    disconnect_expired_cert: Option<bool>,
    lock: Option<LockMode>,
    max_db_connections: Option<u64>,
    record_session: Recorded,
    create_db_user_mode: Option<DbUserMode>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Recorded {
    default: Option<tidegate_core::access::AuditMode>,
}

/// A length of time such as `12h` or `8h0m0s`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a length of time such as `12h` or `30m`");
        let signed: SignedDuration = text.parse().map_err(|_| wrong())?;
        Duration::try_from(signed).map(Self).map_err(|_| wrong())
    }
}

impl From<Options> for RoleOptions {
    fn from(options: Options) -> Self {
        Self {
            max_session_ttl: options.max_session_ttl.map(|span| span.0),
            client_idle_timeout: options.client_idle_timeout.map(|span| span.0),
            disconnect_expired_cert: options.disconnect_expired_cert,
            lock: options.lock,
            max_db_connections: options.max_db_connections,
            record_session: RecordSession {
                default: options.record_session.default,
            },
            create_db_user_mode: options.create_db_user_mode,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Conditions {
    db_labels: Option<Spanned<Selector>>,
    db_labels_expression: Option<LabelExpression>,
    db_users: Vec<Spanned<String>>,
    db_names: Vec<Spanned<String>>,
    db_roles: Vec<Spanned<String>>,
    rules: Vec<Spanned<WrittenRule>>,
    request: WrittenRequest,
    review_requests: WrittenReview,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    resources: Vec<Spanned<String>>,
    verbs: Vec<WrittenVerb>,
    #[serde(default, rename = "where")]
    filter: Option<RuleFilter>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct WrittenVerb(VerbPattern);

impl TryFrom<String> for WrittenVerb {
    type Error = tidegate_core::InvalidId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenRequest {
    roles: Vec<Spanned<String>>,
    thresholds: Vec<Spanned<WrittenThreshold>>,
    max_duration: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenThreshold {
    #[serde(default)]
    name: String,
    #[serde(default = "one")]
    approve: u32,
    #[serde(default = "one")]
    deny: u32,
}

const fn one() -> u32 {
    1
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenReview {
    roles: Vec<Spanned<String>>,
    #[serde(rename = "where")]
    filter: Option<ReviewFilter>,
}

fn values(list: Vec<Spanned<String>>) -> Vec<String> {
    list.into_iter().map(|spanned| spanned.value).collect()
}

impl From<Conditions> for RoleConditions {
    fn from(written: Conditions) -> Self {
        let rule = |rule: Spanned<WrittenRule>| Rule {
            resources: values(rule.value.resources),
            verbs: rule.value.verbs.into_iter().map(|verb| verb.0).collect(),
            filter: rule.value.filter,
        };
        let threshold = |threshold: Spanned<WrittenThreshold>| Threshold {
            name: threshold.value.name,
            approve: threshold.value.approve,
            deny: threshold.value.deny,
        };
        Self {
            db_labels: written
                .db_labels
                .map_or_else(Selector::default, |labels| labels.value),
            db_labels_expression: written.db_labels_expression,
            db_users: values(written.db_users),
            db_names: values(written.db_names),
            db_roles: values(written.db_roles),
            rules: written.rules.into_iter().map(rule).collect(),
            request: RequestConditions {
                roles: values(written.request.roles),
                thresholds: written
                    .request
                    .thresholds
                    .into_iter()
                    .map(threshold)
                    .collect(),
                max_duration: written.request.max_duration.map(|span| span.0),
            },
            review_requests: ReviewConditions {
                roles: values(written.review_requests.roles),
                filter: written.review_requests.filter,
            },
        }
    }
}

/// Where the parts of a role are in its file.
#[derive(Debug)]
pub(super) struct Places {
    name: Place,
    fields: BTreeMap<String, Place>,
    kinds: BTreeMap<String, Place>,
}

impl Places {
    pub(super) fn of(written: &Written) -> Self {
        let mut places = Self {
            name: Place::of(&written.metadata.name),
            fields: BTreeMap::new(),
            kinds: BTreeMap::new(),
        };
        places.side("allow", &written.spec.allow);
        places.side("deny", &written.spec.deny);
        places
    }

    fn side(&mut self, side: &str, conditions: &Conditions) {
        if let Some(labels) = &conditions.db_labels {
            self.note(format!("{side}.db_labels"), Place::of(labels));
        }
        self.list(&format!("{side}.db_users"), &conditions.db_users);
        self.list(&format!("{side}.db_names"), &conditions.db_names);
        self.list(&format!("{side}.db_roles"), &conditions.db_roles);
        self.list(&format!("{side}.rules"), &conditions.rules);
        for kind in conditions
            .rules
            .iter()
            .flat_map(|rule| &rule.value.resources)
        {
            let place = Place::of(kind);
            self.kinds.entry(kind.value.clone()).or_insert(place);
        }
        let request = &conditions.request;
        self.list(&format!("{side}.request.roles"), &request.roles);
        self.list(&format!("{side}.request.thresholds"), &request.thresholds);
        let reviews = &conditions.review_requests.roles;
        self.list(&format!("{side}.review_requests.roles"), reviews);
    }

    fn list<T>(&mut self, field: &str, entries: &[Spanned<T>]) {
        for (index, entry) in entries.iter().enumerate() {
            self.note(format!("{field}[{index}]"), Place::of(entry));
        }
        if let Some(first) = entries.first() {
            self.note(field.to_owned(), Place::of(first));
        }
    }

    fn note(&mut self, field: String, place: Place) {
        self.fields.insert(field, place);
    }

    /// The place of a field such as `allow.rules[0].verbs`, or of the nearest one around it.
    pub(super) fn find(&self, field: &str) -> Place {
        let mut around = field;
        loop {
            if let Some(place) = self.fields.get(around) {
                return *place;
            }
            match around.rfind(['.', '[']) {
                Some(end) => around = around.get(..end).unwrap_or_default(),
                None => return self.name,
            }
        }
    }

    /// The first place of a kind of resource in rules.
    pub(super) fn find_kind(&self, kind: &str) -> Place {
        self.kinds.get(kind).copied().unwrap_or(self.name)
    }
}
