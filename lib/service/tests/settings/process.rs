//! The process, its services, and what it needs to start.

use std::path::Path;

use secrecy::ExposeSecret as _;
use tidegate_service::settings::{LogFormat, LogOutput, StorageSettings};

use crate::{blockers, errors, good, warnings};

const PIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn yes_no_and_their_kin_switch_services() {
    for (flag, on) in [
        ("yes", true),
        ("\"yes\"", true),
        ("true", true),
        ("on", true),
        ("no", false),
        ("'no'", false),
        ("off", false),
        ("false", false),
    ] {
        let text = format!("db_service:\n  enabled: {flag}\n");
        assert_eq!(good(&text).database.is_some(), on, "{flag}");
    }
    assert!(good("proxy_service: {listen_addr: ':1'}").proxy.is_some());
    let silent = "db_service: {resources: [{labels: {a: b}}]}";
    assert!(good(silent).database.is_none());
    assert!(warnings(silent)[0].1.contains("does not run"));
}

#[test]
fn what_is_wrong_in_a_section_that_is_off_is_a_warning() {
    let text = "discovery_service:\n  enabled: no\n  arws: []\n";
    let told = warnings(text);
    assert!(
        told.iter()
            .any(|(line, told)| *line == 3 && told.contains("discovery_service.arws: unknown key")),
        "{told:?}"
    );
}

#[test]
fn sections_that_are_not_served_warn_once_each() {
    let text = "ssh_service:\n  enabled: yes\n  port: 22\napp_service:\n  enabled: no\nkubernetes_service:\n  x: [1]\n";
    assert_eq!(
        warnings(text),
        [
            (
                2,
                "ssh_service: ignored: Tidegate has no such service".to_owned()
            ),
            (
                7,
                "kubernetes_service: ignored: Tidegate has no such service".to_owned()
            ),
        ]
    );
}

#[test]
fn teleport_s_other_settings_warn_and_load() {
    let text = "teleport:\n  pid_file: /run/x\n  cache: {enabled: yes}\n  connection_limits: {max_users: 5}\nauth_service:\n  enabled: yes\n  cluster_name: c.example.com\n  authentication: {type: local, locking_mode: best_effort}\n";
    assert_eq!(warnings(text).len(), 4);
    let both = "teleport: {}\ntidegate: {}\n";
    assert!(errors(both)[0].contains("teleport: is the same section as `tidegate`"));
}

#[test]
fn the_process_section_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (token, pin) = (folder.path().join("token"), folder.path().join("pin"));
    std::fs::write(&token, "secret-token\n").unwrap();
    std::fs::write(&pin, format!("{PIN}\n{PIN}\n")).unwrap();
    let text = format!(
        "tidegate:\n  nodename: n1\n  data_dir: /d\n  auth_servers: [a.example.com, '10.0.0.1:99', '[::1]:7']\n  proxy_server: https://p.example.com\n  join_params: {{method: token, token_name: {}}}\n  ca_pin: [{}, '{PIN}']\n  log: {{severity: DEBUG, output: stdout, format: {{output: json}}}}\n  diag_addr: localhost\nproxy_service: {{enabled: yes, web_listen_addr: '0.0.0.0:443', public_addr: [t.example.com, u.example.com]}}\n",
        token.display(),
        pin.display()
    );
    let settings = good(&text);
    let process = &settings.process;
    assert_eq!(
        process.auth_servers,
        ["a.example.com:3025", "10.0.0.1:99", "[::1]:7"]
    );
    assert_eq!(process.proxy_server.as_deref(), Some("p.example.com:443"));
    assert_eq!(
        process.join.token.as_ref().unwrap().expose_secret(),
        "secret-token"
    );
    assert_eq!(process.join.ca_pins.len(), 3);
    assert_eq!(
        (process.log.filter.as_str(), process.log.format),
        ("debug", LogFormat::Json)
    );
    assert_eq!(process.log.output, LogOutput::Stdout);
    assert_eq!(process.diag_addr.unwrap().to_string(), "127.0.0.1:3000");
    let proxy = settings.proxy.as_ref().unwrap();
    assert_eq!(
        (proxy.listen_addr.port(), proxy.public_addr.as_str()),
        (443, "t.example.com:443")
    );
    settings.check_startable().unwrap();
}

#[test]
fn a_token_file_that_is_gone_is_no_error() {
    let text = "tidegate:\n  auth_token: /nonexistent/token\n";
    assert!(
        warnings(text)[0]
            .1
            .contains("cannot read the join token from /nonexistent/token")
    );
    assert!(good(text).process.join.token.is_none());
}

#[test]
fn a_pin_that_cannot_be_read_keeps_the_process_from_starting() {
    let text = "tidegate:\n  auth_server: a\n  ca_pin: /nonexistent/pin\nproxy_service: {}\n";
    assert!(
        blockers(text)
            .starts_with("tidegate.yaml:3:11: tidegate.ca_pin: cannot read /nonexistent/pin")
    );
    assert!(errors("tidegate:\n  ca_pin: sha256:12\n")[0].contains("`sha256:12` is not a CA pin"));
}

#[test]
fn a_process_without_services_or_without_auth_does_not_start() {
    assert!(blockers("tidegate: {nodename: a}").contains("no service is enabled"));
    assert!(blockers("proxy_service: {}").contains("give `auth_server` under `tidegate`"));
    good("auth_service: {cluster_name: a}\nproxy_service: {}\n")
        .check_startable()
        .unwrap();
}

#[test]
fn the_auth_section_is_read() {
    let settings = good(
        "tidegate: {data_dir: /d, storage: {type: dir, path: /s}}\nauth_service:\n  cluster_name: c.example.com\n  listen_addr: '[::]:1'\n  tokens: ['db,discovery:secret', 'proxy:other']\n",
    );
    let auth = settings.auth.unwrap();
    assert_eq!(auth.cluster_name.as_str(), "c.example.com");
    assert!(matches!(auth.storage, StorageSettings::Sqlite { dir } if dir == Path::new("/s")));
    assert_eq!(auth.audit_dir, Path::new("/s"));
    assert_eq!(auth.static_tokens[0].types, ["db", "discovery"]);
    let auth = good("tidegate: {nodename: n1}\nauth_service: {enabled: yes}\n")
        .auth
        .unwrap();
    assert_eq!(auth.cluster_name.as_str(), "n1");
    assert!(matches!(auth.storage, StorageSettings::Sqlite { dir } if dir.ends_with("backend")));
    assert!(
        errors("tidegate: {nodename: 'a b'}\nauth_service: {}\n")[0].contains("`cluster_name`")
    );
}

#[test]
fn how_a_process_ends_can_be_set() {
    let process = good(
        "tidegate: {shutdown_delay: 10s, drain_timeout: 5m, zone: eu-west-1a}\nproxy_service: {handover_timeout: 2h}",
    );
    let proxy = process.proxy.unwrap();
    let process = process.process;
    assert_eq!(process.shutdown_delay.as_secs(), 10);
    assert_eq!(process.drain_timeout.as_secs(), 300);
    assert_eq!((&*process.zone, &*proxy.zone), ("eu-west-1a", "eu-west-1a"));
    assert_eq!(proxy.handover_timeout.as_secs(), 7200);
    let plain = good("proxy_service: {}");
    assert_eq!(plain.process.shutdown_delay.as_secs(), 0);
    assert_eq!(plain.process.drain_timeout.as_secs(), 30);
    assert_eq!(plain.proxy.unwrap().handover_timeout.as_secs(), 3600);
    assert!(errors("tidegate: {zone: 'a b'}")[0].contains("no name of a zone"));
}

#[test]
fn headers_of_balancers_are_believed_only_from_networks_that_are_named() {
    let proxy = |text: &str| good(&format!("proxy_service: {text}")).proxy.unwrap();
    assert!(proxy("{}").balancers.is_empty());
    assert!(proxy("{proxy_protocol: off}").balancers.is_empty());
    let on = proxy("{proxy_protocol: on, proxy_protocol_from: [10.0.0.0/8, 192.0.2.7]}");
    assert!(on.balancers[0].contains("10.2.3.4".parse().unwrap()));
    assert!(on.balancers[1].contains("192.0.2.7".parse().unwrap()));
    let wrong = |text: &str| errors(&format!("proxy_service: {text}")).join(" ");
    assert!(wrong("{proxy_protocol: on}").contains("`proxy_protocol_from` beside it"));
    assert!(wrong("{proxy_protocol_from: 10.0.0.0/8}").contains("`proxy_protocol: on`"));
    assert!(
        wrong("{proxy_protocol: on, proxy_protocol_from: 10.0.0.0/99}").contains("is no network")
    );
}

#[test]
fn limits_of_a_proxy_can_be_set_one_by_one() {
    let limits = good("proxy_service: {limits: {sessions_per_source: 10}}")
        .proxy
        .unwrap()
        .limits;
    assert_eq!(limits.sessions_per_source, 10);
    assert_eq!(limits.sessions_per_route, 4096);
    assert!(
        errors("proxy_service: {limits: {sessions_per_route: 0}}")[0].contains("from 1 to 16384")
    );
    assert!(errors("proxy_service: {limits: {sessions: 1}}")[0].contains("unknown key"));
}
