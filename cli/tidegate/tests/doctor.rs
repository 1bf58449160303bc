//! What the doctor says of each cause that keeps sessions from a database, against a simulated AWS with real PostgreSQL.
//!
//! Each cause is brought about for real: by policies, credentials, certificates and sockets. What the program prints is
//! compared with `golden/<cause>.txt`; `TIDEGATE_BLESS=1` writes those files.

// Helpers outside `#[test]` functions unwrap too: a panic is how a test fails.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use awssim::{
    AccessKey, Cluster, ClusterId, Fault, FaultKind, IdentityPolicy, Role, Sim, SimConfig,
    TrustPolicy, World,
};
use regex::Regex;

const HOME: &str = "111111111111";
const AWAY: &str = "222222222222";
const EAST: &str = "us-east-1";
/// An agent that may assume every role, and one that may assume none.
const AGENT: (&str, &str) = ("AKIAAGENT00000000001", "secret-of-the-agent");
const POOR: (&str, &str) = ("AKIAPOOR000000000001", "secret-of-the-poor");
const FORBIDDEN: (&str, &str) = ("AKIAFORBID0000000001", "secret-of-the-forbidden");
const EXTERNAL_ID: &str = "id-of-ours";
/// Agents that may ask IAM: one behind a boundary that lets no role be assumed, one of an account whose organization lets
/// none, and one that nothing allows it.
const WATCHED: [&str; 3] = ["bounded", "governed", "plain"];
const GOVERNED: &str = "333333333333";

/// The key of an agent that may ask IAM.
fn key_of(name: &str) -> (&'static str, &'static str) {
    match name {
        "bounded" => ("AKIABOUNDED000000001", "secret-of-the-bounded"),
        "governed" => ("AKIAGOVERNED00000001", "secret-of-the-governed"),
        _ => ("AKIAPLAIN00000000001", "secret-of-the-plain"),
    }
}

fn role(account: &str, name: &str) -> String {
    format!("arn:aws:iam::{account}:role/{name}")
}

fn world() -> World {
    let mut world = World::new();
    let key = |(id, secret): (&str, &str)| AccessKey {
        id: id.to_owned(),
        secret: secret.to_owned(),
    };
    let assume = IdentityPolicy::allow(["sts:AssumeRole"], ["*"]);
    let never = IdentityPolicy::deny(["sts:AssumeRole"], [role(AWAY, "agent").as_str()]);
    let home = world.account(HOME);
    home.enable_region(EAST);
    home.put_user("agent", key(AGENT), vec![assume.clone()]);
    home.put_user("poor", key(POOR), Vec::new());
    home.put_user("forbidden", key(FORBIDDEN), vec![assume.clone(), never]);

    let look = IdentityPolicy::allow(["iam:SimulatePrincipalPolicy", "iam:GetRole"], ["*"]);
    let all = IdentityPolicy::allow(["sts:*", "iam:*"], ["*"]);
    for name in WATCHED {
        let account = world.account(if name == "governed" { GOVERNED } else { HOME });
        account.enable_region(EAST);
        account.put_user(name, key(key_of(name)), vec![all.clone()]);
    }
    world.account(GOVERNED).service_control_policies =
        vec![IdentityPolicy::allow(["iam:*", "redshift:*"], ["*"])];
    let home = world.account(HOME);
    home.users.get_mut("bounded").unwrap().boundary =
        Some(IdentityPolicy::allow(["iam:*", "redshift:*"], ["*"]));
    home.users.get_mut("plain").unwrap().policies = vec![look.clone()];
    let agent = home.users.get_mut("agent").unwrap();
    agent.policies.push(look);
    // Roles beside the agent, whose trust policies it may read.
    let none = |trust| Role::new(trust, Vec::new());
    let careful = TrustPolicy::allow([HOME]).with_external_id(EXTERNAL_ID);
    home.put_role("careful", none(careful));
    home.put_role("strange", none(TrustPolicy::allow([AWAY])));

    let login = IdentityPolicy::allow(["redshift:GetClusterCredentials"], ["*"]);
    let away = world.account(AWAY);
    away.enable_region(EAST);
    let may = |policies: &[&IdentityPolicy]| {
        policies
            .iter()
            .map(|policy| (*policy).clone())
            .collect::<Vec<_>>()
    };
    let trusting = || TrustPolicy::allow([HOME, GOVERNED]);
    away.put_role("agent", Role::new(trusting(), may(&[&assume, &login])));
    away.put_role(
        "strange",
        Role::new(TrustPolicy::allow(["333333333333"]), may(&[&login])),
    );
    let careful = trusting().with_external_id(EXTERNAL_ID);
    away.put_role("careful", Role::new(careful, may(&[&login])));
    away.put_role("empty", Role::new(trusting(), Vec::new()));
    let for_agent = TrustPolicy::allow([role(AWAY, "agent").as_str()]);
    let with_iam = IdentityPolicy::allow(["redshift:GetClusterCredentialsWithIAM"], ["*"]);
    away.put_role("analyst", Role::new(for_agent, vec![with_iam]));
    let cluster = Cluster::with([], ["reader"]);
    world.put_cluster(&ClusterId::new(AWAY, EAST, "orders"), cluster);
    world
}

/// One cause: what is configured, with which environment, and what is asked.
struct Case {
    name: &'static str,
    key: Option<(&'static str, &'static str)>,
    role: &'static str,
    /// The account of the role; the cluster is always away.
    account: &'static str,
    external_id: Option<&'static str>,
    cluster: &'static str,
    uri: Option<String>,
    server_name: Option<&'static str>,
    own_ca: bool,
    db_user: Option<&'static str>,
    db_name: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
    fault: Option<Fault>,
    exit: i32,
}

fn case(name: &'static str) -> Case {
    Case {
        name,
        key: Some(AGENT),
        role: "agent",
        account: AWAY,
        external_id: None,
        cluster: "orders",
        uri: None,
        server_name: None,
        own_ca: true,
        db_user: Some("reader"),
        db_name: None,
        environment: vec![("AWS_EC2_METADATA_DISABLED", "true".to_owned())],
        fault: None,
        exit: 1,
    }
}

/// A port on which nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The metadata service of an instance, seen from a container: all of it answers but the request for a token.
fn behind_one_hop_too_many() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 512];
            let read = stream.read(&mut request).unwrap_or(0);
            if request[..read].starts_with(b"PUT") {
                silent.push(stream);
            } else {
                let answer =
                    "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    format!("http://{address}")
}

fn cases() -> Vec<Case> {
    let skew = FaultKind::ClockSkew {
        seconds: 900,
        told: false,
    };
    let imds = vec![(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        behind_one_hop_too_many(),
    )];
    vec![
        Case {
            exit: 0,
            ..case("healthy")
        },
        Case {
            exit: 0,
            db_user: None,
            ..case("no_user")
        },
        Case {
            exit: 0,
            role: "careful",
            external_id: Some(EXTERNAL_ID),
            ..case("external_id")
        },
        Case {
            exit: 0,
            db_user: Some("role/analyst"),
            ..case("role_as_user")
        },
        Case {
            uri: Some("no-such-host.invalid:5439".to_owned()),
            ..case("dns")
        },
        Case {
            uri: Some(closed_port().to_string()),
            ..case("tcp_refused")
        },
        Case {
            own_ca: false,
            ..case("tls_unknown_ca")
        },
        Case {
            server_name: Some("other.abc.us-east-1.redshift.amazonaws.com"),
            ..case("tls_wrong_name")
        },
        Case {
            key: None,
            ..case("no_credentials")
        },
        Case {
            key: None,
            environment: imds,
            ..case("imds_hop_limit")
        },
        Case {
            key: Some((AGENT.0, "another-secret")),
            ..case("wrong_secret")
        },
        Case {
            key: Some(("AKIADELETED000000001", "x")),
            ..case("deleted_key")
        },
        Case {
            fault: Some(Fault::new(skew)),
            ..case("clock_skew")
        },
        Case {
            key: Some(POOR),
            ..case("assume_role_not_allowed")
        },
        Case {
            key: Some(FORBIDDEN),
            ..case("assume_role_forbidden")
        },
        Case {
            role: "strange",
            ..case("trust_of_others")
        },
        Case {
            role: "gone",
            ..case("no_such_role")
        },
        Case {
            role: "careful",
            ..case("external_id_missing")
        },
        Case {
            role: "careful",
            external_id: Some("id-of-others"),
            ..case("external_id_wrong")
        },
        Case {
            key: Some(key_of("plain")),
            ..case("simulated_nothing_allows")
        },
        Case {
            key: Some(key_of("bounded")),
            ..case("simulated_boundary")
        },
        Case {
            key: Some(key_of("governed")),
            ..case("simulated_service_control")
        },
        Case {
            account: HOME,
            role: "careful",
            ..case("trust_read_external_id")
        },
        Case {
            account: HOME,
            role: "strange",
            ..case("trust_read_other_principal")
        },
        Case {
            role: "empty",
            ..case("mint_not_allowed")
        },
        Case {
            db_user: Some("role/nobody"),
            ..case("second_role_refused")
        },
        Case {
            db_user: Some("IAM:reader"),
            ..case("user_as_redshift_writes_it")
        },
        Case {
            cluster: "sold",
            ..case("no_such_cluster")
        },
        Case {
            db_user: Some("stranger"),
            ..case("no_such_user")
        },
        Case {
            db_name: Some("attic"),
            ..case("no_such_database")
        },
    ]
}

/// What every case shares.
struct Lab {
    sim: Sim,
    address: SocketAddr,
    host: String,
    dir: tempfile::TempDir,
}

impl Lab {
    fn file(&self, case: &Case) -> PathBuf {
        let uri = case.uri.clone().unwrap_or_else(|| self.address.to_string());
        let name = case.server_name.unwrap_or(&self.host);
        let ca = if case.own_ca {
            format!(", ca_cert_file: {:?}", self.sim.ca_pem_path())
        } else {
            String::new()
        };
        let external_id = case
            .external_id
            .map_or_else(String::new, |id| format!(", external_id: {id}"));
        let text = format!(
            "tidegate: {{nodename: agent-a, data_dir: {:?}, proxy_server: p.example.com}}
db_service:
  enabled: yes
  ca_bundles: 'file://{}'
  databases:
    - name: orders
      protocol: postgres
      uri: '{uri}'
      tls: {{server_name: {name}{ca}}}
      aws: {{region: {EAST}, account_id: '{AWAY}', assume_role_arn: '{}'{external_id}, redshift: {{cluster_id: {}}}}}
",
            self.dir.path().join("data"),
            self.dir.path().join("no-bundles").display(),
            role(case.account, case.role),
            case.cluster,
        );
        let path = self.dir.path().join(format!("{}.yaml", case.name));
        fs::write(&path, text).unwrap();
        path
    }

    fn ask(&self, case: &Case, more: &[&str]) -> Output {
        if let Some(fault) = &case.fault {
            self.sim.fault(fault.clone()).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["db", "doctor", "orders", "-c"])
            .arg(self.file(case))
            .args(case.db_user.iter().map(|user| format!("--db-user={user}")))
            .args(case.db_name.iter().map(|name| format!("--db-name={name}")))
            .args(more)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("AWS_REGION", EAST)
            .env("AWS_ENDPOINT_URL", self.sim.endpoint_url())
            .envs(case.environment.iter().map(|(name, value)| (name, value)));
        if let Some((id, secret)) = case.key {
            command
                .env("AWS_ACCESS_KEY_ID", id)
                .env("AWS_SECRET_ACCESS_KEY", secret);
        }
        let output = command
            .output()
            .expect("the program was built for this test");
        self.sim.clear_faults();
        output
    }

    /// Without what differs from run to run.
    fn settled(&self, printed: &str) -> String {
        let loopback = format!("{}", self.address.ip());
        let printed = printed
            .replace(&self.address.to_string(), "ADDRESS:5439")
            .replace(&loopback, "ADDRESS")
            .replace(&self.host, "HOST");
        [
            (r"\(\d+ ms\)", "(N ms)"),
            (r"in \d+ ms", "in N ms"),
            (r"from 127[.\d]+", "from ADDRESS"),
            (r"127\.0\.0\.1:\d+", "LOOPBACK:PORT"),
            (r"port \d+", "port PORT"),
            (r"from [\d.]+,", "from ADDRESS,"),
            (r"request [0-9a-f-]{8,}", "request ID"),
            (r"expires in \d+ days", "expires in N days"),
            (r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME"),
            (r"\d{8}T\d{6}Z", "TIME"),
        ]
        .iter()
        .fold(printed, |text, (pattern, with)| {
            Regex::new(pattern)
                .unwrap()
                .replace_all(&text, *with)
                .into_owned()
        })
    }
}

async fn start() -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let sim = Sim::start(SimConfig::new(world(), dir.path().join("sim"))).await;
    let sim = sim.unwrap_or_else(|error| panic!("{}", awssim::error_chain(&error)));
    let endpoint = sim
        .endpoint(&ClusterId::new(AWAY, EAST, "orders"))
        .await
        .unwrap();
    Lab {
        address: (endpoint.address, endpoint.port).into(),
        host: endpoint.host,
        sim,
        dir,
    }
}

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(format!("{name}.txt"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_is_told_with_its_step_its_evidence_who_acts_and_what_to_paste() {
    let lab = start().await;
    let mut wrong = Vec::new();
    for case in cases() {
        let output = tokio::task::block_in_place(|| lab.ask(&case, &[]));
        let printed = lab.settled(&String::from_utf8_lossy(&output.stdout));
        let complained = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(case.exit) {
            wrong.push(format!(
                "{}: {:?}\n{printed}{complained}",
                case.name, output.status
            ));
        }
        let file = golden(case.name);
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            fs::write(&file, &printed).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != printed {
            wrong.push(format!(
                "{} is not what {} says:\n{printed}",
                case.name,
                file.display()
            ));
        }
    }
    lab.sim.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_json_a_diagnosis_has_the_fields_that_programs_read() {
    let lab = start().await;
    let case = Case {
        role: "empty",
        ..case("mint_not_allowed")
    };
    let output = tokio::task::block_in_place(|| lab.ask(&case, &["--format=json"]));
    lab.sim.stop().await;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["verdict"]["code"], "aws_access_denied");
    assert_eq!(json["verdict"]["who"], "aws_administrator");
    let fix = &json["verdict"]["fixes"][0];
    assert_eq!(fix["policy"], "identity");
    assert_eq!(fix["of"], role(AWAY, "empty"));
    let statement: serde_json::Value = serde_json::from_str(fix["json"].as_str().unwrap()).unwrap();
    assert_eq!(statement["Action"], "redshift:GetClusterCredentials");
    let steps: Vec<&str> = json["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "serve",
            "dns",
            "tcp",
            "tls",
            "credentials",
            "role",
            "mint",
            "login"
        ]
    );
    assert!(json["steps"][6]["took_ms"].is_u64());
    assert!(!String::from_utf8_lossy(&output.stdout).contains(AGENT.1));
}

#[test]
fn a_question_that_is_wrong_takes_no_step_and_exits_with_2() {
    let ask = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    fs::write(&file, "auth_service: {cluster_name: c.example.com}\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, told) in [
        (&["db", "doctor"][..], "<NAME>"),
        (&["db", "doctor", "orders", "--format=xml"], "xml"),
        (&["db", "doctor", "or ders", "-c", file], "or ders"),
        (
            &["db", "doctor", "orders", "-c", "/nonexistent.yaml"],
            "cannot read the configuration",
        ),
        (
            &["db", "doctor", "orders", "-c", file],
            "enables no `db_service`",
        ),
    ] {
        let (code, complained) = ask(arguments);
        assert_eq!(code, Some(2), "{complained}");
        assert!(complained.contains(told), "{complained}");
    }
    let agent = dir.path().join("agent.yaml");
    let text = format!(
        "tidegate: {{data_dir: {:?}, proxy_server: p.example.com}}\ndb_service: {{enabled: yes, resources: [{{labels: {{'*': '*'}}}}]}}\n",
        dir.path().join("data")
    );
    fs::write(&agent, text).unwrap();
    let (code, complained) = ask(&["db", "doctor", "orders", "-c", agent.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(
        complained.contains("no process keeps an identity in"),
        "{complained}"
    );
}
