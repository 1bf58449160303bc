//! What a join does to its token: one more use, or the same use again.
//!
//! A token for few hosts remembers which key each of them joined with. Who lost the answer asks again with the same key,
//! and is given the same host id; a certificate for that key is of no use to anybody else. After [`REPEAT_MAX`] the place is
//! taken for good.

use jiff::{SignedDuration, Timestamp};
use tidegate_proto::convert;

use crate::record::{JoinedRecord, TokenRecord};

/// How long after a join the same key may ask again.
pub(super) const REPEAT_MAX: SignedDuration = SignedDuration::from_mins(10);

/// What becomes of a token.
#[derive(Debug, PartialEq)]
pub(crate) enum Spend {
    /// A host asks again that joined a moment ago: it is this one. Nothing is counted.
    Again {
        /// Its id.
        host_id: String,
    },
    /// A place is free.
    Next,
    /// It is used up.
    UsedUp,
}

/// Looks for a place for who shows the key of this digest.
pub(crate) fn look(token: &TokenRecord, key_digest: &[u8], now: Timestamp) -> Spend {
    if token.max_uses == 0 {
        return Spend::Next;
    }
    let asks_again = |joined: &&JoinedRecord| {
        let at = joined.joined_at.as_ref();
        let at = at.and_then(|at| convert::instant(at).ok());
        joined.key_digest == key_digest && at.is_some_and(|at| now.duration_since(at) <= REPEAT_MAX)
    };
    match token.joined.iter().find(asks_again) {
        Some(joined) => Spend::Again {
            host_id: joined.host_id.clone(),
        },
        None if token.uses < u64::from(token.max_uses) => Spend::Next,
        None => Spend::UsedUp,
    }
}

/// The token after one more join.
pub(crate) fn used(
    mut token: TokenRecord,
    key_digest: &[u8],
    host_id: &str,
    now: Timestamp,
) -> TokenRecord {
    token.uses = token.uses.saturating_add(1);
    if token.max_uses > 0 {
        token.joined.push(JoinedRecord {
            key_digest: key_digest.to_vec(),
            host_id: host_id.to_owned(),
            joined_at: Some(convert::timestamp(now)),
        });
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token(max_uses: u32) -> TokenRecord {
        TokenRecord {
            max_uses,
            ..TokenRecord::default()
        }
    }

    #[test]
    fn a_token_for_one_host_lets_one_in() {
        let once = used(token(1), b"key", "h1", at(0));
        assert_eq!(look(&token(1), b"key", at(0)), Spend::Next);
        assert_eq!(look(&once, b"other", at(0)), Spend::UsedUp);
        assert_eq!(once.uses, 1);
    }

    #[test]
    fn the_same_key_is_answered_again_for_ten_minutes() {
        let once = used(token(1), b"key", "h1", at(0));
        let again = Spend::Again {
            host_id: "h1".to_owned(),
        };
        assert_eq!(look(&once, b"key", at(600)), again);
        assert_eq!(look(&once, b"key", at(601)), Spend::UsedUp);
    }

    #[test]
    fn a_token_for_any_number_counts_and_remembers_nobody() {
        let mut many = token(0);
        for host in 0..3 {
            assert_eq!(look(&many, b"key", at(0)), Spend::Next);
            many = used(many, b"key", &host.to_string(), at(0));
        }
        assert_eq!((many.uses, many.joined.len()), (3, 0));
    }
}
