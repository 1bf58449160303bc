//! From a permit to a login: the connection to the database, and the login, with another password when the database does
//! not take the one that was kept.

use tidegate_core::{Permit, Problem};
use tidegate_wire::startup::StartupMessage;

use super::upstream_login::{LoggedIn, LoginFailure, log_in, startup_for};
use crate::{
    credentials::LoginPlan,
    engine::{DbLogin, ahead::Ahead, entry::EntryFailure, session::Engine, upstream::Upstream},
    wanted::Wanted,
};

/// What a login is made of, besides connection and password.
pub(super) struct Entering<'e> {
    pub(super) engine: &'e Engine,
    pub(super) wanted: &'e Wanted,
    pub(super) plan: &'e LoginPlan,
    pub(super) permit: &'e Permit,
    /// The client's.
    pub(super) startup: StartupMessage,
}

impl Entering<'_> {
    /// Logs in over the connection that was begun ahead, or one that is made now; once more over another one when the
    /// database does not take a password that was kept.
    ///
    /// # Errors
    ///
    /// [`EntryFailure`].
    pub(super) async fn enter(
        self,
        ahead: Option<Ahead<Upstream>>,
        login: DbLogin,
    ) -> Result<(Upstream, LoggedIn), EntryFailure<LoginFailure>> {
        let failure = match self.log_in(ahead, &login).await {
            Err(failure) => failure,
            entered => return entered,
        };
        let (engine, user) = (self.engine, self.permit.user());
        let another = failure.another_login(engine, self.plan, user, &login);
        let login = another.await?;
        self.log_in(None, &login).await
    }

    async fn log_in(
        &self,
        ahead: Option<Ahead<Upstream>>,
        login: &DbLogin,
    ) -> Result<(Upstream, LoggedIn), EntryFailure<LoginFailure>> {
        let connected = match ahead {
            Some(ahead) => ahead.finish().await,
            None => self.connect().await,
        };
        let mut upstream = connected.map_err(EntryFailure::unavailable)?;
        let startup = startup_for(self.startup.clone(), &login.user, self.permit.db_name());
        let keys = self.engine.connector.scram_keys();
        let logged_in = log_in(&mut upstream, &startup, login, keys).await;
        Ok((upstream, logged_in.map_err(EntryFailure::Login)?))
    }

    async fn connect(&self) -> Result<Upstream, Problem> {
        let (connector, database) = (&self.engine.connector, &self.wanted.database);
        let stream = connector.tcp(database).await?;
        connector.tls(database, stream).await
    }
}
