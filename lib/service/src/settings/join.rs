//! How a process joins (`auth_token`, `join_params`, `ca_pin`), and where the auth service asks AWS who joins.

use std::{net::IpAddr, str::FromStr};

use secrecy::SecretString;
use tidegate_identity::CaPin;

use super::{
    JoinSettings,
    section::{Item, Section},
    values,
    words::quote,
};

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// How a process proves that it may join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinMethod {
    /// By its AWS identity: the token is a name.
    Iam,
    /// It knows the token, which is a secret.
    #[default]
    Token,
}

/// Where AWS STS is asked, when that is not its own hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsEndpoint {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A text that is no such endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no endpoint of AWS STS")]
pub struct InvalidStsEndpoint;

/// What an endpoint looks like.
const ENDPOINT_EXPECTED: &str =
    "`https://host` or `https://host:port`; without TLS only to a loopback address";

impl FromStr for StsEndpoint {
    type Err = InvalidStsEndpoint;

    /// Reads `https://host:port`. What is not under TLS could be answered by anybody on the way, so `http` is for loopback
    /// addresses alone.
    fn from_str(text: &str) -> Result<Self, InvalidStsEndpoint> {
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(InvalidStsEndpoint),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let port_default = if tls { HTTPS_PORT } else { HTTP_PORT };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| InvalidStsEndpoint)?)
            }
            _ => (rest, port_default),
        };
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let is_name = (1..=253).contains(&host.len())
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        let is_loopback = address.is_some_and(|address| address.is_loopback());
        if !(is_name || address.is_some()) || !(tls || is_loopback) {
            return Err(InvalidStsEndpoint);
        }
        Ok(Self {
            tls,
            host: address.map_or(host.to_owned(), |address| address.to_string()),
            port,
        })
    }
}

/// `auth_service.sts_endpoint_url`.
pub(super) fn sts_endpoint(item: &Item<'_>) -> Option<StsEndpoint> {
    let text = item.full_text()?;
    let read = text.parse().ok();
    if read.is_none() {
        item.error_expected(
            format!("{} {InvalidStsEndpoint}", quote(text)),
            ENDPOINT_EXPECTED,
        );
    }
    read
}

/// What the section `tidegate` says of joining.
pub(super) fn read(section: &mut Section<'_>) -> JoinSettings {
    let direct = section.get("auth_token").filter(Item::is_given);
    let params = section
        .get("join_params")
        .map(|item| join_params(&item))
        .unwrap_or_default();
    JoinSettings {
        method: params.method,
        token: join_token(direct, &params),
        ca_pins: section
            .get("ca_pin")
            .map(|item| ca_pins(&item))
            .unwrap_or_default(),
    }
}

/// Section `join_params`.
#[derive(Default)]
struct JoinParams<'t> {
    method: JoinMethod,
    token_name: Option<Item<'t>>,
}

fn join_token(direct: Option<Item<'_>>, params: &JoinParams<'_>) -> Option<SecretString> {
    match (direct, &params.token_name) {
        (Some(direct), None) if params.method == JoinMethod::Iam => {
            direct.error_expected(
                "is a secret, and joining by `iam` needs none",
                "`join_params.token_name` instead",
            );
            None
        }
        (Some(direct), None) => values::secret_or_file(&direct, "join token"),
        (None, Some(named)) => values::secret_or_file(named, "join token"),
        (Some(direct), Some(_)) => {
            direct.error_expected("is given beside `join_params.token_name`", "one of the two");
            None
        }
        (None, None) => None,
    }
}

fn join_params<'t>(item: &Item<'t>) -> JoinParams<'t> {
    let Some(mut section) = item.section() else {
        return JoinParams::default();
    };
    let methods = [("token", JoinMethod::Token), ("iam", JoinMethod::Iam)];
    let method = section
        .get("method")
        .filter(Item::is_given)
        .and_then(|item| item.choice(&methods))
        .unwrap_or_default();
    let token_name = section.get("token_name").filter(Item::is_given);
    if method == JoinMethod::Iam && token_name.is_none() {
        item.error_expected(
            "joins by `iam` and names no token",
            "`token_name`, the name of a token of method `iam`",
        );
    }
    section.ignore(&["azure"]);
    section.finish();
    JoinParams { method, token_name }
}

/// Pins in place or in files, one a line.
fn ca_pins(item: &Item<'_>) -> Vec<CaPin> {
    let mut pins = Vec::new();
    for entry in item.one_or_many() {
        let Some(text) = entry.text().map(str::trim).filter(|text| !text.is_empty()) else {
            continue;
        };
        let from_file = values::file_path(text).map(|path| (path, values::read_named_file(path)));
        let content = match from_file {
            None => text.to_owned(),
            Some((_, Ok(content))) => content,
            // Going on without the pin would trust more than the operator meant to.
            Some((path, Err(error))) => {
                entry.blocker(format!("cannot read {}: {error}", path.display()));
                continue;
            }
        };
        for pin in content.split_whitespace() {
            match pin.parse::<CaPin>() {
                Ok(pin) => pins.push(pin),
                Err(_) => entry.error_expected(
                    format!("{} is not a CA pin", quote(pin)),
                    "`sha256:` and 64 hex digits, or the path of a file with such lines",
                ),
            }
        }
    }
    pins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_tls_is_on_this_machine() {
        let read = |text: &str| text.parse::<StsEndpoint>();
        let named = read("https://vpce-1.sts.us-east-1.vpce.amazonaws.com/").unwrap();
        assert_eq!((named.tls, named.port), (true, 443));
        let local = read("http://127.0.0.1:4566").unwrap();
        assert_eq!(
            (local.tls, local.host.as_str(), local.port),
            (false, "127.0.0.1", 4566)
        );
        let six = read("http://[::1]:80").unwrap();
        assert_eq!((six.host.as_str(), six.port), ("::1", 80));
        assert_eq!(read("https://[::1]").unwrap().port, 443);
        for bad in [
            "",
            "sts.amazonaws.com",
            "http://sts.amazonaws.com",
            "http://10.0.0.1:80",
            "http://localhost:80",
            "https://",
            "https://a/b",
            "https://user@host",
            "https://host:port",
            "ftp://host",
        ] {
            assert_eq!(read(bad), Err(InvalidStsEndpoint), "{bad}");
        }
    }
}
