//! Clients that must not get in, and bytes that no client should send: a well-formed answer, and the proxy serves on.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use tidegate_e2e::{Lab, Part, Person, lab, wait};
use tidegate_identity::{CaKind, CertificateAuthority, KeyPair, UserHolder, UserLeaf};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use crate::main_job::world;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

async fn ready() -> Result<(Lab, Person)> {
    let lab = Lab::start_in(
        world()?,
        &[Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA],
    )
    .await?;
    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "reader", "dev").await?;
    Ok((lab, alice))
}

/// What a failing psql says.
async fn refused(client: &BTreeMap<String, String>) -> Result<String> {
    let output = Command::new("psql")
        .args(["-X", "-c", "SELECT 1"])
        .envs(client)
        .output()
        .await?;
    ensure!(!output.status.success(), "psql got in");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Sends bytes to the proxy and reads what it answers until it closes.
async fn answer(lab: &Lab, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(lab.proxy_addr()).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(wait::PATIENCE, stream.read_to_end(&mut answer))
        .await?
        .ok(); // a reset ends it too
    Ok(answer)
}

/// A fatal ErrorResponse with this SQLSTATE, as frames on the wire.
fn is_fatal(answer: &[u8], sqlstate: &str) -> bool {
    answer.first() == Some(&b'E')
        && answer.windows(6).any(|field| field == b"SFATAL")
        && answer
            .windows(6)
            .any(|field| field[0] == b'C' && &field[1..] == sqlstate.as_bytes())
}

#[tokio::test]
async fn roles_and_certificates_decide_who_gets_in() -> Result<()> {
    let (lab, alice) = ready().await?;
    ensure!(lab.query(&alice, "analytics", "reader", "SELECT 1").await? == "1");
    let client = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;

    // A database user that no role of hers allows.
    let denied = lab
        .query(&alice, "analytics", "awsuser", "SELECT 1")
        .await
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    ensure!(denied.contains("awsuser"), "{denied}");
    let other_user: BTreeMap<_, _> = client
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain([("PGUSER".to_owned(), "awsuser".to_owned())])
        .collect();
    let text = refused(&other_user).await?;
    ensure!(text.contains("FATAL") && text.contains("awsuser"), "{text}");
    let denials = wait::until("the audit of a denial", || async {
        let events = lab
            .audit("db.session.start")
            .await
            .map_err(|error| format!("{error:#}"))?;
        let denials: Vec<_> = events.into_iter().filter(|event| !event.success).collect();
        if denials.is_empty() {
            Err("no failed start".to_owned())
        } else {
            Ok(denials)
        }
    })
    .await?;
    ensure!(
        denials
            .iter()
            .all(|event| event.code == "TDB00W" && event.user == "alice"),
        "{denials:?}"
    );

    // Without a certificate.
    let home = lab.dir().join("nobody");
    std::fs::create_dir_all(&home)?;
    let mut nobody: BTreeMap<_, _> = client
        .iter()
        .filter(|(key, _)| *key != "PGSSLCERT" && *key != "PGSSLKEY")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    nobody.insert("HOME".to_owned(), home.display().to_string());
    let text = refused(&nobody).await?;
    ensure!(
        text.contains("FATAL") && text.contains("certificate"),
        "{text}"
    );

    // With certificates of another CA, and with an expired one of another CA: a TLS alert.
    for ttl in [3600, 1] {
        let (cert, key) = foreign_certificate(&lab, ttl)?;
        let mut foreign = client.clone();
        foreign.extend([("PGSSLCERT".to_owned(), cert), ("PGSSLKEY".to_owned(), key)]);
        let text = refused(&foreign).await?;
        ensure!(
            text.contains("alert") || text.contains("SSL error"),
            "{text}"
        );
    }

    // For a route that nobody serves.
    let mut unknown = client.clone();
    unknown.insert("PGHOST".to_owned(), format!("nothing.db.{}", lab::CLUSTER));
    unknown.insert("PGSSLMODE".to_owned(), "require".to_owned());
    unknown.remove("PGSSLROOTCERT");
    let text = refused(&unknown).await?;
    ensure!(text.contains("FATAL") && text.contains("nothing"), "{text}");

    // Without TLS.
    let mut plain = client.clone();
    plain.insert("PGSSLMODE".to_owned(), "disable".to_owned());
    let text = refused(&plain).await?;
    ensure!(text.contains("FATAL") && text.contains("TLS"), "{text}");

    ensure!(
        lab.query(&alice, "analytics", "reader", "SELECT 5").await? == "5",
        "the proxy serves on"
    );
    lab.stop().await
}

#[tokio::test]
async fn broken_start_ups_get_a_well_formed_error() -> Result<()> {
    let (lab, alice) = ready().await?;
    // A start-up message whose length is a lie: longer than any may be, and too short to be one.
    ensure!(is_fatal(
        &answer(&lab, &[0x10, 0, 0, 0, 0, 3, 0, 0]).await?,
        "08P01"
    ));
    ensure!(is_fatal(
        &answer(&lab, &[0, 0, 0, 4, 0, 3, 0, 0]).await?,
        "08P01"
    ));
    // A second SSLRequest, sent blindly behind the first, and instead of a ClientHello.
    ensure!(is_fatal(
        &answer(&lab, &[SSL_REQUEST, SSL_REQUEST].concat()).await?,
        "08P01"
    ));
    let mut stream = TcpStream::connect(lab.proxy_addr()).await?;
    stream.write_all(&SSL_REQUEST).await?;
    ensure!(stream.read_u8().await? == b'S');
    stream.write_all(&SSL_REQUEST).await?;
    let mut said = Vec::new();
    tokio::time::timeout(wait::PATIENCE, stream.read_to_end(&mut said))
        .await?
        .ok(); // a reset ends it too
    ensure!(is_fatal(&said, "08P01"), "{said:?}");
    // A plaintext start-up.
    let plain = [&[0, 0, 0, 17, 0, 3, 0, 0][..], b"user\0bob\0"].concat();
    let plain = [
        &(plain.len() as u32 + 1).to_be_bytes()[..],
        &plain[4..],
        &[0],
    ]
    .concat();
    ensure!(
        is_fatal(&answer(&lab, &plain).await?, "28000"),
        "{:?}",
        answer(&lab, &plain).await?
    );
    // Noise.
    answer(&lab, b"GET / HTTP/1.1\r\n\r\n").await?;
    answer(&lab, &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]).await.ok();

    ensure!(
        lab.query(&alice, "analytics", "reader", "SELECT 6").await? == "6",
        "the proxy serves on"
    );
    lab.stop().await
}

/// A certificate for alice that another cluster's CA signed; files of certificate and key.
fn foreign_certificate(lab: &Lab, ttl_seconds: u64) -> Result<(String, String)> {
    let cluster = lab::CLUSTER.parse()?;
    let then = Timestamp::from_second(
        Timestamp::now().as_second() - if ttl_seconds == 1 { 3600 } else { 0 },
    )?;
    let ca = CertificateAuthority::create(CaKind::User, &cluster, then)?;
    let key = KeyPair::generate()?;
    let user = UserHolder {
        name: "alice".to_owned(),
        roles: vec!["access".to_owned()],
        traits: BTreeMap::new(),
        route: None,
        access_requests: Vec::new(),
        login: None,
    };
    let leaf = UserLeaf {
        public_key: &key.public_key_der(),
        cluster: &cluster,
        user: &user,
    };
    let issued = ca.issue_user(leaf, then, std::time::Duration::from_secs(ttl_seconds))?;
    let (cert, key_file) = (lab.dir().join("foreign.pem"), lab.dir().join("foreign.key"));
    std::fs::write(&cert, issued.chain_pem)?;
    std::fs::write(&key_file, key.to_pem().expose_secret())?;
    std::fs::set_permissions(
        &key_file,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )?;
    Ok((cert.display().to_string(), key_file.display().to_string()))
}
