//! `tg status`.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output,
    profile::{AssumedRequest, Home, Profile, ProxyAddr},
    table::visible,
    when,
};
use tidegate_core::access::{TRAIT_DB_NAMES, TRAIT_DB_USERS};

use crate::db;

/// Who one is.
#[derive(Serialize)]
struct Status {
    profile_url: String,
    user: String,
    cluster: String,
    roles: Vec<String>,
    db_users: Vec<String>,
    db_names: Vec<String>,
    /// Databases logged in to.
    databases: Vec<String>,
    /// Requests whose roles are in use.
    access_requests: Vec<AssumedRequest>,
    valid_until: Timestamp,
}

pub(crate) fn status(proxy: Option<&ProxyAddr>, format: Format) -> Result<(), Failure> {
    print_status(&Home::locate()?.profile(proxy)?, format)
}

/// Prints who a profile is for.
pub(crate) fn print_status(profile: &Profile, format: Format) -> Result<(), Failure> {
    let now = Timestamp::now();
    let own = profile.own_credentials(now)?;
    let valid_until = own.expires_at;
    let (credentials, access_requests) = match profile.assumed(now)? {
        Some(assumed) => (assumed.credentials, assumed.requests),
        None => (own, Vec::new()),
    };
    let list = |name: &str| {
        credentials
            .user
            .traits
            .get(name)
            .cloned()
            .unwrap_or_default()
    };
    let status = Status {
        profile_url: format!("https://{}", profile.facts().proxy_addr),
        user: credentials.user.name.clone(),
        cluster: profile.facts().cluster.to_string(),
        roles: credentials.user.roles.clone(),
        db_users: list(TRAIT_DB_USERS),
        db_names: list(TRAIT_DB_NAMES),
        databases: db::active_names(profile, now)?,
        access_requests,
        valid_until,
    };
    Output::new(format).value(&status, || text(&status, now))
}

fn text(status: &Status, now: Timestamp) -> String {
    let list = |values: &[String]| {
        if values.is_empty() {
            "none".to_owned()
        } else {
            visible(&values.join(", "))
        }
    };
    let valid_until = format!(
        "{} [{} left]",
        when::utc(status.valid_until),
        when::left(status.valid_until, now)
    );
    let mut lines = vec![
        ("Profile URL", status.profile_url.clone()),
        ("Logged in as", visible(&status.user)),
        ("Cluster", visible(&status.cluster)),
        ("Roles", list(&status.roles)),
        ("DB users", list(&status.db_users)),
        ("DB names", list(&status.db_names)),
    ];
    if !status.databases.is_empty() {
        lines.push(("Databases", list(&status.databases)));
    }
    for request in &status.access_requests {
        let roles = visible(&request.roles.join(", "));
        let left = when::left(request.expires, now);
        let id = visible(&request.id);
        lines.push(("Request", format!("{id}: {roles} [{left} left]")));
    }
    lines.push(("Valid until", valid_until));
    lines
        .iter()
        .enumerate()
        .map(|(index, (name, value))| {
            let mark = if index == 0 { '>' } else { ' ' };
            let name = format!("{name}:");
            format!("{mark} {name:<15}{value}\n")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_who_and_for_how_long() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let status = Status {
            profile_url: "https://proxy.example.com:3080".to_owned(),
            user: "alice".to_owned(),
            cluster: "example.com".to_owned(),
            roles: vec!["access".to_owned(), "analyst".to_owned()],
            db_users: vec!["*".to_owned()],
            db_names: Vec::new(),
            databases: Vec::new(),
            access_requests: vec![AssumedRequest {
                id: "0190".to_owned(),
                roles: vec!["analyst".to_owned()],
                expires: "2026-11-22T12:00:00Z".parse().unwrap(),
            }],
            valid_until: "2026-11-22T21:59:30Z".parse().unwrap(),
        };
        assert_eq!(
            text(&status, now),
            "\
> Profile URL:   https://proxy.example.com:3080
  Logged in as:  alice
  Cluster:       example.com
  Roles:         access, analyst
  DB users:      *
  DB names:      none
  Request:       0190: analyst [2h left]
  Valid until:   2026-11-22 21:59:30 UTC [11h59m left]
"
        );
    }
}
