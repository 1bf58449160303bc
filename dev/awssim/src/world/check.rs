//! AWS's rules for names and ranges that more than one part of the world follows, and what is left out of a world that
//! is written.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{
    ROLE_SESSION_SECONDS_MAX, ROLE_SESSION_SECONDS_MIN, RateLimit, Role, WorldError,
    is_db_identifier,
};

pub(crate) fn check_rate_limits(limits: &BTreeMap<String, RateLimit>) -> Result<(), WorldError> {
    for (name, limit) in limits {
        let at = format!("rate_limits.{name}");
        if !name
            .split_once(':')
            .is_some_and(|(s, a)| !s.is_empty() && !a.is_empty())
        {
            return Err(invalid("rate_limits", name, "must be service:Operation"));
        }
        if !(limit.per_second.is_finite() && limit.per_second >= 0.0) {
            let rule = "must be a rate of 0 or more";
            return Err(invalid(&at, &limit.per_second.to_string(), rule));
        }
        if limit.burst == 0 {
            return Err(invalid(&at, "0", "must be a burst of at least 1"));
        }
    }
    Ok(())
}

pub(crate) fn check_role(at: &str, name: &str, role: &Role) -> Result<(), WorldError> {
    check_iam_name(at, name)?;
    let seconds = role.max_session_duration;
    if !(ROLE_SESSION_SECONDS_MIN..=ROLE_SESSION_SECONDS_MAX).contains(&seconds) {
        let rule = "must be a session of 3600 to 43200 seconds";
        return Err(invalid(&format!("{at}.{name}"), &seconds.to_string(), rule));
    }
    if !(role.path.starts_with('/') && role.path.ends_with('/')) {
        return Err(invalid(
            &format!("{at}.{name}"),
            &role.path,
            "must start and end with `/`",
        ));
    }
    Ok(())
}

pub(crate) fn check_iam_name(at: &str, name: &str) -> Result<(), WorldError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(invalid(
            at,
            name,
            "must be 1 to 64 of letters, digits and _+=,.@-",
        ));
    }
    Ok(())
}

pub(crate) fn invalid(at: &str, value: &str, rule: &'static str) -> WorldError {
    WorldError::Invalid {
        at: at.to_owned(),
        value: value.to_owned(),
        rule,
    }
}

/// An endpoint's address is one of this machine's own.
pub(super) fn check_address(at: &str, address: Option<Ipv4Addr>) -> Result<(), WorldError> {
    match address.filter(|address| !address.is_loopback()) {
        Some(other) => Err(invalid(
            at,
            &other.to_string(),
            "must be a loopback address",
        )),
        None => Ok(()),
    }
}

pub(super) fn check_users<'a>(
    at: &str,
    mut users: impl Iterator<Item = &'a String>,
) -> Result<(), WorldError> {
    match users.find(|user| !is_db_identifier(user)) {
        Some(user) => Err(invalid(at, user, "is no name for a database user here")),
        None => Ok(()),
    }
}

pub(super) fn check_databases<'a>(
    at: &str,
    mut names: impl Iterator<Item = &'a String>,
) -> Result<(), WorldError> {
    match names.find(|name| !is_db_identifier(name)) {
        Some(name) => Err(invalid(at, name, "is no name for a database")),
        None => Ok(()),
    }
}

pub(super) fn is_region_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.contains('-') && name.len() <= 32 && name.bytes().all(allowed)
}

/// Whether a number has its default.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(super) fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Whether a flag has its default.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(super) fn is_no(yes: &bool) -> bool {
    !*yes
}
