//! Servers and channels.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use tidegate_identity::{
    ALPN_AUTH, CaPin, Holder, PeerIdentity, SERVER_NAME_AUTH,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{GetTrustRequest, trust_service_client::TrustServiceClient};
use tidegate_service::{
    host::IssuedHost,
    rpc::{self, ConnectInfo, Connection, DialError, Endpoints, Peer},
    tasks::ShutdownToken,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Notify,
};
use tonic::{Code, Status, transport::Channel};

use crate::cluster::{Cluster, Nobody, PATIENCE};

fn client_tls(cluster: &Cluster, identity: Option<&IssuedHost>) -> Arc<ClientConfig> {
    tls::client_config(ClientTls {
        roots: Roots::Pem(cluster.host_ca.cert_pem()),
        identity: identity.map(|identity| (identity.chain_pem.as_str(), &identity.key)),
        alpn: &[ALPN_AUTH],
    })
    .unwrap()
}

fn channel<A: ToString>(addresses: impl IntoIterator<Item = A>, tls: Arc<ClientConfig>) -> Channel {
    let endpoints = Endpoints::new(addresses.into_iter().map(|address| address.to_string()));
    rpc::channel(endpoints, move || Arc::clone(&tls), SERVER_NAME_AUTH)
}

async fn ask(channel: &Channel) -> Result<(), Status> {
    let asked = TrustServiceClient::new(channel.clone())
        .get_trust(GetTrustRequest {})
        .await;
    asked.map(|_| ())
}

fn last_peer(cluster: &Cluster) -> Peer {
    cluster.peers.lock().unwrap().last().cloned().unwrap()
}

#[tokio::test]
async fn a_handler_sees_who_the_clients_certificate_belongs_to() {
    let cluster = Cluster::new();
    let server = cluster.start().await;
    let identity = cluster.identity("agent-7", &["db"]);

    ask(&channel(
        [server.address],
        client_tls(&cluster, Some(&identity)),
    ))
    .await
    .unwrap();

    let Peer::Certified(peer) = last_peer(&cluster) else {
        panic!("{:?}", last_peer(&cluster))
    };
    let Holder::Host(host) = &peer.holder else {
        panic!("{peer:?}")
    };
    assert_eq!(
        (host.host_id.as_str(), host.services.as_slice()),
        ("agent-7", ["db".to_owned()].as_slice())
    );

    ask(&channel([server.address], client_tls(&cluster, None)))
        .await
        .unwrap();

    assert_eq!(last_peer(&cluster), Peer::Anonymous);
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_cluster_opens_nothing() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let server = cluster.start().await;
    let stranger = other.identity("agent-7", &["db"]);

    let refused = ask(&channel(
        [server.address],
        client_tls(&cluster, Some(&stranger)),
    ))
    .await;

    assert!(refused.is_err());
    assert!(cluster.peers.lock().unwrap().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_server_of_another_cluster_is_not_trusted_and_the_error_says_so() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let server = other.start().await;

    let status = ask(&channel([server.address], client_tls(&cluster, None)))
        .await
        .unwrap_err();

    let error = rpc::connect_error(&status).unwrap();
    assert!(error.is_untrusted(), "{error}");
    assert!(matches!(error.attempts(), [(_, DialError::Untrusted(_))]));
    server.stop().await;
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_skipped_and_not_tried_first_again() {
    let cluster = Cluster::new();
    let server = cluster.start().await;
    let nobody = Nobody::new();
    let channel = channel([nobody.address, server.address], client_tls(&cluster, None));

    ask(&channel).await.unwrap();
    ask(&channel).await.unwrap();

    server.stop().await;
}

#[tokio::test]
async fn an_error_names_every_address_and_its_cause() {
    let cluster = Cluster::new();
    let (nobody, nobody_too) = (Nobody::new(), Nobody::new());
    let (first, second) = (nobody.address, nobody_too.address);

    let status = ask(&channel([first, second], client_tls(&cluster, None)))
        .await
        .unwrap_err();

    assert_eq!(status.code(), Code::Unavailable);
    let text = rpc::describe(&status);
    assert!(
        text.contains(&first.to_string()) && text.contains(&second.to_string()),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
    let none = ask(&channel([""; 0], client_tls(&cluster, None)))
        .await
        .unwrap_err();
    assert!(rpc::describe(&none).contains("no address"), "{none}");
}

#[tokio::test]
async fn a_channel_comes_back_after_its_server_was_restarted() {
    let cluster = Cluster::new();
    let server = cluster.start().await;
    let channel = channel([server.address], client_tls(&cluster, None));
    ask(&channel).await.unwrap();

    let address = server.stop().await;
    let away = ask(&channel).await.unwrap_err();
    assert_eq!(away.code(), Code::Unavailable);

    let server = cluster.serve(TcpListener::bind(address).await.unwrap());
    ask(&channel).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn clients_that_do_not_finish_their_handshake_keep_nobody_waiting() {
    let cluster = Cluster::new();
    let server = cluster.start().await;
    let mut slow = Vec::new();
    for number in 0..rpc::HANDSHAKES_MAX / 4 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&[0x16, 3, 1, 2]).await.unwrap(); // a TLS record that never ends
        }
        slow.push(stream);
    }

    ask(&channel([server.address], client_tls(&cluster, None)))
        .await
        .unwrap();

    drop(slow);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_cuts_requests_that_do_not_end() {
    let cluster = Cluster::new();
    let asked = Arc::new(Notify::new());
    *cluster.hang.lock().unwrap() = Some(Arc::clone(&asked));
    let server = cluster.start().await;
    let channel = channel([server.address], client_tls(&cluster, None));
    let request = tokio::spawn(async move { ask(&channel).await });
    asked.notified().await;

    tokio::time::pause(); // from here on only the drain time is waited for
    tokio::time::timeout(rpc::DRAIN_TIMEOUT * 2, server.stop())
        .await
        .unwrap();

    assert!(request.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_the_certificate_that_opened_it() {
    let identity = Cluster::new().identity("agent-7", &["db"]);
    let peer =
        PeerIdentity::from_der(&tls::first_certificate_der(&identity.chain_pem).unwrap()).unwrap();
    let info = ConnectInfo {
        peer: Peer::Certified(Arc::new(peer)),
        remote: None,
    };
    let (mut client, server) = tokio::io::duplex(64);
    let mut connection = Connection::new(server, info);

    client.write_all(b"x").await.unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), b'x');
    let started = tokio::time::Instant::now();
    let ended = connection.read_u8().await.unwrap_err();

    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionAborted);
    assert!(started.elapsed() > Duration::from_secs(23 * 3600));
}

#[tokio::test]
async fn the_unix_socket_knows_its_own_user_and_replaces_only_a_dead_socket() {
    let cluster = Cluster::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.sock");
    drop(UnixListener::bind(&path).unwrap()); // left by a process that died
    let shutdown = ShutdownToken::new();
    let incoming = rpc::unix_incoming(&path).unwrap();
    let server = tokio::spawn(rpc::serve(cluster.routes(), incoming, shutdown.clone()));

    ask(&rpc::unix_channel(&path)).await.unwrap();

    assert_eq!(last_peer(&cluster), Peer::Local);
    let taken = rpc::unix_incoming(&path).err().unwrap();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    shutdown.cancel();
    server.await.unwrap().unwrap();
    let away = ask(&rpc::unix_channel(&path)).await.unwrap_err();
    assert!(away.message().contains("auth.sock"), "{away}");
}

#[tokio::test]
async fn connections_that_were_accepted_elsewhere_are_served_with_what_was_learned_of_them() {
    let cluster = Cluster::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let shutdown = ShutdownToken::new();
    let (hand_over, incoming) = rpc::established::<UnixStream>(1);
    let server = tokio::spawn(rpc::serve(cluster.routes(), incoming, shutdown.clone()));
    let channel = rpc::unix_channel(&path);
    let asking = tokio::spawn(async move { ask(&channel).await });

    let (stream, _) = listener.accept().await.unwrap();
    let info = ConnectInfo {
        peer: Peer::Local,
        remote: Some("127.0.0.9:9".parse().unwrap()),
    };
    hand_over.send(Connection::new(stream, info)).await.unwrap();

    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(last_peer(&cluster), Peer::Local);
    shutdown.cancel();
    server.await.unwrap().unwrap();
}

#[test]
fn a_pin_is_made_of_the_ca_that_servers_send() {
    let cluster = Cluster::new();
    assert_eq!(
        CaPin::of_pem(&cluster.trust().host_ca_pem).unwrap(),
        cluster.host_ca.pin()
    );
}
