//! Asks AWS who a role chain is in the end: a call that no policy can refuse, so what fails is a hop or the credentials.
//!
//! Source: AWS STS API reference, `GetCallerIdentity`.

use tidegate_core::Region;

use crate::{
    AwsFactory, RoleChain, SessionTag,
    error::{AwsErrorClass, AwsFailure, classify},
};

/// `sts:GetCallerIdentity`, as policies name it.
const ACTION: &str = "sts:GetCallerIdentity";

impl AwsFactory {
    /// The ARN of the identity that the last role of `chain` gives, or of this process itself without one. Every role of
    /// the chain is assumed for it, unless a session of it is kept. STS is asked in this process's own region, or else in
    /// `region`. A repeat does no harm.
    ///
    /// # Errors
    ///
    /// [`AwsFailure`], with the hop when a role could not be assumed.
    pub async fn who_am_i(
        &self,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
    ) -> Result<String, AwsFailure> {
        let region = self.own_region().unwrap_or_else(|| region.clone());
        let config = self.config(chain, &region, session).await;
        let answer = aws_sdk_sts::Client::new(&config)
            .get_caller_identity()
            .send()
            .await
            .map_err(|error| classify(ACTION, error))?;
        answer
            .arn
            .ok_or_else(|| AwsFailure::new(AwsErrorClass::Malformed, ACTION, "answer without Arn"))
    }
}
