//! The port for MySQL clients: the proxy greets, since the server speaks first, and a client asks for TLS in its answer.
//!
//! What follows is as with Postgres: the ClientHello says which database it is for, and is relayed unopened. The agent
//! goes on inside TLS where the proxy left off. The greeting is the same for all databases, since none is known yet: it
//! offers what all of them have, and its number for the connection is none of theirs, so that `KILL` with it hits
//! nobody else. The agent is told the number, and knows whom it means.
//!
//! [`step`] is pure; [`open`] reads and writes. Bounds as in [`crate::handshake`].
//!
//! Source: MySQL documentation, "Connection Phase".

use bytes::{Bytes, BytesMut};
use tidegate_identity::{IdentityError, secret};
use tidegate_wire::{
    SqlState,
    hello::{self, ClientHello, HelloError},
    mysql::{
        Capabilities,
        handshake::{First, Greeting, HandshakeError, NATIVE_PASSWORD, SCRAMBLE_BYTES},
        packet::{HANDSHAKE_BYTES_MAX, TooLong, take_packet},
        reply,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    handshake::{HANDSHAKE_MAX, Opened},
    net,
    opening::{Opening, Refusal},
};

/// `utf8mb4_general_ci`: what clients of all ages know.
const CHARSET: u8 = 45;
/// Statements save themselves.
const STATUS: u16 = 2;
/// Numbers that servers count up to only after two thousand million connections.
const THREAD_ID_BASE: u32 = 0x8000_0000;
/// The place of our answer to a client that did not ask for TLS.
const BEHIND_ANSWER: u8 = 2;
/// The place of our answer inside TLS, where the client's own answer came before.
pub(crate) const BEHIND_ANSWER_IN_TLS: u8 = 3;

/// Why a MySQL client is turned away before it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MysqlRefusal {
    /// Its ClientHello is none.
    #[error("no TLS after the request for it: {0}")]
    Hello(HelloError),
    /// Its answer is none.
    #[error("no valid answer to the greeting: {0}")]
    Malformed(HandshakeError),
    /// It answered without asking for TLS.
    #[error("an answer without TLS")]
    Plaintext,
    /// Its answer is longer than one may be.
    #[error("no valid answer to the greeting: {0}")]
    TooLong(TooLong),
    /// It stopped sending in the middle.
    #[error("the answer to the greeting was cut short")]
    Truncated,
}

impl MysqlRefusal {
    /// What the client is told.
    pub(crate) fn answer(self) -> Bytes {
        let violation =
            |text: &str| reply::error_like(BEHIND_ANSWER, SqlState::PROTOCOL_VIOLATION, text);
        match self {
            Self::Plaintext => reply::error_like(
                BEHIND_ANSWER,
                SqlState::INVALID_AUTHORIZATION,
                "TLS required: this proxy takes no unencrypted connections; connect with `tg db connect`, or with \
                 --ssl-verify-server-cert (mariadb) or --ssl-mode=VERIFY_IDENTITY (mysql)",
            ),
            Self::Malformed(HandshakeError::Ancient) => {
                violation("this proxy takes no clients from before MySQL 4.1")
            }
            _ => violation("expected a request for TLS and a TLS handshake"),
        }
    }
}

/// How far a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It was greeted.
    Greeted,
    /// It asked for TLS: only a ClientHello may follow.
    AskedForTls,
}

/// What to do next.
#[derive(Debug)]
enum Step {
    /// Go on in the next phase with what is left.
    Next,
    Opened(ClientHello),
    Read,
    Refuse(MysqlRefusal),
}

/// Decides on all bytes received in a phase; a request for TLS is taken out of them. The same bytes give the same step,
/// however they arrived.
fn step(phase: Phase, received: &mut BytesMut) -> Step {
    match phase {
        Phase::Greeted => match take_packet(received, HANDSHAKE_BYTES_MAX) {
            Ok(None) => Step::Read,
            Ok(Some(packet)) => match First::parse(&packet.payload) {
                Ok(First::SslRequest(capabilities)) if capabilities.has(Capabilities::SSL) => {
                    Step::Next
                }
                Ok(_) => Step::Refuse(MysqlRefusal::Plaintext),
                Err(error) => Step::Refuse(MysqlRefusal::Malformed(error)),
            },
            Err(error) => Step::Refuse(MysqlRefusal::TooLong(error)),
        },
        Phase::AskedForTls => match hello::peek(received) {
            Ok(None) => Step::Read,
            Ok(Some(hello)) => Step::Opened(hello),
            Err(error) => Step::Refuse(MysqlRefusal::Hello(error)),
        },
    }
}

/// What every client is greeted with; `server_version` is a setting.
fn greeting(server_version: &str) -> Result<Greeting, IdentityError> {
    let number = u32::from_le_bytes(secret::random_bytes::<4>()?);
    // A NUL would end it for clients that read it as text.
    let scramble = secret::random_bytes::<SCRAMBLE_BYTES>()?.map(|byte| byte % 127 + 1);
    Ok(Greeting {
        server_version: Bytes::copy_from_slice(server_version.as_bytes()),
        thread_id: THREAD_ID_BASE | number,
        scramble,
        capabilities: Capabilities::COMMON | Capabilities::SSL,
        charset: CHARSET,
        status: STATUS,
        plugin: NATIVE_PASSWORD.to_owned(),
    })
}

/// Greets, and reads until it is clear which database the connection is for; `received` came already.
pub(crate) async fn open(
    mut stream: TcpStream,
    mut received: BytesMut,
    server_version: &str,
) -> Opened {
    let Ok(greeting) = greeting(server_version) else {
        return Opened::Gone;
    };
    let opening = converse(&mut stream, &greeting, &mut received);
    match tokio::time::timeout(HANDSHAKE_MAX, opening).await {
        Ok(Ok(Some(hello))) => {
            let greeted_as = greeting.thread_id;
            Opened::As(
                Opening::Mysql { hello, greeted_as },
                received.freeze(),
                stream,
            )
        }
        Ok(Ok(None)) | Err(_) => Opened::Gone,
        Ok(Err(refusal)) => {
            net::close_with(&mut stream, &refusal.answer()).await;
            Opened::Refused(Refusal::Mysql(refusal))
        }
    }
}

/// `None` for a client that left without a word, or whose connection broke.
async fn converse(
    stream: &mut TcpStream,
    greeting: &Greeting,
    received: &mut BytesMut,
) -> Result<Option<ClientHello>, MysqlRefusal> {
    if stream.write_all(&greeting.encode()).await.is_err() {
        return Ok(None);
    }
    let mut phase = Phase::Greeted;
    loop {
        match step(phase, received) {
            Step::Next => phase = Phase::AskedForTls,
            Step::Opened(hello) => return Ok(Some(hello)),
            Step::Read => match stream.read_buf(received).await {
                Ok(0) if !received.is_empty() => return Err(MysqlRefusal::Truncated),
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            },
            Step::Refuse(refusal) => return Err(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_wire::mysql::{handshake::Answer, reply::ServerError};

    use super::*;

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

    #[test]
    fn a_request_for_tls_leads_to_the_client_hello_and_leaves_what_follows_it() {
        let mut received = BytesMut::from(&answer().ssl_request(1)[..]);
        received.extend_from_slice(&[22, 3, 1]);
        assert!(matches!(step(Phase::Greeted, &mut received), Step::Next));
        assert_eq!(&received[..], [22, 3, 1]);
        assert!(matches!(
            step(Phase::AskedForTls, &mut received),
            Step::Read
        ));
    }

    #[test]
    fn an_answer_without_tls_is_told_what_to_do() {
        let mut received = BytesMut::from(&answer().encode(1)[..]);
        let Step::Refuse(refusal) = step(Phase::Greeted, &mut received) else {
            panic!("refused")
        };
        let words = refusal.answer();
        let error = ServerError::parse(&words[4..]).unwrap();
        assert_eq!((words[3], error.code), (2, 1045));
        assert!(error.message.contains("tg db connect"));
    }

    #[test]
    fn the_number_of_a_greeting_is_none_of_a_databases() {
        assert!(greeting("8.0.0").unwrap().thread_id >= THREAD_ID_BASE);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), asked: bool) {
            let phase = if asked { Phase::AskedForTls } else { Phase::Greeted };
            let _ = step(phase, &mut BytesMut::from(&bytes[..]));
        }
    }
}
