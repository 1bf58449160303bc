//! The proxy towards the control plane, its agents, and those who do not know the cluster yet.

use std::sync::Arc;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use tidegate_identity::{
    ALPN_AUTH, ALPN_HTTP11, HOST_CERT_TTL, HostLeaf, KeyPair, SERVER_NAME_AUTH,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{
    AgentHello, Draining, WatchDatabaseServersRequest, control_request::Message,
    inventory_service_client::InventoryServiceClient, tunnel_service_client::TunnelServiceClient,
};
use tidegate_service::{
    rpc::{self, Endpoints},
    settings::KeyPairFiles,
};
use tokio::io::AsyncWriteExt;
use tonic::Code;

use crate::{
    agent::{Agent, Manner, channel, channel_of, request},
    client::{Client, rest},
    world::{Cas, PATIENCE, World},
};

#[tokio::test]
async fn the_proxy_announces_itself_with_its_public_address() {
    let world = World::serving(&[]).await;
    world
        .until(|world| !world.auth.announced().is_empty())
        .await;
    let hello = world.auth.announced().remove(0);
    assert_eq!(hello.public_addr, "proxy.example.com:3080");
    assert_eq!(hello.services, ["proxy"]);
    world.stop().await;
}

#[tokio::test]
async fn the_control_plane_is_reached_through_the_proxy_end_to_end() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let issued = world.cas.host("agent-a", &["db"]);
    let config = tls::client_config(ClientTls {
        roots: Roots::Pem(world.cas.host.cert_pem()),
        identity: Some((&issued.chain_pem, &issued.key)),
        alpn: &[ALPN_AUTH],
    })
    .unwrap();
    let channel = rpc::channel(
        Endpoints::new([world.proxy.to_string()]),
        move || config.clone(),
        SERVER_NAME_AUTH,
    );
    let mut events = InventoryServiceClient::new(channel)
        .watch_database_servers(WatchDatabaseServersRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(events.message().await.unwrap().is_some());
    assert!(world.metric("tidegate_proxy_handshakes_total{outcome=\"auth_relay\"} 1"));
}

#[tokio::test]
async fn whoever_does_not_know_the_cluster_finds_it_over_https() {
    let world = World::serving(&[]).await;
    for path in ["/webapi/find", "/v1/webapi/find", "/webapi/ping"] {
        let client = Client {
            ssl_request: false,
            alpn: &[ALPN_HTTP11],
            ..Client::new(&world, "proxy.example.com")
        };
        let mut tls = client
            .connect(Roots::Pem(world.cas.host.cert_pem()))
            .await
            .unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: proxy.example.com\r\nConnection: close\r\n\r\n");
        tls.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(rest(&mut tls).await).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let found: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(found["cluster_name"], "tide.test");
        assert_eq!(found["db_suffix"], "db.tide.test");
        assert_eq!(found["proxy"]["public_addr"], "proxy.example.com:3080");
        assert_eq!(found["ca_certs"][0], world.cas.host.cert_pem());
        assert!(found["server_version"].is_string());
    }
}

#[tokio::test]
async fn only_hosts_that_run_the_database_service_get_a_control_connection() {
    let world = World::serving(&[]).await;
    let mut client = TunnelServiceClient::new(channel(&world, "worker-1", &["discovery"]));
    let hello = request(Message::Hello(AgentHello::default()));
    let refused = client
        .control(tokio_stream::iter([hello]))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(world.metric("tidegate_proxy_agents_connected 0"));
}

#[tokio::test]
async fn an_agent_of_another_cluster_does_not_get_past_tls() {
    let world = World::serving(&[]).await;
    let stranger = Cas::new().host("agent-a", &["db"]);
    let mut client = TunnelServiceClient::new(channel_of(&world, &stranger));
    let hello = request(Message::Hello(AgentHello::default()));
    let refused = client.control(tokio_stream::iter([hello])).await.err();
    // TLS 1.3 refuses a client after the client's own handshake is done; the call finds out.
    assert!(refused.is_some());
    assert!(world.metric("tidegate_proxy_agents_connected 0"));
}

#[tokio::test]
async fn the_configured_certificates_are_shown_by_name_and_agents_still_see_the_cluster_s() {
    let (cas, public) = (Arc::new(Cas::new()), Cas::new());
    let dir = tempfile::tempdir().unwrap();
    let pairs = ["first.example.com", "second.example.com"].map(|name| {
        let key = KeyPair::generate().unwrap();
        let leaf = HostLeaf {
            public_key: &key.public_key_der(),
            cluster: &public.cluster,
            host_id: &"web".parse().unwrap(),
            hostname: name,
            services: &[],
            names: &[name.to_owned()],
        };
        let issued = public
            .host
            .issue_host(leaf, Timestamp::now(), HOST_CERT_TTL)
            .unwrap();
        let files = KeyPairFiles {
            key_file: dir.path().join(format!("{name}.key")),
            cert_file: dir.path().join(format!("{name}.pem")),
        };
        std::fs::write(&files.key_file, key.to_pem().expose_secret()).unwrap();
        std::fs::write(&files.cert_file, issued.chain_pem).unwrap();
        files
    });
    let world = World::with(cas, &[], pairs.to_vec()).await;

    for (name, shown) in [
        ("first.example.com", true),
        ("second.example.com", true),
        ("third.example.com", false),
    ] {
        let client = Client {
            ssl_request: false,
            alpn: &[ALPN_HTTP11],
            ..Client::new(&world, name)
        };
        let connected = client.connect(Roots::Pem(public.host.cert_pem())).await;
        assert_eq!(connected.is_ok(), shown, "{name}");
    }
    let _agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
}

#[tokio::test]
async fn sessions_open_while_the_control_plane_is_away_and_news_arrive_when_it_is_back() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let _agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let host = "orders.db.tide.test";

    world.auth.stop();
    Client::new(&world, host).open("agent-a").await;
    world.auth.remove("orders", "agent-a");
    world.auth.start_again(&world.cas).await;

    let gone = async {
        while Client::new(&world, host)
            .refused_or_served()
            .await
            .is_none()
        {}
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_control_connection_begins_with_hello() {
    let world = World::serving(&[]).await;
    let mut client = TunnelServiceClient::new(channel(&world, "agent-a", &["db"]));
    let wrong = request(Message::Draining(Draining {}));
    let mut answers = client
        .control(tokio_stream::iter([wrong]))
        .await
        .unwrap()
        .into_inner();
    let refused = answers.message().await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
}
