//! How a check leaves a MySQL server so that the server does not hold it against this host.
//!
//! A server counts connections that end before the client has answered its greeting, and shuts a host out that has
//! `max_connect_errors` of them in a row (MySQL manual, section 5.1.8). So a check answers: it asks to be let in as a user
//! that nobody is, without a password, and goes when it is told no. That is a failed login, which is counted apart (in
//! MariaDB as `Aborted_connects` and `Access_denied_errors`). Where an administrator made that user it is let in, and
//! nothing is counted. `mariadb_tests` holds a real server to all of this.
//!
//! A handshake that breaks off because the certificate cannot be trusted does count. The schedule keeps such checks far
//! apart.

use bytes::{Bytes, BytesMut};
use tidegate_core::{Database, ErrorCode, HealthLayer, Problem};
use tidegate_wire::mysql::{
    Capabilities, command,
    handshake::{self, Answer, Greeting},
    packet::Packet,
    reply,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::state::Failure;
use crate::engine::{
    Connector, Upstream,
    mysql::{Greeted, greeted, packets, secured},
};

/// Nobody's name: what a database's log shows of a check.
const USER: &str = "tidegate-health";
/// Of MySQL's character sets the number of utf8mb4, which all servers know.
const CHARSET: u8 = 45;
/// The longest packet that is taken, in bytes.
const PACKET_BYTES_MAX: u32 = 1 << 20;
/// Steps of a login after which a check just goes.
const STEPS_MAX: usize = 4;
/// Places of packets in a handshake: the answer's, and without it that of the request for TLS.
const FIRST: u8 = 1;

/// Hears the greeting.
pub(super) async fn hear(database: &Database, stream: TcpStream) -> Result<Greeted, Failure> {
    greeted(database, stream)
        .await
        .map_err(|problem| failure(&problem))
}

/// Leaves a server that has greeted, without TLS. Nothing worth hiding is said.
pub(super) async fn leave(greeted: Greeted) {
    let Greeted {
        mut stream,
        greeting,
    } = greeted;
    let answer = answer(&greeting, Capabilities(0));
    be_refused(&mut stream, &answer, FIRST).await.ok(); // the check has passed by now
}

/// Makes TLS with a server that has greeted.
pub(super) async fn shake_hands(
    connector: &Connector,
    database: &Database,
    greeted: Greeted,
) -> Result<(Upstream, Greeting), Failure> {
    let request = |greeting: &Greeting| answer(greeting, Capabilities::SSL).ssl_request(FIRST);
    secured(connector, database, greeted, request)
        .await
        .map_err(|problem| Failure::new(HealthLayer::Tls, problem.operator))
}

/// Leaves a server behind TLS.
pub(super) async fn leave_tls(upstream: &mut Upstream, greeting: &Greeting) {
    let answer = answer(greeting, Capabilities::SSL);
    be_refused(upstream, &answer, FIRST + 1).await.ok(); // the check has passed by now
}

fn failure(problem: &Problem) -> Failure {
    let layer = match problem.code {
        ErrorCode::DatabaseTls => HealthLayer::Tls,
        _ => HealthLayer::Tcp,
    };
    Failure::new(layer, &problem.operator)
}

fn answer(greeting: &Greeting, tls: Capabilities) -> Answer {
    let plugins = greeting.capabilities & Capabilities::PLUGIN_AUTH;
    let basic = Capabilities::CLIENT_MYSQL | Capabilities::PROTOCOL_41;
    Answer {
        capabilities: basic | Capabilities::SECURE_CONNECTION | plugins | tls,
        packet_bytes_max: PACKET_BYTES_MAX,
        charset: CHARSET,
        user: USER.to_owned(),
        proof: Bytes::new(),
        database: None,
        plugin: Some(greeting.plugin.clone()),
        attributes: Bytes::new(),
    }
}

/// Asks to be let in, and goes once the server has decided.
async fn be_refused<S>(
    stream: &mut S,
    answer: &Answer,
    sequence: u8,
) -> Result<(), packets::ReadError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&answer.encode(sequence)).await?;
    stream.flush().await?;
    let mut buffer = BytesMut::new();
    for _ in 0..STEPS_MAX {
        let Packet { sequence, payload } = packets::next(stream, &mut buffer).await?;
        match payload.first() {
            Some(&reply::ERR) => return Ok(()),
            // Somebody made that user, without a password.
            Some(&reply::OK) => {
                stream.write_all(&command::quit()).await?;
                return Ok(stream.flush().await?);
            }
            _ => {
                let nothing = handshake::proof(sequence.wrapping_add(1), &[]);
                stream.write_all(&nothing).await?;
                stream.flush().await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_wire::mysql::handshake::First;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            server_version: Bytes::from_static(b"8.0.40"),
            thread_id: 7,
            scramble: [7; handshake::SCRAMBLE_BYTES],
            capabilities: Capabilities::COMMON | Capabilities::SSL,
            charset: CHARSET,
            status: 2,
            plugin: handshake::CACHING_SHA2.to_owned(),
        }
    }

    /// An ERR packet: access denied.
    const DENIED: &[u8] = b"\x09\0\0\x04\xff\x15\x04#28000";

    #[tokio::test]
    async fn a_check_answers_the_greeting_and_waits_for_the_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&greeting().encode()).await.unwrap();
            let mut buffer = BytesMut::new();
            let first = packets::next(&mut stream, &mut buffer).await.unwrap();
            let switch = handshake::switch(2, handshake::NATIVE_PASSWORD, &[7; 20]);
            stream.write_all(&switch).await.unwrap();
            let proof = packets::next(&mut stream, &mut buffer).await.unwrap();
            stream.write_all(DENIED).await.unwrap();
            let rest = stream.read(&mut [0; 1]).await.unwrap();
            (First::parse(&first.payload).unwrap(), proof, rest)
        });
        let mut database = crate::testing::redshift("orders", &[]);
        database.uri = address.to_string().parse().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        leave(hear(&database, stream).await.unwrap()).await;

        let (first, proof, rest) = serving.await.unwrap();
        let First::Answer(answer) = first else {
            panic!("{first:?}")
        };
        assert_eq!((answer.user.as_str(), answer.proof.len()), (USER, 0));
        assert_eq!((proof.sequence, proof.payload.len()), (3, 0));
        assert_eq!(rest, 0);
    }

    #[tokio::test]
    async fn a_server_that_turns_this_host_away_fails_at_tcp_with_its_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let blocked = b"\x0a\0\0\0\xff\x69\x04blocked";
            stream.write_all(blocked).await.unwrap();
        });
        let mut database = crate::testing::redshift("orders", &[]);
        database.uri = address.to_string().parse().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let failure = hear(&database, stream).await.unwrap_err();
        assert_eq!(failure.layer, HealthLayer::Tcp);
        assert!(failure.error.contains("1129 blocked"), "{}", failure.error);
    }
}
