//! `AuditService`: events of services, and their listing.

use tidegate_proto::{
    Invalid,
    v1::{self, audit_service_server::AuditService},
};
use tonic::{Request, Response, Status};

use super::{Api, guard::Caller};
use crate::audit::EventQuery;

/// Most events of one call.
const EVENTS_MAX: usize = 256;
/// Largest event.
const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Events listed when the caller names no number, and at most.
const LIST_DEFAULT: usize = 100;
const LIST_MAX: usize = 1000;

#[tonic::async_trait]
impl AuditService for Api {
    async fn emit(
        &self,
        request: Request<v1::EmitRequest>,
    ) -> Result<Response<v1::EmitResponse>, Status> {
        let caller = Caller::of(&request);
        let server_id = caller.host()?.host_id.to_string();
        let mut events = request.into_inner().events;
        if events.len() > EVENTS_MAX {
            return Err(Invalid::new("events", format!("are more than {EVENTS_MAX}")).into());
        }
        for event in &mut events {
            if event.uid.is_empty() || event.event.is_empty() {
                return Err(Invalid::new("events", "one has no uid or no name").into());
            }
            if prost::Message::encoded_len(event) > EVENT_BYTES_MAX {
                return Err(Invalid::new(
                    "events",
                    format!("one has more than {EVENT_BYTES_MAX} bytes"),
                )
                .into());
            }
            event.server_id.clone_from(&server_id);
        }
        self.audit.append(events).await?;
        Ok(Response::new(v1::EmitResponse {}))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let v1::ListEventsRequest { event, user, limit } = request.into_inner();
        let limit = match usize::try_from(limit) {
            Ok(0) => LIST_DEFAULT,
            Ok(limit) => limit.min(LIST_MAX),
            Err(_) => return Err(Invalid::new("limit", "is negative").into()),
        };
        let events = self.audit.list(EventQuery { event, user, limit }).await?;
        Ok(Response::new(v1::ListEventsResponse { events }))
    }
}
