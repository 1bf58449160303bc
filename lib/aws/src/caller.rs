//! Signs `sts:GetCallerIdentity` without sending it.
//!
//! Who is handed the request can find out which AWS identity signed it, by sending it to AWS, for the few minutes that a
//! signature is good; it opens nothing else. A header of the other side's choice under the signature binds it to one
//! conversation. AWS charges nothing for the call and asks for no permission.
//!
//! Source: AWS STS API reference, `GetCallerIdentity`; AWS general reference, Signature Version 4.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use aws_credential_types::{Credentials, provider::error::CredentialsError};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use tidegate_core::Region;

use crate::AwsFactory;

/// How long credentials may take to be found.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// Where a process without a region of its own signs for.
const GLOBAL: (&str, &str) = ("sts.amazonaws.com", "us-east-1");

/// A signed `sts:GetCallerIdentity`: `POST` to `/`.
pub struct SignedCaller {
    /// Names in lower case, and values; `host` says where it is for.
    pub headers: Vec<(String, String)>,
    /// The body, to the byte.
    pub body: &'static str,
}

impl fmt::Debug for SignedCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers are a credential for some minutes.
        f.write_str("SignedCaller")
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// This process has no AWS credentials now.
    #[error("there are no AWS credentials")]
    Credentials(#[source] CredentialsError),
    /// They were not found in time.
    #[error("no AWS credentials were found within {} s", CREDENTIALS_TIMEOUT.as_secs())]
    Slow,
    /// What was to be signed cannot be.
    #[error("the request cannot be signed")]
    Unsignable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AwsFactory {
    /// Signs `sts:GetCallerIdentity` with this process's own credentials and one more header, in the process's own region,
    /// or for the global endpoint when it has none. `name` is in lower case.
    ///
    /// # Errors
    ///
    /// [`SignError`]: without credentials, or when the header cannot be one.
    pub async fn sign_caller_identity(
        &self,
        name: &str,
        value: &str,
    ) -> Result<SignedCaller, SignError> {
        let found = tokio::time::timeout(CREDENTIALS_TIMEOUT, self.own_credentials()).await;
        let credentials = found
            .map_err(|_| SignError::Slow)?
            .map_err(SignError::Credentials)?;
        let region = self.own_region();
        signed(
            credentials,
            region.as_ref(),
            (name, value),
            SystemTime::now(),
        )
    }
}

fn signed(
    credentials: Credentials,
    region: Option<&Region>,
    header: (&str, &str),
    at: SystemTime,
) -> Result<SignedCaller, SignError> {
    let (host, region) = match region {
        Some(region) => (region.sts_host(), region.as_str()),
        None => (GLOBAL.0.to_owned(), GLOBAL.1),
    };
    let ours = [
        ("accept", "application/json"),
        (
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        ),
        ("host", host.as_str()),
        header,
    ];
    let post = Post {
        service: "sts",
        region,
        url: &format!("https://{host}/"),
        headers: &ours,
        body: BODY,
    };
    Ok(SignedCaller {
        headers: post.signed(credentials, at)?,
        body: BODY,
    })
}

/// A request to an API of AWS that takes its parameters in a body.
pub(crate) struct Post<'p> {
    /// The service, as signatures name it.
    pub(crate) service: &'p str,
    /// The region that it is signed for.
    pub(crate) region: &'p str,
    pub(crate) url: &'p str,
    /// What is signed beside what signing adds; names are in lower case.
    pub(crate) headers: &'p [(&'p str, &'p str)],
    pub(crate) body: &'p str,
}

impl Post<'_> {
    /// All headers of the request, the signature's among them.
    ///
    /// # Errors
    ///
    /// [`SignError::Unsignable`].
    pub(crate) fn signed(
        &self,
        credentials: Credentials,
        at: SystemTime,
    ) -> Result<Vec<(String, String)>, SignError> {
        let identity = Identity::from(credentials);
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(at)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| SignError::Unsignable(error.into()))?
            .into();
        let headers = self.headers.iter().copied();
        let body = SignableBody::Bytes(self.body.as_bytes());
        let request = SignableRequest::new("POST", self.url, headers.clone(), body)
            .map_err(|error| SignError::Unsignable(error.into()))?;
        let (instructions, _) = sign(request, &params)
            .map_err(|error| SignError::Unsignable(error.into()))?
            .into_parts();
        let all = headers.chain(instructions.headers());
        Ok(all
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: (&str, &str) = ("x-challenge", "c2VudA");

    fn of(caller: &SignedCaller, name: &str) -> Vec<String> {
        let values = caller.headers.iter().filter(|(given, _)| given == name);
        values.map(|(_, value)| value.clone()).collect()
    }

    fn request(token: Option<&str>, region: Option<&str>) -> SignedCaller {
        let token = token.map(str::to_owned);
        let credentials = Credentials::new("AKIAEXAMPLE", "secret", token, None, "test");
        let region = region.map(|region| region.parse().unwrap());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        signed(credentials, region.as_ref(), CHALLENGE, at).unwrap()
    }

    #[test]
    fn the_challenge_and_the_host_are_under_the_signature() {
        let caller = request(None, Some("eu-central-1"));
        let authorization = of(&caller, "authorization").remove(0);
        let signed = "SignedHeaders=accept;content-type;host;x-amz-date;x-challenge,";
        assert!(authorization.contains(signed), "{authorization}");
        assert!(
            authorization.contains("AKIAEXAMPLE/20231114/eu-central-1/sts/aws4_request"),
            "{authorization}"
        );
        assert_eq!(of(&caller, "host"), ["sts.eu-central-1.amazonaws.com"]);
        assert_eq!(of(&caller, "x-amz-date"), ["20231114T221320Z"]);
        assert_eq!(of(&caller, "x-challenge"), ["c2VudA"]);
    }

    #[test]
    fn a_session_shows_its_token_under_the_signature() {
        let caller = request(Some("token"), None);
        assert_eq!(of(&caller, "x-amz-security-token"), ["token"]);
        assert_eq!(of(&caller, "host"), ["sts.amazonaws.com"]);
        let authorization = of(&caller, "authorization").remove(0);
        assert!(
            authorization.contains("us-east-1/sts")
                && authorization.contains("x-amz-security-token"),
            "{authorization}"
        );
        assert!(!format!("{caller:?}").contains("token"));
    }
}
