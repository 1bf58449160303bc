//! Where a TLS connection goes, by what its ClientHello says. Pure.
//!
//! A name under `db.<cluster>` is a database; otherwise the offered protocols decide. Whoever sent a Postgres TLS
//! request speaks Postgres, whatever else the hello claims.
//!
//! Not here: whether there is such a database ([`crate::directory`]), and who serves it ([`crate::choice`]).

use tidegate_core::ClusterName;
use tidegate_identity::{ALPN_AUTH, ALPN_MYSQL, ALPN_POSTGRES, ALPN_TUNNEL};
use tidegate_wire::{
    hello::ClientHello,
    route::{db_suffix, route_of_sni},
};

/// What a client speaks, and so how it is told why it gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// MySQL, and was greeted by the proxy before TLS.
    Mysql,
    /// MySQL, and expects to be greeted inside TLS.
    MysqlInTls,
    /// Postgres.
    Postgres,
}

/// Where a connection goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To an auth server, untouched.
    AuthRelay,
    /// To an agent that serves this route, untouched.
    Database(String, Speaks),
    /// To nobody: it speaks a database's protocol, and its host name is missing or none of ours.
    NoDatabase {
        /// The host that it named.
        given: Option<String>,
        /// What it speaks.
        speaks: Speaks,
    },
    /// To the proxy itself: an agent's control connection.
    Tunnel,
    /// To the proxy itself: HTTP.
    Web,
}

/// Decides where a connection goes.
pub(crate) fn decide(hello: &ClientHello, after_ssl_request: bool, cluster: &ClusterName) -> Route {
    let postgres = after_ssl_request || hello.offers(ALPN_POSTGRES);
    if !postgres && hello.offers(ALPN_AUTH) {
        return Route::AuthRelay;
    }
    if !postgres && hello.offers(ALPN_TUNNEL) {
        return Route::Tunnel;
    }
    if !postgres && hello.offers(ALPN_MYSQL) {
        return database(hello, Speaks::MysqlInTls, cluster);
    }
    match database(hello, Speaks::Postgres, cluster) {
        found @ Route::Database(..) if postgres || hello.alpn.is_empty() => found,
        none @ Route::NoDatabase { .. } if postgres => none,
        _ => Route::Web,
    }
}

/// Decides where a connection goes of which it is known that it is for a database.
pub(crate) fn database(hello: &ClientHello, speaks: Speaks, cluster: &ClusterName) -> Route {
    let name = hello.server_name.as_deref();
    match name.and_then(|name| route_of_sni(name, cluster.as_str())) {
        Some(route) => Route::Database(route.to_owned(), speaks),
        None => Route::NoDatabase {
            given: hello.server_name.clone(),
            speaks,
        },
    }
}

/// The host name that a client has to use for a database, for hints.
pub(crate) fn host_pattern(cluster: &ClusterName) -> String {
    format!("<database>.{}", db_suffix(cluster.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(server_name: Option<&str>, alpn: &[&[u8]], after_ssl_request: bool) -> Route {
        let hello = ClientHello {
            server_name: server_name.map(str::to_owned),
            alpn: alpn.iter().map(|protocol| protocol.to_vec()).collect(),
        };
        decide(
            &hello,
            after_ssl_request,
            &"tide.example.com".parse().unwrap(),
        )
    }

    fn nowhere(given: Option<String>) -> Route {
        let speaks = Speaks::Postgres;
        Route::NoDatabase { given, speaks }
    }

    #[test]
    fn mysql_inside_tls_is_known_by_alpn_and_needs_a_database() {
        let name = Some("orders.db.tide.example.com");
        let orders = Route::Database("orders".to_owned(), Speaks::MysqlInTls);
        assert_eq!(route(name, &[b"tidegate-mysql"], false), orders);
        let nowhere = Route::NoDatabase {
            given: None,
            speaks: Speaks::MysqlInTls,
        };
        assert_eq!(route(None, &[b"tidegate-mysql"], false), nowhere);
    }

    #[test]
    fn the_route_is_the_first_label_under_the_database_domain() {
        let name = Some("orders.db.tide.example.com");
        let orders = || Route::Database("orders".to_owned(), Speaks::Postgres);
        assert_eq!(route(name, &[], true), orders());
        assert_eq!(route(name, &[], false), orders());
        assert_eq!(route(name, &[b"postgresql"], false), orders());
        assert_eq!(route(name, &[b"postgresql"], true), orders());
    }

    #[test]
    fn postgres_without_a_database_name_is_told_so() {
        assert_eq!(route(None, &[], true), nowhere(None));
        for other in [
            "proxy.example.com",
            "a.b.db.tide.example.com",
            "db.tide.example.com",
        ] {
            let given = Some(other.to_owned());
            assert_eq!(route(Some(other), &[b"postgresql"], false), nowhere(given));
        }
    }

    #[test]
    fn the_cluster_s_own_protocols_are_known_by_alpn() {
        assert_eq!(
            route(Some("auth.tidegate.internal"), &[b"tidegate-auth"], false),
            Route::AuthRelay
        );
        assert_eq!(
            route(None, &[b"tidegate-tunnel", b"h2"], false),
            Route::Tunnel
        );
    }

    #[test]
    fn a_postgres_client_cannot_reach_what_is_not_postgres() {
        assert_eq!(route(None, &[b"tidegate-auth"], true), nowhere(None));
        assert_eq!(route(None, &[b"tidegate-tunnel"], true), nowhere(None));
    }

    #[test]
    fn everything_else_is_web() {
        assert_eq!(
            route(Some("proxy.example.com"), &[b"h2", b"http/1.1"], false),
            Route::Web
        );
        assert_eq!(route(None, &[], false), Route::Web);
        assert_eq!(
            route(Some("orders.db.tide.example.com"), &[b"h2"], false),
            Route::Web
        );
    }
}
