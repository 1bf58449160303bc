//! A front of MySQL's protocol: RDS for MySQL and MariaDB, Aurora MySQL, and RDS Proxy before any of them.
//!
//! The server behind it greets; the front adds that it speaks TLS, ends it, has users with IAM authentication send their
//! token in clear as RDS does (a switch to `mysql_clear_password`), and logs in to the server as the user. After its OK
//! bytes pass as they are. RDS Proxy differs in what it refuses, and in its words: it may ask for TLS from everybody, takes
//! no tokens where IAM authentication is disabled, and is up while its target is not.
//!
//! Source: RDS user guide, "IAM database authentication for MariaDB, MySQL, and PostgreSQL", "Troubleshooting RDS Proxy"
//! (common issues with MySQL).

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{LOGIN_MAX, Site, Stream, rds};
use crate::fleet::FleetError;
use crate::journal::Login;
use crate::mariadb::Mariadb;
use crate::mariadb::wire::{self, Answer, OK, SWITCH};
use crate::world::{Holder, RdsTerms, Speaks};

/// The plugin by which clients send what they have as it is.
const CLEAR_PASSWORD: &[u8] = b"mysql_clear_password\0";

/// Why somebody is not let in: what is said, and what is not.
struct Refused {
    body: Vec<u8>,
    said: String,
    why: Option<String>,
}

impl Refused {
    fn new(code: u16, state: &str, message: String) -> Self {
        Self {
            body: wire::error(code, state, &message),
            said: format!("{state} {message}"),
            why: None,
        }
    }

    fn access(user: &str, why: &str) -> Self {
        let message = format!("Access denied for user '{user}'@'127.0.0.1' (using password: YES)");
        Self {
            why: Some(why.to_owned()),
            ..Self::new(1045, "28000", message)
        }
    }
}

/// Why a proxy lets nobody in, whoever it is.
fn proxy_is_closed(site: &Site, terms: &RdsTerms, holder: &Holder, tls: bool) -> Option<Refused> {
    if site.speaks != Speaks::MysqlProxy {
        return None;
    }
    if terms.require_tls && !tls {
        let message = "This RDS Proxy requires TLS connections".to_owned();
        return Some(Refused::new(3159, "HY000", message));
    }
    if !holder.is_up {
        let message = "Timed-out waiting to acquire database connection".to_owned();
        return Some(Refused::new(9501, "HY000", message));
    }
    None
}

/// The server behind a site, with all that the world says of it.
pub(super) async fn ready(site: &Site) -> Result<(Arc<Mariadb>, Holder), FleetError> {
    let holder = site.state.world().holder(&site.of);
    let holder = holder.ok_or_else(|| FleetError::Unknown(site.of.clone()))?;
    let server = site.state.fleet.mariadb(&holder.at).await?;
    server.ensure(&holder.databases, &holder.users).await?;
    Ok((server, holder))
}

/// Serves one connection.
pub(super) async fn serve(site: &Site, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (server, holder) = match ready(site).await {
        Ok(ready) => ready,
        Err(error) => {
            let error = crate::error_chain(&error);
            tracing::warn!(of = %site.of, error, "no database");
            let message = format!("the simulated database failed: {error}");
            return wire::write(&mut stream, 0, &wire::error(1105, "HY000", &message)).await;
        }
    };
    let mut database = UnixStream::connect(server.socket()).await?;
    let (_, greeting) = wire::read(&mut database).await?;
    wire::write(&mut stream, 0, &wire::with_tls(greeting)?).await?;
    let (number, first) = timeout(LOGIN_MAX, wire::read(&mut stream)).await??;
    if Answer::asks_for_tls(&first) {
        let accepting = site.shows.acceptor().accept(stream);
        let mut stream = timeout(LOGIN_MAX, accepting).await??;
        let (number, first) = timeout(LOGIN_MAX, wire::read(&mut stream)).await??;
        return settled(site, &holder, stream, database, number, &first, true).await;
    }
    settled(site, &holder, stream, database, number, &first, false).await
}

async fn settled(
    site: &Site,
    holder: &Holder,
    mut stream: impl Stream,
    mut database: UnixStream,
    number: u8,
    first: &[u8],
    tls: bool,
) -> std::io::Result<()> {
    let answer = Answer::read(first)?;
    let admitting = admit(site, holder, &mut stream, &answer, number, tls);
    let (number, admitted) = timeout(LOGIN_MAX, admitting).await??;
    let told = match admitted {
        Ok(()) => {
            wire::write(&mut database, 1, &answer.to_body()).await?;
            let (_, told) = wire::read(&mut database).await?;
            told
        }
        Err(refused) => {
            keep_record(site, &answer, tls, Some(refused.said), refused.why);
            wire::write(&mut stream, number, &refused.body).await?;
            return stream.shutdown().await;
        }
    };
    let is_in = told.first() == Some(&OK);
    let refused = (!is_in).then(|| String::from_utf8_lossy(&told[1..]).into_owned());
    keep_record(site, &answer, tls, refused, None);
    wire::write(&mut stream, number, &told).await?;
    if is_in {
        // However it ends, it is over for both sides.
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut database).await;
    }
    Ok(())
}

/// Whether somebody may log in, and the number of the next packet.
async fn admit(
    site: &Site,
    holder: &Holder,
    stream: &mut impl Stream,
    answer: &Answer,
    number: u8,
    tls: bool,
) -> std::io::Result<(u8, Result<(), Refused>)> {
    let next = number.wrapping_add(1);
    let user = answer.user.as_str();
    let Some(terms) = site.state.world().rds_terms(&site.of) else {
        let gone = Refused::new(1053, "08S01", "Server shutdown in progress".to_owned());
        return Ok((next, Err(gone)));
    };
    if let Some(closed) = proxy_is_closed(site, &terms, holder, tls) {
        return Ok((next, Err(closed)));
    }
    if !holder.users.contains(user) {
        return Ok((
            next,
            Err(Refused::access(
                user,
                "no such user with AWSAuthenticationPlugin",
            )),
        ));
    }
    if !tls {
        return Ok((
            next,
            Err(Refused::access(user, "IAM authentication without TLS")),
        ));
    }
    let mut switch = vec![SWITCH];
    switch.extend_from_slice(CLEAR_PASSWORD);
    wire::write(stream, next, &switch).await?;
    let (number, token) = wire::read(stream).await?;
    let verified = rds::verify(site, &terms, user, &token);
    let admitted = verified.map_err(|why| Refused::access(user, &why));
    Ok((number.wrapping_add(1), admitted))
}

fn keep_record(
    site: &Site,
    answer: &Answer,
    tls: bool,
    refused: Option<String>,
    why: Option<String>,
) {
    site.state.logins.keep(Login {
        seq: 0,
        time: site.state.clock.now(),
        kind: site.of.kind,
        cluster: site.of.id.clone(),
        host: site.host.clone(),
        user: answer.user.clone(),
        database: answer.database.clone().unwrap_or_default(),
        params: Default::default(),
        tls,
        refused,
        why,
    });
}
