//! A question to IAM as a signed request.

use std::{
    fmt::{self, Write as _},
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use tidegate_core::ExternalId;

use crate::{AwsFactory, SignError, caller::Post};

/// How long credentials may take to be found.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(5);
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
const VERSION: &str = "2010-05-08";

/// What IAM is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IamQuestion {
    /// What a role of the own account is: its whole ARN, and whom it trusts.
    GetRole {
        /// Its name, without the path.
        name: String,
    },
    /// Whether the policies of a user or role of the own account, and those that limit them, allow actions on resources.
    Simulate {
        /// ARN of the user or role, with its path.
        source: String,
        /// As policies name them.
        actions: Vec<String>,
        /// ARNs.
        resources: Vec<String>,
        /// The external id that goes with the call.
        external_id: Option<ExternalId>,
    },
}

impl IamQuestion {
    /// The action, as policies name it.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::GetRole { .. } => super::GET_ROLE,
            Self::Simulate { .. } => super::SIMULATE,
        }
    }

    fn body(&self) -> String {
        let mut form = Form::default();
        match self {
            Self::GetRole { name } => {
                form.field("Action", "GetRole").field("RoleName", name);
            }
            Self::Simulate {
                source,
                actions,
                resources,
                external_id,
            } => {
                form.field("Action", "SimulatePrincipalPolicy")
                    .field("PolicySourceArn", source)
                    .list("ActionNames", actions)
                    .list("ResourceArns", resources);
                if let Some(id) = external_id {
                    form.field("ContextEntries.member.1.ContextKeyName", "sts:ExternalId")
                        .field("ContextEntries.member.1.ContextKeyType", "string")
                        .field(
                            "ContextEntries.member.1.ContextKeyValues.member.1",
                            id.as_str(),
                        );
                }
            }
        }
        form.field("Version", VERSION);
        form.0
    }
}

#[derive(Default)]
struct Form(String);

impl Form {
    fn field(&mut self, name: &str, value: &str) -> &mut Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    self.0.push(char::from(byte));
                }
                _ => write!(self.0, "%{byte:02X}").expect("text takes all that is written"),
            }
        }
        self
    }

    fn list(&mut self, name: &str, values: &[String]) -> &mut Self {
        for (index, value) in values.iter().enumerate() {
            self.field(&format!("{name}.member.{}", index + 1), value);
        }
        self
    }
}

/// A signed question: `POST` to [`Self::path`].
pub struct IamRequest {
    /// Where it is sent.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Over TLS, or in clear.
    pub is_tls: bool,
    /// The path.
    pub path: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, to the byte.
    pub body: String,
}

impl fmt::Debug for IamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers are a credential for some minutes.
        f.debug_struct("IamRequest")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl AwsFactory {
    /// Signs a question with this process's own credentials, for the IAM of a partition (`aws`, `aws-cn`, `aws-us-gov`).
    ///
    /// # Errors
    ///
    /// [`SignError`]: without credentials, or for an endpoint that cannot be one.
    pub async fn sign_iam(
        &self,
        partition: &str,
        question: &IamQuestion,
    ) -> Result<IamRequest, SignError> {
        let found = tokio::time::timeout(CREDENTIALS_TIMEOUT, self.own_credentials()).await;
        let credentials = found
            .map_err(|_| SignError::Slow)?
            .map_err(SignError::Credentials)?;
        let at = Endpoint::of(partition, self.own_endpoint());
        signed(credentials, at, question, SystemTime::now())
    }
}

/// Where IAM answers, and the region that it is signed for.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    url: String,
    region: &'static str,
}

impl Endpoint {
    fn of(partition: &str, instead: Option<&str>) -> Self {
        let (host, region) = match partition {
            "aws-cn" => ("iam.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            "aws-us-gov" => ("iam.us-gov.amazonaws.com", "us-gov-west-1"),
            _ => ("iam.amazonaws.com", "us-east-1"),
        };
        let url = instead.map_or_else(|| format!("https://{host}"), str::to_owned);
        Self { url, region }
    }
}

fn signed(
    credentials: Credentials,
    at: Endpoint,
    question: &IamQuestion,
    now: SystemTime,
) -> Result<IamRequest, SignError> {
    let body = question.body();
    let url: url::Parts = url::parse(&at.url).ok_or_else(|| {
        SignError::Unsignable(format!("`{}` is no URL of an endpoint", at.url).into())
    })?;
    let ours = [
        ("content-type", CONTENT_TYPE),
        ("host", url.authority.as_str()),
    ];
    let post = Post {
        service: "iam",
        region: at.region,
        url: &format!("{}://{}{}", url.scheme(), url.authority, url.path),
        headers: &ours,
        body: &body,
    };
    let headers = post.signed(credentials, now)?;
    Ok(IamRequest {
        host: url.host,
        port: url.port,
        is_tls: url.is_tls,
        path: url.path,
        headers,
        body,
    })
}

/// As much of URLs as endpoints have.
mod url {
    pub(super) struct Parts {
        pub(super) is_tls: bool,
        pub(super) host: String,
        pub(super) port: u16,
        /// The host, with the port when that is written.
        pub(super) authority: String,
        pub(super) path: String,
    }

    impl Parts {
        pub(super) const fn scheme(&self) -> &'static str {
            if self.is_tls { "https" } else { "http" }
        }
    }

    pub(super) fn parse(url: &str) -> Option<Parts> {
        let (is_tls, rest) = match url.strip_prefix("http://") {
            Some(rest) => (false, rest),
            None => (true, url.strip_prefix("https://")?),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let own = if is_tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an address in brackets without a port are its own.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, own),
        };
        let host = host.trim_matches(['[', ']']);
        (!host.is_empty() && !authority.contains('@')).then(|| Parts {
            is_tls,
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(question: &IamQuestion, at: Endpoint) -> IamRequest {
        let credentials = Credentials::new("AKIAEXAMPLE", "secret", None, None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        signed(credentials, at, question, now).unwrap()
    }

    fn simulation() -> IamQuestion {
        IamQuestion::Simulate {
            source: "arn:aws:iam::111111111111:role/a/b".to_owned(),
            actions: vec!["sts:AssumeRole".to_owned(), "sts:TagSession".to_owned()],
            resources: vec!["arn:aws:iam::222222222222:role/c".to_owned()],
            external_id: Some("x=1".parse().unwrap()),
        }
    }

    #[test]
    fn every_value_is_encoded_and_lists_are_counted_from_one() {
        assert_eq!(
            simulation().body(),
            "Action=SimulatePrincipalPolicy&PolicySourceArn=arn%3Aaws%3Aiam%3A%3A111111111111%3Arole%2Fa%2Fb\
             &ActionNames.member.1=sts%3AAssumeRole&ActionNames.member.2=sts%3ATagSession\
             &ResourceArns.member.1=arn%3Aaws%3Aiam%3A%3A222222222222%3Arole%2Fc\
             &ContextEntries.member.1.ContextKeyName=sts%3AExternalId&ContextEntries.member.1.ContextKeyType=string\
             &ContextEntries.member.1.ContextKeyValues.member.1=x%3D1&Version=2010-05-08"
        );
    }

    #[test]
    fn a_partition_has_its_own_iam_and_region_to_sign_for() {
        for (partition, host, region) in [
            ("aws", "iam.amazonaws.com", "us-east-1"),
            ("aws-cn", "iam.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("aws-us-gov", "iam.us-gov.amazonaws.com", "us-gov-west-1"),
        ] {
            let request = asked(&simulation(), Endpoint::of(partition, None));
            assert_eq!((request.host.as_str(), request.port), (host, 443));
            let signed = format!("/{region}/iam/aws4_request");
            let headers = request.headers.iter();
            assert!(
                headers
                    .into_iter()
                    .any(|(name, value)| name == "authorization" && value.contains(&signed)),
                "{partition}"
            );
        }
    }

    #[test]
    fn another_endpoint_is_asked_where_one_is_set() {
        let question = IamQuestion::GetRole {
            name: "r".to_owned(),
        };
        let at = |url| asked(&question, Endpoint::of("aws", Some(url)));
        let local = at("http://127.0.0.1:4566");
        assert_eq!(
            (
                local.host.as_str(),
                local.port,
                local.is_tls,
                local.path.as_str()
            ),
            ("127.0.0.1", 4566, false, "/")
        );
        let inner = at("https://[::1]/iam/");
        assert_eq!(
            (
                inner.host.as_str(),
                inner.port,
                inner.is_tls,
                inner.path.as_str()
            ),
            ("::1", 443, true, "/iam/")
        );
        let credentials = Credentials::new("AKIAEXAMPLE", "secret", None, None, "test");
        for wrong in ["ftp://x", "https://", "https://a@b", "http://a:port"] {
            let at = Endpoint::of("aws", Some(wrong));
            signed(credentials.clone(), at, &question, SystemTime::now()).unwrap_err();
        }
    }

    #[test]
    fn a_signed_question_does_not_print_its_signature() {
        let printed = format!("{:?}", asked(&simulation(), Endpoint::of("aws", None)));
        assert!(!printed.contains("Signature"), "{printed}");
    }
}
