//! Counts what AWS is asked, and says in the log what it refused: of a refresh in the background nobody else would.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use tidegate_aws::{AwsErrorClass, AwsFailure, AwsMinter, CredentialKey, DbCredentials, Minter};
use tracing::debug;

use crate::metrics::{Outcome, OutcomeLabel, ServiceMetrics};

/// Mints, and counts how it came out.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) minter: AwsMinter,
    pub(super) metrics: ServiceMetrics,
}

/// How an attempt came out.
pub(super) fn outcome<T>(minted: &Result<T, AwsFailure>) -> Outcome {
    match minted {
        Ok(_) => Outcome::Minted,
        Err(failure) if failure.class == AwsErrorClass::AccessDenied => Outcome::Denied,
        Err(_) => Outcome::Failed,
    }
}

impl Minter for Counted {
    fn mint(
        self: Arc<Self>,
        key: CredentialKey,
    ) -> BoxFuture<'static, Result<DbCredentials, AwsFailure>> {
        async move {
            let minted = self.minter.mint(&key).await;
            let outcome = outcome(&minted);
            self.metrics
                .credential_mints
                .get_or_create(&OutcomeLabel { outcome })
                .inc();
            if let Err(failure) = &minted {
                debug!(
                    action = key.request.action(),
                    aws.chain = %key.request.chain,
                    cloud.region = %key.request.region,
                    error = %failure,
                    "got no database credentials"
                );
            }
            minted
        }
        .boxed()
    }
}
