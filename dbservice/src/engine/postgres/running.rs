//! The last part of a session: it relays until one side ends, or until we have to end it, and closes both in order.

use std::time::Duration;

use tidegate_core::{ErrorCode, Problem};
use tidegate_wire::{SqlState, frontend};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    farewell::Farewell,
    record::{Ended, Record},
    relay::{QUEUE_BYTES_MAX, Relay, RelayEnd, Until},
    session::{Client, Connected, Engine},
    upstream::Upstream,
    view::View,
};
use crate::{metrics::Cause, served::Serving};

/// How long a session that was asked to stop may finish its statement and transaction.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_secs(10);

/// How long we then wait for the end of a message, to put our last words behind it.
pub(crate) const BOUNDARY_GRACE: Duration = Duration::from_secs(1);

/// How long saying goodbye to a database may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why we end a session ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// The agent shuts down.
    Drain,
    /// The database is served no longer, or elsewhere.
    NotServed,
}

type Running<S> = Relay<Client<S>, Upstream>;

/// Relays until the end, and closes both sides.
pub(crate) async fn relay<S>(
    engine: &Engine,
    serving: &Serving,
    connected: Connected<S>,
    record: &mut Record,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Connected {
        mut client,
        client_rest,
        mut database,
        database_rest,
        running,
        key,
    } = connected;
    client.get_mut().1.set_buffer_limit(Some(QUEUE_BYTES_MAX));
    database.get_mut().1.set_buffer_limit(Some(QUEUE_BYTES_MAX));
    let mut relay = Relay::new(
        (client, client_rest),
        (database, database_rest),
        View::new(running),
    );
    let called = async {
        tokio::select! {
            () = engine.shutdown.cancelled() => Call::Drain,
            () = serving.ended.cancelled() => Call::NotServed,
        }
    };
    let (end, call) = tokio::select! {
        biased;
        end = relay.run(Until::Ended, |statement| record.statement(&statement)) => (end, None),
        call = called => (wind_down(&mut relay, record).await, Some(call)),
    };
    drop(key);
    record.counted(relay.view.counts());
    let (farewell, ended) = judge(&relay.view, end, call);
    close_database(&mut relay).await;
    farewell.say(&mut relay.client).await;
    ended
}

/// Lets the session come to a good end, then to any.
async fn wind_down<S>(relay: &mut Running<S>, record: &mut Record) -> RelayEnd
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    for (grace, until) in [
        (DRAIN_GRACE, Until::Idle),
        (BOUNDARY_GRACE, Until::Boundary),
    ] {
        let run = relay.run(until, |statement| record.statement(&statement));
        if let Ok(end) = timeout(grace, run).await {
            return end;
        }
    }
    RelayEnd::Stopped
}

/// What the client is told, and what is recorded.
fn judge(view: &View, end: RelayEnd, call: Option<Call>) -> (Farewell, Ended) {
    let tell = |problem: Problem, state: SqlState| {
        if view.may_speak_to_client() && !view.database_gave_up() {
            Farewell::SaidAs(state, Box::new(problem))
        } else {
            Farewell::Nothing
        }
    };
    let broken = |what: &dyn std::fmt::Display| {
        let problem = Problem::new(
            ErrorCode::ProtocolViolation,
            "the session was ended because a message has an impossible length",
        );
        (
            tell(problem, SqlState::PROTOCOL_VIOLATION),
            Ended::because(Cause::Protocol, what),
        )
    };
    match end {
        RelayEnd::Client(_) | RelayEnd::Database(_) if view.client_said_goodbye() => {
            (Farewell::Nothing, Ended::plain(Cause::ClientTerminated))
        }
        RelayEnd::Client(None) => (Farewell::Nothing, Ended::plain(Cause::ClientClosed)),
        RelayEnd::Client(Some(error)) => (
            Farewell::Nothing,
            Ended::because(Cause::ClientFailed, error),
        ),
        RelayEnd::Database(error) => {
            let problem = Problem::new(
                ErrorCode::DatabaseUnreachable,
                "the database closed the connection",
            )
            .hint("connect again");
            let ended = match error {
                None => Ended::plain(Cause::DatabaseClosed),
                Some(error) => Ended::because(Cause::DatabaseFailed, error),
            };
            (tell(problem, SqlState::CONNECTION_FAILURE), ended)
        }
        RelayEnd::ClientFrame(error) => broken(&format_args!("client: {error}")),
        RelayEnd::DatabaseFrame(error) => broken(&format_args!("database: {error}")),
        RelayEnd::Stopped => {
            let (cause, why) = match call {
                Some(Call::NotServed) => (
                    Cause::NotServed,
                    "the database is served no longer, or at another address",
                ),
                Some(Call::Drain) | None => (Cause::Drained, "the database service shuts down"),
            };
            let problem = Problem::new(ErrorCode::AgentUnavailable, why).hint("connect again");
            (tell(problem, SqlState::ADMIN_SHUTDOWN), Ended::plain(cause))
        }
    }
}

/// Says goodbye to the database, if that is possible here, and closes the connection.
async fn close_database<S>(relay: &mut Running<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let says_goodbye = relay.view.may_speak_to_database() && !relay.view.client_said_goodbye();
    let database = &mut relay.database;
    let closing = async {
        if says_goodbye {
            database.write_all(&frontend::terminate()).await?;
        }
        database.shutdown().await
    };
    // The session is over either way, and a database that does not listen notices the closed socket.
    let _ = timeout(GOODBYE_TIMEOUT, closing).await;
}
