//! The steps of a session, each a type that the next one consumes.
//!
//! `Accepted` (TLS is up) → `Identified` (a person asks for something) → `Permitted` (a role allows it) → `Connected`
//! (the database let us in) → relaying → [`Ended`]. A step that cannot be taken gives a [`Turned`]: the client, what
//! to tell it, and how the session ended.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use rustls::ServerConfig;
use tidegate_core::{ClusterName, ErrorCode, Permit, Problem};
use tidegate_service::{clock::SharedClock, tasks::ShutdownToken};
use tidegate_wire::{
    route::route_of_sni,
    startup::{FirstMessage, StartupMessage},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{Instrument, info_span};

use super::{
    admission::{Admission, Refusal, admit},
    ahead::Ahead,
    bulk::BulkReader,
    cancel::{CancelKey, CancelRegistry, CancelTarget},
    cancelling,
    farewell::Farewell,
    first::{ReadFirstError, STARTUP_TIMEOUT, read_first},
    identify::{self, Asked},
    record::{Ended, Record},
    refusals, running,
    terms::{AgentNames, Terms},
    upstream::{Connector, Upstream},
    upstream_login::{LoggedIn, log_in, startup_for},
};
use crate::{
    audit::AuditQueue,
    credentials::{Credentials, LoginPlan},
    health::Health,
    locks::Locks,
    metrics::{Cause, ServiceMetrics},
    places::{Place, Places},
    roles::Roles,
    served::Serving,
    wanted::Wanted,
};

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What sessions need of the agent.
pub(crate) struct Engine {
    pub(crate) cluster: ClusterName,
    pub(crate) agent: AgentNames,
    pub(crate) roles: Roles,
    pub(crate) locks: Locks,
    pub(crate) places: Places,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) cancels: CancelRegistry,
    pub(crate) audit: AuditQueue,
    pub(crate) metrics: ServiceMetrics,
    /// Hears how sessions fare.
    pub(crate) health: Arc<Health>,
    pub(crate) clock: SharedClock,
    pub(crate) shutdown: ShutdownToken,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// A client's connection, as it came through a proxy.
#[derive(Debug)]
pub(crate) struct Incoming<S> {
    /// The bytes, beginning with the ClientHello.
    pub(crate) stream: S,
    /// The agent's TLS configuration of this moment.
    pub(crate) tls: Arc<ServerConfig>,
    /// The database that the client asked for.
    pub(crate) serving: Serving,
    /// Where the proxy says that the client is.
    pub(crate) client_addr: String,
    /// The connection to the database, when it was begun already.
    pub(crate) ahead: Option<Ahead>,
}

pub(crate) type Client<S> = TlsStream<BulkReader<S>>;

/// A session that does not go on.
pub(crate) struct Turned<S> {
    pub(crate) client: Client<S>,
    pub(crate) farewell: Farewell,
    pub(crate) ended: Ended,
}

impl<S> Turned<S> {
    fn by(client: Client<S>, cause: Cause, problem: Problem) -> Box<Self> {
        Box::new(Self {
            client,
            ended: Ended::by(cause, &problem),
            farewell: Farewell::Said(Box::new(problem)),
        })
    }

    fn refused(client: Client<S>, refusal: Refusal) -> Box<Self> {
        let Refusal {
            cause,
            problem,
            state,
        } = refusal;
        let mut turned = Self::by(client, cause, problem.clone());
        if let Some(state) = state {
            turned.farewell = Farewell::SaidAs(state, Box::new(problem));
        }
        turned
    }
}

type Step<T, S> = Result<T, Box<Turned<S>>>;

/// Serves one client from its handshake to its end.
pub(crate) async fn serve<S>(engine: &Engine, incoming: Incoming<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut record = Record::open(
        Arc::clone(&incoming.serving.wanted),
        incoming.client_addr.clone(),
        Arc::clone(&engine.clock),
        engine.audit.clone(),
        engine.metrics.clone(),
        Arc::clone(&engine.health),
    );
    let span = info_span!("session", session.id = record.sid());
    let ended = Box::pin(run(engine, incoming, &mut record))
        .instrument(span)
        .await;
    record.close(ended).await;
}

async fn run<S>(engine: &Engine, incoming: Incoming<S>, record: &mut Record) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let serving = incoming.serving.clone();
    let accepted = match Accepted::from(engine, incoming).await {
        Ok(accepted) => accepted,
        Err(ended) => return ended,
    };
    let connected = match Box::pin(establish(engine, accepted, record)).await {
        Ok(connected) => connected,
        Err(turned) => {
            let Turned {
                mut client,
                farewell,
                ended,
            } = *turned;
            farewell.say(&mut client).await;
            return ended;
        }
    };
    record.started().await;
    running::relay(engine, &serving, connected, record).await
}

async fn establish<S>(
    engine: &Engine,
    accepted: Accepted<S>,
    record: &mut Record,
) -> Step<Connected<S>, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let identified = accepted.identify(engine, record).await?;
    let permitted = identified.authorise(engine)?;
    permitted.connect(engine).await
}

/// TLS is up; nobody is known.
struct Accepted<S> {
    client: Client<S>,
    wanted: Arc<Wanted>,
    ahead: Option<Ahead>,
}

impl<S> Accepted<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn from(engine: &Engine, incoming: Incoming<S>) -> Result<Self, Ended> {
        let Incoming {
            stream,
            tls,
            serving,
            mut ahead,
            ..
        } = incoming;
        let shaking = timeout(
            HANDSHAKE_TIMEOUT,
            TlsAcceptor::from(tls).accept(BulkReader::new(stream)),
        );
        let client = alongside(&mut ahead, shaking)
            .await
            .map_err(|_| Ended::because(Cause::Handshake, "TLS handshake took too long"))?
            .map_err(|error| Ended::because(Cause::Handshake, error))?;
        let accepted = Self {
            client,
            wanted: serving.wanted,
            ahead,
        };
        accepted.check_route(&engine.cluster)?;
        Ok(accepted)
    }

    /// A proxy routes by a name that it reads in passing; the client's own TLS says what it really asked for.
    fn check_route(&self, cluster: &ClusterName) -> Result<(), Ended> {
        let asked = self.client.get_ref().1.server_name();
        match asked.and_then(|name| route_of_sni(name, cluster.as_str())) {
            Some(route) if !route.eq_ignore_ascii_case(&self.wanted.route) => Err(Ended::because(
                Cause::Protocol,
                format_args!(
                    "the proxy announced route `{}`, the client asked for `{route}`",
                    self.wanted.route
                ),
            )),
            _ => Ok(()),
        }
    }

    async fn identify(mut self, engine: &Engine, record: &mut Record) -> Step<Identified<S>, S> {
        let reading = timeout(STARTUP_TIMEOUT, read_first(&mut self.client));
        let (first, rest) = match alongside(&mut self.ahead, reading).await {
            Ok(Ok(first)) => first,
            Ok(Err(error)) => return Err(self.broke_the_protocol(&error)),
            Err(_) => {
                return Err(self.broke_the_protocol(&ReadFirstError::TimedOut));
            }
        };
        let startup = match first {
            FirstMessage::Startup(startup) => startup,
            FirstMessage::Cancel(request) => {
                let detail = cancelling::cancel(engine, request.process_id, &request.secret).await;
                return Err(Box::new(Turned {
                    client: self.client,
                    farewell: Farewell::Nothing,
                    ended: Ended::because(Cause::CancelRequest, detail),
                }));
            }
            FirstMessage::SslRequest | FirstMessage::GssEncRequest => {
                return Err(self.broke_the_protocol(&ReadFirstError::AlreadyEncrypted));
            }
        };
        let certificate = self.client.get_ref().1.peer_certificates();
        let certificate = certificate.and_then(<[_]>::first).map(AsRef::as_ref);
        let (user, certificate_ends) = match identify::person(certificate, &engine.cluster) {
            Ok(person) => person,
            Err(problem) => {
                return Err(Turned::by(self.client, Cause::Denied, problem));
            }
        };
        record.person(&user);
        match identify::asked(user, &startup, self.wanted.database.name.as_str()) {
            Ok(asked) => {
                record.asked(&asked, startup.get("application_name"));
                Ok(Identified {
                    accepted: self,
                    startup,
                    rest,
                    asked,
                    certificate_ends,
                })
            }
            Err(problem) => Err(Turned::by(self.client, Cause::Denied, problem)),
        }
    }

    fn broke_the_protocol(self, error: &ReadFirstError) -> Box<Turned<S>> {
        let problem = Problem::new(ErrorCode::ProtocolViolation, error.to_string());
        if matches!(error, ReadFirstError::Closed | ReadFirstError::Io(_)) {
            return Box::new(Turned {
                client: self.client,
                farewell: Farewell::Nothing,
                ended: Ended::because(Cause::Handshake, error),
            });
        }
        Turned::by(self.client, Cause::Handshake, problem)
    }
}

/// A person asks for something.
struct Identified<S> {
    accepted: Accepted<S>,
    startup: StartupMessage,
    rest: Bytes,
    asked: Asked,
    certificate_ends: Timestamp,
}

impl<S> Identified<S> {
    fn authorise(self, engine: &Engine) -> Step<Permitted<S>, S> {
        let Self {
            accepted,
            startup,
            rest,
            asked,
            certificate_ends,
        } = self;
        match admit(engine, &accepted.wanted, &asked, certificate_ends) {
            Ok(Admission {
                permit,
                plan,
                terms,
                place,
            }) => Ok(Permitted {
                accepted,
                startup,
                rest,
                permit,
                plan,
                terms,
                place,
            }),
            Err(refusal) => Err(Turned::refused(accepted.client, refusal)),
        }
    }
}

/// A role allows it. The permit is the proof without which nothing is dialled.
struct Permitted<S> {
    accepted: Accepted<S>,
    startup: StartupMessage,
    rest: Bytes,
    permit: Permit,
    plan: LoginPlan,
    terms: Terms,
    place: Place,
}

impl<S> Permitted<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn connect(self, engine: &Engine) -> Step<Connected<S>, S> {
        let Self {
            accepted:
                Accepted {
                    mut client,
                    wanted,
                    mut ahead,
                },
            startup,
            rest,
            permit,
            plan,
            terms,
            place,
        } = self;
        let minting = engine.credentials.login(&plan, permit.user());
        let login = match alongside(&mut ahead, minting).await {
            Ok(login) => login,
            Err(problem) => return Err(Turned::by(client, Cause::Credentials, problem)),
        };
        let mut upstream = match connected(engine, &wanted, ahead).await {
            Ok(upstream) => upstream,
            Err(problem) => return Err(Turned::by(client, Cause::DatabaseUnavailable, problem)),
        };
        let startup = startup_for(startup, &login.user, permit.db_name());
        let logged_in = match log_in(&mut upstream, &startup, &login).await {
            Ok(logged_in) => logged_in,
            Err(failure) => {
                let (farewell, ended) = refusals::login_failed(&wanted, &failure);
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
            return Err(Box::new(Turned {
                client,
                farewell: Farewell::Nothing,
                ended: Ended::because(Cause::ClientFailed, error),
            }));
        }
        Ok(Connected {
            client,
            client_rest: rest,
            database: upstream,
            database_rest: logged_in.rest,
            running,
            key,
            terms,
            place,
        })
    }
}

/// The connection that was begun ahead, or one that is made now.
async fn connected(
    engine: &Engine,
    wanted: &Wanted,
    ahead: Option<Ahead>,
) -> Result<Upstream, Problem> {
    match ahead {
        Some(ahead) => ahead.finish().await,
        None => {
            let stream = engine.connector.tcp(&wanted.database).await?;
            engine.connector.tls(&wanted.database, stream).await
        }
    }
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

/// The database let us in, and the client knows.
pub(crate) struct Connected<S> {
    pub(crate) client: Client<S>,
    pub(crate) client_rest: Bytes,
    pub(crate) database: Upstream,
    pub(crate) database_rest: Bytes,
    pub(crate) running: Arc<AtomicBool>,
    /// Worthless once dropped, so it is kept as long as the session runs.
    pub(crate) key: Option<CancelKey>,
    pub(crate) terms: Terms,
    /// Among the person's sessions, taken until the relay ends.
    pub(crate) place: Place,
}

async fn alongside<F: Future>(ahead: &mut Option<Ahead>, work: F) -> F::Output {
    match ahead {
        Some(ahead) => ahead.alongside(work).await,
        None => work.await,
    }
}
