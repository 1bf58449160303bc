//! Passes cancel requests on to the agents that the key may be of: its number names one, and hardly ever two. The one
//! that knows the key acts on it.
//!
//! Nothing is answered, whatever happens, as PostgreSQL does it: an answer would help to guess keys.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::PoisonError,
    time::Instant,
};

use tidegate_proto::v1::{CancelElsewhere, CancelStatement, control_response::Message};
use tidegate_wire::startup::CancelRequest;
use tracing::{debug, info};

use crate::{shared::Shared, tunnel::agents::Agent};

/// Asks the agents here that the key may be of, unless there were too many requests lately.
pub(crate) fn pass_on(shared: &Shared, request: &CancelRequest, addr: SocketAddr) {
    let statement = CancelStatement {
        process_id: request.process_id,
        secret: request.secret.to_vec(),
        client_addr: addr.to_string(),
    };
    ask(shared, &statement, addr.ip(), None);
}

/// As [`pass_on`], for an agent that a client asked, inside TLS, to cancel what is another one's.
pub(crate) fn elsewhere(shared: &Shared, asked: CancelElsewhere, by: &Agent) {
    let CancelElsewhere {
        process_id,
        secret,
        client_addr,
    } = asked;
    // What an agent says of a client counts for the client; what nobody can read counts for nobody in particular.
    let source = client_addr
        .parse()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |addr: SocketAddr| {
            addr.ip()
        });
    let statement = CancelStatement {
        process_id,
        secret,
        client_addr,
    };
    ask(shared, &statement, source, Some(by));
}

fn ask(shared: &Shared, statement: &CancelStatement, source: IpAddr, except: Option<&Agent>) {
    let admitted = shared
        .cancels
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .admit(source, Instant::now());
    if !admitted {
        shared.metrics.cancels_limited.inc();
        // Counted rather than told: whoever sends too many would also fill the log.
        debug!(
            client.address = statement.client_addr,
            "dropped a cancel request: too many"
        );
        return;
    }
    let agents = shared.agents.all();
    let asked = agents
        .iter()
        .filter(|agent| except.is_none_or(|except| except.host_id != agent.host_id))
        .filter(|agent| agent.may_know(statement.process_id))
        .filter(|agent| agent.send(Message::Cancel(statement.clone())))
        .count();
    info!(
        client.address = statement.client_addr,
        agents.asked = asked,
        agents.connected = agents.len(),
        "passed a cancel request on"
    );
}
