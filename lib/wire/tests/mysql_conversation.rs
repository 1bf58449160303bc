//! Whose turn it is in a session of MySQL's protocol, from the bytes of both directions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use proptest::{collection::vec, prelude::*};
use tidegate_wire::mysql::{
    Capabilities,
    command::{Code, command},
    conversation::{Conversation, ConversationError, Told},
    packet::packet,
};

fn written(sequence: u8, payload: &[u8]) -> Vec<u8> {
    packet(sequence, |out| out.extend_from_slice(payload)).to_vec()
}

/// A session; `deprecate_eof` as newer servers have it.
fn session(deprecate_eof: bool) -> Conversation {
    let capabilities = if deprecate_eof {
        Capabilities::WATCHED
    } else {
        Capabilities::WATCHED.without(Capabilities::DEPRECATE_EOF)
    };
    Conversation::new(capabilities, 100)
}

fn sends(session: &mut Conversation, bytes: &[u8]) -> Vec<String> {
    let mut commands = Vec::new();
    session
        .client_sent(bytes, |sent| commands.push(format!("{:?}", sent.command)))
        .unwrap();
    commands
}

fn answers(session: &mut Conversation, payloads: &[&[u8]]) -> Vec<Told> {
    let mut told = Vec::new();
    for (at, payload) in payloads.iter().enumerate() {
        assert!(session.is_running(), "over before packet {at}");
        let sequence = u8::try_from(at + 1).unwrap();
        session
            .server_sent(&written(sequence, payload), |one| told.push(one))
            .unwrap();
    }
    told
}

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const OK_IN_TRANSACTION: &[u8] = &[0, 0, 0, 3, 0, 0, 0];
const OK_WITH_MORE: &[u8] = &[0, 0, 0, 10, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
const EOF_WITH_CURSOR: &[u8] = &[0xfe, 0, 0, 0x42, 0];
const OK_BEHIND_ROWS: &[u8] = &[0xfe, 0, 0, 2, 0, 0, 0];
const COLUMN: &[u8] = b"\x03def\0\0\0";
const ROW: &[u8] = b"\x011";

#[test]
fn a_query_runs_until_its_rows_have_ended_in_both_shapes() {
    for (deprecate_eof, shape) in [
        (
            true,
            &[&[2][..], COLUMN, COLUMN, ROW, ROW, OK_BEHIND_ROWS][..],
        ),
        (false, &[&[2][..], COLUMN, COLUMN, EOF, ROW, ROW, EOF][..]),
    ] {
        let mut session = session(deprecate_eof);
        sends(&mut session, &command(Code::QUERY, "select 1, 2"));
        assert_eq!(answers(&mut session, shape), [Told::Row, Told::Row]);
        assert!(!session.is_running());
        assert_eq!(session.next_sequence(), 1);
    }
}

#[test]
fn results_that_say_that_more_follow_are_one_answer() {
    let mut session = session(true);
    sends(&mut session, &command(Code::QUERY, "set @a = 1; select 1"));
    answers(
        &mut session,
        &[OK_WITH_MORE, &[1], COLUMN, ROW, OK_BEHIND_ROWS],
    );
    assert!(!session.is_running());
}

#[test]
fn an_open_cursor_ends_an_answer_without_rows() {
    let mut session = session(false);
    sends(
        &mut session,
        &written(0, &[Code::STMT_EXECUTE, 1, 0, 0, 0, 1, 1, 0, 0, 0]),
    );
    answers(&mut session, &[&[1], COLUMN, EOF_WITH_CURSOR]);
    assert!(!session.is_running());
    sends(
        &mut session,
        &written(0, &[Code::STMT_FETCH, 1, 0, 0, 0, 9, 0, 0, 0]),
    );
    assert_eq!(answers(&mut session, &[ROW, ROW, EOF]).len(), 2);
    assert!(!session.is_running());
}

#[test]
fn preparing_runs_until_all_definitions_came() {
    for (deprecate_eof, columns, parameters) in [
        (true, 2, 1),
        (false, 2, 1),
        (false, 0, 3),
        (true, 0, 0),
        (false, 1, 0),
    ] {
        let mut session = session(deprecate_eof);
        sends(&mut session, &command(Code::STMT_PREPARE, "select ?"));
        let mut shape: Vec<&[u8]> = Vec::new();
        let first = [0, 1, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0];
        shape.push(&first);
        for count in [parameters, columns] {
            shape.extend(std::iter::repeat_n(COLUMN, usize::from(count)));
            if count > 0 && !deprecate_eof {
                shape.push(EOF);
            }
        }
        answers(&mut session, &shape);
        assert!(
            !session.is_running(),
            "{deprecate_eof} {columns} {parameters}"
        );
    }
}

#[test]
fn an_error_ends_an_answer_wherever_it_comes_and_a_report_of_progress_ends_none() {
    for before in [
        &[][..],
        &[&[1][..]],
        &[&[1][..], COLUMN],
        &[&[1][..], COLUMN, ROW],
    ] {
        let mut session = session(true);
        sends(&mut session, &command(Code::QUERY, "select 1"));
        answers(&mut session, before);
        answers(&mut session, &[&[0xff, 0xff, 0xff, 1, 2]]);
        assert!(session.is_running(), "that was a report of progress");
        let told = answers(&mut session, &[b"\xff\x15\x04#28000no"]);
        assert_eq!(told, [Told::Error]);
        assert!(!session.is_running());
    }
}

#[test]
fn a_transaction_is_open_as_the_server_says() {
    let mut session = session(true);
    sends(&mut session, &command(Code::QUERY, "begin"));
    answers(&mut session, &[OK_IN_TRANSACTION]);
    assert!(session.in_transaction());
    sends(&mut session, &command(Code::QUERY, "commit"));
    answers(&mut session, &[OK]);
    assert!(!session.in_transaction());
}

#[test]
fn what_is_not_answered_does_not_run() {
    let mut session = session(true);
    let close = written(0, &[Code::STMT_CLOSE, 1, 0, 0, 0]);
    assert_eq!(
        sends(&mut session, &close),
        ["Statement { code: 25, id: 1 }"]
    );
    assert!(!session.is_running());
    sends(&mut session, &written(0, &[Code::QUIT]));
    assert!(session.said_goodbye() && !session.is_running());
}

#[test]
fn commands_that_are_sent_ahead_run_until_the_last_is_answered() {
    let mut session = session(true);
    let ahead = [command(Code::PING, ""), command(Code::INIT_DB, "app")].concat();
    assert_eq!(sends(&mut session, &ahead).len(), 2);
    answers(&mut session, &[OK, OK]);
    assert!(!session.is_running());
}

#[test]
fn the_contents_of_a_file_are_no_commands_and_what_follows_them_is_one() {
    let mut session = session(true);
    sends(
        &mut session,
        &command(Code::QUERY, "load data local infile 'f' into table t"),
    );
    answers(&mut session, &[b"\xfbf"]);
    assert!(!session.may_speak_to_server());
    let file = [written(2, b"\x03drop table t"), written(3, b"")].concat();
    assert_eq!(sends(&mut session, &file), [""; 0]);
    answers(&mut session, &[OK]);
    assert!(!session.is_running());
    assert_eq!(
        sends(&mut session, &command(Code::QUERY, "select 1")).len(),
        1
    );
}

#[test]
fn commands_behind_a_request_for_a_file_end_the_conversation() {
    for behind in [
        written(0, b""),
        command(Code::QUERY, "drop table t").to_vec(),
    ] {
        let mut session = session(true);
        sends(
            &mut session,
            &command(Code::QUERY, "load data local infile 'f' into table t"),
        );
        session.client_sent(&behind, |_| ()).unwrap();
        let error = session
            .server_sent(&written(1, b"\xfbf"), |_| ())
            .unwrap_err();
        assert_eq!(error, ConversationError::BehindFileRequest);
    }
}

#[test]
fn a_server_that_speaks_while_it_is_sent_a_file_ends_the_conversation() {
    let mut session = session(true);
    sends(
        &mut session,
        &command(Code::QUERY, "load data local infile 'f' into table t"),
    );
    answers(&mut session, &[b"\xfbf"]);
    let error = session.server_sent(&written(2, OK), |_| ()).unwrap_err();
    assert_eq!(error, ConversationError::DuringFile);
}

#[test]
fn an_error_that_nobody_asked_for_is_the_servers_goodbye() {
    let mut session = session(true);
    session
        .server_sent(&written(0, b"\xff\x1d\x04#08S01bye"), |_| ())
        .unwrap();
    assert!(session.server_gave_up());
}

#[test]
fn our_word_comes_behind_the_last_packet_of_either_side() {
    let mut session = session(true);
    assert_eq!(session.next_sequence(), 1);
    sends(&mut session, &command(Code::QUERY, "select 1"));
    assert_eq!(session.next_sequence(), 1);
    answers(&mut session, &[&[1], COLUMN]);
    assert_eq!(session.next_sequence(), 3);
    let row = written(3, ROW);
    session.server_sent(&row[..3], |_| ()).unwrap();
    assert!(!session.may_speak_to_client());
    session.server_sent(&row[3..], |_| ()).unwrap();
    assert!(session.may_speak_to_client());
    assert_eq!(session.next_sequence(), 4);
}

/// What a conversation came to after each direction's bytes, in pieces of this many.
fn cut(sent: &[u8], answered: &[u8], bytes: usize) -> (Vec<String>, Vec<Told>, bool, bool, u8) {
    let mut session = session(false);
    let mut commands = Vec::new();
    for piece in sent.chunks(bytes) {
        commands.extend(sends(&mut session, piece));
    }
    let mut told = Vec::new();
    for piece in answered.chunks(bytes) {
        session.server_sent(piece, |it| told.push(it)).unwrap();
    }
    (
        commands,
        told,
        session.is_running(),
        session.in_transaction(),
        session.next_sequence(),
    )
}

proptest! {
    #[test]
    fn what_a_conversation_comes_to_does_not_depend_on_where_it_was_cut(
        rows in vec(0usize..4, 1..4),
        last in any::<bool>(),
    ) {
        let sent: Vec<u8> = rows
            .iter()
            .flat_map(|_| command(Code::QUERY, "select n from t").to_vec())
            .collect();
        let mut answered = Vec::new();
        for count in &rows {
            let mut packets = vec![&b"\x01"[..], COLUMN, EOF];
            packets.extend(std::iter::repeat_n(ROW, *count));
            packets.push(EOF);
            for (at, payload) in packets.iter().enumerate() {
                answered.extend(written(u8::try_from(at).unwrap() + 1, payload));
            }
        }
        if !last {
            // The last answer is under way.
            answered.truncate(answered.len() - EOF.len() - 4);
        }
        let whole = cut(&sent, &answered, usize::MAX);
        for bytes in 1..=answered.len() {
            prop_assert_eq!(&cut(&sent, &answered, bytes), &whole, "pieces of {} bytes", bytes);
        }
    }
}
