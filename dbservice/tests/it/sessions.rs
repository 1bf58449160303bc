//! Sessions, from a proxy's request to dial back to their audit.

use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::ServerName;
use tidegate_identity::{
    HOST_CERT_TTL, KeyPair,
    tls::{self, ClientAuth, ClientTls, Roots, ServerTls},
};
use tidegate_proto::v1::{self, control_request, control_response};
use tidegate_wire::{
    backend::{ErrorResponse, TxStatus, authentication_ok, ready_for_query},
    frontend,
    startup::{CancelRequest, ProtocolVersion, SSL_REQUEST, StartupMessage},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::world::{Cas, Line, World, patiently};

const TOKEN: [u8; 16] = *b"0123456789abcdef";

fn dial(line: &Line, route: &str) {
    line.tell(control_response::Message::Dial(v1::Dial {
        token: TOKEN.to_vec(),
        route: route.to_owned(),
        client_addr: "192.0.2.7:5000".to_owned(),
        greeted_as: 0,
        last: false,
    }));
}

async fn refused(line: &mut Line) -> String {
    match line.next().await {
        control_request::Message::DialRefused(refused) => {
            assert_eq!(refused.token, TOKEN);
            refused.reason
        }
        other => panic!("{other:?}"),
    }
}

/// An agent that has its certificate, and a line to it.
pub(crate) async fn ready() -> (World, Line) {
    let mut world = World::start().await;
    let line = world.line().await;
    patiently(async {
        while !world.readiness.is_ready() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    (world, line)
}

/// The database's end of the next connection that speaks.
pub(crate) async fn database_end(
    cas: &Cas,
    listener: &TcpListener,
) -> server::TlsStream<TcpStream> {
    let key = KeyPair::generate().unwrap();
    let issued = cas
        .db
        .issue_database_server(
            &key.public_key_der(),
            &cas.cluster,
            Timestamp::now(),
            HOST_CERT_TTL,
        )
        .unwrap();
    let config = tls::server_config(ServerTls {
        chain_pem: &issued.chain_pem,
        key: &key,
        clients: ClientAuth::None,
        alpn: &[],
    })
    .unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        // Most health checks connect and say nothing.
        if stream.read_exact(&mut request).await.is_ok() {
            assert_eq!(request, SSL_REQUEST);
            stream.write_all(b"S").await.unwrap();
            return TlsAcceptor::from(config).accept(stream).await.unwrap();
        }
    }
}

async fn client_end(world: &World, stream: TcpStream) -> client::TlsStream<TcpStream> {
    let (chain, key) = world.cas.alice();
    let config = tls::client_config(ClientTls {
        roots: Roots::Pem(world.cas.db.cert_pem()),
        identity: Some((&chain, &key)),
        alpn: &[],
    })
    .unwrap();
    let name = ServerName::try_from(format!("own.db.{}", world.cas.cluster)).unwrap();
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .unwrap()
}

pub(crate) async fn message<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> (u8, Vec<u8>) {
    patiently(async {
        let tag = stream.read_u8().await.unwrap();
        let len = stream.read_u32().await.unwrap() as usize;
        let mut body = vec![0; len - 4];
        stream.read_exact(&mut body).await.unwrap();
        (tag, body)
    })
    .await
}

/// Alice's session with `own` that was just begun: her end, and the database's.
pub(crate) async fn open(
    world: &mut World,
    line: &Line,
) -> (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>) {
    dial(line, "own");
    let listener = world.database.take().unwrap();
    let cas = Arc::clone(&world.cas);
    let (mut database, dialled) =
        patiently(async { tokio::join!(database_end(&cas, &listener), world.dialled.recv()) })
            .await;
    let (token, stream) = dialled.unwrap();
    world.database = Some(listener);
    assert_eq!(token, TOKEN);
    let mut client = client_end(world, stream).await;
    let startup = StartupMessage::new(ProtocolVersion::V3_0)
        .with_param("user", "app")
        .with_param("database", "dev");
    client.write_all(&startup.encode()).await.unwrap();
    let len = database.read_u32().await.unwrap() as usize;
    database.read_exact(&mut vec![0; len - 4]).await.unwrap();
    let welcome = [&authentication_ok()[..], &ready_for_query(TxStatus::Idle)].concat();
    database.write_all(&welcome).await.unwrap();
    assert_eq!(message(&mut client).await.0, b'R');
    assert_eq!(message(&mut client).await.0, b'Z');
    (client, database)
}

#[tokio::test]
async fn a_session_over_a_dialled_back_connection_reaches_the_database_and_the_audit() {
    let (mut world, line) = ready().await;
    let (mut client, mut database) = open(&mut world, &line).await;
    client
        .write_all(&frontend::query("select 1"))
        .await
        .unwrap();
    assert_eq!(message(&mut database).await.0, b'Q');
    client.write_all(&frontend::terminate()).await.unwrap();
    assert_eq!(message(&mut database).await.0, b'X');
    drop((client, database));

    let mut codes = Vec::new();
    for _ in 0..3 {
        let event = patiently(world.seen.events.recv()).await.unwrap();
        assert_eq!(
            (event.user.as_str(), event.db_service.as_str()),
            ("alice", "own")
        );
        codes.push(event.code);
    }
    assert_eq!(codes, ["TDB00I", "TDB02I", "TDB01I"]);
}

#[tokio::test]
async fn an_unknown_route_is_refused() {
    let (_world, mut line) = ready().await;
    dial(&line, "elsewhere");
    assert!(refused(&mut line).await.contains("no database"));
}

#[tokio::test]
async fn an_agent_that_cannot_reach_the_database_leaves_the_session_to_another() {
    let (mut world, mut line) = ready().await;
    world.database = None;
    dial(&line, "own");
    assert!(refused(&mut line).await.contains("own"));
    assert!(
        world.dialled.try_recv().is_err(),
        "the proxy was not dialled back"
    );
}

#[tokio::test]
async fn the_last_agent_that_is_asked_tells_the_client_that_it_cannot_reach_the_database() {
    let (mut world, line) = ready().await;
    world.database = None;
    line.tell(control_response::Message::Dial(v1::Dial {
        token: TOKEN.to_vec(),
        route: "own".to_owned(),
        client_addr: "192.0.2.7:5000".to_owned(),
        greeted_as: 0,
        last: true,
    }));
    let (_, stream) = patiently(world.dialled.recv()).await.unwrap();
    let mut client = client_end(&world, stream).await;
    let startup = StartupMessage::new(ProtocolVersion::V3_0)
        .with_param("user", "app")
        .with_param("database", "dev");
    client.write_all(&startup.encode()).await.unwrap();
    let (tag, body) = message(&mut client).await;
    assert_eq!(tag, b'E');
    let error = ErrorResponse::parse(&body);
    assert!(error.message.contains("own"), "{error:?}");
    assert_eq!(error.code.as_str(), "08006");
    // The health of the database is audited too.
    let event = patiently(async {
        loop {
            let event = world.seen.events.recv().await.unwrap();
            if event.event == "db.session.start" {
                return event;
            }
        }
    })
    .await;
    assert_eq!(
        (event.user.as_str(), event.code.as_str()),
        ("alice", "TDB00W")
    );
}

#[tokio::test]
async fn a_ping_is_answered() {
    let (_world, mut line) = ready().await;
    line.tell(control_response::Message::Ping(v1::Ping {}));
    assert!(matches!(
        line.next().await,
        control_request::Message::Pong(_)
    ));
}

#[tokio::test]
async fn a_proxy_that_ends_has_its_sessions_ended_with_a_reason() {
    let (mut world, line) = ready().await;
    let (mut client, _database) = open(&mut world, &line).await;

    line.tell(control_response::Message::EndSessions(v1::EndSessions {
        within_ms: 1_000,
    }));

    let (tag, body) = message(&mut client).await;
    let error = ErrorResponse::parse(&body);
    assert_eq!((tag, error.code.as_str()), (b'E', "57P01"));
    assert!(
        error.message.contains("the proxy shuts down"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_proxy_that_drains_keeps_its_line_and_its_address_is_connected_to_again() {
    let (mut world, line) = ready().await;
    let (mut client, _database) = open(&mut world, &line).await;

    line.tell(control_response::Message::Draining(v1::ProxyDraining {}));

    let _successor = world.line().await;
    // The session came over the line before, and the process is the same one.
    line.tell(control_response::Message::EndSessions(v1::EndSessions {
        within_ms: 1_000,
    }));
    assert_eq!(message(&mut client).await.0, b'E');
}

#[tokio::test]
async fn a_cancel_request_inside_tls_for_another_agent_goes_to_a_proxy() {
    let (mut world, mut line) = ready().await;
    dial(&line, "own");
    let (_, stream) = patiently(world.dialled.recv()).await.unwrap();
    let mut client = client_end(&world, stream).await;
    let key = CancelRequest {
        process_id: (line.cancel_prefix ^ 1) << 18,
        secret: b"abcd"[..].into(),
    };
    client.write_all(&key.encode()).await.unwrap();

    let said = line.next().await;
    let control_request::Message::CancelElsewhere(asked) = said else {
        panic!("{said:?}")
    };
    assert_eq!(
        (asked.process_id, &*asked.secret),
        (key.process_id, &b"abcd"[..])
    );
    assert_eq!(asked.client_addr, "192.0.2.7:5000");
}
