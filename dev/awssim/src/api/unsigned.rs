//! Answers to requests that nobody signs, with the faults that strike them and a record in the journal.

use std::time::{Duration, Instant};

use http::HeaderMap;

use super::strike::damage;
use super::{Delivery, Reply};
use crate::faults::{DELAY_MS_MAX, FaultKind, Site};
use crate::journal;
use crate::state::State;

/// A request without a signature.
pub(crate) struct Unsigned<'a> {
    /// As faults and the journal name it: `metadata`, `container`, `trust`.
    pub(crate) service: &'static str,
    /// `METHOD PATH`.
    pub(crate) action: String,
    /// Of the role that is asked for; empty where there is none.
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

/// Gives the answer, unless a fault strikes first.
pub(crate) async fn answer_unsigned(
    state: &State,
    asked: Unsigned<'_>,
    answer: impl FnOnce() -> Reply,
) -> Reply {
    let started = Instant::now();
    let site = Site {
        service: asked.service,
        action: &asked.action,
        account: asked.account,
        region: asked.region,
        page: 1,
    };
    let strike = state.faults.strike(&site);
    let mut reply = match &strike {
        Some(FaultKind::AccessDenied) => Reply::plain(403, "Forbidden"),
        Some(FaultKind::Error {
            status, message, ..
        }) => Reply::plain(*status, message.clone()),
        Some(FaultKind::ExpiredToken) => Reply::plain(401, "Unauthorized"),
        Some(FaultKind::InternalFailure) => Reply::plain(500, "Internal Server Error"),
        Some(FaultKind::Throttling) => Reply::plain(503, "Slow Down"),
        Some(FaultKind::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis((*ms).min(DELAY_MS_MAX))).await;
            answer()
        }
        _ => answer(),
    };
    reply.date = state.clock.now();
    damage(&mut reply, false, strike.as_ref());
    let unanswered = matches!(reply.delivery, Delivery::Never | Delivery::Reset);
    let agent = asked.headers.get("user-agent");
    state.calls.keep(journal::Call {
        seq: 0,
        time: state.clock.now(),
        principal: None,
        account: Some(asked.account.to_owned()).filter(|account| !account.is_empty()),
        access_key: None,
        service: asked.service.to_owned(),
        region: asked.region.to_owned(),
        action: asked.action.clone(),
        params: std::collections::BTreeMap::new(),
        status: if unanswered { 0 } else { reply.status },
        error: (reply.status >= 400).then(|| reply.status.to_string()),
        fault: strike.as_ref().map(|kind| format!("{kind:?}")),
        ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        user_agent: agent.and_then(|it| it.to_str().ok()).map(str::to_owned),
    });
    reply
}

impl Reply {
    /// An answer in plain text.
    pub(crate) fn plain(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            request_id: uuid::Uuid::new_v4().to_string(),
            content_type: "text/plain",
            error_type: None,
            body: body.into(),
            headers: Vec::new(),
            date: jiff::Timestamp::UNIX_EPOCH,
            delivery: Delivery::Whole,
        }
    }

    /// An answer in JSON.
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self {
            content_type: "application/json",
            ..Self::plain(status, body.to_string())
        }
    }

    /// No answer.
    pub(crate) fn never() -> Self {
        Self {
            delivery: Delivery::Never,
            ..Self::plain(0, "")
        }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
