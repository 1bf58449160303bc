use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: StartArgs,
}

fn read(flags: &[&str]) -> anyhow::Result<Settings> {
    let line = Line::try_parse_from([&["start"], flags].concat())?;
    start_settings(&line.args)
}

/// What every agent needs.
const AGENT: [&str; 5] = [
    "--proxy=p.example.com",
    "--token=a-secret-of-enough-length",
    "--name=orders",
    "--protocol=postgres",
    "--uri=orders.abc123.us-east-1.redshift.amazonaws.com:5439",
];

fn with(more: &[&'static str]) -> anyhow::Result<Settings> {
    read(&[&AGENT[..], more].concat())
}

#[test]
fn flags_and_a_file_that_says_the_same_give_the_same_settings() {
    let flags = with(&[
        "--nodename=n",
        "--data-dir=/d",
        "--diag-addr=127.0.0.1:3000",
        "--description=it's \"quoted\": # and no comment",
        "--labels=env=prod,yes=no",
        "--aws-account-id=012345678901",
        "--aws-assume-role-arn=arn:aws:iam::012345678901:role/agent",
        "--aws-external-id=x-1",
    ])
    .unwrap();
    let file = "\
tidegate:
  nodename: n
  data_dir: /d
  proxy_server: p.example.com
  auth_token: a-secret-of-enough-length
  diag_addr: 127.0.0.1:3000
db_service:
  enabled: yes
  databases:
    - name: orders
      description: 'it''s \"quoted\": # and no comment'
      protocol: postgres
      uri: orders.abc123.us-east-1.redshift.amazonaws.com:5439
      static_labels: {env: prod, 'yes': 'no'}
      aws:
        account_id: '012345678901'
        assume_role_arn: arn:aws:iam::012345678901:role/agent
        external_id: x-1
";
    let file = settings::parse(file, Path::new(flags::PLACE)).unwrap();
    assert_eq!(format!("{flags:?}"), format!("{file:?}"));
}

#[test]
fn every_flag_that_is_wrong_is_named_at_once_and_files_are_not_spoken_of() {
    let error = read(&[
        "--proxy=p.example.com:x",
        "--name=bad name",
        "--protocol=postgras",
        "--uri=nowhere",
        "--ca-pin=sha256:1",
        "--diag-addr=everywhere",
        "--aws-region=moon",
        "--aws-account-id=1",
        "--labels=env=prod,tidegate.dev/origin=x",
    ])
    .unwrap_err()
    .to_string();
    let told: Vec<&str> = error
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    for flag in [
        "--proxy",
        "--name",
        "--protocol",
        "--uri",
        "--ca-pin",
        "--diag-addr",
        "--aws-region",
        "--aws-account-id",
        "--labels",
    ] {
        assert!(told.contains(&flag), "{flag} in:\n{error}");
    }
    assert!(error.contains("did you mean `postgres`?"), "{error}");
    assert!(!error.contains("db_service"), "{error}");
}

#[test]
fn what_keeps_an_agent_from_starting_is_told_of_the_flag_too() {
    let error = with(&["--ca-pin=/nonexistent/pin"])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("--ca-pin: cannot read /nonexistent/pin"),
        "{error}"
    );
    let alone = ["--name=a", "--protocol=postgres", "--uri=h:1"];
    let error = read(&alone).unwrap_err().to_string();
    assert!(error.contains("no way to the auth service"), "{error}");
}

#[test]
fn a_value_is_never_anything_but_a_value() {
    let settings = with(&["--description=x\n  databases: []\nproxy_service: {}"]);
    if let Ok(settings) = settings {
        assert!(settings.proxy.is_none());
        assert_eq!(settings.database.unwrap().databases.len(), 1);
    }
}

#[test]
fn a_database_needs_name_protocol_and_address_unless_a_file_says_them() {
    let error = read(&["--proxy=p"]).unwrap_err().to_string();
    for flag in ["--name", "--protocol", "--uri"] {
        assert!(error.contains(flag), "{error}");
    }
    let error = read(&["-c", "/etc/t.yaml", "--name=x"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot be used with"), "{error}");
    assert!(
        read(&["-c", "/nonexistent.yaml"])
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
}

#[test]
fn a_file_without_a_database_service_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    std::fs::write(&path, "auth_service: {cluster_name: c.example.com}\n").unwrap();
    let error = read(&["-c", path.to_str().unwrap()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("enables no `db_service`"), "{error}");
}

#[test]
fn labels_from_commands_go_the_way_of_the_file() {
    let error = with(&["--labels=rate=[soon:cmd -x]"])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("--labels: ") && error.contains("soon"),
        "{error}"
    );
    assert!(with(&["--labels=env=prod,rate=[5s:cmd -x]"]).is_ok());
}
