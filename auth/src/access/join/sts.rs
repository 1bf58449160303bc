//! Asks AWS who signed a request.
//!
//! The request goes over HTTPS to the STS host that it was signed for, or to the one endpoint that this process's own
//! configuration or environment names; what is asked of us has no say in where we connect to, and an answer that points
//! elsewhere is not followed. One connection a call, few calls at once, each with an end.
//!
//! Not here: what may be sent ([`super::proof`]); the connection ([`tidegate_service::https`]).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::Value;
use tidegate_service::{https::Https, settings::StsEndpoint};
use tokio::sync::Semaphore;

use super::proof::{BODY, Proof};
use crate::{
    access::tokens::allow::{self, CallerIdentity},
    store::BoxError,
};

/// Calls at once; who comes when all are under way is told to try again.
const CALLS_MAX: usize = 32;
/// One call from start to end.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest code of an error that is passed on.
const CODE_CHARS_MAX: usize = 64;
/// ARNs are no longer.
const ARN_CHARS_MAX: usize = 2048;
const HTTPS_PORT: u16 = 443;

/// What AWS answers when it is too busy, whatever the status.
const BUSY_CODES: [&str; 4] = [
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Why it is not known who signed a request. What the caller may read is the text; the rest is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StsError {
    /// As many calls as may be are under way.
    #[error("too many hosts join at once: try again in a moment")]
    Busy,
    /// What came is no answer of STS.
    #[error("AWS STS gave an answer that cannot be used: try again in a moment")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
    /// AWS does not accept the signature or the credentials.
    #[error(
        "AWS does not accept the request that this host signed ({code}): check the host's AWS credentials and its clock"
    )]
    Refused {
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// AWS could not be asked, or could not answer now.
    #[error("the auth service could not ask AWS STS who this host is: try again in a moment")]
    Unavailable {
        /// Whom we asked.
        host: String,
        /// Why it failed.
        source: BoxError,
    },
}

/// Variables of the environment that name an endpoint, the first that is set; AWS's programs read the same.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"];

/// Where STS is asked.
#[derive(Debug)]
pub(crate) enum Way {
    /// At one endpoint, whatever host a request is for.
    At(StsEndpoint),
    /// At the host that a request is for.
    Hosts,
    /// Nowhere: the environment names something that is no endpoint.
    Nowhere {
        /// The variable.
        variable: &'static str,
    },
}

impl Way {
    /// The endpoint that the configuration names, else the one of the environment.
    pub(crate) fn new(configured: Option<StsEndpoint>) -> Self {
        if let Some(endpoint) = configured {
            return Self::At(endpoint);
        }
        let set = |variable: &'static str| {
            let value = std::env::var(variable).ok()?;
            (!value.is_empty()).then_some((variable, value))
        };
        match ENDPOINT_VARIABLES.into_iter().find_map(set) {
            None => Self::Hosts,
            Some((variable, value)) => match value.parse() {
                Ok(endpoint) => Self::At(endpoint),
                Err(_) => {
                    tracing::warn!(
                        variable,
                        "nobody can join by `iam`: the variable names no `https` endpoint, nor one on this machine"
                    );
                    Self::Nowhere { variable }
                }
            },
        }
    }
}

/// The way to STS.
pub(crate) struct Sts {
    way: Way,
    calls: Semaphore,
    https: Https,
}

impl Sts {
    /// Nothing is connected to yet.
    pub(crate) fn new(way: Way) -> Self {
        Self {
            way,
            calls: Semaphore::new(CALLS_MAX),
            https: Https::default(),
        }
    }

    /// Who signed it, as AWS tells.
    pub(crate) async fn ask(&self, proof: Proof) -> Result<CallerIdentity, StsError> {
        let _call = self.calls.try_acquire().map_err(|_| StsError::Busy)?;
        let host = proof.host.clone();
        let unavailable = |source: BoxError| StsError::Unavailable {
            host: host.clone(),
            source,
        };
        let answered = tokio::time::timeout(CALL_TIMEOUT, self.call(proof)).await;
        let (status, body) = answered
            .map_err(|_| unavailable(format!("no answer within {CALL_TIMEOUT:?}").into()))?
            .map_err(unavailable)?;
        read(status, &body).map_err(|problem| match problem {
            Problem::Busy(code) => unavailable(format!("it answered {status} {code}").into()),
            Problem::Malformed(problem) => StsError::Malformed { problem },
            Problem::Refused { code, message } => StsError::Refused { code, message },
        })
    }

    async fn call(&self, proof: Proof) -> Result<(StatusCode, Bytes), BoxError> {
        let (host, port, is_tls) = match &self.way {
            Way::At(endpoint) => (endpoint.host.clone(), endpoint.port, endpoint.tls),
            Way::Hosts => (proof.host.clone(), HTTPS_PORT, true),
            Way::Nowhere { variable } => {
                return Err(format!("`{variable}` names no endpoint that can be asked").into());
            }
        };
        let answer = self.https.ask(&host, port, is_tls, request(proof)?).await?;
        Ok((answer.status(), answer.into_body()))
    }
}

/// The request as it was signed.
fn request(proof: Proof) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::post("/");
    for (name, value) in proof.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::from_static(BODY.as_bytes())))
}

/// What is not an identity.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Busy(String),
    Malformed(String),
    Refused { code: String, message: String },
}

/// Reads an answer of STS in JSON.
fn read(status: StatusCode, body: &[u8]) -> Result<CallerIdentity, Problem> {
    let malformed = |problem: &str| Problem::Malformed(format!("{problem} (status {status})"));
    let json = serde_json::from_slice::<Value>(body);
    if status != StatusCode::OK {
        let json = json.unwrap_or_default();
        let text = |key: &str| json["Error"][key].as_str().unwrap_or_default().to_owned();
        let code: String = text("Code")
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(CODE_CHARS_MAX)
            .collect();
        let is_busy = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || BUSY_CODES.contains(&code.as_str());
        return Err(if is_busy {
            Problem::Busy(code)
        } else if code.is_empty() {
            malformed("an error without a code")
        } else {
            let message = text("Message");
            Problem::Refused { code, message }
        });
    }
    let json = json.map_err(|_| malformed("no JSON"))?;
    let result = &json["GetCallerIdentityResponse"]["GetCallerIdentityResult"];
    let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
    let (account, arn) = (text("Account"), text("Arn"));
    let sound = arn.len() <= ARN_CHARS_MAX && arn.bytes().all(|b| b.is_ascii_graphic());
    if !sound || allow::account_of(&arn) != Some(account.as_str()) {
        return Err(malformed("an identity without an account and an ARN of it"));
    }
    Ok(CallerIdentity { account, arn })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, body: &str) -> Result<CallerIdentity, Problem> {
        read(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    fn identity(account: &str, arn: &str) -> String {
        json!({"GetCallerIdentityResponse": {
            "GetCallerIdentityResult": {"Account": account, "Arn": arn, "UserId": "AROA:i-0"},
            "ResponseMetadata": {"RequestId": "r"},
        }})
        .to_string()
    }

    #[test]
    fn an_identity_has_an_account_and_an_arn_of_it() {
        let arn = "arn:aws:sts::111122223333:assumed-role/agents/i-0";
        let read = told(200, &identity("111122223333", arn)).unwrap();
        assert_eq!(
            (read.account.as_str(), read.arn.as_str()),
            ("111122223333", arn)
        );
        for body in [
            identity("444455556666", arn),
            identity("", ""),
            identity("111122223333", "arn:aws:sts::111122223333:a b"),
            "{}".to_owned(),
            "<xml/>".to_owned(),
            String::new(),
        ] {
            let problem = told(200, &body);
            assert!(matches!(problem, Err(Problem::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_an_outage() {
        let error = |code: &str| {
            json!({"Error": {"Code": code, "Message": "words", "Type": "Sender"}}).to_string()
        };
        let refused = told(403, &error("ExpiredToken")).unwrap_err();
        let expected = Problem::Refused {
            code: "ExpiredToken".to_owned(),
            message: "words".to_owned(),
        };
        assert_eq!(refused, expected);
        for (status, body) in [
            (400, error("Throttling")),
            (429, error("x")),
            (503, "busy".to_owned()),
        ] {
            assert!(
                matches!(told(status, &body), Err(Problem::Busy(_))),
                "{body}"
            );
        }
        assert!(matches!(told(302, ""), Err(Problem::Malformed(_))));
        let odd = told(403, &error("a\u{1b}[31m<script>")).unwrap_err();
        assert!(matches!(odd, Problem::Refused { code, .. } if code == "a31mscript"));
    }
}
