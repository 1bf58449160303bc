//! Stops what runs in a session, by `KILL` over a connection to its database of its own, as the session's own user.
//!
//! Two ask for it. A session that ends while a statement runs, which the server would finish for nobody. And a client that
//! was greeted by a proxy, and names the number that the proxy gave it: its `KILL` reaches the server as it came, which
//! knows no such number, and the agent does beside it what was meant.
//!
//! Invariants: a number is good for the person, database and database user of its session alone. A statement that is over
//! when the connection is ready is not stopped, and neither is the one behind it.
//!
//! Source: MariaDB Knowledge Base, "KILL [CONNECTION | QUERY]"; MySQL manual, "KILL Statement": every user may kill its own.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tidegate_core::Problem;
use tidegate_service::telemetry;
use tidegate_wire::mysql::{
    Capabilities,
    command::{self, Code, command},
    handshake::{Answer, Greeting},
    reply::ServerError,
};
use tokio::{io::AsyncWriteExt, time::timeout};
use tracing::debug;

use super::{
    greeted::{Greeted, greeted},
    login::{LoginFailure, log_in},
    packets::{self, ReadError},
};
use crate::{
    credentials::{Credentials, LoginPlan},
    engine::Connector,
    wanted::Wanted,
};

/// How long a kill may take, from dialling to the database's answer.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Places of the request for TLS and of the answer behind it.
const SSL_REQUEST_AT: u8 = 1;
const ANSWER_AT: u8 = 2;
/// utf8mb4_general_ci, which servers of all ages know.
const CHARSET: u8 = 45;
/// The longest packet that is taken, in bytes.
const PACKET_BYTES_MAX: u32 = 1 << 20;
/// The longest text of a statement that can be a kill.
const KILL_BYTES_MAX: usize = 64;

/// What is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The session, with whatever runs in it.
    Connection,
    /// What runs in it, and no more.
    Statement,
}

/// What a client asks for: a part of the connection with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) part: Part,
    pub(super) number: u32,
}

impl Kill {
    /// Reads `KILL [HARD | SOFT] [CONNECTION | QUERY] number`; `None` for every other statement.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > KILL_BYTES_MAX {
            return None;
        }
        let mut words = text.trim_end_matches(';').split_ascii_whitespace();
        let is = |word: &str, name: &str| word.eq_ignore_ascii_case(name);
        words.next().filter(|word| is(word, "KILL"))?;
        let mut word = words.next()?;
        if is(word, "HARD") || is(word, "SOFT") {
            word = words.next()?;
        }
        let mut part = Part::Connection;
        if is(word, "CONNECTION") || is(word, "QUERY") {
            if is(word, "QUERY") {
                part = Part::Statement;
            }
            word = words.next()?;
        }
        let number = word.parse().ok()?;
        words.next().is_none().then_some(Self { part, number })
    }
}

/// Whether a session's statements run: 0 when none does, else a number that no earlier stretch of them had.
#[derive(Clone, Debug, Default)]
pub(super) struct Running(Arc<AtomicU64>);

impl Running {
    /// Tells how it is.
    pub(super) fn set(&self, stretch: u64) {
        self.0.store(stretch, Ordering::Release);
    }

    /// How it is.
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A session, as far as it takes to stop it.
pub(super) struct Target {
    /// The database.
    pub(super) wanted: Arc<Wanted>,
    /// The very address that the session is connected to.
    pub(super) address: SocketAddr,
    /// The database's number for the session.
    pub(super) number: u32,
    /// Whether statements of it run.
    pub(super) running: Running,
    /// How its person logs in.
    pub(super) plan: LoginPlan,
    /// The person.
    pub(super) person: String,
    pub(super) connector: Arc<Connector>,
    pub(super) credentials: Arc<dyn Credentials>,
    /// Whether it is being stopped: one connection for that is enough.
    pub(super) is_asked: AtomicBool,
}

/// Why nothing was killed.
#[derive(Debug, thiserror::Error)]
enum KillError {
    #[error("{}: {}", .0.code, .0.operator)]
    Connect(Problem),
    #[error("no login")]
    Login(#[from] LoginFailure),
    #[error("no answer")]
    Read(#[from] ReadError),
    #[error("the database refused it: {code} {message}")]
    Refused { code: u16, message: String },
}

impl From<Problem> for KillError {
    fn from(problem: Problem) -> Self {
        Self::Connect(problem)
    }
}

/// What a kill came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Killed,
    /// There was nothing to kill any more.
    Over,
}

impl Target {
    /// Ends the session at the database, when it was left with a statement that runs.
    pub(super) async fn end(&self) {
        self.kill(Part::Connection).await;
    }

    /// Stops a part of the session, if statements of it run.
    async fn kill(&self, part: Part) {
        let meant = self.running.now();
        if meant == 0 || self.is_asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let outcome = timeout(KILL_TIMEOUT, Box::pin(self.ask(part, meant))).await;
        self.is_asked.store(false, Ordering::Release);
        let number = self.number;
        match outcome {
            Ok(Ok(outcome)) => debug!(?outcome, ?part, number, "asked a database to stop"),
            Ok(Err(error)) => debug!(
                error = telemetry::chain(&error),
                ?part,
                number,
                "could not ask a database to stop"
            ),
            Err(_) => debug!(
                ?part,
                number, "a database took too long to be asked to stop"
            ),
        }
    }

    async fn ask(&self, part: Part, meant: u64) -> Result<Outcome, KillError> {
        let database = &self.wanted.database;
        let login = self.credentials.login(&self.plan, &self.person).await?;
        // To the session's own address each time: another server would take the number for somebody else's.
        let dial = async || {
            let stream = self.connector.tcp_to(database, self.address).await?;
            greeted(database, stream).await
        };
        let request = |greeting: &Greeting| answer(greeting).ssl_request(SSL_REQUEST_AT);
        let Greeted {
            stream,
            mut greeting,
        } = dial().await?;
        let first = (stream, request(&greeting));
        let again = async {
            let other = dial().await?;
            greeting = other.greeting;
            Ok((other.stream, request(&greeting)))
        };
        let shaking = self.connector.tls_after(database, first, None, again);
        let mut upstream = shaking.await?;
        let answer = answer(&greeting);
        log_in(&mut upstream, &greeting, answer, &login, ANSWER_AT).await?;
        let outcome = if self.running.now() == meant {
            let word = match part {
                Part::Connection => "CONNECTION",
                Part::Statement => "QUERY",
            };
            let kill = command(Code::QUERY, &format!("KILL {word} {}", self.number));
            upstream.write_all(&kill).await.map_err(ReadError::Io)?;
            upstream.flush().await.map_err(ReadError::Io)?;
            let answer = packets::next(&mut upstream, &mut BytesMut::new()).await?;
            if let Some(error) = ServerError::parse(&answer.payload) {
                return Err(KillError::Refused {
                    code: error.code,
                    message: error.message.into_owned(),
                });
            }
            Outcome::Killed
        } else {
            Outcome::Over
        };
        // It is done; a database that does not hear the goodbye notices the closed socket.
        upstream.write_all(&command::quit()).await.ok();
        upstream.shutdown().await.ok();
        Ok(outcome)
    }
}

fn answer(greeting: &Greeting) -> Answer {
    let plugins = Capabilities::PLUGIN_AUTH | Capabilities::PLUGIN_AUTH_LENENC;
    Answer {
        capabilities: Capabilities::CLIENT_MYSQL
            | Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::SSL
            | (greeting.capabilities & plugins),
        packet_bytes_max: PACKET_BYTES_MAX,
        charset: CHARSET,
        user: String::new(),
        proof: Bytes::new(),
        database: None,
        plugin: None,
        attributes: Bytes::new(),
    }
}

/// Whose session it is. Nobody else's kill counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) person: String,
    pub(super) database: String,
    pub(super) db_user: String,
}

type Key = (u32, Owner);

/// Sessions by the numbers that proxies gave their clients.
#[derive(Clone, Default)]
pub(crate) struct Numbers {
    sessions: Arc<Mutex<HashMap<Key, Arc<Target>>>>,
}

impl std::fmt::Debug for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Numbers").finish_non_exhaustive()
    }
}

/// A session that can be found by its number, until this is dropped.
pub(super) struct Known {
    numbers: Numbers,
    key: Key,
}

impl Numbers {
    /// Makes a session known by `number`, which a proxy made up: one that its owner has a second time finds the later.
    pub(super) fn know(&self, number: u32, owner: Owner, target: Arc<Target>) -> Known {
        let key = (number, owner);
        self.lock().insert(key.clone(), target);
        Known {
            numbers: self.clone(),
            key,
        }
    }

    /// Stops what an owner names, in a task of its own, if that is a session of theirs here.
    pub(super) fn kill(&self, kill: Kill, owner: &Owner) {
        if let Some(target) = self.find(kill.number, owner) {
            tokio::spawn(async move { target.kill(kill.part).await });
        }
    }

    pub(super) fn find(&self, number: u32, owner: &Owner) -> Option<Arc<Target>> {
        self.lock().get(&(number, owner.clone())).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Target>>> {
        // Entries are whole values: a panic elsewhere leaves none half-made.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.numbers.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_known_in_every_way_that_clients_say_it_and_nothing_else_is_one() {
        let kill = |part, number| Some(Kill { part, number });
        for (text, expected) in [
            ("KILL QUERY 7", kill(Part::Statement, 7)),
            (" kill  query\t7 ; ", kill(Part::Statement, 7)),
            ("KILL 2147483649", kill(Part::Connection, 0x8000_0001)),
            ("KILL CONNECTION 7", kill(Part::Connection, 7)),
            ("kill soft query 7", kill(Part::Statement, 7)),
            ("KILL HARD 7", kill(Part::Connection, 7)),
            ("KILL", None),
            ("KILL QUERY", None),
            ("KILL QUERY ID 7", None),
            ("KILL USER bob", None),
            ("KILL 7 8", None),
            ("KILL 7; SELECT 1", None),
            ("KILL -7", None),
            ("KILL 4294967296", None),
            ("SELECT 'KILL 7'", None),
            ("", None),
        ] {
            assert_eq!(Kill::read(text), expected, "{text}");
        }
    }
}
