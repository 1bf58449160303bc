//! What is told of an attempt to join, however it ends: in the audit log and in the process's own.

use std::net::SocketAddr;

use tidegate_proto::v1;

use super::{
    super::{
        Access, AccessError,
        tokens::{allow::CallerIdentity, asked::JoinMethod},
    },
    HOSTNAME_CHARS_MAX,
};
use crate::audit::event;

/// Longest list of services that is told.
const SERVICES_CHARS_MAX: usize = 100;

/// Filled as they become known.
pub(crate) struct JoinFacts {
    hostname: String,
    services: String,
    remote: Option<SocketAddr>,
    /// What listings call the token.
    pub(super) token: String,
    /// How it joins.
    pub(super) method: Option<JoinMethod>,
    /// Who AWS says that it is.
    pub(super) identity: Option<CallerIdentity>,
}

impl JoinFacts {
    pub(super) fn of(request: &v1::JoinRequest, remote: Option<SocketAddr>) -> Self {
        Self {
            hostname: request.hostname.chars().take(HOSTNAME_CHARS_MAX).collect(),
            services: request
                .services
                .join(",")
                .chars()
                .take(SERVICES_CHARS_MAX)
                .collect(),
            remote,
            token: String::new(),
            method: None,
            identity: None,
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let identity = self.identity.as_ref();
        let fields = [
            ("host", self.hostname.clone()),
            ("roles", self.services.clone()),
            ("token_name", self.token.clone()),
            (
                "method",
                self.method.map_or("", JoinMethod::as_str).to_owned(),
            ),
            (
                "aws.account",
                identity.map_or(String::new(), |caller| caller.account.clone()),
            ),
            (
                "aws.arn",
                identity.map_or(String::new(), |caller| caller.arn.clone()),
            ),
            (
                "addr.remote",
                self.remote
                    .map_or(String::new(), |remote| remote.to_string()),
            ),
        ];
        fields.into_iter().filter(|(_, value)| !value.is_empty())
    }
}

impl Access {
    /// Tells what came of it.
    pub(super) fn tell_join(
        &self,
        facts: &JoinFacts,
        outcome: Result<&v1::JoinResponse, &AccessError>,
    ) {
        let mut told = event::new(if outcome.is_ok() {
            event::JOIN
        } else {
            event::JOIN_FAILED
        });
        for (key, value) in facts.fields() {
            told.fields.insert(key.to_owned(), value);
        }
        let (host, token) = (facts.hostname.as_str(), facts.token.as_str());
        let method = facts.method.map_or("", JoinMethod::as_str);
        match outcome {
            Ok(joined) => {
                told.fields
                    .insert("host_id".to_owned(), joined.host_id.clone());
                tracing::info!(
                    host.id = joined.host_id,
                    host.name = host,
                    join.token = token,
                    join.method = method,
                    "a host joined"
                );
            }
            Err(error) => {
                told.error = error.to_string();
                let detail = match error {
                    AccessError::Iam(iam) => iam.detail(),
                    _ => None,
                };
                if let Some(detail) = &detail {
                    told.fields.insert("detail".to_owned(), detail.clone());
                }
                tracing::warn!(
                    host.name = host,
                    join.token = token,
                    join.method = method,
                    error = %error,
                    detail,
                    "a host was not let in"
                );
            }
        }
        self.parts.audit.record(told);
    }
}
