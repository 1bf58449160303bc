//! Who a client is and what it asks for, from its certificate and its first message. Pure.
//!
//! Rules: only people's certificates open databases. A certificate that is bound to a route opens that alone; what it
//! names is also the default for what the first message leaves out. Without a database name PostgreSQL takes the
//! user's, and so do we, before access is decided; MySQL opens none.

use jiff::Timestamp;
use tidegate_core::{ClusterName, ErrorCode, Problem};
use tidegate_identity::{Holder, PeerIdentity, UserHolder};

/// What to do, for a client without a usable certificate.
const HINT_CERTIFICATE: &str = "use `tg db connect`, or give your client the certificate and key that `tg db login` wrote (sslcert, sslkey)";

/// What a client asks for, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The person.
    pub(crate) user: UserHolder,
    /// The database user.
    pub(crate) db_user: String,
    /// The logical database.
    pub(crate) db_name: String,
}

/// What a client's first message names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'n> {
    /// The database user.
    pub(crate) db_user: Option<&'n str>,
    /// The logical database.
    pub(crate) db_name: Option<&'n str>,
    /// Whether the logical database is called like the user when none is named; otherwise it is none.
    pub(crate) db_name_is_users: bool,
}

/// The person behind a verified certificate, and when that ends.
///
/// # Errors
///
/// A [`Problem`] for a client without one, of another cluster, or for a service's certificate.
pub(crate) fn person(
    certificate: Option<&[u8]>,
    cluster: &ClusterName,
) -> Result<(UserHolder, Timestamp), Problem> {
    let refused = |message: &str| {
        Problem::new(ErrorCode::ClientCertificate, message.to_owned()).hint(HINT_CERTIFICATE)
    };
    let certificate =
        certificate.ok_or_else(|| refused("a client certificate is required to connect"))?;
    let peer = PeerIdentity::from_der(certificate)
        .map_err(|error| refused("the client certificate cannot be used here").because(error))?;
    if peer.cluster != *cluster {
        return Err(
            refused("the client certificate belongs to another cluster").because(peer.cluster)
        );
    }
    match peer.holder {
        Holder::User(user) => Ok((user, peer.expires_at)),
        Holder::Host(host) => Err(refused(
            "the client certificate belongs to a service, not to a person",
        )
        .because(host.host_id)),
    }
}

/// What the person asks for at the database `served`.
///
/// # Errors
///
/// A [`Problem`] when no database user is named, or a bound certificate is for something else.
pub(crate) fn asked(user: UserHolder, named: Named<'_>, served: &str) -> Result<Asked, Problem> {
    let bound = user.route.as_ref();
    if let Some(route) = bound
        && route.database != served
    {
        return Err(mismatch("database", &route.database, served));
    }
    let bound_user = bound.and_then(|route| route.db_user.as_deref());
    let bound_name = bound.and_then(|route| route.db_name.as_deref());
    let db_user = named.db_user.or(bound_user).ok_or_else(|| {
        Problem::new(ErrorCode::AccessDenied, "no database user was given")
            .hint("name a database user, for example with `tg db connect --db-user`")
    })?;
    let default = if named.db_name_is_users { db_user } else { "" };
    let db_name = named.db_name.or(bound_name).unwrap_or(default);
    match (bound_user, bound_name) {
        (Some(bound), _) if bound != db_user => Err(mismatch("database user", bound, db_user)),
        (_, Some(bound)) if bound != db_name => Err(mismatch("database name", bound, db_name)),
        _ => Ok(Asked {
            db_user: db_user.to_owned(),
            db_name: db_name.to_owned(),
            user,
        }),
    }
}

fn mismatch(what: &str, bound: &str, asked: &str) -> Problem {
    Problem::new(
        ErrorCode::AccessDenied,
        format!("the client certificate is for {what} `{bound}`, not `{asked}`"),
    )
    .hint("run `tg db login` for what you want to open")
}

#[cfg(test)]
mod tests {
    use tidegate_identity::Route;
    use tidegate_wire::startup::{ProtocolVersion, StartupMessage};

    use super::*;

    fn alice(route: Option<(&str, Option<&str>, Option<&str>)>) -> UserHolder {
        UserHolder {
            name: "alice".to_owned(),
            roles: Vec::new(),
            traits: Default::default(),
            route: route.map(|(database, db_user, db_name)| Route {
                database: database.to_owned(),
                db_user: db_user.map(str::to_owned),
                db_name: db_name.map(str::to_owned),
            }),
            access_requests: Vec::new(),
            login: None,
        }
    }

    fn startup(params: &[(&str, &str)]) -> StartupMessage {
        params.iter().fold(
            StartupMessage::new(ProtocolVersion::V3_0),
            |message, (name, value)| message.with_param(name, value),
        )
    }

    fn ask(user: UserHolder, params: &[(&str, &str)]) -> Result<(String, String), Problem> {
        let startup = startup(params);
        let named = Named {
            db_user: startup.user(),
            db_name: startup.database(),
            db_name_is_users: true,
        };
        asked(user, named, "orders").map(|asked| (asked.db_user, asked.db_name))
    }

    fn pair(user: &str, name: &str) -> (String, String) {
        (user.to_owned(), name.to_owned())
    }

    #[test]
    fn the_certificate_fills_in_what_the_client_leaves_out() {
        let bound = alice(Some(("orders", Some("reader"), Some("dev"))));
        assert_eq!(ask(bound, &[]).unwrap(), pair("reader", "dev"));
    }

    #[test]
    fn without_a_database_name_it_is_the_users() {
        assert_eq!(
            ask(alice(None), &[("user", "reader")]).unwrap(),
            pair("reader", "reader")
        );
        assert_eq!(
            ask(alice(None), &[("user", "reader"), ("database", "")]).unwrap(),
            pair("reader", "reader")
        );
    }

    #[test]
    fn a_bound_certificate_opens_nothing_else() {
        let bound = || alice(Some(("orders", Some("reader"), Some("dev"))));
        for params in [
            &[("user", "admin"), ("database", "dev")],
            &[("user", "reader"), ("database", "prod")],
        ] {
            assert_eq!(
                ask(bound(), params).unwrap_err().code,
                ErrorCode::AccessDenied
            );
        }
        let elsewhere = alice(Some(("users", None, None)));
        assert_eq!(
            ask(elsewhere, &[("user", "reader")]).unwrap_err().code,
            ErrorCode::AccessDenied
        );
    }

    #[test]
    fn nobody_in_particular_gets_nowhere() {
        assert_eq!(
            ask(alice(None), &[]).unwrap_err().code,
            ErrorCode::AccessDenied
        );
    }

    #[test]
    fn a_client_without_certificate_is_told_how_to_get_one() {
        let problem = person(None, &"tg.example.com".parse().unwrap()).unwrap_err();
        assert_eq!(problem.code.sqlstate(), "28000");
        assert!(problem.hint.unwrap().contains("tg db connect"));
    }
}
