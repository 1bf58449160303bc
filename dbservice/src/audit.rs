//! Audit events on their way to the auth service.
//!
//! Sessions put events into one bounded queue; one task sends them in batches on a stream ([`stream`]), a few ahead of
//! what is acknowledged, and sends again on the next stream what was not. An event has an id of its own, so that one
//! which is sent twice is kept once.
//!
//! Invariant: the relay never waits for audit. A statement that finds no room is counted, and its session says how many
//! at its end; a session that a role holds to strict audit ends before such a statement reaches the database. The start
//! and end of a session do wait: part of the queue is kept free for them.

mod mysql;
mod stream;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tidegate_proto::{convert, v1::AuditEvent};
use tidegate_service::tasks::ShutdownToken;
use tokio::{sync::mpsc, time::timeout};
use tonic::transport::Channel;
use tracing::error;
use uuid::Uuid;

use crate::metrics::ServiceMetrics;
pub(crate) use mysql::MysqlKind;
use stream::Outbox;

/// Events that wait to be sent.
pub(crate) const QUEUE_EVENTS_MAX: usize = 8192;

/// Places in the queue that statements may not take.
const RESERVED_EVENTS: usize = 1024;

/// How long after the end of the last session events are still being sent at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked, at shutdown, whether sessions are left.
const HOLDERS_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A kind of event: its name and code, as they are known elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// We ended a session by a rule that its person is held to.
    Disconnect,
    /// A database is not served: its address cannot be right.
    EndpointRefused,
    /// A session ended.
    End,
    /// A database can be reached again.
    Healthy,
    /// The health of more databases changed than are told one by one.
    HealthOfMany,
    /// A command of MySQL's protocol was sent.
    Mysql(MysqlKind),
    /// A statement was sent.
    Query,
    /// A session began.
    Start,
    /// Somebody was not let in.
    StartFailed,
    /// A database cannot be reached, or its certificate not be trusted.
    Unhealthy,
}

impl Kind {
    const fn name_and_code(self) -> (&'static str, &'static str) {
        match self {
            Self::Disconnect => ("client.disconnect", "T3006I"),
            Self::EndpointRefused => ("db.endpoint.refused", "TDE00W"),
            Self::End => ("db.session.end", "TDB01I"),
            Self::Healthy => ("db.health.change", "TDH00I"),
            Self::HealthOfMany => ("db.health.changes", "TDH01W"),
            Self::Mysql(kind) => kind.name_and_code(),
            Self::Query => ("db.session.query", "TDB02I"),
            Self::Start => ("db.session.start", "TDB00I"),
            Self::StartFailed => ("db.session.start", "TDB00W"),
            Self::Unhealthy => ("db.health.change", "TDH00W"),
        }
    }
}

/// What all events of one session have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) user: String,
    pub(crate) sid: String,
    pub(crate) db_service: String,
    pub(crate) db_user: String,
    pub(crate) db_name: String,
    /// `db_protocol`, `db_origin`, `user_agent`, …
    pub(crate) fields: BTreeMap<String, String>,
    /// Events made so far, which numbers them.
    pub(crate) emitted: Arc<AtomicI64>,
}

/// Makes an event.
pub(crate) fn event(kind: Kind, subject: &Subject, now: Timestamp) -> AuditEvent {
    let (name, code) = kind.name_and_code();
    AuditEvent {
        // Ordered by time, which keeps the index of a long log small and quick.
        uid: Uuid::now_v7().to_string(),
        ei: subject.emitted.fetch_add(1, Ordering::Relaxed),
        time: Some(convert::timestamp(now)),
        event: name.to_owned(),
        code: code.to_owned(),
        user: subject.user.clone(),
        sid: subject.sid.clone(),
        success: !matches!(
            kind,
            Kind::EndpointRefused | Kind::StartFailed | Kind::Unhealthy
        ),
        error: String::new(),
        db_service: subject.db_service.clone(),
        db_user: subject.db_user.clone(),
        db_name: subject.db_name.clone(),
        fields: subject.fields.clone(),
        ..AuditEvent::default()
    }
}

/// Where sessions put their events. Clones share the queue.
#[derive(Clone, Debug)]
pub(crate) struct AuditQueue {
    sender: mpsc::Sender<AuditEvent>,
    metrics: ServiceMetrics,
}

/// The other end of the queue.
pub(crate) type AuditReceiver = mpsc::Receiver<AuditEvent>;

/// Whoever can still put events into the queue.
#[derive(Debug)]
pub(crate) struct AuditHolders(mpsc::WeakSender<AuditEvent>);

impl AuditHolders {
    /// Waits until there is nobody left.
    async fn gone(&self) {
        while self.0.strong_count() > 0 {
            tokio::time::sleep(HOLDERS_CHECK_INTERVAL).await;
        }
    }
}

impl AuditQueue {
    /// A queue, and the end that [`send_all`] empties.
    pub(crate) fn new(metrics: ServiceMetrics) -> (Self, AuditReceiver) {
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS_MAX);
        (Self { sender, metrics }, receiver)
    }

    /// Tells who else has the queue, without having it.
    pub(crate) fn holders(&self) -> AuditHolders {
        AuditHolders(self.sender.downgrade())
    }

    /// Puts an event in, and waits for room.
    pub(crate) async fn put(&self, event: AuditEvent) {
        if self.sender.send(event).await.is_err() {
            self.metrics.audit_dropped.inc();
            error!("an audit event was lost: the sender has ended");
        }
    }

    /// Whether a statement would be taken now.
    pub(crate) fn takes_statements(&self) -> bool {
        !self.sender.is_closed() && self.sender.capacity() > RESERVED_EVENTS
    }

    /// Puts an event in if there is room; `false` when it was dropped.
    pub(crate) fn try_put(&self, event: impl FnOnce() -> AuditEvent) -> bool {
        let put = self.takes_statements() && self.sender.try_send(event()).is_ok();
        if !put {
            self.metrics.audit_dropped.inc();
        }
        put
    }
}

/// Sends what is put into the queue. After shutdown it goes on until every session has let go of the queue and it is
/// empty: at most [`FLUSH_TIMEOUT`] after the last of `holders` did, or after `sessions_end_within`.
pub(crate) async fn send_all(
    mut receiver: AuditReceiver,
    holders: AuditHolders,
    channel: Channel,
    metrics: ServiceMetrics,
    shutdown: ShutdownToken,
    sessions_end_within: Duration,
) {
    let mut outbox = Outbox::default();
    let deadline = async {
        shutdown.cancelled().await;
        // Whichever of the two it is, what is left has the same time.
        let _ = timeout(sessions_end_within, holders.gone()).await;
        tokio::time::sleep(FLUSH_TIMEOUT).await;
    };
    tokio::select! {
        () = stream::send_until_closed(&mut receiver, &mut outbox, channel, &metrics) => {}
        () = deadline => {}
    }
    let lost = outbox.events() + receiver.len();
    if lost > 0 {
        metrics.audit_dropped.inc_by(count(lost));
        error!(
            events = lost,
            "audit events were lost: the auth service was away until the end"
        );
    }
}

fn count(events: usize) -> u64 {
    u64::try_from(events).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tidegate_service::metrics::Metrics;

    use super::*;

    fn queue() -> (AuditQueue, AuditReceiver) {
        AuditQueue::new(ServiceMetrics::register(&Metrics::new()))
    }

    fn any(kind: Kind) -> AuditEvent {
        event(kind, &Subject::default(), Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn statements_leave_room_for_starts_and_ends() {
        let (queue, receiver) = queue();
        let taken = (0..QUEUE_EVENTS_MAX)
            .filter(|_| queue.try_put(|| any(Kind::Query)))
            .count();
        assert_eq!(taken, QUEUE_EVENTS_MAX - RESERVED_EVENTS);
        queue.put(any(Kind::End)).await;
        assert_eq!(receiver.len(), taken + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn at_shutdown_what_cannot_be_sent_has_a_bit_of_time_after_the_last_session_and_no_more()
    {
        let (queue, receiver) = queue();
        queue.put(any(Kind::End)).await;
        let shutdown = ShutdownToken::new();
        let holders = queue.holders();
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let metrics = ServiceMetrics::register(&Metrics::new());
        let hour = Duration::from_secs(3600);
        let sending = send_all(
            receiver,
            holders,
            channel,
            metrics.clone(),
            shutdown.clone(),
            hour,
        );
        let begun = tokio::time::Instant::now();
        let session = async {
            shutdown.cancel();
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(queue);
        };
        tokio::join!(sending, session);
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_secs(65) && took < Duration::from_secs(66),
            "{took:?}"
        );
        assert_eq!(metrics.audit_dropped.get(), 1);
    }

    #[test]
    fn names_and_codes_are_the_known_ones() {
        let shown = |kind| {
            let event = any(kind);
            (event.event, event.code, event.success)
        };
        let expect =
            |event: &str, code: &str, success| (event.to_owned(), code.to_owned(), success);
        assert_eq!(
            shown(Kind::Start),
            expect("db.session.start", "TDB00I", true)
        );
        assert_eq!(
            shown(Kind::StartFailed),
            expect("db.session.start", "TDB00W", false)
        );
        assert_eq!(
            shown(Kind::Query),
            expect("db.session.query", "TDB02I", true)
        );
        assert_eq!(shown(Kind::End), expect("db.session.end", "TDB01I", true));
        assert_eq!(
            shown(Kind::Disconnect),
            expect("client.disconnect", "T3006I", true)
        );
        assert_eq!(
            shown(Kind::Healthy),
            expect("db.health.change", "TDH00I", true)
        );
        assert_eq!(
            shown(Kind::Unhealthy),
            expect("db.health.change", "TDH00W", false)
        );
        assert_eq!(
            shown(Kind::HealthOfMany),
            expect("db.health.changes", "TDH01W", true)
        );
    }

    #[test]
    fn every_event_has_an_id_of_its_own() {
        assert_ne!(any(Kind::Query).uid, any(Kind::Query).uid);
    }
}
