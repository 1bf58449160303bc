//! Makes the calls that give credentials for logins to databases.
//!
//! Every call is counted by the budget of its account, API and region, each repeat of it too. A call that AWS
//! throttled is repeated as soon as the budget lets it, for as long as [`MINT_MAX`] lasts; one that broke is repeated a
//! few times. When AWS refuses the credentials that a call is made with, they are looked for anew and it is repeated
//! once.
//!
//! Not here: who asks for what ([`crate::login`]), and how seldom ([`crate::cache`]).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tidegate_core::RoleArn;
use tokio::time::{Instant, sleep};

use crate::{
    budget::{Budget, MINT_RATE, Place, Rate, STS_RATE},
    cache::{CredentialKey, Minter},
    dbcreds::{
        DbCredentials, redshift_cluster_credentials, redshift_cluster_credentials_with_iam,
        redshift_serverless_credentials,
    },
    error::{AwsErrorClass, AwsFailure},
    factory::{ATTEMPTS_MAX, AwsFactory},
    login::{Login, LoginRequest},
    rds_token::rds_token,
    session::SessionTag,
};

/// How long a password is good for new logins: the shortest that AWS gives.
pub const PASSWORD_TTL: Duration = Duration::from_mins(15);

/// After this time nothing is repeated any more.
pub const MINT_MAX: Duration = Duration::from_secs(40);

/// Before the first repeat of a call that broke; doubled for each further one.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// Asks AWS. Made once per process: the budget is for all of it.
#[derive(Debug)]
pub struct AwsMinter {
    factory: AwsFactory,
    budget: Budget,
}

impl AwsMinter {
    /// A minter with a full budget.
    #[must_use]
    pub fn new(factory: AwsFactory) -> Self {
        Self {
            factory,
            budget: Budget::default(),
        }
    }

    /// Asks for what `key` says.
    ///
    /// # Errors
    ///
    /// [`AwsFailure`]: what the last call failed with, of class `OverBudget` when none was made.
    pub async fn mint(&self, key: &CredentialKey) -> Result<DbCredentials, AwsFailure> {
        let (request, session) = (&key.request, key.session());
        let began = Instant::now();
        let (mut attempts, mut looked_again) = (0, false);
        loop {
            self.wait_for_budget(request).await?;
            attempts += 1;
            let minted = self.call(request, &session).await;
            self.told(request, &minted);
            let failure = match minted {
                Ok(credentials) => return Ok(credentials),
                Err(failure) => failure,
            };
            let refused = refuses_credentials(&failure);
            if refused {
                self.factory.refused(&request.chain, &session);
            }
            let repeat = if failure.class.is_of_credentials() {
                // A hop that was refused has its credentials looked for by itself.
                let again = (refused || failure.hop.is_some()) && !looked_again;
                looked_again = true;
                again
            } else {
                is_worth_repeating(&failure, attempts)
            };
            if !repeat || began.elapsed() > MINT_MAX {
                return Err(failure);
            }
            if failure.class != AwsErrorClass::Throttled {
                sleep(REPEAT_AFTER * 2_u32.saturating_pow(attempts - 1)).await;
            }
        }
    }

    async fn wait_for_budget(&self, request: &LoginRequest) -> Result<(), AwsFailure> {
        let Some((place, rate)) = self.counted(request) else {
            return Ok(());
        };
        let taken = self.budget.take(&place, rate).await;
        taken.map_err(|over| {
            AwsFailure::new(AwsErrorClass::OverBudget, place.action, over.to_string())
        })
    }

    /// What AWS answered, for the budget.
    fn told(&self, request: &LoginRequest, minted: &Result<DbCredentials, AwsFailure>) {
        let Some((place, rate)) = self.counted(request) else {
            return;
        };
        // What a hop failed with says nothing about the call behind it, but of STS when that is what is counted.
        let told = |failure: &AwsFailure| {
            failure.class == AwsErrorClass::Throttled
                && (failure.hop.is_some() == (place.action == ASSUME_ROLE))
        };
        let throttled = minted.as_ref().is_err_and(told);
        self.budget.answered(&place, rate, throttled);
    }

    /// Which calls a request is counted with. A token for RDS costs none but what assuming its role does.
    fn counted(&self, request: &LoginRequest) -> Option<(Place, Rate)> {
        match &request.login {
            Login::RdsToken(_) => {
                request.chain.last()?;
                let region = self.factory.own_region();
                let place = Place {
                    account: None,
                    action: ASSUME_ROLE,
                    region: region.unwrap_or_else(|| request.region.clone()),
                };
                Some((place, STS_RATE))
            }
            Login::ClusterRole { .. } | Login::ClusterUser { .. } | Login::Workgroup { .. } => {
                let place = Place {
                    account: request.chain.last().map(RoleArn::account),
                    action: request.action(),
                    region: request.region.clone(),
                };
                Some((place, MINT_RATE))
            }
        }
    }

    async fn call(
        &self,
        request: &LoginRequest,
        session: &SessionTag,
    ) -> Result<DbCredentials, AwsFailure> {
        let LoginRequest { region, chain, .. } = request;
        match &request.login {
            Login::ClusterUser {
                cluster,
                db_user,
                db_name,
                create,
            } => {
                let client = self.factory.redshift(chain, region, session).await;
                let create = create.as_ref();
                redshift_cluster_credentials(
                    &client,
                    cluster,
                    db_user,
                    db_name,
                    create,
                    PASSWORD_TTL,
                )
                .await
            }
            Login::ClusterRole { cluster, db_name } => {
                let client = self.factory.redshift(chain, region, session).await;
                redshift_cluster_credentials_with_iam(&client, cluster, db_name, PASSWORD_TTL).await
            }
            Login::Workgroup { workgroup, db_name } => {
                let client = self.factory.redshift_serverless(chain, region, session);
                redshift_serverless_credentials(&client, workgroup, db_name, PASSWORD_TTL).await
            }
            Login::RdsToken(login) => {
                let action = request.action();
                let keys = self
                    .factory
                    .credentials(action, chain, region, session)
                    .await?;
                rds_token(keys, region, login, SystemTime::now())
            }
        }
    }
}

impl Minter for AwsMinter {
    fn mint(
        self: Arc<Self>,
        key: CredentialKey,
    ) -> BoxFuture<'static, Result<DbCredentials, AwsFailure>> {
        Box::pin(async move { Self::mint(&self, &key).await })
    }
}

const ASSUME_ROLE: &str = "sts:AssumeRole";

/// Whether a call that failed may soon work. Throttled ones are kept back by the budget, others by their number; hops
/// were repeated where they failed.
const fn is_worth_repeating(failure: &AwsFailure, attempts: u32) -> bool {
    match failure.class {
        AwsErrorClass::Throttled => true,
        AwsErrorClass::Malformed | AwsErrorClass::Timeout | AwsErrorClass::Unavailable => {
            failure.hop.is_none() && attempts < ATTEMPTS_MAX
        }
        AwsErrorClass::AccessDenied
        | AwsErrorClass::ClockSkew
        | AwsErrorClass::ExpiredCredentials
        | AwsErrorClass::InvalidRequest
        | AwsErrorClass::NoCredentials
        | AwsErrorClass::NotFound
        | AwsErrorClass::OverBudget
        | AwsErrorClass::RegionDisabled => false,
    }
}

/// Whether AWS refused the credentials that the call itself was made with, so that they have to be looked for again. A
/// role on the way says so by itself. A role's session that a region does not know may have died with its role, or the
/// region is not enabled: assuming the role anew tells the one from the other.
fn refuses_credentials(failure: &AwsFailure) -> bool {
    failure.hop.is_none() && failure.class.is_of_credentials()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_a_region_does_not_know_are_looked_for_again_once() {
        for (class, expected) in [
            (AwsErrorClass::RegionDisabled, true),
            (AwsErrorClass::ExpiredCredentials, true),
            (AwsErrorClass::AccessDenied, false),
        ] {
            let failure = AwsFailure::new(class, "redshift:GetClusterCredentials", "no");
            assert_eq!(refuses_credentials(&failure), expected, "{class}");
        }
    }

    #[test]
    fn what_a_hop_failed_with_was_repeated_where_it_failed() {
        let mut failure = AwsFailure::new(AwsErrorClass::Unavailable, "sts:AssumeRole", "no");
        assert!(is_worth_repeating(&failure, 1));
        assert!(!is_worth_repeating(&failure, ATTEMPTS_MAX));
        failure.hop = Some("arn:aws:iam::123456789012:role/agent".parse().unwrap());
        assert!(!is_worth_repeating(&failure, 1));
    }
}
