//! Makes any event at all one that can be stored: bounds on every field and on the whole, and nothing that a reader of
//! logs could trip over.
//!
//! Invariant: [`shape`] refuses nothing and depends on the event alone, so that an event that is sent again is the same
//! event again. What it changed is in the event's notes; a text that was too long keeps its head and its tail around its
//! length and digest.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use prost::Message as _;
use tidegate_proto::{audit, convert, v1::AuditEvent};

use super::event;

/// Longest whole event.
pub(crate) const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Longest name of an event, such as `db.session.start`.
pub(crate) const EVENT_NAME_BYTES_MAX: usize = 64;
/// Longest code, such as `TDB00I`.
pub(crate) const CODE_BYTES_MAX: usize = 32;
/// Longest id of an event or a session.
pub(crate) const ID_BYTES_MAX: usize = 64;
/// Longest name of a person, a database, a database user or a logical database.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Longest error.
pub(crate) const ERROR_BYTES_MAX: usize = 4 * 1024;
/// Most further facts.
pub(crate) const FIELDS_MAX: usize = 64;
/// Longest name of a further fact.
pub(crate) const FIELD_NAME_BYTES_MAX: usize = 64;
/// Longest value of a further fact.
pub(crate) const FIELD_BYTES_MAX: usize = 16 * 1024;
/// What values are cut to, one limit after the other, while an event is too long as a whole. With the last one it is
/// not: 64 facts of 64 + 256 bytes leave room.
const FIELD_BYTES_TIGHT: [usize; 3] = [4 * 1024, 1024, 256];
/// Most notes; one more says that there were others.
const NOTES_MAX: usize = 16;
/// Hexadecimal digits of a digest that keep two long names apart.
const NAME_DIGEST_CHARS: usize = 8;

/// Changes an event so that it can be stored, and says in its notes what was changed. Whatever the source wrote where
/// only this service writes is dropped.
pub(super) fn shape(mut event: AuditEvent) -> AuditEvent {
    event.server_id.clear();
    event.cluster_name.clear();
    event.received = None;
    event.sequence = 0;
    event.notes.clear();
    if event.uid.is_empty() {
        let known = digest_hex(&event.encode_to_vec());
        event.uid = format!("none-{}", &known[..32]);
        event.notes.push("no_uid".to_owned());
    }
    let mut notes = Notes(std::mem::take(&mut event.notes));
    if event.event.is_empty() {
        event.event = event::UNKNOWN.0.to_owned();
        notes.add("no_name".to_owned());
    }
    if event.code.is_empty() {
        event.code = event::UNKNOWN.1.to_owned();
        notes.add("no_code".to_owned());
    }
    for (what, text, bytes_max) in [
        ("uid", &mut event.uid, ID_BYTES_MAX),
        ("event", &mut event.event, EVENT_NAME_BYTES_MAX),
        ("code", &mut event.code, CODE_BYTES_MAX),
        ("user", &mut event.user, NAME_BYTES_MAX),
        ("sid", &mut event.sid, ID_BYTES_MAX),
        ("db_service", &mut event.db_service, NAME_BYTES_MAX),
        ("db_user", &mut event.db_user, NAME_BYTES_MAX),
        ("db_name", &mut event.db_name, NAME_BYTES_MAX),
    ] {
        name(what, text, bytes_max, &mut notes);
    }
    free_text("error", &mut event.error, ERROR_BYTES_MAX, &mut notes);
    fields(&mut event.fields, &mut notes);
    for limit in FIELD_BYTES_TIGHT {
        if event.encoded_len() <= EVENT_BYTES_MAX {
            break;
        }
        for (what, value) in &mut event.fields {
            free_text(what, value, limit, &mut notes);
        }
    }
    event.notes = notes.0;
    event
}

/// As [`shape`], for an event of this service's own, which happens when it arrives.
pub(super) fn shape_own(event: AuditEvent, now: Timestamp) -> AuditEvent {
    let now = Some(convert::timestamp(now));
    AuditEvent {
        received: now,
        ..shape(AuditEvent { time: now, ..event })
    }
}

/// What was changed, bounded.
struct Notes(Vec<String>);

impl Notes {
    fn add(&mut self, note: String) {
        let is_full = self.0.len() > NOTES_MAX;
        if is_full || self.0.contains(&note) {
            return;
        }
        self.0.push(if self.0.len() < NOTES_MAX {
            note
        } else {
            "more".to_owned()
        });
    }
}

fn fields(fields: &mut BTreeMap<String, String>, notes: &mut Notes) {
    if fields.len() > FIELDS_MAX {
        notes.add(format!("fields_left_out:{}", fields.len() - FIELDS_MAX));
        while fields.len() > FIELDS_MAX {
            fields.pop_last();
        }
    }
    if fields
        .keys()
        .any(|name| name.is_empty() || !is_plain(name, FIELD_NAME_BYTES_MAX))
    {
        let mut renamed = BTreeMap::new();
        for (was, value) in std::mem::take(fields) {
            let mut now = was.clone();
            name("field_name", &mut now, FIELD_NAME_BYTES_MAX, notes);
            if now.is_empty() || (now != was && renamed.contains_key(&now)) {
                now = with_digest(&now, &was, FIELD_NAME_BYTES_MAX);
            }
            renamed.insert(now, value);
        }
        *fields = renamed;
    }
    for (what, value) in fields {
        free_text(what, value, FIELD_BYTES_MAX, notes);
    }
}

/// Whether a text is short and has only visible ASCII characters and spaces: nearly all are.
fn is_plain(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// A name: one line, and when it was too long its head with a digest of all of it.
fn name(what: &str, text: &mut String, bytes_max: usize, notes: &mut Notes) {
    if is_plain(text, bytes_max) {
        return;
    }
    replace_controls(what, text, char::is_control, notes);
    if text.len() > bytes_max {
        notes.add(format!(
            "cut:{what}:{} bytes, sha256 {}",
            text.len(),
            digest_hex(text.as_bytes())
        ));
        *text = with_digest(text, text, bytes_max);
    }
}

/// The head of `text`, `~`, and digits of the digest of `of`.
fn with_digest(text: &str, of: &str, bytes_max: usize) -> String {
    let digits = &digest_hex(of.as_bytes())[..NAME_DIGEST_CHARS];
    let head = head(text, bytes_max - NAME_DIGEST_CHARS - 1);
    format!("{head}~{digits}")
}

/// A text of several lines: when it was too long its head and its tail, and between them its length and digest.
fn free_text(what: &str, text: &mut String, bytes_max: usize, notes: &mut Notes) {
    if is_plain(text, bytes_max) {
        return;
    }
    let is_harmful = |found: char| found.is_control() && !matches!(found, '\t' | '\n' | '\r');
    replace_controls(what, text, is_harmful, notes);
    if text.len() > bytes_max {
        notes.add(format!("cut:{what}"));
        *text = cut(text, bytes_max);
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    let (len, digest) = (text.len(), digest_hex(text.as_bytes()));
    let mark = format!("…[{len} bytes, sha256 {digest}]…");
    let room = bytes_max.saturating_sub(mark.len());
    let head = head(text, room - room / 4);
    format!("{head}{mark}{}", tail(text, room / 4))
}

fn replace_controls(
    what: &str,
    text: &mut String,
    is_harmful: impl Fn(char) -> bool,
    notes: &mut Notes,
) {
    if let Cow::Owned(replaced) = without(text, is_harmful) {
        notes.add(format!("control_characters:{what}"));
        *text = replaced;
    }
}

fn without(text: &str, is_harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().any(&is_harmful) {
        let shown = |found| {
            if is_harmful(found) {
                char::REPLACEMENT_CHARACTER
            } else {
                found
            }
        };
        Cow::Owned(text.chars().map(shown).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// The longest head of a text within so many bytes.
fn head(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The longest tail of a text within so many bytes.
fn tail(text: &str, bytes_max: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes_max))..]
}

/// SHA-256 in hexadecimal digits.
pub(super) fn digest_hex(bytes: &[u8]) -> String {
    audit::hex(&audit::digest(bytes))
}

#[cfg(test)]
pub(in crate::audit) use tests::any_event;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_statement_keeps_head_tail_length_and_digest() {
        let statement = format!("select '{}' from t", "x".repeat(40_000));
        let shaped = shape(AuditEvent {
            uid: "u".to_owned(),
            event: "db.session.query".to_owned(),
            code: "TDB02I".to_owned(),
            fields: [("db_query".to_owned(), statement.clone())].into(),
            ..AuditEvent::default()
        });
        let kept = &shaped.fields["db_query"];
        assert!(kept.len() <= FIELD_BYTES_MAX);
        assert!(kept.starts_with("select 'xxx") && kept.ends_with("' from t"));
        assert!(kept.contains(&format!("{} bytes", statement.len())));
        assert!(kept.contains(&digest_hex(statement.as_bytes())));
        assert_eq!(shaped.notes, ["cut:db_query"]);
    }

    #[test]
    fn an_event_of_a_sound_source_is_left_as_it_is() {
        let event = AuditEvent {
            uid: "u".to_owned(),
            event: "db.session.query".to_owned(),
            code: "TDB02I".to_owned(),
            user: "jürgen".to_owned(),
            fields: [("db_query".to_owned(), "select\n\t1".to_owned())].into(),
            ..AuditEvent::default()
        };
        assert_eq!(shape(event.clone()), event);
    }

    #[test]
    fn what_only_the_service_writes_is_dropped_and_what_is_missing_is_said() {
        let shaped = shape(AuditEvent {
            server_id: "other".to_owned(),
            cluster_name: "other".to_owned(),
            sequence: 9,
            notes: vec!["x".to_owned()],
            user: "a\u{1b}[2Jb\n".to_owned(),
            ..AuditEvent::default()
        });
        assert_eq!((shaped.server_id.as_str(), shaped.sequence), ("", 0));
        assert_eq!(shaped.event, "audit.unknown");
        assert_eq!(shaped.code, "TAU00W");
        assert_eq!(shaped.user, "a\u{fffd}[2Jb\u{fffd}");
        assert!(shaped.uid.starts_with("none-"));
        assert_eq!(
            shaped.notes,
            ["no_uid", "no_name", "no_code", "control_characters:user"]
        );
    }

    #[test]
    fn facts_beyond_bounds_are_counted_and_none_hides_another() {
        let many = (0..100).map(|n| (format!("f{n:03}"), "x".repeat(2000)));
        let shaped = shape(AuditEvent {
            fields: many.collect(),
            ..AuditEvent::default()
        });
        assert_eq!(shaped.fields.len(), FIELDS_MAX);
        assert!(shaped.notes.contains(&"fields_left_out:36".to_owned()));
        assert!(shaped.encoded_len() <= EVENT_BYTES_MAX);
        let alike = ["a\u{1}", "a\u{2}", "a\u{3}", ""];
        let shaped = shape(AuditEvent {
            fields: alike.map(|name| (name.to_owned(), String::new())).into(),
            ..AuditEvent::default()
        });
        assert_eq!(shaped.fields.len(), alike.len(), "{:?}", shaped.fields);
    }

    /// Any text, often with what hurts, sometimes very long.
    fn any_text() -> impl Strategy<Value = String> {
        let chars = prop_oneof![
            any::<char>(),
            Just('\0'),
            Just('\u{202e}'),
            Just('é'),
            Just('x')
        ];
        (
            proptest::collection::vec(chars, 0..40),
            prop_oneof![9 => Just(1usize), 1 => Just(600usize)],
        )
            .prop_map(|(chars, times)| String::from_iter(chars).repeat(times))
    }

    prop_compose! {
        pub(in crate::audit) fn any_event()(
            texts in proptest::collection::vec(any_text(), 11),
            fields in proptest::collection::btree_map(any_text(), any_text(), 0..90),
            time in proptest::option::of((any::<i64>(), any::<i32>())),
            (success, ei) in any::<(bool, i64)>(),
        ) -> AuditEvent {
            let text = |at: usize| texts[at].clone();
            AuditEvent {
                uid: text(0), event: text(1), code: text(2), user: text(3), sid: text(4), error: text(5),
                db_service: text(6), db_user: text(7), db_name: text(8), server_id: text(9), cluster_name: text(10),
                fields, success, ei,
                time: time.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
                ..AuditEvent::default()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_event_comes_within_bounds_and_shaping_again_changes_nothing(event in any_event()) {
            let shaped = shape(event.clone());
            prop_assert!(shaped.encoded_len() <= EVENT_BYTES_MAX + NOTES_MAX * 256);
            prop_assert!(shaped.uid.len() <= ID_BYTES_MAX && !shaped.uid.is_empty());
            prop_assert!(!shaped.event.is_empty() && !shaped.code.is_empty());
            prop_assert!(shaped.fields.len() <= FIELDS_MAX);
            prop_assert_eq!(shape(event), shaped.clone());
            let again = shape(shaped.clone());
            prop_assert_eq!(AuditEvent { notes: Vec::new(), ..again }, AuditEvent { notes: Vec::new(), ..shaped });
        }
    }
}
