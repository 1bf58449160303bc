//! From the front to PostgreSQL: opening the session, start-up, the bytes after it, cancels.
//!
//! Only Redshift's fronts change anything on the way.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::auth::Admitted;
use super::startup::{Refusal, Startup, malformed};
use super::{LoginError, Site, Stream};
use crate::crypto::random_base64;
use crate::fleet::FleetError;
use crate::postgres::io_error;
use crate::postgres::sql::frame;
use crate::state::State;
use crate::world::Speaks;

/// What Redshift says it is.
const SERVER_VERSION: &str = "8.0.2";
/// A build of Redshift; drivers look at the name of this parameter only.
const PADB_REVISION: &str = "118128";
/// Largest message of PostgreSQL's start-up, in bytes.
const MESSAGE_BYTES_MAX: usize = 65_536;
/// Messages that PostgreSQL may send before it is ready.
const START_UP_MESSAGES_MAX: usize = 200;
/// Buffer for each direction of a relay, in bytes.
const RELAY_BYTES: usize = 64 << 10;

/// Start-up parameters that Redshift takes and PostgreSQL refuses.
const REDSHIFT_ONLY: [&str; 13] = [
    "client_protocol_version",
    "driver_discovery_version",
    "driver_version",
    "enable_case_sensitive_identifier",
    "idc_client_display_name",
    "identity_namespace",
    "idp_type",
    "os_version",
    "plugin_name",
    "provider_name",
    "query_group",
    "token_type",
    "wlm_query_slot_count",
];

/// Connects to PostgreSQL and sends the start-up message there.
pub(super) async fn open(
    site: &Site,
    startup: &Startup,
    admitted: &Admitted,
) -> Result<UnixStream, FleetError> {
    let fleet = &site.state.fleet;
    let Admitted {
        role,
        database,
        owner,
        at,
    } = admitted;
    let database = fleet.ensure_database(at, database, owner).await?;
    fleet.ensure_role(role).await?;
    let socket = fleet.shared().await?.socket();
    let body = startup_body(site.speaks, startup, role, &database);
    let opened = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&frame(None, &body)).await?;
        Ok(stream)
    };
    Ok(opened
        .await
        .map_err(|e| io_error("connect to PostgreSQL", e))?)
}

fn startup_body(speaks: Speaks, startup: &Startup, role: &str, database: &str) -> Vec<u8> {
    let mut body = startup.protocol.to_be_bytes().to_vec();
    let mut put = |text: &str| {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    };
    for (name, value) in [("user", role), ("database", database)] {
        put(name);
        put(value);
    }
    for (name, value) in startup.parameters() {
        let mapped = name == "user" || name == "database";
        let is_redshifts = name.starts_with("_pq_.") || REDSHIFT_ONLY.contains(&name.as_str());
        if mapped || (speaks == Speaks::Redshift && is_redshifts) {
            continue;
        }
        put(name);
        if speaks == Speaks::Redshift && name == "options" {
            put(&strip_options(value))
        } else {
            put(value)
        }
    }
    body.push(0);
    body
}

/// Takes Redshift's own settings out of `-c name=value` and `--name=value`.
fn strip_options(options: &str) -> String {
    let words: Vec<&str> = options.split_whitespace().collect();
    let is_redshifts = |word: &str| {
        let name = word
            .trim_start_matches("--")
            .split('=')
            .next()
            .unwrap_or_default();
        REDSHIFT_ONLY.contains(&name.replace('-', "_").as_str())
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let width = if words[at] == "-c" { 2 } else { 1 };
        let group = &words[at..(at + width).min(words.len())];
        let setting = group.last().copied().unwrap_or_default();
        if !is_redshifts(setting.strip_prefix("-c").unwrap_or(setting)) {
            kept.extend(group);
        }
        at += width;
    }
    kept.join(" ")
}

/// Passes PostgreSQL's start-up on until it is ready, for Redshift in its clothes.
pub(super) async fn start_up(
    site: &Site,
    client: &mut impl Stream,
    database: &mut UnixStream,
    startup: &Startup,
) -> Result<(), LoginError> {
    let mut out = Vec::new();
    for _ in 0..START_UP_MESSAGES_MAX {
        let (kind, body) = read_message(database).await?;
        match kind {
            b'E' => {
                out.extend(frame(Some(kind), &body));
                client.write_all(&out).await?;
                client.flush().await?;
                return Err(io::Error::other("PostgreSQL refused the session").into());
            }
            b'R' if body != [0; 4] => {
                let message = "PostgreSQL asks for a password on its unix socket";
                return Err(Refusal::new("XX000", message).into());
            }
            b'S' if site.speaks == Speaks::Redshift && body.starts_with(b"server_version\0") => {
                out.extend(parameter_status("server_version", SERVER_VERSION));
                out.extend(parameter_status("padb_revision", PADB_REVISION));
                if startup.get("client_protocol_version").is_some() {
                    out.extend(parameter_status("driver_token", &random_base64::<24>()));
                }
            }
            b'Z' => {
                out.extend(frame(Some(kind), &body));
                client.write_all(&out).await?;
                client.flush().await?;
                return Ok(());
            }
            _ => out.extend(frame(Some(kind), &body)),
        }
    }
    Err(malformed("PostgreSQL's start-up does not end").into())
}

/// Passes bytes both ways until both ends are closed.
pub(super) async fn pass(mut client: impl Stream, mut database: UnixStream) -> io::Result<()> {
    let (a, b) = (&mut client, &mut database);
    tokio::io::copy_bidirectional_with_sizes(a, b, RELAY_BYTES, RELAY_BYTES)
        .await
        .map(drop)
}

/// Passes a CancelRequest on and waits until PostgreSQL took it.
pub(super) async fn cancel(state: &State, packet: &[u8]) -> io::Result<()> {
    let server = state.fleet.shared().await.map_err(io::Error::other)?;
    let mut stream = UnixStream::connect(server.socket()).await?;
    stream.write_all(packet).await?;
    let mut end = [0; 1];
    stream.read(&mut end).await.map(drop)
}

async fn read_message(stream: &mut UnixStream) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await? as usize;
    let length = length
        .checked_sub(4)
        .filter(|length| *length <= MESSAGE_BYTES_MAX);
    let mut body = vec![0; length.ok_or_else(|| malformed("invalid message from PostgreSQL"))?];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    frame(Some(b'S'), format!("{name}\0{value}\0").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_lose_redshifts_settings_only() {
        let options = "-c query_group=x -c statement_timeout=5 --query-group=y -cquery_group=z";
        assert_eq!(strip_options(options), "-c statement_timeout=5");
    }
}
