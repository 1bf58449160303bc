//! `AuditService`: streams of events of services, searching, and reading the log as it is.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use tidegate_proto::{
    Invalid, convert,
    v1::{self, audit_service_server::AuditService},
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Api, guard::Caller, status::refuse, undecodable::received};
use crate::{
    audit::{EventQuery, Spot},
    inventory::page,
};

/// Most events of one batch.
const BATCH_EVENTS_MAX: usize = 256;
/// Events listed when the caller names no number, and at most.
const LIST_DEFAULT: usize = 100;
const LIST_MAX: usize = 1000;
/// Longest text that is searched for: no stored one is longer.
const WANTED_BYTES_MAX: usize = 256;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A source that sends events.
struct Emitting {
    source: String,
    batches: Streaming<v1::EmitStreamRequest>,
    last_batch: u64,
}

/// A reader of everything.
struct Reading {
    source: String,
    after: i64,
    upto: i64,
    /// To be put into the first message.
    log: Option<v1::AuditLogId>,
}

impl Api {
    /// Stores the next batch and acknowledges it; `None` when the source sends no more.
    async fn take_events(
        &self,
        emitting: &mut Emitting,
    ) -> Result<Option<v1::EmitStreamResponse>, Status> {
        let next = tokio::select! {
            () = self.shutdown.cancelled() => {
                return Err(refuse(Code::Unavailable, "SHUTTING_DOWN", "the auth service is shutting down"));
            }
            next = received(&mut emitting.batches) => next?,
        };
        let Some(v1::EmitStreamRequest { batch, events }) = next else {
            return Ok(None);
        };
        if batch <= emitting.last_batch {
            return Err(Invalid::new("batch", "does not count up").into());
        }
        if events.len() > BATCH_EVENTS_MAX {
            return Err(Invalid::new("events", format!("are more than {BATCH_EVENTS_MAX}")).into());
        }
        self.audit.append(&emitting.source, events).await?;
        emitting.last_batch = batch;
        Ok(Some(v1::EmitStreamResponse {
            durable_batch: batch,
        }))
    }

    /// The next records; `None` when those that there were at the beginning are read.
    async fn read_more(
        &self,
        reading: &mut Reading,
    ) -> Result<Option<v1::ReadRecordsResponse>, Status> {
        while reading.after < reading.upto || reading.log.is_some() {
            let page = self
                .audit
                .page(&reading.source, reading.after, reading.upto)
                .await?;
            reading.after = page.through;
            if !page.records.is_empty() || reading.log.is_some() {
                return Ok(Some(v1::ReadRecordsResponse {
                    log: reading.log.take(),
                    records: page.records,
                }));
            }
        }
        Ok(None)
    }
}

#[tonic::async_trait]
impl AuditService for Api {
    type EmitStreamStream = Answers<v1::EmitStreamResponse>;
    type ReadRecordsStream = Answers<v1::ReadRecordsResponse>;

    async fn emit_stream(
        &self,
        request: Request<Streaming<v1::EmitStreamRequest>>,
    ) -> Result<Response<Self::EmitStreamStream>, Status> {
        let start = Emitting {
            source: Caller::of(&request).host()?.host_id.to_string(),
            batches: request.into_inner(),
            last_batch: 0,
        };
        let api = self.clone();
        let answers = futures::stream::try_unfold(start, move |mut emitting| {
            let api = api.clone();
            async move {
                let answer = api.take_events(&mut emitting).await?;
                Ok(answer.map(|answer| (answer, emitting)))
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let asked = request.into_inner();
        let shown = describe(&asked);
        let query = query(asked, &shown)?;
        let found = self.audit.search(query).await?;
        let next_page_token = found
            .older_than
            .map(|Spot { at, place }| page::token(&shown, &format!("{at} {place}")))
            .unwrap_or_default();
        Ok(Response::new(v1::ListEventsResponse {
            events: found.events,
            next_page_token,
            log: Some(self.audit.id().clone()),
        }))
    }

    async fn read_records(
        &self,
        request: Request<v1::ReadRecordsRequest>,
    ) -> Result<Response<Self::ReadRecordsStream>, Status> {
        let v1::ReadRecordsRequest { source } = request.into_inner();
        self.audit.settle().await;
        let start = Reading {
            source: within_bounds("source", source)?,
            after: 0,
            upto: *self.audit.newest().borrow(),
            log: Some(self.audit.id().clone()),
        };
        let api = self.clone();
        let answers = futures::stream::try_unfold(start, move |mut reading| {
            let api = api.clone();
            async move {
                let more = api.read_more(&mut reading).await?;
                Ok(more.map(|more| (more, reading)))
            }
        });
        Ok(Response::new(answers.boxed()))
    }
}

fn within_bounds(field: &str, text: String) -> Result<String, Invalid> {
    if text.len() > WANTED_BYTES_MAX {
        return Err(Invalid::new(
            field,
            format!("is longer than {WANTED_BYTES_MAX} bytes"),
        ));
    }
    Ok(text)
}

/// What is searched for, in one line: a page token is bound to it.
fn describe(asked: &v1::ListEventsRequest) -> String {
    let time = |at: &Option<prost_types::Timestamp>| {
        at.as_ref()
            .map_or_else(String::new, |at| format!("{}.{}", at.seconds, at.nanos))
    };
    format!(
        "audit|{:?}|{:?}|{:?}|{:?}|{}|{}",
        asked.event,
        asked.user,
        asked.db_service,
        asked.sid,
        time(&asked.from),
        time(&asked.to)
    )
}

fn query(asked: v1::ListEventsRequest, shown: &str) -> Result<EventQuery, Status> {
    let limit = match usize::try_from(asked.limit) {
        Ok(0) => LIST_DEFAULT,
        Ok(limit) => limit.min(LIST_MAX),
        Err(_) => return Err(Invalid::new("limit", "is negative").into()),
    };
    let time = |field: &str, at: Option<prost_types::Timestamp>| {
        at.map(|at| convert::instant(&at).map_err(|_| Invalid::new(field, "is out of range")))
            .transpose()
    };
    let before = page::read(shown, &asked.page_token)?
        .map(|key| spot(&key).ok_or_else(page::foreign))
        .transpose()?;
    Ok(EventQuery {
        event: within_bounds("event", asked.event)?,
        user: within_bounds("user", asked.user)?,
        db: within_bounds("db_service", asked.db_service)?,
        sid: within_bounds("sid", asked.sid)?,
        from: time("from", asked.from)?,
        to: time("to", asked.to)?,
        limit,
        before,
    })
}

fn spot(key: &str) -> Option<Spot> {
    let (at, place) = key.split_once(' ')?;
    Some(Spot {
        at: at.parse().ok()?,
        place: place.parse().ok()?,
    })
}
