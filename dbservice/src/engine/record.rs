//! One session's record: opened when the client's connection is taken, closed once, however the session ends.
//!
//! Everything that is said about a session comes from here: its audit events, its one summary in the log, and its
//! counts. What is audited is what the person asked for; the user that AWS minted stays out of it.

use std::{fmt, ops::ControlFlow, sync::Arc, time::Instant};

use jiff::Timestamp;
use tidegate_core::{Problem, Protocol, access::AuditMode};
use tidegate_identity::UserHolder;
use tidegate_service::clock::SharedClock;
use tidegate_wire::sql::{Dialect, Redaction};
use tracing::info;
use uuid::Uuid;

use super::{
    identify::Asked,
    view::{Counts, Statement},
};
use crate::{
    audit::{self, AuditQueue, Kind, Subject},
    health::Health,
    metrics::{Cause, CauseLabel, ServiceMetrics},
    wanted::Wanted,
};

/// The longest text that a client gives itself and that is audited.
const USER_AGENT_CHARS_MAX: usize = 256;

/// How a session ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// In one word.
    pub(crate) cause: Cause,
    /// For the operator; empty when there is nothing to add.
    pub(crate) detail: String,
}

impl Ended {
    /// An end that needs no explanation.
    pub(crate) fn plain(cause: Cause) -> Self {
        Self {
            cause,
            detail: String::new(),
        }
    }

    /// An end with its cause for the operator.
    pub(crate) fn because(cause: Cause, detail: impl fmt::Display) -> Self {
        Self {
            cause,
            detail: detail.to_string(),
        }
    }

    /// An end by a failure in the common taxonomy.
    pub(crate) fn by(cause: Cause, problem: &Problem) -> Self {
        Self::because(
            cause,
            format_args!("{}: {}", problem.code, problem.operator),
        )
    }
}

/// What is known of one session so far.
#[derive(Debug)]
pub(crate) struct Record {
    subject: Subject,
    client_addr: String,
    wanted: Arc<Wanted>,
    /// What is kept out of audited statements.
    redaction: Redaction,
    opened: Instant,
    opened_at: Timestamp,
    clock: SharedClockDebug,
    audit: AuditQueue,
    metrics: ServiceMetrics,
    health: Arc<Health>,
    phase: Phase,
    counts: Counts,
    statements_dropped: u64,
}

/// How far a session got, as audit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody is known yet.
    Anonymous,
    /// A person is known, and was not let in yet.
    Known,
    /// The start was audited.
    Started,
}

/// A clock, which has nothing to show.
struct SharedClockDebug(SharedClock);

impl fmt::Debug for SharedClockDebug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Record {
    /// The database user that was asked for, once that is known.
    pub(crate) fn db_user(&self) -> Option<&str> {
        Some(self.subject.db_user.as_str()).filter(|user| !user.is_empty())
    }

    /// Opens the record of a client's connection.
    pub(crate) fn open(
        wanted: Arc<Wanted>,
        client_addr: String,
        clock: SharedClock,
        audit: AuditQueue,
        metrics: ServiceMetrics,
        health: Arc<Health>,
        redact_iam_roles: bool,
    ) -> Self {
        metrics.sessions_active.inc();
        let database = &wanted.database;
        let mut subject = Subject {
            sid: Uuid::new_v4().to_string(),
            db_service: database.name.to_string(),
            ..Subject::default()
        };
        let mut fact = |name: &str, value: &str| {
            subject.fields.insert(name.to_owned(), value.to_owned());
        };
        fact("db_protocol", database.protocol.as_str());
        fact("db_origin", database.origin.as_str());
        fact("client_addr", &client_addr);
        if let Some(role) = &wanted.effective.role {
            fact("aws_role_arn", role.role_arn.as_str());
        }
        Self {
            opened: Instant::now(),
            opened_at: clock.now(),
            clock: SharedClockDebug(clock),
            phase: Phase::Anonymous,
            counts: Counts::default(),
            statements_dropped: 0,
            subject,
            client_addr,
            redaction: Redaction {
                dialect: match database.protocol {
                    Protocol::Postgres => Dialect::Postgres,
                    Protocol::Mysql => Dialect::Mysql,
                },
                iam_roles: redact_iam_roles,
            },
            wanted,
            audit,
            metrics,
            health,
        }
    }

    /// Where the proxy says that the client is.
    pub(crate) fn client_addr(&self) -> &str {
        &self.client_addr
    }

    /// The session's id.
    pub(crate) fn sid(&self) -> &str {
        &self.subject.sid
    }

    /// A person is known, from the certificate.
    pub(crate) fn person(&mut self, user: &UserHolder) {
        self.subject.user.clone_from(&user.name);
        if !user.access_requests.is_empty() {
            let requests = user.access_requests.join(",");
            self.subject
                .fields
                .insert("access_requests".to_owned(), requests);
        }
        self.phase = Phase::Known;
    }

    /// What the person asks for, and with which program.
    pub(crate) fn asked(&mut self, asked: &Asked, application_name: Option<&str>) {
        self.subject.db_user.clone_from(&asked.db_user);
        self.subject.db_name.clone_from(&asked.db_name);
        if let Some(name) = application_name.filter(|name| !name.is_empty()) {
            let name = name.chars().take(USER_AGENT_CHARS_MAX).collect();
            self.subject.fields.insert("user_agent".to_owned(), name);
        }
    }

    /// The session runs.
    pub(crate) async fn started(&mut self) {
        self.phase = Phase::Started;
        self.health.session_began(&self.wanted, self.clock.0.now());
        self.audit
            .put(audit::event(Kind::Start, &self.subject, self.clock.0.now()))
            .await;
    }

    /// A statement comes by; it breaks off when it may not pass without being audited.
    pub(crate) fn statement(
        &mut self,
        statement: &Statement<'_>,
        mode: AuditMode,
    ) -> ControlFlow<()> {
        let (subject, redaction, now) = (&self.subject, self.redaction, self.clock.0.now());
        let put = self.audit.try_put(|| {
            let mut event = audit::event(statement.kind, subject, now);
            let mut fact = |name: &str, value: String| {
                event.fields.insert(name.to_owned(), value);
            };
            if !statement.text.is_empty() || statement.kind == Kind::Query {
                fact("db_query", redaction.apply(statement.text).into_owned());
                fact("db_query_bytes", statement.body_bytes.to_string());
            }
            if statement.truncated {
                fact("db_query_truncated", "true".to_owned());
            }
            if let Some(name) = statement.prepared_as {
                fact("db_statement_name", name.to_owned());
            }
            if let Some((name, value)) = &statement.fact {
                fact(name, value.clone());
            }
            event
        });
        if put {
            return ControlFlow::Continue(());
        }
        self.statements_dropped += 1;
        match mode {
            AuditMode::BestEffort => ControlFlow::Continue(()),
            AuditMode::Strict => ControlFlow::Break(()),
        }
    }

    /// What went through.
    pub(crate) fn counted(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// Closes the record: the audit event, the summary and the counts of this session.
    pub(crate) async fn close(self, ended: Ended) {
        self.summarise(&ended);
        self.metrics.sessions_active.dec();
        self.metrics
            .sessions
            .get_or_create(&CauseLabel { cause: ended.cause })
            .inc();
        if self.phase == Phase::Known {
            let now = self.clock.0.now();
            self.health.session_failed(&self.wanted, ended.cause, now);
        }
        let kind = match self.phase {
            Phase::Anonymous => return,
            Phase::Known if ended.cause == Cause::CancelRequest => return,
            Phase::Known => Kind::StartFailed,
            Phase::Started => Kind::End,
        };
        let now = self.clock.0.now();
        if kind == Kind::End && ended.cause.is_by_rule() {
            let mut event = audit::event(Kind::Disconnect, &self.subject, now);
            let mut fact = |name: &str, value: &str| {
                event.fields.insert(name.to_owned(), value.to_owned());
            };
            fact("reason", ended.cause.as_str());
            fact("message", &ended.detail);
            self.audit.put(event).await;
        }
        let mut event = audit::event(kind, &self.subject, now);
        event.error = match kind {
            Kind::StartFailed => ended.detail.clone(),
            _ => String::new(),
        };
        let mut fact = |name: &str, value: String| {
            event.fields.insert(name.to_owned(), value);
        };
        fact("cause", ended.cause.as_str().to_owned());
        if kind == Kind::End {
            if !ended.detail.is_empty() {
                fact("message", ended.detail);
            }
            fact("session_start", self.opened_at.to_string());
            fact("session_stop", now.to_string());
            fact("duration_ms", self.opened.elapsed().as_millis().to_string());
            fact("client_bytes", self.counts.client_bytes.to_string());
            fact("database_bytes", self.counts.database_bytes.to_string());
            fact("rows", self.counts.rows.to_string());
            fact("statements", self.counts.statements.to_string());
            fact("errors", self.counts.errors.to_string());
            fact("statements_dropped", self.statements_dropped.to_string());
        }
        self.audit.put(event).await;
    }

    /// The one event of a session in the log.
    fn summarise(&self, ended: &Ended) {
        info!(
            session.id = self.subject.sid,
            db.name = %self.wanted.database.name,
            user = self.subject.user,
            db.user = self.subject.db_user,
            db.namespace = self.subject.db_name,
            client.address = self.client_addr,
            duration_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX),
            client_bytes = self.counts.client_bytes,
            database_bytes = self.counts.database_bytes,
            rows = self.counts.rows,
            statements = self.counts.statements,
            statements_dropped = self.statements_dropped,
            cause = ended.cause.as_str(),
            error = ended.detail,
            "session ended"
        );
    }
}
