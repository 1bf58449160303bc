//! How this agent logs in to a database: what AWS is asked for, as which role, and what a refusal means.
//!
//! [`plan_permitted`] decides from the database, its effective role and what was permitted; it is pure. The passwords
//! come through the [`Credentials`] trait, which [`AwsCredentials`] implements on the shared cache.

mod aws;
mod minter;
mod plan;
mod rds_host;

use futures::future::BoxFuture;
use tidegate_core::Problem;

pub(crate) use aws::{AwsCredentials, session_tag};
pub(crate) use plan::{AwsLogin, LoginPlan, plan_login, plan_permitted};

use crate::engine::DbLogin;

/// Gives logins.
pub(crate) trait Credentials: Send + Sync + 'static {
    /// A login by `plan` for the person `user`, who is named in AWS's own trail.
    fn login<'c>(
        &'c self,
        plan: &'c LoginPlan,
        user: &'c str,
    ) -> BoxFuture<'c, Result<DbLogin, Problem>>;

    /// Another login for `plan` and `user`, after the database did not take the password of `refused`; `None` when no other
    /// is to be had, since that one was as new as any.
    fn another<'c>(
        &'c self,
        plan: &'c LoginPlan,
        user: &'c str,
        refused: &'c DbLogin,
    ) -> BoxFuture<'c, Result<Option<DbLogin>, Problem>>;
}
