//! MySQL clients: greeted on their own port, or inside TLS by ALPN; relayed like all others, and told why not in MySQL's
//! words.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls_pki_types::ServerName;
use tidegate_identity::{
    ALPN_MYSQL,
    tls::{self, ClientTls, Roots},
};
use tidegate_wire::mysql::{
    Capabilities,
    handshake::{Answer, Greeting},
    packet::{HANDSHAKE_BYTES_MAX, Packet, take_packet},
    reply::ServerError,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    agent::{Agent, Manner},
    client::{Client, rest},
    world::{PATIENCE, World},
};

const HOST: &str = "orders.db.tide.test";

fn answer() -> Answer {
    Answer {
        capabilities: Capabilities::COMMON,
        packet_bytes_max: 1 << 24,
        charset: 45,
        user: "reader".to_owned(),
        proof: Bytes::new(),
        database: None,
        plugin: None,
        attributes: Bytes::new(),
    }
}

async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Packet {
    let mut buffer = BytesMut::new();
    let reading = async {
        loop {
            if let Some(packet) = take_packet(&mut buffer, HANDSHAKE_BYTES_MAX).unwrap() {
                return packet;
            }
            buffer.extend_from_slice(&[stream.read_u8().await.unwrap()]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

/// A client that was greeted and asked for TLS.
async fn greeted(world: &World, host: Option<&str>, roots: Roots<'_>) -> TlsStream<TcpStream> {
    let mut stream = TcpStream::connect(world.mysql).await.unwrap();
    let greeting = Greeting::parse(&next(&mut stream).await.payload).unwrap();
    assert_eq!(&greeting.server_version[..], b"8.0.0-test");
    assert!(greeting.capabilities.has(Capabilities::SSL));
    stream.write_all(&answer().ssl_request(1)).await.unwrap();
    let config = tls::client_config(ClientTls {
        roots,
        identity: None,
        alpn: &[],
    });
    let mut config = rustls::ClientConfig::clone(&config.unwrap());
    config.enable_sni = host.is_some();
    let name = ServerName::try_from(host.unwrap_or(HOST).to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    tokio::time::timeout(PATIENCE, connecting)
        .await
        .unwrap()
        .unwrap()
}

async fn refused(stream: &mut (impl AsyncRead + Unpin)) -> (u8, u16, String) {
    let bytes = Bytes::from(rest(stream).await);
    let error = ServerError::parse(&bytes[4..]).expect("an error, and nothing behind it");
    (bytes[3], error.code, error.message.into_owned())
}

#[tokio::test]
async fn a_client_that_was_greeted_is_relayed_to_an_agent_by_its_server_name() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let _agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let roots = Roots::Pem(world.cas.db.cert_pem());
    let mut tls = greeted(&world, Some(HOST), roots).await;
    let mut told = [0; 7];
    tls.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"agent-a");
}

#[tokio::test]
async fn who_is_not_served_is_told_so_behind_its_own_answer() {
    let world = World::serving(&[]).await;
    for (host, code, word) in [
        (Some("nothing.db.tide.test"), 1049, "nothing"),
        (Some(HOST), 1049, "orders"),
        (None, 1105, "tg db connect"),
        (Some("proxy.example.com"), 1105, "<database>.db.tide.test"),
    ] {
        let mut tls = greeted(&world, host, Roots::Unverified).await;
        tls.write_all(&answer().encode(2)).await.unwrap();
        let (sequence, got, message) = refused(&mut tls).await;
        assert_eq!((sequence, got), (3, code), "{message}");
        assert!(message.contains(word), "{message}");
    }
}

#[tokio::test]
async fn a_client_that_begins_with_tls_is_told_in_place_of_a_greeting() {
    let world = World::serving(&[]).await;
    let client = Client {
        ssl_request: false,
        alpn: &[ALPN_MYSQL],
        ..Client::new(&world, "nothing.db.tide.test")
    };
    let mut tls = client.connect(Roots::Unverified).await.unwrap();
    let (sequence, code, _) = refused(&mut tls).await;
    assert_eq!((sequence, code), (0, 1049));
}

#[tokio::test]
async fn a_client_without_tls_is_told_what_to_do_and_a_silent_one_is_let_go() {
    let world = World::serving(&[]).await;
    let mut stream = TcpStream::connect(world.mysql).await.unwrap();
    next(&mut stream).await;
    stream.write_all(&answer().encode(1)).await.unwrap();
    let (sequence, code, message) = refused(&mut stream).await;
    assert_eq!((sequence, code), (2, 1045));
    assert!(message.contains("TLS required"), "{message}");

    let mut silent = TcpStream::connect(world.mysql).await.unwrap();
    next(&mut silent).await;
    drop(silent);
    world
        .until_metric("tidegate_proxy_handshakes_total{outcome=\"gone\"} 1")
        .await;
}
