//! Signs as the process's own AWS identity, for processes that join the cluster by it.

use tidegate_aws::AwsFactory;
use tidegate_proto::v1;
use tidegate_service::host::{ProveCaller, ProveError, Proving};

/// The header that the auth service looks for its challenge in.
const CHALLENGE_HEADER: &str = "x-tidegate-challenge";

/// Signs with the credentials that the AWS SDK finds.
#[derive(Debug)]
pub(crate) struct AwsCaller(pub(crate) AwsFactory);

impl ProveCaller for AwsCaller {
    fn prove<'p>(&'p self, challenge: &'p str) -> Proving<'p> {
        Box::pin(async move {
            let signed = self
                .0
                .sign_caller_identity(CHALLENGE_HEADER, challenge)
                .await
                .map_err(|error| ProveError(error.into()))?;
            let headers = signed.headers.into_iter();
            Ok(v1::SignedRequest {
                method: "POST".to_owned(),
                path: "/".to_owned(),
                headers: headers
                    .map(|(name, value)| v1::HttpHeader { name, value })
                    .collect(),
                body: signed.body.as_bytes().to_vec(),
            })
        })
    }
}
