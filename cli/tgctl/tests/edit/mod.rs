//! `tgctl edit`, with editors that are scripts.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tidegate_proto::v1;
use tokio::process::{Child, Command};

use super::Cluster;

/// Starts an edit with an editor that runs this script; `$1` is the file.
fn start(cluster: &Cluster, reference: &str, script: &str) -> Child {
    let editor = cluster.dir.path().join("editor");
    fs::write(&editor, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o700)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_tgctl"))
        .arg("--data-dir")
        .arg(cluster.dir.path())
        .args(["edit", reference])
        .env("TIDEGATE_HOME", cluster.dir.path().join("home"))
        .env("TMPDIR", cluster.dir.path())
        // With a word of its own, as `code --wait` has.
        .env("VISUAL", format!("{} --wait", editor.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn edit(cluster: &Cluster, reference: &str, script: &str) -> (bool, String, String) {
    told(
        start(cluster, reference, script)
            .wait_with_output()
            .await
            .unwrap(),
    )
}

fn told(output: Output) -> (bool, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The drafts that were left.
fn drafts(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_draft = |path: &PathBuf| path.to_string_lossy().contains("tgctl-edit-");
    all.filter(is_draft).collect()
}

fn cluster() -> Cluster {
    let cluster = Cluster::new();
    let alice = v1::User {
        name: "alice".to_owned(),
        roles: vec!["access".to_owned()],
        revision: 7,
        ..v1::User::default()
    };
    let mut state = cluster.fake.state();
    state.users.insert(alice.name.clone(), alice);
    drop(state);
    cluster
}

fn changed_by_another(cluster: &Cluster) {
    let mut state = cluster.fake.state();
    state.users.get_mut("alice").unwrap().revision += 1;
}

fn roles(cluster: &Cluster) -> Vec<String> {
    cluster.fake.state().users["alice"].roles.clone()
}

#[tokio::test]
async fn what_the_editor_writes_replaces_the_resource() {
    let cluster = cluster();
    let script = r#"[ "$1" = --wait ]; sed -i 's/- access/- editor/' "$2""#;
    let (done, said, errors) = edit(&cluster, "user/alice", script).await;
    assert!(done, "{errors}");
    assert_eq!(said, "user \"alice\" has been updated.\n");
    assert_eq!(roles(&cluster), ["editor"]);
    assert!(drafts(cluster.dir.path()).is_empty());
}

#[tokio::test]
async fn a_text_that_is_left_as_it_is_changes_nothing() {
    let cluster = cluster();
    let (done, said, _) = edit(&cluster, "role/access", "true").await;
    assert!(done);
    assert_eq!(said, "role \"access\" is left as it is.\n");
    assert!(drafts(cluster.dir.path()).is_empty());
}

#[tokio::test]
async fn a_mistake_is_told_with_its_place_and_the_text_is_kept() {
    let cluster = cluster();
    let script = r#"sed -i 's/  roles:/  rolls:/' "$2""#;
    let (done, said, errors) = edit(&cluster, "user/alice", script).await;
    assert!(!done);
    assert_eq!(said, "");
    assert!(errors.contains("user.yaml:7:3: "), "{errors}");
    let kept = drafts(cluster.dir.path());
    let file = kept[0].join("user.yaml");
    assert!(errors.contains(&file.display().to_string()), "{errors}");
    assert!(fs::read_to_string(file).unwrap().contains("rolls:"));
    assert_eq!(roles(&cluster), ["access"]);
}

#[tokio::test]
async fn name_and_kind_cannot_change() {
    let cluster = cluster();
    let script = r#"sed -i 's/name: alice/name: bob/' "$2""#;
    let (done, _, errors) = edit(&cluster, "user/alice", script).await;
    assert!(!done);
    assert!(errors.contains("kind and name cannot change"), "{errors}");
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_is_not_written_over() {
    let cluster = cluster();
    let go = cluster.dir.path().join("go");
    let script = format!(
        r#"sed -i 's/- access/- editor/' "$2"; : > {0}.ready; until [ -e {0} ]; do sleep 0.05; done"#,
        go.display()
    );
    let editing = start(&cluster, "user/alice", &script);
    let ready = cluster.dir.path().join("go.ready");
    while !ready.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    changed_by_another(&cluster);
    fs::write(go, "").unwrap();
    let (done, _, errors) = told(editing.wait_with_output().await.unwrap());
    assert!(!done);
    assert!(errors.contains("somebody else changed it"), "{errors}");
    assert_eq!(roles(&cluster), ["access"]);
    let kept = drafts(cluster.dir.path())[0].join("user.yaml");
    assert!(fs::read_to_string(kept).unwrap().contains("- editor"));
}

#[tokio::test]
async fn what_cannot_be_edited_says_so_before_any_editor_opens() {
    let cluster = cluster();
    for (reference, why) in [
        ("user/bob", "there is no user `bob`"),
        ("users-redshift", "no kind of resource"),
        ("db/users", "was not created with `tgctl create`"),
        ("db_server/x", "cannot be edited"),
        ("role", "which one"),
    ] {
        let (done, _, errors) = edit(&cluster, reference, ": > opened").await;
        assert!(!done && errors.contains(why), "{reference}: {errors}");
    }
    assert!(!Path::new("opened").exists());
}
