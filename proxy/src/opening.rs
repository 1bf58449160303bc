//! What a connection turns out to be, decided from its first bytes alone.
//!
//! [`Phase::step`] looks at everything received so far and says what to do next. Each phase can only go forward, so a
//! connection ends in an [`Opening`] or a refusal after at most one GSSAPI request, one TLS request and one ClientHello.
//!
//! Invariants: what a phase does not expect is refused at the first byte that rules it out; and never more than
//! [`OPENING_BYTES_MAX`] bytes are waited for.
//!
//! Not here: sockets and timeouts ([`crate::handshake`]), where a connection goes ([`crate::route`]).

use bytes::Bytes;
use tidegate_wire::{
    SqlState,
    backend::ErrorResponse,
    hello::{self, ClientHello, HELLO_BYTES_MAX, HelloError},
    proxy_header::{self, ProxyHeaderError},
    startup::{CancelRequest, FirstMessage, StartupError, parse_first},
};

use crate::mysql::MysqlRefusal;

/// The most bytes a connection may send before it is known what it is; a start-up message is shorter than a hello.
pub(crate) const OPENING_BYTES_MAX: usize = HELLO_BYTES_MAX;

/// How an agent introduces a connection that it dialled back; the token of the dial follows.
pub(crate) const DIAL_BACK_PREAMBLE: [u8; 8] = *b"TGDIAL\x00\x01";

/// Bytes by which a PROXY header is told from a start-up message of an impossible length.
const PROXY_HEADER_BYTES_TELLING: usize = 6;

/// Bytes of a dial's token.
pub(crate) const TOKEN_BYTES: usize = 16;

/// The single-use secret that ties a dialled-back connection to the session that asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token(pub(crate) [u8; TOKEN_BYTES]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a connection wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// To stop a statement of another session; nothing is answered.
    Cancel(CancelRequest),
    /// To be the agent's end of a session that waits for it.
    DialBack(Token),
    /// To speak TLS inside which MySQL goes on that began outside; the bytes received so far are its ClientHello.
    Mysql {
        /// What it says in the clear.
        hello: ClientHello,
        /// The number for its connection that it was greeted with.
        greeted_as: u32,
    },
    /// To speak TLS; the bytes received so far are its ClientHello.
    Tls {
        /// What it says in the clear.
        hello: ClientHello,
        /// Whether a Postgres TLS request came first.
        after_ssl_request: bool,
    },
}

/// Why a connection is turned away before it is routed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It asked for GSSAPI encryption again after being told no.
    #[error("a second request for GSSAPI encryption")]
    GssTwice,
    /// Its ClientHello is none, or longer than one may be.
    #[error("no valid client hello: {0}")]
    Hello(HelloError),
    /// It speaks MySQL, and does not go on as it has to.
    #[error(transparent)]
    Mysql(#[from] MysqlRefusal),
    /// It comes from a balancer, and does not begin with the header that balancers send.
    #[error("{0}, from an address in `proxy_protocol_from`")]
    NoProxyHeader(ProxyHeaderError),
    /// It begins with a PROXY header, which only balancers may send.
    #[error("a PROXY header from an address that is not in `proxy_protocol_from`")]
    ProxyHeader,
    /// It sent something behind its TLS request without waiting for the answer.
    #[error("unencrypted data behind the request for TLS")]
    Pipelined,
    /// It speaks Postgres, or something that nobody knows, in the clear.
    #[error("a start-up message without TLS")]
    Plaintext,
    /// It was told to start TLS and did something else.
    #[error("no TLS after the request for it was granted")]
    SslTwice,
    /// Its first message is none that the protocol has.
    #[error("no valid first message: {0}")]
    Startup(StartupError),
    /// It stopped sending in the middle.
    #[error("the first message was cut short")]
    Truncated,
}

impl Refusal {
    /// What the client is told.
    pub(crate) fn answer(&self) -> Answer {
        let violation =
            |text: &str| Answer::Error(ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, text));
        match self {
            Self::GssTwice => violation("GSSAPI encryption is not offered; ask for TLS"),
            Self::Hello(HelloError::NotHello) | Self::SslTwice => {
                violation("expected a TLS handshake after the request for TLS")
            }
            Self::Hello(HelloError::TooLong) => Answer::Alert(ALERT_RECORD_OVERFLOW),
            Self::Hello(_) => Answer::Alert(ALERT_DECODE_ERROR),
            Self::Mysql(refusal) => Answer::Mysql(refusal.answer()),
            Self::NoProxyHeader(_) => violation("expected a PROXY protocol header"),
            Self::ProxyHeader => violation("a PROXY protocol header is not expected from here"),
            Self::Pipelined => violation("received unencrypted data after the request for TLS"),
            Self::Plaintext => Answer::Error(
                ErrorResponse::fatal(
                    SqlState::INVALID_AUTHORIZATION,
                    "TLS required: this proxy takes no unencrypted connections",
                )
                .hint("Connect with sslmode=verify-full (or at least sslmode=require)."),
            ),
            Self::Startup(error) => violation(&error.to_string()),
            Self::Truncated => violation("start-up message was cut short"),
        }
    }
}

/// How a refusal is put into bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// As TLS: a fatal alert of this number.
    Alert(u8),
    /// As Postgres.
    Error(ErrorResponse),
    /// As MySQL.
    Mysql(Bytes),
}

const ALERT_RECORD_OVERFLOW: u8 = 22;
const ALERT_DECODE_ERROR: u8 = 50;

impl Answer {
    /// The bytes to send before closing.
    ///
    /// Source of the alert's layout: RFC 8446 sections 5.1 and 6.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Alert(number) => vec![21, 3, 3, 0, 2, 2, *number],
            Self::Error(error) => error.encode().to_vec(),
            Self::Mysql(error) => error.to_vec(),
        }
    }
}

/// How far an opening got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was answered yet.
    Fresh,
    /// GSSAPI encryption was asked for and declined.
    GssDeclined,
    /// TLS was asked for and granted: only a ClientHello may follow.
    TlsGranted,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this byte, forget what was received, and go on in the next phase.
    Answer(u8, Phase),
    /// It is clear what this connection is.
    Opened(Opening),
    /// Wait for more bytes.
    Read,
    /// Answer with an error and close.
    Refuse(Refusal),
}

impl Phase {
    /// Decides on all bytes received in this phase. Pure: the same bytes give the same step, however they arrived.
    pub(crate) fn step(self, received: &[u8]) -> Step {
        let Some(first) = received.first() else {
            return Step::Read;
        };
        match self {
            _ if hello::is_tls(*first) => self.step_tls(received),
            Self::TlsGranted => Step::Refuse(Refusal::SslTwice),
            Self::Fresh if *first == DIAL_BACK_PREAMBLE[0] => step_dial_back(received),
            Self::Fresh if proxy_header::is_begun(received) => match received.len() {
                ..PROXY_HEADER_BYTES_TELLING => Step::Read,
                _ => Step::Refuse(Refusal::ProxyHeader),
            },
            Self::Fresh | Self::GssDeclined => self.step_plain(received),
        }
    }

    /// Decides when nothing more will come: `None` when nothing at all was sent, which is no error.
    pub(crate) fn end(self, received: &[u8]) -> Option<Refusal> {
        (!received.is_empty()).then_some(Refusal::Truncated)
    }

    fn step_tls(self, received: &[u8]) -> Step {
        match hello::peek(received) {
            Ok(None) => Step::Read,
            Ok(Some(hello)) => Step::Opened(Opening::Tls {
                hello,
                after_ssl_request: self == Self::TlsGranted,
            }),
            Err(error) => Step::Refuse(Refusal::Hello(error)),
        }
    }

    fn step_plain(self, received: &[u8]) -> Step {
        let (message, len) = match parse_first(received) {
            Ok(None) => return Step::Read,
            Ok(Some(parsed)) => parsed,
            Err(error) => return Step::Refuse(Refusal::Startup(error)),
        };
        match message {
            FirstMessage::Cancel(request) => Step::Opened(Opening::Cancel(request)),
            FirstMessage::Startup(_) => Step::Refuse(Refusal::Plaintext),
            FirstMessage::GssEncRequest if self == Self::GssDeclined => {
                Step::Refuse(Refusal::GssTwice)
            }
            _ if received.len() > len => Step::Refuse(Refusal::Pipelined),
            FirstMessage::GssEncRequest => Step::Answer(b'N', Self::GssDeclined),
            FirstMessage::SslRequest => Step::Answer(b'S', Self::TlsGranted),
        }
    }
}

/// A dial-back: nothing may follow the token, since the client's hello has not been sent to the agent yet.
fn step_dial_back(received: &[u8]) -> Step {
    let (preamble, token) = received.split_at(received.len().min(DIAL_BACK_PREAMBLE.len()));
    if preamble != &DIAL_BACK_PREAMBLE[..preamble.len()] {
        let declared = received
            .first_chunk()
            .map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes));
        return Step::Refuse(Refusal::Startup(StartupError::TooLong { declared }));
    }
    match <[u8; TOKEN_BYTES]>::try_from(token) {
        Ok(token) => Step::Opened(Opening::DialBack(Token(token))),
        Err(_) if token.len() > TOKEN_BYTES => Step::Refuse(Refusal::Pipelined),
        Err(_) => Step::Read,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_wire::startup::{GSSENC_REQUEST, ProtocolVersion, SSL_REQUEST, StartupMessage};

    use super::*;

    fn sqlstate(step: &Step) -> String {
        match step {
            Step::Refuse(refusal) => match refusal.answer() {
                Answer::Error(error) => error.code.to_string(),
                Answer::Alert(number) => format!("alert {number}"),
                Answer::Mysql(_) => "MySQL's".to_owned(),
            },
            other => panic!("not refused: {other:?}"),
        }
    }

    fn startup() -> Vec<u8> {
        StartupMessage::new(ProtocolVersion::V3_0)
            .with_param("user", "alice")
            .encode()
            .to_vec()
    }

    #[test]
    fn a_request_for_tls_is_granted_and_only_a_hello_may_follow() {
        assert_eq!(
            Phase::Fresh.step(&SSL_REQUEST),
            Step::Answer(b'S', Phase::TlsGranted)
        );
        for plain in [&SSL_REQUEST[..], &GSSENC_REQUEST, &startup(), b"T", b"x"] {
            assert_eq!(
                sqlstate(&Phase::TlsGranted.step(plain)),
                "08P01",
                "{plain:?}"
            );
        }
        assert_eq!(Phase::TlsGranted.step(&[0x16, 3, 1]), Step::Read);
    }

    #[test]
    fn gssapi_is_declined_once_and_a_request_for_tls_may_follow() {
        assert_eq!(
            Phase::Fresh.step(&GSSENC_REQUEST),
            Step::Answer(b'N', Phase::GssDeclined)
        );
        assert_eq!(
            Phase::GssDeclined.step(&SSL_REQUEST),
            Step::Answer(b'S', Phase::TlsGranted)
        );
        assert_eq!(
            Phase::GssDeclined.step(&GSSENC_REQUEST),
            Step::Refuse(Refusal::GssTwice)
        );
    }

    #[test]
    fn a_plaintext_start_up_is_told_that_tls_is_required() {
        let step = Phase::Fresh.step(&startup());
        assert_eq!(sqlstate(&step), "28000");
        let Step::Refuse(refusal) = step else {
            unreachable!()
        };
        let Answer::Error(error) = refusal.answer() else {
            panic!("not a Postgres error")
        };
        assert!(error.hint.is_some_and(|hint| hint.contains("sslmode")));
    }

    #[test]
    fn what_follows_a_request_unasked_is_refused() {
        let injected = [&SSL_REQUEST[..], b"x"].concat();
        assert_eq!(
            Phase::Fresh.step(&injected),
            Step::Refuse(Refusal::Pipelined)
        );
    }

    #[test]
    fn a_dial_back_is_its_preamble_and_a_token_and_nothing_else() {
        let whole = [&DIAL_BACK_PREAMBLE[..], &[7; TOKEN_BYTES]].concat();
        for cut in 1..whole.len() {
            assert_eq!(Phase::Fresh.step(&whole[..cut]), Step::Read);
        }
        assert_eq!(
            Phase::Fresh.step(&whole),
            Step::Opened(Opening::DialBack(Token([7; TOKEN_BYTES])))
        );
        assert_eq!(
            Phase::Fresh.step(&[&whole[..], &[0]].concat()),
            Step::Refuse(Refusal::Pipelined)
        );
        assert_eq!(
            sqlstate(&Phase::Fresh.step(b"TGDIAL\x00\x02aaaaaaaaaaaaaaaa")),
            "08P01"
        );
        assert_eq!(sqlstate(&Phase::TlsGranted.step(&whole)), "08P01");
    }

    #[test]
    fn over_long_and_unknown_first_messages_are_refused_at_once() {
        assert_eq!(
            sqlstate(&Phase::Fresh.step(&[0x7f, 0xff, 0xff, 0xff])),
            "08P01"
        );
        assert_eq!(sqlstate(&Phase::Fresh.step(b"GET / HTTP/1.1\r\n")), "08P01");
        assert_eq!(
            sqlstate(&Phase::Fresh.step(&[0, 0, 0, 9, 0, 2, 0, 0, 0])),
            "08P01"
        );
    }

    #[test]
    fn a_proxy_header_that_nobody_expects_is_refused_as_one() {
        for header in [
            &b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"[..],
            b"\r\n\r\n\0\r\nQUIT\n\x21",
        ] {
            assert_eq!(
                Phase::Fresh.step(header),
                Step::Refuse(Refusal::ProxyHeader)
            );
            assert_eq!(Phase::Fresh.step(&header[..3]), Step::Read);
        }
        assert_eq!(sqlstate(&Step::Refuse(Refusal::ProxyHeader)), "08P01");
    }

    #[test]
    fn a_broken_hello_gets_a_tls_alert() {
        assert_eq!(
            sqlstate(&Phase::Fresh.step(&[0x16, 3, 1, 0, 0])),
            "alert 50"
        );
    }

    #[test]
    fn silence_is_no_error_but_half_a_message_is() {
        assert_eq!(Phase::Fresh.end(&[]), None);
        assert_eq!(Phase::Fresh.end(&[0, 0]), Some(Refusal::Truncated));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_step_panic_or_wait_past_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            for phase in [Phase::Fresh, Phase::GssDeclined, Phase::TlsGranted] {
                let _ = phase.step(&bytes);
            }
        }
    }
}
