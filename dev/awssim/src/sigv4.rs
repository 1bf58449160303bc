//! Verifies AWS Signature Version 4 in the `Authorization` header.
//!
//! A request is parsed first (whose key, which region and service), then verified with the
//! secret of that key; then its date must lie within [`SKEW_SECONDS_MAX`] of the clock. The host, the
//! date and, where given, the session token must be signed; the body must have the hash that was
//! signed. Requests that are presigned are database tokens only: [`crate::presigned`].
//!
//! Source: AWS general reference, Signature Version 4 signing process.

use http::HeaderMap;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::clock::moved;
use crate::crypto::{hex, hmac_sha256, sha256};

/// How far a request's date may be from the clock.
pub(crate) const SKEW_SECONDS_MAX: i64 = 300;
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The parts of an HTTP request that are signed.
#[derive(Clone, Copy)]
pub(crate) struct SignedRequest<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// A signature that was parsed and proves nothing yet.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) access_key: String,
    pub(crate) region: String,
    pub(crate) service: String,
    /// `x-amz-security-token`, for sessions.
    pub(crate) token: Option<String>,
    date: String,
    instant: Timestamp,
    amz_date: String,
    signed_headers: Vec<String>,
    signature: String,
}

/// Why a signature is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("the signature is incomplete: {0}")]
    Incomplete(String),
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your \
         AWS Secret Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    #[error("the request is missing an Authorization header")]
    Missing,
    #[error("Signature {says}: {dated} is {than} {bound} ({clock} {sign} 5 min.)")]
    Skewed {
        says: &'static str,
        dated: String,
        than: &'static str,
        bound: String,
        clock: String,
        sign: char,
    },
}

impl Claim {
    /// Reads the `Authorization` header and what belongs to it.
    pub(crate) fn parse(request: &SignedRequest<'_>) -> Result<Self, SignatureError> {
        let authorization =
            header(request.headers, "authorization").ok_or(SignatureError::Missing)?;
        let fields = authorization
            .strip_prefix(ALGORITHM)
            .ok_or_else(|| incomplete("the algorithm is not AWS4-HMAC-SHA256"))?;
        let field = |name: &str| {
            let found = fields
                .split(',')
                .find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| incomplete(&format!("Authorization lacks {name}")))
        };
        let (credential, signed) = (field("Credential")?, field("SignedHeaders")?);
        let signature = field("Signature")?.to_owned();
        let scope: Vec<&str> = credential.split('/').collect();
        let &[access_key, date, region, service, "aws4_request"] = scope.as_slice() else {
            return Err(incomplete(
                "the credential is not KEY/DATE/REGION/SERVICE/aws4_request",
            ));
        };
        let amz_date = header(request.headers, "x-amz-date")
            .ok_or_else(|| incomplete("there is no X-Amz-Date header"))?;
        let instant = parse_date(&amz_date)
            .ok_or_else(|| incomplete("X-Amz-Date is not YYYYMMDDTHHMMSSZ"))?;
        let claim = Self {
            access_key: access_key.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            token: header(request.headers, "x-amz-security-token"),
            date: date.to_owned(),
            instant,
            amz_date,
            signed_headers: signed.split(';').map(str::to_owned).collect(),
            signature,
        };
        claim.check_coverage()?;
        Ok(claim)
    }

    /// Proves that the request was signed with `secret`, whenever that was.
    pub(crate) fn verify(
        &self,
        request: &SignedRequest<'_>,
        secret: &str,
    ) -> Result<(), SignatureError> {
        let payload_hash = hex(&sha256(request.body));
        let stated = header(request.headers, "x-amz-content-sha256");
        if stated.is_some_and(|stated| stated != payload_hash) {
            return Err(SignatureError::Mismatch);
        }
        let canonical = self.canonical_request(request, &payload_hash)?;
        let scope = Scope {
            date: &self.date,
            region: &self.region,
            service: &self.service,
        };
        if scope.sign(secret, &self.amz_date, &canonical) != self.signature {
            return Err(SignatureError::Mismatch);
        }
        Ok(())
    }

    fn check_coverage(&self) -> Result<(), SignatureError> {
        let signed = |name: &str| self.signed_headers.iter().any(|h| h == name);
        if !signed("host") || !signed("x-amz-date") {
            return Err(incomplete("host and x-amz-date must be signed"));
        }
        if self.token.is_some() && !signed("x-amz-security-token") {
            return Err(incomplete("x-amz-security-token must be signed"));
        }
        if !self.amz_date.starts_with(&self.date) {
            return Err(incomplete(
                "the credential's date is not that of X-Amz-Date",
            ));
        }
        Ok(())
    }

    /// Fails unless the request is dated within [`SKEW_SECONDS_MAX`] of `now`.
    pub(crate) fn check_date(&self, now: Timestamp) -> Result<(), SignatureError> {
        let late = now.as_second() - self.instant.as_second();
        let (says, than, sign, bound) = match late {
            late if late > SKEW_SECONDS_MAX => {
                ("expired", "now earlier than", '-', -SKEW_SECONDS_MAX)
            }
            late if late < -SKEW_SECONDS_MAX => {
                ("not yet current", "still later than", '+', SKEW_SECONDS_MAX)
            }
            _ => return Ok(()),
        };
        let written = |at: Timestamp| at.strftime("%Y%m%dT%H%M%SZ").to_string();
        Err(SignatureError::Skewed {
            says,
            dated: self.amz_date.clone(),
            than,
            bound: written(moved(now, bound)),
            clock: written(now),
            sign,
        })
    }

    fn canonical_request(
        &self,
        request: &SignedRequest<'_>,
        payload_hash: &str,
    ) -> Result<String, SignatureError> {
        let mut query: Vec<&str> = request.query.split('&').filter(|p| !p.is_empty()).collect();
        query.sort_unstable();
        let mut headers = String::new();
        for name in &self.signed_headers {
            let value = header(request.headers, name).ok_or(SignatureError::Mismatch)?;
            headers.push_str(&format!("{name}:{value}\n"));
        }
        Ok(format!(
            "{}\n{}\n{}\n{headers}\n{}\n{payload_hash}",
            request.method,
            request.path,
            query.join("&"),
            self.signed_headers.join(";"),
        ))
    }
}

/// What a signing key is good for.
pub(crate) struct Scope<'a> {
    pub(crate) date: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

impl Scope<'_> {
    /// The signature of a canonical request, in hexadecimal.
    pub(crate) fn sign(&self, secret: &str, amz_date: &str, canonical: &str) -> String {
        let Self {
            date,
            region,
            service,
        } = self;
        let digest = hex(&sha256(canonical.as_bytes()));
        let to_sign =
            format!("{ALGORITHM}\n{amz_date}\n{date}/{region}/{service}/aws4_request\n{digest}");
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [date, region, service, "aws4_request"] {
            key = hmac_sha256(&key, part.as_bytes());
        }
        hex(&hmac_sha256(&key, to_sign.as_bytes()))
    }
}

/// The instant of an `X-Amz-Date`.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    let date = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// All values of a header, trimmed, inner runs of spaces made one, joined with commas.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let values = values.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "));
    let values: Vec<String> = values.collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn incomplete(what: &str) -> SignatureError {
    SignatureError::Incomplete(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// The `get-vanilla` case of AWS's published SigV4 test suite.
    fn vanilla() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let authorization = "AWS4-HMAC-SHA256 \
            Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
            SignedHeaders=host;x-amz-date, \
            Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        headers.insert("host", "example.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        headers.insert("authorization", authorization.parse().unwrap());
        headers
    }

    fn verify(headers: &HeaderMap, secret: &str, late_seconds: i64) -> Result<(), SignatureError> {
        let request = SignedRequest {
            method: "GET",
            path: "/",
            query: "",
            headers,
            body: b"",
        };
        let now: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        let now = Timestamp::from_second(now.as_second() + late_seconds).unwrap();
        let claim = Claim::parse(&request)?;
        claim.verify(&request, secret)?;
        claim.check_date(now)
    }

    #[test]
    fn the_published_example_verifies() {
        verify(&vanilla(), SECRET, 0).unwrap();
        verify(&vanilla(), SECRET, SKEW_SECONDS_MAX).unwrap();
    }

    #[test]
    fn a_wrong_secret_or_a_changed_header_does_not_match() {
        assert!(matches!(
            verify(&vanilla(), "other", 0),
            Err(SignatureError::Mismatch)
        ));
        let mut headers = vanilla();
        headers.insert("host", "evil.example".parse().unwrap());
        assert!(matches!(
            verify(&headers, SECRET, 0),
            Err(SignatureError::Mismatch)
        ));
    }

    #[test]
    fn a_date_beyond_five_minutes_is_refused_either_way() {
        for late in [SKEW_SECONDS_MAX + 1, -SKEW_SECONDS_MAX - 1] {
            let refused = verify(&vanilla(), SECRET, late);
            assert!(
                matches!(refused, Err(SignatureError::Skewed { .. })),
                "{late}"
            );
        }
        let refused = verify(&vanilla(), SECRET, 600).unwrap_err();
        let text = "Signature expired: 20150830T123600Z is now earlier than 20150830T124100Z \
                    (20150830T124600Z - 5 min.)";
        assert_eq!(refused.to_string(), text);
    }

    #[test]
    fn an_unsigned_request_says_so() {
        let refused = verify(&HeaderMap::new(), SECRET, 0);
        assert!(matches!(refused, Err(SignatureError::Missing)));
    }
}
