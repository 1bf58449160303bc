use bytes::Bytes;
use tidegate_proto::v1::resource::Body;

use super::{
    kind::{KINDS, kind},
    table::{Row, RowChange, Tables},
    *,
};
use crate::{
    keys,
    record::{UserRecord, encode},
    store::{Change, Entry},
};

fn entry(key: Bytes, message: &impl prost::Message, revision: u64) -> Entry {
    Entry {
        key,
        value: encode(message),
        created: revision,
        modified: revision,
        lease: None,
    }
}

fn hello(hostname: &str) -> v1::Hello {
    v1::Hello {
        hostname: hostname.to_owned(),
        ..v1::Hello::default()
    }
}

fn put(entry: &Entry) -> Change {
    Change {
        key: entry.key.clone(),
        current: Some(entry.clone()),
        previous: None,
    }
}

fn gone(key: Bytes) -> Change {
    Change {
        key,
        current: None,
        previous: None,
    }
}

fn batch(revision: u64, changes: impl IntoIterator<Item = Change>) -> Batch {
    Batch {
        revision,
        changes: changes.into_iter().collect(),
    }
}

fn told(changes: &[RowChange]) -> Vec<String> {
    let sign = |change: &RowChange| match (&change.previous, &change.current) {
        (None, Some(row)) => format!("+{row:?}"),
        (Some(_), Some(row)) => format!("~{row:?}"),
        (Some(row), None) => format!("-{row:?}"),
        (None, None) => String::new(),
    };
    let short = |change| {
        let text = sign(change).replace("Row { kind: ", "").replace('"', "");
        let (text, _) = text.split_once(", revision").unwrap();
        text.replace(", name: ", "/")
    };
    changes.iter().map(short).collect()
}

fn instance(tables: &Tables, host_id: &str) -> Option<v1::Instance> {
    let row = tables
        .rows(kind("instance").unwrap())
        .unwrap()
        .get(host_id)?;
    match row.record.body() {
        Body::Instance(instance) => Some(instance),
        _ => None,
    }
}

#[test]
fn a_resource_that_is_kept_in_parts_is_one_row() {
    let mut tables = Tables::new();
    let db = entry(keys::host("h1", "db"), &hello("node"), 1);
    let proxy = entry(keys::host("h1", "proxy"), &hello("node"), 1);
    let changed = tables.apply(&batch(1, [put(&db), put(&proxy)]));
    assert_eq!(told(&changed), ["+instance/h1", "+proxy/h1"]);
    assert_eq!(instance(&tables, "h1").unwrap().services, ["db", "proxy"]);
    let changed = tables.apply(&batch(2, [gone(proxy.key.clone())]));
    assert_eq!(told(&changed), ["~instance/h1", "-proxy/h1"]);
    assert_eq!(instance(&tables, "h1").unwrap().services, ["db"]);
    let changed = tables.apply(&batch(3, [gone(db.key.clone())]));
    assert_eq!(told(&changed), ["-instance/h1"]);
    assert!(instance(&tables, "h1").is_none());
}

#[test]
fn a_transaction_that_is_in_changes_nothing_again() {
    let mut tables = Tables::new();
    let db = entry(keys::host("h1", "db"), &hello("node"), 5);
    assert_eq!(tables.apply(&batch(5, [put(&db)])).len(), 1);
    assert!(tables.apply(&batch(5, [gone(db.key.clone())])).is_empty());
    assert!(instance(&tables, "h1").is_some());
}

#[test]
fn databases_are_counted_by_who_serves_them() {
    let mut tables = Tables::new();
    tables.loaded(1, ["h1", "h1", "h2"].into_iter());
    let server = |revision| entry(keys::presence("h1", "x"), &hello(""), revision);
    tables.apply(&batch(2, [put(&server(2))]));
    assert_eq!(tables.serving["h1"], 3);
    let again = Entry {
        modified: 3,
        ..server(2)
    };
    tables.apply(&batch(3, [put(&again), gone(keys::presence("h2", "y"))]));
    assert_eq!(tables.serving["h1"], 3);
    assert!(!tables.serving.contains_key("h2"));
}

#[test]
fn a_stored_role_takes_the_place_of_a_built_in_one_until_it_goes() {
    let mut tables = Tables::new();
    let stored = v1::Role {
        name: "access".to_owned(),
        ..v1::Role::default()
    };
    let stored = entry(keys::role("access"), &stored, 7);
    let role = |tables: &Tables| tables.rows(kind("role").unwrap()).unwrap()["access"].clone();
    assert_eq!(role(&tables).revision, 0);
    let changed = tables.apply(&batch(7, [put(&stored)]));
    assert_eq!(told(&changed), ["~role/access"]);
    assert_eq!(role(&tables).revision, 7);
    let changed = tables.apply(&batch(8, [gone(stored.key.clone())]));
    assert_eq!(told(&changed), ["~role/access"]);
    assert_eq!(role(&tables).revision, 0);
    let garbled = Entry {
        value: Bytes::from_static(b"\xff"),
        ..stored
    };
    tables.apply(&batch(9, [put(&garbled)]));
    let Body::Role(shown) = role(&tables).record.body() else {
        panic!("a role is a role");
    };
    assert!(tidegate_core::Role::try_from(shown).is_ok_and(|role| role.name == "access"));
}

#[test]
fn a_row_rewound_is_what_it_was() {
    let users = kind("user").unwrap();
    let user = |roles: &[&str], revision| {
        let user = v1::User {
            name: "alice".to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..v1::User::default()
        };
        let record = UserRecord {
            user: Some(user),
            ..UserRecord::default()
        };
        entry(keys::user("alice"), &record, revision)
    };
    let mut tables = Tables::new();
    tables.apply(&batch(1, [put(&user(&["a"], 1))]));
    tables.apply(&batch(2, [put(&user(&["b"], 2))]));
    let now = tables.rows(users).unwrap()["alice"].clone();
    let before = |entry| [(keys::user("alice"), entry)].into();
    let was = Row::rewound(users, "alice", Some(&now), &before(Some(user(&["a"], 1)))).unwrap();
    assert_eq!(was.fields().list("roles"), ["a"]);
    assert_eq!(was.revision, 1);
    assert!(Row::rewound(users, "alice", Some(&now), &before(None)).is_none());
}

#[test]
fn kinds_are_those_of_the_reference_page_and_their_fields_are_answered() {
    let known = tidegate_core::predicate::reference::KINDS;
    let small = known.iter().filter(|(name, _)| !name.starts_with("db"));
    let small: Vec<&str> = small.map(|(name, _)| *name).collect();
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
    assert_eq!(kinds, small);
    for kind in KINDS {
        let (_, schema) = known.iter().find(|(name, _)| *name == kind.name()).unwrap();
        assert_eq!(schema.kind, kind.schema().kind);
    }
}
