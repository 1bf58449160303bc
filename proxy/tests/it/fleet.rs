//! A proxy among others: how it ends, who takes over, whom it believes, and what one client can cost it.

use std::{net::Ipv4Addr, time::Duration};

use tidegate_proto::v1::{
    AgentHello, CancelElsewhere, ProxyDraining, control_request, control_response::Message as Told,
};
use tidegate_service::{handover::Sockets, settings::ProxyLimits, tasks::Drain};
use tidegate_wire::startup::{CancelRequest, SSL_REQUEST};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    agent::{Agent, Manner, request},
    client::{Client, error, raw, rest, within},
    world::{Cas, Given, PATIENCE, World},
};

const ORDERS: &str = "orders.db.tide.test";

async fn told(agent: &mut Agent) -> Told {
    let hello = within(PATIENCE, agent.told.recv()).await.unwrap();
    match hello {
        Told::Hello(_) => within(PATIENCE, agent.told.recv()).await.unwrap(),
        other => other,
    }
}

#[tokio::test]
async fn a_proxy_that_drains_tells_its_agents_and_waits_for_its_sessions() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let mut agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let mut session = Client::new(&world, ORDERS).open("agent-a").await;

    world.tasks.shutdown().cancel();

    assert_eq!(told(&mut agent).await, Told::Draining(ProxyDraining {}));
    session.write_all(b"still here").await.unwrap();
    let mut echoed = [0; 10];
    session.read_exact(&mut echoed).await.unwrap();
    assert!(world.metric("tidegate_proxy_sessions_active 1"));
    drop(session);
    world
        .until_metric("tidegate_proxy_sessions_total{outcome=\"completed\"} 1")
        .await;
    world.stop().await;
    let _ = agent.ended().await;
}

#[tokio::test]
async fn sessions_that_outlast_the_drain_are_ended_by_agents_first() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let mut agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let mut session = Client::new(&world, ORDERS).open("agent-a").await;
    world.tasks.set_drain(Drain {
        timeout: Duration::from_millis(500),
        ..Drain::default()
    });

    world.tasks.shutdown().cancel();

    assert_eq!(told(&mut agent).await, Told::Draining(ProxyDraining {}));
    let Told::EndSessions(asked) = told(&mut agent).await else {
        panic!("not asked to end sessions")
    };
    assert!(asked.within_ms > 0);
    // This agent does not, so that the proxy has to.
    assert!(session.read_u8().await.is_err());
    world
        .until_metric("tidegate_proxy_sessions_total{outcome=\"drained\"} 1")
        .await;
    world.stop().await;
}

#[tokio::test]
async fn a_drain_that_is_hurried_ends_sessions_at_once() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let mut agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let session = Client::new(&world, ORDERS).open("agent-a").await;
    world.tasks.set_drain(Drain {
        timeout: Duration::from_secs(3600),
        is_succeeded: true,
    });
    world.tasks.shutdown().cancel();
    assert_eq!(told(&mut agent).await, Told::Draining(ProxyDraining {}));

    world.tasks.hurry().cancel();

    assert!(matches!(told(&mut agent).await, Told::EndSessions(_)));
    drop(session);
    world.stop().await;
}

#[tokio::test]
async fn a_new_proxy_waits_for_agents_that_are_on_their_way() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let waiting = Client::new(&world, ORDERS).open("agent-a");
    let arriving = async {
        world
            .until_metric("tidegate_proxy_handshakes_total{outcome=\"database\"} 1")
            .await;
        Agent::connect(&world, "agent-a", Manner::Echo, 1).await
    };
    let (_session, _agent) = tokio::join!(waiting, arriving);
}

#[tokio::test]
async fn agents_of_the_own_zone_come_first() {
    let given = Given {
        zone: "eu-west-1a".to_owned(),
        ..Given::default()
    };
    let hosts = [("agent-a", "healthy"), ("agent-b", "healthy")];
    let world = World::given(Cas::new().into(), &hosts, Vec::new(), given).await;
    let hello = |zone: &str| AgentHello {
        zone: zone.to_owned(),
        ..AgentHello::default()
    };
    let far = hello("eu-west-1b");
    let _far = Agent::connect_saying(&world, "agent-a", Manner::Echo, 1, far).await;
    let near = hello("eu-west-1a");
    let _near = Agent::connect_saying(&world, "agent-b", Manner::Echo, 2, near).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(Client::new(&world, ORDERS).open("agent-b").await);
    }
}

#[tokio::test]
async fn a_cancel_request_goes_to_the_agent_that_its_key_names() {
    let world = World::serving(&[]).await;
    let hello = |prefix| AgentHello {
        cancel_prefix: Some(prefix),
        ..AgentHello::default()
    };
    let mut other = Agent::connect_saying(&world, "agent-a", Manner::Echo, 1, hello(1)).await;
    let mut named = Agent::connect_saying(&world, "agent-b", Manner::Echo, 2, hello(2)).await;
    let key = CancelRequest {
        process_id: (2 << 18) | 7,
        secret: b"abcd"[..].into(),
    };

    raw(&world).await.write_all(&key.encode()).await.unwrap();
    let cancel = within(PATIENCE, named.cancels.recv()).await.unwrap();
    assert_eq!(
        (cancel.process_id, &*cancel.secret),
        (key.process_id, &b"abcd"[..])
    );

    // The other one was asked by its client inside TLS, and knows that the key is not its own.
    let elsewhere = control_request::Message::CancelElsewhere(CancelElsewhere {
        process_id: key.process_id,
        secret: b"efgh".to_vec(),
        client_addr: "192.0.2.1:5".to_owned(),
    });
    other.requests.send(request(elsewhere)).await.unwrap();
    let cancel = within(PATIENCE, named.cancels.recv()).await.unwrap();
    assert_eq!(
        (&*cancel.secret, &*cancel.client_addr),
        (&b"efgh"[..], "192.0.2.1:5")
    );
    assert!(other.cancels.try_recv().is_err());
}

async fn behind_a_balancer() -> World {
    let given = Given {
        balancers: vec!["127.0.0.0/8".parse().unwrap()],
        ..Given::default()
    };
    World::given(
        Cas::new().into(),
        &[("agent-a", "healthy")],
        Vec::new(),
        given,
    )
    .await
}

#[tokio::test]
async fn a_balancer_says_where_a_client_is() {
    let world = behind_a_balancer().await;
    let mut stream = raw(&world).await;
    stream
        .write_all(b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 3080\r\n")
        .await
        .unwrap();
    stream.write_all(&SSL_REQUEST).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    // In one piece with what follows it, as balancers send it.
    let mut stream = raw(&world).await;
    let header =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc6\x33\x64\x01\x12\x67\x0c\x08";
    stream
        .write_all(&[&header[..], &SSL_REQUEST].concat())
        .await
        .unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
}

#[tokio::test]
async fn a_balancer_that_says_nothing_is_refused_and_so_is_a_header_of_anybody_else() {
    let balanced = behind_a_balancer().await;
    let mut stream = raw(&balanced).await;
    stream.write_all(&SSL_REQUEST).await.unwrap();
    let answer = error(&mut stream).await;
    assert!(answer.message.contains("expected a PROXY protocol header"));

    let open = World::serving(&[]).await;
    let mut stream = raw(&open).await;
    stream
        .write_all(b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 3080\r\n")
        .await
        .unwrap();
    let answer = error(&mut stream).await;
    assert!(answer.message.contains("is not expected from here"));
    open.until_metric("tidegate_proxy_handshakes_total{outcome=\"refused\"} 1")
        .await;
}

#[tokio::test]
async fn sessions_of_one_database_are_limited_and_the_client_is_told() {
    let limits = ProxyLimits {
        sessions_per_route: 1,
        ..ProxyLimits::default()
    };
    let given = Given {
        limits,
        ..Given::default()
    };
    let world = World::given(
        Cas::new().into(),
        &[("agent-a", "healthy")],
        Vec::new(),
        given,
    )
    .await;
    let _agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let _first = Client::new(&world, ORDERS).open("agent-a").await;

    let refused = Client::new(&world, ORDERS).refused().await;

    assert_eq!(refused.code.as_str(), "53300");
    assert!(refused.message.contains("has 1 sessions to the database"));
}

#[tokio::test]
async fn a_source_that_opens_connections_and_says_nothing_gets_no_more() {
    let limits = ProxyLimits {
        handshakes_per_source: 3,
        ..ProxyLimits::default()
    };
    let given = Given {
        limits,
        ..Given::default()
    };
    let world = World::given(Cas::new().into(), &[], Vec::new(), given).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut stream = raw(&world).await;
        stream.write_all(&SSL_REQUEST).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'S');
        silent.push(stream);
    }
    let mut fourth = raw(&world).await;
    assert!(fourth.read_u8().await.is_err());
    world
        .until_metric("tidegate_proxy_handshakes_total{outcome=\"limited\"} 1")
        .await;

    drop(silent.pop());
    let room = async {
        loop {
            let mut stream = raw(&world).await;
            let asked = stream.write_all(&SSL_REQUEST).await;
            if asked.is_ok() && stream.read_u8().await.is_ok() {
                return;
            }
        }
    };
    within(PATIENCE, room).await;
}

#[tokio::test]
async fn what_an_agent_sends_to_a_client_that_never_reads_is_not_kept() {
    /// What the kernel may hold in the four sockets on the way, and more than the proxy holds by far.
    const HELD_BYTES_MAX: usize = 64 << 20;
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let mut agent = Agent::connect(&world, "agent-a", Manner::Ignore, 1).await;
    let mut client = raw(&world).await;
    client.write_all(&hello(ORDERS)).await.unwrap();
    let dial = within(PATIENCE, agent.dials.recv()).await.unwrap();
    let mut back = crate::agent::dial_back(world.proxy, &dial.token).await;
    let mut first = [0; 3];
    back.read_exact(&mut first).await.unwrap();

    let chunk = vec![7; 1 << 20];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), back.write(&chunk)).await {
        sent += written.unwrap();
        assert!(
            sent < HELD_BYTES_MAX,
            "{sent} bytes were taken for a client that reads nothing"
        );
    }
    // The proxy serves on.
    let mut other = raw(&world).await;
    other.write_all(&SSL_REQUEST).await.unwrap();
    assert_eq!(other.read_u8().await.unwrap(), b'S');
    drop((client, back));
}

/// A ClientHello.
fn hello(server_name: &str) -> Vec<u8> {
    let roots = tidegate_identity::tls::Roots::Unverified;
    let config = tidegate_identity::tls::client_config(tidegate_identity::tls::ClientTls {
        roots,
        identity: None,
        alpn: &[b"postgresql"],
    });
    let name = rustls_pki_types::ServerName::try_from(server_name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(config.unwrap(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_socket_that_was_passed_on_is_served_with_what_waits_in_it() {
    let passed = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = passed.local_addr().unwrap();
    let mut waiting = TcpStream::connect(addr).await.unwrap();
    waiting.write_all(&SSL_REQUEST).await.unwrap();
    let given = Given {
        sockets: Sockets::inherit(vec![passed]).unwrap(),
        listen: Some(addr),
        ..Given::default()
    };
    let world = World::given(Cas::new().into(), &[], Vec::new(), given).await;

    assert_eq!(world.proxy, addr);
    assert_eq!(waiting.read_u8().await.unwrap(), b'S');
    waiting.shutdown().await.unwrap();
    let _ = rest(&mut waiting).await;
}
