//! MySQL's packets, handshakes and conversations: cut anywhere, they read as they do whole.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tidegate_wire::mysql::{
    capability::Capabilities,
    conversation::Conversation,
    handshake::{Challenge, First, Greeting},
    packet::{HANDSHAKE_BYTES_MAX, take_packet},
    reply::ServerError,
};

/// Who says something, and how much of the bytes: the numbers are those of the input.
type Turn = (bool, u8);

fuzz_target!(|input: (u64, Vec<Turn>, &[u8])| {
    let (capabilities, turns, bytes) = input;
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(packet)) = take_packet(&mut buffer, HANDSHAKE_BYTES_MAX) {
        if let Ok(greeting) = Greeting::parse(&packet.payload) {
            let again = greeting.encode();
            assert!(Greeting::parse(&again[4..]).is_ok());
        }
        let _ = First::parse(&packet.payload);
        let _ = Challenge::parse(&Bytes::clone(&packet.payload));
        let _ = ServerError::parse(&packet.payload);
    }

    let talk = |step: usize| {
        let mut conversation = Conversation::new(Capabilities(capabilities), 64);
        let mut heard = Vec::new();
        let mut rest = bytes;
        for (client, len) in &turns {
            let (said, later) = rest.split_at(rest.len().min(usize::from(*len)));
            rest = later;
            for part in said.chunks(step) {
                let told = if *client {
                    conversation.client_sent(part, |sent| heard.push(format!("{sent:?}")))
                } else {
                    conversation.server_sent(part, |told| heard.push(format!("{told:?}")))
                };
                if told.is_err() {
                    return (heard, format!("{told:?}"));
                }
            }
        }
        let state = (
            conversation.is_running(),
            conversation.in_transaction(),
            conversation.next_sequence(),
        );
        (heard, format!("{state:?}"))
    };
    let (whole, bytewise) = (talk(usize::MAX), talk(1));
    // An objection ends a session; how much of the chunk it came in was told before differs.
    if !whole.1.starts_with("Err") {
        assert_eq!(whole, bytewise);
    }
});
