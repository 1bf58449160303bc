//! The thread that owns the audit log's file.

use std::path::Path;

use prost::Message as _;
use rusqlite::{Connection, params, params_from_iter};
use tidegate_proto::v1;
use tokio::sync::{mpsc, oneshot};

use super::{AuditUnavailable, EventQuery};
use crate::store::sqlite::{OpenError, open_writer};

/// Commands that one SQLite transaction carries out at most.
const BATCH_COMMANDS_MAX: usize = 256;

/// The steps from an empty file to the current one, in order.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE events (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        uid   TEXT NOT NULL UNIQUE,
        event TEXT NOT NULL,
        user  TEXT NOT NULL,
        body  BLOB NOT NULL
    );
    CREATE INDEX events_by_event ON events (event, place);
    CREATE INDEX events_by_user ON events (user, place);
"];

type Reply<T> = oneshot::Sender<Result<T, AuditUnavailable>>;

/// What the thread is asked to do.
pub(super) enum Command {
    Append {
        events: Vec<v1::AuditEvent>,
        reply: Option<Reply<()>>,
    },
    List {
        query: EventQuery,
        reply: Reply<Vec<v1::AuditEvent>>,
    },
    Close(oneshot::Sender<()>),
}

pub(super) struct LogThread {
    connection: Connection,
}

impl LogThread {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            connection: open_writer(path, &MIGRATIONS)?,
        })
    }

    /// Serves commands until nobody can send any more, or it is told to close.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut events = Vec::new();
            let mut replies = Vec::new();
            let mut next = Some(first);
            let mut other = None;
            while let Some(command) = next {
                match command {
                    Command::Append {
                        events: more,
                        reply,
                    } => {
                        events.extend(more);
                        replies.extend(reply);
                    }
                    command => {
                        other = Some(command);
                        break;
                    }
                }
                next = (events.len() < BATCH_COMMANDS_MAX)
                    .then(|| commands.try_recv().ok())
                    .flatten();
            }
            let outcome = self.append(&events);
            for reply in replies {
                // An emitter that went away does not want its answer.
                let _ = reply.send(outcome.clone());
            }
            match other {
                Some(Command::List { query, reply }) => drop(reply.send(self.list(&query))),
                Some(Command::Close(reply)) => {
                    commands.close();
                    drop(self);
                    let _ = reply.send(());
                    return;
                }
                Some(Command::Append { .. }) | None => {}
            }
        }
    }

    fn append(&mut self, events: &[v1::AuditEvent]) -> Result<(), AuditUnavailable> {
        self.try_append(events).map_err(|error| {
            tracing::error!(error = %error, events = events.len(), "cannot write the audit log");
            AuditUnavailable
        })
    }

    fn try_append(&mut self, events: &[v1::AuditEvent]) -> rusqlite::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO events (uid, event, user, body) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (uid) DO NOTHING",
            )?;
            for event in events {
                insert.execute(params![
                    event.uid,
                    event.event,
                    event.user,
                    event.encode_to_vec()
                ])?;
            }
        }
        transaction.commit()
    }

    fn list(&self, query: &EventQuery) -> Result<Vec<v1::AuditEvent>, AuditUnavailable> {
        self.try_list(query).map_err(|error| {
            tracing::error!(error = %error, "cannot read the audit log");
            AuditUnavailable
        })
    }

    fn try_list(&self, query: &EventQuery) -> rusqlite::Result<Vec<v1::AuditEvent>> {
        let mut wanted = Vec::new();
        let mut values: Vec<&str> = Vec::new();
        for (column, value) in [("event", &query.event), ("user", &query.user)] {
            if !value.is_empty() {
                wanted.push(format!("{column} = ?{}", wanted.len() + 1));
                values.push(value);
            }
        }
        let filter = if wanted.is_empty() {
            String::new()
        } else {
            format!("WHERE {}", wanted.join(" AND "))
        };
        let limit = query.limit;
        let sql = format!("SELECT body FROM events {filter} ORDER BY place DESC LIMIT {limit}");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            match v1::AuditEvent::decode(row.get::<_, Vec<u8>>(0)?.as_slice()) {
                Ok(event) => events.push(event),
                Err(error) => tracing::error!(error = %error, "left out a damaged audit event"),
            }
        }
        events.reverse();
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event;

    fn log() -> (tempfile::TempDir, LogThread) {
        let directory = tempfile::tempdir().unwrap();
        let log = LogThread::open(&directory.path().join("audit.db")).unwrap();
        (directory, log)
    }

    fn of_user(kind: event::Kind, user: &str) -> v1::AuditEvent {
        v1::AuditEvent {
            user: user.to_owned(),
            ..event::new(kind)
        }
    }

    #[test]
    fn an_event_is_kept_once_whatever_number_of_times_it_comes() {
        let (_directory, mut log) = log();
        let event = of_user(event::LOGIN, "alice");
        log.append(&[event.clone(), event.clone()]).unwrap();
        log.append(std::slice::from_ref(&event)).unwrap();
        let query = EventQuery {
            limit: 10,
            ..EventQuery::default()
        };
        assert_eq!(log.list(&query).unwrap(), [event]);
    }

    #[test]
    fn the_newest_are_listed_in_order_of_arrival() {
        let (_directory, mut log) = log();
        let events: Vec<_> = ["a", "b", "a", "c", "a"]
            .into_iter()
            .map(|user| of_user(event::LOGIN, user))
            .collect();
        log.append(&events).unwrap();
        let list = |user: &str, limit| {
            let query = EventQuery {
                event: "user.login".to_owned(),
                user: user.to_owned(),
                limit,
            };
            log.list(&query).unwrap()
        };
        assert_eq!(list("", 2), events[3..]);
        assert_eq!(list("a", 2), [events[2].clone(), events[4].clone()]);
        assert!(list("nobody", 2).is_empty());
    }
}
