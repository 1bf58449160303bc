//! `tgctl audit`: what happened.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_console::{Failure, Output, Table, client::Client, rpc, when};
use tidegate_proto::{
    convert,
    v1::{AuditEvent, ListEventsRequest},
};

use crate::args::AuditLsArgs;

/// An event with the field names that SIEM rules know.
#[derive(Serialize)]
struct Event {
    event: String,
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<jiff::Timestamp>,
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    sid: String,
    success: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    db_service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    db_user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    db_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    server_id: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, String>,
}

impl From<AuditEvent> for Event {
    fn from(event: AuditEvent) -> Self {
        Self {
            time: event.time.as_ref().and_then(|at| convert::instant(at).ok()),
            event: event.event,
            code: event.code,
            uid: event.uid,
            user: event.user,
            sid: event.sid,
            success: event.success,
            error: event.error,
            db_service: event.db_service,
            db_user: event.db_user,
            db_name: event.db_name,
            server_id: event.server_id,
            fields: event.fields,
        }
    }
}

pub(crate) async fn ls(client: &Client, args: AuditLsArgs) -> Result<(), Failure> {
    let request = ListEventsRequest {
        event: args.event,
        user: args.user,
        limit: args.limit,
    };
    let listed = rpc::call("list audit events", client.audit().list_events(request)).await?;
    let events: Vec<Event> = listed.events.into_iter().map(Event::from).collect();
    Output::new(args.format).list(&events, || table(&events))
}

fn table(events: &[Event]) -> Table {
    let mut table = Table::new([
        "Time", "Event", "Code", "User", "Database", "DB User", "DB Name", "Result",
    ])
    .shrinking("Result");
    for event in events {
        let result = match (event.success, event.error.as_str()) {
            (true, _) => "success",
            (false, "") => "failure",
            (false, error) => error,
        };
        table.row([
            event.time.map(when::utc).unwrap_or_default().as_str(),
            &event.event,
            &event.code,
            &event.user,
            &event.db_service,
            &event.db_user,
            &event.db_name,
            result,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_row_and_a_failure_says_why() {
        let event = |success, error: &str| {
            Event::from(AuditEvent {
                uid: "1".to_owned(),
                time: Some(prost_types::Timestamp {
                    seconds: 1_700_000_000,
                    nanos: 0,
                }),
                event: "db.session.start".to_owned(),
                code: if success { "TDB00I" } else { "TDB00W" }.to_owned(),
                user: "alice".to_owned(),
                success,
                error: error.to_owned(),
                db_service: "orders".to_owned(),
                db_user: "reader".to_owned(),
                db_name: "dev".to_owned(),
                ..AuditEvent::default()
            })
        };
        let events = [event(true, ""), event(false, "access denied")];
        assert_eq!(
            table(&events).render(None),
            "\
Time                     Event             Code    User   Database  DB User  DB Name  Result
-----------------------  ----------------  ------  -----  --------  -------  -------  -------------
2023-11-14 22:13:20 UTC  db.session.start  TDB00I  alice  orders    reader   dev      success
2023-11-14 22:13:20 UTC  db.session.start  TDB00W  alice  orders    reader   dev      access denied
"
        );
    }
}
