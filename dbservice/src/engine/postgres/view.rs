//! What is understood of a running session in PostgreSQL's protocol.
//!
//! Two scanners follow the two directions; from what they report the view keeps its state.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use tidegate_core::Problem;
use tidegate_wire::{
    SqlState,
    backend::{BackendTag, ErrorResponse, ReadyForQuery, Severity, TxStatus},
    frame::{Event, HEADER_BYTES, Scanner},
    frontend::{self, FrontendTag},
};

use super::words;
use crate::audit::Kind;
use crate::engine::view::{Counts, Malformed, Objection, STATEMENT_BYTES_MAX, Statement, View};

/// The most of a database's message that is looked at: enough for severity and code of an error.
const DATABASE_HEAD_BYTES_MAX: usize = 256;

/// The state of one session.
#[derive(Debug)]
pub(crate) struct PostgresView {
    client: Scanner,
    database: Scanner,
    state: State,
    running: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    counts: Counts,
    /// Requests that the database will answer with ReadyForQuery, and has not yet.
    unanswered: u64,
    /// Whether messages of the extended protocol came since the last Sync.
    batch_is_open: bool,
    transaction: TxStatus,
    said_goodbye: bool,
    database_gave_up: bool,
}

impl PostgresView {
    /// The view of a session whose client was just told ReadyForQuery; `running` is shared with its cancel key.
    pub(crate) fn new(running: Arc<AtomicBool>) -> Self {
        Self {
            client: Scanner::client(STATEMENT_BYTES_MAX),
            database: Scanner::database(DATABASE_HEAD_BYTES_MAX),
            state: State {
                counts: Counts::default(),
                unanswered: 0,
                batch_is_open: false,
                transaction: TxStatus::Idle,
                said_goodbye: false,
                database_gave_up: false,
            },
            running,
            heard: Arc::default(),
        }
    }

    fn publish(&self) {
        let running = self.state.is_running();
        // Mostly nothing changed; a load is cheaper than a store that other threads see.
        if self.running.load(Ordering::Relaxed) != running {
            self.running.store(running, Ordering::Release);
        }
    }
}

impl View for PostgresView {
    fn heard(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heard)
    }

    fn sent_by_client(
        &mut self,
        bytes: &[u8],
        mut on_statement: impl FnMut(Statement<'_>),
    ) -> Result<(), Objection> {
        self.state.counts.client_bytes += count(bytes);
        self.heard
            .store(self.state.counts.client_bytes, Ordering::Relaxed);
        let state = &mut self.state;
        let looked = self
            .client
            .feed(bytes, |event| state.client_sent(event, &mut on_statement));
        self.publish();
        looked.map_err(|error| Objection::Malformed(error.into()))
    }

    fn sent_by_database(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.state.counts.database_bytes += count(bytes);
        let state = &mut self.state;
        let looked = self
            .database
            .feed(bytes, |event| state.database_sent(event));
        self.publish();
        Ok(looked?)
    }

    fn counts(&self) -> Counts {
        self.state.counts
    }

    fn is_idle(&self) -> bool {
        !self.state.is_running() && self.state.transaction == TxStatus::Idle
    }

    fn may_speak_to_client(&self) -> bool {
        self.database.at_boundary()
    }

    fn may_speak_to_database(&self) -> bool {
        self.client.at_boundary()
    }

    fn client_said_goodbye(&self) -> bool {
        self.state.said_goodbye
    }

    fn database_gave_up(&self) -> bool {
        self.state.database_gave_up
    }

    fn last_words(&self, state: SqlState, problem: &Problem) -> Bytes {
        words::fatal(state, problem)
    }

    fn goodbye(&self) -> Bytes {
        frontend::terminate()
    }
}

impl State {
    fn is_running(&self) -> bool {
        self.unanswered > 0 || self.batch_is_open
    }

    fn client_sent(&mut self, event: Event<'_>, on_statement: &mut impl FnMut(Statement<'_>)) {
        match event.tag {
            FrontendTag::QUERY => {
                self.unanswered += 1;
                self.counts.statements += 1;
                let sql = frontend::query_sql(event.head);
                on_statement(Statement {
                    kind: Kind::Query,
                    text: &sql.text,
                    truncated: sql.truncated,
                    body_bytes: event.total_len - HEADER_BYTES,
                    prepared_as: None,
                    fact: None,
                });
            }
            FrontendTag::PARSE => {
                self.batch_is_open = true;
                self.counts.statements += 1;
                if let Some(parse) = frontend::parse_sql(event.head) {
                    on_statement(Statement {
                        kind: Kind::Query,
                        text: &parse.sql.text,
                        truncated: parse.sql.truncated,
                        body_bytes: event.total_len - HEADER_BYTES,
                        prepared_as: Some(&parse.statement),
                        fact: None,
                    });
                }
            }
            FrontendTag::BIND
            | FrontendTag::EXECUTE
            | FrontendTag::DESCRIBE
            | FrontendTag::CLOSE
            | FrontendTag::FLUSH => {
                self.batch_is_open = true;
            }
            FrontendTag::SYNC => {
                self.batch_is_open = false;
                self.unanswered += 1;
            }
            FrontendTag::FUNCTION_CALL => self.unanswered += 1,
            FrontendTag::TERMINATE => self.said_goodbye = true,
            _ => {}
        }
    }

    fn database_sent(&mut self, event: Event<'_>) {
        match event.tag {
            BackendTag::DATA_ROW => self.counts.rows += 1,
            BackendTag::READY_FOR_QUERY => {
                self.unanswered = self.unanswered.saturating_sub(1);
                if let Ok(ReadyForQuery(transaction)) = ReadyForQuery::parse(event.head) {
                    self.transaction = transaction;
                }
            }
            BackendTag::ERROR_RESPONSE => {
                self.counts.errors += 1;
                let severity = ErrorResponse::parse(event.head).severity;
                self.database_gave_up |= matches!(severity, Severity::Fatal | Severity::Panic);
            }
            _ => {}
        }
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tidegate_wire::backend::ready_for_query;

    use super::*;

    fn view() -> (PostgresView, Arc<AtomicBool>) {
        let running = Arc::new(AtomicBool::new(false));
        (PostgresView::new(Arc::clone(&running)), running)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &len.to_be_bytes(), body].concat()
    }

    fn texts(view: &mut PostgresView, bytes: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        view.sent_by_client(bytes, |statement| texts.push(statement.text.to_owned()))
            .unwrap();
        texts
    }

    #[test]
    fn a_statement_runs_from_query_to_ready() {
        let (mut view, running) = view();
        assert_eq!(texts(&mut view, &frontend::query("select 1")), ["select 1"]);
        assert!(running.load(Ordering::Acquire));
        assert!(!view.is_idle());
        view.sent_by_database(&ready_for_query(TxStatus::Idle))
            .unwrap();
        assert!(!running.load(Ordering::Acquire));
        assert!(view.is_idle());
    }

    #[test]
    fn two_pipelined_queries_run_until_both_are_answered() {
        let (mut view, running) = view();
        texts(&mut view, &frontend::query("select 1"));
        texts(&mut view, &frontend::query("select 2"));
        view.sent_by_database(&ready_for_query(TxStatus::Idle))
            .unwrap();
        assert!(running.load(Ordering::Acquire));
        view.sent_by_database(&ready_for_query(TxStatus::Idle))
            .unwrap();
        assert!(!running.load(Ordering::Acquire));
    }

    #[test]
    fn a_batch_runs_before_its_sync_and_until_ready() {
        let (mut view, running) = view();
        let parse = message(FrontendTag::PARSE, b"s1\0select $1\0\0\0");
        assert_eq!(texts(&mut view, &parse), ["select $1"]);
        assert!(running.load(Ordering::Acquire));
        texts(&mut view, &message(FrontendTag::SYNC, b""));
        assert!(running.load(Ordering::Acquire));
        view.sent_by_database(&ready_for_query(TxStatus::InTransaction))
            .unwrap();
        assert!(!running.load(Ordering::Acquire));
        assert!(!view.is_idle(), "a transaction is open");
    }

    #[test]
    fn a_long_statement_is_cut_and_its_length_kept() {
        let (mut view, _) = view();
        let long = "x".repeat(3 * STATEMENT_BYTES_MAX);
        let mut seen = None;
        view.sent_by_client(&frontend::query(&long), |statement| {
            seen = Some((
                statement.text.len(),
                statement.truncated,
                statement.body_bytes,
            ));
        })
        .unwrap();
        assert_eq!(seen, Some((STATEMENT_BYTES_MAX, true, long.len() + 1)));
    }

    #[test]
    fn rows_are_counted_and_our_words_wait_for_a_boundary() {
        let (mut view, _) = view();
        let row = message(BackendTag::DATA_ROW, &[7; 100]);
        view.sent_by_database(&row).unwrap();
        view.sent_by_database(&row[..50]).unwrap();
        assert!(!view.may_speak_to_client());
        view.sent_by_database(&row[50..]).unwrap();
        assert!(view.may_speak_to_client());
        assert_eq!(view.counts().rows, 2);
    }

    #[test]
    fn a_fatal_of_the_database_is_its_own_farewell() {
        let (mut view, _) = view();
        let error = ErrorResponse::error(SqlState::QUERY_CANCELED, "canceled").encode();
        view.sent_by_database(&error).unwrap();
        assert!(!view.database_gave_up());
        let fatal = ErrorResponse::fatal(SqlState::ADMIN_SHUTDOWN, "bye").encode();
        view.sent_by_database(&fatal).unwrap();
        assert!(view.database_gave_up());
        assert_eq!(view.counts().errors, 2);
    }
}
