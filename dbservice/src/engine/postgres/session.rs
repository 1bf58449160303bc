//! What PostgreSQL adds to a session: the start-up message, the login, and the cancel key.

use std::sync::{Arc, atomic::AtomicBool};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tidegate_core::{ErrorCode, Problem};
use tidegate_wire::{
    SqlState,
    startup::{FirstMessage, StartupMessage},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    cancel::{CancelKey, CancelTarget},
    cancelling,
    entry::Entering,
    first::{ReadFirstError, read_first},
    login_failed::login_failed,
    upstream_login::LoggedIn,
    view::PostgresView,
    words,
};
use crate::{
    engine::{
        ahead::alongside,
        identify::{self, Named},
        record::{Ended, Record},
        session::{
            self, Accepted, Client, Connected, Engine, Identified, Incoming, Permitted, Protocol,
            STARTUP_TIMEOUT, Step, Turned,
        },
        upstream::Upstream,
    },
    metrics::Cause,
    wanted::Wanted,
};

/// What the client began with, and what came behind it.
struct Opening {
    startup: StartupMessage,
    rest: Bytes,
}

/// Sessions in PostgreSQL's protocol.
struct Postgres;

/// Serves one client from its handshake to its end.
pub(crate) async fn serve<S>(engine: &Engine, incoming: Incoming<S, Upstream>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    session::serve(engine, incoming, Postgres).await;
}

impl Protocol for Postgres {
    type Begun = Upstream;
    type View = PostgresView;

    async fn establish<'e, S>(
        &mut self,
        engine: &'e Engine,
        accepted: Accepted<S, Upstream>,
        record: &mut Record,
    ) -> Step<Connected<'e, S, PostgresView>, S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let identified = identify(accepted, engine, record).await?;
        let permitted = identified.authorise(engine)?;
        connect(permitted, engine).await
    }

    fn last_words(&self, state: SqlState, problem: &Problem) -> Bytes {
        words::fatal(state, problem)
    }
}

async fn identify<S>(
    mut accepted: Accepted<S, Upstream>,
    engine: &Engine,
    record: &mut Record,
) -> Step<Identified<S, Upstream, Opening>, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let reading = timeout(STARTUP_TIMEOUT, read_first(&mut accepted.client));
    let (first, rest) = match alongside(&mut accepted.ahead, reading).await {
        Ok(Ok(first)) => first,
        Ok(Err(error)) => return Err(broke_the_protocol(accepted.client, &error)),
        Err(_) => {
            return Err(broke_the_protocol(
                accepted.client,
                &ReadFirstError::TimedOut,
            ));
        }
    };
    let startup = match first {
        FirstMessage::Startup(startup) => startup,
        FirstMessage::Cancel(request) => {
            let detail = if engine.cancels.pass_on(&request, record.client_addr()) {
                "passed on to the agent that it names".to_owned()
            } else {
                cancelling::cancel(engine, request.process_id, &request.secret).await
            };
            let ended = Ended::because(Cause::CancelRequest, detail);
            return Err(Turned::silently(accepted.client, ended));
        }
        FirstMessage::SslRequest | FirstMessage::GssEncRequest => {
            return Err(broke_the_protocol(
                accepted.client,
                &ReadFirstError::AlreadyEncrypted,
            ));
        }
    };
    let (user, certificate_ends) = match accepted.person(&engine.cluster) {
        Ok(person) => person,
        Err(problem) => return Err(Turned::by(accepted.client, Cause::Denied, problem)),
    };
    record.person(&user);
    let named = Named {
        db_user: startup.user(),
        db_name: startup.database(),
        db_name_is_users: true,
    };
    match identify::asked(user, named, accepted.wanted.database.name.as_str()) {
        Ok(asked) => {
            record.asked(&asked, startup.get("application_name"));
            Ok(Identified {
                accepted,
                opening: Opening { startup, rest },
                asked,
                certificate_ends,
            })
        }
        Err(problem) => Err(Turned::by(accepted.client, Cause::Denied, problem)),
    }
}

fn broke_the_protocol<S>(client: Client<S>, error: &ReadFirstError) -> Box<Turned<S>> {
    if matches!(error, ReadFirstError::Closed | ReadFirstError::Io(_)) {
        return Turned::silently(client, Ended::because(Cause::Handshake, error));
    }
    let problem = Problem::new(ErrorCode::ProtocolViolation, error.to_string());
    Turned::by(client, Cause::Handshake, problem)
}

async fn connect<S>(
    permitted: Permitted<S, Upstream, Opening>,
    engine: &Engine,
) -> Step<Connected<'_, S, PostgresView>, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Permitted {
        accepted:
            Accepted {
                mut client,
                wanted,
                mut ahead,
            },
        opening: Opening { startup, rest },
        permit,
        plan,
        terms,
        place,
    } = permitted;
    let minting = engine.credentials.login(&plan, permit.user());
    let login = match alongside(&mut ahead, minting).await {
        Ok(login) => login,
        Err(problem) => return Err(Turned::by(client, Cause::Credentials, problem)),
    };
    let entering = Entering {
        engine,
        wanted: &wanted,
        plan: &plan,
        permit: &permit,
        startup,
    };
    let (upstream, logged_in) = match Box::pin(entering.enter(ahead, login)).await {
        Ok(entered) => entered,
        Err(failure) => {
            let (farewell, ended) = failure.told(&plan, |failure| login_failed(&wanted, failure));
            return Err(Box::new(Turned {
                client,
                farewell,
                ended,
            }));
        }
    };
    let running = Arc::default();
    let key = match cancel_key(engine, wanted, &upstream, &logged_in, &running) {
        Ok(key) => key,
        Err(problem) => return Err(Turned::by(client, Cause::Internal, problem)),
    };
    let mut greeting = logged_in.before_key;
    if let Some(key) = &key {
        greeting.extend_from_slice(&key.frame());
    }
    greeting.unsplit(logged_in.after_key);
    if let Err(error) = greet(&mut client, &greeting).await {
        let ended = Ended::because(Cause::ClientFailed, error);
        return Err(Turned::silently(client, ended));
    }
    Ok(Connected {
        client,
        client_rest: rest,
        database: upstream,
        database_rest: logged_in.rest,
        view: PostgresView::new(running),
        // The key is worthless once dropped: this keeps it as long as the session runs.
        stop: key.map(|key| async move { cancelling::stop(engine, &key).await }.boxed()),
        terms,
        place,
    })
}

/// A cancel key of ours for the session, when the database gave one of its own.
fn cancel_key(
    engine: &Engine,
    wanted: Arc<Wanted>,
    upstream: &Upstream,
    logged_in: &LoggedIn,
    running: &Arc<AtomicBool>,
) -> Result<Option<CancelKey>, Problem> {
    let Some(key) = logged_in.key.clone() else {
        return Ok(None);
    };
    let failed = |cause: &dyn std::fmt::Display| {
        Problem::new(ErrorCode::Internal, "no cancel key could be made").because(cause)
    };
    let address = upstream
        .get_ref()
        .0
        .get_ref()
        .peer_addr()
        .map_err(|error| failed(&error))?;
    let target = CancelTarget {
        wanted,
        address,
        key,
        running: Arc::clone(running),
    };
    engine
        .cancels
        .register(target)
        .map(Some)
        .map_err(|error| failed(&error))
}

async fn greet<S>(client: &mut Client<S>, greeting: &BytesMut) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(STARTUP_TIMEOUT, async {
        client.write_all(greeting).await?;
        client.flush().await
    })
    .await
    .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
