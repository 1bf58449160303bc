//! RDS for MariaDB: discovered, listed, and used with the stock client and with one that knows the protocol.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use awssim::{ClusterId, DbInstance, DbProxy, IdentityPolicy, World};
use bytes::{Bytes, BytesMut};
use rustls_pki_types::ServerName;
use tidegate_e2e::{
    Lab, Part,
    lab::{Person, words},
    wait,
};
use tidegate_identity::{
    KeyPair,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1;
use tidegate_wire::mysql::{
    Capabilities,
    command::{Code, command},
    handshake::{Answer, Greeting, NATIVE_PASSWORD},
    packet::{HANDSHAKE_BYTES_MAX, Packet, packet, take_packet},
    reply::{self, ServerError},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::main_job::world;

const ACCOUNT: &str = "111111111111";
pub(crate) const DATABASE: &str = "shop";

/// The demo's world and an RDS for MariaDB, which agent A's role may sign tokens for.
pub(crate) fn with_shop() -> Result<World> {
    let mut world = world()?;
    let role = world.account(ACCOUNT).roles.get_mut("tidegate-access-a");
    let role = role.context("the demo has no such role")?;
    role.policies.push(IdentityPolicy::allow(
        ["rds-db:connect"],
        [format!("arn:aws:rds-db:us-east-1:{ACCOUNT}:dbuser:*/reader").as_str()],
    ));
    let shop = DbInstance {
        db_users: ["reader".to_owned()].into(),
        db_name: Some("sales".to_owned()),
        databases: vec!["archive".to_owned()],
        ..DbInstance::with("mariadb", [("env", "prod")])
    };
    world.put(&ClusterId::new(ACCOUNT, "us-east-1", DATABASE), shop);
    Ok(world)
}

/// A system in which it is discovered and served.
pub(crate) async fn lab() -> Result<Lab> {
    let parts = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
    let lab = Lab::start_in(with_shop()?, &parts).await?;
    lab.wait_for_servers(&[DATABASE], 1).await?;
    Ok(lab)
}

/// What the stock client says, run by `tg db connect`.
async fn client(lab: &Lab, person: &Person, arguments: &[&str], input: &str) -> Result<Output> {
    let connect = [
        "db",
        "connect",
        DATABASE,
        "--db-user=reader",
        "--db-name=sales",
        "--",
        "--no-auto-rehash",
        "--batch",
        "--skip-column-names",
    ];
    let args = [&connect, arguments].concat();
    lab.tg_with_input(person, &args, input).await
}

pub(crate) async fn query(lab: &Lab, person: &Person, sql: &str) -> Result<String> {
    let output = client(lab, person, &["-e", sql], "").await?;
    ensure!(output.status.success(), "{}", words(&output));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn until_audited(
    lab: &Lab,
    event: &str,
    is_it: impl Fn(&v1::AuditEvent) -> bool,
) -> Result<v1::AuditEvent> {
    wait::until(event, || async {
        let events = lab
            .audit(event)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let found = events.iter().find(|event| is_it(event)).cloned();
        found.ok_or_else(|| format!("{events:?}"))
    })
    .await
}

#[tokio::test]
async fn a_discovered_mariadb_is_used_with_the_stock_client_and_audited() -> Result<()> {
    let lab = lab().await?;
    let alice = lab.person("alice", "reader", "*").await?;
    let listed = lab.tg(&alice, &["db", "ls"]).await?;
    ensure!(words(&listed).contains(DATABASE), "{}", words(&listed));

    let who = query(
        &lab,
        &alice,
        "SELECT 40 + 2, substring_index(user(), '@', 1)",
    )
    .await?;
    ensure!(who == "42\treader", "{who}");
    let started = until_audited(&lab, "db.session.start", |_| true).await?;
    ensure!(
        started.db_user == "reader" && started.fields["db_protocol"] == "mysql",
        "{started:?}"
    );
    until_audited(&lab, "db.session.query", |event| {
        event
            .fields
            .get("db_query")
            .is_some_and(|text| text.contains("40 + 2"))
    })
    .await?;

    // What comes back is large, in many packets, and in rows of more than one packet.
    let sum = query(
        &lab,
        &alice,
        "SET SESSION max_recursive_iterations = 100000; WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n \
         WHERE i < 50000) SELECT i, repeat('x', 100) FROM n",
    )
    .await?;
    ensure!(sum.lines().count() == 50_000, "{}", sum.lines().count());

    // A file of the client's goes to the server, and what follows it is a statement again.
    let file = lab.dir().join("rows.csv");
    let rows: String = (0..20_000).map(|n| format!("{n},row {n}\n")).collect();
    std::fs::write(&file, rows)?;
    let load = format!(
        "CREATE TABLE loaded (n INT, t VARCHAR(20)); LOAD DATA LOCAL INFILE '{}' INTO TABLE loaded FIELDS TERMINATED BY \
         ','; SELECT count(*), max(n) FROM loaded",
        file.display()
    );
    let output = client(&lab, &alice, &["--local-infile=1", "-e", &load], "").await?;
    ensure!(
        words(&output).contains("20000\t19999"),
        "{}",
        words(&output)
    );
    until_audited(&lab, "db.session.query", |event| {
        event
            .fields
            .get("db_query")
            .is_some_and(|text| text.contains("max(n)"))
    })
    .await?;

    let refused = client(&lab, &alice, &["-e", "SELECT * FROM nothing"], "").await?;
    ensure!(
        refused.status.code() == Some(1) && words(&refused).contains("ERROR 1146 (42S02)"),
        "{}",
        words(&refused)
    );
    let denied = lab
        .tg(
            &alice,
            &[
                "db",
                "connect",
                DATABASE,
                "--db-user=root",
                "--",
                "-e",
                "SELECT 1",
            ],
        )
        .await?;
    ensure!(
        words(&denied).contains("ERROR 1045 (28000)") && words(&denied).contains("root"),
        "{}",
        words(&denied)
    );
    lab.stop().await
}

#[tokio::test]
async fn an_rds_proxy_for_mysql_is_discovered_and_used_with_the_stock_client() -> Result<()> {
    let mut world = with_shop()?;
    let gateway = DbProxy {
        engine_family: "MYSQL".to_owned(),
        target: Some(DATABASE.to_owned()),
        ..DbProxy::with([("env", "prod")])
    };
    world.put(&ClusterId::new(ACCOUNT, "us-east-1", "gateway"), gateway);
    let parts = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
    let lab = Lab::start_in(world, &parts).await?;
    lab.wait_for_servers(&["gateway"], 1).await?;
    let alice = lab.person("alice", "reader", "*").await?;

    let listed = lab.tg(&alice, &["db", "ls", "--format=json"]).await?;
    let listed = words(&listed);
    ensure!(
        listed.contains("rds-proxy") || listed.contains("rdsproxy"),
        "{listed}"
    );
    let connect = [
        "db",
        "connect",
        "gateway",
        "--db-user=reader",
        "--db-name=sales",
    ];
    let sql = "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)";
    let client = ["--", "--batch", "--skip-column-names", "-e", sql];
    let who = lab.tg(&alice, &[&connect[..], &client].concat()).await?;
    ensure!(
        who.status.success() && who.stdout.trim_ascii() == b"reader",
        "{}",
        words(&who)
    );
    // With a token for the proxy, over TLS.
    let logins = lab.aws().logins();
    let through = logins
        .iter()
        .find(|login| login.cluster.id == "gateway" && login.refused.is_none());
    let through = through.with_context(|| format!("{logins:?}"))?;
    ensure!(
        through.tls && through.host.contains(".proxy-"),
        "{through:?}"
    );
    lab.stop().await
}

/// A client of the protocol's own, over the proxy's port for MySQL and with a certificate.
struct Raw {
    tls: TlsStream<TcpStream>,
    buffer: BytesMut,
}

impl Raw {
    async fn connect(lab: &Lab, person: &Person) -> Result<Self> {
        let login = lab
            .tg(
                person,
                &[
                    "db",
                    "login",
                    DATABASE,
                    "--db-user=reader",
                    "--db-name=sales",
                ],
            )
            .await?;
        ensure!(login.status.success(), "{}", words(&login));
        let option = option_file(&words(&login))?;
        let of = |name: &str| -> Result<String> {
            let line = option.lines().find_map(|line| line.strip_prefix(name));
            let value = line.with_context(|| format!("no {name} in {option}"))?;
            Ok(value.trim_matches('"').to_owned())
        };
        let read = |name: &str| -> Result<String> { Ok(std::fs::read_to_string(of(name)?)?) };
        let (chain, ca) = (read("ssl-cert=")?, read("ssl-ca=")?);
        let key = KeyPair::from_pem(&read("ssl-key=")?)?;
        let config = tls::client_config(ClientTls {
            roots: Roots::Pem(&ca),
            identity: Some((&chain, &key)),
            alpn: &[],
        })?;
        let mut stream = TcpStream::connect(lab.mysql_addr()).await?;
        let mut buffer = BytesMut::new();
        let greeting = Greeting::parse(&next(&mut stream, &mut buffer).await?.payload)?;
        ensure!(greeting.capabilities.has(Capabilities::SSL), "{greeting:?}");
        let answer = Answer {
            capabilities: Capabilities::COMMON,
            packet_bytes_max: 1 << 24,
            charset: 45,
            user: "reader".to_owned(),
            proof: Bytes::new(),
            database: Some("sales".to_owned()),
            plugin: Some(NATIVE_PASSWORD.to_owned()),
            attributes: Bytes::from_static(b"\x0cprogram_name\x03raw"),
        };
        stream.write_all(&answer.ssl_request(1)).await?;
        let name = ServerName::try_from(of("host=")?)?;
        let mut tls = TlsConnector::from(config).connect(name, stream).await?;
        tls.write_all(&answer.encode(2)).await?;
        let mut raw = Self {
            tls,
            buffer: BytesMut::new(),
        };
        let ok = raw.next().await?;
        ensure!(
            ok.payload.first() == Some(&reply::OK),
            "{:?}",
            ServerError::parse(&ok.payload)
        );
        Ok(raw)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.tls.write_all(bytes).await?;
        Ok(self.tls.flush().await?)
    }

    async fn next(&mut self) -> Result<Packet> {
        next(&mut self.tls, &mut self.buffer).await
    }
}

async fn next(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<Packet> {
    loop {
        if let Some(packet) = take_packet(buffer, HANDSHAKE_BYTES_MAX)? {
            return Ok(packet);
        }
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "the connection was closed"
        );
    }
}

/// The option file that `tg db login` names.
pub(crate) fn option_file(said: &str) -> Result<String> {
    let path = said
        .lines()
        .map(str::trim)
        .find(|line| line.ends_with(".cnf"));
    Ok(std::fs::read_to_string(
        path.with_context(|| said.to_owned())?,
    )?)
}

#[tokio::test]
async fn prepared_statements_pass_and_a_change_of_user_does_not() -> Result<()> {
    let lab = lab().await?;
    let alice = lab.person("alice", "reader", "*").await?;
    let mut raw = Raw::connect(&lab, &alice).await?;

    raw.send(&command(Code::STMT_PREPARE, "SELECT 6 * ?"))
        .await?;
    let prepared = raw.next().await?;
    ensure!(prepared.payload.first() == Some(&reply::OK), "{prepared:?}");
    let id = &prepared.payload[1..5];
    // The definitions of one parameter and one column; behind them no EOF, as was agreed.
    for _ in 0..2 {
        raw.next().await?;
    }
    let execute = packet(0, |out| {
        out.extend_from_slice(&[Code::STMT_EXECUTE]);
        out.extend_from_slice(id);
        // No cursor, once; no NULL; one parameter of type BIGINT: 7.
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 1, 8, 0]);
        out.extend_from_slice(&7_u64.to_le_bytes());
    });
    raw.send(&execute).await?;
    let (_columns, _definition, row) = (raw.next().await?, raw.next().await?, raw.next().await?);
    ensure!(
        row.payload[2..10] == 42_u64.to_le_bytes(),
        "{:?}",
        row.payload
    );
    raw.next().await?;
    let prepared = until_audited(&lab, "db.session.mysql.statements.prepare", |_| true).await?;
    ensure!(
        prepared.code == "TMY00I" && prepared.fields["db_query"] == "SELECT 6 * ?",
        "{prepared:?}"
    );
    until_audited(&lab, "db.session.mysql.statements.execute", |_| true).await?;

    raw.send(&command(Code::CHANGE_USER, "root\0\0")).await?;
    let refused = raw.next().await?;
    let error = ServerError::parse(&refused.payload).context("no error")?;
    ensure!((refused.sequence, error.code) == (1, 1045), "{error:?}");
    ensure!(raw.next().await.is_err(), "the session goes on");
    let ended = until_audited(&lab, "db.session.end", |_| true).await?;
    ensure!(ended.fields["cause"] == "refused", "{ended:?}");
    // The proxy waits for clients that have not hung up yet.
    drop(raw);
    lab.stop().await
}
