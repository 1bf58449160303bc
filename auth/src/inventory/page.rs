//! Page tokens: where a listing goes on.
//!
//! A token holds the last key shown, so rows that come and go between two pages neither repeat nor hide others. It is
//! bound to the query that it was made for, and checked, so that a token of another query is refused instead of
//! giving nonsense. It is not a secret, and gives no right.

use tidegate_identity::secret::{digest, hex};
use tidegate_proto::Invalid;

/// Bytes of the check in front of the key.
const CHECK_BYTES: usize = 8;
/// Longest key of any listing: a scope's id.
const KEY_BYTES_MAX: usize = 16 * 1024;
/// Longest token that is looked at.
const TOKEN_CHARS_MAX: usize = 2 * (CHECK_BYTES + KEY_BYTES_MAX);

fn check(query: &str, key: &str) -> Vec<u8> {
    digest(&format!("page 1|{}|{query}|{key}", query.len()))[..CHECK_BYTES].to_vec()
}

/// The token that goes on after `key` in the listing that `query` describes.
pub(crate) fn token(query: &str, key: &str) -> String {
    let mut bytes = check(query, key);
    bytes.extend_from_slice(key.as_bytes());
    hex(&bytes)
}

/// The key that a token goes on after; `None` for the empty token, which is the first page.
///
/// # Errors
///
/// [`Invalid`] when the token is damaged, or of another query.
pub(crate) fn read(query: &str, token: &str) -> Result<Option<String>, Invalid> {
    if token.is_empty() {
        return Ok(None);
    }
    decode(token)
        .filter(|(given, key)| *given == check(query, key))
        .map(|(_, key)| Some(key))
        .ok_or_else(foreign)
}

/// What is said of a token that was not made for the query.
pub(crate) fn foreign() -> Invalid {
    Invalid::new("page_token", "is not from the last answer to this query")
}

fn decode(token: &str) -> Option<(Vec<u8>, String)> {
    if token.len() > TOKEN_CHARS_MAX || !token.is_ascii() || !token.len().is_multiple_of(2) {
        return None;
    }
    let bytes = (0..token.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&token[at..at + 2], 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    let (given, key) = bytes.split_at_checked(CHECK_BYTES)?;
    Some((given.to_vec(), String::from_utf8(key.to_vec()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_is_bound_to_its_query() {
        let made = token("db|env=prod", "orders");
        assert_eq!(
            read("db|env=prod", &made).unwrap().as_deref(),
            Some("orders")
        );
        assert!(read("db|env=dev", &made).is_err());
        assert_eq!(read("db", "").unwrap(), None);
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let made = token("db", "orders");
        let cut = &made[..made.len() - 2];
        let flipped = made.replace('a', "b").replace('0', "1");
        for bad in ["zz", "0", "00", "é0", cut, &flipped, &"0".repeat(9000)] {
            assert!(read("db", bad).is_err(), "{bad}");
        }
    }
}
