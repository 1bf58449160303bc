//! MySQL's protocol: round trips, parsers that no bytes can hurt, and whose turn it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};
use tidegate_wire::{
    SqlState,
    mysql::{
        Capabilities,
        command::{Code, Command},
        conversation::Conversation,
        handshake::{
            Answer, Challenge, First, Greeting, HandshakeError, NATIVE_PASSWORD, SSL_REQUEST_BYTES,
            switch,
        },
        packet::{
            HANDSHAKE_BYTES_MAX, HEADER_BYTES, PAYLOAD_BYTES_MAX, Scanner, packet, take_packet,
        },
        reply::{self, ServerError},
    },
};

const KEEP_BYTES_MAX: usize = 24;

fn written(sequence: u8, payload: &[u8]) -> Vec<u8> {
    packet(sequence, |out| out.extend_from_slice(payload)).to_vec()
}

/// A payload of any length, in as many packets as it takes.
fn message(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = payload;
    let mut sequence = 0;
    loop {
        let (part, left) = rest.split_at(rest.len().min(PAYLOAD_BYTES_MAX));
        out.extend_from_slice(&written(sequence, part));
        if part.len() < PAYLOAD_BYTES_MAX {
            return out;
        }
        (rest, sequence) = (left, sequence + 1);
    }
}

fn scan(stream: &[u8], sizes: &[usize]) -> Vec<(u8, u64, Vec<u8>)> {
    let mut scanner = Scanner::new(KEEP_BYTES_MAX);
    let mut seen = Vec::new();
    let mut rest = stream;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, left) = rest.split_at((*size).min(rest.len()));
        scanner.feed(chunk, |event| {
            seen.push((event.sequence, event.total_len, event.head.to_vec()));
        });
        rest = left;
    }
    seen
}

fn greeting(high: bool) -> Greeting {
    let without = if high {
        Capabilities::CLIENT_MYSQL
    } else {
        Capabilities(!0 << 32)
    };
    Greeting {
        server_version: Bytes::from_static(b"8.0.36"),
        thread_id: 4711,
        scramble: *b"12345678901234567890",
        capabilities: Capabilities::WATCHED.without(without) | Capabilities::SSL,
        charset: 45,
        status: 2,
        plugin: NATIVE_PASSWORD.to_owned(),
    }
}

fn payload(whole: &[u8]) -> Bytes {
    take_packet(&mut BytesMut::from(whole), HANDSHAKE_BYTES_MAX)
        .unwrap()
        .unwrap()
        .payload
}

proptest! {
    #[test]
    fn what_a_scanner_reports_does_not_depend_on_how_the_stream_was_cut(
        payloads in vec(vec(any::<u8>(), 0..90), 0..12),
        sizes in vec(1usize..40, 1..6),
    ) {
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| message(payload)).collect();
        let seen = scan(&stream, &sizes);
        prop_assert_eq!(seen.len(), payloads.len());
        for ((_, total, head), payload) in seen.iter().zip(&payloads) {
            prop_assert_eq!(*total, payload.len() as u64);
            prop_assert_eq!(head, &payload[..payload.len().min(KEEP_BYTES_MAX)]);
        }
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in vec(any::<u8>(), 0..300), head in 0usize..6) {
        // Most random bytes fail at once; these go on behind what is checked first.
        let begun: [&[u8]; 6] = [
            &[],
            b"\x0a8.0\0",
            &[0x00, 0x82, 0x3b, 0, 0, 0, 0, 1, 45],
            &[reply::EOF],
            &[reply::ERR],
            &[Code::QUERY],
        ];
        let bytes = Bytes::from([begun[head], &bytes[..]].concat());
        let _ = Greeting::parse(&bytes);
        let _ = Challenge::parse(&bytes);
        let _ = ServerError::parse(&bytes);
        let _ = Command::parse(&bytes, 1000);
        let _ = take_packet(&mut BytesMut::from(&bytes[..]), HANDSHAKE_BYTES_MAX);
        if let Ok(First::Answer(answer)) = First::parse(&bytes) {
            let _ = answer.attribute("program_name");
        }
    }

    #[test]
    fn no_bytes_make_a_conversation_panic(
        turns in vec((any::<bool>(), vec(any::<u8>(), 0..40)), 0..40),
        framed: bool,
    ) {
        let mut conversation = Conversation::new(Capabilities::WATCHED, KEEP_BYTES_MAX);
        for (from_client, bytes) in turns {
            let bytes = if framed { written(0, &bytes) } else { bytes };
            let result = if from_client {
                conversation.client_sent(&bytes, |_| ())
            } else {
                conversation.server_sent(&bytes, |_| ())
            };
            if result.is_err() {
                break;
            }
        }
    }

    #[test]
    fn an_answer_reads_as_it_was_written(
        user in "[a-z/]{0,20}",
        proof in vec(any::<u8>(), 0..200),
        database in proptest::option::of("[a-z]{1,20}"),
        lenenc: bool,
        extended: bool,
    ) {
        let mut capabilities = Capabilities::WATCHED;
        if !lenenc {
            capabilities = capabilities.without(Capabilities::PLUGIN_AUTH_LENENC);
        }
        if extended {
            capabilities = capabilities.without(Capabilities::CLIENT_MYSQL);
        } else {
            capabilities = Capabilities(capabilities.0 & 0xffff_ffff);
        }
        let answer = Answer {
            capabilities,
            packet_bytes_max: 1 << 24,
            charset: 45,
            user,
            proof: proof.into(),
            database,
            plugin: Some(NATIVE_PASSWORD.to_owned()),
            attributes: Bytes::from_static(b"\x0cprogram_name\x05mysql"),
        };
        let read = First::parse(&payload(&answer.encode(1))).unwrap();
        prop_assert_eq!(&read, &First::Answer(answer.clone()));
        prop_assert_eq!(answer.attribute("program_name"), Some("mysql".to_owned()));
        prop_assert_eq!(answer.attribute("other"), None);
    }
}

#[test]
fn a_payload_of_the_greatest_length_is_one_message_with_what_follows() {
    for extra in [0, 1, 70] {
        let long = vec![7; PAYLOAD_BYTES_MAX + extra];
        let stream = [message(&long), message(b"next")].concat();
        for sizes in [&[1 << 20][..], &[stream.len()], &[4_000_037, 3]] {
            let seen = scan(&stream, sizes);
            assert_eq!(
                seen.iter().map(|seen| seen.1).collect::<Vec<_>>(),
                [long.len() as u64, 4]
            );
        }
    }
}

#[test]
fn a_greeting_reads_as_it_was_written_with_and_without_mariadbs_part() {
    for high in [false, true] {
        let greeting = greeting(high);
        assert_eq!(
            Greeting::parse(&payload(&greeting.encode())).unwrap(),
            greeting
        );
    }
}

#[test]
fn a_request_for_tls_is_told_from_an_answer_and_an_ancient_client_from_both() {
    let answer = Answer {
        capabilities: Capabilities::COMMON,
        packet_bytes_max: 0,
        charset: 33,
        user: "reader".to_owned(),
        proof: Bytes::new(),
        database: None,
        plugin: None,
        attributes: Bytes::new(),
    };
    let request = answer.ssl_request(1);
    assert_eq!(request.len(), HEADER_BYTES + SSL_REQUEST_BYTES);
    assert_eq!(
        First::parse(&payload(&request)).unwrap(),
        First::SslRequest(Capabilities::COMMON | Capabilities::SSL)
    );
    assert_eq!(
        First::parse(&[0x85, 0x24, 0, 0, 0, b'r', 0]).unwrap_err(),
        HandshakeError::Ancient
    );
}

#[test]
fn a_packet_too_long_for_a_handshake_is_refused_by_its_header() {
    let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 1][..]);
    assert!(take_packet(&mut buffer, HANDSHAKE_BYTES_MAX).is_err());
}

#[test]
fn a_switch_of_plugins_reads_as_it_was_written() {
    let read = Challenge::parse(&payload(&switch(2, "mysql_clear_password", b"salt"))).unwrap();
    let expected = Challenge::Switch {
        plugin: "mysql_clear_password".to_owned(),
        data: Bytes::from_static(b"salt"),
    };
    assert_eq!(read, expected);
}

#[test]
fn an_error_reads_as_it_was_written_and_a_long_one_keeps_whole_characters() {
    let whole = reply::error(3, 1045, SqlState::INVALID_AUTHORIZATION, "no");
    assert_eq!(whole[3], 3);
    let whole = payload(&whole);
    let read = ServerError::parse(&whole).unwrap();
    assert_eq!(
        (read.code, read.state, &*read.message),
        (1045, Some(SqlState::INVALID_AUTHORIZATION), "no")
    );
    let long = reply::error(1, 1, SqlState::INTERNAL_ERROR, &"ü".repeat(1000));
    let long = payload(&long);
    assert_eq!(
        ServerError::parse(&long).unwrap().message.chars().count(),
        255
    );
}

#[test]
fn a_statement_that_was_cut_says_so() {
    let query = [&[Code::QUERY][..], "select 'ü".as_bytes()].concat();
    let Some(Command::Query(text)) = Command::parse(&query[..query.len() - 1], 100) else {
        panic!("a query")
    };
    assert_eq!((&*text.text, text.truncated), ("select '", true));
}
