//! What AWS is asked for, and the call that gives the password, past every cache.

use tidegate_aws::{AwsFactory, AwsFailure, AwsMinter, CredentialKey, LoginRequest, SessionTag};
use tidegate_core::doctor::Stop;

use super::unusable;
use crate::{credentials::AwsLogin, engine::DbLogin};

/// What AWS is asked for; asks it for the agent's own account where the plan needs that.
///
/// # Errors
///
/// For a role that cannot be named, or an account that AWS does not tell.
pub(super) async fn request(factory: &AwsFactory, plan: &AwsLogin) -> Result<LoginRequest, Stop> {
    if !plan.needs_own_account() {
        return plan.request(None).map_err(|problem| unusable(&problem));
    }
    let account = factory.own_account(plan.region()).await;
    let account = account.map_err(|failure| unusable(&failure.problem()))?;
    plan.request(Some(&account))
        .map_err(|problem| unusable(&problem))
}

/// Asks for the password.
///
/// # Errors
///
/// [`AwsFailure`]: what AWS says.
pub(super) async fn mint(
    factory: &AwsFactory,
    request: &LoginRequest,
    session: &SessionTag,
) -> Result<(DbLogin, Vec<String>), AwsFailure> {
    let key = CredentialKey::new(request.clone(), session);
    let minted = AwsMinter::new(factory.clone()).mint(&key).await?;
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
