//! How a client of PostgreSQL begins on this machine: without TLS, which is told to those who ask for it.
//!
//! [`step`] decides on bytes alone; [`open`] reads and answers.

use bytes::{Bytes, BytesMut};
use tidegate_wire::{
    SqlState,
    backend::ErrorResponse,
    hello,
    startup::{FirstMessage, STARTUP_BYTES_MAX, StartupError, parse_first},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Requests for encryption that are declined: TLS and GSSAPI, one each.
const DECLINED_MAX: u8 = 2;
/// The answer to a request for encryption.
///
/// Source: PostgreSQL manual, "SSL Session Encryption" and "GSSAPI Session Encryption".
const DECLINE: u8 = b'N';

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// To stop a statement of another connection: the request as it came.
    Cancel(Bytes),
    /// A session: everything that was sent so far, as it came.
    Session(Bytes),
}

/// What to do with what came so far.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Decline encryption; so many bytes were the request.
    Decline(usize),
    /// It is clear what the client wants; so many bytes are its first message.
    Open { cancels: bool, len: usize },
    /// Wait for more.
    Read,
    /// Tell the client what is wrong, and close.
    Refuse(String),
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The client closed before it said what it wants; many look whether anybody is there.
    #[error("the client closed")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What came is no beginning of a session. The client was told.
    #[error("{0}")]
    Refused(String),
}

fn step(received: &[u8], declined: u8) -> Step {
    if received.first().is_some_and(|first| hello::is_tls(*first)) {
        return Step::Refuse(
            "this end of the tunnel takes connections without TLS: set sslmode=disable".to_owned(),
        );
    }
    match parse_first(received) {
        Ok(None) => Step::Read,
        Ok(Some((FirstMessage::SslRequest | FirstMessage::GssEncRequest, len)))
            if declined < DECLINED_MAX =>
        {
            Step::Decline(len)
        }
        Ok(Some((FirstMessage::SslRequest | FirstMessage::GssEncRequest, _))) => {
            Step::Refuse("encryption was declined, and asked for again".to_owned())
        }
        Ok(Some((FirstMessage::Cancel(_), len))) => Step::Open { cancels: true, len },
        Ok(Some((FirstMessage::Startup(_), len))) => Step::Open {
            cancels: false,
            len,
        },
        Err(error @ StartupError::TooLong { .. }) => Step::Refuse(format!(
            "this speaks no PostgreSQL, which is what the database speaks ({error})"
        )),
        Err(error) => Step::Refuse(error.to_string()),
    }
}

/// Reads until it is clear what a client wants. The caller bounds how long that may take.
///
/// # Errors
///
/// When the client wants nothing that there is; it was told.
pub(super) async fn open<S>(client: &mut S) -> Result<Opened, OpenError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut received = BytesMut::with_capacity(1024);
    let mut declined = 0;
    loop {
        match step(&received, declined) {
            Step::Decline(len) => {
                let _request = received.split_to(len);
                declined += 1;
                client.write_all(&[DECLINE]).await?;
                client.flush().await?;
            }
            Step::Open { cancels: true, len } => {
                return Ok(Opened::Cancel(received.split_to(len).freeze()));
            }
            Step::Open { cancels: false, .. } => return Ok(Opened::Session(received.freeze())),
            Step::Read => {
                // A message that is still incomplete here is shorter than this.
                received.reserve(1024.min(STARTUP_BYTES_MAX));
                if client.read_buf(&mut received).await? == 0 {
                    return Err(OpenError::Closed);
                }
            }
            Step::Refuse(words) => {
                client
                    .write_all(&refusal(SqlState::PROTOCOL_VIOLATION, &words, None))
                    .await?;
                client.shutdown().await?;
                return Err(OpenError::Refused(words));
            }
        }
    }
}

/// What a client is told that gets no session.
pub(super) fn refusal(code: SqlState, words: &str, hint: Option<&str>) -> Bytes {
    let error = ErrorResponse::fatal(code, words);
    match hint {
        Some(hint) => error.hint(hint).encode(),
        None => error.encode(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_wire::startup::{
        CancelRequest, GSSENC_REQUEST, ProtocolVersion, SSL_REQUEST, StartupMessage,
    };
    use tokio::io::duplex;

    use super::*;

    fn startup() -> Vec<u8> {
        StartupMessage::new(ProtocolVersion::V3_0)
            .with_param("user", "reader")
            .encode()
            .to_vec()
    }

    #[tokio::test]
    async fn encryption_is_declined_and_the_session_begins_as_the_client_sent_it() {
        let (mut client, mut ours) = duplex(4096);
        client.write_all(&GSSENC_REQUEST).await.unwrap();
        let opening =
            tokio::spawn(async move { open(&mut ours).await.map(|opened| (opened, ours)) });
        let mut answer = [0];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"N");
        client.write_all(&SSL_REQUEST).await.unwrap();
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"N");
        // What is sent without waiting goes along.
        let sent = [startup(), b"Q\0\0\0\x05\0".to_vec()].concat();
        client.write_all(&sent).await.unwrap();
        let (opened, _ours) = opening.await.unwrap().unwrap();
        assert_eq!(opened, Opened::Session(sent.into()));
    }

    #[tokio::test]
    async fn who_begins_with_tls_is_told_to_leave_it() {
        let (mut client, mut ours) = duplex(4096);
        client.write_all(&[0x16, 3, 1, 0, 5]).await.unwrap();
        let refused = open(&mut ours).await;
        assert!(matches!(refused, Err(OpenError::Refused(_))), "{refused:?}");
        drop(ours);
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        let said = ErrorResponse::parse(&said[5..]);
        assert!(said.message.contains("sslmode=disable"), "{said:?}");
    }

    #[test]
    fn a_cancel_request_is_passed_on_as_it_came() {
        let request = CancelRequest {
            process_id: 7,
            secret: Bytes::from_static(b"secret"),
        };
        let bytes = request.encode();
        let bytes: &[u8] = bytes.as_ref();
        assert_eq!(
            step(bytes, 1),
            Step::Open {
                cancels: true,
                len: bytes.len()
            }
        );
    }

    #[test]
    fn encryption_is_not_declined_for_ever() {
        assert_eq!(step(&SSL_REQUEST, 0), Step::Decline(8));
        assert!(matches!(step(&SSL_REQUEST, DECLINED_MAX), Step::Refuse(_)));
        assert!(matches!(step(b"GET / HTTP/1.1\r\n", 0), Step::Refuse(_)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_step_panic_or_wait_past_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = step(&bytes, 0);
            let mut long = bytes;
            long.resize(STARTUP_BYTES_MAX + 64, 1);
            prop_assert_ne!(step(&long, 0), Step::Read);
        }
    }
}
