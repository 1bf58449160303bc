//! What MySQL adds to a session: greeting and answer, the login, and what `KILL` is told.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tidegate_core::{ErrorCode, Problem};
use tidegate_identity::{ALPN_MYSQL, secret};
use tidegate_wire::{
    SqlState,
    mysql::{
        Capabilities,
        handshake::{Answer, First, Greeting, HandshakeError, NATIVE_PASSWORD, SCRAMBLE_BYTES},
        reply,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    entry::{Entered, Entering},
    greeted::{Greeted, connect_greeted},
    login::login_failed,
    packets::{self, ReadError},
    stopping::{Owner, Running, Target},
    view::MysqlView,
    words,
};
use crate::{
    engine::{
        ahead::{Ahead, alongside},
        farewell::Farewell,
        identify::{self, Named},
        postgres,
        record::{Ended, Record},
        refusals,
        session::{
            self, Accepted, Client, Connected, Engine, Identified, Incoming, Permitted, Protocol,
            STARTUP_TIMEOUT, Step, Turned,
        },
        upstream::Upstream,
    },
    metrics::Cause,
    wanted::Wanted,
};

/// The place of a client's answer behind a greeting and a request for TLS; what we say upstream has the same.
pub(super) const BEHIND_SSL_REQUEST: u8 = 2;

/// What the client began with, and what came behind it.
struct Opening {
    answer: Answer,
    rest: Bytes,
}

/// Sessions in MySQL's protocol.
struct Mysql {
    /// The place of our next packet to the client, until the session runs.
    next_sequence: u8,
    /// The number for its connection that the client was greeted with; 0 for none.
    greeted_as: u32,
}

/// Serves one client from its handshake to its end. `greeted_as` is the number for its connection with which a proxy
/// greeted it, and 0 for a client that no proxy greeted.
pub(crate) async fn serve<S>(engine: &Engine, incoming: Incoming<S, Greeted>, greeted_as: u32)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let protocol = Mysql {
        next_sequence: 0,
        greeted_as,
    };
    session::serve(engine, incoming, protocol).await;
}

impl Protocol for Mysql {
    type Begun = Greeted;
    type View = MysqlView;

    async fn establish<'e, S>(
        &mut self,
        engine: &'e Engine,
        mut accepted: Accepted<S, Greeted>,
        record: &mut Record,
    ) -> Step<Connected<'e, S, MysqlView>, S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let is_greeted = accepted.client.get_ref().1.alpn_protocol() != Some(ALPN_MYSQL);
        let (offered, database) = if is_greeted {
            self.next_sequence = BEHIND_SSL_REQUEST;
            (Capabilities::COMMON, None)
        } else {
            let (database, rest) = self.greet(engine, accepted).await?;
            accepted = rest;
            let offered = offered(database.greeting.capabilities);
            (offered, Some(database))
        };
        let identified = self.identify(accepted, offered, engine, record).await?;
        let permitted = identified.authorise(engine)?;
        self.connect(permitted, database, engine).await
    }

    fn last_words(&self, state: SqlState, problem: &Problem) -> Bytes {
        words::error(self.next_sequence, state, problem)
    }
}

impl Mysql {
    /// Greets a client in the name of the database, and with its number for the connection, by which clients ask to stop
    /// a statement. Nothing is said to somebody without a certificate.
    async fn greet<S>(
        &mut self,
        engine: &Engine,
        mut accepted: Accepted<S, Greeted>,
    ) -> Step<(Greeted, Accepted<S, Greeted>), S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let known = accepted.person(&engine.cluster).map(drop);
        if let Err(problem) = known {
            return Err(Turned::by(accepted.client, Cause::Denied, problem));
        }
        let ready = match refusals::available(&accepted.wanted) {
            Ok(()) => connected(engine, &accepted.wanted, accepted.ahead.take()).await,
            Err(problem) => Err(problem),
        };
        let database = match ready {
            Ok(database) => database,
            Err(problem) => {
                let cause = Cause::DatabaseUnavailable;
                return Err(Turned::by(accepted.client, cause, problem));
            }
        };
        let scramble = match scramble() {
            Ok(scramble) => scramble,
            Err(problem) => return Err(Turned::by(accepted.client, Cause::Internal, problem)),
        };
        let greeting = Greeting {
            scramble,
            capabilities: offered(database.greeting.capabilities),
            plugin: NATIVE_PASSWORD.to_owned(),
            ..database.greeting.clone()
        };
        if let Err(error) = say(&mut accepted.client, &greeting.encode()).await {
            let ended = Ended::because(Cause::ClientFailed, error);
            return Err(Turned::silently(accepted.client, ended));
        }
        self.next_sequence = 1;
        self.greeted_as = greeting.thread_id;
        Ok((database, accepted))
    }

    async fn identify<S>(
        &mut self,
        mut accepted: Accepted<S, Greeted>,
        offered: Capabilities,
        engine: &Engine,
        record: &mut Record,
    ) -> Step<Identified<S, Greeted, Opening>, S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut buffer = BytesMut::with_capacity(512);
        let reading = timeout(
            STARTUP_TIMEOUT,
            packets::next(&mut accepted.client, &mut buffer),
        );
        let packet = match alongside(&mut accepted.ahead, reading).await {
            Ok(Ok(packet)) => packet,
            Ok(Err(error @ (ReadError::Closed | ReadError::Io(_)))) => {
                let ended = Ended::because(Cause::Handshake, error);
                return Err(Turned::silently(accepted.client, ended));
            }
            Ok(Err(error @ ReadError::TooLong(_))) => {
                return Err(broke_the_protocol(accepted.client, &error));
            }
            Err(_) => {
                return Err(broke_the_protocol(
                    accepted.client,
                    &format_args!("no answer came in {} s", STARTUP_TIMEOUT.as_secs()),
                ));
            }
        };
        if packet.payload.is_empty() {
            return Err(speaks_postgres(accepted));
        }
        self.next_sequence = packet.sequence.wrapping_add(1);
        let mut answer = match First::parse(&packet.payload) {
            Ok(First::Answer(answer)) => answer,
            Ok(First::SslRequest(_)) => {
                let why = &"encryption was asked for a second time";
                return Err(broke_the_protocol(accepted.client, why));
            }
            Err(error @ HandshakeError::Ancient) => {
                return Err(broke_the_protocol(accepted.client, &error));
            }
            Err(error) => return Err(broke_the_protocol(accepted.client, &error)),
        };
        if compresses(answer.capabilities, offered) {
            let problem = Problem::new(
                ErrorCode::ProtocolViolation,
                "your client compresses what it sends, which it was not offered",
            )
            .hint("connect without compression");
            return Err(Turned::by(accepted.client, Cause::Handshake, problem));
        }
        answer.capabilities = answer.capabilities & (offered | Capabilities::CLIENT_MYSQL);
        let (user, certificate_ends) = match accepted.person(&engine.cluster) {
            Ok(person) => person,
            Err(problem) => return Err(Turned::by(accepted.client, Cause::Denied, problem)),
        };
        record.person(&user);
        let named = Named {
            db_user: Some(answer.user.as_str()).filter(|user| !user.is_empty()),
            db_name: answer.database.as_deref(),
            db_name_is_users: false,
        };
        match identify::asked(user, named, accepted.wanted.database.name.as_str()) {
            Ok(asked) => {
                let program = answer
                    .attribute("program_name")
                    .or_else(|| answer.attribute("_client_name"));
                record.asked(&asked, program.as_deref());
                Ok(Identified {
                    accepted,
                    opening: Opening {
                        answer,
                        rest: buffer.freeze(),
                    },
                    asked,
                    certificate_ends,
                })
            }
            Err(problem) => Err(Turned::by(accepted.client, Cause::Denied, problem)),
        }
    }

    async fn connect<'e, S>(
        &mut self,
        permitted: Permitted<S, Greeted, Opening>,
        database: Option<Greeted>,
        engine: &'e Engine,
    ) -> Step<Connected<'e, S, MysqlView>, S>
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
            opening: Opening { answer, rest },
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
            answer,
        };
        let entered = entering.enter(database, ahead, login);
        let Entered {
            upstream,
            number,
            capabilities,
            logged_in,
        } = match Box::pin(entered).await {
            Ok(entered) => entered,
            Err(failure) => {
                let (farewell, ended) = failure.told(&plan, |failure| {
                    login_failed(&wanted, failure, self.next_sequence)
                });
                return Err(Box::new(Turned {
                    client,
                    farewell,
                    ended,
                }));
            }
        };
        let owner = Owner {
            person: permit.user().to_owned(),
            database: wanted.database.name.to_string(),
            db_user: permit.db_user().to_owned(),
        };
        let address = match peer(&upstream) {
            Ok(address) => address,
            Err(problem) => return Err(Turned::by(client, Cause::DatabaseUnavailable, problem)),
        };
        let running = Running::default();
        let target = Target {
            wanted,
            address,
            number,
            running: running.clone(),
            plan,
            person: owner.person.clone(),
            connector: Arc::clone(&engine.connector),
            credentials: Arc::clone(&engine.credentials),
            is_asked: AtomicBool::new(false),
        };
        let numbers = engine.mysql_numbers.clone();
        let target = Arc::new(target);
        // The database knows its own number by itself.
        let known = (![0, number].contains(&self.greeted_as))
            .then(|| numbers.know(self.greeted_as, owner.clone(), Arc::clone(&target)));
        let view = MysqlView::new(capabilities, running, move |kill| {
            numbers.kill(kill, &owner)
        });
        let ok = reply::renumbered(self.next_sequence, &logged_in.ok);
        if let Err(error) = say(&mut client, &ok).await {
            let ended = Ended::because(Cause::ClientFailed, error);
            return Err(Turned::silently(client, ended));
        }
        Ok(Connected {
            client,
            client_rest: rest,
            database: upstream,
            database_rest: logged_in.rest,
            view,
            // The number finds nobody once `known` is dropped: this keeps it as long as the session runs.
            stop: Some(
                async move {
                    let _known = known;
                    target.end().await;
                }
                .boxed(),
            ),
            terms,
            place,
        })
    }
}

/// Whether a client goes on compressed although nobody offered it. Some drivers do, and would wait for ever.
fn compresses(client: Capabilities, offered: Capabilities) -> bool {
    let refused = client.without(offered);
    refused.has(Capabilities::COMPRESS) || refused.has(Capabilities::ZSTD)
}

/// What a client may use of what a database can, with what the handshake itself needs.
fn offered(database: Capabilities) -> Capabilities {
    (database & Capabilities::WATCHED)
        | Capabilities::PROTOCOL_41
        | Capabilities::SECURE_CONNECTION
        | Capabilities::PLUGIN_AUTH
}

/// The connection that was begun ahead, or one that is made now.
pub(super) async fn connected(
    engine: &Engine,
    wanted: &Wanted,
    ahead: Option<Ahead<Greeted>>,
) -> Result<Greeted, Problem> {
    match ahead {
        Some(ahead) => ahead.finish().await,
        None => connect_greeted(&engine.connector, &wanted.database).await,
    }
}

/// The very address that a session is connected to.
fn peer(upstream: &Upstream) -> Result<SocketAddr, Problem> {
    let stream = upstream.get_ref().0.get_ref();
    stream.peer_addr().map_err(|error| {
        Problem::new(
            ErrorCode::DatabaseUnreachable,
            "the connection to the database broke",
        )
        .because(error)
    })
}

/// Random bytes without NUL, which would end them for clients that read them as text.
fn scramble() -> Result<[u8; SCRAMBLE_BYTES], Problem> {
    let random = secret::random_bytes::<SCRAMBLE_BYTES>().map_err(|error| {
        Problem::new(ErrorCode::Internal, "no greeting could be made").because(error)
    })?;
    Ok(random.map(|byte| byte % 127 + 1))
}

fn broke_the_protocol<S>(client: Client<S>, why: &dyn std::fmt::Display) -> Box<Turned<S>> {
    let problem = Problem::new(ErrorCode::ProtocolViolation, why.to_string());
    Turned::by(client, Cause::Handshake, problem)
}

/// PostgreSQL's start-up message begins with two zero bytes of its length, which here is a packet without a payload.
fn speaks_postgres<S>(accepted: Accepted<S, Greeted>) -> Box<Turned<S>> {
    let problem = Problem::new(
        ErrorCode::ProtocolViolation,
        format!(
            "database `{}` speaks MySQL, and your client PostgreSQL",
            accepted.wanted.database.name
        ),
    )
    .hint("connect with `tg db connect`, or with a MySQL client");
    let words = postgres::fatal(SqlState::PROTOCOL_VIOLATION, &problem);
    Box::new(Turned {
        client: accepted.client,
        farewell: Farewell::AsSent(words),
        ended: Ended::by(Cause::Handshake, &problem),
    })
}

async fn say<S>(client: &mut Client<S>, words: &[u8]) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(STARTUP_TIMEOUT, async {
        client.write_all(words).await?;
        client.flush().await
    })
    .await
    .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
