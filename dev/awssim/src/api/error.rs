//! AWS errors as the Query protocol spells them; [`super::service`] spells them for the others.

use crate::sigv4::SignatureError;

/// An error answer: HTTP status, code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    /// Ordered word for word: no protocol spells it otherwise.
    pub(crate) verbatim: bool,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            verbatim: false,
        }
    }

    pub(crate) fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self
    }

    pub(crate) fn access_denied(message: impl Into<String>) -> Self {
        Self::new(403, "AccessDenied", message)
    }

    pub(crate) fn cluster_not_found(id: &str) -> Self {
        Self::new(404, "ClusterNotFound", format!("Cluster {id} not found."))
    }

    pub(crate) fn custom_domain_not_found(domain: &str) -> Self {
        let message = format!("custom domain {domain} is not associated");
        Self::new(404, "CustomDomainAssociationNotFoundFault", message)
    }

    pub(crate) fn expired_token() -> Self {
        let message = "The security token included in the request is expired";
        Self::new(403, "ExpiredToken", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalFailure", message)
    }

    pub(crate) fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterValue", message)
    }

    pub(crate) fn invalid_token() -> Self {
        let message = "The security token included in the request is invalid.";
        Self::new(403, "InvalidClientTokenId", message)
    }

    /// STS in a region that the account has disabled.
    pub(crate) fn region_disabled(region: &str, account: &str) -> Self {
        let message = format!(
            "STS is not activated in this region for account:{account}. Your account administrator can \
             activate STS in {region} using the IAM Console."
        );
        Self::new(403, "RegionDisabledException", message)
    }

    pub(crate) fn throttling() -> Self {
        Self::new(400, "Throttling", "Rate exceeded")
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }

    /// A parameter that breaks its model's constraint, in AWS's words.
    pub(crate) fn constraint(value: &str, member: &str, constraint: &str) -> Self {
        Self::validation(format!(
            "1 validation error detected: Value '{value}' at '{member}' failed to satisfy \
             constraint: {constraint}"
        ))
    }

    /// A parameter of AWS's that the simulation does not have: said aloud, never ignored.
    pub(crate) fn not_simulated(parameter: &str) -> Self {
        Self::new(
            400,
            "NotSimulated",
            format!("awssim does not simulate {parameter}"),
        )
    }
}

impl From<SignatureError> for ApiError {
    fn from(error: SignatureError) -> Self {
        let (status, code) = match &error {
            SignatureError::Incomplete(_) => (400, "IncompleteSignature"),
            SignatureError::Missing => (403, "MissingAuthenticationToken"),
            SignatureError::Mismatch | SignatureError::Skewed { .. } => {
                (403, "SignatureDoesNotMatch")
            }
        };
        Self::new(status, code, error.to_string())
    }
}
