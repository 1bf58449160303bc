//! Sessions: relayed whole, and taken over by the next agent.

use std::time::Duration;

use tidegate_identity::ALPN_POSTGRES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    agent::{Agent, Manner, request},
    client::{Client, within},
    world::{PATIENCE, World},
};

const HOST: &str = "orders.db.tide.test";

fn noise(len: usize) -> Vec<u8> {
    (0..len)
        .map(|place| (place * place / 7 + place / 251) as u8)
        .collect()
}

#[tokio::test]
async fn bytes_pass_through_proxy_and_agent_unchanged() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let mut agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let tls = Client::new(&world, HOST).open("agent-a").await;
    let dial = agent.dials.recv().await.unwrap();
    assert_eq!((dial.token.len(), dial.route.as_str()), (16, "orders"));
    assert!(dial.client_addr.starts_with("127.0.0.1:"));

    let data = noise(6 << 20);
    let (mut read, mut write) = tokio::io::split(tls);
    let send = async {
        let mut rest = &data[..];
        let mut chunk = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(chunk.min(rest.len()));
            write.write_all(now).await.unwrap();
            (rest, chunk) = (later, chunk * 5 % 70_001 + 1);
        }
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), read) = within(PATIENCE, async {
        tokio::join!(send, read.read_to_end(&mut got))
    })
    .await;

    read.unwrap();
    assert!(got == data);
    drop(write);
    world
        .until_metric("tidegate_proxy_sessions_total{outcome=\"completed\"} 1")
        .await;
    assert!(world.metric("tidegate_proxy_sessions_active 0"));
    world.stop().await;
}

#[tokio::test]
async fn direct_tls_reaches_the_database_too() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let _agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let client = Client {
        ssl_request: false,
        alpn: &[ALPN_POSTGRES],
        ..Client::new(&world, HOST)
    };
    let tls = client.open("agent-a").await;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(ALPN_POSTGRES));
}

#[tokio::test]
async fn an_agent_that_fails_is_followed_by_the_next_and_the_client_never_knows() {
    for (manner, outcome) in [(Manner::Refuse, "refused"), (Manner::HangUp, "silent")] {
        let world = World::serving(&[("agent-a", "healthy"), ("agent-b", "unhealthy")]).await;
        let mut failing = Agent::connect(&world, "agent-a", manner, 1).await;
        let _serving = Agent::connect(&world, "agent-b", Manner::Echo, 2).await;

        Client::new(&world, HOST).open("agent-b").await;

        assert!(failing.dials.recv().await.is_some());
        assert!(world.metric(&format!(
            "tidegate_proxy_dials_total{{outcome=\"{outcome}\"}} 1"
        )));
    }
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_given_up_in_time() {
    let world = World::serving(&[("agent-a", "healthy"), ("agent-b", "unknown")]).await;
    let _deaf = Agent::connect(&world, "agent-a", Manner::Ignore, 1).await;
    let _serving = Agent::connect(&world, "agent-b", Manner::Echo, 2).await;

    within(
        Duration::from_secs(8),
        Client::new(&world, HOST).open("agent-b"),
    )
    .await;

    assert!(world.metric("tidegate_proxy_dials_total{outcome=\"timed_out\"} 1"));
}

#[tokio::test]
async fn a_lost_agent_fails_its_pending_dials_at_once() {
    let world = World::serving(&[("agent-a", "healthy"), ("agent-b", "unknown")]).await;
    let mut dying = Agent::connect(&world, "agent-a", Manner::Ignore, 1).await;
    let _serving = Agent::connect(&world, "agent-b", Manner::Echo, 2).await;

    let die = async {
        dying.dials.recv().await.unwrap();
        dying.die();
    };
    let open = Client::new(&world, HOST).open("agent-b");
    within(Duration::from_secs(4), async { tokio::join!(die, open) }).await;

    assert!(world.metric("tidegate_proxy_dials_total{outcome=\"lost\"} 1"));
    world
        .until_metric("tidegate_proxy_agents_connected 1")
        .await;
}

#[tokio::test]
async fn a_draining_agent_keeps_its_sessions_and_gets_no_new_ones() {
    let world = World::serving(&[("agent-a", "healthy"), ("agent-b", "unhealthy")]).await;
    let leaving = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let _staying = Agent::connect(&world, "agent-b", Manner::Echo, 2).await;
    let mut running = Client::new(&world, HOST).open("agent-a").await;

    let draining = tidegate_proto::v1::Draining {};
    leaving
        .requests
        .send(request(
            tidegate_proto::v1::control_request::Message::Draining(draining),
        ))
        .await
        .unwrap();
    let mut tries = 0;
    loop {
        // The first may still be on its way to the leaving agent.
        let roots = tidegate_identity::tls::Roots::Pem(world.cas.db.cert_pem());
        let mut tls = Client::new(&world, HOST).connect(roots).await.unwrap();
        let mut who = [0; 7];
        tls.read_exact(&mut who).await.unwrap();
        if &who == b"agent-b" {
            break;
        }
        tries += 1;
        assert!(tries < 100);
    }

    running.write_all(b"still here").await.unwrap();
    let mut echoed = [0; 10];
    running.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"still here");
}

#[tokio::test]
async fn sessions_outlive_the_control_connection_of_their_agent() {
    let world = World::serving(&[("agent-a", "healthy")]).await;
    let agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    let mut running = Client::new(&world, HOST).open("agent-a").await;

    agent.die();
    world
        .until_metric("tidegate_proxy_agents_connected 0")
        .await;

    running.write_all(b"x").await.unwrap();
    assert_eq!(running.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_database_that_arrives_is_served_and_one_that_leaves_is_not() {
    let world = World::serving(&[]).await;
    let _agent = Agent::connect(&world, "agent-a", Manner::Echo, 1).await;
    assert_eq!(
        Client::new(&world, HOST).refused().await.code.as_str(),
        "3D000"
    );

    world.auth.put("Orders", "agent-a", "healthy");
    within(PATIENCE, async {
        while Client::new(&world, HOST)
            .refused_or_served()
            .await
            .is_some()
        {}
    })
    .await;
    let mut tls = Client::new(&world, HOST).open("agent-a").await;

    world.auth.remove("Orders", "agent-a");
    within(PATIENCE, async {
        while Client::new(&world, HOST)
            .refused_or_served()
            .await
            .is_none()
        {}
    })
    .await;
    // Who is connected stays so.
    tls.write_all(b"x").await.unwrap();
    assert_eq!(tls.read_u8().await.unwrap(), b'x');
}
