//! The program as people run it: from the first contact with a cluster to a `psql` that is started right.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake;
mod tunnels;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use fake::{Fake, SIGNUP_TOKEN, people::CODE};
use tempfile::TempDir;
use tidegate_proto::v1;
use tokio::{io::AsyncWriteExt, process::Command};

/// Prints its arguments a line each, and ends with a code of its own.
const PSQL: &str = "#!/bin/sh\nfor word in \"$@\"; do echo \"$word\"; done\nexit 7\n";

pub(crate) struct Machine {
    pub(crate) fake: Fake,
    addr: SocketAddr,
    dir: TempDir,
}

impl Machine {
    pub(crate) async fn new() -> Self {
        let fake = Fake::new();
        {
            let mut state = fake.state();
            state.db_users = vec!["*".to_owned()];
            state.db_names = vec!["*".to_owned()];
            for (name, env) in [("my-redshift", "dev"), ("orders", "prod")] {
                state.databases.insert(name.to_owned(), database(name, env));
            }
        }
        let machine = Self {
            addr: fake.serve().await,
            fake,
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(machine.path("web-ca.pem"), machine.fake.web_ca_pem()).unwrap();
        machine
    }

    pub(crate) async fn logged_in() -> Self {
        let machine = Self::new().await;
        machine
            .fake
            .state()
            .passwords
            .insert("alice".to_owned(), "secret".to_owned());
        machine.login(&[&machine.pin()]).await;
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pin(&self) -> String {
        format!("--ca-pin={}", self.fake.ca_pin())
    }

    fn with_psql(&self) {
        let psql = self.path("psql");
        fs::write(&psql, PSQL).unwrap();
        fs::set_permissions(&psql, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tg"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", self.dir.path());
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    /// Logs in as alice with the password on standard input.
    pub(crate) async fn login_output(&self, arguments: &[&str], password: &str) -> Output {
        let proxy = format!("--proxy={}", self.addr);
        let mut child = self
            .command(&["login", &proxy, "--user=alice", "--password-stdin"])
            .args(arguments)
            .env("SSL_CERT_FILE", self.path("web-ca.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(format!("{password}\n").as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    pub(crate) async fn login(&self, arguments: &[&str]) -> String {
        let output = self.login_output(arguments, "secret").await;
        text_of(output)
    }

    pub(crate) async fn prints(&self, arguments: &[&str]) -> String {
        text_of(self.run(arguments).await)
    }

    pub(crate) async fn fails(&self, arguments: &[&str]) -> (i32, String) {
        errors_of(self.run(arguments).await)
    }
}

fn text_of(output: Output) -> String {
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).unwrap()
}

fn errors_of(output: Output) -> (i32, String) {
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn database(name: &str, env: &str) -> v1::Database {
    v1::Database {
        name: name.to_owned(),
        description: "Redshift cluster".to_owned(),
        labels: [("env".to_owned(), env.to_owned())].into(),
        origin: v1::Origin::Cloud.into(),
        protocol: "postgres".to_owned(),
        uri: "c.abc.redshift.amazonaws.com:5439".to_owned(),
        kind: "redshift".to_owned(),
        ..v1::Database::default()
    }
}

#[tokio::test]
async fn a_newcomer_signs_up_with_pin_and_token() {
    let machine = Machine::new().await;
    let token = format!("--token={SIGNUP_TOKEN}");
    let text = machine.login(&[&machine.pin(), &token]).await;
    assert!(text.contains("Logged in as:  alice\n"), "{text}");
    assert!(
        text.contains("Cluster:       tidegate.example.com\n"),
        "{text}"
    );
    assert_eq!(machine.fake.state().passwords["alice"], "secret");
    let json: serde_json::Value =
        serde_json::from_str(&machine.prints(&["status", "--format=json"]).await).unwrap();
    assert_eq!(json["user"], "alice");
    assert_eq!(json["roles"][0], "access");
}

#[tokio::test]
async fn without_a_pin_the_proxys_own_certificate_vouches() {
    let machine = Machine::new().await;
    machine
        .fake
        .state()
        .passwords
        .insert("alice".to_owned(), "secret".to_owned());
    machine.login(&[]).await;
    // From then on the cluster is known: the web certificate is not looked at again.
    fs::write(machine.path("web-ca.pem"), "").unwrap();
    machine.login(&[]).await;
}

#[tokio::test]
async fn a_stranger_is_not_given_the_password() {
    let machine = Machine::new().await;
    fs::write(machine.path("web-ca.pem"), Fake::new().web_ca_pem()).unwrap();
    let (code, errors) = errors_of(machine.login_output(&[], "secret").await);
    assert_eq!(code, 1);
    assert!(
        errors.contains("does not trust the certificate"),
        "{errors}"
    );
    assert!(errors.contains("--ca-pin"), "{errors}");

    let other = format!("--ca-pin={}", Fake::new().ca_pin());
    let (code, errors) = errors_of(machine.login_output(&[&other], "secret").await);
    assert_eq!(code, 1);
    assert!(
        errors.contains("certificate cannot be verified"),
        "{errors}"
    );
    assert!(!machine.path(".tidegate").exists());
}

#[tokio::test]
async fn a_wrong_password_leaves_nothing_behind() {
    let machine = Machine::new().await;
    let (code, errors) = errors_of(machine.login_output(&[&machine.pin()], "wrong").await);
    assert_eq!(code, 1);
    assert!(
        errors.starts_with(
            "ERROR: could not log in: wrong user name, password or code\n  hint: check name"
        ),
        "{errors}"
    );
    assert!(!machine.path(".tidegate").exists());
}

#[tokio::test]
async fn databases_are_listed_as_in_the_guide() {
    let machine = Machine::logged_in().await;
    assert_eq!(
        machine.prints(&["db", "ls"]).await,
        "\
Name         Description       Labels
-----------  ----------------  --------
my-redshift  Redshift cluster  env=dev
orders       Redshift cluster  env=prod
"
    );
    let json: serde_json::Value = serde_json::from_str(
        &machine
            .prints(&["db", "ls", "env=prod", "--format=json"])
            .await,
    )
    .unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(json[0]["metadata"]["name"], "orders");
}

#[tokio::test]
async fn databases_are_listed_by_a_predicate_and_in_an_order() {
    let machine = Machine::logged_in().await;
    let query = "--query=labels[\"env\"] == \"prod\" && hasPrefix(name, \"or\")";
    let text = machine.prints(&["db", "ls", query]).await;
    assert!(
        text.contains("orders") && !text.contains("my-redshift"),
        "{text}"
    );
    let text = machine
        .prints(&["db", "ls", "--sort=labels.env desc"])
        .await;
    assert!(text.find("orders") < text.find("my-redshift"), "{text}");

    let (code, errors) = machine.fails(&["db", "ls", "--query=nmae == \"x\""]).await;
    assert_eq!(code, 2);
    assert!(
        errors.starts_with("ERROR: the query does not parse:\n  nmae == \"x\"\n  ^ "),
        "{errors}"
    );
}

#[tokio::test]
async fn a_database_in_agents_configurations_is_listed_once_and_can_be_used() {
    let machine = Machine::logged_in().await;
    machine.with_psql();
    machine.fake.state().configured = vec![database("static", "lab"), database("static", "lab")];
    let text = machine.prints(&["db", "ls"]).await;
    assert_eq!(text.matches("static").count(), 1, "{text}");
    let connect = ["db", "connect", "static", "--db-user=a", "--db-name=b"];
    assert_eq!(machine.run(&connect).await.status.code(), Some(7));
}

#[tokio::test]
async fn connect_becomes_psql_with_a_verified_way_to_the_database() {
    let machine = Machine::logged_in().await;
    machine.with_psql();
    let connect = [
        "db",
        "connect",
        "--db-user=alice",
        "--db-name=dev",
        "my-red",
        "--",
        "-c",
        "select 1",
    ];
    let output = machine.run(&connect).await;
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.lines().collect();
    let folder = machine
        .path(".tidegate")
        .join(format!("127.0.0.1_{}", machine.addr.port()));
    let folder = folder.display();
    assert_eq!(
        words,
        [
            "--dbname",
            &format!(
                "host=my-redshift.db.tidegate.example.com hostaddr=127.0.0.1 port={} sslmode=verify-full \
                 sslrootcert={folder}/db-ca.pem sslcert={folder}/db/my-redshift.pem \
                 sslkey={folder}/db/my-redshift.key user=alice dbname=dev",
                machine.addr.port()
            ),
            "-c",
            "select 1",
        ]
    );
    machine.run(&connect).await;
    assert_eq!(
        machine.fake.state().issued.len(),
        1,
        "a good certificate is used again"
    );
}

#[tokio::test]
async fn the_guides_role_user_connects_without_a_database_name() {
    let machine = Machine::logged_in().await;
    machine.with_psql();
    let output = machine
        .run(&[
            "db",
            "connect",
            "my-redshift",
            "--db-user=role/redshift-user-role",
        ])
        .await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("user=role/redshift-user-role dbname=dev"),
        "{text}"
    );
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("--db-name"), "{errors}");
}

#[tokio::test]
async fn without_psql_the_way_out_is_told() {
    let machine = Machine::logged_in().await;
    let (code, errors) = machine
        .fails(&["db", "connect", "orders", "--db-user=a", "--db-name=b"])
        .await;
    assert_eq!(code, 1);
    assert!(
        errors.starts_with("ERROR: `psql` is not installed"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_login_to_a_database_serves_other_programs_until_the_logout() {
    let machine = Machine::logged_in().await;
    let text = machine
        .prints(&["db", "login", "--db-user=reader", "--db-name=dev", "orders"])
        .await;
    assert!(
        text.contains("psql service=tidegate.example.com-orders\n"),
        "{text}"
    );
    let services = fs::read_to_string(machine.path(".pg_service.conf")).unwrap();
    assert!(
        services.starts_with(
            "[tidegate.example.com-orders]\nhost=orders.db.tidegate.example.com\nhostaddr=127.0.0.1\n"
        ),
        "{services}"
    );
    let env = machine.prints(&["db", "env"]).await;
    assert!(
        env.contains("export PGHOST=orders.db.tidegate.example.com\n"),
        "{env}"
    );
    assert!(env.contains("export PGUSER=reader\n"), "{env}");
    let json: serde_json::Value =
        serde_json::from_str(&machine.prints(&["db", "env", "--format=json"]).await).unwrap();
    assert_eq!(json["PGSSLMODE"], "verify-full");
    assert_eq!(json["PGHOSTADDR"], "127.0.0.1");
    let key = PathBuf::from(json["PGSSLKEY"].as_str().unwrap());
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(machine.prints(&["db", "ls"]).await.contains("> orders"));

    machine.prints(&["db", "logout", "orders"]).await;
    assert!(!key.exists());
    let services = fs::read_to_string(machine.path(".pg_service.conf")).unwrap();
    assert_eq!(services, "");
    let (code, errors) = machine.fails(&["db", "env"]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("tg db login NAME"), "{errors}");
}

#[tokio::test]
async fn several_database_users_have_to_be_chosen_from() {
    let machine = Machine::new().await;
    {
        let mut state = machine.fake.state();
        state
            .passwords
            .insert("alice".to_owned(), "secret".to_owned());
        state.db_users = vec!["writer".to_owned(), "reader".to_owned()];
    }
    machine.login(&[&machine.pin()]).await;
    let (code, errors) = machine.fails(&["db", "connect", "orders"]).await;
    assert_eq!(code, 2);
    assert!(errors.contains("You may use: reader, writer"), "{errors}");
}

#[tokio::test]
async fn the_only_database_user_that_the_roles_allow_is_taken() {
    let machine = Machine::logged_in().await;
    machine.with_psql();
    let only = |value: &str| {
        Some(v1::Choices {
            values: vec![value.to_owned()],
            except: Vec::new(),
        })
    };
    let told = v1::DescribeChoicesResponse {
        db_users: only("reader"),
        db_names: only("sales"),
        own_db_user: String::new(),
    };
    machine
        .fake
        .state()
        .choices
        .insert("orders".to_owned(), told);
    let output = machine.run(&["db", "connect", "orders"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("user=reader dbname=sales"), "{text}");
}

#[tokio::test]
async fn a_name_without_what_discovery_appends_means_one_database_or_lists_them_all() {
    let machine = Machine::logged_in().await;
    machine.with_psql();
    for region in ["us-east-1", "us-west-2"] {
        let name = format!("dw-redshift-{region}-123456789012");
        let mut found = database(&name, "prod");
        found.discovered_name = "dw".to_owned();
        found.labels.insert("region".to_owned(), region.to_owned());
        machine.fake.state().databases.insert(name, found);
    }
    let connect = |more: &'static str| ["db", "connect", "dw", "--db-user=a", "--db-name=b", more];
    let (code, errors) = machine.fails(&connect("--query=")).await;
    assert_eq!(code, 1);
    assert_eq!(
        errors,
        "\
ERROR: `dw` fits 2 databases
  hint: name one of them:
    Name                                Region
    dw-redshift-us-east-1-123456789012  us-east-1
    dw-redshift-us-west-2-123456789012  us-west-2
"
    );
    for one in [
        "--labels=region=us-west-2",
        "--query=labels[\"region\"] == \"us-west-2\"",
    ] {
        let output = machine.run(&connect(one)).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("host=dw-redshift-us-west-2-123456789012."),
            "{text}"
        );
    }
    let by_label = [
        "db",
        "connect",
        "--labels=region=us-east-1",
        "--db-user=a",
        "--db-name=b",
    ];
    let text = String::from_utf8(machine.run(&by_label).await.stdout).unwrap();
    assert!(
        text.contains("host=dw-redshift-us-east-1-123456789012."),
        "{text}"
    );
}

#[tokio::test]
async fn an_expired_login_says_to_log_in_again() {
    let machine = Machine::new().await;
    {
        let mut state = machine.fake.state();
        state
            .passwords
            .insert("alice".to_owned(), "secret".to_owned());
        state.ttl = Duration::ZERO;
    }
    errors_of(machine.login_output(&[&machine.pin()], "secret").await);
    for arguments in [&["db", "ls"][..], &["status"], &["db", "connect", "orders"]] {
        let (code, errors) = machine.fails(arguments).await;
        assert_eq!(code, 1);
        assert!(errors.contains("expired at"), "{errors}");
        assert!(errors.contains("tg login --proxy=127.0.0.1:"), "{errors}");
    }
}

#[tokio::test]
async fn a_logout_removes_what_could_be_misused() {
    let machine = Machine::logged_in().await;
    machine
        .prints(&["db", "login", "--db-user=reader", "orders"])
        .await;
    machine.prints(&["logout"]).await;
    let left: Vec<String> = walk(machine.path(".tidegate"));
    assert!(left.iter().all(|path| !path.ends_with(".key")), "{left:?}");
    assert_eq!(
        machine.prints(&["logout"]).await,
        "You were not logged in.\n"
    );
    let (code, errors) = machine.fails(&["db", "ls"]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("not logged in"), "{errors}");
}

fn walk(dir: PathBuf) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_cluster_that_is_away_is_told_from_a_wrong_one() {
    let machine = Machine::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let proxy = format!("--proxy={nobody}");
    let file = machine.path("password");
    fs::write(&file, "secret\n").unwrap();
    let file = format!("--password-file={}", file.display());
    let (code, errors) = machine
        .fails(&["login", &proxy, "--user=alice", &machine.pin(), &file])
        .await;
    assert_eq!(code, 1);
    assert!(errors.contains("cannot be reached"), "{errors}");
    assert!(errors.contains("refused"), "{errors}");
}

#[tokio::test]
async fn a_certificate_that_the_cluster_refuses_says_to_log_in_again() {
    let machine = Machine::logged_in().await;
    machine.fake.state().refuses_people = true;
    let (code, errors) = machine.fails(&["db", "ls"]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("closed the connection"), "{errors}");
    assert!(errors.contains("log in again with `tg login`"), "{errors}");
}

/// What is typed after the password, a line each.
async fn with_lines(machine: &Machine, arguments: &[&str], lines: &str) -> Output {
    let mut child = machine
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(lines.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn a_login_gives_a_code_where_one_is_asked_for_and_says_what_is_missing_otherwise() {
    let machine = Machine::logged_in().await;
    {
        let mut state = machine.fake.state();
        state.second_factor = v1::SecondFactor::On;
        state.factors.insert("alice".to_owned(), "app".to_owned());
    }
    let (code, errors) = errors_of(machine.login_output(&[], "secret").await);
    assert_eq!(code, 1);
    assert!(errors.contains("no code was given"), "{errors}");
    assert!(errors.contains("--otp"), "{errors}");
    let (_, errors) = errors_of(machine.login_output(&["--otp=000000"], "secret").await);
    assert!(errors.contains("a code works once"), "{errors}");
    let otp = format!("--otp={CODE}");
    machine.login(&[&otp]).await;
    let client = machine.fake.state().clients.last().cloned().unwrap();
    assert!(client.starts_with("tg "), "{client}");
}

#[tokio::test]
async fn a_first_login_adds_the_second_factor_that_the_cluster_asks_for() {
    let machine = Machine::logged_in().await;
    machine.fake.state().second_factor = v1::SecondFactor::On;
    let (_, errors) = errors_of_printing(machine.login_output(&[], "secret").await);
    assert!(
        errors.contains("no code followed on standard input"),
        "{errors}"
    );
    let lines = format!("secret\n{CODE}");
    let text = text_of(machine.login_output(&[], &lines).await);
    assert!(text.contains("GEZD GNBV GY3T QOJQ"), "{text}");
    assert!(text.contains("otpauth://totp/x:alice"), "{text}");
    assert!(text.contains("Logged in as:  alice\n"), "{text}");
    assert!(machine.fake.state().factors.contains_key("alice"));

    let file = machine.path("password");
    fs::write(&file, "secret\n").unwrap();
    machine.fake.state().factors.clear();
    let file = format!("--password-file={}", file.display());
    let proxy = format!("--proxy={}", machine.addr);
    let (_, errors) = machine
        .fails(&["login", &proxy, "--user=alice", &file])
        .await;
    assert!(errors.contains("log in once at a terminal"), "{errors}");
}

/// As [`errors_of`], for a program that printed something before it failed.
fn errors_of_printing(output: Output) -> (i32, String) {
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn second_factors_are_added_listed_and_removed() {
    let machine = Machine::logged_in().await;
    machine.fake.state().second_factor = v1::SecondFactor::Optional;
    let add = ["mfa", "add", "phone", "--password-stdin"];
    let wrong = with_lines(&machine, &add, "secret\n000000\n").await;
    assert!(errors_of_printing(wrong).1.contains("the code is wrong"));
    let lines = format!("secret\n{CODE}\n");
    let text = text_of(with_lines(&machine, &add, &lines).await);
    assert!(
        text.contains("Second factor \"phone\" has been added."),
        "{text}"
    );
    assert!(machine.prints(&["mfa", "ls"]).await.contains("phone"));

    let rm = ["mfa", "rm", "phone", "--password-stdin"];
    let (_, errors) = errors_of(with_lines(&machine, &rm, "secret\n").await);
    assert!(errors.contains("no code was given"), "{errors}");
    let otp = format!("--otp={CODE}");
    let rm = ["mfa", "rm", "phone", "--password-stdin", &otp];
    let text = text_of(with_lines(&machine, &rm, "secret\n").await);
    assert_eq!(text, "Second factor \"phone\" has been removed.\n");
}

#[tokio::test]
async fn a_password_is_changed_by_the_old_one() {
    let machine = Machine::logged_in().await;
    let passwd = ["passwd", "--password-stdin"];
    let (_, errors) =
        errors_of(with_lines(&machine, &passwd, "mistyped\nseven tall trees\n").await);
    assert!(errors.contains("could not change the password"), "{errors}");
    let text = text_of(with_lines(&machine, &passwd, "secret\nseven tall trees\n").await);
    assert!(
        text.starts_with("Your password has been changed."),
        "{text}"
    );
    assert_eq!(machine.fake.state().passwords["alice"], "seven tall trees");
}

#[tokio::test]
async fn logging_out_ends_the_login_at_the_cluster_and_forgets_it_here_whatever_the_cluster_says() {
    let machine = Machine::logged_in().await;
    assert!(machine.prints(&["sessions"]).await.contains("login-1"));
    let text = machine.prints(&["logout", "--session=login-9"]).await;
    assert_eq!(text, "Login login-9 has ended.\n");
    assert_eq!(machine.fake.state().ended[0].id, "login-9");
    machine.prints(&["status"]).await;

    let text = machine.prints(&["logout", "--all"]).await;
    assert!(
        text.contains("and everywhere else: 2 logins ended"),
        "{text}"
    );
    assert!(machine.fake.state().ended[1].all);
    machine.fails(&["status"]).await;

    machine.login(&[]).await;
    machine.fake.state().ends_nothing = true;
    let output = machine.run(&["logout"]).await;
    assert!(output.status.success());
    let remark = String::from_utf8(output.stderr).unwrap();
    assert!(
        remark.contains("copies of them work until they end"),
        "{remark}"
    );
    machine.fails(&["status"]).await;
}
