//! The steps between an agent and a database's port: names, and connections.
//!
//! What is seen is told address by address, since one of several that does not answer explains a connection that
//! sometimes takes long.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use tidegate_core::{
    Database, ErrorCode,
    doctor::{Stop, Verdict, Who},
};
use tokio::{net::TcpStream, time::timeout};

/// How long a look-up may take: resolvers give up by themselves after some 5 to 30 s.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one address may take to accept a connection.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);
/// Most addresses that are tried.
const ADDRESSES_MAX: usize = 8;

/// The addresses of a database's host.
///
/// # Errors
///
/// When there are none.
pub(super) async fn look_up(database: &Database) -> Result<(Vec<SocketAddr>, Vec<String>), Stop> {
    let (host, port) = (database.uri.host(), database.uri.port());
    let found = match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(no_address(database, &error.to_string())),
        Err(_) => {
            let why = format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs());
            return Err(no_address(database, &why));
        }
    };
    if found.is_empty() {
        return Err(no_address(database, "the name has no addresses"));
    }
    let told = found.iter().map(|address| describe(address.ip())).collect();
    Ok((found, told))
}

fn no_address(database: &Database, why: &str) -> Stop {
    let host = database.uri.host();
    let verdict = Verdict::new(
        ErrorCode::DatabaseUnreachable,
        format!("the host name of database `{}` cannot be resolved", database.name),
        Who::Operator,
    )
    .how(format!(
        "check that `{host}` is still the database's endpoint: AWS removes the name with the database, and gives another \
         one when it is renamed"
    ))
    .how(
        "check the resolver of the agent's host (`/etc/resolv.conf`); names of private hosted zones resolve only inside \
         VPCs that the zone is associated with",
    );
    Stop::new(verdict, format!("look up {host}: {why}"))
}

/// An address, and whether it is one of a private network.
fn describe(ip: IpAddr) -> String {
    let is_private = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
    };
    format!("{ip} ({})", if is_private { "private" } else { "public" })
}

/// A connection to the first address that takes one.
///
/// # Errors
///
/// When none does.
pub(super) async fn connect(
    database: &Database,
    addresses: &[SocketAddr],
) -> Result<(TcpStream, Vec<String>), Stop> {
    let mut told = Vec::new();
    let mut causes = Vec::new();
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let begun = Instant::now();
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let from = stream
                    .local_addr()
                    .map_or_else(|_| String::new(), |from| format!(" from {}", from.ip()));
                told.push(format!(
                    "{address}: connected{from} in {} ms",
                    begun.elapsed().as_millis()
                ));
                return Ok((stream, told));
            }
            Ok(Err(error)) => {
                told.push(format!("{address}: {error}"));
                causes.push(Cause::of(&error));
            }
            Err(_) => {
                told.push(format!(
                    "{address}: no answer within {} s",
                    ADDRESS_TIMEOUT.as_secs()
                ));
                causes.push(Cause::Silence);
            }
        }
    }
    let from = addresses.first().and_then(own_address);
    Err(Stop {
        evidence: told,
        verdict: Box::new(unreachable(database, &causes, from)),
    })
}

/// Why an address takes no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Something answered that nobody listens.
    Refused,
    /// Nothing answered: packets are dropped.
    Silence,
    /// This host knows no way there.
    NoRoute,
}

impl Cause {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::TimedOut => Self::Silence,
            _ => Self::NoRoute,
        }
    }
}

/// Pure: what the causes of all addresses come to.
fn unreachable(database: &Database, causes: &[Cause], from: Option<IpAddr>) -> Verdict {
    let (host, port) = (database.uri.host(), database.uri.port());
    let verdict = Verdict::new(
        ErrorCode::DatabaseUnreachable,
        format!(
            "no address of database `{}` takes a connection",
            database.name
        ),
        Who::Operator,
    );
    let from = from.map_or_else(|| "the agent's address".to_owned(), |ip| ip.to_string());
    if causes.contains(&Cause::Silence) {
        return verdict
            .how(format!(
                "packets are dropped on the way: let the security group of the database accept TCP port {port} from \
                 {from}, and the network ACLs of both subnets let it pass"
            ))
            .how(
                "check that the route tables lead from the agent's subnet to the database's (peering, transit gateway, \
                 VPC endpoint)",
            )
            .how("a paused or stopped database does not answer either");
    }
    if causes.contains(&Cause::Refused) {
        return verdict
            .how(format!(
                "something answers at {host} that nobody listens on port {port}: check the port"
            ))
            .how("check that the database runs");
    }
    verdict.how(format!(
        "this host has no route to {host}: check its routes, and that it has addresses of the same family (IPv4, IPv6)"
    ))
}

/// The address that packets to `there` leave from. No packet is sent.
fn own_address(there: &SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if there.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0; 16], 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(there).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::redshift;

    #[test]
    fn silence_speaks_of_security_groups_and_a_refusal_of_the_port() {
        let orders = redshift("orders", &[]);
        let how = |causes: &[Cause]| {
            unreachable(&orders, causes, Some([10, 0, 0, 7].into()))
                .how
                .join("\n")
        };
        assert!(how(&[Cause::Refused, Cause::Silence]).contains("security group"));
        assert!(how(&[Cause::Silence]).contains("TCP port 5439 from 10.0.0.7"));
        assert!(how(&[Cause::Refused]).contains("port 5439: check the port"));
        assert!(how(&[Cause::NoRoute]).contains("no route"));
    }

    #[tokio::test]
    async fn addresses_that_refuse_are_told_one_by_one() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let stop = connect(&redshift("orders", &[]), &[address, address])
            .await
            .unwrap_err();
        assert_eq!(stop.evidence.len(), 2);
        assert!(
            stop.evidence[0].starts_with(&address.to_string()),
            "{stop:?}"
        );
        assert_eq!(stop.verdict.code, "database_unreachable");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told_with_who_acts() {
        let mut orders = redshift("orders", &[]);
        orders.uri = "no-such-host.invalid:5439".parse().unwrap();
        let stop = look_up(&orders).await.unwrap_err();
        assert_eq!(stop.verdict.who, Who::Operator);
        assert!(
            stop.evidence[0].contains("no-such-host.invalid"),
            "{stop:?}"
        );
    }
}
