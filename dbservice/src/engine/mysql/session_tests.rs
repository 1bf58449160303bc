//! Sessions from both ends: a client over TLS in memory, the engine, and a scripted database over TLS on loopback.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use tidegate_core::Protocol;
use tidegate_identity::{ALPN_MYSQL, KeyPair, tls};
use tidegate_wire::mysql::{
    Capabilities,
    command::{Code, command},
    handshake::{self, Answer, CLEAR_PASSWORD, First, Greeting, NATIVE_PASSWORD},
    packet::Packet,
    reply::{self, ServerError},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{packets, serve};
use crate::{
    engine::{
        Incoming,
        postgres::session_tests::{Bed, CLUSTER, TTL, WAIT, cluster},
    },
    wanted::Wanted,
};

const DATABASE: Capabilities = Capabilities(Capabilities::COMMON.0 | Capabilities::SSL.0);
pub(super) const THREAD: u32 = 4711;

pub(super) async fn bed() -> Bed {
    bed_with(|_| ()).await
}

async fn bed_with(change: impl FnOnce(&mut Wanted)) -> Bed {
    Bed::with(Ok(()), |wanted| {
        Arc::make_mut(&mut wanted.database).protocol = Protocol::Mysql;
        change(wanted);
    })
    .await
}

pub(super) type Client = client::TlsStream<DuplexStream>;
pub(super) type Database = server::TlsStream<TcpStream>;

/// A client inside TLS; `in_tunnel` as `tg` does it, else as one that the proxy has greeted.
async fn connect(bed: &Bed, in_tunnel: bool, known: bool) -> (Client, JoinHandle<()>) {
    connect_as(bed, in_tunnel, known, 0).await
}

/// The same, with the number that the proxy greeted it with.
pub(super) async fn connect_as(
    bed: &Bed,
    in_tunnel: bool,
    known: bool,
    greeted_as: u32,
) -> (Client, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(256 << 10);
    let incoming = Incoming {
        stream: far,
        tls: bed.tls.clone(),
        serving: bed.serving.clone(),
        client_addr: "192.0.2.7:5000".to_owned(),
        ahead: None,
    };
    let engine = bed.engine.clone();
    let serving = tokio::spawn(async move { serve(&engine, incoming, greeted_as).await });
    let identity = bed.alice();
    let config = tls::client_config(tls::ClientTls {
        roots: tls::Roots::Pem(bed.db_ca.cert_pem()),
        identity: known.then_some((identity.0.as_str(), &identity.1)),
        alpn: if in_tunnel { &[ALPN_MYSQL] } else { &[] },
    })
    .unwrap();
    let name = ServerName::try_from(format!("orders.db.{CLUSTER}")).unwrap();
    let stream = TlsConnector::from(config)
        .connect(name, near)
        .await
        .unwrap();
    (stream, serving)
}

pub(super) async fn next<S: AsyncRead + Unpin>(stream: &mut S) -> Packet {
    // One at a time, so that nothing behind it is read.
    let mut header = [0; 4];
    let reading = async {
        stream.read_exact(&mut header).await.unwrap();
        let len = usize::from(header[0]) + (usize::from(header[1]) << 8);
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).await.unwrap();
        Packet {
            sequence: header[3],
            payload: payload.into(),
        }
    };
    timeout(WAIT, reading).await.unwrap()
}

pub(super) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

pub(super) async fn error(client: &mut Client) -> (u8, u16, String) {
    let packet = next(client).await;
    let error = ServerError::parse(&packet.payload).expect("an error");
    (packet.sequence, error.code, error.message.into_owned())
}

pub(super) fn answer(user: &str, database: Option<&str>) -> Answer {
    let with_db = match database {
        Some(_) => Capabilities::default(),
        None => Capabilities::CONNECT_WITH_DB,
    };
    Answer {
        capabilities: Capabilities::COMMON.without(with_db),
        packet_bytes_max: 1 << 24,
        charset: 45,
        user: user.to_owned(),
        proof: Bytes::new(),
        database: database.map(str::to_owned),
        plugin: Some(NATIVE_PASSWORD.to_owned()),
        attributes: Bytes::from_static(b"\x0cprogram_name\x05mysql"),
    }
}

fn greeting(capabilities: Capabilities) -> Greeting {
    Greeting {
        server_version: Bytes::from_static(b"8.0.36"),
        thread_id: THREAD,
        scramble: *b"12345678901234567890",
        capabilities,
        charset: 45,
        status: 2,
        plugin: "AWSAuthenticationPlugin".to_owned(),
    }
}

pub(super) async fn greets(bed: &Bed) -> TcpStream {
    let (mut stream, _) = bed.database.accept().await.unwrap();
    send(&mut stream, &greeting(DATABASE).encode()).await;
    stream
}

/// The database's end, inside TLS, with what the agent asked for before.
async fn secures(bed: &Bed, mut stream: TcpStream) -> (Database, Capabilities) {
    let request = next(&mut stream).await;
    assert_eq!(request.sequence, 1);
    let Ok(First::SslRequest(capabilities)) = First::parse(&request.payload) else {
        panic!("a request for TLS")
    };
    let key = KeyPair::generate().unwrap();
    let issued = bed
        .db_ca
        .issue_database_server(&key.public_key_der(), &cluster(), Timestamp::now(), TTL)
        .unwrap();
    let config = tls::server_config(tls::ServerTls {
        chain_pem: &issued.chain_pem,
        key: &key,
        clients: tls::ClientAuth::None,
        alpn: &[],
    })
    .unwrap();
    let stream = TlsAcceptor::from(config).accept(stream).await.unwrap();
    (stream, capabilities)
}

/// Lets the agent in as RDS does: after a switch to the password in clear.
pub(super) async fn welcomes(bed: &Bed, stream: TcpStream) -> (Database, Answer) {
    welcomes_with(bed, stream, "minted").await
}

async fn welcomes_with(bed: &Bed, stream: TcpStream, password: &str) -> (Database, Answer) {
    let (mut stream, capabilities) = secures(bed, stream).await;
    let first = next(&mut stream).await;
    let Ok(First::Answer(answer)) = First::parse(&first.payload) else {
        panic!("an answer")
    };
    assert_eq!((first.sequence, answer.capabilities), (2, capabilities));
    assert!(answer.proof.is_empty(), "nothing is proven unasked");
    send(&mut stream, &handshake::switch(3, CLEAR_PASSWORD, b"")).await;
    let proof = next(&mut stream).await;
    let proven = format!("{password}\0");
    assert_eq!((proof.sequence, &proof.payload[..]), (4, proven.as_bytes()));
    send(&mut stream, &reply::ok(5)).await;
    (stream, answer)
}

pub(super) async fn session(bed: &Bed) -> (Client, Database, JoinHandle<()>) {
    let (mut client, serving) = connect(bed, true, true).await;
    let database = greets(bed).await;
    next(&mut client).await;
    send(&mut client, &answer("reader", Some("app")).encode(1)).await;
    let (database, _) = welcomes(bed, database).await;
    let ok = next(&mut client).await;
    assert_eq!((ok.sequence, ok.payload[0]), (2, reply::OK));
    (client, database, serving)
}

#[tokio::test]
async fn a_client_in_a_tunnel_is_greeted_in_the_databases_words_and_audited_to_its_end() {
    let mut bed = bed().await;
    let (mut client, serving) = connect(&bed, true, true).await;
    let database = greets(&bed).await;
    let greeted = Greeting::parse(&next(&mut client).await.payload).unwrap();
    assert_eq!(
        (greeted.thread_id, &greeted.server_version[..]),
        (THREAD, &b"8.0.36"[..])
    );
    assert!(!greeted.capabilities.has(Capabilities::SSL));
    assert_ne!(greeted.scramble, greeting(DATABASE).scramble);

    send(&mut client, &answer("reader", Some("app")).encode(1)).await;
    let (mut database, asked) = welcomes(&bed, database).await;
    assert_eq!(
        (asked.user.as_str(), asked.database.as_deref()),
        ("IAM:reader", Some("app"))
    );
    assert_eq!(asked.attribute("program_name").as_deref(), Some("mysql"));
    assert_eq!(next(&mut client).await.sequence, 2);

    send(&mut client, &command(Code::QUERY, "select 1")).await;
    assert_eq!(&next(&mut database).await.payload[1..], b"select 1");
    send(&mut database, &reply::ok(1)).await;
    assert_eq!(next(&mut client).await.sequence, 1);
    send(&mut client, &command(Code::QUIT, "")).await;
    assert_eq!(next(&mut database).await.payload[0], Code::QUIT);
    drop((client, database));
    timeout(WAIT, serving).await.unwrap().unwrap();

    let (start, query, end) = (bed.event(), bed.event(), bed.event());
    assert_eq!(
        [&start.code, &query.code, &end.code],
        ["TDB00I", "TDB02I", "TDB01I"]
    );
    assert_eq!(start.fields["user_agent"], "mysql");
    assert_eq!(start.fields["db_protocol"], "mysql");
    assert_eq!(query.fields["db_query"], "select 1");
    assert_eq!(end.fields["cause"], "client_terminated");
}

#[tokio::test]
async fn a_client_that_the_proxy_greeted_goes_on_behind_its_request_for_tls() {
    let bed = bed().await;
    let (mut client, _serving) = connect(&bed, false, true).await;
    send(&mut client, &answer("reader", None).encode(2)).await;
    let (_database, asked) = welcomes(&bed, greets(&bed).await).await;
    assert_eq!(asked.database, None);
    let ok = next(&mut client).await;
    assert_eq!((ok.sequence, ok.payload[0]), (3, reply::OK));
}

#[tokio::test]
async fn a_client_that_compresses_unasked_is_told_so_instead_of_waiting_for_ever() {
    let bed = bed().await;
    let (mut client, serving) = connect(&bed, false, true).await;
    let asked = answer("reader", None);
    let asked = Answer {
        capabilities: asked.capabilities | Capabilities::COMPRESS,
        ..asked
    };
    send(&mut client, &asked.encode(2)).await;
    let (sequence, code, text) = error(&mut client).await;
    assert_eq!((sequence, code), (3, 1047));
    assert!(text.contains("without compression"), "{text}");
    drop(client);
    serving.await.unwrap();
}

#[tokio::test]
async fn who_is_denied_is_told_and_audited() {
    let mut bed = bed().await;
    let (mut client, serving) = connect(&bed, false, true).await;
    send(&mut client, &answer("admin", Some("app")).encode(2)).await;
    let (sequence, code, message) = error(&mut client).await;
    assert_eq!((sequence, code), (3, 1045));
    assert!(message.contains("orders") && message.contains("ask an administrator"));
    drop(client);
    serving.await.unwrap();
    let event = bed.event();
    assert_eq!(
        (event.code.as_str(), event.db_user.as_str()),
        ("TDB00W", "admin")
    );
}

#[tokio::test]
async fn without_a_certificate_there_is_an_error_instead_of_a_greeting() {
    let bed = bed().await;
    let (mut client, _serving) = connect(&bed, true, false).await;
    let (sequence, code, message) = error(&mut client).await;
    assert_eq!((sequence, code), (0, 1045));
    assert!(message.contains("tg db connect"), "{message}");
}

#[tokio::test]
async fn the_databases_refusal_reaches_the_client_in_its_place() {
    let bed = bed().await;
    let (mut client, _serving) = connect(&bed, true, true).await;
    let database = greets(&bed).await;
    next(&mut client).await;
    send(&mut client, &answer("reader", None).encode(1)).await;
    let (mut database, _) = secures(&bed, database).await;
    next(&mut database).await;
    let state = tidegate_wire::SqlState::INVALID_AUTHORIZATION;
    send(&mut database, &reply::error(3, 1045, state, "not yours")).await;
    assert_eq!(error(&mut client).await, (2, 1045, "not yours".to_owned()));
}

#[tokio::test]
async fn a_kept_password_that_the_database_takes_no_longer_is_replaced_within_the_login() {
    let bed = bed().await.and_another("another");
    let (mut client, _serving) = connect(&bed, true, true).await;
    let database = greets(&bed).await;
    next(&mut client).await;
    send(&mut client, &answer("reader", Some("app")).encode(1)).await;
    let (mut database, _) = secures(&bed, database).await;
    next(&mut database).await;
    let state = tidegate_wire::SqlState::INVALID_AUTHORIZATION;
    send(&mut database, &reply::error(3, 1045, state, "not yours")).await;
    let (_database, asked) = welcomes_with(&bed, greets(&bed).await, "another").await;
    assert_eq!(asked.database.as_deref(), Some("app"));
    let ok = next(&mut client).await;
    assert_eq!((ok.sequence, ok.payload[0]), (2, reply::OK));
}

#[tokio::test]
async fn a_database_without_tls_gets_no_login() {
    let bed = bed().await;
    let (mut client, _serving) = connect(&bed, true, true).await;
    let (mut stream, _) = bed.database.accept().await.unwrap();
    send(&mut stream, &greeting(Capabilities::COMMON).encode()).await;
    let (_, _, message) = error(&mut client).await;
    assert!(message.contains("no TLS"), "{message}");
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_paused_database_says_that_it_is_paused() {
    let bed = bed_with(|wanted| {
        Arc::make_mut(&mut wanted.database).unavailable = "stopped".to_owned();
    })
    .await;
    let (mut client, _serving) = connect(&bed, true, true).await;
    let (_, code, message) = error(&mut client).await;
    assert_eq!(code, 1053);
    assert!(message.contains("stopped"), "{message}");
}

#[tokio::test]
async fn what_the_database_cannot_do_is_not_offered_and_an_old_one_is_told() {
    let bed = bed().await;
    let old = DATABASE.without(Capabilities::DEPRECATE_EOF);
    let (mut client, _serving) = connect(&bed, true, true).await;
    let (mut stream, _) = bed.database.accept().await.unwrap();
    send(&mut stream, &greeting(old).encode()).await;
    let greeted = Greeting::parse(&next(&mut client).await.payload).unwrap();
    assert!(!greeted.capabilities.has(Capabilities::DEPRECATE_EOF));

    let (mut client, _serving) = connect(&bed, false, true).await;
    send(&mut client, &answer("reader", None).encode(2)).await;
    let (mut stream, _) = bed.database.accept().await.unwrap();
    send(&mut stream, &greeting(old).encode()).await;
    let (_, _, message) = error(&mut client).await;
    assert!(message.contains("too old"), "{message}");
}

#[tokio::test]
async fn a_change_of_user_is_refused_and_never_reaches_the_database() {
    let mut bed = bed().await;
    let (mut client, mut database, serving) = session(&bed).await;
    send(&mut client, &command(Code::CHANGE_USER, "root\0\0")).await;
    let (sequence, code, message) = error(&mut client).await;
    assert_eq!((sequence, code), (1, 1045));
    assert!(message.contains("cannot be changed"), "{message}");
    drop(client);
    let mut rest = Vec::new();
    // However the connection ends, nothing was said on it.
    let _ = timeout(WAIT, database.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    serving.await.unwrap();
    let (_start, end) = (bed.event(), bed.event());
    assert_eq!(end.fields["cause"], "refused");
}

#[tokio::test]
async fn a_session_that_is_ended_is_told_why_and_the_database_hears_goodbye() {
    let bed = bed().await;
    let (mut client, mut database, serving) = session(&bed).await;
    bed.serving.ended.cancel();
    let (sequence, code, message) = error(&mut client).await;
    assert_eq!((sequence, code), (1, 1053));
    assert!(message.contains("connect again"), "{message}");
    assert_eq!(next(&mut database).await.payload[0], Code::QUIT);
    drop((client, database));
    timeout(WAIT, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_of_another_protocol_is_told_so_in_its_own() {
    let bed = bed().await;
    let (mut client, _serving) = connect(&bed, false, true).await;
    let startup =
        tidegate_wire::startup::StartupMessage::new(tidegate_wire::startup::ProtocolVersion::V3_0)
            .with_param("user", "reader");
    send(&mut client, &startup.encode()).await;
    let mut words = Vec::new();
    client.read_to_end(&mut words).await.unwrap();
    let error = tidegate_wire::backend::ErrorResponse::parse(&words[5..]);
    assert!(error.message.contains("speaks MySQL"), "{}", error.message);
}

#[tokio::test]
async fn a_packet_that_is_cut_short_is_told_from_one_that_is_too_long() {
    let mut buffer = BytesMut::new();
    let closed = packets::next(&mut &[5, 0, 0, 1, 9][..], &mut buffer).await;
    assert!(matches!(closed, Err(packets::ReadError::Closed)));
    buffer.clear();
    let long = packets::next(&mut &[0, 0, 0x10, 1, 9][..], &mut buffer).await;
    assert!(matches!(long, Err(packets::ReadError::TooLong(_))));
}
