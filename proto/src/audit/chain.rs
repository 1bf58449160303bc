//! The hash chain of one source in one log, and what verifies it.
//!
//! A record's hash covers its exact bytes and the hash before it, so that a byte that changed, and a record that was
//! removed, put in or moved, all show at the first record whose hash is not what follows. A chain that was cut at its
//! end is sound in itself: that shows only against a [`Head`] that somebody remembered.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use prost::Message as _;

use super::{happened_at, line::hex};
use crate::v1::AuditEvent;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// SHA-256.
pub type Hash = [u8; HASH_BYTES];

/// Records per source among which one that is read again is known: more than a batch of any export holds.
pub const REPEATS_KEPT_MAX: usize = 32 * 1024;

/// What a chain's first hash begins with.
const GENESIS: &[u8] = b"tidegate audit chain 1";

fn sha256(parts: [&[u8]; 2]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// SHA-256 of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> Hash {
    sha256([bytes, &[]])
}

/// What stands before the first record of a source's chain in a log.
#[must_use]
pub fn genesis(log: &str, source: &str) -> Hash {
    let named = [GENESIS, log.as_bytes(), source.as_bytes()].join(&0);
    sha256([&named, &[]])
}

/// The hash of a record, from the one before it and its exact bytes.
#[must_use]
pub fn follow(previous: &Hash, event: &[u8]) -> Hash {
    sha256([previous, event])
}

/// Where a chain was seen to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last record's place.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// One record as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The log it is in.
    pub log: &'a str,
    /// Whose it is.
    pub source: &'a str,
    /// Its place.
    pub sequence: u64,
    /// The hash beside it.
    pub hash: &'a [u8],
    /// Its bytes.
    pub event: &'a [u8],
}

/// Where a chain is not sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The place of the record at which it shows.
    pub sequence: u64,
    /// What is wrong.
    pub problem: String,
}

/// What is known of one chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Records read, repeats left out.
    pub count: u64,
    /// The first one's place.
    pub first_sequence: u64,
    /// When the first one happened.
    pub first_at: Option<Timestamp>,
    /// When the last one happened.
    pub last_at: Option<Timestamp>,
    /// The last record up to which the chain is sound.
    pub head: Head,
    /// The first break; nothing after it is verified.
    pub broken: Option<Break>,
    /// What somebody remembered of this chain.
    remembered: Option<Head>,
    recent: VecDeque<Hash>,
}

/// Whether a record may come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// An export is written at least once: after a failure its last records come again.
    Allowed,
    /// A log holds every record once.
    Refused,
}

/// Verifies records as they are read, in order.
#[derive(Debug)]
pub struct Verifier {
    repeats: Repeats,
    remembered: BTreeMap<(String, String), Head>,
    chains: BTreeMap<(String, String), Chain>,
}

impl Verifier {
    /// `remembered`: heads by log and source, from an earlier time.
    #[must_use]
    pub const fn new(repeats: Repeats, remembered: BTreeMap<(String, String), Head>) -> Self {
        Self {
            repeats,
            remembered,
            chains: BTreeMap::new(),
        }
    }

    /// Looks at the next record.
    pub fn read(&mut self, link: Link<'_>) {
        let key = (link.log.to_owned(), link.source.to_owned());
        let remembered = self.remembered.get(&key).copied();
        let chain = self.chains.entry(key).or_insert_with(|| {
            // A file may begin where an earlier one, whose head is known, ended.
            let (sequence, hash) = match remembered {
                Some(head) if head.sequence.checked_add(1) == Some(link.sequence) => {
                    (head.sequence, head.hash)
                }
                _ => (0, genesis(link.log, link.source)),
            };
            Chain::new(Head { sequence, hash }, remembered)
        });
        chain.read(link, self.repeats);
    }

    /// Notes what is wrong with the record that was read last of this chain.
    pub fn accuse(&mut self, log: &str, source: &str, sequence: u64, problem: &str) {
        let key = (log.to_owned(), source.to_owned());
        if let Some(chain) = self.chains.get_mut(&key)
            && chain.broken.is_none()
        {
            chain.broken = Some(Break {
                sequence,
                problem: problem.to_owned(),
            });
        }
    }

    /// All chains by log and source, those included of which only a head was remembered in one of `logs`; each was
    /// held against what was remembered.
    #[must_use]
    pub fn finish(mut self, logs: &[&str]) -> BTreeMap<(String, String), Chain> {
        for (key, head) in self.remembered {
            if logs.contains(&key.0.as_str()) {
                let start = Head {
                    sequence: 0,
                    hash: genesis(&key.0, &key.1),
                };
                self.chains
                    .entry(key)
                    .or_insert_with(|| Chain::new(start, Some(head)));
            }
        }
        for chain in self.chains.values_mut() {
            chain.hold_against_remembered();
        }
        self.chains
    }
}

impl Chain {
    const fn new(start: Head, remembered: Option<Head>) -> Self {
        Self {
            count: 0,
            first_sequence: start.sequence + 1,
            first_at: None,
            last_at: None,
            head: start,
            broken: None,
            remembered,
            recent: VecDeque::new(),
        }
    }

    fn read(&mut self, link: Link<'_>, repeats: Repeats) {
        if self.broken.is_some() {
            self.count += 1;
            return;
        }
        let expected = self.head.sequence.saturating_add(1);
        if link.sequence < expected && repeats == Repeats::Allowed && self.is_repeat(&link) {
            return;
        }
        self.count += 1;
        if let Err(problem) = self.follow(&link, expected) {
            self.broken = Some(Break {
                sequence: link.sequence,
                problem,
            });
        }
    }

    fn follow(&mut self, link: &Link<'_>, expected: u64) -> Result<(), String> {
        if link.sequence > expected {
            return Err(match link.sequence - expected {
                1 => format!("record {expected} before it is missing"),
                missing => format!("{missing} records before it are missing, from {expected} on"),
            });
        }
        if link.sequence < expected {
            return Err(format!(
                "it stands where record {expected} should: it was moved here, or put in"
            ));
        }
        let hash = follow(&self.head.hash, link.event);
        if hash != *link.hash {
            return Err("its hash does not follow: its bytes, its hash or the record before it were changed".to_owned());
        }
        let event = AuditEvent::decode(link.event)
            .map_err(|_| "its bytes are no event, though its hash follows".to_owned())?;
        if event.sequence != link.sequence || event.server_id != link.source {
            return Err("it says that it is another record than the one in this place".to_owned());
        }
        let at = happened_at(&event);
        self.first_at.get_or_insert(at);
        self.last_at = Some(at);
        self.head = Head {
            sequence: link.sequence,
            hash,
        };
        if self.recent.len() == REPEATS_KEPT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
        match self.remembered {
            Some(head) if head.sequence == link.sequence && head.hash != hash => Err(
                "its hash is not the one that was remembered: the chain was written anew"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    fn is_repeat(&self, link: &Link<'_>) -> bool {
        let back = self.head.sequence - link.sequence;
        let known = usize::try_from(back)
            .ok()
            .and_then(|back| self.recent.len().checked_sub(back + 1))
            .and_then(|place| self.recent.get(place));
        let previous = usize::try_from(back)
            .ok()
            .and_then(|back| self.recent.len().checked_sub(back + 2))
            .and_then(|place| self.recent.get(place));
        known.is_some_and(|known| known == link.hash)
            && previous.is_none_or(|previous| follow(previous, link.event) == *link.hash)
    }

    fn hold_against_remembered(&mut self) {
        let Some(remembered) = self.remembered.filter(|_| self.broken.is_none()) else {
            return;
        };
        if self.head.sequence < remembered.sequence {
            let mut problem = String::new();
            // Writing to a string cannot fail.
            let _ = write!(
                problem,
                "the chain ends at {}, and record {} was there before, with hash {}: its end was cut off",
                self.head.sequence,
                remembered.sequence,
                hex(&remembered.hash)
            );
            self.broken = Some(Break {
                sequence: self.head.sequence.saturating_add(1),
                problem,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "log-1";

    /// Sequence, hash, bytes.
    type Row = (u64, Hash, Vec<u8>);

    fn rows(count: u64) -> Vec<Row> {
        let mut hash = genesis(LOG, "host-1");
        (1..=count)
            .map(|sequence| {
                let event = AuditEvent {
                    uid: format!("uid-{sequence}"),
                    event: "user.login".to_owned(),
                    server_id: "host-1".to_owned(),
                    sequence,
                    ..AuditEvent::default()
                };
                let bytes = event.encode_to_vec();
                hash = follow(&hash, &bytes);
                (sequence, hash, bytes)
            })
            .collect()
    }

    fn remembered(rows: &[Row]) -> BTreeMap<(String, String), Head> {
        let Some((sequence, hash, _)) = rows.last() else {
            return BTreeMap::new();
        };
        let head = Head {
            sequence: *sequence,
            hash: *hash,
        };
        BTreeMap::from([((LOG.to_owned(), "host-1".to_owned()), head)])
    }

    fn verified(rows: &[Row], repeats: Repeats, heads: BTreeMap<(String, String), Head>) -> Chain {
        let mut verifier = Verifier::new(repeats, heads);
        for (sequence, hash, event) in rows {
            verifier.read(Link {
                log: LOG,
                source: "host-1",
                sequence: *sequence,
                hash,
                event,
            });
        }
        verifier.finish(&[LOG]).into_values().next().unwrap()
    }

    fn break_of(rows: &[Row]) -> (u64, String) {
        let chain = verified(rows, Repeats::Refused, BTreeMap::new());
        let found = chain.broken.unwrap();
        (found.sequence, found.problem)
    }

    #[test]
    fn a_chain_that_was_left_alone_is_sound() {
        let chain = verified(&rows(5), Repeats::Refused, BTreeMap::new());
        assert_eq!(chain.broken, None);
        assert_eq!((chain.count, chain.head.sequence), (5, 5));
        assert_eq!(chain.head.hash, rows(5)[4].1);
    }

    #[test]
    fn any_byte_that_changed_shows_where_it_is() {
        let sound = rows(3);
        for bit in 0..sound[1].2.len() * 8 {
            let mut changed = sound.clone();
            changed[1].2[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(break_of(&changed).0, 2, "bit {bit}");
        }
        let mut changed = sound;
        changed[0].1[31] ^= 1;
        assert_eq!(break_of(&changed).0, 1);
    }

    #[test]
    fn a_record_that_is_gone_put_in_or_moved_shows() {
        let mut gone = rows(4);
        gone.remove(1);
        assert_eq!(
            break_of(&gone),
            (3, "record 2 before it is missing".to_owned())
        );
        let first_gone = &rows(4)[1..];
        assert_eq!(break_of(first_gone).0, 2);
        let mut put_in = rows(4);
        put_in.insert(2, put_in[1].clone());
        assert!(break_of(&put_in).1.contains("put in"));
        let mut swapped = rows(4);
        swapped.swap(1, 2);
        assert_eq!(break_of(&swapped).0, 3);
        // Rewritten with hashes that follow: only who remembers a head sees it.
        let anew = rows(4);
        let mut heads = remembered(&anew);
        assert!(
            verified(&anew, Repeats::Refused, heads.clone())
                .broken
                .is_none()
        );
        for head in heads.values_mut() {
            head.hash[0] ^= 1;
        }
        let chain = verified(&anew, Repeats::Refused, heads);
        assert!(chain.broken.unwrap().problem.contains("written anew"));
    }

    #[test]
    fn a_record_of_another_source_or_place_shows_though_its_hash_follows() {
        let event = AuditEvent {
            server_id: "host-2".to_owned(),
            sequence: 1,
            ..AuditEvent::default()
        };
        let bytes = event.encode_to_vec();
        let hash = follow(&genesis(LOG, "host-1"), &bytes);
        assert!(break_of(&[(1, hash, bytes)]).1.contains("another record"));
    }

    #[test]
    fn an_end_that_was_cut_off_shows_only_to_who_remembers_it() {
        let all = rows(5);
        let heads = remembered(&all);
        let cut = &all[..3];
        assert!(
            verified(cut, Repeats::Refused, BTreeMap::new())
                .broken
                .is_none()
        );
        let chain = verified(cut, Repeats::Refused, heads.clone());
        let found = chain.broken.unwrap();
        assert_eq!(found.sequence, 4);
        assert!(found.problem.contains("cut off"), "{}", found.problem);
        let nothing = Verifier::new(Repeats::Refused, heads.clone()).finish(&[LOG]);
        assert!(nothing.values().all(|chain| chain.broken.is_some()));
        let elsewhere = Verifier::new(Repeats::Refused, heads).finish(&["log-2"]);
        assert!(elsewhere.is_empty());
    }

    #[test]
    fn a_file_may_begin_where_a_remembered_one_ended() {
        let all = rows(6);
        let chain = verified(&all[3..], Repeats::Allowed, remembered(&all[..3]));
        assert_eq!(chain.broken, None);
        assert_eq!((chain.first_sequence, chain.count), (4, 3));
    }

    #[test]
    fn an_export_may_repeat_records_but_not_others_in_their_place() {
        let all = rows(6);
        let repeated: Vec<Row> = all[..4].iter().chain(&all[1..]).cloned().collect();
        let chain = verified(&repeated, Repeats::Allowed, BTreeMap::new());
        assert_eq!(chain.broken, None);
        assert_eq!(chain.count, 6);
        assert!(
            verified(&repeated, Repeats::Refused, BTreeMap::new())
                .broken
                .is_some()
        );
        let mut forged = repeated;
        forged[5].2.push(0);
        assert!(
            verified(&forged, Repeats::Allowed, BTreeMap::new())
                .broken
                .is_some()
        );
    }
}
