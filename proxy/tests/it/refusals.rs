//! Everything that is turned away is told why, in its own language, and the proxy serves on.

use tidegate_identity::ALPN_POSTGRES;
use tidegate_wire::startup::{CancelRequest, GSSENC_REQUEST, SSL_REQUEST};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    agent::{Agent, Manner, dial_back},
    client::{Client, error, raw, rest, startup},
    world::World,
};

const HOST: &str = "orders.db.tide.test";

#[tokio::test]
async fn a_client_that_names_no_database_is_told_which_host_name_to_use() {
    let world = World::serving(&[]).await;
    let nameless = Client {
        send_server_name: false,
        ..Client::new(&world, "proxy.example.com")
    };
    let direct = Client {
        ssl_request: false,
        alpn: &[ALPN_POSTGRES],
        ..Client::new(&world, "proxy.example.com")
    };
    for client in [nameless, Client::new(&world, "proxy.example.com"), direct] {
        let error = client.refused().await;
        assert_eq!(error.code.as_str(), "08004");
        assert!(error.hint.unwrap().contains("<database>.db.tide.test"));
    }
}

#[tokio::test]
async fn an_unknown_route_and_a_database_without_agents_differ() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let unknown = Client::new(&world, "nothing.db.tide.test").refused().await;
    assert_eq!(unknown.code.as_str(), "3D000");
    assert!(unknown.message.contains("nothing"), "{}", unknown.message);

    let unserved = Client::new(&world, HOST).refused().await;
    assert_eq!(unserved.code.as_str(), "08006");

    let _agent = Agent::connect(&world, "agent-a", Manner::Refuse, 1).await;
    let refused = Client::new(&world, HOST).refused().await;
    assert_eq!(refused.code.as_str(), "08006");
    assert!(
        !refused.message.contains("cannot reach"),
        "an agent's reason is not the client's"
    );
    assert!(world.metric("tidegate_proxy_sessions_total{outcome=\"dial_failed\"} 1"));
    assert!(world.metric("tidegate_proxy_sessions_total{outcome=\"no_agent\"} 1"));
}

#[tokio::test]
async fn bad_openings_get_a_well_formed_error_and_the_proxy_serves_on() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let _agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let cases: [(&[u8], &str); 5] = [
        (&startup(), "28000"),
        (&[0, 0, 0, 9, 0, 3, 0, 0, 1], "08P01"),
        (&[0x7f, 0, 0, 0], "08P01"),
        (b"GET / HTTP/1.1\r\n\r\n", "08P01"),
        (b"TGDIAL\x00\x09", "08P01"),
    ];
    for (bytes, code) in cases {
        let mut stream = raw(&world).await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(error(&mut stream).await.code.as_str(), code, "{bytes:?}");
    }
    Client::new(&world, HOST).open("agent-a").await;
    world
        .until_metric("tidegate_proxy_handshakes_total{outcome=\"refused\"} 5")
        .await;
}

#[tokio::test]
async fn a_start_up_message_cut_short_is_said_to_be_so() {
    let world = World::serving(&[]).await;
    let mut stream = raw(&world).await;
    stream.write_all(&startup()[..10]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(error(&mut stream).await.code.as_str(), "08P01");
}

#[tokio::test]
async fn a_second_request_for_tls_is_refused() {
    let world = World::serving(&[]).await;
    let mut stream = raw(&world).await;
    stream.write_all(&GSSENC_REQUEST).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'N');
    stream.write_all(&SSL_REQUEST).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    stream.write_all(&SSL_REQUEST).await.unwrap();
    assert_eq!(error(&mut stream).await.code.as_str(), "08P01");
}

#[tokio::test]
async fn who_says_nothing_is_told_nothing() {
    let world = World::serving(&[]).await;
    let mut stream = raw(&world).await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    world
        .until_metric("tidegate_proxy_handshakes_total{outcome=\"gone\"} 1")
        .await;
}

#[tokio::test]
async fn a_slow_client_is_cut_off_while_others_are_served() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let _agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let mut slow = raw(&world).await;
    slow.write_all(&[0, 0]).await.unwrap();

    Client::new(&world, HOST).open("agent-a").await;

    let error = error(&mut slow).await;
    assert_eq!(error.code.as_str(), "08P01");
}

#[tokio::test]
async fn a_dialled_back_connection_that_nobody_waits_for_is_closed() {
    let world = World::serving(&[]).await;
    let mut stream = dial_back(world.proxy, &[9; 16]).await;
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test]
async fn a_cancel_request_reaches_every_agent_and_is_not_answered() {
    let world = World::serving(&[]).await;
    let mut agents = [
        Agent::connect(&world, "agent-a", Manner::Ignore, 1).await,
        Agent::connect(&world, "agent-b", Manner::Ignore, 2).await,
    ];
    let request = CancelRequest {
        process_id: 7,
        secret: vec![1, 2, 3, 4].into(),
    };
    let mut plain = raw(&world).await;
    plain.write_all(&request.encode()).await.unwrap();
    assert_eq!(rest(&mut plain).await, b"");
    let nameless = Client {
        send_server_name: false,
        ..Client::new(&world, "proxy.example.com")
    };
    let mut inside_tls = nameless
        .connect(tidegate_identity::tls::Roots::Unverified)
        .await
        .unwrap();
    inside_tls.write_all(&request.encode()).await.unwrap();

    for agent in &mut agents {
        for _ in 0..2 {
            let cancel = agent.cancels.recv().await.unwrap();
            assert_eq!((cancel.process_id, cancel.secret), (7, vec![1, 2, 3, 4]));
        }
    }
}
