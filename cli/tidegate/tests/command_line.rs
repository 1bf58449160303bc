//! What the program answers to command lines and files, before it touches anything.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .output()
        .expect("the program was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("tidegate.yaml");
    std::fs::write(&path, text).expect("a temporary folder can be written");
    path
}

#[test]
fn a_sound_file_is_ok_and_warns_with_line_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        folder.path(),
        "auth_service:\n  cluster_name: c.example.com\nssh_service:\n  enabled: yes\n",
    );
    let output = tidegate(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("{}: ok\n", path.display()));
    assert_eq!(
        text(&output.stderr),
        format!(
            "{}:4: warning: ssh_service: ignored: Tidegate has no such service\n",
            path.display()
        )
    );
}

#[test]
fn a_fragment_is_ok_to_check_and_not_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let path = file(
        folder.path(),
        &format!(
            "tidegate: {{data_dir: {}}}\ndb_service:\n  enabled: yes\n",
            data_dir.display()
        ),
    );
    let path = path.to_str().unwrap();
    let checked = tidegate(&["config", "check", path]);
    assert_eq!(checked.status.code(), Some(0));
    assert!(
        text(&checked.stderr).contains("warning: no way to the auth service"),
        "{checked:?}"
    );
    let started = tidegate(&["start", "-c", path]);
    assert_eq!(started.status.code(), Some(1));
    assert!(
        text(&started.stderr).contains("no way to the auth service"),
        "{started:?}"
    );
    assert!(!data_dir.exists());
}

#[test]
fn an_entry_that_an_earlier_one_leaves_nothing_to_decide_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        folder.path(),
        "\
tidegate: {proxy_server: p.example.com}
db_service:
  enabled: yes
  resources:
    - labels: {'*': '*'}
      aws: {assume_role_arn: 'arn:aws:iam::111111111111:role/any'}
    - labels: {env: prod}
      aws: {assume_role_arn: 'arn:aws:iam::111111111111:role/prod'}
",
    );
    let output = tidegate(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stderr),
        format!(
            "{}:7: warning: db_service.resources[1]: never decides: the entry on line 5 matches everything that this one does, comes first and names a role; put the narrower entry first\n",
            path.display()
        )
    );
}

#[test]
fn every_mistake_in_a_file_is_told_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let path = file(
        folder.path(),
        &format!(
            "tidegate:\n  data_dir: {}\n  nodname: x\nproxy_service:\n  listen_addr: []\n",
            data_dir.display()
        ),
    );
    let path = path.to_str().unwrap();
    for arguments in [["config", "check", path], ["start", "-c", path]] {
        let output = tidegate(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            text(&output.stderr),
            format!(
                "{path}:3:3: tidegate.nodname: unknown key, did you mean `nodename`?\n{path}:5:16: proxy_service.listen_addr: is a list, expected text\n"
            )
        );
    }
    assert!(!data_dir.exists());
}

#[test]
fn a_file_that_is_not_there_and_a_wrong_command_line_exit_with_1() {
    let output = tidegate(&["start", "-c", "/nonexistent/tidegate.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "cannot read the configuration /nonexistent/tidegate.yaml: No such file or directory (os error 2)\n"
    );
    assert_eq!(tidegate(&["strat"]).status.code(), Some(1));
    assert_eq!(tidegate(&[]).status.code(), Some(1));
}

#[test]
fn help_and_version_are_answers() {
    let help = tidegate(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("tidegate start -c /etc/tidegate.yaml"));
    let version = tidegate(&["version"]);
    assert!(text(&version.stdout).starts_with("tidegate 0."));
}
