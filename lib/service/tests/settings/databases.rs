//! Databases written in files and as resources.

use std::path::Path;

use tidegate_core::{DatabaseKind, TlsMode};
use tidegate_service::settings;

use crate::{errors, good};

/// A static database with lines put in.
fn database(lines: &str) -> String {
    format!(
        "db_service:\n  enabled: yes\n  databases:\n    - {}\n",
        lines.replace('\n', "\n      ")
    )
}

#[test]
fn a_static_redshift_cluster_is_known_by_its_endpoint() {
    let text = database(
        "name: dw\nprotocol: postgres\nuri: c0.abc.us-west-2.redshift.amazonaws.com\nstatic_labels: {env: prod, n: 1}\naws:\n  assume_role_arn: arn:aws:iam::012345678901:role/x\n  external_id: abc\ntls: {mode: verify-ca, server_name: x.example.com}",
    );
    let database = good(&text).database.unwrap().databases.remove(0);
    assert_eq!(
        database.uri.to_string(),
        "c0.abc.us-west-2.redshift.amazonaws.com:5439"
    );
    assert_eq!(database.kind, Some(DatabaseKind::Redshift));
    assert_eq!(database.aws.redshift_cluster_id.as_deref(), Some("c0"));
    assert_eq!(database.aws.region.unwrap().as_str(), "us-west-2");
    assert_eq!(database.aws.account_id.unwrap().as_str(), "012345678901");
    assert_eq!(
        database
            .aws
            .assume_role
            .unwrap()
            .external_id
            .unwrap()
            .as_str(),
        "abc"
    );
    assert_eq!(database.tls.mode, TlsMode::VerifyCa);
    assert_eq!(database.labels.get("n"), Some("1"));
    assert_eq!(database.labels.get("tidegate.dev/origin"), Some("config"));
}

#[test]
fn session_tags_are_read_as_they_are_from_files_and_resources() {
    let tags = "aws: {session_tags: {team: data, cost-center: \"0471\", by: \"{user}\"}}";
    let written = database(&format!("name: dw\nprotocol: postgres\nuri: h:1\n{tags}"));
    let of_file = good(&written).database.unwrap().databases.remove(0);
    let resource = format!(
        "kind: db\nversion: v3\nmetadata: {{name: dw}}\nspec:\n  protocol: postgres\n  uri: h:1\n  {tags}\n"
    );
    let mut read = settings::resource::parse_resources(&resource).unwrap();
    let Some(settings::resource::Resource::Database(of_resource)) = read.pop() else {
        panic!("a database");
    };
    for database in [of_file, *of_resource] {
        let tags = database.aws.session_tags;
        let tags: Vec<_> = tags.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            tags,
            [("by", "{user}"), ("cost-center", "0471"), ("team", "data")]
        );
    }
}

#[test]
fn impossible_static_databases_are_refused() {
    let base = "name: dw\nprotocol: postgres\nuri: h.example.com:1";
    for (lines, told) in [
        (
            base.replace("dw", "1dw"),
            "databases[0].name: `1dw` is not a valid database name",
        ),
        (
            base.replace("postgres", "postgers"),
            "did you mean `postgres`?",
        ),
        (
            base.replace(":1", ""),
            "`h.example.com` is not the address of a database, expected `host:port`",
        ),
        (
            base.replace("h.example.com:1", "x.redshift.amazonaws.com"),
            "is not an endpoint of Amazon Redshift",
        ),
        (
            format!("{base}\ntls: {{mode: verify_full}}"),
            "did you mean `verify-full`?",
        ),
        (
            format!("{base}\ntls: {{ca_cert_file: /nonexistent.pem}}"),
            "databases[0].tls.ca_cert_file: cannot read /nonexistent.pem",
        ),
        (
            format!("{base}\nca_cert_file: /proc/self/cmdline"),
            "holds no PEM certificates",
        ),
        (
            format!("{base}\naws: {{account_id: 123}}"),
            "account_id: `123` is not a valid AWS account id, expected 12 digits",
        ),
        (
            format!("{base}\naws: {{external_id: abc}}"),
            "external_id: is given without a role",
        ),
        (
            format!("{base}\naws: {{session_tags: {{aws:owner: x}}}}"),
            "`aws:owner` is not a key that AWS takes for a session tag",
        ),
        (
            format!("{base}\nstatic_labels: {{teleport.dev/origin: cloud}}"),
            "only Tidegate sets labels such as",
        ),
        (
            format!("{base}\nstatic_labels: {{'a b': c}}"),
            "`a b` is not a label key",
        ),
        (
            format!("{base}\ndynamic_labels: [{{name: a}}]"),
            "dynamic_labels[0].command: is required",
        ),
        (
            "protocol: postgres\nuri: h:1".to_owned(),
            "databases[0].name: is required",
        ),
    ] {
        let found = errors(&database(&lines));
        assert!(
            found.len() == 1 && found[0].contains(told),
            "{found:?}: {told}"
        );
    }
    let twice = format!(
        "{}{}",
        database(base),
        "    - {name: dw, protocol: mysql, uri: 'h:2'}\n"
    );
    assert_eq!(
        errors(&twice),
        [
            "tidegate.yaml:7:14: db_service.databases[1].name: database `dw` is already defined on line 4"
        ]
    );
}

#[test]
fn resources_are_read_from_documents_lists_and_json() {
    let one = |name: &str| {
        format!(
            "{{\"kind\": \"db\", \"version\": \"v3\", \"metadata\": {{\"name\": \"{name}\", \"labels\": {{\"tidegate.dev/origin\": \"dynamic\"}}}}, \"spec\": {{\"protocol\": \"postgres\", \"uri\": \"h:1\"}}, \"status\": {{}}}}"
        )
    };
    let text = format!("{}\n---\n[{}, {}]\n", one("a"), one("b"), one("c"));
    assert_eq!(settings::resource::parse_resources(&text).unwrap().len(), 3);
    let wrong = one("a").replace("\"db\"", "\"bd\"");
    let error = settings::resource::parse_resources(&wrong).unwrap_err();
    let told = error.in_file(Path::new("x.yaml")).to_string();
    assert_eq!(
        told,
        "x.yaml:1:10: kind: unknown value `bd`, expected `db` or `discovery_config`, did you mean `db`?"
    );
    let cloud = one("a").replace("dynamic", "cloud");
    assert!(settings::resource::parse_resources(&cloud).is_err());
    assert!(settings::resource::parse_resources("").unwrap().is_empty());
}

#[test]
fn what_a_database_is_called_in_aws_is_kept() {
    let read = |aws: &str| {
        let lines = format!("name: dw\nprotocol: postgres\nuri: h.example.com:1\naws: {aws}");
        let database = good(&database(&lines))
            .database
            .unwrap()
            .databases
            .remove(0);
        (database.aws, database.kind)
    };
    let (aws, kind) = read("{redshift_serverless: {workgroup_name: etl, endpoint_name: private}}");
    assert_eq!(aws.redshift_serverless_workgroup.as_deref(), Some("etl"));
    assert_eq!(aws.redshift_serverless_endpoint.as_deref(), Some("private"));
    assert_eq!(kind, Some(DatabaseKind::RedshiftServerless));
    let (aws, kind) = read(
        "{rds: {instance_id: o-1, cluster_id: o, resource_id: db-A, iam_auth: true, vpc_id: v}}",
    );
    assert_eq!(aws.rds_instance_id.as_deref(), Some("o-1"));
    assert_eq!(aws.rds_cluster_id.as_deref(), Some("o"));
    assert_eq!(aws.rds_resource_id.as_deref(), Some("db-A"));
    assert_eq!(aws.rds_iam_auth, Some(true));
    assert_eq!(kind, Some(DatabaseKind::Rds));
    let (aws, kind) = read("{rdsproxy: {name: px}}");
    assert_eq!(aws.rdsproxy_name.as_deref(), Some("px"));
    assert_eq!(kind, Some(DatabaseKind::Rdsproxy));
    let lines = "name: dw\nprotocol: postgres\nuri: h.example.com:1\naws: {rds: {iam_auth: maybe}}";
    assert_eq!(
        errors(&database(lines)),
        [
            "tidegate.yaml:7:29: db_service.databases[0].aws.rds.iam_auth: `maybe` is neither yes nor no, expected `yes` or `no`"
        ]
    );
}

#[test]
fn sessions_of_roles_are_named_by_a_template() {
    let text = |lines: &str| {
        format!(
            "db_service:\n  enabled: yes\n  resources:\n    - labels: {{\"*\": \"*\"}}\n{lines}"
        )
    };
    let naming = |lines: &str| good(&text(lines)).database.unwrap().aws_session;
    assert_eq!(naming("").name.to_string(), "{user}");
    let whole = naming(
        "  aws_session:\n    name: \"{db_user}\"\n    source_identity: \"{user}\"\n    tags: {team: data, who: \"{user}\"}\n",
    );
    assert_eq!(whole.name.to_string(), "{db_user}");
    assert_eq!(whole.source_identity.unwrap().to_string(), "{user}");
    assert_eq!(whole.tags["who"].to_string(), "{user}");
    for (lines, told) in [
        (
            "name: \"{nobody}\"",
            "`{nobody}` is not a valid template of a session's name",
        ),
        (
            "tags: {\"aws:x\": y}",
            "`aws:x` is not a key that AWS takes for a session tag",
        ),
        ("names: x", "unknown key, did you mean `name`?"),
    ] {
        let found = errors(&text(&format!("  aws_session:\n    {lines}\n")));
        assert!(
            found.len() == 1 && found[0].contains(told),
            "{lines}: {found:?}"
        );
    }
}

#[test]
fn every_field_of_tls_is_read() {
    let read = |tls: &str| {
        let lines = format!("name: dw\nprotocol: postgres\nuri: h:1\ntls: {tls}");
        good(&database(&lines)).database.unwrap().databases[0]
            .tls
            .clone()
    };
    assert_eq!(read("{}").mode, TlsMode::VerifyFull);
    assert_eq!(read("{mode: insecure}").mode, TlsMode::Insecure);
    assert!(read("{trust_system_cert_pool: yes}").trust_system_pool);
    assert!(!read("{mode: verify-ca}").trust_system_pool);
}

#[test]
fn commands_for_labels_are_read_with_their_period() {
    let lines = "name: dw\nprotocol: postgres\nuri: h:1\nstatic_labels: {env: prod}\ndynamic_labels:\n  - {name: load, command: [/usr/bin/load, --short, 15], period: 1m30s}\n  - {name: zone, command: /usr/bin/zone}";
    let settings = good(&database(lines)).database.unwrap();
    let commands = &settings.label_commands[&"dw".parse().unwrap()];
    assert_eq!(
        commands[0].command,
        ["/usr/bin/load", "--short", "15"],
        "words stay as they are written"
    );
    assert_eq!(
        (commands[0].label.as_str(), commands[0].period.as_secs()),
        ("load", 90)
    );
    assert_eq!(commands[1].command, ["/usr/bin/zone"]);
    assert_eq!(commands[1].period.as_secs(), 60);
}

#[test]
fn commands_for_labels_that_cannot_be_are_refused() {
    let base = "name: dw\nprotocol: postgres\nuri: h:1\ndynamic_labels: ";
    for (dynamic, told) in [
        ("[{name: a, command: []}]", "command: is empty"),
        ("[{name: a, command: [' ']}]", "names no program"),
        (
            "[{name: a, command: x, period: 10ms}]",
            "period: `10ms` is out of range",
        ),
        ("[{name: 'a b', command: x}]", "is not a label key"),
        (
            "[{name: teleport.dev/origin, command: x}]",
            "only Tidegate sets labels such as",
        ),
        (
            "[{name: a, command: x}, {name: a, command: y}]",
            "dynamic_labels[1]: label `a` already has a command",
        ),
    ] {
        let found = errors(&database(&format!("{base}{dynamic}")));
        assert!(
            found.len() == 1 && found[0].contains(told),
            "{found:?}: {told}"
        );
    }
    let many = vec!["{name: a, command: x}"; 33].join(", ");
    let found = errors(&database(&format!("{base}[{many}]")));
    assert!(found[0].contains("more than 32 commands"), "{found:?}");
}

#[test]
fn a_resource_may_not_bring_commands_to_agents() {
    let text = "{kind: db, version: v3, metadata: {name: a}, spec: {protocol: postgres, uri: 'h:1', dynamic_labels: {a: {command: [x]}}}}";
    let told = settings::resource::parse_resources(text)
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("commands run on the hosts of agents")
            && told.contains("db_service.databases"),
        "{told}"
    );
}

#[test]
fn what_has_no_effect_is_said_and_never_passed_over() {
    let lines = "name: dw\nprotocol: mysql\nuri: h:1\nadmin_user: {name: admin, default_database: a}\nmysql: {server_version: 8.0.28}\naws: {region: us-east-1, rds: {instance_id: i, vpc_id: v}, redshift: {cluster_id: c}}";
    let warnings = crate::warnings(&database(lines));
    for told in [
        "admin_user: ignored: AWS makes the users",
        "mysql.server_version: ignored",
        "aws.rds.vpc_id: ignored",
        "aws: names several kinds of database: it counts as `redshift`",
    ] {
        assert!(
            warnings.iter().any(|(_, warning)| warning.contains(told)),
            "{told}: {warnings:?}"
        );
    }
}

#[test]
fn an_external_id_may_stand_alone_where_roles_are_users() {
    let text = database(
        "name: wg\nprotocol: postgres\nuri: wg.corp.example:5439\naws:\n  region: us-east-1\n  external_id: abc-1\n  redshift_serverless: {workgroup_name: wg}",
    );
    let aws = good(&text).database.unwrap().databases.remove(0).aws;
    assert_eq!(aws.assume_role, None);
    assert_eq!(aws.external_id.unwrap().as_str(), "abc-1");
}

#[test]
fn roles_stay_in_audited_statements_unless_the_file_says_otherwise() {
    let read = |audit: &str| {
        let text =
            format!("db_service:\n  enabled: yes\n  resources:\n  - labels: {{'*': '*'}}\n{audit}");
        good(&text).database.unwrap().redact_iam_roles
    };
    assert!(!read(""));
    assert!(read("  audit:\n    redact_iam_roles: yes\n"));
}
