//! From a permit to a login: TLS behind the database's greeting, and the login, with another password when the database
//! does not take the one that was kept.

use tidegate_core::{ErrorCode, Permit, Problem};
use tidegate_wire::mysql::{
    Capabilities,
    handshake::{Answer, Greeting},
};

use super::{
    greeted::{Greeted, connect_greeted, secured},
    login::{LoggedIn, LoginFailure, log_in},
    session::{BEHIND_SSL_REQUEST, connected},
};
use crate::{
    credentials::LoginPlan,
    engine::{DbLogin, ahead::Ahead, entry::EntryFailure, session::Engine, upstream::Upstream},
    wanted::Wanted,
};

/// What shapes a stream: the database must have it if the client uses it.
const SHAPES: [(Capabilities, &str); 2] = [
    (Capabilities::DEPRECATE_EOF, "DEPRECATE_EOF"),
    (Capabilities::SESSION_TRACK, "SESSION_TRACK"),
];

/// What a login is made of, besides connection and password.
pub(super) struct Entering<'e> {
    pub(super) engine: &'e Engine,
    pub(super) wanted: &'e Wanted,
    pub(super) plan: &'e LoginPlan,
    pub(super) permit: &'e Permit,
    /// The client's.
    pub(super) answer: Answer,
}

/// A database that let us in.
pub(super) struct Entered {
    pub(super) upstream: Upstream,
    /// Its number for the connection.
    pub(super) number: u32,
    /// What was agreed on with it.
    pub(super) capabilities: Capabilities,
    pub(super) logged_in: LoggedIn,
}

impl Entering<'_> {
    /// Logs in over the connection that there is, or one that is made now; once more over another one when the database
    /// does not take a password that was kept. A client that was greeted with the number of the first connection then
    /// has one that the agent alone knows ([`super::stopping`]).
    ///
    /// # Errors
    ///
    /// [`EntryFailure`].
    pub(super) async fn enter(
        self,
        database: Option<Greeted>,
        ahead: Option<Ahead<Greeted>>,
        login: DbLogin,
    ) -> Result<Entered, EntryFailure<LoginFailure>> {
        let greeted = match database {
            Some(database) => database,
            None => connected(self.engine, self.wanted, ahead)
                .await
                .map_err(EntryFailure::unavailable)?,
        };
        let failure = match self.log_in(greeted, &login).await {
            Err(failure) => failure,
            entered => return entered,
        };
        let (engine, user) = (self.engine, self.permit.user());
        let another = failure.another_login(engine, self.plan, user, &login);
        let login = another.await?;
        let greeted = connect_greeted(&self.engine.connector, &self.wanted.database).await;
        let greeted = greeted.map_err(EntryFailure::unavailable)?;
        self.log_in(greeted, &login).await
    }

    async fn log_in(
        &self,
        greeted: Greeted,
        login: &DbLogin,
    ) -> Result<Entered, EntryFailure<LoginFailure>> {
        let answer = |greeting: &Greeting| for_database(&self.answer, greeting, self.permit);
        self.check_shape(&greeted.greeting)
            .map_err(EntryFailure::unavailable)?;
        // Databases go by the capabilities in the request for TLS, so it says the same as the answer.
        let request = |greeting: &Greeting| answer(greeting).ssl_request(BEHIND_SSL_REQUEST - 1);
        let (connector, database) = (&self.engine.connector, &self.wanted.database);
        let (mut upstream, greeting) = secured(connector, database, greeted, request)
            .await
            .map_err(EntryFailure::unavailable)?;
        let answer = answer(&greeting);
        let capabilities = answer.capabilities;
        let logging_in = log_in(&mut upstream, &greeting, answer, login, BEHIND_SSL_REQUEST);
        let logged_in = logging_in.await.map_err(EntryFailure::Login)?;
        Ok(Entered {
            upstream,
            number: greeting.thread_id,
            capabilities,
            logged_in,
        })
    }

    fn check_shape(&self, greeting: &Greeting) -> Result<(), Problem> {
        let missing = self.answer.capabilities.without(greeting.capabilities);
        let Some((_, name)) = SHAPES.iter().find(|(shape, _)| missing.has(*shape)) else {
            return Ok(());
        };
        Err(Problem::new(
            ErrorCode::DatabaseLogin,
            format!(
                "database `{}` is too old for what your client was offered",
                self.wanted.database.name
            ),
        )
        .because(format_args!("the database has no {name}"))
        .hint("connect with `tg db connect`, which offers what the database has"))
    }
}

/// The client's answer as the database gets it, with what the client may use of what the database can.
fn for_database(client: &Answer, greeting: &Greeting, permit: &Permit) -> Answer {
    let mut answer = client.clone();
    let for_login = Capabilities::PLUGIN_AUTH | Capabilities::PLUGIN_AUTH_LENENC;
    answer.capabilities = (answer.capabilities.without(Capabilities::CONNECT_WITH_DB) | for_login)
        & (greeting.capabilities | Capabilities::CLIENT_MYSQL)
        | Capabilities::PROTOCOL_41
        | Capabilities::SECURE_CONNECTION
        | Capabilities::SSL;
    if !permit.db_name().is_empty() {
        answer.capabilities = answer.capabilities | Capabilities::CONNECT_WITH_DB;
        answer.database = Some(permit.db_name().to_owned());
    }
    answer
}
