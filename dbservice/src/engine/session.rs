//! The steps of a session, each a type that the next one consumes, whatever protocol it speaks.
//!
//! `Accepted` (TLS is up) → `Identified` (a person asks for something) → `Permitted` (a role allows it) → `Connected`
//! (the database let us in) → relaying → [`Ended`]. A step that cannot be taken gives a [`Turned`]: the client, what
//! to tell it, and how the session ended.
//!
//! A [`Protocol`] says what is its own: how a client names what it wants, and how the database is logged in to.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use rustls::ServerConfig;
use tidegate_core::{ClusterName, Permit, Problem};
use tidegate_identity::UserHolder;
use tidegate_service::{clock::SharedClock, settings::DatabaseSettings, tasks::ShutdownToken};
use tidegate_wire::{SqlState, route::route_of_sni};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{Instrument, info_span};

use super::{
    admission::{Admission, Refusal, admit},
    ahead::{Ahead, alongside},
    bulk::BulkReader,
    farewell::Farewell,
    identify::{self, Asked},
    mysql,
    postgres::CancelRegistry,
    record::{Ended, Record},
    refusals::with_the_way,
    running,
    terms::{AgentNames, Terms},
    upstream::{Connector, Upstream},
    view::View,
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

/// How long a client may take for what comes before its session, step by step.
pub(crate) const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

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
    pub(crate) mysql_numbers: mysql::Numbers,
    pub(crate) audit: AuditQueue,
    pub(crate) metrics: ServiceMetrics,
    /// Hears how sessions fare.
    pub(crate) health: Arc<Health>,
    pub(crate) clock: SharedClock,
    /// What the configuration says now.
    pub(crate) settings: watch::Receiver<DatabaseSettings>,
    pub(crate) shutdown: ShutdownToken,
    /// How long sessions may then take to finish their statement and transaction.
    pub(crate) drain_timeout: Duration,
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
pub(crate) struct Incoming<S, A> {
    /// The bytes, beginning with the ClientHello.
    pub(crate) stream: S,
    /// The agent's TLS configuration of this moment.
    pub(crate) tls: Arc<ServerConfig>,
    /// The database that the client asked for.
    pub(crate) serving: Serving,
    /// Where the proxy says that the client is.
    pub(crate) client_addr: String,
    /// The connection to the database, when it was begun already.
    pub(crate) ahead: Option<Ahead<A>>,
}

pub(crate) type Client<S> = TlsStream<BulkReader<S>>;

/// What a protocol adds to a session.
pub(crate) trait Protocol: Send {
    /// A connection to a database as far as it can be made before anything is known of the client.
    type Begun: Send + 'static;
    /// What is understood of a session that runs.
    type View: View;

    /// Hears what the client wants, and opens it, as far as it may.
    fn establish<'e, S>(
        &mut self,
        engine: &'e Engine,
        accepted: Accepted<S, Self::Begun>,
        record: &mut Record,
    ) -> impl Future<Output = Step<Connected<'e, S, Self::View>, S>> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send;

    /// An error in the protocol's words, for a client whose session does not come about.
    fn last_words(&self, state: SqlState, problem: &Problem) -> Bytes;
}

/// A session that does not go on.
pub(crate) struct Turned<S> {
    pub(crate) client: Client<S>,
    pub(crate) farewell: Farewell,
    pub(crate) ended: Ended,
}

impl<S> Turned<S> {
    /// The client is told the problem.
    pub(crate) fn by(client: Client<S>, cause: Cause, problem: Problem) -> Box<Self> {
        Box::new(Self {
            client,
            ended: Ended::by(cause, &problem),
            farewell: Farewell::Said(Box::new(problem)),
        })
    }

    /// The client is told nothing.
    pub(crate) fn silently(client: Client<S>, ended: Ended) -> Box<Self> {
        Box::new(Self {
            client,
            farewell: Farewell::Nothing,
            ended,
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

pub(crate) type Step<T, S> = Result<T, Box<Turned<S>>>;

/// Serves one client from its handshake to its end.
pub(crate) async fn serve<S, P>(engine: &Engine, incoming: Incoming<S, P::Begun>, protocol: P)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Protocol,
{
    let mut record = Record::open(
        Arc::clone(&incoming.serving.wanted),
        incoming.client_addr.clone(),
        Arc::clone(&engine.clock),
        engine.audit.clone(),
        engine.metrics.clone(),
        Arc::clone(&engine.health),
        engine.settings.borrow().redact_iam_roles,
    );
    let ended = Box::pin(run(engine, incoming, protocol, &mut record)).await;
    record.close(ended).await;
}

async fn run<S, P>(
    engine: &Engine,
    incoming: Incoming<S, P::Begun>,
    mut protocol: P,
    record: &mut Record,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Protocol,
{
    let serving = incoming.serving.clone();
    let accepted = match Accepted::from(engine, incoming).await {
        Ok(accepted) => accepted,
        Err(ended) => return ended,
    };
    // Once it runs, a session wakes too often to enter a span each time.
    let span = info_span!("session", session.id = record.sid());
    let establishing = Box::pin(protocol.establish(engine, accepted, record)).instrument(span);
    let connected = match establishing.await {
        Ok(connected) => connected,
        Err(turned) => {
            let Turned {
                mut client,
                farewell,
                ended,
            } = *turned;
            let tried = |problem| with_the_way(problem, &serving.wanted, record.db_user());
            let farewell = farewell.map(tried);
            let words = |state: SqlState, problem: &Problem| protocol.last_words(state, problem);
            farewell.say(&mut client, words).await;
            return ended;
        }
    };
    record.started().await;
    running::relay(engine, &serving, connected, record).await
}

/// TLS is up; nobody is known.
pub(crate) struct Accepted<S, A> {
    pub(crate) client: Client<S>,
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) ahead: Option<Ahead<A>>,
}

impl<S, A> Accepted<S, A>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn from(engine: &Engine, incoming: Incoming<S, A>) -> Result<Self, Ended> {
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

    /// The person behind the client's certificate, and when that ends.
    ///
    /// # Errors
    ///
    /// A [`Problem`] for a client without a certificate that can be used here.
    pub(crate) fn person(&self, cluster: &ClusterName) -> Result<(UserHolder, Timestamp), Problem> {
        let certificate = self.client.get_ref().1.peer_certificates();
        let certificate = certificate.and_then(<[_]>::first).map(AsRef::as_ref);
        identify::person(certificate, cluster)
    }
}

/// A person asks for something, with a protocol's `opening`.
pub(crate) struct Identified<S, A, O> {
    pub(crate) accepted: Accepted<S, A>,
    pub(crate) opening: O,
    pub(crate) asked: Asked,
    pub(crate) certificate_ends: Timestamp,
}

impl<S, A, O> Identified<S, A, O> {
    /// Asks whether it may.
    pub(crate) fn authorise(self, engine: &Engine) -> Step<Permitted<S, A, O>, S> {
        let Self {
            accepted,
            opening,
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
                opening,
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
pub(crate) struct Permitted<S, A, O> {
    pub(crate) accepted: Accepted<S, A>,
    pub(crate) opening: O,
    pub(crate) permit: Permit,
    pub(crate) plan: LoginPlan,
    pub(crate) terms: Terms,
    pub(crate) place: Place,
}

/// The database let us in, and the client knows.
pub(crate) struct Connected<'e, S, V> {
    pub(crate) client: Client<S>,
    pub(crate) client_rest: Bytes,
    pub(crate) database: Upstream,
    pub(crate) database_rest: Bytes,
    pub(crate) view: V,
    /// Stops what the session leaves running, unless the database ended it or the client said goodbye. Dropped unused
    /// otherwise, and not before the session ends.
    pub(crate) stop: Option<BoxFuture<'e, ()>>,
    pub(crate) terms: Terms,
    /// Among the person's sessions, taken until the relay ends.
    pub(crate) place: Place,
}
