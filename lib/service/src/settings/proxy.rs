//! Section `proxy_service`.

use std::net::SocketAddr;

use super::{
    KeyPairFiles, MysqlSettings, ProcessSettings, ProxySettings,
    section::{Item, Section},
    values,
};

const PORT: u16 = 3080;
/// Teleport's port for MySQL clients.
const MYSQL_PORT: u16 = 3036;
/// A version of which all clients know what it can.
const MYSQL_SERVER_VERSION: &str = "8.0.0-tidegate";
/// More does not fit into what clients keep of it.
const MYSQL_SERVER_VERSION_BYTES_MAX: usize = 60;

/// Reads the section, whose `enabled` was looked at.
pub(super) fn read(mut section: Section<'_>, process: &ProcessSettings) -> Option<ProxySettings> {
    let listen_addr = listen_addr(&mut section)?;
    let public_addr = public_addr(&mut section, listen_addr.port())
        .unwrap_or_else(|| format!("{}:{}", process.nodename, listen_addr.port()));
    let https_keypairs = keypairs(&mut section);
    let mysql = mysql(&mut section);
    section.ignore(&[
        "acme",
        "automatic_upgrades_channels",
        "https_keypairs_reload_interval",
        "idp",
        "kube_listen_addr",
        "kube_public_addr",
        "kubernetes",
        "mongo_listen_addr",
        "mongo_public_addr",
        "mysql_public_addr",
        "peer_listen_addr",
        "peer_public_addr",
        "postgres_listen_addr",
        "postgres_public_addr",
        "proxy_group_generation",
        "proxy_group_id",
        "proxy_protocol",
        "proxy_protocol_allow_downgrade",
        "ssh_public_addr",
        "trust_x_forwarded_for",
        "tunnel_listen_addr",
        "tunnel_public_addr",
        "ui",
    ]);
    section.finish();
    Some(ProxySettings {
        listen_addr,
        public_addr,
        https_keypairs,
        mysql,
    })
}

/// One port does everything here. Where Teleport's two are given, the one for the web is it.
fn listen_addr(section: &mut Section<'_>) -> Option<SocketAddr> {
    let item = match (section.get("web_listen_addr"), section.get("listen_addr")) {
        (Some(web), Some(ssh)) => {
            ssh.warn("ignored: everything is served on `web_listen_addr`");
            Some(web)
        }
        (web, listen) => web.or(listen),
    };
    item.map_or_else(
        || Some(([0, 0, 0, 0], PORT).into()),
        |item| values::listen_address(&item, PORT),
    )
}

fn public_addr(section: &mut Section<'_>, port_default: u16) -> Option<String> {
    let addresses = section.get("public_addr")?.one_or_many();
    let mut parsed = addresses
        .iter()
        .filter_map(|item| values::peer_address(item, port_default));
    let first = parsed.next();
    if parsed.count() > 0
        && let Some(second) = addresses.get(1)
    {
        second.warn("ignored: the first public address is the one that is told to clients");
    }
    first
}

fn mysql(section: &mut Section<'_>) -> Option<MysqlSettings> {
    let version = section.get("mysql_server_version").filter(Item::is_given);
    let version = version.and_then(|item| {
        let text = item.full_text()?;
        let is_shown = text.len() <= MYSQL_SERVER_VERSION_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_shown {
            item.error_expected(
                "is no version",
                format!(
                    "at most {MYSQL_SERVER_VERSION_BYTES_MAX} visible characters, such as `8.0.36`"
                ),
            );
        }
        is_shown.then(|| text.to_owned())
    });
    let listen = section.get("mysql_listen_addr").filter(Item::is_given)?;
    Some(MysqlSettings {
        listen_addr: values::listen_address(&listen, MYSQL_PORT)?,
        server_version: version.unwrap_or_else(|| MYSQL_SERVER_VERSION.to_owned()),
    })
}

fn keypairs(section: &mut Section<'_>) -> Vec<KeyPairFiles> {
    let key = section.get("https_key_file").filter(Item::is_given);
    let cert = section.get("https_cert_file").filter(Item::is_given);
    let mut pairs = Vec::new();
    match (key, cert) {
        (Some(key), Some(cert)) => pairs.extend(pair(&key, &cert)),
        (Some(alone), None) => alone.error_expected("stands alone", "`https_cert_file` beside it"),
        (None, Some(alone)) => alone.error_expected("stands alone", "`https_key_file` beside it"),
        (None, None) => {}
    }
    for entry in section
        .get("https_keypairs")
        .and_then(|item| item.list())
        .unwrap_or_default()
    {
        let Some(mut entry) = entry.section() else {
            continue;
        };
        if let (Some(key), Some(cert)) = (entry.require("key_file"), entry.require("cert_file")) {
            pairs.extend(pair(&key, &cert));
        }
        entry.finish();
    }
    pairs
}

fn pair(key: &Item<'_>, cert: &Item<'_>) -> Option<KeyPairFiles> {
    let (key_file, cert_file) = (key.full_text()?, cert.full_text()?);
    for (item, path) in [(key, key_file), (cert, cert_file)] {
        if let Err(error) = std::fs::File::open(path) {
            item.blocker(format!("cannot read {path}: {error}"));
        }
    }
    Some(KeyPairFiles {
        key_file: key_file.into(),
        cert_file: cert_file.into(),
    })
}
