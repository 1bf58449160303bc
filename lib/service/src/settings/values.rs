//! Kinds of values that several sections share: addresses, durations, files, IAM roles, selectors.

use std::{
    fs,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use jiff::SignedDuration;
use secrecy::SecretString;
use tidegate_core::{AssumeRole, Selector, Uri, selector::SELECTOR_TERMS_MAX};

use super::{
    section::{Item, Section},
    words::quote,
};

/// Largest file that a setting may name.
pub(super) const NAMED_FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest wait that a setting may ask for: a week. More is a mistake in the unit.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where to listen: `address:port`, `:port` for every address, or an address alone.
pub(super) fn listen_address(item: &Item<'_>, port_default: u16) -> Option<SocketAddr> {
    let text = without_scheme(item.full_text()?);
    let parsed = parse_listen_address(text, port_default);
    if parsed.is_none() {
        item.error_expected(
            format!("{} is not an address to listen on", quote(text)),
            format!("an IP address and a port, such as `0.0.0.0:{port_default}`"),
        );
    }
    parsed
}

fn parse_listen_address(text: &str, port_default: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port_default));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, port_default),
    };
    let ip = match host {
        "" => Ipv4Addr::UNSPECIFIED,
        "localhost" => Ipv4Addr::LOCALHOST,
        _ => return None,
    };
    Some(SocketAddr::new(ip.into(), port))
}

/// Where something is reached: `host:port`, or a host alone.
pub(super) fn peer_address(item: &Item<'_>, port_default: u16) -> Option<String> {
    let written = item.full_text()?;
    let port_default = if written.starts_with("https://") {
        443
    } else {
        port_default
    };
    let text = without_scheme(written).trim_end_matches('/');
    let parsed = text
        .parse::<Uri>()
        .or_else(|_| Uri::new(text.trim_matches(['[', ']']), port_default));
    match parsed {
        // An unbracketed `a:b` with a bad port would pass as a host name with a colon in it.
        Ok(uri) if !uri.host().contains(':') || uri.host().parse::<IpAddr>().is_ok() => {
            Some(uri.to_string())
        }
        _ => {
            item.error_expected(
                format!("{} is not an address", quote(text)),
                format!("`host:port`, or a host alone for port {port_default}"),
            );
            None
        }
    }
}

fn without_scheme(text: &str) -> &str {
    ["https://", "http://", "tcp://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .unwrap_or(text)
}

/// A duration of at least `min`: `5m`, `1h 30m`, `90s`, or seconds as a bare number.
pub(super) fn duration(item: &Item<'_>, min: Duration) -> Option<Duration> {
    let text = item.full_text()?.trim();
    let parsed = text
        .parse::<u64>()
        .map(Duration::from_secs)
        .ok()
        .or_else(|| {
            let signed: SignedDuration = text.parse().ok()?;
            Duration::try_from(signed).ok()
        });
    let Some(duration) = parsed else {
        item.error_expected(
            format!("{} is not a duration", quote(text)),
            "a duration such as `5m`, `1h30m` or `300` (seconds)",
        );
        return None;
    };
    if duration < min || duration > DURATION_MAX {
        item.error_expected(
            format!("{} is out of range", quote(text)),
            format!(
                "at least {} and at most {}",
                SignedDuration::try_from(min).unwrap_or_default(),
                "7 days"
            ),
        );
        return None;
    }
    Some(duration)
}

/// Reads a file that a setting names, as text.
pub(super) fn read_named_file(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut text = String::new();
    file.take(NAMED_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > NAMED_FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// A secret, given in place or as the absolute path of a file (`/path` or `file:///path`) that holds it.
///
/// A file that is not there is a warning and not an error: once a process has joined, its operator may well have
/// deleted the token, and a restart must still work.
pub(super) fn secret_or_file(item: &Item<'_>, what: &str) -> Option<SecretString> {
    let text = item.text()?.trim();
    if text.is_empty() {
        item.error("is empty");
        return None;
    }
    let Some(path) = file_path(text) else {
        return Some(text.into());
    };
    let problem = match read_named_file(path) {
        Ok(content) if !content.trim().is_empty() => return Some(content.trim().into()),
        Ok(_) => "it is empty".to_owned(),
        Err(error) => error.to_string(),
    };
    item.warn(format!(
        "cannot read the {what} from {}: {problem}",
        path.display()
    ));
    None
}

/// The path, when a value is one instead of the thing itself.
pub(super) fn file_path(text: &str) -> Option<&Path> {
    let path = text.strip_prefix("file://").unwrap_or(text);
    path.starts_with('/').then(|| Path::new(path))
}

/// `assume_role_arn` and `external_id`, which stand side by side wherever a role may be given.
///
/// `external_id_alone` is for kinds of databases whose users are roles: there the id is sent with those.
pub(super) fn assume_role(
    section: &mut Section<'_>,
    external_id_alone: bool,
) -> Option<AssumeRole> {
    role_of(section, "assume_role_arn", external_id_alone)
}

/// As [`assume_role`], where `assume_role: {role_arn, external_id}` may stand instead. Not both.
pub(super) fn assume_role_nested(
    section: &mut Section<'_>,
    external_id_alone: bool,
) -> Option<AssumeRole> {
    let flat = ["assume_role_arn", "external_id"]
        .into_iter()
        .find(|key| section.get(key).is_some_and(|item| item.is_given()));
    let nested = section
        .get("assume_role")
        .filter(|item| !item.holds_nothing());
    match (nested, flat) {
        (Some(item), Some(flat)) => {
            item.error_expected(format!("is given beside `{flat}`"), "the role in one place");
            None
        }
        (Some(item), None) => {
            let mut nested = item.section()?;
            let role = role_of(&mut nested, "role_arn", external_id_alone);
            if let Some(item) = nested.get("role_name").filter(Item::is_given) {
                item.error_expected(
                    "Tidegate does not look through the accounts of an organization",
                    "`role_arn`, one matcher an account",
                );
            }
            nested.finish();
            role
        }
        (None, _) => assume_role(section, external_id_alone),
    }
}

fn role_of(
    section: &mut Section<'_>,
    key: &'static str,
    external_id_alone: bool,
) -> Option<AssumeRole> {
    let role = section.get(key).filter(Item::is_given);
    let external = section.get("external_id").filter(Item::is_given);
    let external_id = external.as_ref().and_then(Item::parse);
    match (role, external) {
        (Some(role), _) => Some(AssumeRole {
            role_arn: role.parse()?,
            external_id,
        }),
        (None, Some(external)) if external_id_alone => {
            external.warn(format!(
                "ignored: discovery sends and keeps it with a role, `{key}`, alone; a database of an agent's file or a `db` resource may have it without one"
            ));
            None
        }
        (None, Some(external)) => {
            external.error_expected(
                "is given without a role to assume",
                format!("`{key}` beside it"),
            );
            None
        }
        (None, None) => None,
    }
}

/// Labels to choose databases by: a key with one value or a list of values. Empty stays empty.
pub(super) fn selector(item: &Item<'_>) -> Option<Selector> {
    let pairs = item.pairs()?;
    if pairs.len() > SELECTOR_TERMS_MAX {
        item.error(format!("has more than {SELECTOR_TERMS_MAX} keys"));
        return None;
    }
    let mut sound = true;
    let mut written = Vec::with_capacity(pairs.len());
    for (key, values) in pairs {
        let items = values.one_or_many();
        if items.is_empty() {
            values.error_expected("has no value to match", "a value, or `*` for any");
            sound = false;
        }
        let mut texts = Vec::with_capacity(items.len().min(SELECTOR_TERMS_MAX));
        for value in items {
            let Some(text) = value.text() else {
                sound = false;
                continue;
            };
            if let Err(problem) = Selector::new([(key, [text])]) {
                value.error(problem.to_string());
                sound = false;
            }
            texts.push(text);
        }
        written.push((key, texts));
    }
    if !sound {
        return None;
    }
    Selector::new(written)
        .map_err(|problem| item.error(problem.to_string()))
        .ok()
}
