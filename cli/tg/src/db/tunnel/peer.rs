//! Which user of this machine is at the other end of a loopback connection, as Linux's table of sockets tells.
//!
//! Invariant: only a connection that is established counts. Once a program has closed its end, the table no longer says
//! whose it was, and who sends a statement and closes at once must not get in by that.
//!
//! Source: Linux's documentation of `/proc/net/tcp`, and `proc_pid_net(5)`.

use std::{
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// The tables, for sockets of either family.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// Most lines looked at; a machine with more sockets than this is no laptop.
const LINES_MAX: usize = 1_000_000;
/// The state `TCP_ESTABLISHED`.
const ESTABLISHED: &str = "01";
const ROOT: u32 = 0;

/// Whose program connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// One of this user, or of root, who may do everything anyway.
    Ours,
    /// One of somebody else.
    Others,
    /// No table tells.
    Unknown,
}

/// Whose a connection is: `client` is its far end, `here` ours. Reads files.
pub(super) fn peer(client: SocketAddr, here: SocketAddr) -> Peer {
    let Some(own) = own_id() else {
        return Peer::Unknown;
    };
    for table in TABLES {
        let Ok(file) = std::fs::File::open(table) else {
            continue;
        };
        match owner(BufReader::new(file), client, here) {
            Ok(Some(user)) if user == own || user == ROOT => return Peer::Ours,
            Ok(Some(_)) => return Peer::Others,
            Ok(None) | Err(_) => {}
        }
    }
    Peer::Unknown
}

/// The user whose process this is.
fn own_id() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // Real, effective, saved and of the file system: what is made belongs to the second.
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The user of the socket that is `client`'s end of a connection to `here`.
fn owner(table: impl BufRead, client: SocketAddr, here: SocketAddr) -> io::Result<Option<u32>> {
    let (client, here) = (endpoint(client), endpoint(here));
    for line in table.lines().take(LINES_MAX) {
        let line = line?;
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if client.contains(&local.to_owned())
            && here.contains(&remote.to_owned())
            && state == ESTABLISHED
        {
            // Queues, timers and retransmissions stand between.
            return Ok(words.nth(3).and_then(|user| user.parse().ok()));
        }
    }
    Ok(None)
}

/// An end of a connection as the tables write it: each word of the address in the machine's order. A socket of the newer
/// family writes an older address as a mapped one.
fn endpoint(addr: SocketAddr) -> Vec<String> {
    let word = |bytes: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*bytes));
    let v6 = |ip: Ipv6Addr| -> String {
        let octets = ip.octets();
        let (words, _) = octets.as_chunks::<4>();
        words.iter().map(word).collect()
    };
    let addresses = match addr.ip() {
        IpAddr::V4(ip) => vec![word(&ip.octets()), v6(ip.to_ipv6_mapped())],
        IpAddr::V6(ip) => vec![v6(ip)],
    };
    let written = addresses.iter();
    written
        .map(|address| format!("{address}:{:04X}", addr.port()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, remote: &str, state: &str, user: u32) -> String {
        format!(
            "   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  {user}        0 31337 1 0 20 4 30 10 -1\n"
        )
    }

    fn found(table: &str, client: &str, here: &str) -> Option<u32> {
        owner(
            table.as_bytes(),
            client.parse().unwrap(),
            here.parse().unwrap(),
        )
        .unwrap()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_owner_is_that_of_the_clients_end() {
        let table = [
            HEADER,
            // Our own end of the same connection, then another client's.
            &line("0100007F:1538", "0100007F:C350", "01", 1000),
            &line("0100007F:C351", "0100007F:1538", "01", 1003),
            &line("0100007F:C350", "0100007F:1538", "01", 1002),
        ]
        .concat();
        assert_eq!(
            found(&table, "127.0.0.1:50000", "127.0.0.1:5432"),
            Some(1002)
        );
        assert_eq!(found(&table, "127.0.0.1:50002", "127.0.0.1:5432"), None);
        let mapped = line(
            "0000000000000000FFFF00000100007F:C350",
            "0000000000000000FFFF00000100007F:1538",
            "01",
            7,
        );
        assert_eq!(found(&mapped, "127.0.0.1:50000", "127.0.0.1:5432"), Some(7));
        let newer = line(
            "00000000000000000000000001000000:C350",
            "00000000000000000000000001000000:1538",
            "01",
            8,
        );
        assert_eq!(found(&newer, "[::1]:50000", "[::1]:5432"), Some(8));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn who_closed_at_once_is_nobody_even_where_the_table_says_root() {
        for state in ["04", "05", "06", "07", "08"] {
            let table = line("0100007F:C350", "0100007F:1538", state, 0);
            assert_eq!(
                found(&table, "127.0.0.1:50000", "127.0.0.1:5432"),
                None,
                "{state}"
            );
        }
    }

    #[test]
    fn a_table_of_something_else_names_nobody() {
        for text in ["", "\n", "a b c\n", "0: x\n"] {
            assert_eq!(found(text, "127.0.0.1:50000", "127.0.0.1:5432"), None);
        }
    }

    #[test]
    fn a_connection_of_this_process_is_this_users() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(here).unwrap();
        let _accepted = listener.accept().unwrap();
        let told = peer(client.local_addr().unwrap(), here);
        // Where there is no such table nothing is told; another user's it never is.
        assert_ne!(told, Peer::Others);
        if std::path::Path::new("/proc/net/tcp").exists() {
            assert_eq!(told, Peer::Ours);
        }
    }
}
