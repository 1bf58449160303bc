//! One scan scope, with what is known of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_core::RoleArn;
use tidegate_proto::{convert, v1};

/// How a scope fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its last scan failed, in whole or in part; nothing was deleted.
    Failed,
    /// It was never scanned in full.
    Never,
    /// Its last scan saw everything.
    Ok,
    /// No live worker names it any more; it goes, and its databases with it.
    Retiring,
}

/// What a worker looks for in one account and region, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Names it; `tgctl discovery rescan` takes it.
    pub id: String,
    /// The discovery group.
    pub group: String,
    /// The `discovery_config` that asks for it; empty is a configuration file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config: String,
    /// `redshift`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The region.
    pub region: String,
    /// The account of the role; empty when the worker looks with its own identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account_id: String,
    /// The role that the worker assumes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub assume_role_arn: String,
    /// Sent when that role is assumed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_id: String,
    /// Which databases.
    pub tags: BTreeMap<String, Vec<String>>,
    /// Which of their endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// How it fares.
    pub state: State,
    /// Why the last scan failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ScopeFailure>,
    /// How many databases it owns.
    pub databases: u32,
    /// The end of the last scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Timestamp>,
    /// The end of the last scan that saw everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// The worker that holds it; empty when none does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub held_by: String,
    /// The fencing epoch.
    pub epoch: u64,
    /// AWS calls of the last scan.
    pub aws_calls: u32,
    /// Deletions that wait for the next complete scan to agree.
    pub held_deletions: u32,
    /// Databases that it found and that another scope owns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadowed: Vec<Shadowed>,
    /// What the last scan found and no agent could serve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// When its databases go, unless a worker names it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retires_at: Option<Timestamp>,
}

/// Which endpoints become databases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// Only these types; empty is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// Why a scan failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeFailure {
    /// `access_denied`, `throttled`, …
    pub class: String,
    /// AWS's own code.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub aws_code: String,
    /// The call that failed, which is also the permission it needs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// One line.
    pub message: String,
}

/// A database that another scope owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// The database.
    pub identity: String,
    /// The scope that owns it.
    pub owned_by: String,
}

/// Databases that are in AWS and not in the inventory, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// One line.
    pub reason: String,
    /// How many.
    pub count: u32,
}

/// The scopes in the order that people read them: by group, type, region and account.
#[must_use]
pub fn scopes(listed: Vec<v1::ScopeStatus>) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = listed.into_iter().map(Scope::from).collect();
    scopes.sort_by(|a, b| a.order().cmp(&b.order()));
    scopes
}

impl Scope {
    /// Account and role, as one cell.
    #[must_use]
    pub fn role_text(&self) -> String {
        match self.assume_role_arn.parse::<RoleArn>() {
            Ok(arn) => format!("{}/{}", arn.account(), arn.role_name()),
            Err(_) if self.assume_role_arn.is_empty() => "own identity".to_owned(),
            Err(_) => self.assume_role_arn.clone(),
        }
    }

    /// Which databases, as one cell: `env=prod|stage,team=bi`, or `*`.
    #[must_use]
    pub fn tags_text(&self) -> String {
        let terms: Vec<String> = self
            .tags
            .iter()
            .filter(|(key, _)| *key != "*")
            .map(|(key, values)| format!("{key}={}", values.join("|")))
            .collect();
        if terms.is_empty() {
            "*".to_owned()
        } else {
            terms.join(",")
        }
    }

    /// The scope in a sentence: `redshift in us-east-1, 111122223333/discovery, env=prod`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let what = format!("{} in {}, {}", self.kind, self.region, self.role_text());
        match self.tags_text().as_str() {
            "*" => what,
            tags => format!("{what}, {tags}"),
        }
    }

    fn order(&self) -> (&str, &str, &str, &str, &str) {
        (
            &self.group,
            &self.kind,
            &self.region,
            &self.assume_role_arn,
            &self.id,
        )
    }
}

impl From<v1::ScopeStatus> for Scope {
    fn from(status: v1::ScopeStatus) -> Self {
        let scope = status.scope.unwrap_or_default();
        let role = scope.assume_role.unwrap_or_default();
        let account = role.role_arn.parse::<RoleArn>().map(|arn| arn.account());
        let endpoints = scope.endpoints.unwrap_or_default();
        let at = |at: Option<prost_types::Timestamp>| {
            at.as_ref().and_then(|at| convert::instant(at).ok())
        };
        let last_success = at(status.last_success);
        let retires_at = at(status.retires_at);
        let failure = status.failure.map(ScopeFailure::from);
        Self {
            state: match (retires_at, &failure, last_success) {
                (Some(_), _, _) => State::Retiring,
                (None, Some(_), _) => State::Failed,
                (None, None, None) => State::Never,
                (None, None, Some(_)) => State::Ok,
            },
            id: scope.id,
            group: scope.group,
            config: scope.config,
            kind: scope.kind,
            region: scope.region,
            account_id: account.map(|id| id.to_string()).unwrap_or_default(),
            assume_role_arn: role.role_arn,
            external_id: role.external_id,
            tags: scope
                .tags
                .unwrap_or_default()
                .labels
                .into_iter()
                .map(|(key, values)| (key, values.values))
                .collect(),
            endpoints: Endpoints::of(endpoints),
            failure,
            databases: status.databases,
            last_attempt: at(status.last_attempt),
            last_success,
            held_by: status.held_by,
            epoch: status.epoch,
            aws_calls: status.aws_calls,
            held_deletions: status.held_deletions,
            shadowed: status
                .shadowed
                .into_iter()
                .map(|shadowed| Shadowed {
                    identity: shadowed.identity,
                    owned_by: shadowed.owned_by,
                })
                .collect(),
            left_out: status
                .left_out
                .into_iter()
                .map(|left_out| LeftOut {
                    reason: left_out.reason,
                    count: left_out.count,
                })
                .collect(),
            retires_at,
        }
    }
}

impl From<v1::ScanScope> for Scope {
    /// A scope that nobody scanned yet.
    fn from(scope: v1::ScanScope) -> Self {
        v1::ScopeStatus {
            scope: Some(scope),
            ..v1::ScopeStatus::default()
        }
        .into()
    }
}

impl Endpoints {
    /// `None` when every endpoint is wanted.
    #[must_use]
    pub fn of(filter: v1::EndpointFilter) -> Option<Self> {
        let v1::EndpointFilter { include, exclude } = filter;
        (!include.is_empty() || !exclude.is_empty()).then_some(Self { include, exclude })
    }
}

impl From<v1::ScanFailure> for ScopeFailure {
    fn from(failure: v1::ScanFailure) -> Self {
        Self {
            class: failure.class,
            aws_code: failure.aws_code,
            action: failure.action,
            message: failure.message,
        }
    }
}
