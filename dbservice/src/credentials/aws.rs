//! Logins from AWS, over a cache that many sessions share.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tidegate_aws::{
    AwsErrorClass, AwsFactory, AwsFailure, CredentialCache, CredentialKey, SessionTag,
    redshift_cluster_credentials, redshift_cluster_credentials_with_iam,
};
use tidegate_core::Problem;
use tidegate_service::clock::SharedClock;

use super::{Cluster, Credentials, LoginPlan, explain::explain};
use crate::{
    engine::DbLogin,
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
                let minted = match db_user {
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
                };
                if let Err(failure) = &minted
                    && refuses_credentials(failure, cluster)
                {
                    self.factory.refused(&cluster.chain, &session);
                }
                minted
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

/// Whether AWS refused the credentials that the call itself was made with, so that they have to be looked for again. A
/// role on the way says so by itself; and to a role's session, a region that does not know it is one not enabled.
fn refuses_credentials(failure: &AwsFailure, cluster: &Cluster) -> bool {
    let own = cluster.chain.last().is_none();
    failure.hop.is_none()
        && failure.class.is_of_credentials()
        && (own || failure.class != AwsErrorClass::RegionDisabled)
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
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use aws_config::{BehaviorVersion, ConfigLoader, Region, retry::RetryConfig};
    use aws_credential_types::{
        Credentials as Keys,
        provider::{ProvideCredentials, future},
    };
    use axum::http::{HeaderMap, StatusCode};
    use jiff::Timestamp;
    use tidegate_core::ErrorCode;
    use tidegate_service::{clock::ManualClock, metrics::Metrics};

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

    /// Gives another key at each look: `AKIA1`, `AKIA2`, …
    #[derive(Debug, Default)]
    struct Rotated(AtomicUsize);

    impl ProvideCredentials for Rotated {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let key = format!("AKIA{}", self.0.fetch_add(1, Relaxed) + 1);
            future::ProvideCredentials::ready(Ok(Keys::new(key, "secret", None, None, "test")))
        }
    }

    /// An AWS to which the first key expired.
    async fn aws() -> String {
        let app = axum::Router::new().fallback(|headers: HeaderMap| async move {
            let signed = headers.get("authorization").unwrap().to_str().unwrap();
            if signed.contains("Credential=AKIA1/") {
                let body = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code>\
                            <Message>it expired</Message></Error></ErrorResponse>";
                return (StatusCode::FORBIDDEN, body);
            }
            let body = "<GetClusterCredentialsResponse xmlns=\"urn:x\"><GetClusterCredentialsResult>\
                        <DbUser>IAM:reader</DbUser><DbPassword>p</DbPassword>\
                        <Expiration>2100-01-01T00:00:00Z</Expiration>\
                        </GetClusterCredentialsResult></GetClusterCredentialsResponse>";
            (StatusCode::OK, body)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    #[tokio::test]
    async fn credentials_of_the_agent_that_expired_are_looked_for_again_without_a_restart() {
        let loader = ConfigLoader::default()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(aws().await)
            .credentials_provider(Rotated::default());
        let factory = AwsFactory::builder().loader(loader).load().await;
        let clock = ManualClock::new(Timestamp::now());
        let shared: SharedClock = Arc::new(clock.clone());
        let metrics = ServiceMetrics::register(&Metrics::new());
        let credentials = AwsCredentials::new(factory, &shared, metrics);
        let plan = plan_login(&wanted(None), "reader", "dev").unwrap();

        let refused = credentials.login(&plan, "alice").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::AwsCredentials);
        // Past the time for which a failure answers for further calls.
        clock.advance(Duration::from_secs(6));
        let login = credentials.login(&plan, "alice").await.unwrap();
        assert_eq!(login.user, "IAM:reader");
    }

    #[test]
    fn a_region_that_does_not_know_a_roles_session_is_no_reason_to_look_for_credentials() {
        for (effective, class, expected) in [
            (None, AwsErrorClass::RegionDisabled, true),
            (Some("agent"), AwsErrorClass::RegionDisabled, false),
            (Some("agent"), AwsErrorClass::ExpiredCredentials, true),
            (None, AwsErrorClass::AccessDenied, false),
        ] {
            let LoginPlan::ClusterUser { cluster, .. } =
                plan_login(&wanted(effective), "reader", "dev").unwrap()
            else {
                panic!("a user")
            };
            let failure = AwsFailure::new(class, "redshift:GetClusterCredentials", "no");
            assert_eq!(refuses_credentials(&failure, &cluster), expected, "{class}");
        }
    }
}
