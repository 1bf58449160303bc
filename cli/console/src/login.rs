//! Logins of people, as `tg sessions` and `tgctl users sessions` list them.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_proto::{convert, v1};

use crate::{Table, when};

/// A login that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Login {
    /// By which it can be ended.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// When it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When its certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Where the auth service saw it come from.
    pub remote_addr: String,
    /// The program.
    pub client: String,
    /// Whether a second factor was given.
    pub with_mfa: bool,
    /// Whether it is the one of who asks.
    pub current: bool,
}

impl From<&v1::Login> for Login {
    fn from(login: &v1::Login) -> Self {
        let at = |at: Option<&prost_types::Timestamp>| at.and_then(|at| convert::instant(at).ok());
        Self {
            id: login.id.clone(),
            user: login.user.clone(),
            created: at(login.created_at.as_ref()),
            expires: at(login.expires_at.as_ref()),
            remote_addr: login.remote_addr.clone(),
            client: login.client.clone(),
            with_mfa: login.second_factor,
            current: login.current,
        }
    }
}

/// Logins a line each; the one of who asks is marked.
#[must_use]
pub fn table(logins: &[Login]) -> Table {
    let mut table = Table::new(["", "Session ID", "Since", "Until", "From", "Client", "MFA"]);
    for login in logins {
        let told = |at: Option<Timestamp>| at.map(when::utc).unwrap_or_default();
        table.row([
            if login.current { ">" } else { "" },
            login.id.as_str(),
            &told(login.created),
            &told(login.expires),
            &login.remote_addr,
            &login.client,
            if login.with_mfa { "yes" } else { "no" },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_listed_with_where_and_until_when_and_the_own_one_is_marked() {
        let login = v1::Login {
            id: "0193-a".to_owned(),
            user: "alice".to_owned(),
            created_at: Some(prost_types::Timestamp::default()),
            expires_at: None,
            remote_addr: "10.0.0.7:50000".to_owned(),
            client: "tg 0.1.0".to_owned(),
            second_factor: true,
            current: true,
        };
        let text = table(&[Login::from(&login)]).render(None);
        let line = text.lines().last().unwrap();
        assert!(line.starts_with('>'), "{text}");
        for part in ["0193-a", "1970-01-01", "10.0.0.7:50000", "tg 0.1.0", "yes"] {
            assert!(line.contains(part), "{part}: {text}");
        }
    }
}
