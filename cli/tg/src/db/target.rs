//! Where and how a program connects to a database: one set of facts, written as a conninfo string, as environment
//! variables, or as a section of a service file.
//!
//! The host is `<route>.db.<cluster>`: libpq sends it as SNI, by which the proxy routes, and verifies the agent's
//! certificate with it. No DNS entry is needed when the proxy's addresses are given beside it.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use tidegate_console::{
    Failure,
    profile::{Profile, ProxyAddr},
    shell,
};
use tidegate_wire::route::route_label;
use tokio::net::lookup_host;

use super::certificate::{Certificate, DER_KEY};

/// Addresses of a proxy that a client tries.
const ADDRESSES_MAX: usize = 4;

/// Everything libpq needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    host: String,
    /// The proxy's addresses, to be tried in order; none when DNS knows the host.
    addresses: Vec<IpAddr>,
    port: u16,
    ca_file: String,
    chain_file: String,
    key_file: String,
    db_user: String,
    db_name: Option<String>,
}

/// One fact: libpq's keyword, its environment variable, the value.
type Fact = (&'static str, &'static str, String);

impl Target {
    /// The way to the database that a certificate is for.
    pub(super) fn new(
        profile: &Profile,
        certificate: &Certificate,
        addresses: Vec<IpAddr>,
    ) -> Self {
        let text = |path: &Path| path.display().to_string();
        Self {
            host: host(profile, &certificate.route.database),
            addresses,
            port: profile.facts().proxy_addr.port(),
            ca_file: text(&profile.db_ca_file()),
            chain_file: text(&certificate.chain_file),
            key_file: text(&certificate.key_file),
            db_user: certificate.route.db_user.clone(),
            db_name: certificate.route.db_name.clone(),
        }
    }

    /// The host name, which is the agent's and says which database.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The proxy's addresses.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The proxy's port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The file with the CA of agents' certificates.
    pub(super) fn ca_file(&self) -> &str {
        &self.ca_file
    }

    /// The file with the person's certificate for this database.
    pub(super) fn chain_file(&self) -> &str {
        &self.chain_file
    }

    /// The file with its key, in PEM.
    pub(super) fn key_file(&self) -> &str {
        &self.key_file
    }

    /// The file with the same key in DER.
    pub(super) fn der_key_file(&self) -> String {
        let path = Path::new(&self.key_file).with_extension(DER_KEY);
        path.display().to_string()
    }

    /// The database user.
    pub(super) fn db_user(&self) -> &str {
        &self.db_user
    }

    /// The logical database, if one is named.
    pub(super) fn db_name(&self) -> Option<&str> {
        self.db_name.as_deref()
    }

    #[cfg(test)]
    pub(super) fn of_parts(certificate: &Certificate, host: &str, ca_file: String) -> Self {
        Self {
            host: host.to_owned(),
            addresses: Vec::new(),
            port: 3080,
            ca_file,
            chain_file: certificate.chain_file.display().to_string(),
            key_file: certificate.key_file.display().to_string(),
            db_user: certificate.route.db_user.clone(),
            db_name: certificate.route.db_name.clone(),
        }
    }

    #[cfg(test)]
    #[must_use]
    pub(super) fn at_addresses(self, addresses: &[&str]) -> Self {
        Self {
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..self
        }
    }

    /// The same at another port.
    #[must_use]
    pub(super) fn at_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// The facts, in the order in which people read them. With several addresses the host stands once for each, as
    /// libpq wants it.
    fn facts(&self) -> Vec<Fact> {
        let hosts = vec![self.host.as_str(); self.addresses.len().max(1)].join(",");
        let mut facts: Vec<Fact> = vec![("host", "PGHOST", hosts)];
        if !self.addresses.is_empty() {
            let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
            facts.push(("hostaddr", "PGHOSTADDR", addresses.join(",")));
        }
        facts.extend([
            ("port", "PGPORT", self.port.to_string()),
            ("sslmode", "PGSSLMODE", "verify-full".to_owned()),
            ("sslrootcert", "PGSSLROOTCERT", self.ca_file.clone()),
            ("sslcert", "PGSSLCERT", self.chain_file.clone()),
            ("sslkey", "PGSSLKEY", self.key_file.clone()),
            ("user", "PGUSER", self.db_user.clone()),
        ]);
        facts.extend(
            self.db_name
                .clone()
                .map(|name| ("dbname", "PGDATABASE", name)),
        );
        facts
    }

    /// A conninfo string.
    pub(super) fn conninfo(&self) -> String {
        let pairs = self.conninfo_pairs().into_iter();
        let pairs: Vec<String> = pairs
            .map(|(keyword, value)| format!("{keyword}={value}"))
            .collect();
        pairs.join(" ")
    }

    /// Keywords and values of a conninfo string, quoted where they have to be.
    pub(super) fn conninfo_pairs(&self) -> Vec<(&'static str, String)> {
        let facts = self.facts().into_iter();
        facts
            .map(|(keyword, _, value)| (keyword, quote(&value)))
            .collect()
    }

    /// Environment variables, by name.
    pub(super) fn environment(&self) -> BTreeMap<&'static str, String> {
        self.facts()
            .into_iter()
            .map(|(_, variable, value)| (variable, value))
            .collect()
    }

    /// Lines of a section of a service file.
    pub(super) fn service_lines(&self) -> Vec<(&'static str, String)> {
        self.facts()
            .into_iter()
            .map(|(keyword, _, value)| (keyword, value))
            .collect()
    }
}

/// The host name of a database: by it the proxy routes, and its certificate is verified.
pub(super) fn host(profile: &Profile, database: &str) -> String {
    format!("{}.{}", route_label(database), profile.facts().db_suffix)
}

/// A value of a conninfo string: in quotes unless it is plain, with quotes and backslashes escaped.
///
/// Source: PostgreSQL manual, section "Connection Strings".
pub(super) fn quote(value: &str) -> String {
    let plain = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:,@+".contains(&b));
    if plain {
        return value.to_owned();
    }
    let escaped = value.replace('\\', r"\\").replace('\'', r"\'");
    format!("'{escaped}'")
}

/// Environment variables as a shell reads them.
pub(super) fn exports(environment: &BTreeMap<&'static str, String>) -> String {
    environment
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", shell::quote(value)))
        .collect()
}

/// The proxy's addresses, IPv4 first: a proxy that listens on IPv4 alone is common, the reverse is not.
pub(super) async fn resolve(proxy: &ProxyAddr) -> Result<Vec<IpAddr>, Failure> {
    let found = lookup_host((proxy.host(), proxy.port()))
        .await
        .map_err(|error| {
            Failure::new(format!(
                "cannot find the address of {}: {error}",
                proxy.host()
            ))
            .hint("check your network; the proxy's name must resolve on this machine")
        })?;
    let mut addresses: Vec<IpAddr> = found.map(|addr| addr.ip()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() {
        return Err(Failure::new(format!("{} has no address", proxy.host())));
    }
    Ok(addresses)
}

/// The addresses that a program needs when DNS does not lead the database's host to the proxy; none when it does.
pub(super) async fn without_dns(
    profile: &Profile,
    certificate: &Certificate,
) -> Result<Vec<IpAddr>, Failure> {
    let proxy = &profile.facts().proxy_addr;
    let addresses = resolve(proxy).await?;
    let host = host(profile, &certificate.route.database);
    let known = lookup_host((host.as_str(), proxy.port()))
        .await
        .is_ok_and(|mut found| found.any(|addr| addresses.contains(&addr.ip())));
    Ok(if known { Vec::new() } else { addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(addresses: &[&str], db_user: &str, db_name: Option<&str>) -> Target {
        Target {
            host: "orders.db.example.com".to_owned(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            port: 3080,
            ca_file: "/home/al ice/.tidegate/p/db-ca.pem".to_owned(),
            chain_file: "/c.pem".to_owned(),
            key_file: "/k.key".to_owned(),
            db_user: db_user.to_owned(),
            db_name: db_name.map(str::to_owned),
        }
    }

    #[test]
    fn a_conninfo_names_host_and_address_and_verifies_in_full() {
        assert_eq!(
            target(&["10.0.0.1"], "role/x", Some("dev")).conninfo(),
            "host=orders.db.example.com hostaddr=10.0.0.1 port=3080 sslmode=verify-full \
             sslrootcert='/home/al ice/.tidegate/p/db-ca.pem' sslcert=/c.pem sslkey=/k.key user=role/x dbname=dev"
        );
    }

    #[test]
    fn conninfo_values_cannot_break_out_of_their_quotes() {
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's"), r"'it\'s'");
        assert_eq!(quote(r"a\b c"), r"'a\\b c'");
        assert_eq!(quote("x sslmode=disable"), "'x sslmode=disable'");
        let conninfo = target(&[], "a' sslmode='disable", None).conninfo();
        assert!(
            conninfo.ends_with(r"user='a\' sslmode=\'disable'"),
            "{conninfo}"
        );
    }

    #[test]
    fn several_addresses_repeat_the_host() {
        let environment = target(&["10.0.0.1", "::1"], "u", None).environment();
        assert_eq!(
            environment["PGHOST"],
            "orders.db.example.com,orders.db.example.com"
        );
        assert_eq!(environment["PGHOSTADDR"], "10.0.0.1,::1");
        assert!(!environment.contains_key("PGDATABASE"));
    }

    #[test]
    fn where_dns_works_no_address_is_pinned() {
        let environment = target(&[], "u", Some("dev")).environment();
        assert!(!environment.contains_key("PGHOSTADDR"));
        assert_eq!(environment["PGHOST"], "orders.db.example.com");
    }

    #[test]
    fn exports_are_safe_for_a_shell() {
        let text = exports(&target(&[], "a; rm -rf", None).environment());
        assert!(text.contains("export PGUSER='a; rm -rf'\n"), "{text}");
        assert!(text.contains("export PGSSLMODE=verify-full\n"), "{text}");
    }
}
