//! An event with the field names that SIEM rules know.
//!
//! Facts of the map `fields` stand beside the others, under their own names; one whose name is taken by a field that
//! every event has gets `field_` before it, so that no source can make an event say two things at once.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::happened_at;
use crate::{convert, v1::AuditEvent};

/// Names that are never taken from the map `fields`.
const OWN_NAMES: [&str; 23] = [
    "cluster_name",
    "code",
    "db_name",
    "db_service",
    "db_user",
    "ei",
    "error",
    "event",
    "hash",
    "instance",
    "log",
    "notes",
    "received",
    "record",
    "sequence",
    "server_id",
    "sid",
    "source",
    "source_time",
    "success",
    "time",
    "uid",
    "user",
];

/// An event to be written as JSON (or YAML): one flat object.
#[derive(Clone, Copy, Debug)]
pub struct EventJson<'e>(pub &'e AuditEvent);

impl EventJson<'_> {
    /// Writes the event's fields into an object that is open.
    pub(super) fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let event = self.0;
        map.serialize_entry("event", &event.event)?;
        map.serialize_entry("code", &event.code)?;
        let happened = happened_at(event);
        map.serialize_entry("time", &happened)?;
        map.serialize_entry("uid", &event.uid)?;
        map.serialize_entry("ei", &event.ei)?;
        map.serialize_entry("success", &event.success)?;
        let texts = [
            ("cluster_name", &event.cluster_name),
            ("user", &event.user),
            ("sid", &event.sid),
            ("server_id", &event.server_id),
            ("error", &event.error),
            ("db_service", &event.db_service),
            ("db_user", &event.db_user),
            ("db_name", &event.db_name),
        ];
        for (name, text) in texts {
            if !text.is_empty() {
                map.serialize_entry(name, text)?;
            }
        }

        for (name, value) in &event.fields {
            if OWN_NAMES.contains(&name.as_str()) || name.starts_with("field_") {
                map.serialize_entry(&format!("field_{name}"), value)?;
            } else {
                map.serialize_entry(name, value)?;
            }
        }
        if let Some(said) = &event.time
            && *said != convert::timestamp(happened)
        {
            let written = convert::instant(said).map_or_else(
                |_| format!("{}s {}ns", said.seconds, said.nanos),
                |said| said.to_string(),
            );
            map.serialize_entry("source_time", &written)?;
        }
        let received = event.received.as_ref();
        if let Some(received) = received.and_then(|at| convert::instant(at).ok()) {
            map.serialize_entry("received", &received)?;
        }
        if event.sequence > 0 {
            map.serialize_entry("sequence", &event.sequence)?;
        }
        if !event.notes.is_empty() {
            map.serialize_entry("notes", &event.notes)?;
        }
        Ok(())
    }
}

impl Serialize for EventJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.write(&mut map)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_names_that_rules_know_and_none_is_said_twice() {
        let at = |text: &str| Some(convert::timestamp(text.parse().unwrap()));
        let event = AuditEvent {
            uid: "u-1".to_owned(),
            time: at("2026-11-22T10:00:00Z"),
            received: at("2026-11-22T10:00:01Z"),
            event: "db.session.query".to_owned(),
            code: "TDB02I".to_owned(),
            user: "alice".to_owned(),
            sid: "s-1".to_owned(),
            success: true,
            db_service: "orders".to_owned(),
            server_id: "host-1".to_owned(),
            cluster_name: "tidegate.test".to_owned(),
            sequence: 7,
            ei: 3,
            fields: [
                ("db_query", "select 1"),
                ("user", "mallory"),
                ("field_user", "x"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..AuditEvent::default()
        };
        let text = serde_json::to_string(&EventJson(&event)).unwrap();
        assert_eq!(
            text,
            "{\"event\":\"db.session.query\",\"code\":\"TDB02I\",\"time\":\"2026-11-22T10:00:00Z\",\"uid\":\"u-1\",\"ei\":3,\
             \"success\":true,\"cluster_name\":\"tidegate.test\",\"user\":\"alice\",\"sid\":\"s-1\",\
             \"server_id\":\"host-1\",\"db_service\":\"orders\",\"db_query\":\"select 1\",\"field_field_user\":\"x\",\
             \"field_user\":\"mallory\",\"received\":\"2026-11-22T10:00:01Z\",\"sequence\":7}"
        );
    }
}
