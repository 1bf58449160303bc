//! The names that a host may have: its id, what people call it, and what its certificate is for.

use std::net::IpAddr;

use tidegate_core::HostId;
use tidegate_proto::Invalid;

use super::{super::AccessError, HOSTNAME_CHARS_MAX};

/// Most DNS names and addresses of a host.
const NAMES_MAX: usize = 32;
/// The domain of the names that only services of a kind carry.
const RESERVED_DOMAIN: &str = "tidegate.internal";

/// A new id for a process.
pub(crate) fn new_host_id() -> Result<HostId, AccessError> {
    uuid::Uuid::new_v4()
        .to_string()
        .parse()
        .map_err(|error: tidegate_core::InvalidId| AccessError::Internal {
            doing: "making a host id",
            source: error.into(),
        })
}

pub(super) fn checked_hostname(hostname: String) -> Result<String, Invalid> {
    let sound = (1..=HOSTNAME_CHARS_MAX).contains(&hostname.len())
        && !hostname.chars().any(char::is_control);
    if sound {
        Ok(hostname)
    } else {
        let problem = format!("must be 1 to {HOSTNAME_CHARS_MAX} printable characters");
        Err(Invalid::new("hostname", problem))
    }
}

/// Names that a host certificate may carry: DNS names or addresses, and none that stands for a service.
pub(super) fn check_names(names: &[String]) -> Result<(), Invalid> {
    if names.len() > NAMES_MAX {
        return Err(Invalid::new("names", format!("are more than {NAMES_MAX}")));
    }
    for name in names {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        let is_dns = (1..=253).contains(&plain.len())
            && plain.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            });
        if name.parse::<IpAddr>().is_err() && !is_dns {
            let problem = format!("`{name}` is neither a DNS name nor an address");
            return Err(Invalid::new("names", problem));
        }
        if plain.to_ascii_lowercase().ends_with(RESERVED_DOMAIN) {
            let problem = format!("`{name}` stands for a service and cannot be asked for");
            return Err(Invalid::new("names", problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_stand_for_a_service_cannot_be_asked_for() {
        let check = |name: &str| check_names(&[name.to_owned()]);
        for good in [
            "proxy.example.com",
            "10.0.0.1",
            "::1",
            "*.proxy.example.com",
            "localhost",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "auth.tidegate.internal",
            "AUTH.Tidegate.Internal",
            "*.tidegate.internal",
            "tidegate.internal",
            "",
            "a b",
            "a..b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check_names(&vec!["a".to_owned(); NAMES_MAX + 1]).is_err());
    }
}
