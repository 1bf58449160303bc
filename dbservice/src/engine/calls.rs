//! Waits for a reason to end a session that is nobody's failure: shutdown, another endpoint, a lock, an expired
//! certificate, a silent client.
//!
//! This sleeps beside the relay and costs its hot path nothing: what the client sends is counted in an atomic that is
//! read at looks, and everything else wakes it by itself.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tidegate_core::{ErrorCode, Problem};
use tidegate_wire::SqlState;
use tokio::time::Instant;

use super::{
    refusals,
    running::FINISH_GRACE,
    session::Engine,
    terms::{Breach, Look, Silence, Terms},
};
use crate::{metrics::Cause, served::Serving};

/// Why we end a session ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// The agent shuts down; sessions may take so long to finish what they do.
    Drain(Duration),
    /// The client sent nothing for this long.
    Idle(Duration),
    /// The database is served no longer, or elsewhere.
    NotServed,
    /// The client asked for what is not done here.
    Refused(Box<Problem>),
    /// The session may not go on.
    Terms(Breach),
    /// The proxy that the session came through shuts down; sessions may take so long to finish what they do.
    ProxyEnds(Duration),
    /// What the client sent cannot be audited, and a role asks that the session ends then.
    Unaudited,
}

impl Call {
    /// Whether the session may come to a good end first: nobody has done anything that must stop now.
    pub(crate) const fn lets_finish(&self) -> bool {
        self.grace().is_some()
    }

    /// How long the session may take to come to a good end; `None`: no time at all.
    pub(crate) const fn grace(&self) -> Option<Duration> {
        match self {
            Self::Drain(grace) | Self::ProxyEnds(grace) => Some(*grace),
            Self::NotServed => Some(FINISH_GRACE),
            Self::Idle(_) | Self::Refused(_) | Self::Terms(_) | Self::Unaudited => None,
        }
    }

    /// The word for audit, and what the client is told.
    pub(crate) fn told(&self, database: &str) -> (Cause, SqlState, Problem) {
        let end = |cause, why: &str| {
            let problem = Problem::new(ErrorCode::AgentUnavailable, why).hint("connect again");
            (cause, SqlState::ADMIN_SHUTDOWN, problem)
        };
        match self {
            Self::Drain(_) => end(Cause::Drained, "the database service shuts down"),
            Self::ProxyEnds(_) => end(Cause::Drained, "the proxy shuts down"),
            Self::NotServed => end(
                Cause::NotServed,
                "the database is served no longer, or at another address",
            ),
            Self::Idle(most) => {
                let problem = Problem::new(
                    ErrorCode::AccessDenied,
                    format!(
                        "nothing was sent for {} s, the longest that your roles allow",
                        most.as_secs_f64()
                    ),
                )
                .hint("connect again");
                (Cause::Idle, SqlState::IDLE_SESSION_TIMEOUT, problem)
            }
            Self::Refused(problem) => (
                Cause::Refused,
                SqlState::from_bytes(problem.code.sqlstate().as_bytes())
                    .unwrap_or(SqlState::INTERNAL_ERROR),
                Problem::clone(problem),
            ),
            Self::Terms(breach) => {
                let (cause, problem) = refusals::breach(breach, database);
                (cause, SqlState::ADMIN_SHUTDOWN, problem)
            }
            Self::Unaudited => (
                Cause::NotAudited,
                SqlState::ADMIN_SHUTDOWN,
                refusals::not_audited(),
            ),
        }
    }
}

/// Waits until the session breaks a rule that its person is held to. `heard` counts what the client sent.
pub(crate) async fn rule_call(engine: &Engine, terms: &Terms, heard: &AtomicU64) -> Call {
    tokio::select! {
        biased;
        breach = breached(engine, terms) => Call::Terms(breach),
        most = silent(terms.options.client_idle_timeout, heard) => Call::Idle(most),
    }
}

/// Waits until the agent cannot go on with the session.
pub(crate) async fn end_call(engine: &Engine, serving: &Serving) -> Call {
    tokio::select! {
        () = engine.shutdown.cancelled() => Call::Drain(engine.drain_timeout),
        grace = serving.through.ended() => Call::ProxyEnds(grace),
        () = serving.ended.cancelled() => Call::NotServed,
    }
}

/// Judges at once, whenever a lock changes, and when time alone makes a difference.
async fn breached(engine: &Engine, terms: &Terms) -> Breach {
    let mut changes = engine.locks.changes();
    loop {
        let known = changes.borrow_and_update().clone();
        if let Err(breach) = terms.judge(&known, engine.clock.now()) {
            return breach;
        }
        let again = async {
            match terms.judge_again_at(&known) {
                Some(at) => engine.clock.wait_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The engine holds the sending end, so this does not fail.
            _ = changes.changed() => {}
            () = again => {}
        }
    }
}

async fn silent(most: Option<Duration>, heard: &AtomicU64) -> Duration {
    let Some(most) = most else {
        return std::future::pending().await;
    };
    let mut silence = Silence::new(most, heard.load(Ordering::Relaxed), Instant::now());
    loop {
        match silence.look(heard.load(Ordering::Relaxed), Instant::now()) {
            Look::Again(after) => tokio::time::sleep(after).await,
            Look::TooLong => return silence.most(),
        }
    }
}
