//! The services, the protocol that each speaks, and how it spells errors.

use http::HeaderMap;

use super::error::ApiError;
use super::form::Form;
use crate::sigv4::{Claim, SignedRequest};

/// A service, as far as the protocol goes.
#[derive(Debug)]
pub(super) struct Service {
    /// Name in signatures.
    pub(super) name: &'static str,
    /// What its actions start with in policies.
    pub(super) iam_prefix: &'static str,
    pub(super) protocol: Protocol,
}

#[derive(Debug)]
pub(super) enum Protocol {
    /// A form in, XML out.
    Query {
        version: &'static str,
        namespace: &'static str,
    },
    /// AWS JSON 1.1: the operation is in `X-Amz-Target`, after this and a dot.
    Json { target: &'static str },
    /// JSON whose operation is the path.
    Rest,
}

pub(super) static STS: Service = Service {
    name: "sts",
    iam_prefix: "sts",
    protocol: Protocol::Query {
        version: "2011-06-15",
        namespace: "https://sts.amazonaws.com/doc/2011-06-15/",
    },
};
static REDSHIFT: Service = Service {
    name: "redshift",
    iam_prefix: "redshift",
    protocol: Protocol::Query {
        version: "2012-12-01",
        namespace: "http://redshift.amazonaws.com/doc/2012-12-01/",
    },
};
static RDS: Service = Service {
    name: "rds",
    iam_prefix: "rds",
    protocol: Protocol::Query {
        version: "2014-10-31",
        namespace: "http://rds.amazonaws.com/doc/2014-10-31/",
    },
};
static REDSHIFT_SERVERLESS: Service = Service {
    name: "redshift-serverless",
    iam_prefix: "redshift-serverless",
    protocol: Protocol::Json {
        target: "RedshiftServerless",
    },
};
pub(super) static ACCOUNT: Service = Service {
    name: "account",
    iam_prefix: "account",
    protocol: Protocol::Rest,
};
static TAGGING: Service = Service {
    name: "tagging",
    iam_prefix: "tag",
    protocol: Protocol::Json {
        target: "ResourceGroupsTaggingAPI_20170126",
    },
};
static KMS: Service = Service {
    name: "kms",
    iam_prefix: "kms",
    protocol: Protocol::Json {
        target: "TrentService",
    },
};
pub(super) static IAM: Service = Service {
    name: "iam",
    iam_prefix: "iam",
    protocol: Protocol::Query {
        version: "2010-05-08",
        namespace: "https://iam.amazonaws.com/doc/2010-05-08/",
    },
};
static ALL: [&Service; 8] = [
    &STS,
    &IAM,
    &REDSHIFT,
    &RDS,
    &REDSHIFT_SERVERLESS,
    &ACCOUNT,
    &TAGGING,
    &KMS,
];

impl Service {
    /// The service of a signature's scope.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|service| service.name == name)
    }

    /// The service that a request is for: as signed, else as it looks.
    /// (An unsigned form that asks for a session by a web identity is for STS.)
    pub(super) fn of(claim: Option<&Claim>, request: &SignedRequest<'_>) -> &'static Self {
        let signed = claim.and_then(|claim| Self::named(&claim.service));
        signed.unwrap_or(match request.path {
            _ if request.headers.contains_key("x-amz-target") => &REDSHIFT_SERVERLESS,
            "/" => &REDSHIFT,
            _ => &ACCOUNT,
        })
    }

    pub(super) fn is_query(&self) -> bool {
        matches!(self.protocol, Protocol::Query { .. })
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self.protocol {
            Protocol::Query { .. } => "text/xml",
            Protocol::Json { .. } => "application/x-amz-json-1.1",
            Protocol::Rest => "application/json",
        }
    }

    /// The operation that a request names; empty if it names none.
    pub(super) fn action(&self, request: &SignedRequest<'_>, form: &Form) -> String {
        match self.protocol {
            Protocol::Query { .. } => form.get("Action").unwrap_or_default().to_owned(),
            Protocol::Json { target } => target_of(request.headers, target).unwrap_or_default(),
            Protocol::Rest => {
                let mut action = request.path.trim_start_matches('/').to_owned();
                if let Some(first) = action.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                action
            }
        }
    }

    /// An error as this service spells it. Faults that were ordered word for word stay.
    pub(super) fn spell(&self, error: ApiError) -> ApiError {
        if self.is_query() || error.verbatim {
            return error;
        }
        let rest = matches!(self.protocol, Protocol::Rest);
        let tagging = self.name == TAGGING.name;
        let (status, code) = match error.code.as_str() {
            "AccessDenied" => (if rest { 403 } else { 400 }, "AccessDeniedException"),
            "ExpiredToken" => (if rest { 403 } else { 400 }, "ExpiredTokenException"),
            "IncompleteSignature" => (400, "IncompleteSignatureException"),
            "InternalFailure" if tagging => (500, "InternalServiceException"),
            "InternalFailure" => (500, "InternalServerException"),
            "InvalidAction" if rest => (404, "UnknownOperationException"),
            "InvalidAction" => (400, "UnknownOperationException"),
            "InvalidClientTokenId" if rest => (403, "UnrecognizedClientException"),
            "InvalidClientTokenId" => (400, "UnrecognizedClientException"),
            "InvalidParameterValue" | "ValidationError" if tagging => {
                (400, "InvalidParameterException")
            }
            "InvalidParameterValue" | "ValidationError" => (400, "ValidationException"),
            "MissingAuthenticationToken" => (403, "MissingAuthenticationTokenException"),
            "SignatureDoesNotMatch" if rest => (403, "InvalidSignatureException"),
            "SignatureDoesNotMatch" => (400, "InvalidSignatureException"),
            "Throttling" if tagging => (400, "ThrottledException"),
            "Throttling" if rest => (429, "TooManyRequestsException"),
            "Throttling" => (400, "ThrottlingException"),
            _ => return error,
        };
        ApiError::new(status, code, error.message)
    }
}

fn target_of(headers: &HeaderMap, service: &str) -> Option<String> {
    let target = headers.get("x-amz-target")?.to_str().ok()?;
    let action = target.strip_prefix(service)?.strip_prefix('.')?;
    Some(action.to_owned())
}
