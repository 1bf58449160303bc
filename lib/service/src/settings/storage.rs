//! Key `storage` of section `tidegate`: where the control plane keeps its state.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use tidegate_core::Uri;

use super::{
    AuditTarget, EtcdLogin, EtcdSettings, KeyPairFiles, StorageSettings, audit,
    section::{Item, Section},
    values,
    words::quote,
};

/// Members that may be named: etcd itself advises against more than seven.
const PEERS_MAX: usize = 32;
/// The port that etcd serves clients on.
const ETCD_PORT: u16 = 2379;
const PREFIX_DEFAULT: &str = "/tidegate";
/// Longest prefix: it is a part of every key.
const PREFIX_BYTES_MAX: usize = 256;
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// Keys that only `etcd` has.
const ETCD_KEYS: [&str; 10] = [
    "peers",
    "prefix",
    "tls_ca_file",
    "tls_cert_file",
    "tls_key_file",
    "username",
    "password_file",
    "dial_timeout",
    "request_timeout",
    "insecure",
];
/// Keys that only `sqlite` has.
const SQLITE_KEYS: [&str; 1] = ["path"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Etcd,
    Sqlite,
}

/// What the key says.
#[derive(Clone, Default)]
pub(super) struct Storage {
    /// `None` is the embedded store in its usual place, or an error that was reported.
    pub(super) state: Option<StorageSettings>,
    /// Where audit events are exported to.
    pub(super) audit_targets: Vec<AuditTarget>,
}

/// Reads it.
pub(super) fn read(item: &Item<'_>) -> Storage {
    let Some(mut section) = item.section() else {
        return Storage::default();
    };
    let kinds = [
        ("sqlite", Kind::Sqlite),
        ("dir", Kind::Sqlite),
        ("etcd", Kind::Etcd),
    ];
    let kind = match section.get("type").filter(Item::is_given) {
        None => Some(Kind::Sqlite),
        Some(written) => written.choice(&kinds),
    };
    let storage = match kind {
        Some(Kind::Sqlite) => {
            refuse(&mut section, &ETCD_KEYS, "etcd");
            sqlite(&mut section)
        }
        Some(Kind::Etcd) => {
            refuse(&mut section, &SQLITE_KEYS, "sqlite");
            etcd(&mut section).map(StorageSettings::Etcd)
        }
        // What the other keys should be is not known.
        None => return Storage::default(),
    };
    let targets = section.get("audit_events_uri").filter(Item::is_given);
    let audit_targets = targets.map(|item| audit::read(&item)).unwrap_or_default();
    section.ignore(&[
        "audit_sessions_uri",
        "journal",
        "poll_stream_period",
        "sync",
    ]);
    section.finish();
    Storage {
        state: storage,
        audit_targets,
    }
}

/// Reports keys that only another type has: left out in silence they would seem to do something.
fn refuse(section: &mut Section<'_>, keys: &[&'static str], of: &str) {
    for key in keys {
        if let Some(item) = section.get(key).filter(Item::is_given) {
            item.error(format!("is a key of `type: {of}`"));
        }
    }
}

fn sqlite(section: &mut Section<'_>) -> Option<StorageSettings> {
    let path = section.get("path").and_then(|item| item.full_text());
    path.map(|path| StorageSettings::Sqlite {
        dir: Path::new(path).to_owned(),
    })
}

fn etcd(section: &mut Section<'_>) -> Option<EtcdSettings> {
    let peers = section.require("peers").and_then(|item| peers(&item));
    let is_tls = peers.as_ref().is_some_and(|(is_tls, _)| *is_tls);
    let prefix = match section.get("prefix") {
        None => Some(PREFIX_DEFAULT.to_owned()),
        Some(item) => prefix(&item),
    };
    let ca_file = file(section, "tls_ca_file");
    let identity = identity(section);
    if let Some((false, _)) = &peers {
        for key in ["tls_ca_file", "tls_cert_file", "tls_key_file"] {
            if let Some(item) = section.get(key).filter(Item::is_given) {
                item.error_expected(
                    "is given, but the peers are reached without TLS",
                    "peers with `https://`",
                );
            }
        }
    }
    if let Some(flag) = section.get("insecure")
        && flag.boolean() == Some(true)
    {
        flag.error_expected(
            "Tidegate always checks who answers",
            "`tls_ca_file` with the CA of etcd's certificates",
        );
    }
    let login = login(section, is_tls);
    let mut timeout = |key: &'static str| {
        section
            .get(key)
            .and_then(|item| values::duration(&item, TIMEOUT_MIN))
    };
    let (dial_timeout, request_timeout) = (timeout("dial_timeout"), timeout("request_timeout"));
    Some(EtcdSettings {
        peers: peers?.1,
        prefix: prefix?,
        ca_file,
        identity,
        login,
        dial_timeout,
        request_timeout,
    })
}

/// Whether the members are reached over TLS, and each as `scheme://host:port`.
fn peers(item: &Item<'_>) -> Option<(bool, Vec<String>)> {
    let items = item.one_or_many();
    if items.is_empty() || items.len() > PEERS_MAX {
        item.error_expected(
            format!("names {} members", items.len()),
            format!("one to {PEERS_MAX} addresses such as `https://etcd-1:{ETCD_PORT}`"),
        );
        return None;
    }
    let mut scheme = None;
    let mut sound = true;
    let mut peers = Vec::with_capacity(items.len());
    for item in items {
        let Some((is_tls, address)) = peer(&item) else {
            sound = false;
            continue;
        };
        if *scheme.get_or_insert(is_tls) != is_tls {
            item.error_expected(
                "has another scheme than the first",
                "`https://` for all, or `http://` for all",
            );
            sound = false;
        }
        let scheme = if is_tls { "https" } else { "http" };
        peers.push(format!("{scheme}://{address}"));
    }
    scheme.filter(|_| sound).map(|is_tls| (is_tls, peers))
}

fn peer(item: &Item<'_>) -> Option<(bool, Uri)> {
    let text = item.full_text()?.trim();
    let read = || {
        let (scheme, rest) = text.split_once("://")?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.trim_end_matches('/');
        let address = rest
            .parse::<Uri>()
            .or_else(|_| Uri::new(rest.trim_matches(['[', ']']), ETCD_PORT))
            .ok()?;
        let is_address = !address.host().contains(['/', '@'])
            && (!address.host().contains(':')
                || address.host().parse::<std::net::IpAddr>().is_ok());
        is_address.then_some((is_tls, address))
    };
    let found = read();
    if found.is_none() {
        item.error_expected(
            format!("{} is not the address of an etcd member", quote(text)),
            format!("`https://host:{ETCD_PORT}`"),
        );
    }
    found
}

fn prefix(item: &Item<'_>) -> Option<String> {
    let text = item.text()?.trim();
    if text.trim_matches('/').is_empty() {
        item.error_expected(
            "is empty: all of etcd would be Tidegate's",
            format!("a prefix such as `{PREFIX_DEFAULT}`"),
        );
        return None;
    }
    if text.len() > PREFIX_BYTES_MAX {
        item.error(format!("is longer than {PREFIX_BYTES_MAX} bytes"));
        return None;
    }
    Some(text.to_owned())
}

fn file(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    let item = section.get(key).filter(Item::is_given)?;
    item.full_text().map(PathBuf::from)
}

/// What is shown to etcd: a certificate and its key, both or neither.
fn identity(section: &mut Section<'_>) -> Option<KeyPairFiles> {
    let cert = section.get("tls_cert_file").filter(Item::is_given);
    let key = section.get("tls_key_file").filter(Item::is_given);
    match (cert, key) {
        (Some(cert), Some(key)) => Some(KeyPairFiles {
            cert_file: cert.full_text()?.into(),
            key_file: key.full_text()?.into(),
        }),
        (Some(alone), None) => {
            alone.error_expected("is given alone", "`tls_key_file` beside it");
            None
        }
        (None, Some(alone)) => {
            alone.error_expected("is given alone", "`tls_cert_file` beside it");
            None
        }
        (None, None) => None,
    }
}

/// Who logs in: a name and the file that holds the password, both or neither.
fn login(section: &mut Section<'_>, is_tls: bool) -> Option<EtcdLogin> {
    let username = section.get("username").filter(Item::is_given);
    let file = section.get("password_file").filter(Item::is_given);
    let (username, file) = match (username, file) {
        (Some(username), Some(file)) => (username, file),
        (Some(alone), None) => {
            alone.error_expected("is given alone", "`password_file` beside it");
            return None;
        }
        (None, Some(alone)) => {
            alone.error_expected("is given alone", "`username` beside it");
            return None;
        }
        (None, None) => return None,
    };
    if !is_tls {
        file.warn("the password goes to etcd in the clear: reach the peers by `https://`");
    }
    Some(EtcdLogin {
        username: username.full_text()?.to_owned(),
        password: password(&file)?,
    })
}

fn password(item: &Item<'_>) -> Option<SecretString> {
    let path = Path::new(item.full_text()?);
    let problem = match values::read_named_file(path) {
        Ok(content) if !content.trim().is_empty() => return Some(content.trim().into()),
        Ok(_) => "it is empty".to_owned(),
        Err(error) => error.to_string(),
    };
    item.blocker(format!("cannot read {}: {problem}", path.display()));
    // The process does not start; a login without a password is not attempted.
    None
}
