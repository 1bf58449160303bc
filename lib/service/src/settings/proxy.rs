//! Section `proxy_service`.

use std::{net::SocketAddr, time::Duration};

use super::{
    KeyPairFiles, MysqlSettings, Network, ProcessSettings, ProxyLimits, ProxySettings,
    section::{Item, Section},
    values,
    words::quote,
};

const PORT: u16 = 3080;
/// Teleport's port for MySQL clients.
const MYSQL_PORT: u16 = 3036;
/// A version of which all clients know what it can.
const MYSQL_SERVER_VERSION: &str = "8.0.0-tidegate";
/// More does not fit into what clients keep of it.
const MYSQL_SERVER_VERSION_BYTES_MAX: usize = 60;
/// How long sessions go on in a process that has handed over: long enough that hardly anybody is cut off.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3600);
/// Networks that balancers may be in.
const BALANCERS_MAX: usize = 64;
/// The highest limit that can be asked for: what a proxy has in all.
const LIMIT_MAX: usize = 16_384;

/// Reads the section, whose `enabled` was looked at.
pub(super) fn read(mut section: Section<'_>, process: &ProcessSettings) -> Option<ProxySettings> {
    let listen_addr = listen_addr(&mut section)?;
    let public_addr = public_addr(&mut section, listen_addr.port())
        .unwrap_or_else(|| format!("{}:{}", process.nodename, listen_addr.port()));
    let https_keypairs = keypairs(&mut section);
    let mysql = mysql(&mut section);
    let balancers = balancers(&mut section);
    let limits = section
        .get("limits")
        .map_or_else(ProxyLimits::default, |item| limits(&item));
    let handover_timeout = section
        .get("handover_timeout")
        .and_then(|item| values::duration(&item, Duration::ZERO))
        .unwrap_or(HANDOVER_TIMEOUT);
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
        zone: process.zone.clone(),
        balancers,
        limits,
        handover_timeout,
    })
}

/// Teleport's switch, and beside it whose headers count: a header that anybody could send would let anybody choose the
/// address that limits and audit go by.
fn balancers(section: &mut Section<'_>) -> Vec<Network> {
    let from = section
        .get("proxy_protocol_from")
        .filter(|item| !item.holds_nothing());
    let switch = section.get("proxy_protocol").filter(Item::is_given);
    let is_on = switch.as_ref().and_then(Item::boolean).unwrap_or(false);
    match (is_on, from) {
        (false, None) => Vec::new(),
        (true, Some(from)) => networks(&from),
        (true, None) => {
            if let Some(switch) = switch {
                switch.error_expected(
                    "is on, and nothing says whose headers to believe",
                    "`proxy_protocol_from` beside it: the networks that balancers connect from",
                );
            }
            Vec::new()
        }
        (false, Some(from)) => {
            from.error_expected(
                "is given while `proxy_protocol` is off",
                "`proxy_protocol: on`",
            );
            Vec::new()
        }
    }
}

fn networks(from: &Item<'_>) -> Vec<Network> {
    let items = from.one_or_many();
    if items.len() > BALANCERS_MAX {
        from.error(format!("has more than {BALANCERS_MAX} networks"));
    }
    let network = |item: &Item<'_>| {
        let text = item.full_text()?;
        let network = text.parse().ok();
        if network.is_none() {
            item.error_expected(
                format!("{} is no network", quote(text)),
                "an address and its leading bits, such as `10.0.0.0/8`, or an address alone",
            );
        }
        network
    };
    items.iter().filter_map(network).collect()
}

fn limits(item: &Item<'_>) -> ProxyLimits {
    let mut limits = ProxyLimits::default();
    let Some(mut section) = item.section() else {
        return limits;
    };
    for (key, limit) in [
        ("handshakes_per_source", &mut limits.handshakes_per_source),
        ("sessions_per_source", &mut limits.sessions_per_source),
        ("sessions_per_route", &mut limits.sessions_per_route),
    ] {
        let Some(item) = section.get(key) else {
            continue;
        };
        let text = item.full_text().unwrap_or_default();
        match text.parse() {
            Ok(number @ 1..=LIMIT_MAX) => *limit = number,
            _ => item.error_expected(
                format!("{} is no limit", quote(text)),
                format!("a number from 1 to {LIMIT_MAX}"),
            ),
        }
    }
    section.finish();
    limits
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
