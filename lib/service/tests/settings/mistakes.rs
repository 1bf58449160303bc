//! Unknown keys, wrong types, broken YAML.

use tidegate_service::settings;

use crate::{errors, good, parse};

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known() {
    let text = "discovery_service:\n  enabled: yes\n  discovery_group: g\n  aws:\n    - types: [redshift]\n      region: [us-east-1]\n";
    assert_eq!(
        errors(text),
        [
            "tidegate.yaml:5:7: discovery_service.aws[0].regions: is required",
            "tidegate.yaml:6:7: discovery_service.aws[0].region: unknown key, did you mean `regions`?",
        ]
    );
    assert_eq!(
        errors("db_sevice:\n  enabled: yes\n"),
        ["tidegate.yaml:1:1: db_sevice: unknown key, did you mean `db_service`?"]
    );
    assert_eq!(errors("xyz: 1\n"), ["tidegate.yaml:1:1: xyz: unknown key"]);
}

#[test]
fn everything_wrong_is_told_at_once_and_within_bounds() {
    let text = "tidegate:\n  data_dri: /x\n  log:\n    severity: loud\nproxy_service:\n  listen_addr: example.com:x\n";
    let told = errors(text);
    assert_eq!(told.len(), 3, "{told:?}");
    let many: String = (0..100).map(|n| format!("key{n}: 1\n")).collect();
    let told = errors(&many);
    assert_eq!(told.len(), settings::PROBLEMS_MAX + 1);
    assert_eq!(told.last().unwrap(), "and 80 more");
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    for (text, told) in [
        (
            "tidegate: x\n",
            "1:11: tidegate: is a single value, expected a mapping",
        ),
        (
            "tidegate: [x]\n",
            "1:11: tidegate: is a list, expected a mapping",
        ),
        (
            "tidegate:\n  nodename: {a: b}\n",
            "2:13: tidegate.nodename: is a mapping, expected text",
        ),
        (
            "discovery_service:\n  enabled: maybe\n",
            "2:12: discovery_service.enabled: `maybe` is neither yes nor no, expected `yes` or `no`",
        ),
        ("- a\n", "1:1: is a list, expected a mapping"),
        ("", "1:1: holds no settings"),
        ("# nothing\n", "1:1: holds no settings"),
        (
            "version: v9\n",
            "1:10: version: unknown value `v9`, expected `v1`, `v2` or `v3`, did you mean `v1`?",
        ),
    ] {
        assert_eq!(errors(text), [format!("tidegate.yaml:{told}")], "{text}");
    }
}

#[test]
fn what_is_not_yaml_is_told_by_line_and_column() {
    let told = errors("tidegate:\n  nodename: \"a\n");
    assert!(
        told[0].starts_with("tidegate.yaml:3:1: not valid YAML: "),
        "{told:?}"
    );
    let told = errors("tidegate:\n  nodename: a\n  nodename: b\n");
    assert_eq!(told, ["tidegate.yaml:3:3: key `nodename` is given twice"]);
    assert!(errors("a: 1\n---\nb: 1\n")[0].contains("more than one document"));
}

#[test]
fn secrets_are_never_told() {
    let texts = [
        "tidegate:\n  auth_token: [hunter2]\n",
        "tidegate:\n  auth_token: hunter2\n  join_params: {token_name: hunter2, method: iam}\n",
        "auth_service:\n  tokens: ['hunter2']\n",
        "auth_service:\n  tokens: ['db;x:hunter2']\n",
        "auth_service:\n  tokens: [{db: hunter2}]\n",
        "auth_service:\n  tokens: ['hunter2:hunter2']\n",
    ];
    for text in texts {
        let error = parse(text).unwrap_err();
        assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
    }
    let settings = good(
        "tidegate: {auth_token: hunter2}\nauth_service: {cluster_name: c, tokens: ['db:hunter2']}\n",
    );
    assert!(!format!("{settings:?}").contains("hunter2"));
}
