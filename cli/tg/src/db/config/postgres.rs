//! Programs that speak PostgreSQL.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_console::{Failure, output, shell};

use super::{percent, python_text};
use crate::db::target::Target;

/// The driver as Debian's `odbc-postgresql` and psqlODBC's installers name it.
const ODBC_DRIVER: &str = "PostgreSQL Unicode";

/// How often dbt may use one connection at a time, unless somebody says otherwise.
const DBT_THREADS: u8 = 4;

/// What starts `psql`, for a shell.
pub(super) fn command(target: &Target) -> String {
    format!("psql {}\n", shell::quote(&target.conninfo()))
}

/// A URI for libpq, and for drivers that take libpq's.
///
/// Source: PostgreSQL manual, section 34.1.1.2, "Connection URIs".
pub(super) fn url(target: &Target) -> String {
    let one = format!("{}:{}", target.host(), target.port());
    let hosts = vec![one; target.addresses().len().max(1)].join(",");
    let mut path = String::new();
    let mut parameters = Vec::new();
    for (keyword, value) in target.service_lines() {
        match keyword {
            "host" | "port" | "user" => {}
            "dbname" => path = percent(&value),
            _ => parameters.push(format!("{keyword}={}", percent(&value))),
        }
    }
    format!(
        "postgresql://{}@{hosts}/{path}?{}\n",
        percent(target.db_user()),
        parameters.join("&")
    )
}

/// A URL for the PostgreSQL JDBC driver, which reads a key in PKCS #8, DER.
///
/// Source: pgJDBC's documentation, "Initializing the Driver" and "Configuring the Client" (SSL); values are decoded as
/// `java.net.URLDecoder` does.
pub(super) fn jdbc(target: &Target) -> String {
    let parameters = [
        ("user", target.db_user()),
        ("sslmode", "verify-full"),
        ("sslrootcert", target.ca_file()),
        ("sslcert", target.chain_file()),
        ("sslkey", &target.der_key_file()),
    ];
    let parameters: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", percent(value)))
        .collect();
    format!(
        "jdbc:postgresql://{}:{}/{}?{}\n",
        target.host(),
        target.port(),
        percent(target.db_name().unwrap_or_default()),
        parameters.join("&")
    )
}

/// A connection string for psqlODBC, which hands `pqopt` to libpq.
///
/// Source: ODBC Programmer's Reference, `SQLDriverConnect`, "Comments" (braces, and a closing one doubled); psqlODBC's
/// "Configuration options".
pub(super) fn odbc(target: &Target) -> String {
    let port = target.port().to_string();
    let libpq: Vec<String> = target
        .conninfo_pairs()
        .into_iter()
        .filter(|(keyword, _)| {
            matches!(*keyword, "hostaddr" | "sslrootcert" | "sslcert" | "sslkey")
        })
        .map(|(keyword, value)| format!("{keyword}={value}"))
        .collect();
    let libpq = libpq.join(" ");
    let hosts = vec![target.host(); target.addresses().len().max(1)].join(",");
    let mut pairs = vec![
        ("Driver", ODBC_DRIVER),
        ("Server", &hosts),
        ("Port", &port),
        ("UID", target.db_user()),
        ("SSLmode", "verify-full"),
        ("pqopt", &libpq),
    ];
    if let Some(name) = target.db_name() {
        pairs.insert(3, ("Database", name));
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", odbc_value(value)))
        .collect();
    format!("{}\n", pairs.join(";"))
}

fn odbc_value(value: &str) -> String {
    let plain = value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:,".contains(&byte));
    if plain && !value.is_empty() {
        return value.to_owned();
    }
    format!("{{{}}}", value.replace('}', "}}"))
}

/// What connects with psycopg, the 2nd or the 3rd.
pub(super) fn python(target: &Target) -> Result<String, Failure> {
    let mut lines = String::new();
    for (keyword, value) in target.service_lines() {
        lines.push_str(&format!("    {keyword}={},\n", python_text(&value)?));
    }
    Ok(format!(
        "import psycopg  # or: import psycopg2 as psycopg\n\nconnection = psycopg.connect(\n{lines})\n"
    ))
}

#[derive(Serialize)]
struct DbtProfile {
    target: &'static str,
    outputs: BTreeMap<&'static str, DbtOutput>,
}

#[derive(Serialize)]
struct DbtOutput {
    r#type: &'static str,
    host: String,
    port: u16,
    user: String,
    password: &'static str,
    dbname: String,
    schema: &'static str,
    threads: u8,
    sslmode: &'static str,
    sslrootcert: String,
    sslcert: String,
    sslkey: String,
}

/// A profile for dbt's `profiles.yml`. dbt fills in templates in it, so what begins one is written as a template.
///
/// Source: dbt's documentation, "Postgres setup" and "About profiles.yml" (values are rendered by Jinja).
pub(super) fn dbt(target: &Target, database: &str) -> Result<String, Failure> {
    const OUTPUT: &str = "tidegate";
    let Some(dbname) = target.db_name() else {
        return Err(
            Failure::usage("which database name? dbt needs one").hint("name one with --db-name")
        );
    };
    let text = |value: &str| value.replace('{', "{{ '{' }}");
    let output = DbtOutput {
        r#type: "postgres",
        host: text(target.host()),
        port: target.port(),
        user: text(target.db_user()),
        password: "",
        dbname: text(dbname),
        schema: "public",
        threads: DBT_THREADS,
        sslmode: "verify-full",
        sslrootcert: text(target.ca_file()),
        sslcert: text(target.chain_file()),
        sslkey: text(target.key_file()),
    };
    output::yaml(&BTreeMap::from([(
        database,
        DbtProfile {
            target: OUTPUT,
            outputs: BTreeMap::from([(OUTPUT, output)]),
        },
    )]))
}

#[derive(Serialize)]
struct DbeaverSources {
    folders: BTreeMap<String, String>,
    connections: BTreeMap<String, DbeaverSource>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DbeaverSource {
    provider: &'static str,
    driver: &'static str,
    name: String,
    save_password: bool,
    configuration: DbeaverConfiguration,
}

#[derive(Serialize)]
struct DbeaverConfiguration {
    url: String,
    #[serde(rename = "configurationType")]
    configuration_type: &'static str,
    #[serde(rename = "auth-model")]
    auth_model: &'static str,
}

/// A `data-sources.json` of DBeaver with one connection, by the URL of its JDBC driver.
///
/// Source: DBeaver's wiki, "Admin Manage Connections".
pub(super) fn dbeaver(target: &Target, database: &str) -> Result<String, Failure> {
    let source = DbeaverSource {
        provider: "postgresql",
        driver: "postgres-jdbc",
        name: database.to_owned(),
        save_password: true,
        configuration: DbeaverConfiguration {
            url: jdbc(target).trim_end().to_owned(),
            configuration_type: "URL",
            auth_model: "native",
        },
    };
    output::json(&DbeaverSources {
        folders: BTreeMap::new(),
        connections: BTreeMap::from([(format!("tidegate-{database}"), source)]),
    })
}
