//! `db_service.ca_bundles`: where agents fetch the CA bundles of AWS instead of from AWS.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{join::StsEndpoint, section::Item, words::quote};

/// What a place looks like.
const EXPECTED: &str =
    "`https://host/path`, or `file:///folder`; `http://` only with a loopback address";

/// A copy of the CA bundles that AWS publishes: `<region>/<region>-bundle.pem` for RDS, and
/// `<partition>/amazon-trust-ca-bundle.crt` for Redshift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaBundlePlace {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A host, and the path below which they are.
    Host {
        /// Whether it is spoken to over TLS; without it only on this machine.
        tls: bool,
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        /// Begins with `/`, or is empty.
        path: String,
    },
}

/// A text that is no such place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no place of CA bundles")]
pub struct InvalidCaBundlePlace;

impl FromStr for CaBundlePlace {
    type Err = InvalidCaBundlePlace;

    /// Whoever answers in the place of AWS decides whom agents trust, so over a network it is TLS or nothing.
    fn from_str(text: &str) -> Result<Self, InvalidCaBundlePlace> {
        if let Some(folder) = text.strip_prefix("file://") {
            let folder = Path::new(folder);
            return if folder.is_absolute() {
                Ok(Self::Folder(folder.to_owned()))
            } else {
                Err(InvalidCaBundlePlace)
            };
        }
        let scheme = text.find("://").ok_or(InvalidCaBundlePlace)? + 3;
        let authority = text[scheme..]
            .find('/')
            .map_or(text.len(), |at| scheme + at);
        let endpoint: StsEndpoint = text[..authority]
            .parse()
            .map_err(|_| InvalidCaBundlePlace)?;
        let path = text[authority..].trim_end_matches('/');
        let is_path = path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/-._~%".contains(&b));
        if !is_path {
            return Err(InvalidCaBundlePlace);
        }
        Ok(Self::Host {
            tls: endpoint.tls,
            host: endpoint.host,
            port: endpoint.port,
            path: path.to_owned(),
        })
    }
}

/// `db_service.ca_bundles`.
pub(super) fn read(item: &Item<'_>) -> Option<CaBundlePlace> {
    let text = item.full_text()?;
    let place = text.parse().ok();
    if place.is_none() {
        item.error_expected(format!("{} {InvalidCaBundlePlace}", quote(text)), EXPECTED);
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_under_tls_or_on_this_machine() {
        let host = |tls, host: &str, port, path: &str| CaBundlePlace::Host {
            tls,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        };
        for (text, expected) in [
            (
                "https://mirror.example.com",
                host(true, "mirror.example.com", 443, ""),
            ),
            (
                "https://mirror:8443/aws/ca/",
                host(true, "mirror", 8443, "/aws/ca"),
            ),
            (
                "http://127.0.0.1:8080/ca",
                host(false, "127.0.0.1", 8080, "/ca"),
            ),
            ("file:///etc/ca", CaBundlePlace::Folder("/etc/ca".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "http://mirror.example.com/ca",
            "file://etc/ca",
            "ftp://mirror/ca",
            "https://",
            "https://mirror/a b",
            "https://mirror/a?b",
            "/etc/ca",
        ] {
            assert_eq!(
                text.parse::<CaBundlePlace>(),
                Err(InvalidCaBundlePlace),
                "{text}"
            );
        }
    }
}
