//! Logins from AWS, over a cache that many sessions share.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use tidegate_aws::{
    AwsFactory, AwsMinter, CredentialCache, CredentialKey, Diagnosis, LoginRequest, Refused,
    SessionTag, diagnose, diagnosis::Step, login::Login,
};
use tidegate_core::{
    Problem,
    aws_session::{SessionFacts, SessionNaming},
};
use tidegate_service::{clock::SharedClock, settings::DatabaseSettings};
use tokio::sync::watch;
use tracing::info;

use super::{
    AwsLogin, Credentials, LoginPlan,
    minter::{Counted, outcome},
};
use crate::{
    engine::DbLogin,
    metrics::{OutcomeLabel, ServiceMetrics},
};

/// Logins from AWS.
#[derive(Debug)]
pub(crate) struct AwsCredentials {
    factory: AwsFactory,
    cache: CredentialCache,
    settings: watch::Receiver<DatabaseSettings>,
    metrics: ServiceMetrics,
}

impl AwsCredentials {
    /// An empty cache over the process's AWS identity. Sessions of roles are named as `settings` say at each login.
    pub(crate) fn new(
        factory: AwsFactory,
        settings: watch::Receiver<DatabaseSettings>,
        clock: &SharedClock,
        metrics: ServiceMetrics,
    ) -> Self {
        let clock = Arc::clone(clock);
        let minter = Arc::new(Counted {
            minter: AwsMinter::new(factory.clone()),
            metrics: metrics.clone(),
        });
        Self {
            factory,
            cache: CredentialCache::new(move || clock.now(), minter),
            settings,
            metrics,
        }
    }

    /// Replaces credentials that are in use before they expire. Never ends.
    pub(crate) async fn keep_fresh(&self) {
        self.cache.keep_fresh().await;
    }

    /// What the sessions of assumed roles are called for this login.
    pub(crate) fn session(&self, plan: &AwsLogin, user: &str) -> SessionTag {
        session_tag(&self.settings.borrow().aws_session, plan, user)
    }

    /// What AWS is asked for; asks it for this agent's own account where the plan needs that.
    pub(crate) async fn request(&self, plan: &AwsLogin) -> Result<LoginRequest, Problem> {
        if !plan.needs_own_account() {
            return plan.request(None);
        }
        let account = self.factory.own_account(plan.region()).await;
        let account = account.map_err(|failure| failure.problem())?;
        plan.request(Some(&account))
    }

    async fn mint(&self, plan: &LoginPlan, user: &str) -> Result<DbLogin, Problem> {
        let plan = match plan {
            LoginPlan::Aws(plan) => plan,
            LoginPlan::Trust { db_user } => {
                return Ok(DbLogin {
                    user: db_user.clone(),
                    password: None,
                });
            }
        };
        self.get(&self.key(plan, user).await?).await
    }

    async fn key(&self, plan: &AwsLogin, user: &str) -> Result<CredentialKey, Problem> {
        let (request, session) = (self.request(plan).await?, self.session(plan, user));
        Ok(CredentialKey::new(request, &session))
    }

    async fn get(&self, key: &CredentialKey) -> Result<DbLogin, Problem> {
        let minted = self.cache.get(key).await;
        let outcome = outcome(&minted);
        self.metrics
            .credentials
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
        minted
            .map(|credentials| DbLogin {
                user: credentials.user,
                password: Some(credentials.password),
            })
            .map_err(|failure| {
                let step = Step::of_failure(&failure, &key.request, &key.session());
                let diagnosis: Diagnosis = diagnose(&failure, &step);
                diagnosis.problem()
            })
    }

    async fn mint_another(
        &self,
        plan: &LoginPlan,
        user: &str,
        refused: &DbLogin,
    ) -> Result<Option<DbLogin>, Problem> {
        let (LoginPlan::Aws(plan), Some(password)) = (plan, &refused.password) else {
            return Ok(None);
        };
        let key = self.key(plan, user).await?;
        match self.cache.refused(&key, password) {
            Refused::Kept => return Ok(None),
            // A token is signed here, with credentials that may have died with their role: AWS says so to the database alone.
            Refused::Forgotten if matches!(key.request.login, Login::RdsToken(_)) => {
                self.factory.refused(&key.request.chain, &key.session());
            }
            Refused::Forgotten | Refused::Replaced => {}
        }
        info!(
            db.name = plan.database,
            db.user = plan.db_user,
            "the database refused a kept password; getting another"
        );
        self.get(&key).await.map(Some)
    }
}

pub(crate) fn session_tag(naming: &SessionNaming, plan: &AwsLogin, user: &str) -> SessionTag {
    let facts = SessionFacts {
        user,
        db_user: &plan.db_user,
        database: &plan.database,
    };
    let mut session = SessionTag::new(&naming.name.fill_in(facts));
    if let Some(identity) = &naming.source_identity {
        session = session.with_source_identity(&identity.fill_in(facts));
    }
    for (key, value) in &naming.tags {
        session = session.with_tag(key, &value.fill_in(facts));
    }
    for (key, value) in &plan.session_tags {
        session = session.with_tag(key, value);
    }
    session
}

impl Credentials for AwsCredentials {
    fn login<'c>(
        &'c self,
        plan: &'c LoginPlan,
        user: &'c str,
    ) -> BoxFuture<'c, Result<DbLogin, Problem>> {
        self.mint(plan, user).boxed()
    }

    fn another<'c>(
        &'c self,
        plan: &'c LoginPlan,
        user: &'c str,
        refused: &'c DbLogin,
    ) -> BoxFuture<'c, Result<Option<DbLogin>, Problem>> {
        self.mint_another(plan, user, refused).boxed()
    }
}

#[cfg(test)]
mod tests;
