//! `tg proxy db`: a door to a database on this machine, open as long as it is wanted.
//!
//! Nothing here waits for the network but the start: each connection finds its own way when it comes, so that a laptop may
//! sleep, move and come back.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_console::{
    Failure, Output, output,
    profile::{Profile, ProxyAddr},
    shell,
    table::visible,
    when,
};

use super::{
    Session, Speaks, certificate, choice, choose,
    ends::Ends,
    target::{self, Target, quote},
    tunnel::{Carrying, Passport, Place, Tunnel, Way},
};
use crate::{args::ProxyDbArgs, trust};

/// How often the login is looked at. The wall clock decides, not this: it stands still while a laptop sleeps.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The port by which libpq finds a tunnel's socket.
const SOCKET_PORT: u16 = 5432;
/// How long before the login ends that is said.
const WARNED_BEFORE: SignedDuration = SignedDuration::from_mins(10);

/// Opens a door and keeps it open until Ctrl-C.
pub(crate) async fn proxy(proxy: Option<&ProxyAddr>, args: ProxyDbArgs) -> Result<(), Failure> {
    // From here on the end is ours to tidy up after: a socket file must not stay.
    let ended = Ends::new()?;
    let session = Session::open(proxy, &args.which).await?;
    let (db_user, db_name) = choose(&session, args.who).await?;
    let route = session.route(db_user, db_name);
    let speaks = session.speaks;
    if !args.tunnel && speaks == Speaks::Mysql {
        return Err(Failure::usage(format!(
            "`{}` speaks MySQL, whose clients cannot show their certificate over a local port",
            route.database
        ))
        .hint("add --tunnel: then they need none"));
    }
    let passport = Passport::new(&session.profile, route.clone(), speaks)?;
    let host = target::host(&session.profile, &route.database);
    let way = Arc::new(Way::new(&session.profile, &host, passport)?);
    let addr = SocketAddr::new(args.listen, args.port);
    let tunnel = if args.socket {
        Tunnel::on_socket(Arc::clone(&way), speaks)?
    } else {
        let carrying = if args.tunnel {
            Carrying::Secured(speaks)
        } else {
            Carrying::AsIs
        };
        Tunnel::on_port(Arc::clone(&way), carrying, addr).await?
    };
    let opened = Opened::new(&session, &route, args.tunnel, tunnel.place());
    let command = if args.tunnel {
        opened.command(speaks)
    } else {
        let certificate = session.certificate(route.clone()).await?;
        let here = Target::new(&session.profile, &certificate, vec![reachable(args.listen)]);
        let port = opened.port.unwrap_or_default();
        format!("psql {}", shell::quote(&here.at_port(port).conninfo()))
    };
    warn(&tunnel, args.tunnel, args.listen);
    Output::new(args.format).value(&opened, || opened.text(&command, tunnel.is_private()))?;
    let keeping = keep(&session, &way, &route, !args.tunnel);
    tokio::select! {
        () = ended.wait() => Ok(()),
        () = keeping => Ok(()),
    }
}

/// Where clients of this machine find what listens there.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// What is open.
#[derive(Serialize)]
struct Opened {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    /// Whether it takes connections without a certificate.
    tunnel: bool,
}

impl Opened {
    fn new(session: &Session, route: &certificate::Route, tunnel: bool, place: &Place) -> Self {
        let usual = (session.speaks == Speaks::Postgres)
            .then(|| choice::usual_name(&session.database.kind).to_owned());
        let (host, port, socket) = match place {
            Place::Port(addr) => (
                Some(reachable(addr.ip()).to_string()),
                Some(addr.port()),
                None,
            ),
            Place::Socket(path) => (None, None, Some(path.display().to_string())),
        };
        Self {
            name: route.database.clone(),
            host,
            port,
            socket,
            user: route.db_user.clone(),
            database: route.db_name.clone().or(usual),
            tunnel,
        }
    }

    /// What starts the database's own client on a tunnel.
    fn command(&self, speaks: Speaks) -> String {
        let mut words = Vec::new();
        match speaks {
            Speaks::Postgres => {
                // libpq takes the folder of a socket for its host.
                let folder = self
                    .socket
                    .as_deref()
                    .and_then(|path| path.rsplit_once('/'));
                let host = folder.map(|(folder, _)| folder).or(self.host.as_deref());
                words.push(format!("host={}", quote(host.unwrap_or_default())));
                let port = self.port.unwrap_or(SOCKET_PORT);
                words.push(format!("port={port}"));
                words.push("sslmode=disable".to_owned());
                words.push(format!("user={}", quote(&self.user)));
                let name = self.database.iter();
                words.extend(name.map(|name| format!("dbname={}", quote(name))));
                format!("psql {}", shell::quote(&words.join(" ")))
            }
            Speaks::Mysql => {
                words.push("mysql".to_owned());
                words.extend(self.host.as_ref().map(|host| format!("--host={host}")));
                words.extend(self.port.map(|port| format!("--port={port}")));
                words.extend(self.socket.as_ref().map(|path| format!("--socket={path}")));
                words.push(format!("--user={}", self.user));
                let name = self.database.iter();
                words.extend(name.map(|name| format!("--database={name}")));
                let words: Vec<String> = words.iter().map(|word| shell::quote(word)).collect();
                words.join(" ")
            }
        }
    }

    fn text(&self, command: &str, is_private: bool) -> String {
        let place = match (&self.host, self.port, &self.socket) {
            (Some(host), Some(port), _) if host.contains(':') => format!("[{host}]:{port}"),
            (Some(host), Some(port), _) => format!("{host}:{port}"),
            (_, _, Some(socket)) => socket.clone(),
            _ => String::new(),
        };
        let what = if self.tunnel { "tunnel" } else { "proxy" };
        let needs = match (self.tunnel, is_private) {
            (true, true) => {
                "Programs need no certificate and no password here, and only yours are let in.\n"
            }
            (true, false) => "Programs need no certificate and no password here.\n",
            (false, _) => "Programs show your certificate themselves.\n",
        };
        let other = if self.tunnel {
            "\nAny other program can use it too: with that address and user, without TLS and password.\n"
        } else {
            ""
        };
        format!(
            "A {what} to \"{}\" is open on {place}, as database user \"{}\".\n{needs}\nConnect with:\n\n    \
             {command}\n{other}\nIt stays open until Ctrl-C.\n",
            visible(&self.name),
            visible(&self.user),
        )
    }
}

/// Says who else could come in.
fn warn(tunnel: &Tunnel, is_tunnel: bool, listen: IpAddr) {
    if !listen.is_loopback() && tunnel.socket().is_none() {
        let who = if is_tunnel {
            "whoever can reach this address uses the database as you, without a password"
        } else {
            "it can be reached from other machines"
        };
        output::remark(&format!(
            "WARNING: {listen} is not this machine alone: {who}."
        ));
    } else if is_tunnel && !tunnel.is_private() {
        output::remark(
            "WARNING: this system does not tell whose program connects: every user of this machine can use the database as \
             you through this port. Use --socket where your program can.",
        );
    }
}

/// How the login stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Good,
    /// It ends soon, or will have ended: at this time.
    EndsAt(Timestamp),
    Ended,
}

impl Standing {
    fn of(ends: Option<Timestamp>, now: Timestamp) -> Self {
        match ends {
            Some(at) if at <= now => Self::Ended,
            Some(at) if at <= now + WARNED_BEFORE => Self::EndsAt(at),
            Some(_) => Self::Good,
            None => Self::Ended,
        }
    }

    /// What a person is told when it changes.
    fn news(self, before: Self, proxy: &ProxyAddr, now: Timestamp) -> Option<String> {
        let login = format!("tg login --proxy={proxy}");
        match (before, self) {
            (Self::Ended, Self::Ended)
            | (Self::EndsAt(_), Self::EndsAt(_))
            | (Self::Good, Self::Good) => None,
            (_, Self::Ended) => Some(format!(
                "Your login has ended: new connections are turned away until you log in again with `{login}`."
            )),
            (Self::Good, Self::EndsAt(at)) => Some(format!(
                "Your login ends in {}; log in again with `{login}`, and connections go on being let in.",
                when::left(at, now)
            )),
            (Self::Ended, _) => Some("You are logged in again: connections are let in.".to_owned()),
            (Self::EndsAt(_), Self::Good) => Some("Your login has been renewed.".to_owned()),
        }
    }
}

/// Says how the login stands when that changes; files of who shows a certificate himself are renewed with it. Never ends.
async fn keep(session: &Session, way: &Way, route: &certificate::Route, has_files: bool) {
    let profile = &session.profile;
    let proxy = &profile.facts().proxy_addr;
    let mut standing = Standing::Good;
    let mut used = login_of(way);
    loop {
        let now = Timestamp::now();
        let login = way.passport().login(now).ok();
        let after = Standing::of(login.as_ref().map(|login| login.expires_at), now);
        if let Some(news) = after.news(standing, proxy, now) {
            output::remark(&news);
        }
        standing = after;
        let chain = login.map(|login| login.chain_pem);
        if has_files && chain.is_some() && chain != used {
            match renew_files(profile, route).await {
                Ok(()) => used = chain,
                // The next look tries again.
                Err(failure) => output::remark(&format!("{failure}")),
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn login_of(way: &Way) -> Option<String> {
    let login = way.passport().login(Timestamp::now());
    login.ok().map(|login| login.chain_pem)
}

async fn renew_files(profile: &Profile, route: &certificate::Route) -> Result<(), Failure> {
    let client = tidegate_console::client::Client::of_profile(profile)?;
    trust::refresh(profile, &client).await?;
    certificate::issue(profile, &client, route.clone()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(place: &Place, user: &str) -> Opened {
        let (host, port, socket) = match place {
            Place::Port(addr) => (Some(addr.ip().to_string()), Some(addr.port()), None),
            Place::Socket(path) => (None, None, Some(path.display().to_string())),
        };
        Opened {
            name: "orders".to_owned(),
            host,
            port,
            socket,
            user: user.to_owned(),
            database: Some("dev".to_owned()),
            tunnel: true,
        }
    }

    #[test]
    fn clients_are_told_where_the_tunnel_is_in_their_own_words() {
        let port = Place::Port("127.0.0.1:5433".parse().unwrap());
        assert_eq!(
            opened(&port, "it's").command(Speaks::Postgres),
            r"psql 'host=127.0.0.1 port=5433 sslmode=disable user='\''it\'\''s'\'' dbname=dev'"
        );
        let socket = Place::Socket("/run/tg-1/.s.PGSQL.5432".into());
        assert_eq!(
            opened(&socket, "reader").command(Speaks::Postgres),
            "psql 'host=/run/tg-1 port=5432 sslmode=disable user=reader dbname=dev'"
        );
        assert_eq!(
            opened(&port, "reader").command(Speaks::Mysql),
            "mysql --host=127.0.0.1 --port=5433 --user=reader --database=dev"
        );
        let text = opened(&port, "reader").text("psql x", false);
        assert!(!text.contains("only yours"), "{text}");
    }

    #[test]
    fn a_person_is_told_once_of_each_change_of_the_login() {
        let proxy: ProxyAddr = "proxy.example.com".parse().unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let soon = Standing::of(Some(now + SignedDuration::from_mins(5)), now);
        let good = Standing::of(Some(now + SignedDuration::from_hours(5)), now);
        let ended = Standing::of(Some(now), now);
        assert_eq!(ended, Standing::of(None, now));
        let news = |before: Standing, after: Standing| after.news(before, &proxy, now);
        assert_eq!(news(good, good), None);
        assert!(news(good, soon).unwrap().contains("ends in 5m"));
        assert_eq!(news(soon, soon), None);
        let said = news(soon, ended).unwrap();
        assert!(
            said.contains("tg login --proxy=proxy.example.com"),
            "{said}"
        );
        assert_eq!(news(ended, ended), None);
        assert!(news(ended, good).unwrap().contains("logged in again"));
    }
}
