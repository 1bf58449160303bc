//! Logins from AWS, over a cache that many sessions share.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tidegate_aws::{
    AwsErrorClass, AwsFactory, CredentialCache, CredentialKey, SessionTag,
    redshift_cluster_credentials, redshift_cluster_credentials_with_iam,
};
use tidegate_core::Problem;
use tidegate_service::clock::SharedClock;

use super::{Cluster, Credentials, LoginPlan, explain::explain};
use crate::{
    engine::postgres::DbLogin,
    metrics::{Outcome, OutcomeLabel, ServiceMetrics},
};

/// How long a password should be good for new logins: the shortest that AWS gives.
const PASSWORD_TTL: Duration = Duration::from_secs(900);

/// Logins from AWS.
#[derive(Debug)]
pub(crate) struct AwsCredentials {
    factory: AwsFactory,
    cache: CredentialCache,
    metrics: ServiceMetrics,
}

impl AwsCredentials {
    /// An empty cache over the process's AWS identity.
    pub(crate) fn new(factory: AwsFactory, clock: &SharedClock, metrics: ServiceMetrics) -> Self {
        let clock = Arc::clone(clock);
        Self {
            factory,
            cache: CredentialCache::new(move || clock.now()),
            metrics,
        }
    }

    async fn mint(&self, plan: &LoginPlan, user: &str) -> Result<DbLogin, Problem> {
        let (cluster, db_user, db_name) = match plan {
            LoginPlan::Trust { db_user } => {
                return Ok(DbLogin {
                    user: db_user.clone(),
                    password: None,
                });
            }
            LoginPlan::ClusterUser {
                cluster,
                db_user,
                db_name,
            } => (cluster, Some(db_user), db_name),
            LoginPlan::ClusterRole { cluster, db_name } => (cluster, None, db_name),
        };
        let session = SessionTag::new(user);
        let key = cache_key(cluster, db_user.map(String::as_str), db_name, &session);
        let minted = self
            .cache
            .get(&key, || async {
                let client = self
                    .factory
                    .redshift(&cluster.chain, &cluster.region, &session)
                    .await;
                match db_user {
                    Some(db_user) => {
                        redshift_cluster_credentials(
                            &client,
                            &cluster.id,
                            db_user,
                            db_name,
                            PASSWORD_TTL,
                        )
                        .await
                    }
                    None => {
                        redshift_cluster_credentials_with_iam(
                            &client,
                            &cluster.id,
                            db_name,
                            PASSWORD_TTL,
                        )
                        .await
                    }
                }
            })
            .await;
        let outcome = match &minted {
            Ok(_) => Outcome::Minted,
            Err(failure) if failure.class == AwsErrorClass::AccessDenied => Outcome::Denied,
            Err(_) => Outcome::Failed,
        };
        self.metrics
            .credentials
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
        minted
            .map(|credentials| DbLogin {
                user: credentials.user,
                password: Some(credentials.password),
            })
            .map_err(|failure| explain(&failure, plan))
    }
}

/// What a password may be shared by.
fn cache_key(
    cluster: &Cluster,
    db_user: Option<&str>,
    db_name: &str,
    session: &SessionTag,
) -> CredentialKey {
    CredentialKey {
        chain: cluster.chain.clone(),
        session: cluster.chain.last().map(|_| session.clone()),
        region: cluster.region.clone(),
        cluster: cluster.id.clone(),
        db_user: db_user.unwrap_or_default().to_owned(),
        db_name: db_name.to_owned(),
    }
}

impl Credentials for AwsCredentials {
    fn login<'c>(
        &'c self,
        plan: &'c LoginPlan,
        user: &'c str,
    ) -> BoxFuture<'c, Result<DbLogin, Problem>> {
        self.mint(plan, user).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{credentials::plan_login, testing::wanted_as as wanted};

    #[test]
    fn two_people_never_share_a_password_of_one_role() {
        let LoginPlan::ClusterUser { cluster, .. } =
            plan_login(&wanted(Some("agent")), "reader", "dev").unwrap()
        else {
            panic!("a user")
        };
        let key =
            |person: &str| cache_key(&cluster, Some("reader"), "dev", &SessionTag::new(person));
        assert_eq!(key("alice"), key("alice"));
        assert_ne!(key("alice"), key("bob"));
    }
}
