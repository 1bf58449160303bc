//! `tgctl audit`: searching, verifying and exporting.

use std::path::PathBuf;

use prost::Message as _;
use tidegate_proto::{
    audit::{follow, genesis},
    v1,
};

use super::{Cluster, fake::log_id};

fn event(name: &str, user: &str) -> v1::AuditEvent {
    v1::AuditEvent {
        event: name.to_owned(),
        user: user.to_owned(),
        code: "TDB00I".to_owned(),
        success: true,
        ..v1::AuditEvent::default()
    }
}

/// A sound log of two sources.
fn records() -> Vec<v1::AuditRecord> {
    let mut records = Vec::new();
    for source in ["auth-1", "host-1"] {
        let mut hash = genesis(&log_id().log, source);
        for sequence in 1..=4 {
            let event = v1::AuditEvent {
                server_id: source.to_owned(),
                sequence,
                ..event("db.session.start", "alice")
            };
            let body = event.encode_to_vec();
            hash = follow(&hash, &body);
            records.push(v1::AuditRecord {
                source: source.to_owned(),
                sequence,
                hash: hash.to_vec(),
                event: body,
                index_differs: false,
            });
        }
    }
    records
}

impl Cluster {
    /// Exit code, standard output and standard error.
    async fn audit(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.run(&[&["audit"], arguments].concat()).await;
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[tokio::test]
async fn events_are_listed_by_name_and_user_page_by_page() {
    let cluster = Cluster::new();
    cluster.fake.state().events = vec![
        event("db.session.start", "alice"),
        event("db.session.end", "alice"),
        event("db.session.start", "bob"),
    ];
    let arguments = ["ls", "--event=db.session.start", "--user=bob"];
    let (code, text, remarks) = cluster.audit(&arguments).await;
    assert_eq!((code, text.lines().count()), (0, 3), "{text}");
    assert_eq!(remarks, "Instance auth-1 answered; its log is log-1.\n");
    let all = cluster.prints(&["audit", "search", "--format=json"]).await;
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let names: Vec<_> = (0..3)
        .map(|at| all[at]["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["db.session.start", "db.session.end", "db.session.start"]
    );
    assert_eq!(all[1]["code"], "TDB00I");
    let (_, text, remarks) = cluster.audit(&["ls", "--limit=1"]).await;
    assert!(text.contains("bob") && !text.contains("alice"), "{text}");
    assert!(remarks.contains("older events"), "{remarks}");
    assert_eq!(cluster.audit(&["search", "--from=2026"]).await.0, 2);
}

#[tokio::test]
async fn a_sound_log_verifies_and_its_heads_are_remembered() {
    let cluster = Cluster::new();
    cluster.fake.state().records = records();
    let heads = cluster.file("heads.json");
    let remember = format!("--heads={}", heads.display());
    let (code, text, _) = cluster.audit(&["verify", &remember]).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches("sound").count(), 2, "{text}");

    // Its end is cut off: sound in itself, and seen by who remembers.
    cluster.fake.state().records.pop();
    assert_eq!(cluster.audit(&["verify"]).await.0, 0);
    let before = std::fs::read_to_string(&heads).unwrap();
    let (code, text, errors) = cluster.audit(&["verify", &remember]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        errors.contains("host-1: record 4: the chain ends at 3"),
        "{errors}"
    );
    assert_eq!(std::fs::read_to_string(&heads).unwrap(), before);
    let only = ["verify", &remember, "--source=auth-1"];
    assert_eq!(cluster.audit(&only).await.0, 0);
}

#[tokio::test]
async fn what_was_changed_is_named_and_the_exit_code_is_1() {
    let cluster = Cluster::new();
    for (what, change) in [
        (
            "record 2:",
            (|records| records[1].event[0] ^= 1) as fn(&mut Vec<v1::AuditRecord>),
        ),
        ("record 3:", |records| drop(records.remove(1))),
        ("record 2:", |records| records.insert(2, records[1].clone())),
        ("record 3:", |records| records.swap(1, 2)),
        ("record 2:", |records| records[1].index_differs = true),
    ] {
        let mut changed = records();
        change(&mut changed);
        cluster.fake.state().records = changed;
        let (code, _, errors) = cluster.audit(&["verify"]).await;
        assert_eq!(code, 1);
        assert!(errors.contains(&format!("auth-1: {what}")), "{errors}");
        assert!(errors.contains("1 of 2 chains"), "{errors}");
    }
}

#[tokio::test]
async fn an_export_verifies_without_the_cluster_until_somebody_edits_it() {
    let cluster = Cluster::new();
    cluster.fake.state().records = records();
    let file = cluster.file("audit.jsonl");
    let path = file.to_str().unwrap();
    let (code, _, remarks) = cluster.audit(&["export", "-o", path]).await;
    assert_eq!(code, 0, "{remarks}");
    assert!(remarks.starts_with("Wrote 8 events"), "{remarks}");
    let piped = cluster.audit(&["export", "-o", "-"]).await.1;
    assert_eq!(piped, std::fs::read_to_string(&file).unwrap());
    let (code, text, errors) = cluster.audit(&["verify", "-f", path]).await;
    assert_eq!((code, errors.as_str()), (0, ""), "{text}");

    let lines: Vec<&str> = piped.lines().collect();
    let edited = |lines: Vec<String>| std::fs::write(&file, lines.join("\n")).unwrap();
    let owned = || {
        lines
            .iter()
            .map(|line| (*line).to_owned())
            .collect::<Vec<_>>()
    };
    for (what, change) in [
        (
            "a field",
            (|lines| lines[1] = lines[1].replace("alice", "bobby")) as fn(&mut Vec<String>),
        ),
        ("a hash", |lines| {
            lines[1] = lines[1].replacen("\"hash\":\"", "\"hash\":\"0", 1)
        }),
        ("a removed line", |lines| drop(lines.remove(2))),
        ("swapped lines", |lines| lines.swap(1, 2)),
        ("a line of nothing", |lines| lines.insert(1, "x".to_owned())),
    ] {
        let mut changed = owned();
        change(&mut changed);
        edited(changed);
        assert_eq!(cluster.audit(&["verify", "-f", path]).await.0, 1, "{what}");
    }
    // An export that was interrupted repeats its last lines, and may be in two files.
    let mut repeated = owned();
    repeated.insert(2, repeated[1].clone());
    edited(repeated[..5].to_vec());
    let second = cluster.file("second.jsonl");
    std::fs::write(&second, lines[3..].join("\n")).unwrap();
    let both = ["verify", "-f", path, "-f", second.to_str().unwrap()];
    let (code, text, errors) = cluster.audit(&both).await;
    assert_eq!(code, 0, "{text} {errors}");
}
