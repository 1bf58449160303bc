//! RDS's IAM tokens: a presigned request without its scheme, sent as a password.
//!
//! `HOST:PORT/?Action=connect&DBUser=USER&X-Amz-…&X-Amz-Signature=…`. A token is parsed first, and then held to the
//! endpoint that it was shown to; every part of [`Shown`] must agree, and the signature must be that of the key that it
//! names. Nobody is called: the database verifies it by itself.
//!
//! Source: RDS user guide, "Connecting to your DB instance using IAM authentication"; general reference, "Authenticating
//! requests: using query parameters".

use std::collections::BTreeMap;

use crate::api::decode;
use crate::clock::{after, moved};
use crate::sessions::Caller;
use crate::sigv4::{ALGORITHM, SKEW_SECONDS_MAX, Scope, parse_date};
use crate::state::State;
use crate::world::arn;

/// How long a token is good at most, in seconds.
const TOKEN_SECONDS_MAX: u32 = 900;
/// Service of a token's signature.
const SERVICE: &str = "rds-db";
/// The hash of an empty body.
const NO_BODY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What a token is shown to.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    /// Of the endpoint, as AWS names it.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// Of the database.
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    /// `db-…`, `cluster-…` or `prx-…`.
    pub(crate) resource_id: &'a str,
    pub(crate) user: &'a str,
}

/// Why a token opens nothing. Clients are not told; the journal is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the key's account is {0}, not that of the database")]
    Account(String),
    #[error("{who} may not rds-db:connect on {arn}{because}")]
    Denied {
        who: String,
        arn: String,
        because: String,
    },
    #[error("the token is for the endpoint {0}")]
    Endpoint(String),
    #[error("the token has expired")]
    Expired,
    #[error("the token is from the future")]
    Future,
    #[error("the signature does not match")]
    Mismatch,
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the token is for the region {0}")]
    Region(String),
    #[error("the session that signed the token has expired")]
    SessionExpired,
    #[error("nobody has the access key {0}")]
    UnknownKey(String),
    #[error("the token is for the database user {0}")]
    User(String),
    #[error("the session token does not belong to the key")]
    WrongSession,
}

/// Who signed a token, if it opens what it is shown to, now.
pub(crate) fn verify(state: &State, shown: &Shown<'_>, token: &str) -> Result<Caller, TokenError> {
    let parsed = Parsed::read(token)?;
    let endpoint = format!("{}:{}", shown.host, shown.port);
    if parsed.endpoint != endpoint {
        return Err(TokenError::Endpoint(parsed.endpoint.to_owned()));
    }
    let credential: Vec<&str> = parsed.field("X-Amz-Credential")?.split('/').collect();
    let &[key, date, region, SERVICE, "aws4_request"] = credential.as_slice() else {
        return Err(TokenError::Malformed("the credential is no rds-db scope"));
    };
    if region != shown.region {
        return Err(TokenError::Region(region.to_owned()));
    }
    if parsed.field("DBUser")? != shown.user {
        return Err(TokenError::User(parsed.field("DBUser")?.to_owned()));
    }
    let caller = signer(state, &parsed, (key, date, region))?;
    parsed.check_time(state)?;
    if caller.account() != shown.account {
        return Err(TokenError::Account(caller.account().to_owned()));
    }
    let resource = format!("dbuser:{}/{}", shown.resource_id, shown.user);
    let arn = arn(SERVICE, shown.region, shown.account, &resource);
    let context = caller.context(shown.region);
    match state.decide(&caller, "rds-db:connect", &arn, &context) {
        Ok(()) => Ok(caller),
        Err(denial) => Err(TokenError::Denied {
            who: caller.arn(),
            because: denial.because("rds-db:connect"),
            arn,
        }),
    }
}

/// Proves the signature with the secret of the key that the token names.
fn signer(
    state: &State,
    parsed: &Parsed<'_>,
    (key, date, region): (&str, &str, &str),
) -> Result<Caller, TokenError> {
    let (caller, secret) = match state.sessions.find(key) {
        Some(session) => {
            let sent = parsed.fields.get("X-Amz-Security-Token");
            if sent.map(String::as_str) != Some(session.token.expose()) {
                return Err(TokenError::WrongSession);
            }
            if session.expires_at <= state.clock.now() {
                return Err(TokenError::SessionExpired);
            }
            let secret = session.secret.clone();
            (Caller::Session(session), secret)
        }
        None => state
            .find_user(key)
            .ok_or_else(|| TokenError::UnknownKey(key.to_owned()))?,
    };
    let amz_date = parsed.field("X-Amz-Date")?;
    if !amz_date.starts_with(date) {
        return Err(TokenError::Malformed(
            "the credential's date is not that of X-Amz-Date",
        ));
    }
    let scope = Scope {
        date,
        region,
        service: SERVICE,
    };
    let signature = scope.sign(secret.expose(), amz_date, &parsed.canonical());
    if signature != parsed.field("X-Amz-Signature")? {
        return Err(TokenError::Mismatch);
    }
    Ok(caller)
}

/// A token that was taken apart and proves nothing yet.
struct Parsed<'a> {
    /// `HOST:PORT`.
    endpoint: &'a str,
    /// Decoded.
    fields: BTreeMap<&'a str, String>,
}

impl<'a> Parsed<'a> {
    fn read(token: &'a str) -> Result<Self, TokenError> {
        let (endpoint, query) = token
            .split_once("/?")
            .ok_or(TokenError::Malformed("it is not HOST:PORT/?…"))?;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let fields = pairs.map(|(name, value)| (name, decode(value))).collect();
        let parsed = Self { endpoint, fields };
        for (name, must) in [
            ("Action", "connect"),
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-SignedHeaders", "host"),
        ] {
            if parsed.field(name)? != must {
                return Err(TokenError::Malformed(
                    "action, algorithm or signed headers are others",
                ));
            }
        }
        Ok(parsed)
    }

    fn field(&self, name: &str) -> Result<&str, TokenError> {
        let found = self.fields.get(name).map(String::as_str);
        found.ok_or(TokenError::Malformed("a parameter is missing"))
    }

    /// The request that was signed: names and values encoded anew, since clients differ in what they leave as it is.
    fn canonical(&self) -> String {
        let fields = self.fields.iter();
        let signed = fields.filter(|(name, _)| **name != "X-Amz-Signature");
        let mut signed: Vec<String> = signed
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        signed.sort_unstable();
        let (query, endpoint) = (signed.join("&"), self.endpoint);
        format!("GET\n/\n{query}\nhost:{endpoint}\n\nhost\n{NO_BODY}")
    }

    fn check_time(&self, state: &State) -> Result<(), TokenError> {
        let malformed = TokenError::Malformed("X-Amz-Date or X-Amz-Expires is none");
        let signed_at = parse_date(self.field("X-Amz-Date")?);
        let seconds = self.field("X-Amz-Expires")?.parse::<u32>().ok();
        let (Some(signed_at), Some(seconds)) = (signed_at, seconds) else {
            return Err(malformed);
        };
        let now = state.clock.now();
        if signed_at > moved(now, SKEW_SECONDS_MAX) {
            return Err(TokenError::Future);
        }
        if after(signed_at, seconds.min(TOKEN_SECONDS_MAX)) <= now {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}

/// All but letters, digits and `-_.~` in percents.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_covers_everything_but_itself_in_order() {
        let token = "h:5432/?DBUser=a@b&Action=connect&X-Amz-Algorithm=AWS4-HMAC-SHA256\
                     &X-Amz-SignedHeaders=host&X-Amz-Signature=00";
        let parsed = Parsed::read(token).unwrap();
        assert_eq!(parsed.field("DBUser").unwrap(), "a@b");
        let canonical = parsed.canonical();
        let start = "GET\n/\nAction=connect&DBUser=a%40b&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-SignedHeaders=host\nhost:h:5432\n";
        assert!(canonical.starts_with(start), "{canonical}");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "secret", "h:1/?Action=drop", "h:1/?Action=connect"] {
            assert!(
                matches!(Parsed::read(text), Err(TokenError::Malformed(_))),
                "{text}"
            );
        }
    }
}
