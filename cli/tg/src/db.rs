//! `tg db`: databases that the person may use.
//!
//! A database certificate is bound to one database and its user; it is what `psql`, or the tunnel of a
//! MySQL client, shows to the agent. Its files are
//! below the profile, named after the database's route, which is one label of a host name whatever the name is.

mod certificate;
mod choice;
mod config;
mod ends;
mod exec;
mod ls;
mod mysql;
mod proxy;
mod psql;
mod service_file;
mod target;
mod tunnel;

use std::ffi::OsString;

use jiff::Timestamp;
use tidegate_console::{
    Failure, Format, Output,
    client::Client,
    inventory::{self, Query},
    labels, output,
    profile::{Home, Profile, ProxyAddr},
    shell,
    table::visible,
};
use tidegate_core::Protocol;
use tidegate_proto::v1;

use crate::{
    args::{ConnectArgs, DbLoginArgs, EnvArgs, Which, Who},
    trust,
};
use certificate::{Certificate, Route};
use choice::Choices;
use target::Target;
use tunnel::{Passport, Way};

pub(crate) use config::config;
pub(crate) use exec::exec;
pub(crate) use ls::ls;
pub(crate) use proxy::proxy;

/// What a database speaks, as far as clients can speak it through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Mysql,
    Postgres,
}

/// What a command about one database needs.
struct Session {
    profile: Profile,
    client: Client,
    database: v1::Database,
    speaks: Speaks,
    /// The cluster's CAs of this moment.
    trust: v1::Trust,
}

impl Session {
    async fn open(proxy: Option<&ProxyAddr>, which: &Which) -> Result<Self, Failure> {
        let profile = Home::locate()?.profile(proxy)?;
        let client = Client::of_profile(&profile)?;
        let trust = trust::refresh(&profile, &client).await?;
        let database = find(&profile, &client, which).await?;
        Self::of(profile, client, trust, database)
    }

    /// The same, of a database that was found.
    fn of(
        profile: Profile,
        client: Client,
        trust: v1::Trust,
        database: v1::Database,
    ) -> Result<Self, Failure> {
        let speaks = match database.protocol.parse() {
            Ok(Protocol::Mysql) => Speaks::Mysql,
            Ok(Protocol::Postgres) => Speaks::Postgres,
            Err(_) => {
                return Err(Failure::new(format!(
                    "`{}` speaks {}, which this version of tg does not know",
                    database.name,
                    visible(&database.protocol)
                ))
                .hint("install a newer tg"));
            }
        };
        if !database.unavailable.is_empty() {
            output::remark(&format!(
                "\"{}\" was {} when it was last looked at; connecting may fail.",
                database.name,
                visible(&database.unavailable)
            ));
        }
        Ok(Self {
            profile,
            client,
            database,
            speaks,
            trust,
        })
    }

    /// A certificate for this route: the one on disk while it is good and of a CA that agents trust, else a fresh one.
    async fn certificate(&self, route: Route) -> Result<Certificate, Failure> {
        let now = Timestamp::now();
        match certificate::find(&self.profile, &route.database, now)? {
            Some(kept) if kept.route == route && kept.is_of(&self.trust.user_ca_pem) => Ok(kept),
            _ => certificate::issue(&self.profile, &self.client, route).await,
        }
    }

    fn route(&self, db_user: String, db_name: Option<String>) -> Route {
        Route {
            database: self.database.name.clone(),
            db_user,
            db_name,
        }
    }
}

/// The database that is meant. Without anything said it is the one that the person is logged in to.
async fn find(profile: &Profile, client: &Client, which: &Which) -> Result<v1::Database, Failure> {
    let query = Query {
        selector: which.labels.as_deref().map(labels::filter).transpose()?,
        filter: which.query.clone().unwrap_or_default(),
        ..Query::default()
    };
    let name = match &which.name {
        None if query.is_everything() => Some(
            certificate::the_one(profile, None, Timestamp::now())?
                .route
                .database,
        ),
        name => name.clone(),
    };
    inventory::find_among(&mut client.inventory(), name.as_deref(), &query).await
}

pub(crate) async fn connect(proxy: Option<&ProxyAddr>, args: ConnectArgs) -> Result<(), Failure> {
    let session = Session::open(proxy, &args.which).await?;
    let (db_user, db_name) = choose(&session, args.who).await?;
    if session.speaks == Speaks::Mysql {
        return connect_mysql(&session, session.route(db_user, db_name), &args.client).await;
    }
    let db_name = match db_name {
        Some(name) => name,
        None => {
            let name = choice::usual_name(&session.database.kind);
            output::remark(&format!(
                "Opening database \"{name}\"; choose another with --db-name."
            ));
            name.to_owned()
        }
    };
    let route = session.route(db_user, Some(db_name));
    let certificate = session.certificate(route).await?;
    let addresses = target::resolve(&session.profile.facts().proxy_addr).await?;
    let target = Target::new(&session.profile, &certificate, addresses);
    Err(psql::exec(&target, &args.client))
}

/// Runs a client on a tunnel. MySQL's clients need no database: without one, none is opened.
async fn connect_mysql(
    session: &Session,
    route: Route,
    arguments: &[OsString],
) -> Result<(), Failure> {
    let host = target::host(&session.profile, &route.database);
    let passport = Passport::new(&session.profile, route.clone(), Speaks::Mysql)?;
    let way = Way::new(&session.profile, &host, passport)?;
    match mysql::run(way, &route, arguments).await? {
        0 => Ok(()),
        code => std::process::exit(code),
    }
}

/// A login to a MySQL database: its files, and an option file that names them.
fn logged_in_to_mysql(
    session: &Session,
    certificate: &Certificate,
    target: &Target,
) -> Result<(), Failure> {
    let file = mysql::write_option_file(&session.profile, target, certificate)?;
    let name = &certificate.route.database;
    output::print(&format!(
        "Logged in to \"{name}\" as database user \"{}\".\n\n\
         Connect with:\n\n    \
         tg db connect {}\n\n\
         Or set up another program with host, user, certificate and key as the option file has them,\n    \
         {}\n\
         and the port that your administrator set as the proxy's mysql_listen_addr. The program has to send\n\
         the server name over TLS, for example:\n\n    \
         mysql --defaults-file={} --port=3036 --ssl-mode=VERIFY_IDENTITY --tls-sni-servername={}\n",
        visible(&certificate.route.db_user),
        connect_arguments(&certificate.route),
        file.display(),
        shell::quote(&file.display().to_string()),
        target.host(),
    ))
}

pub(crate) async fn login(proxy: Option<&ProxyAddr>, args: DbLoginArgs) -> Result<(), Failure> {
    let session = Session::open(proxy, &args.which).await?;
    let (db_user, db_name) = choose(&session, args.who).await?;
    let route = session.route(db_user, db_name);
    let certificate = certificate::issue(&session.profile, &session.client, route).await?;
    let addresses = target::without_dns(&session.profile, &certificate).await?;
    let target = Target::new(&session.profile, &certificate, addresses);
    if session.speaks == Speaks::Mysql {
        return logged_in_to_mysql(&session, &certificate, &target);
    }
    let section = service_file::add(&session.profile, &certificate.route.database, &target)?;
    let name = &certificate.route.database;
    output::print(&format!(
        "Logged in to \"{name}\" as database user \"{}\".\n\n\
         Connect with:\n\n    \
         psql service={}\n    \
         tg db connect {}\n\n\
         Or set up another program with what `tg db env {3}` or `tg db config {3}` prints.\n",
        visible(&certificate.route.db_user),
        shell::quote(&section),
        connect_arguments(&certificate.route),
        shell::quote(name),
    ))
}

fn connect_arguments(route: &Route) -> String {
    let mut words = vec![format!("--db-user={}", route.db_user)];
    words.extend(
        route
            .db_name
            .as_ref()
            .map(|name| format!("--db-name={name}")),
    );
    words.push(route.database.clone());
    let words: Vec<String> = words.iter().map(|word| shell::quote(word)).collect();
    words.join(" ")
}

/// The certificate of the database that is meant among those that the person is logged in to. What does not tell by
/// itself is asked of the cluster, which knows names without what discovery appended.
async fn logged_in_one(profile: &Profile, wanted: Option<&str>) -> Result<Certificate, Failure> {
    let now = Timestamp::now();
    let kept = certificate::the_one(profile, wanted, now);
    let (Err(unclear), Some(wanted)) = (&kept, wanted) else {
        return kept;
    };
    let client = Client::of_profile(profile)?;
    match inventory::find(&mut client.inventory(), wanted).await {
        Ok(found) => certificate::the_one(profile, Some(&found.name), now),
        Err(_) => Err(unclear.clone()),
    }
}

pub(crate) async fn env(proxy: Option<&ProxyAddr>, args: EnvArgs) -> Result<(), Failure> {
    let profile = Home::locate()?.profile(proxy)?;
    let now = Timestamp::now();
    profile.credentials(now)?;
    let certificate = logged_in_one(&profile, args.name.as_deref()).await?;
    if let Some(file) = mysql::kept_option_file(&profile, &certificate.route.database) {
        return Err(Failure::new(format!(
            "`{}` speaks MySQL, whose clients read no such environment",
            certificate.route.database
        ))
        .hint(format!(
            "use `tg db config`, `tg proxy db --tunnel`, or give your program the option file {}",
            file.display()
        )));
    }
    let addresses = target::without_dns(&profile, &certificate).await?;
    let target = Target::new(&profile, &certificate, addresses);
    let out = Output::new(args.format);
    let environment = target.environment();
    match args.format {
        Format::Text => output::print(&target::exports(&environment)),
        Format::Json | Format::Yaml => out.value(&environment, String::new),
    }
}

pub(crate) fn logout(proxy: Option<&ProxyAddr>, name: Option<&str>) -> Result<(), Failure> {
    let profile = Home::locate()?.profile(proxy)?;
    let Some(name) = name else {
        let names = forget_all(&profile)?;
        return match names.as_slice() {
            [] => output::print("You were not logged in to any database.\n"),
            names => output::print(&format!("Logged out of {}.\n", visible(&names.join(", ")))),
        };
    };
    let name = certificate::kept_name(&profile, name)?;
    certificate::remove(&profile, &name)?;
    service_file::remove(&profile, &name)?;
    mysql::remove_option_file(&profile, &name)?;
    output::print(&format!("Logged out of database \"{}\".\n", visible(&name)))
}

/// Removes every database certificate of a profile, and says of which databases.
pub(crate) fn forget_all(profile: &Profile) -> Result<Vec<String>, Failure> {
    let names = certificate::kept_names(profile)?;
    for name in &names {
        certificate::remove(profile, name)?;
        service_file::remove(profile, name)?;
        mysql::remove_option_file(profile, name)?;
    }
    Ok(names)
}

/// Databases that the person is logged in to now.
pub(crate) fn active_names(profile: &Profile, now: Timestamp) -> Result<Vec<String>, Failure> {
    let kept = certificate::kept(profile, now)?;
    Ok(kept.into_iter().map(|one| one.route.database).collect())
}

/// Database user and name: as asked for, else the only one that the person's roles allow.
async fn choose(session: &Session, who: Who) -> Result<(String, Option<String>), Failure> {
    // Database names are not limited on MySQL: a session can change to another at any time.
    let is_name_chosen = who.db_name.is_some() || session.speaks == Speaks::Mysql;
    if let (Some(db_user), true) = (&who.db_user, is_name_chosen) {
        return Ok((db_user.clone(), who.db_name));
    }
    let user = session.profile.credentials(Timestamp::now())?.user;
    let choices = Choices::ask(&session.client, &session.database.name, &user.traits).await?;
    let db_user = choices.db_user(who.db_user)?;
    if is_name_chosen {
        return Ok((db_user, who.db_name));
    }
    Ok((db_user, choices.db_name(who.db_name)?))
}
