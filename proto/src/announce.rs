//! What an agent serves, cut into the parts of which its announcement is made.
//!
//! The auth service keeps a buffer as large as the largest message of a stream for as long as that lives, and an agent's
//! stream lives for hours in which it says a few bytes. So a set goes in parts, small where it is small; whoever sends them
//! waits for the answer to one before the next, or they arrive together after all.

use prost::Message as _;

use crate::v1::{AnnounceDelta, DatabaseServer};

/// A part is not cut smaller than this, in bytes; one server alone may be larger.
const PART_BYTES_MIN: usize = 2 << 10;

/// Nor made larger than this, in bytes: well below what gRPC takes.
const PART_BYTES_MAX: usize = 1 << 20;

/// Parts that a large set is cut into, so that waiting for their answers costs few round trips.
const PARTS: usize = 16;

/// All that is served; at least one part, since nothing at all is a set too.
#[must_use]
pub fn full_set(servers: Vec<DatabaseServer>) -> Vec<AnnounceDelta> {
    let mut parts = cut(servers);
    if parts.is_empty() {
        parts.push(AnnounceDelta::default());
    }
    for part in &mut parts {
        part.full = true;
    }
    chained(parts)
}

/// What changed; no part when nothing did.
#[must_use]
pub fn change(upserted: Vec<DatabaseServer>, removed: Vec<String>) -> Vec<AnnounceDelta> {
    let mut parts = cut(upserted);
    if !removed.is_empty() {
        parts.push(AnnounceDelta {
            removed,
            ..AnnounceDelta::default()
        });
    }
    chained(parts)
}

fn cut(servers: Vec<DatabaseServer>) -> Vec<AnnounceDelta> {
    let total: usize = servers.iter().map(DatabaseServer::encoded_len).sum();
    let part_bytes = (total / PARTS).clamp(PART_BYTES_MIN, PART_BYTES_MAX);
    let mut parts: Vec<AnnounceDelta> = Vec::new();
    let mut bytes = 0;
    for server in servers {
        let size = server.encoded_len();
        match parts.last_mut() {
            Some(last) if bytes + size <= part_bytes => {
                last.upserted.push(server);
                bytes += size;
            }
            _ => {
                parts.push(AnnounceDelta {
                    upserted: vec![server],
                    ..AnnounceDelta::default()
                });
                bytes = size;
            }
        }
    }
    parts
}

/// Each part but the last says that more follows.
fn chained(mut parts: Vec<AnnounceDelta>) -> Vec<AnnounceDelta> {
    if let Some((_, before)) = parts.split_last_mut() {
        for part in before {
            part.more = true;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Database;

    fn servers(count: usize, bytes: usize) -> Vec<DatabaseServer> {
        let server = |number| DatabaseServer {
            database: Some(Database {
                name: format!("db{number}"),
                description: "x".repeat(bytes),
                ..Database::default()
            }),
            ..DatabaseServer::default()
        };
        (0..count).map(server).collect()
    }

    #[test]
    fn an_empty_set_is_one_part() {
        let parts = full_set(Vec::new());
        assert_eq!(parts.len(), 1);
        assert!(parts[0].full && !parts[0].more);
        assert!(change(Vec::new(), Vec::new()).is_empty());
    }

    #[test]
    fn parts_are_small_where_the_set_is_and_hold_all_of_it() {
        for (count, bytes, largest) in [(10, 1_000, PART_BYTES_MIN), (5_000, 1_000, 350_000)] {
            let parts = full_set(servers(count, bytes));
            let held: usize = parts.iter().map(|part| part.upserted.len()).sum();
            assert_eq!(held, count);
            assert!(parts.iter().all(|part| part.encoded_len() <= largest + 64));
            assert!(parts.iter().all(|part| part.full));
            let last = parts.len() - 1;
            let more: Vec<bool> = parts.iter().map(|part| part.more).collect();
            assert!(more[..last].iter().all(|more| *more) && !more[last]);
            assert!(parts.len() <= 2 * PARTS, "{}", parts.len());
        }
    }

    #[test]
    fn what_is_gone_is_said_with_what_is_new() {
        let parts = change(servers(1, 1), vec!["old".to_owned()]);
        assert_eq!(parts.len(), 2);
        assert!(parts[0].more && !parts[1].more);
        assert_eq!(parts[1].removed, ["old"]);
        assert!(!parts[0].full && !parts[1].full);
    }
}
