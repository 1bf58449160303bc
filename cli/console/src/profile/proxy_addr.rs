//! Where a proxy is, as people type it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The port that people know proxies by.
pub const PROXY_PORT: u16 = 3080;
/// The longest DNS name.
const HOST_CHARS_MAX: usize = 253;

/// `host:port` of a proxy; the port is [`PROXY_PORT`] when none is typed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProxyAddr {
    host: String,
    port: u16,
}

impl ProxyAddr {
    /// The host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its profile: the host, with the port when it is not the usual one.
    pub(super) fn folder_name(&self) -> String {
        let host = self.host.to_ascii_lowercase();
        if self.port == PROXY_PORT {
            host
        } else {
            format!("{host}_{}", self.port)
        }
    }
}

impl FromStr for ProxyAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no proxy address; write `host` or `host:port`");
        let bare = text.strip_prefix("https://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = match bare.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
                (
                    host,
                    rest.strip_prefix(':').or(rest.is_empty().then_some("")),
                )
            }
            None => match bare.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => (bare, Some("")),
                Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
                None => (bare, Some("")),
            },
        };
        let port = match port.ok_or_else(wrong)? {
            "" => PROXY_PORT,
            port => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(wrong)?,
        };
        let sound = (1..=HOST_CHARS_MAX).contains(&host.len())
            && !host.starts_with(['.', '-'])
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        if sound {
            Ok(Self {
                host: host.to_owned(),
                port,
            })
        } else {
            Err(wrong())
        }
    }
}

impl TryFrom<String> for ProxyAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ProxyAddr> for String {
    fn from(addr: ProxyAddr) -> Self {
        addr.to_string()
    }
}

impl fmt::Display for ProxyAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_as_people_type_it() {
        for (typed, means) in [
            ("tidegate.example.com", "tidegate.example.com:3080"),
            ("tidegate.example.com:443", "tidegate.example.com:443"),
            ("https://tidegate.example.com/", "tidegate.example.com:3080"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("::1", "[::1]:3080"),
            ("[::1]:443", "[::1]:443"),
            ("[::1]", "[::1]:3080"),
        ] {
            let addr: ProxyAddr = typed.parse().unwrap();
            assert_eq!(addr.to_string(), means, "{typed}");
            assert_eq!(means.parse::<ProxyAddr>().unwrap(), addr);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "", ":1", "a:", "a:0", "a:99999", "a b", "a/b", "../x", "[::1", "[::1]x", "-a",
        ] {
            assert!(bad.parse::<ProxyAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_name_stays_below_its_home() {
        let folder = |text: &str| text.parse::<ProxyAddr>().unwrap().folder_name();
        assert_eq!(folder("Example.com"), "example.com");
        assert_eq!(folder("example.com:443"), "example.com_443");
    }
}
