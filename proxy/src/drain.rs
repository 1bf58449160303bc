//! The proxy's end: nothing new is taken, sessions may go on for a while, and the rest is told that it ends.
//!
//! The proxy sees ciphertext and cannot say anything to a client that has a session. Agents can: over their control
//! connections, which stay open until the end, they are asked to end the sessions that came through here. What is left
//! [`END_MAX`] later is cut off.

use std::{sync::Arc, time::Duration};

use tidegate_proto::v1::{EndSessions, control_response::Message};
use tidegate_service::tasks::ShutdownToken;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::shared::Shared;

/// From asking agents to end sessions until what is left is cut off.
pub const END_MAX: Duration = Duration::from_secs(5);

/// What statements get of it: agents then say why they end, which takes a round trip or two.
const FINISH_MAX: Duration = Duration::from_secs(3);

const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits for shutdown, then for sessions to end by themselves, and ends the rest. Ends control connections when it is done.
pub(crate) async fn drain(shared: Arc<Shared>, shutdown: ShutdownToken) {
    shutdown.cancelled().await;
    let hurry = shared.tasks.hurry();
    let timeout = shared.tasks.drain().timeout;
    info!(
        sessions = shared.sessions.len(),
        timeout_seconds = timeout.as_secs(),
        "draining: taking no new clients"
    );
    let ended_by_themselves = tokio::select! {
        ended = until_idle(&shared, timeout) => ended,
        () = hurry.cancelled() => false,
    };
    if !ended_by_themselves {
        end_sessions(&shared);
        if !until_idle(&shared, END_MAX).await {
            warn!(
                sessions = shared.sessions.len(),
                "cutting off sessions that outlast the drain"
            );
            shared.sessions.abort_all();
        }
    }
    shared.drained.cancel();
}

fn end_sessions(shared: &Shared) {
    let within_ms = u32::try_from(FINISH_MAX.as_millis()).unwrap_or(u32::MAX);
    let agents = shared.agents.all();
    let asked = agents
        .iter()
        .filter(|agent| agent.send(Message::EndSessions(EndSessions { within_ms })))
        .count();
    info!(
        sessions = shared.sessions.len(),
        agents.asked = asked,
        "asking agents to end the sessions that are left"
    );
}

/// Whether no session is left within this time, nor a connection that may become one.
async fn until_idle(shared: &Shared, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if shared.sessions.len() + shared.handshakes.len() == 0 {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(CHECK_INTERVAL).await;
    }
}
