//! `tg db config`: what other programs need to be told, each in words of its own.
//!
//! Every format is made from one [`Target`] by a pure function, and escapes as that format's own grammar says.

mod mysql;
mod postgres;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, output,
    profile::{Home, Profile, ProxyAddr},
    shell,
    table::visible,
};

use super::{
    Speaks, certificate::Certificate, logged_in_one, mysql as mysql_client, target, target::Target,
};
use crate::args::{ConfigArgs, ConfigFormat};

/// Prints what a program needs for a database that the person is logged in to.
pub(crate) async fn config(proxy: Option<&ProxyAddr>, args: ConfigArgs) -> Result<(), Failure> {
    let profile = Home::locate()?.profile(proxy)?;
    profile.credentials(Timestamp::now())?;
    let mut certificate = logged_in_one(&profile, args.name.as_deref()).await?;
    open(&mut certificate, args.db_name)?;
    let speaks = match mysql_client::kept_option_file(&profile, &certificate.route.database) {
        Some(_) => Speaks::Mysql,
        None => Speaks::Postgres,
    };
    let addresses = target::without_dns(&profile, &certificate).await?;
    let target = Target::new(&profile, &certificate, addresses);
    let target = match (speaks, args.port) {
        (_, Some(port)) => target.at_port(port),
        (Speaks::Mysql, None) => target.at_port(mysql::PORT),
        (Speaks::Postgres, None) => target,
    };
    print(&profile, &certificate, &target, speaks, args.format)
}

/// Which logical database is written down: what the certificate is bound to, else what was asked for.
fn open(certificate: &mut Certificate, asked: Option<String>) -> Result<(), Failure> {
    let route = &mut certificate.route;
    match (&route.db_name, asked) {
        (Some(bound), Some(asked)) if *bound != asked => Err(Failure::usage(format!(
            "you are logged in to database name `{}`, not `{}`",
            visible(bound),
            visible(&asked)
        ))
        .hint(format!(
            "tg db login --db-user={} --db-name={} {}",
            shell::quote(&route.db_user),
            shell::quote(&asked),
            shell::quote(&route.database)
        ))),
        (None, asked) => {
            route.db_name = asked;
            Ok(())
        }
        (Some(_), _) => Ok(()),
    }
}

fn print(
    profile: &Profile,
    certificate: &Certificate,
    target: &Target,
    speaks: Speaks,
    format: ConfigFormat,
) -> Result<(), Failure> {
    let database = &certificate.route.database;
    let written = match (format, speaks) {
        (ConfigFormat::Text | ConfigFormat::Json | ConfigFormat::Yaml, _) => {
            return print_facts(database, target, format);
        }
        (ConfigFormat::Cmd, Speaks::Mysql) => {
            let option_file = mysql_client::option_file(profile, database);
            mysql::command(target, &option_file)
        }
        (ConfigFormat::Python, Speaks::Mysql) => mysql::python(target)?,
        (other, Speaks::Mysql) => return Err(not_for_mysql(database, other)),
        (ConfigFormat::Cmd | ConfigFormat::Psql, Speaks::Postgres) => postgres::command(target),
        (ConfigFormat::Url, Speaks::Postgres) => postgres::url(target),
        (ConfigFormat::Python, Speaks::Postgres) => postgres::python(target)?,
        (ConfigFormat::Odbc, Speaks::Postgres) => postgres::odbc(target),
        (ConfigFormat::Jdbc, Speaks::Postgres) => postgres::jdbc(target),
        (ConfigFormat::Dbt, Speaks::Postgres) => postgres::dbt(target, database)?,
        (ConfigFormat::Dbeaver, Speaks::Postgres) => postgres::dbeaver(target, database)?,
    };
    let needs_dns = matches!(
        format,
        ConfigFormat::Jdbc | ConfigFormat::Dbt | ConfigFormat::Dbeaver
    ) || speaks == Speaks::Mysql;
    if needs_dns && let Some(address) = target.addresses().first() {
        output::remark(&no_dns(target.host(), *address, database));
    }
    output::print(&written)
}

fn no_dns(host: &str, address: IpAddr, database: &str) -> String {
    format!(
        "The name {host} does not lead to the proxy on this machine, and such programs know no other way there. Have it \
         resolved, for example by a line `{address} {host}` in /etc/hosts, or use `tg proxy db --tunnel {}`.",
        shell::quote(database)
    )
}

fn not_for_mysql(database: &str, format: ConfigFormat) -> Failure {
    Failure::usage(format!(
        "`{database}` speaks MySQL, for which there is no format `{}`",
        format.name()
    ))
    .hint(format!(
        "use text, cmd, json, yaml or python; or `tg proxy db --tunnel {}`, which any program can connect to without a \
         certificate",
        shell::quote(database)
    ))
}

/// The facts by themselves, with the names that `tsh db config` gives them.
#[derive(Serialize)]
struct Facts<'t> {
    name: &'t str,
    host: &'t str,
    port: u16,
    user: &'t str,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'t str>,
    ca: &'t str,
    cert: &'t str,
    key: &'t str,
    /// Where the host is when DNS does not know it.
    #[serde(skip_serializing_if = "<[IpAddr]>::is_empty")]
    addresses: &'t [IpAddr],
}

impl Facts<'_> {
    fn text(&self) -> String {
        let port = self.port.to_string();
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        let mut lines = vec![
            ("Name", self.name),
            ("Host", self.host),
            ("Port", &port),
            ("User", self.user),
            ("Database", self.database.unwrap_or_default()),
            ("CA", self.ca),
            ("Cert", self.cert),
            ("Key", self.key),
        ];
        if !addresses.is_empty() {
            lines.push(("Addresses", &addresses));
        }
        let line = |(name, value): &(&str, &str)| {
            let line = format!("{:<11}{}", format!("{name}:"), visible(value));
            format!("{}\n", line.trim_end())
        };
        lines.iter().map(line).collect()
    }
}

fn print_facts(database: &str, target: &Target, format: ConfigFormat) -> Result<(), Failure> {
    let facts = Facts {
        name: database,
        host: target.host(),
        port: target.port(),
        user: target.db_user(),
        database: target.db_name(),
        ca: target.ca_file(),
        cert: target.chain_file(),
        key: target.key_file(),
        addresses: target.addresses(),
    };
    let format = match format {
        ConfigFormat::Json => Format::Json,
        ConfigFormat::Yaml => Format::Yaml,
        _ => Format::Text,
    };
    Output::new(format).value(&facts, || facts.text())
}

/// Percent-encodes everything that no part of a URI gives a meaning to.
///
/// Source: RFC 3986, sections 2.1 and 2.3.
fn percent(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A text as Python reads it: JSON's escapes are Python's too.
///
/// Source: Python Language Reference, section 2.4.1, "String and Bytes literals"; RFC 8259, section 7.
fn python_text(value: &str) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::new(format!("cannot write a text for Python: {error}")))
}
