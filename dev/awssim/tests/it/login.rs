//! Log-ins to clusters, with stock `psql` and, for code 13, by hand.

use std::process::{Output, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_redshift::operation::get_cluster_credentials::GetClusterCredentialsOutput as Given;
use awssim::{AuthCode, Cluster, ClusterPatch, Endpoint, Native, PasswordEncryption};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::{AWAY, Fixture, HOME, cluster_id, worker, world};

/// Credentials for `user` on a cluster of the worker's own account, which may do anything there.
async fn mint(fixture: &Fixture, cluster: &str, user: &str, db: Option<&str>) -> Given {
    let client = fixture.redshift(worker());
    let request = client
        .get_cluster_credentials()
        .cluster_identifier(cluster)
        .db_user(user);
    request
        .set_db_name(db.map(str::to_owned))
        .send()
        .await
        .unwrap()
}

pub(crate) fn psql(
    fixture: &Fixture,
    endpoint: &Endpoint,
    user: &str,
    password: &str,
    db: &str,
) -> Command {
    let Endpoint {
        host,
        address,
        port,
        ..
    } = endpoint;
    let ca = fixture.sim.ca_pem_path();
    let conninfo = format!(
        "host={host} hostaddr={address} port={port} user={user} dbname={db} \
         sslmode=verify-full sslrootcert={}",
        ca.display()
    );
    let mut command = Command::new("psql");
    command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", &conninfo]);
    command
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

pub(crate) async fn run(mut command: Command, sql: &str) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.args(["-c", sql]).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    if status.success() {
        Ok(text(stdout))
    } else {
        Err(text(stderr))
    }
}

#[tokio::test]
async fn minted_passwords_log_psql_in_with_codes_3_and_5() {
    let mut world = world();
    for (id, auth) in [("three", AuthCode::Cleartext), ("five", AuthCode::Md5)] {
        let cluster = Cluster {
            auth,
            ..Cluster::with([], ["alice"])
        };
        world.put_cluster(&cluster_id(HOME, id), cluster);
    }
    let fixture = Fixture::whole(world).await;
    for id in ["three", "five"] {
        let cluster = cluster_id(HOME, id);
        let endpoint = fixture.sim.endpoint(&cluster).await.unwrap();
        let seed = format!("CREATE TABLE t AS SELECT '{id}' AS v; GRANT SELECT ON t TO alice");
        fixture.sim.sql(&cluster, &seed).await.unwrap();
        let first = mint(&fixture, id, "alice", Some("dev")).await;
        let second = mint(&fixture, id, "alice", None).await;
        for given in [&first, &second] {
            let (user, password) = (given.db_user().unwrap(), given.db_password().unwrap());
            let psql = psql(&fixture, &endpoint, user, password, "dev");
            let rows = run(psql, "SELECT v, current_user FROM t").await.unwrap();
            assert_eq!(rows, format!("{id}|alice"));
        }
        let password = first.db_password().unwrap();
        let login = |user: &str, password: &str, db: &str| {
            run(psql(&fixture, &endpoint, user, password, db), "SELECT 1")
        };
        for (user, password, db) in [
            ("IAM:alice", "wrong", "dev"),
            ("alice", password, "dev"),
            ("IAM:alice", password, "other"),
        ] {
            let refused = login(user, password, db).await.unwrap_err();
            assert!(
                refused.contains("password authentication failed"),
                "{refused}"
            );
        }
        fixture.sim.advance_clock(901);
        assert!(login("IAM:alice", password, "dev").await.is_err());
        fixture.sim.set_clock_offset(0);
    }
    assert!(
        fixture
            .sim
            .logins()
            .iter()
            .any(|login| login.refused.is_none() && login.tls)
    );
    fixture.sim.stop().await;
}

#[tokio::test]
async fn plaintext_unknown_users_and_paused_clusters_are_refused() {
    let mut world = world();
    world.put_cluster(&cluster_id(HOME, "c1"), Cluster::default());
    let fixture = Fixture::whole(world).await;
    let cluster = cluster_id(HOME, "c1");
    let endpoint = fixture.sim.endpoint(&cluster).await.unwrap();
    let given = mint(&fixture, "c1", "alice", None).await;
    let (user, password) = (given.db_user().unwrap(), given.db_password().unwrap());
    let login = || run(psql(&fixture, &endpoint, user, password, "dev"), "SELECT 1");
    assert!(
        login()
            .await
            .unwrap_err()
            .contains("user \"IAM:alice\" does not exist")
    );

    let conninfo = format!(
        "hostaddr={} port={} user={user} dbname=dev sslmode=disable",
        endpoint.address, endpoint.port
    );
    let mut plain = Command::new("psql");
    plain.args(["-X", &conninfo]).env("PGPASSWORD", password);
    assert!(
        run(plain, "SELECT 1")
            .await
            .unwrap_err()
            .contains("SSL off")
    );

    let alice = ClusterPatch {
        db_users: Some(["alice".to_owned()].into()),
        ..Default::default()
    };
    fixture.sim.change_cluster(&cluster, alice).await.unwrap();
    login().await.unwrap();
    fixture.sim.set_status(&cluster, "paused").await.unwrap();
    assert!(login().await.unwrap_err().contains("refused"));
    fixture.sim.set_status(&cluster, "available").await.unwrap();
    login().await.unwrap();
    fixture.sim.remove_cluster(&cluster).await.unwrap();
    assert!(login().await.unwrap_err().contains("refused"));
    let hosts = std::fs::read_to_string(fixture.sim.hosts_file()).unwrap();
    assert!(!hosts.contains(&endpoint.host));
    fixture.sim.stop().await;
}

#[tokio::test]
async fn users_are_made_at_log_in_when_asked_for() {
    let mut world = world();
    world.put_cluster(&cluster_id(HOME, "c1"), Cluster::default());
    let fixture = Fixture::whole(world).await;
    let endpoint = fixture.sim.endpoint(&cluster_id(HOME, "c1")).await.unwrap();
    let client = fixture.redshift(worker());
    let request = client
        .get_cluster_credentials()
        .cluster_identifier("c1")
        .db_user("new");
    let given = request.auto_create(true).send().await.unwrap();
    assert_eq!(given.db_user(), Some("IAMA:new"));
    let psql_as = |user, password| psql(&fixture, &endpoint, user, password, "dev");
    let psql = psql_as("IAMA:new", given.db_password().unwrap());
    assert_eq!(run(psql, "SELECT current_user").await.unwrap(), "new");

    let request = client
        .get_cluster_credentials_with_iam()
        .cluster_identifier("c1");
    let given = request.db_name("dev").send().await.unwrap();
    assert_eq!(given.db_user(), Some("IAM:worker"));
    let psql = psql_as("IAM:worker", given.db_password().unwrap());
    assert_eq!(run(psql, "SELECT 1").await.unwrap(), "1");
    fixture.sim.stop().await;
}

#[tokio::test]
async fn control_c_in_psql_cancels_the_statement() {
    let fixture = Fixture::whole(home_cluster()).await;
    let endpoint = fixture.sim.endpoint(&cluster_id(HOME, "c1")).await.unwrap();
    let given = mint(&fixture, "c1", "alice", None).await;
    let mut command = psql(
        &fixture,
        &endpoint,
        given.db_user().unwrap(),
        given.db_password().unwrap(),
        "dev",
    );
    command.args(["-c", "SELECT 'started'", "-c", "SELECT pg_sleep(100)"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut started = [0; 7];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut started)
        .await
        .unwrap();
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    while fixture
        .sim
        .sql(&cluster_id(HOME, "c1"), sleeping)
        .await
        .unwrap()[0][0]
        .as_deref()
        != Some("1")
    {
        tokio::task::yield_now().await;
    }
    let pid = child.id().unwrap().to_string();
    Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .await
        .unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("canceling statement"),
        "{output:?}"
    );
    fixture.sim.stop().await;
}

fn home_cluster() -> awssim::World {
    let mut world = world();
    world.put_cluster(&cluster_id(HOME, "c1"), Cluster::with([], ["alice"]));
    world
}

/// A message: its type and body.
async fn read(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let kind = stream.read_u8().await.unwrap();
    let mut body = vec![0; stream.read_u32().await.unwrap() as usize - 4];
    stream.read_exact(&mut body).await.unwrap();
    (kind, body)
}

/// Logs in the way Amazon's drivers do, without TLS, and gives the first message after that.
async fn digest_login(endpoint: &Endpoint, user: &str, password: &str) -> (TcpStream, u8, Vec<u8>) {
    let mut stream = TcpStream::connect((endpoint.address, endpoint.port))
        .await
        .unwrap();
    let startup = format!(
        "user\0{user}\0database\0dev\0client_protocol_version\02\0driver_version\0x\0\
         os_version\0y\0_pq_.compression\0lz4\0options\0-c query_group=q\0\0"
    );
    stream.write_u32(startup.len() as u32 + 8).await.unwrap();
    stream.write_u32(196_608).await.unwrap();
    stream.write_all(startup.as_bytes()).await.unwrap();
    let (kind, body) = read(&mut stream).await;
    assert_eq!((kind, &body[..8]), (b'R', &[0, 0, 0, 13, 0, 0, 0, 0][..]));
    let counted = |bytes: &[u8]| {
        let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        (bytes[4..4 + length].to_vec(), bytes[4 + length..].to_vec())
    };
    let (salt, rest) = counted(&body[8..]);
    let (server_nonce, rest) = counted(&rest);
    assert!(rest.is_empty());
    let inner = digest(&SHA256, &[password.as_bytes(), &salt].concat());
    let proof = digest(&SHA256, &[inner.as_ref(), &server_nonce, b"nonce"].concat());
    let count = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let answer = [
        &count(proof.as_ref()),
        proof.as_ref(),
        &count(b"nonce"),
        b"nonce",
    ]
    .concat();
    stream.write_u8(b'd').await.unwrap();
    stream.write_u32(answer.len() as u32 + 4).await.unwrap();
    stream.write_all(&answer).await.unwrap();
    let (kind, body) = read(&mut stream).await;
    (stream, kind, body)
}

#[tokio::test]
async fn code_13_takes_redshifts_digest_and_start_up_looks_like_redshift() {
    let mut world = world();
    let auth = AuthCode::Sha256Digest;
    let cluster = Cluster {
        auth,
        require_ssl: false,
        ..Cluster::with([], ["alice"])
    };
    world.put_cluster(&cluster_id(HOME, "c1"), cluster);
    let fixture = Fixture::whole(world).await;
    let endpoint = fixture.sim.endpoint(&cluster_id(HOME, "c1")).await.unwrap();
    mint(&fixture, "c1", "alice", None).await;
    let given = mint(&fixture, "c1", "alice", None).await;
    let (user, password) = (given.db_user().unwrap(), given.db_password().unwrap());

    let (_, kind, body) = digest_login(&endpoint, user, "wrong").await;
    assert_eq!(kind, b'E');
    assert!(String::from_utf8_lossy(&body).contains("C28000"));

    let (mut stream, kind, body) = digest_login(&endpoint, user, password).await;
    assert_eq!((kind, body.as_slice()), (b'R', &[0; 4][..]));
    let mut parameters = std::collections::BTreeMap::new();
    loop {
        match read(&mut stream).await {
            (b'S', body) => {
                let text = String::from_utf8(body).unwrap();
                let (name, value) = text.strip_suffix('\0').unwrap().split_once('\0').unwrap();
                parameters.insert(name.to_owned(), value.to_owned());
            }
            (b'Z', _) => break,
            (kind, body) => assert_eq!((kind, body.len()), (b'K', 8)),
        }
    }
    assert_eq!(parameters["server_version"], "8.0.2");
    assert!(parameters.contains_key("padb_revision") && parameters.contains_key("driver_token"));
    assert!(!parameters.contains_key("server_protocol_version"));
    fixture.sim.stop().await;
}

#[tokio::test]
async fn a_native_cluster_is_postgresql_itself() {
    let mut world = world();
    let native = Some(Native {
        password_encryption: PasswordEncryption::ScramSha256,
    });
    let cluster = Cluster {
        native,
        ..Cluster::with([], ["alice"])
    };
    world.put_cluster(&cluster_id(HOME, "c1"), cluster);
    let fixture = Fixture::api(world).await;
    let cluster = cluster_id(HOME, "c1");
    let endpoint = fixture.sim.endpoint(&cluster).await.unwrap();
    fixture
        .sim
        .sql(&cluster, "CREATE TABLE t (n int); GRANT ALL ON t TO alice")
        .await
        .unwrap();
    let given = mint(&fixture, "c1", "alice", None).await;
    let (user, password) = (given.db_user().unwrap(), given.db_password().unwrap());
    let psql_with = |password| psql(&fixture, &endpoint, user, password, "dev");
    let rows = run(psql_with(password), "SELECT current_user, count(*) FROM t")
        .await
        .unwrap();
    assert_eq!(rows, "alice|0");
    assert!(run(psql_with("wrong"), "SELECT 1").await.is_err());
    fixture.sim.stop().await;
}

#[tokio::test]
async fn clusters_of_one_name_in_two_accounts_are_two() {
    let mut world = home_cluster();
    world.put_cluster(&cluster_id(AWAY, "c1"), Cluster::with([], ["alice"]));
    let fixture = Fixture::whole(world).await;
    fixture
        .sim
        .sql(&cluster_id(HOME, "c1"), "CREATE TABLE t (n int)")
        .await
        .unwrap();
    let missing = fixture
        .sim
        .sql(&cluster_id(AWAY, "c1"), "SELECT * FROM t")
        .await
        .unwrap_err();
    assert!(awssim::error_chain(&missing).contains("42P01"));
    fixture.sim.stop().await;
}
