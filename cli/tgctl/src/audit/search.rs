//! `tgctl audit search`: page by page from the newest, shown with the newest last.

use std::collections::VecDeque;

use serde::{Serialize, Serializer};
use tidegate_console::{Failure, Format, Output, Table, client::Client, output, rpc, when};
use tidegate_proto::{
    audit::{EventJson, happened_at},
    convert,
    v1::{AuditEvent, ListEventsRequest},
};

use super::say_who_answered;
use crate::args::AuditSearchArgs;

/// Events of one page, the most that the service gives.
const PAGE_EVENTS: u32 = 1000;

/// An event with the field names that SIEM rules know.
struct Event(AuditEvent);

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        EventJson(&self.0).serialize(serializer)
    }
}

pub(crate) async fn search(client: &Client, args: AuditSearchArgs) -> Result<(), Failure> {
    let format = args.format;
    let mut left = args.limit;
    let mut request = ListEventsRequest {
        event: args.event.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        db_service: args.db.unwrap_or_default(),
        sid: args.session.unwrap_or_default(),
        from: args.from.map(convert::timestamp),
        to: args.to.map(convert::timestamp),
        ..ListEventsRequest::default()
    };
    let mut pages = VecDeque::new();
    let mut log = None;
    while left > 0 {
        request.limit = i32::try_from(left.min(PAGE_EVENTS)).unwrap_or(i32::MAX);
        let asked = client.audit().list_events(request.clone()).await;
        let page = rpc::call("search audit events", async { asked }).await?;
        log = page.log.or(log);
        left = left.saturating_sub(u32::try_from(page.events.len()).unwrap_or(u32::MAX));
        pages.push_front(page.events);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    let events: Vec<Event> = pages.into_iter().flatten().map(Event).collect();
    Output::new(format).list(&events, || table(&events))?;
    if format == Format::Text {
        if let Some(log) = &log {
            say_who_answered(log);
        }
        if !request.page_token.is_empty() {
            output::remark("There are older events: narrow the search, or raise --limit.");
        }
    }
    Ok(())
}

fn table(events: &[Event]) -> Table {
    let mut table = Table::new([
        "Time", "Event", "Code", "User", "Database", "DB User", "DB Name", "Result",
    ])
    .shrinking("Result");
    for Event(event) in events {
        let result = match (event.success, event.error.as_str()) {
            (true, _) => "success",
            (false, "") => "failure",
            (false, error) => error,
        };
        table.row([
            when::utc(happened_at(event)).as_str(),
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
            Event(AuditEvent {
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
