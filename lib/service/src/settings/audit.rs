//! Key `storage.audit_events_uri`: where audit events are exported to, beside the log that each auth instance keeps.

use std::{fmt, path::PathBuf};

use tidegate_core::Region;

use super::{
    section::Item,
    words::{listed, quote},
};

/// Places that one instance exports to.
const TARGETS_MAX: usize = 8;
/// Longest URI.
const URI_BYTES_MAX: usize = 1024;
const EXPECTED: &str = "`stdout://`, `file:///path` or `s3://bucket/prefix?region=eu-central-1`";
/// Stores that Teleport keeps its log in, and queries. Ours is always beside the state.
const STORES: [&str; 5] = [
    "athena",
    "cockroachdb",
    "dynamodb",
    "firestore",
    "postgresql",
];

/// Where audit events are exported to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// Appended to a file, or to `audit.jsonl` in a folder.
    File(PathBuf),
    /// Put into a bucket.
    S3(S3Target),
    /// Written to standard output.
    Stdout,
}

/// A part of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Target {
    /// The bucket's name.
    pub bucket: String,
    /// What keys begin with; without slashes at its ends, and may be empty.
    pub prefix: String,
    /// Where the bucket is.
    pub region: Region,
    /// Another service that speaks S3, as `https://host:port`; `http` only on this machine. Default: AWS.
    pub endpoint: Option<String>,
}

/// As it is written: the name that an export goes on under after a restart.
impl fmt::Display for AuditTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::S3(s3) => {
                write!(f, "s3://{}/{}?region={}", s3.bucket, s3.prefix, s3.region)?;
                match &s3.endpoint {
                    Some(endpoint) => write!(f, "&endpoint={endpoint}"),
                    None => Ok(()),
                }
            }
            Self::Stdout => f.write_str("stdout://"),
        }
    }
}

/// Reads one URI or a list of them.
pub(super) fn read(item: &Item<'_>) -> Vec<AuditTarget> {
    let items = item.one_or_many();
    if items.len() > TARGETS_MAX {
        item.error_expected(
            format!("names {} targets", items.len()),
            format!("at most {TARGETS_MAX}"),
        );
    }
    let mut targets: Vec<AuditTarget> = Vec::new();
    for item in items.iter().take(TARGETS_MAX) {
        if let Some(target) = target(item) {
            if targets.contains(&target) {
                item.error("is a second time in the list");
            }
            targets.push(target);
        }
    }
    targets
}

fn target(item: &Item<'_>) -> Option<AuditTarget> {
    let text = item.full_text()?.trim();
    let wrong = |problem: String| {
        item.error_expected(problem, EXPECTED);
        None
    };
    if text.len() > URI_BYTES_MAX || text.contains(['%', '#']) || text.contains(char::is_whitespace)
    {
        return wrong(format!(
            "is longer than {URI_BYTES_MAX} bytes, or has a space, `%` or `#` in it"
        ));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong(format!("{} is no URI", quote(text)));
    };
    match scheme {
        "stdout" if rest.is_empty() => Some(AuditTarget::Stdout),
        "file" if rest.starts_with('/') => Some(AuditTarget::File(rest.into())),
        "s3" => s3(item, rest).map(AuditTarget::S3),
        store if STORES.contains(&store) => {
            item.warn(format!(
                "`{store}` is ignored: every auth instance keeps its own log, and exports it to `stdout`, `file` and `s3`"
            ));
            None
        }
        _ => wrong(format!("{} is no target", quote(text))),
    }
}

fn s3(item: &Item<'_>, rest: &str) -> Option<S3Target> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if !is_bucket(bucket) {
        item.error_expected(
            format!("{} is not a bucket's name", quote(bucket)),
            EXPECTED,
        );
        return None;
    }
    let (mut region, mut endpoint) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("region", value)) => match value.parse::<Region>() {
                Ok(found) => region = Some(found),
                Err(error) => {
                    item.error(format!("has a `region` that is none: {error}"));
                    return None;
                }
            },
            Some(("endpoint", value)) if is_endpoint(value) => {
                endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            Some(("endpoint", value)) => {
                item.error_expected(
                    format!("has {} as `endpoint`", quote(value)),
                    "`https://host:port`; `http://` only on this machine",
                );
                return None;
            }
            _ => {
                item.error_expected(
                    format!("has {} after the `?`", quote(pair)),
                    listed(&["region", "endpoint"]),
                );
                return None;
            }
        }
    }
    let Some(region) = region else {
        item.error_expected("does not say in which region the bucket is", "`?region=…`");
        return None;
    };
    Some(S3Target {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        region,
        endpoint,
    })
}

/// Source: Amazon S3 user guide, "Bucket naming rules".
fn is_bucket(name: &str) -> bool {
    let is_inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
    };
    (3..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
        && !name.contains("..")
}

/// Credentials and events go there, so it is TLS or this machine.
fn is_endpoint(text: &str) -> bool {
    let Some((scheme, address)) = text.split_once("://") else {
        return false;
    };
    let address = address.trim_end_matches('/');
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let is_host = !address.is_empty()
        && address.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']')
        });
    match scheme {
        "https" => is_host,
        "http" => is_host && matches!(host, "localhost" | "127.0.0.1" | "[::1]"),
        _ => false,
    }
}
