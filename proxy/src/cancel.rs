//! Passes cancel requests on to agents. The one that knows the key acts on it; the others ignore it.
//!
//! Nothing is answered, whatever happens, as PostgreSQL does it: an answer would help to guess keys.

use std::{net::SocketAddr, sync::PoisonError, time::Instant};

use tidegate_proto::v1::{CancelStatement, control_response::Message};
use tidegate_wire::startup::CancelRequest;
use tracing::{debug, info};

use crate::shared::Shared;

/// Asks every agent here, unless there were too many requests lately.
pub(crate) fn pass_on(shared: &Shared, request: &CancelRequest, addr: SocketAddr) {
    let admitted = shared
        .cancels
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .admit(addr.ip(), Instant::now());
    if !admitted {
        shared.metrics.cancels_limited.inc();
        // Counted rather than told: whoever sends too many would also fill the log.
        debug!(client.address = %addr, "dropped a cancel request: too many");
        return;
    }
    let agents = shared.agents.all();
    let mut asked = 0;
    for agent in &agents {
        let message = Message::Cancel(CancelStatement {
            process_id: request.process_id,
            secret: request.secret.to_vec(),
            client_addr: addr.to_string(),
        });
        asked += usize::from(agent.send(message));
    }
    info!(client.address = %addr, agents.asked = asked, agents.connected = agents.len(), "passed a cancel request on");
}
