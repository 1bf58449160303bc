//! A wire front: what an AWS endpoint does and PostgreSQL does not.
//!
//! It answers SSLRequest, ends TLS, asks for the password and checks it, and then hands the session to PostgreSQL as
//! the mapped role. CancelRequests are passed on, with and without TLS. What differs:
//!
//! - *Redshift* (clusters and workgroups) asks in one of its three ways and takes minted passwords; start-up parameters
//!   that only Redshift knows are taken out and the server version becomes 8.0.2. `server_protocol_version` is never
//!   announced, so row descriptions keep PostgreSQL's layout.
//! - *RDS* asks for IAM tokens in clear, inside TLS ([`crate::presigned`]), and is plain PostgreSQL after that; *RDS
//!   Proxy* does the same in words of its own.
//!
//! - *RDS for MySQL and MariaDB*, and *RDS Proxy* before them, are the same over another protocol ([`mysql`]).
//!
//! A further protocol is a [`Speaks`] with an arm in [`serve`].

mod auth;
mod certificate;
mod manner;
mod mysql;
mod rds;
mod relay;
mod startup;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::auth::Admitted;
pub(crate) use self::certificate::Shows;
pub use self::manner::Manner;
pub(crate) use self::manner::{DELAY_MS_MAX, Manners};
use self::startup::{First, Refusal, Startup};
use crate::fleet::Endpoint;
use crate::journal::Login;
use crate::state::State;
use crate::world::{ResourceId, Speaks};

/// Connections of one endpoint at once, as many as a real cluster takes.
const CONNECTIONS_MAX: usize = 2_000;
/// How long a log-in may take.
const LOGIN_MAX: Duration = Duration::from_secs(60);
/// Requests for encryption before the start-up message: one for each kind.
const NEGOTIATIONS_MAX: usize = 2;
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening front.
#[derive(Debug)]
pub(crate) struct Front {
    cancel: CancellationToken,
    tasks: TaskTracker,
    shows: Shows,
    manners: Manners,
}

/// What one connection needs to know.
struct Site {
    state: Arc<State>,
    of: ResourceId,
    host: String,
    port: u16,
    speaks: Speaks,
    shows: Shows,
    manners: Manners,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Front {
    pub(crate) fn start(
        state: Arc<State>,
        endpoint: &Endpoint,
        speaks: Speaks,
        listener: TcpListener,
        shows: Shows,
    ) -> Self {
        let (cancel, tasks) = (state.cancel.child_token(), TaskTracker::new());
        let manners = Manners::default();
        let site = Arc::new(Site {
            state,
            of: endpoint.of(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            speaks,
            shows: shows.clone(),
            manners: manners.clone(),
        });
        let holder = site.state.world().holder(&site.of);
        if matches!(speaks, Speaks::Mysql | Speaks::MysqlProxy)
            && holder.is_some_and(|holder| !holder.users.is_empty())
        {
            // A server takes seconds to start; the first client should not wait for it.
            let site = Arc::clone(&site);
            tasks.spawn(cancel.clone().run_until_cancelled_owned(async move {
                if let Err(error) = mysql::ready(&site).await {
                    let error = crate::error_chain(&error);
                    tracing::warn!(of = %site.of, error, "no database");
                }
            }));
        }
        let accepting = accept(listener, site, tasks.clone(), cancel.clone());
        tasks.spawn(cancel.clone().run_until_cancelled_owned(accepting));
        tasks.close();
        Self {
            cancel,
            tasks,
            shows,
            manners,
        }
    }

    /// How it treats connections.
    pub(crate) fn manners(&self) -> &Manners {
        &self.manners
    }

    /// The certificate that it shows.
    pub(crate) fn shows(&self) -> &Shows {
        &self.shows
    }

    /// Stops listening and cuts every connection.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    site: Arc<Site>,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(of = %site.of, %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
            continue;
        };
        let (site, cancel) = (Arc::clone(&site), cancel.clone());
        tasks.spawn(cancel.run_until_cancelled_owned(async move {
            let served = Box::pin(serve(&site, stream)).await;
            if let Err(error) = served {
                tracing::debug!(of = %site.of, %error, "connection ended");
            }
            drop(permit);
        }));
    }
}

/// Serves one connection.
async fn serve(site: &Site, mut stream: TcpStream) -> std::io::Result<()> {
    match site.manners.now() {
        Manner::Usual | Manner::WithoutTls => {}
        Manner::Reset => return stream.set_zero_linger(),
        Manner::Silent => return silence(&mut stream).await,
        Manner::Slow { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
    }
    match site.speaks {
        Speaks::Postgres | Speaks::PostgresProxy | Speaks::Redshift => {
            serve_postgres(site, stream).await
        }
        Speaks::Mysql | Speaks::MysqlProxy => mysql::serve(site, stream).await,
    }
}

/// Listens to what is said and says nothing, until the client goes.
async fn silence(stream: &mut TcpStream) -> std::io::Result<()> {
    tokio::io::copy(stream, &mut tokio::io::sink())
        .await
        .map(drop)
}

/// Serves one connection of PostgreSQL's protocol, as far as encryption is not settled.
async fn serve_postgres(site: &Site, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    for _ in 0..=NEGOTIATIONS_MAX {
        match timeout(LOGIN_MAX, startup::read(&mut stream)).await?? {
            First::GssEncryption => stream.write_all(b"N").await?,
            First::Tls if site.manners.now() == Manner::WithoutTls => {
                stream.write_all(b"N").await?;
            }
            First::Tls => {
                stream.write_all(b"S").await?;
                let mut stream = timeout(LOGIN_MAX, site.shows.acceptor().accept(stream)).await??;
                let first = timeout(LOGIN_MAX, startup::read(&mut stream)).await??;
                return serve_settled(site, stream, first, true).await;
            }
            first => return serve_settled(site, stream, first, false).await,
        }
    }
    Ok(())
}

async fn serve_settled(
    site: &Site,
    mut stream: impl Stream,
    first: First,
    tls: bool,
) -> std::io::Result<()> {
    let startup = match first {
        First::Cancel(packet) => return relay::cancel(&site.state, &packet).await,
        First::Startup(startup) => startup,
        First::GssEncryption | First::Tls => {
            let refusal = Refusal::new("08P01", "a second request for encryption");
            return stream.write_all(&refusal.to_message()).await;
        }
    };
    let login = timeout(LOGIN_MAX, log_in(site, &mut stream, &startup, tls)).await?;
    let (refused, why) = match &login {
        Ok(_) => (None, None),
        Err(LoginError::Io(error)) => (Some(error.to_string()), None),
        Err(LoginError::Refused(refusal)) => {
            (Some(refusal.to_string()), refusal.why().map(str::to_owned))
        }
    };
    keep_record(site, &startup, tls, refused, why);
    match login {
        Ok(database) => relay::pass(stream, database).await,
        Err(LoginError::Io(error)) => Err(error),
        Err(LoginError::Refused(refusal)) => {
            stream.write_all(&refusal.to_message()).await?;
            stream.shutdown().await
        }
    }
}

/// Why a log-in came to nothing.
#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error("connection failed")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// From the start-up message to the point where PostgreSQL is ready for a query.
async fn log_in(
    site: &Site,
    stream: &mut impl Stream,
    startup: &Startup,
    tls: bool,
) -> Result<tokio::net::UnixStream, LoginError> {
    let admitted: Admitted = match site.speaks {
        Speaks::Redshift => auth::log_in(site, stream, startup, tls).await?,
        Speaks::Mysql | Speaks::MysqlProxy | Speaks::Postgres | Speaks::PostgresProxy => {
            rds::log_in(site, stream, startup, tls).await?
        }
    };
    let opened = relay::open(site, startup, &admitted).await;
    let mut database = opened.map_err(|error| {
        let error = crate::error_chain(&error);
        tracing::warn!(of = %site.of, error, "no database");
        Refusal::new("57P03", format!("the simulated database failed: {error}"))
    })?;
    relay::start_up(site, stream, &mut database, startup).await?;
    Ok(database)
}

fn keep_record(
    site: &Site,
    startup: &Startup,
    tls: bool,
    refused: Option<String>,
    why: Option<String>,
) {
    let others = |(name, _): &&(String, String)| name != "user" && name != "database";
    let params: BTreeMap<_, _> = startup
        .parameters()
        .iter()
        .filter(others)
        .cloned()
        .collect();
    site.state.logins.keep(Login {
        seq: 0,
        time: site.state.clock.now(),
        kind: site.of.kind,
        cluster: site.of.id.clone(),
        host: site.host.clone(),
        user: startup.user().to_owned(),
        database: startup.database().to_owned(),
        params,
        tls,
        refused,
        why,
    });
}
