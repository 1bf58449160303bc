//! From a login plan to what AWS is asked for, and the call that gives the password.

use std::time::Duration;

use tidegate_aws::{
    AwsFactory, Login, LoginRequest, SessionTag, redshift_cluster_credentials,
    redshift_cluster_credentials_with_iam,
};
use tidegate_core::doctor::Stop;

use super::aws;
use crate::{
    credentials::{Cluster, LoginPlan},
    engine::DbLogin,
};

/// The shortest life that AWS gives a password.
const PASSWORD_TTL: Duration = Duration::from_secs(900);

/// What AWS is asked for; `None` where it is asked for nothing.
pub(super) fn request(plan: &LoginPlan) -> Option<LoginRequest> {
    let (cluster, login) = match plan {
        LoginPlan::ClusterUser {
            cluster,
            db_user,
            db_name,
        } => {
            let login = Login::ClusterUser {
                cluster: cluster.id.clone(),
                db_user: db_user.clone(),
                db_name: db_name.clone(),
                create: None,
            };
            (cluster, login)
        }
        LoginPlan::ClusterRole { cluster, db_name } => {
            let login = Login::ClusterRole {
                cluster: cluster.id.clone(),
                db_name: db_name.clone(),
            };
            (cluster, login)
        }
        LoginPlan::Trust { .. } => return None,
    };
    Some(LoginRequest {
        login,
        region: cluster.region.clone(),
        account: cluster
            .account
            .as_deref()
            .and_then(|account| account.parse().ok()),
        chain: cluster.chain.clone(),
    })
}

/// Asks for the password, past every cache.
///
/// # Errors
///
/// When AWS refuses it.
pub(super) async fn mint(
    factory: &AwsFactory,
    plan: &LoginPlan,
    request: &LoginRequest,
    session: &SessionTag,
) -> Result<(DbLogin, Vec<String>), Stop> {
    let client = factory
        .redshift(&request.chain, &request.region, session)
        .await;
    let minted = match plan {
        LoginPlan::ClusterUser {
            cluster: Cluster { id, .. },
            db_user,
            db_name,
        } => redshift_cluster_credentials(&client, id, db_user, db_name, PASSWORD_TTL).await,
        LoginPlan::ClusterRole { cluster, db_name } => {
            redshift_cluster_credentials_with_iam(&client, &cluster.id, db_name, PASSWORD_TTL).await
        }
        LoginPlan::Trust { db_user } => {
            let login = DbLogin {
                user: db_user.clone(),
                password: None,
            };
            return Ok((login, Vec::new()));
        }
    };
    let minted = minted.map_err(|failure| aws::stop(&failure, request, session))?;
    let evidence = format!(
        "a password for {}, good until {:.0}",
        minted.user, minted.expires_at
    );
    let login = DbLogin {
        user: minted.user,
        password: Some(minted.password),
    };
    Ok((login, vec![evidence]))
}
