//! The program as administrators run it, against a control plane in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod backup;
mod discovery;
mod edit;
mod fake;
mod getting;

use std::{fs, process::Output};

use fake::Fake;
use tempfile::TempDir;
use tidegate_core::Role;
use tidegate_proto::v1;
use tokio::process::Command;

struct Cluster {
    fake: Fake,
    dir: TempDir,
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::default();
        {
            let mut state = fake.state();
            for (name, env) in [
                ("orders-redshift-us-east-1-111122223333", "prod"),
                ("orders-redshift-us-west-2-111122223333", "prod"),
                ("users-redshift-us-east-1-111122223333", "dev"),
            ] {
                state.databases.insert(name.to_owned(), database(name, env));
            }
            let prod = database("orders-redshift-us-east-1-111122223333", "prod");
            let dev = database("users-redshift-us-east-1-111122223333", "dev");
            state.servers = vec![
                server("ip-10-0-0-222", &prod),
                server("ip-10-0-0-111", &prod),
                server("ip-10-0-0-111", &dev),
            ];
            for role in Role::builtin() {
                state.roles.insert(role.name.clone(), role.into());
            }
        }
        fake.serve(dir.path());
        Self { fake, dir }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tgctl"))
            .arg("--data-dir")
            .arg(self.dir.path())
            .args(arguments)
            .env("TIDEGATE_HOME", self.dir.path().join("home"))
            .output()
            .await
            .unwrap()
    }

    /// Standard output of a command that succeeds and says nothing else.
    async fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert_eq!(errors, "", "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and standard error of a command that fails and prints no result.
    async fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments).await;
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

fn database(name: &str, env: &str) -> v1::Database {
    v1::Database {
        name: name.to_owned(),
        description: "Redshift cluster".to_owned(),
        labels: [
            ("env".to_owned(), env.to_owned()),
            ("tidegate.dev/origin".to_owned(), "cloud".to_owned()),
        ]
        .into(),
        origin: v1::Origin::Cloud.into(),
        protocol: "postgres".to_owned(),
        uri: "c.abc.redshift.amazonaws.com:5439".to_owned(),
        kind: "redshift".to_owned(),
        discovered_name: name.split('-').next().unwrap().to_owned(),
        revision: 3,
        ..v1::Database::default()
    }
}

fn server(hostname: &str, database: &v1::Database) -> v1::DatabaseServer {
    v1::DatabaseServer {
        host_id: format!("id-of-{hostname}"),
        hostname: hostname.to_owned(),
        version: "0.1.0".to_owned(),
        database: Some(database.clone()),
        effective_role: Some(v1::AssumeRole {
            role_arn: "arn:aws:iam::111122223333:role/access".to_owned(),
            external_id: String::new(),
        }),
        role_source: v1::RoleSource::Override.into(),
        target_health: Some(v1::TargetHealth {
            status: "healthy".to_owned(),
            ..v1::TargetHealth::default()
        }),
        revision: 4,
        ..v1::DatabaseServer::default()
    }
}

#[tokio::test]
async fn status_is_the_guides() {
    let cluster = Cluster::new();
    assert_eq!(
        cluster.prints(&["status"]).await,
        format!(
            "Cluster  tidegate.example.com\nVersion  0.1.0\nCA pin   sha256:{}\n",
            "ab".repeat(32)
        )
    );
    let json: serde_json::Value =
        serde_json::from_str(&cluster.prints(&["status", "--format=json"]).await).unwrap();
    assert_eq!(json["databases"], 3);
}

#[tokio::test]
async fn database_servers_are_listed_by_host_then_name() {
    let cluster = Cluster::new();
    assert_eq!(
        cluster.prints(&["db", "ls"]).await,
        "\
Host           Name                                    Protocol  URI                                Labels    Version
-------------  --------------------------------------  --------  ---------------------------------  --------  -------
ip-10-0-0-111  orders-redshift-us-east-1-111122223333  postgres  c.abc.redshift.amazonaws.com:5439  env=prod  0.1.0
ip-10-0-0-111  users-redshift-us-east-1-111122223333   postgres  c.abc.redshift.amazonaws.com:5439  env=dev   0.1.0
ip-10-0-0-222  orders-redshift-us-east-1-111122223333  postgres  c.abc.redshift.amazonaws.com:5439  env=prod  0.1.0
"
    );
    let dev = cluster.prints(&["db", "ls", "env=dev"]).await;
    assert_eq!(dev.lines().count(), 3, "{dev}");
    let found = cluster.prints(&["db", "ls", "--search=users", "-v"]).await;
    assert!(found.contains("role/access  override"), "{found}");
}

#[tokio::test]
async fn the_guides_question_about_health_is_answered() {
    let cluster = Cluster::new();
    let name = "db_server/orders-redshift-us-east-1-111122223333";
    let text = cluster.prints(&["get", name, "--format", "json"]).await;
    let servers: serde_json::Value = serde_json::from_str(&text).unwrap();
    let hosts: Vec<&str> = servers
        .as_array()
        .unwrap()
        .iter()
        .map(|server| server["spec"]["hostname"].as_str().unwrap())
        .collect();
    assert_eq!(hosts, ["ip-10-0-0-111", "ip-10-0-0-222"]);
    assert_eq!(servers[0]["status"]["target_health"]["status"], "healthy");
    assert_eq!(
        servers[0]["status"]["effective_role_arn"],
        "arn:aws:iam::111122223333:role/access"
    );
}

#[tokio::test]
async fn databases_are_found_by_undecorated_name_and_prefix_and_never_guessed() {
    let cluster = Cluster::new();
    let users = cluster.prints(&["get", "db/users"]).await;
    assert!(
        users.contains("  name: users-redshift-us-east-1-111122223333\n"),
        "{users}"
    );
    let west = cluster.prints(&["get", "db/orders-redshift-us-w"]).await;
    assert!(west.contains("us-west-2"), "{west}");
    let (code, errors) = cluster.fails(&["get", "db/orders"]).await;
    assert_eq!(code, 1);
    assert_eq!(
        errors,
        "\
ERROR: `orders` fits 2 databases
  hint: name one of them:
    orders-redshift-us-east-1-111122223333
    orders-redshift-us-west-2-111122223333
"
    );
}

#[tokio::test]
async fn a_listing_is_read_to_its_last_page() {
    let cluster = Cluster::new();
    let text = cluster.prints(&["get", "db", "--format=json"]).await;
    let databases: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(databases.as_array().unwrap().len(), 3);
    let yaml = cluster.prints(&["get", "db"]).await;
    assert_eq!(yaml.matches("kind: db\n").count(), 3);
    assert_eq!(yaml.matches("---\n").count(), 2);
}

#[tokio::test]
async fn a_new_user_comes_with_the_command_to_sign_up() {
    let cluster = Cluster::new();
    cluster.fake.state().proxies = vec![v1::Proxy {
        public_addr: "proxy.example.com:3080".to_owned(),
        ..v1::Proxy::default()
    }];
    let add = [
        "users",
        "add",
        "--roles=access,requester",
        "--db-users=*",
        "--db-names=*",
        "alice",
    ];
    let text = cluster.prints(&add).await;
    let command = format!(
        "\n    tg login --proxy=proxy.example.com:3080 --user=alice --ca-pin=sha256:{} \
         --token=0123456789abcdef0123456789abcdef\n",
        "ab".repeat(32)
    );
    assert!(text.ends_with(&command), "{text}");
    assert_eq!(
        cluster.prints(&["users", "ls"]).await,
        "\
User   Roles             DB Users  DB Names  Signed Up  MFA  Locked Out Until
-----  ----------------  --------  --------  ---------  ---  ----------------
alice  access,requester  *         *         no         0
"
    );
    assert_eq!(
        cluster.prints(&["users", "rm", "alice"]).await,
        "User \"alice\" has been removed, and all logins have ended.\n"
    );
    let (code, errors) = cluster.fails(&["users", "rm", "alice"]).await;
    assert_eq!(
        (code, errors.as_str()),
        (
            1,
            "ERROR: could not remove user `alice`: there is no user `alice`\n"
        )
    );
}

#[tokio::test]
async fn a_token_prints_alone_and_is_never_listed() {
    let cluster = Cluster::new();
    let add = [
        "tokens",
        "add",
        "--type=db,Discovery",
        "--ttl=2h",
        "--format=text",
    ];
    assert_eq!(cluster.prints(&add).await, "abcd123\n");
    assert_eq!(
        cluster.prints(&["tokens", "ls"]).await,
        "\
Token     Type          Method  Uses  Expiry Time (UTC)
--------  ------------  ------  ----  -----------------------
0a1b2c3d  Db,Discovery  token   0     1970-01-01 02:00:00 UTC
"
    );
    cluster
        .prints(&["tokens", "add", "--type=db", "--single-use"])
        .await;
    assert_eq!(cluster.fake.state().tokens["0a1b2c3d"].max_uses, 1);
    cluster.prints(&["tokens", "rm", "0a1b2c3d"]).await;
    assert!(cluster.fake.state().tokens.is_empty());
    let json = cluster
        .prints(&["tokens", "add", "--type=proxy", "--format=json"])
        .await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["token"], "abcd123");
    assert_eq!(json["types"][0], "proxy");
}

#[tokio::test]
async fn resources_are_created_from_a_file_and_replaced_only_on_demand() {
    let cluster = Cluster::new();
    let file = cluster.dir.path().join("resources.yaml");
    let text = "\
kind: db
version: v3
metadata: {name: pg, labels: {env: dev}}
spec: {protocol: postgres, uri: 'pg.internal:5432'}
---
kind: role
version: v7
metadata: {name: analyst}
spec: {allow: {db_labels: {env: dev}, db_users: [reader], db_names: ['*']}}
";
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        cluster.prints(&["create", file]).await,
        "Database \"pg\" has been created.\nRole \"analyst\" has been created.\n"
    );
    assert_eq!(
        cluster.fake.state().roles["analyst"]
            .allow
            .as_ref()
            .unwrap()
            .db_users,
        ["reader"]
    );
    let (code, errors) = cluster.fails(&["create", file]).await;
    assert_eq!(code, 1);
    assert!(
        errors.contains("already\n  hint: `tgctl create -f"),
        "{errors}"
    );
    cluster.prints(&["create", "-f", file]).await;
    cluster.prints(&["rm", "db/pg"]).await;
    assert!(!cluster.fake.state().databases.contains_key("pg"));
}

#[tokio::test]
async fn a_wrong_file_creates_nothing() {
    let cluster = Cluster::new();
    let file = cluster.dir.path().join("resources.yaml");
    let text = "\
kind: db
version: v3
metadata: {name: pg}
spec: {protocol: postgres, uri: 'pg.internal:5432'}
---
kind: db
version: v3
metadata: {name: pg2}
spec: {protocol: oracle, uri: 'pg.internal:5432'}
";
    fs::write(&file, text).unwrap();
    let (code, errors) = cluster.fails(&["create", file.to_str().unwrap()]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("resources.yaml:9:"), "{errors}");
    assert!(!cluster.fake.state().databases.contains_key("pg"));
}

#[tokio::test]
async fn failures_are_one_line_and_a_hint_with_their_exit_codes() {
    let cluster = Cluster::new();
    let (code, errors) = cluster.fails(&["rm", "role/access"]).await;
    assert_eq!(code, 1);
    assert!(
        errors.starts_with(
            "ERROR: could not remove role `access`: role `access` is built in\n  hint: "
        ),
        "{errors}"
    );
    assert_eq!(cluster.fails(&["get", "node"]).await.0, 2);
    assert_eq!(cluster.fails(&["db", "ls", "env"]).await.0, 2);
    assert_eq!(cluster.fails(&["tokens", "add"]).await.0, 2);
}

#[tokio::test]
async fn without_a_cluster_both_ways_to_one_are_named() {
    if std::path::Path::new("/var/lib/tidegate/auth.sock").exists() {
        return; // this machine is an auth host: there is a cluster
    }
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tgctl"))
        .arg("status")
        .env("TIDEGATE_HOME", home.path())
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("/var/lib/tidegate/auth.sock"), "{errors}");
    assert!(errors.contains("not logged in"), "{errors}");
    assert!(errors.contains("tg login --proxy=HOST"), "{errors}");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let cluster = Cluster::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_tgctl"))
        .arg("--data-dir")
        .arg(cluster.dir.path())
        .args(["get", "db"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .await
        .unwrap();
    assert_eq!(
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap()
        ),
        (Some(0), String::new())
    );
}

#[tokio::test]
async fn the_version_needs_no_cluster() {
    let output = Command::new(env!("CARGO_BIN_EXE_tgctl"))
        .arg("version")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("Tidegate v") && text.ends_with("(tgctl)\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_lock_is_made_shown_and_removed() {
    let cluster = Cluster::new();
    let made = cluster
        .prints(&[
            "lock",
            "--user=alice",
            "--message=laptop stolen",
            "--name=l1",
        ])
        .await;
    assert_eq!(
        made,
        "Created a lock with name \"l1\": user=alice is shut out until it is removed.\n"
    );
    let ended = ["lock", "--server-id=h1", "--expires=2026-12-24T00:00:00Z"];
    let ended = cluster.prints(&ended).await;
    assert!(
        ended.contains("agent=h1 is shut out until 2026-12-24 00:00:00 UTC"),
        "{ended}"
    );
    let table = cluster.prints(&["get", "lock", "--format=text"]).await;
    assert!(
        table.contains("l1      user=alice  laptop stolen  never"),
        "{table}"
    );
    let printed = cluster.prints(&["get", "lock/l1"]).await;
    let file = cluster.dir.path().join("lock.yaml");
    fs::write(&file, &printed).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        cluster.prints(&["create", "-f", file]).await,
        "Lock \"l1\" has been created.\n"
    );
    assert_eq!(cluster.prints(&["get", "lock/l1"]).await, printed);
    let (_, errors) = cluster.fails(&["create", file]).await;
    assert!(errors.contains("there is a lock `l1` already"), "{errors}");
    assert_eq!(
        cluster.prints(&["rm", "lock/l1"]).await,
        "Lock \"l1\" has been removed.\n"
    );
    let (code, _) = cluster.fails(&["lock", "--message=x"]).await;
    assert_eq!(code, 2);
}

#[tokio::test]
async fn an_explanation_can_be_checked() {
    let cluster = Cluster::new();
    let explain = [
        "access",
        "explain",
        "--user=alice",
        "--db=users",
        "--db-user=reader",
        "--db-name=dev",
        "--check",
    ];
    assert_eq!(
        cluster.prints(&explain).await,
        "`alice` using `users-redshift-us-east-1-111122223333`\n"
    );
    cluster.prints(&["lock", "--user=alice", "--name=l1"]).await;
    let denied = cluster.run(&explain).await;
    assert_eq!(denied.status.code(), Some(3));
    assert_eq!(String::from_utf8(denied.stderr).unwrap(), "");
    let json = [&explain[..6], &["--format=json"]].concat();
    let json: serde_json::Value = serde_json::from_str(&cluster.prints(&json).await).unwrap();
    assert_eq!(json["allowed"], false);
    assert_eq!(json["lock"]["metadata"]["name"], "l1");
    assert_eq!(json["reason"]["db_user"], "reader");
}

#[tokio::test]
async fn a_user_gets_other_roles_and_traits_and_a_new_password() {
    let cluster = Cluster::new();
    cluster
        .prints(&[
            "users",
            "add",
            "--roles=access",
            "--db-users=reader",
            "--db-names=*",
            "alice",
        ])
        .await;
    let update = ["users", "update", "alice", "--set-roles=access,auditor"];
    let update = [&update[..], &["--set-db-names="]].concat();
    let updated = cluster.prints(&update).await;
    assert!(
        updated.contains("counts from the next login on"),
        "{updated}"
    );
    {
        let state = cluster.fake.state();
        let alice = &state.users["alice"];
        assert_eq!(alice.roles, ["access", "auditor"]);
        assert_eq!(alice.traits.keys().collect::<Vec<_>>(), ["db_users"]);
    }
    let reset = cluster.prints(&["users", "reset", "alice"]).await;
    assert!(
        reset.starts_with("The password and the second factors of user \"alice\" are void"),
        "{reset}"
    );
    assert!(
        reset.contains("--token=fedcba9876543210fedcba9876543210"),
        "{reset}"
    );
    let (code, _) = cluster.fails(&["users", "update", "alice"]).await;
    assert_eq!(code, 2);
    let (_, errors) = cluster
        .fails(&["users", "update", "bob", "--set-roles=access"])
        .await;
    assert!(errors.contains("there is no user `bob`"), "{errors}");
}

#[tokio::test]
async fn a_person_s_logins_are_listed_and_ended_and_a_lock_out_is_lifted() {
    let cluster = Cluster::new();
    let login = |id: &str| v1::Login {
        id: id.to_owned(),
        user: "alice".to_owned(),
        remote_addr: "10.0.0.7:50000".to_owned(),
        ..v1::Login::default()
    };
    let alice = v1::User {
        name: "alice".to_owned(),
        second_factors: 2,
        locked_out_until: Some(prost_types::Timestamp::default()),
        ..v1::User::default()
    };
    {
        let mut state = cluster.fake.state();
        state.logins = vec![login("l-1"), login("l-2"), login("l-3")];
        state.users.insert("alice".to_owned(), alice);
    }
    let listed = cluster.prints(&["users", "ls"]).await;
    assert!(listed.contains("1970-01-01"), "{listed}");
    let listed = cluster.prints(&["users", "sessions", "alice"]).await;
    assert!(
        listed.contains("l-2") && listed.contains("10.0.0.7:50000"),
        "{listed}"
    );

    let revoke = ["users", "revoke", "alice"];
    let one = cluster
        .prints(&[&revoke[..], &["--session=l-2"]].concat())
        .await;
    assert_eq!(one, "Login l-2 of user \"alice\" has ended.\n");
    let (code, errors) = cluster
        .fails(&[&revoke[..], &["--session=l-2"]].concat())
        .await;
    assert_eq!(code, 1);
    assert!(errors.contains("no login `l-2`"), "{errors}");
    let all = cluster.prints(&revoke).await;
    assert_eq!(
        all,
        "All logins of user \"alice\" have ended: 2 that were listed.\n"
    );

    let unlock = ["users", "unlock", "alice"];
    let lifted = cluster.prints(&unlock).await;
    assert_eq!(lifted, "User \"alice\" can try to log in again at once.\n");
    assert!(cluster.prints(&unlock).await.contains("was not locked out"));
    let reset = cluster
        .prints(&["users", "reset", "alice", "--mfa-only"])
        .await;
    assert!(reset.contains("has no second factor any more"), "{reset}");
    assert_eq!(cluster.fake.state().users["alice"].second_factors, 0);
}
