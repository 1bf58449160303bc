//! Tokens that RDS takes as passwords: a request that is signed and never sent.
//!
//! The database checks the signature against IAM, so a token is good as long as it says, and no longer than the
//! credentials that signed it. The name of the host is under the signature: it has to be the endpoint's own name at
//! AWS, however the database is reached.
//!
//! Source: Amazon RDS user guide, "Connecting to your DB instance using IAM authentication"; AWS general reference,
//! Signature Version 4, query parameters.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use jiff::Timestamp;
use secrecy::SecretString;
use tidegate_core::Region;
use zeroize::Zeroizing;

use crate::{
    dbcreds::DbCredentials,
    error::{AwsErrorClass, AwsFailure},
    login::{RDS_CONNECT, RdsLogin},
};

/// How long a token is good: the most that RDS takes.
pub const TOKEN_TTL: Duration = Duration::from_mins(15);

const SERVICE: &str = "rds-db";
const SCHEME: &str = "https://";

/// Signs a token at the time `at`. It is good for [`TOKEN_TTL`], or as long as `credentials` are when that is less.
/// No call is made.
///
/// # Errors
///
/// [`AwsFailure`]: of class `ExpiredCredentials` when `credentials` have ended at `at`, `InvalidRequest` for a host
/// that cannot be signed.
pub fn rds_token(
    credentials: Credentials,
    region: &Region,
    login: &RdsLogin,
    at: SystemTime,
) -> Result<DbCredentials, AwsFailure> {
    let failed = |class, message: String| AwsFailure::new(class, RDS_CONNECT, message);
    let unsignable =
        |error: &dyn std::fmt::Display| failed(AwsErrorClass::InvalidRequest, error.to_string());
    let left = credentials
        .expiry()
        .map(|end| end.duration_since(at).unwrap_or_default());
    // Whole seconds are what the token says.
    let life = Duration::from_secs(left.map_or(TOKEN_TTL, |left| left.min(TOKEN_TTL)).as_secs());
    if life.is_zero() {
        let message = "the credentials that sign the token have expired".to_owned();
        return Err(failed(AwsErrorClass::ExpiredCredentials, message));
    }
    let expires_at = Timestamp::try_from(at + life).map_err(|error| unsignable(&error))?;
    let url = format!(
        "{SCHEME}{}:{}/?Action=connect&DBUser={}",
        login.host,
        login.port,
        encoded(&login.db_user)
    );
    let identity = Identity::from(credentials);
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(life);
    settings.signature_location = SignatureLocation::QueryParams;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region.as_str())
        .name(SERVICE)
        .time(at)
        .settings(settings)
        .build()
        .map_err(|error| unsignable(&error))?
        .into();
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::empty())
        .map_err(|error| unsignable(&error))?;
    let (instructions, _) = sign(request, &params)
        .map_err(|error| unsignable(&error))?
        .into_parts();
    let added: usize = instructions
        .params()
        .iter()
        .map(|(name, value)| name.len() + 3 * value.len() + 2)
        .sum();
    // All at once: a text that grows would leave copies of itself behind.
    let mut token = Zeroizing::new(String::with_capacity(url.len() + added));
    token.push_str(&url[SCHEME.len()..]);
    for (name, value) in instructions.params() {
        token.push('&');
        token.push_str(name);
        token.push('=');
        push_encoded(&mut token, value);
    }
    Ok(DbCredentials {
        user: login.db_user.clone(),
        password: SecretString::from(token.as_str()),
        expires_at,
    })
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    push_encoded(&mut encoded, text);
    encoded
}

/// Source: RFC 3986, section 2.3: all but the unreserved characters is escaped.
fn push_encoded(to: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use tidegate_core::Protocol;

    use super::*;

    const NOW: u64 = 1_700_000_000;
    const SIGNATURE_OF_THE_RULES: &str =
        "fcadd3fd2dc87fee7eb5beb53593fcf31fd72f943cfd75be58df9df860a1e523";

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn login(db_user: &str) -> RdsLogin {
        RdsLogin {
            host: "app.abc123.eu-west-1.rds.amazonaws.com".to_owned(),
            port: 5432,
            db_user: db_user.to_owned(),
            protocol: Protocol::Postgres,
            resource_id: None,
            is_proxy: false,
        }
    }

    fn token(
        session: Option<&str>,
        ends_in: Option<u64>,
        login: &RdsLogin,
    ) -> Result<DbCredentials, AwsFailure> {
        let session = session.map(str::to_owned);
        let end = ends_in.map(|seconds| at() + Duration::from_secs(seconds));
        let keys = Credentials::new("AKIAEXAMPLE", "secret", session, end, "test");
        rds_token(keys, &"eu-west-1".parse().unwrap(), login, at())
    }

    #[test]
    fn a_token_is_a_signed_connect_without_its_scheme() {
        let credentials = token(None, None, &login("app")).unwrap();
        let token = credentials.password.expose_secret();
        let opening = "app.abc123.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=app&";
        assert!(token.starts_with(opening), "{token}");
        for part in [
            "X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "X-Amz-Credential=AKIAEXAMPLE%2F20231114%2Feu-west-1%2Frds-db%2Faws4_request",
            "X-Amz-Date=20231114T221320Z",
            "X-Amz-Expires=900",
            "X-Amz-SignedHeaders=host",
        ] {
            assert!(token.contains(part), "{part} in {token}");
        }
        let (_, signature) = token.split_once("X-Amz-Signature=").unwrap();
        assert_eq!(signature.split('&').next().unwrap().len(), 64);
        assert_eq!(credentials.user, "app");
        assert_eq!(credentials.expires_at.as_second(), 1_700_000_900);
    }

    #[test]
    fn the_signature_is_the_one_that_the_rules_give() {
        // Made apart from this program, of the rules: the canonical request with its parameters in order, hashed, and
        // signed with a key that is derived from secret, date, region and service.
        let credentials = token(None, None, &login("app")).unwrap();
        let (_, signature) = credentials
            .password
            .expose_secret()
            .split_once("X-Amz-Signature=")
            .unwrap();
        assert_eq!(signature, SIGNATURE_OF_THE_RULES);
    }

    #[test]
    fn users_with_odd_names_and_session_tokens_are_escaped() {
        let odd = token(Some("a+b/c="), None, &login("o'brien @x")).unwrap();
        let token = odd.password.expose_secret();
        assert!(token.contains("DBUser=o%27brien%20%40x&"), "{token}");
        assert!(
            token.contains("X-Amz-Security-Token=a%2Bb%2Fc%3D"),
            "{token}"
        );
        assert_eq!(odd.user, "o'brien @x");
    }

    #[test]
    fn a_token_never_outlives_the_credentials_that_signed_it() {
        for (ends_in, life) in [(3600, 900), (900, 900), (899, 899), (1, 1)] {
            let credentials = token(Some("t"), Some(ends_in), &login("app")).unwrap();
            let token = credentials.password.expose_secret();
            assert!(token.contains(&format!("X-Amz-Expires={life}&")), "{token}");
            assert_eq!(credentials.expires_at.as_second(), 1_700_000_000 + life);
        }
        let failure = token(Some("t"), Some(0), &login("app")).unwrap_err();
        assert_eq!(failure.class, AwsErrorClass::ExpiredCredentials);
    }

    #[test]
    fn a_token_does_not_print() {
        let credentials = token(None, None, &login("app")).unwrap();
        assert!(!format!("{credentials:?}").contains("Signature"));
    }
}
