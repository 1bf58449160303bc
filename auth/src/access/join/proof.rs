//! The signed request by which a process proves its AWS identity: what of it is let through to AWS.
//!
//! The process signs `sts:GetCallerIdentity` with our challenge among the signed headers, and hands the request to us
//! instead of AWS. Whoever holds another such request, made for somebody else or sent to AWS itself, cannot use it here:
//! the challenge is another. And whoever joins cannot make us send anything else, or anywhere else.
//!
//! Invariant: a [`Proof`] is `POST https://<an STS host>/` with exactly [`BODY`], with headers that we know, each once, and
//! our challenge under the signature. Everything else is refused before a byte is sent.
//!
//! Not here: whether the signature is right, which AWS alone can tell ([`super::sts`]), and whether the identity may join
//! ([`crate::access::tokens::allow`]).

use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use tidegate_core::Region;
use tidegate_identity::secret;
use tidegate_proto::v1;

/// The body that is signed, to the byte.
pub(crate) const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// The header that holds the challenge.
pub(crate) const CHALLENGE_HEADER: &str = "x-tidegate-challenge";
/// Most headers, and longest value of one: session tokens are the longest, at 4 KiB and less.
const HEADERS_MAX: usize = 16;
const HEADER_VALUE_BYTES_MAX: usize = 8 * 1024;
/// Longest name of a header that is quoted.
const HEADER_NAME_CHARS_MAX: usize = 64;
/// How far the signature's date may be from our clock: AWS refuses what is further from its own.
const SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The host that has no region in its name, and the region that it signs for.
const GLOBAL: (&str, &str) = ("sts.amazonaws.com", "us-east-1");

const ACCEPT: &str = "accept";
const AUTHORIZATION: &str = "authorization";
const CONTENT_LENGTH: &str = "content-length";
const CONTENT_TYPE: &str = "content-type";
const DATE: &str = "x-amz-date";
const HASH: &str = "x-amz-content-sha256";
const HOST: &str = "host";
const SESSION_TOKEN: &str = "x-amz-security-token";

/// Headers that a request may have.
const KNOWN: [&str; 9] = [
    ACCEPT,
    AUTHORIZATION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    DATE,
    HASH,
    HOST,
    SESSION_TOKEN,
    CHALLENGE_HEADER,
];
/// What a body of this kind is called; both spellings are in use.
const CONTENT_TYPES: [&str; 2] = [
    "application/x-www-form-urlencoded; charset=utf-8",
    "application/x-www-form-urlencoded",
];

/// A request that may be sent to AWS.
pub(crate) struct Proof {
    /// Where to.
    pub(crate) host: String,
    /// As they were signed, but for `content-length`.
    pub(crate) headers: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers are a credential.
        f.debug_struct("Proof")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Why a signed request is not sent to AWS.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProofError {
    #[error("the header `authorization` of the signed request {0}")]
    Authorization(&'static str),
    #[error("the body of the signed request must be `{BODY}`")]
    Body,
    #[error(
        "the signed request answers another challenge: each is good for one answer, on the connection that it came on"
    )]
    Challenge,
    #[error("the header `{0}` of the signed request is missing")]
    HeaderMissing(&'static str),
    #[error("the header `{0}` of the signed request is given twice")]
    HeaderTwice(&'static str),
    #[error("the signed request has the header {0}, which it must not have")]
    HeaderUnknown(String),
    #[error("the header `{name}` of the signed request must be {expected}")]
    HeaderValue {
        name: &'static str,
        expected: &'static str,
    },
    #[error("the signed request is for a host that is not AWS STS")]
    Host,
    #[error("the signed request must be `POST` to `/`, without a query")]
    Line,
    #[error(
        "the request was signed at {signed_at} by this host's clock, and the auth service's clock says {now}: set the clock \
         that is wrong"
    )]
    Skew {
        signed_at: Timestamp,
        now: Timestamp,
    },
    #[error("the signed request has more than {HEADERS_MAX} headers")]
    TooManyHeaders,
    #[error("the signature of the request does not cover its header `{0}`")]
    Unsigned(&'static str),
}

impl ProofError {
    /// A stable name for programs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Challenge => "CHALLENGE_MISMATCH",
            Self::Host => "HOST_NOT_STS",
            Self::Skew { .. } => "CLOCK_SKEW",
            Self::Unsigned(_) => "HEADER_UNSIGNED",
            Self::Authorization(_)
            | Self::Body
            | Self::HeaderMissing(_)
            | Self::HeaderTwice(_)
            | Self::HeaderUnknown(_)
            | Self::HeaderValue { .. }
            | Self::Line
            | Self::TooManyHeaders => "NOT_GET_CALLER_IDENTITY",
        }
    }
}

/// Checks a signed request that has to answer `challenge`.
pub(crate) fn check(
    request: &v1::SignedRequest,
    challenge: &str,
    now: Timestamp,
) -> Result<Proof, ProofError> {
    if request.method != "POST" || request.path != "/" {
        return Err(ProofError::Line);
    }
    if request.body != BODY.as_bytes() {
        return Err(ProofError::Body);
    }
    let mut headers = known_headers(&request.headers)?;
    let answered = one(&headers, CHALLENGE_HEADER)?;
    if !secret::same(answered.as_bytes(), challenge.as_bytes()) {
        return Err(ProofError::Challenge);
    }
    check_values(&headers)?;
    let host = one(&headers, HOST)?.to_owned();
    let signature = Signature::read(one(&headers, AUTHORIZATION)?)?;
    if signature.region != signing_region(&host).ok_or(ProofError::Host)? {
        return Err(ProofError::Authorization(
            "is for another region than its host",
        ));
    }
    check_coverage(&signature, &headers)?;
    check_date(&signature, one(&headers, DATE)?, now)?;
    headers.remove(CONTENT_LENGTH);
    Ok(Proof { host, headers })
}

/// The headers by name: those that we know, each once, each of a value that fits on a line.
fn known_headers(headers: &[v1::HttpHeader]) -> Result<BTreeMap<&'static str, String>, ProofError> {
    if headers.len() > HEADERS_MAX {
        return Err(ProofError::TooManyHeaders);
    }
    let mut known = BTreeMap::new();
    for header in headers {
        let name = KNOWN
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(&header.name));
        let name = name.ok_or_else(|| ProofError::HeaderUnknown(quoted(&header.name)))?;
        let sound = header.value.len() <= HEADER_VALUE_BYTES_MAX
            && header.value.bytes().all(|b| (0x20..0x7f).contains(&b));
        if !sound {
            return Err(ProofError::HeaderValue {
                name,
                expected: "printable ASCII of at most 8 KiB",
            });
        }
        if known.insert(name, header.value.clone()).is_some() {
            return Err(ProofError::HeaderTwice(name));
        }
    }
    Ok(known)
}

fn quoted(name: &str) -> String {
    let plain = name.len() <= HEADER_NAME_CHARS_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain {
        format!("`{name}`")
    } else {
        "of an odd name".to_owned()
    }
}

fn one<'h>(
    headers: &'h BTreeMap<&'static str, String>,
    name: &'static str,
) -> Result<&'h str, ProofError> {
    let value = headers.get(name).map(String::as_str);
    value.ok_or(ProofError::HeaderMissing(name))
}

/// Values that can only be what they are.
fn check_values(headers: &BTreeMap<&'static str, String>) -> Result<(), ProofError> {
    let wrong = |name, expected| Err(ProofError::HeaderValue { name, expected });
    if !one(headers, ACCEPT)?.eq_ignore_ascii_case("application/json") {
        return wrong(ACCEPT, "`application/json`");
    }
    let kind = one(headers, CONTENT_TYPE)?;
    if !CONTENT_TYPES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(kind))
    {
        return wrong(
            CONTENT_TYPE,
            "`application/x-www-form-urlencoded; charset=utf-8`",
        );
    }
    let length = headers.get(CONTENT_LENGTH);
    if length.is_some_and(|length| *length != BODY.len().to_string()) {
        return wrong(CONTENT_LENGTH, "the length of the body");
    }
    let hash = secret::hex(&secret::digest(BODY));
    if headers.get(HASH).is_some_and(|stated| *stated != hash) {
        return wrong(HASH, "the hash of the body");
    }
    Ok(())
}

/// The region that a host's requests are signed for; `None` for what is not STS.
///
/// Hosts are not looked up in what the caller sent: they are made from a region's name, and compared.
fn signing_region(host: &str) -> Option<String> {
    if host == GLOBAL.0 {
        return Some(GLOBAL.1.to_owned());
    }
    let (service, rest) = host.split_once('.')?;
    let region: Region = rest.split_once('.')?.0.parse().ok()?;
    let regional = region.sts_host();
    let is_sts = match service {
        "sts" => host == regional,
        // FIPS endpoints, where they have a name of their own.
        "sts-fips" => host.strip_prefix("sts-fips") == regional.strip_prefix("sts"),
        _ => false,
    };
    is_sts.then(|| region.to_string())
}

/// What an `authorization` header says.
struct Signature<'h> {
    date: &'h str,
    region: &'h str,
    signed: Vec<&'h str>,
}

impl<'h> Signature<'h> {
    fn read(header: &'h str) -> Result<Self, ProofError> {
        let wrong = ProofError::Authorization;
        let fields = header
            .strip_prefix(ALGORITHM)
            .ok_or(wrong("is not of AWS Signature Version 4"))?;
        let fields: Vec<(&str, &str)> = fields
            .split(',')
            .filter_map(|field| field.trim().split_once('='))
            .collect();
        let [
            ("Credential", credential),
            ("SignedHeaders", signed),
            ("Signature", signature),
        ] = fields.as_slice()
        else {
            return Err(wrong("has not the three fields of a signature"));
        };
        let scope: Vec<&str> = credential.split('/').collect();
        let [key, date, region, "sts", "aws4_request"] = scope.as_slice() else {
            return Err(wrong("is not for the service `sts`"));
        };
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(wrong("names no access key"));
        }
        if signature.len() != 64 || !signature.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong("has a signature that is none"));
        }
        Ok(Self {
            date,
            region,
            signed: signed.split(';').collect(),
        })
    }
}

/// What we rely on has to be under the signature: the challenge above all.
fn check_coverage(
    signature: &Signature<'_>,
    headers: &BTreeMap<&'static str, String>,
) -> Result<(), ProofError> {
    let token = headers.contains_key(SESSION_TOKEN).then_some(SESSION_TOKEN);
    for name in [CHALLENGE_HEADER, HOST, DATE].into_iter().chain(token) {
        if !signature.signed.contains(&name) {
            return Err(ProofError::Unsigned(name));
        }
    }
    Ok(())
}

/// A challenge is as old as this conversation, so a signature of another time tells of a wrong clock.
fn check_date(signature: &Signature<'_>, date: &str, now: Timestamp) -> Result<(), ProofError> {
    let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|date| date.to_zoned(TimeZone::UTC))
        .map_err(|_| ProofError::HeaderValue {
            name: DATE,
            expected: "an instant such as `20261122T170000Z`",
        })?
        .timestamp();
    if !date.starts_with(signature.date) {
        return Err(ProofError::Authorization(
            "is of another day than the request",
        ));
    }
    if signed_at.duration_since(now).abs() > SKEW_MAX {
        return Err(ProofError::Skew { signed_at, now });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
