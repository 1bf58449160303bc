//! The last part of a session: it relays until one side ends, or until we have to end it, and closes both in order.

use std::{ops::ControlFlow, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream::FuturesUnordered};
use tidegate_core::{ErrorCode, Problem, access::AuditMode};
use tidegate_wire::SqlState;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    calls::{Call, end_call, rule_call},
    farewell::Farewell,
    flow::QUEUE_BYTES_MAX,
    record::{Ended, Record},
    relay::{Relay, RelayEnd, Until},
    session::{Client, Connected, Engine},
    upstream::Upstream,
    view::View,
};
use crate::{metrics::Cause, served::Serving};

/// How long a session whose database is served no longer may finish its statement and transaction.
pub(crate) const FINISH_GRACE: Duration = Duration::from_secs(10);

/// How long we then wait for the end of a message, to put our last words behind it.
pub(crate) const BOUNDARY_GRACE: Duration = Duration::from_secs(1);

/// How long saying goodbye to a database may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

type Running<S, V> = Relay<Client<S>, Upstream, V>;

/// Relays until the end, and closes both sides.
pub(crate) async fn relay<S, V>(
    engine: &Engine,
    serving: &Serving,
    connected: Connected<'_, S, V>,
    record: &mut Record,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: View,
{
    let Connected {
        mut client,
        client_rest,
        mut database,
        database_rest,
        view,
        stop,
        terms,
        place,
    } = connected;
    client.get_mut().1.set_buffer_limit(Some(QUEUE_BYTES_MAX));
    database.get_mut().1.set_buffer_limit(Some(QUEUE_BYTES_MAX));
    let heard = view.heard();
    let mut relay = Relay::new((client, client_rest), (database, database_rest), view);
    let (end, call) = {
        // Polled only when it woke, not each time that bytes pass.
        let mut calls = FuturesUnordered::new();
        calls.push(rule_call(engine, &terms, &heard).left_future());
        calls.push(end_call(engine, serving).right_future());
        relay_until(&mut relay, &mut calls, record, terms.options.audit).await
    };
    drop(place);
    record.counted(relay.view.counts());
    let (farewell, ended) = judge(&relay.view, &end, call.as_ref(), &terms.database);
    let database_ended = matches!(end, RelayEnd::Database(_));
    let is_cut = !database_ended && !relay.view.client_said_goodbye();
    let leaves_nothing = async {
        if let Some(stop) = stop.filter(|_| is_cut) {
            // The database may be the reason why nothing goes on; the session is over either way.
            let _ = timeout(GOODBYE_TIMEOUT, stop).await;
        }
    };
    let view = relay.view;
    let says_goodbye = view.may_speak_to_database() && !view.client_said_goodbye();
    let goodbye = says_goodbye.then(|| view.goodbye());
    // What was held back sits in the connection's queue, and must not leave with a goodbye.
    let is_held = matches!(end, RelayEnd::ClientFrame(_))
        || matches!(call, Some(Call::Unaudited | Call::Refused(_)));
    let (mut client, database) = (relay.client, relay.database);
    tokio::join!(
        farewell.say(&mut client, |state, problem| view
            .last_words(state, problem)),
        async {
            if !is_held {
                close_database(database, goodbye).await;
            }
        },
        leaves_nothing
    );
    ended
}

/// Relays until one side ends, or the first call has been answered.
async fn relay_until<S, V>(
    relay: &mut Running<S, V>,
    calls: &mut (impl Stream<Item = Call> + Unpin),
    record: &mut Record,
    mode: AuditMode,
) -> (RelayEnd, Option<Call>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: View,
{
    let call = if let Some(Some(call)) = calls.next().now_or_never() {
        call
    } else {
        tokio::select! {
            biased;
            end = relay.run(Until::Ended, |statement| record.statement(&statement, mode)) => match end {
                RelayEnd::Held => Call::Unaudited,
                RelayEnd::Refused(problem) => Call::Refused(problem),
                end => return (end, None),
            },
            Some(call) = calls.next() => call,
        }
    };
    wind_down(relay, calls, record, mode, call).await
}

/// Lets the session come to a good end, if its call leaves the time, and then to any. A call that leaves none may come
/// meanwhile and counts instead.
async fn wind_down<S, V>(
    relay: &mut Running<S, V>,
    calls: &mut (impl Stream<Item = Call> + Unpin),
    record: &mut Record,
    mode: AuditMode,
    mut call: Call,
) -> (RelayEnd, Option<Call>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: View,
{
    if let Some(grace) = call.grace() {
        let finishing = relay.run(Until::Idle, |statement| record.statement(&statement, mode));
        tokio::select! {
            biased;
            Some(sooner) = calls.next() => call = sooner,
            finished = timeout(grace, finishing) => match finished {
                Ok(RelayEnd::Held) => call = Call::Unaudited,
                Ok(RelayEnd::Refused(problem)) => call = Call::Refused(problem),
                Ok(end) => return (end, Some(call)),
                Err(_) => {}
            },
        }
    }
    // Nothing of the client is taken here, so there is no statement to look at.
    let ending = relay.run(Until::Boundary, |_| ControlFlow::Break(()));
    let end = timeout(BOUNDARY_GRACE, ending).await;
    (end.unwrap_or(RelayEnd::Stopped), Some(call))
}

/// What the client is told, and what is recorded.
fn judge(
    view: &impl View,
    end: &RelayEnd,
    call: Option<&Call>,
    database: &str,
) -> (Farewell, Ended) {
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
        RelayEnd::Held | RelayEnd::Refused(_) | RelayEnd::Stopped => {
            let call = call.unwrap_or(&Call::Unaudited);
            let (cause, state, problem) = call.told(database);
            let ended = if call.lets_finish() {
                Ended::plain(cause)
            } else {
                Ended::because(cause, &problem.operator)
            };
            (tell(problem, state), ended)
        }
    }
}

/// Says goodbye to the database, where that is possible, and closes the connection.
async fn close_database(mut database: Upstream, goodbye: Option<Bytes>) {
    let closing = async {
        if let Some(goodbye) = goodbye {
            database.write_all(&goodbye).await?;
        }
        database.shutdown().await
    };
    // The session is over either way, and a database that does not listen notices the closed socket.
    let _ = timeout(GOODBYE_TIMEOUT, closing).await;
}
