//! The instance metadata service, version 2: nothing without a token, which is asked for first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::json;

use super::{instance_id, session_of};
use crate::api::{Reply, parse_role_arn};
use crate::clock::{after, iso};
use crate::crypto::random_base64;
use crate::state::State;
use crate::world::Machine;

/// The longest life of a token, in seconds (6 hours).
const TOKEN_SECONDS_MAX: u32 = 21_600;
/// Tokens kept at once; when there are more, the expired ones go, then all.
const TOKENS_MAX: usize = 10_000;
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const CREDENTIALS: &str = "latest/meta-data/iam/security-credentials";

/// Tokens that were handed out, with the machine and their end.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<String, (String, Timestamp)>>,
}

impl Tokens {
    fn make(&self, machine: &str, now: Timestamp, expires_at: Timestamp) -> String {
        let token = random_base64::<42>();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= TOKENS_MAX {
            kept.retain(|_, (_, until)| *until > now);
            if kept.len() >= TOKENS_MAX {
                kept.clear();
            }
        }
        kept.insert(token.clone(), (machine.to_owned(), expires_at));
        token
    }

    fn is_good(&self, token: &str, machine: &str, now: Timestamp) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(token);
        found.is_some_and(|(of, until)| of == machine && *until > now)
    }
}

/// A request to one instance's service.
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    pub(super) machine: &'a Machine,
    pub(super) beyond_hop_limit: bool,
    pub(super) headers: &'a HeaderMap,
}

impl Asked<'_> {
    pub(super) fn answer(&self, state: &State, method: &Method, path: &str) -> Reply {
        if path == "latest/api/token" {
            return self.token(state, method);
        }
        let token = self.header(TOKEN_HEADER).unwrap_or_default();
        if !state
            .machines
            .tokens
            .is_good(token, self.name, state.clock.now())
        {
            return Reply::plain(401, "Unauthorized");
        }
        if method != Method::GET {
            return Reply::plain(405, "Method Not Allowed");
        }
        self.data(state, path)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn token(&self, state: &State, method: &Method) -> Reply {
        if method != Method::PUT {
            return Reply::plain(405, "Method Not Allowed");
        }
        if self.beyond_hop_limit {
            return Reply::never();
        }
        if self.headers.contains_key("x-forwarded-for") {
            return Reply::plain(403, "Forbidden");
        }
        let seconds = self.header(TTL_HEADER).and_then(|it| it.parse().ok());
        let Some(seconds) = seconds.filter(|it| (1..=TOKEN_SECONDS_MAX).contains(it)) else {
            return Reply::plain(400, "Bad Request");
        };
        let now = state.clock.now();
        let token = state
            .machines
            .tokens
            .make(self.name, now, after(now, seconds));
        Reply::plain(200, token).with(TTL_HEADER, seconds.to_string())
    }

    fn data(&self, state: &State, path: &str) -> Reply {
        let (account, role) = parse_role_arn(&self.machine.role_arn).unwrap_or_default();
        let region = &self.machine.region;
        match path.trim_end_matches('/') {
            CREDENTIALS => Reply::plain(200, role),
            "latest/meta-data/instance-id" => Reply::plain(200, instance_id(self.name)),
            "latest/meta-data/placement/region" => Reply::plain(200, region.clone()),
            "latest/meta-data/placement/availability-zone" => {
                Reply::plain(200, format!("{region}a"))
            }
            "latest/dynamic/instance-identity/document" => Reply::json(
                200,
                &json!({"accountId": account, "instanceId": instance_id(self.name), "region": region}),
            ),
            path if path.strip_prefix(CREDENTIALS) == Some(&format!("/{role}")) => {
                self.credentials(state)
            }
            _ => Reply::plain(404, "Not Found"),
        }
    }

    /// A role that does not trust EC2 is told in an answer that is right otherwise.
    fn credentials(&self, state: &State) -> Reply {
        let now = iso(state.clock.now());
        let role = &self.machine.role_arn;
        let body = match session_of(state, self.name, self.machine) {
            Ok(session) => json!({
                "Code": "Success",
                "LastUpdated": now,
                "Type": "AWS-HMAC",
                "AccessKeyId": session.access_key,
                "SecretAccessKey": session.secret.expose(),
                "Token": session.token.expose(),
                "Expiration": iso(session.expires_at),
            }),
            Err(_) => json!({
                "Code": "AssumeRoleUnauthorizedAccess",
                "Message": format!("EC2 cannot assume the role {role}. Please see documentation at \
                    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_iam-ec2.html."),
                "LastUpdated": now,
            }),
        };
        Reply::json(200, &body)
    }
}
