//! How a connection names its database: the first label of the host in its ClientHello.
//!
//! A database is reached at `<route>.db.<cluster domain>`, and one certificate for
//! `*.db.<cluster domain>` covers them all; so a route is exactly one DNS label.
//!
//! DNS knows no case: two databases whose names differ by case alone share a route. Whoever looks a
//! route up must treat more than one hit as ambiguous, not take the first.

/// The longest DNS label.
pub const LABEL_BYTES_MAX: usize = 63;

const SHORT_PREFIX_BYTES_MAX: usize = 50;
const SHORT_HASH_BITS: u32 = 48;

/// The route of a database by its name.
///
/// The name in lower case, where that is a DNS label. Otherwise a shortened form: what is left of
/// the first 50 characters once everything that a label cannot hold is a hyphen and hyphens at the
/// ends are gone, then `-` and twelve hexadecimal digits of a hash over the lower-case name.
///
/// The result is always 1 to 63 characters of `a-z0-9_-`, the same on every machine and in every
/// version: it is part of connection strings that people keep.
pub fn route_label(database_name: &str) -> String {
    let name = database_name.to_lowercase();
    if is_label(&name) {
        return name;
    }
    let prefix: String = name
        .chars()
        .take(SHORT_PREFIX_BYTES_MAX)
        .map(|c| if is_label_char(c) { c } else { '-' })
        .collect();
    let prefix = match prefix.trim_matches('-') {
        "" => "db",
        prefix => prefix,
    };
    format!("{prefix}-{:012x}", short_hash(&name))
}

/// What database certificates and host names end in: `db.<cluster domain>`.
pub fn db_suffix(cluster_domain: &str) -> String {
    format!("db.{}", cluster_domain.trim_end_matches('.'))
}

/// The route in `<route>.db.<cluster domain>`, or `None` when `sni` is another host. Case does not
/// matter, nor does a final dot.
pub fn route_of_sni<'a>(sni: &'a str, cluster_domain: &str) -> Option<&'a str> {
    let host = sni.strip_suffix('.').unwrap_or(sni);
    let (route, suffix) = host.split_once('.')?;
    (is_label(&route.to_ascii_lowercase())
        && suffix.eq_ignore_ascii_case(&db_suffix(cluster_domain)))
    .then_some(route)
}

fn is_label(name: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&name.len())
        && name.chars().all(is_label_char)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn is_label_char(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '-' | '_')
}

/// The 64-bit hash folded to what twelve hexadecimal digits hold, as FNV's authors advise for
/// sizes that are no power of two.
fn short_hash(text: &str) -> u64 {
    let hash = fnv1a_64(text.as_bytes());
    (hash >> SHORT_HASH_BITS) ^ (hash & ((1 << SHORT_HASH_BITS) - 1))
}

/// FNV-1a with 64 bits: xor each byte in, then multiply by the prime. Chosen because it is a few
/// lines that never change; it resists accidents, not somebody who makes names collide on purpose,
/// which would give an ambiguous route and no access.
fn fnv1a_64(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::fnv1a_64;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
