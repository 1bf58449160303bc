//! Why a database is not got into, and which failures are worth another try, whatever protocol it speaks.

use tidegate_core::Problem;

use super::{DbLogin, farewell::Farewell, record::Ended, session::Engine};
use crate::{credentials::LoginPlan, metrics::Cause};

/// Why there is no session with a database.
#[derive(Debug)]
pub(crate) enum EntryFailure<F> {
    /// It was not got that far.
    Before(Cause, Problem),
    /// The login failed.
    Login(F),
}

/// How a login failed, in a protocol's own terms.
pub(crate) trait LoginRefusal {
    /// What the database said, where it does not take the user's password.
    fn refused_password(&self) -> Option<String>;
}

impl<F: LoginRefusal> EntryFailure<F> {
    pub(crate) fn unavailable(problem: Problem) -> Self {
        Self::Before(Cause::DatabaseUnavailable, problem)
    }

    /// The login to try once more with after this failure of `refused`: the database may take no password that was kept,
    /// and take a new one.
    ///
    /// # Errors
    ///
    /// The failure, when no other login is to be had or would do better; why AWS gives none, when it was asked.
    pub(crate) async fn another_login(
        self,
        engine: &Engine,
        plan: &LoginPlan,
        user: &str,
        refused: &DbLogin,
    ) -> Result<DbLogin, Self> {
        match &self {
            Self::Login(failure) if failure.refused_password().is_some() => {}
            _ => return Err(self),
        }
        match engine.credentials.another(plan, user, refused).await {
            Ok(another) => another.ok_or(self),
            Err(problem) => Err(Self::Before(Cause::Credentials, problem)),
        }
    }

    /// What the client is told, and what is recorded; `login_failed` puts a failed login in words.
    pub(crate) fn told(
        self,
        plan: &LoginPlan,
        login_failed: impl FnOnce(&F) -> (Farewell, Ended),
    ) -> (Farewell, Ended) {
        let said = |problem: Problem| Farewell::Said(Box::new(problem));
        match self {
            Self::Before(cause, problem) => {
                let ended = Ended::by(cause, &problem);
                (said(problem), ended)
            }
            Self::Login(failure) => {
                let (farewell, ended) = login_failed(&failure);
                // The database's own words go first, unless it tells nobody why.
                let refusal = failure.refused_password();
                let meaning = refusal.and_then(|said| plan.refusal(&said));
                (meaning.map_or(farewell, said), ended)
            }
        }
    }
}
