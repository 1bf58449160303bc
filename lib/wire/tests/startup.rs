//! First messages: what is read, what is refused, and how early.

use proptest::{collection::vec, prelude::*};
use tidegate_wire::startup::{
    CancelRequest, FirstMessage, GSSENC_REQUEST, ProtocolVersion, SSL_REQUEST, STARTUP_BYTES_MAX,
    StartupError, StartupMessage, parse_first,
};

fn startup(params: &[(&str, &str)]) -> StartupMessage {
    match parse_first(&raw(ProtocolVersion::V3_0, params)) {
        Ok(Some((FirstMessage::Startup(message), _))) => message,
        other => panic!("expected a start-up message, got {other:?}"),
    }
}

fn raw(version: ProtocolVersion, params: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.code().to_be_bytes().to_vec();
    for text in params.iter().flat_map(|(name, value)| [name, value]) {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).expect("test bodies are small");
    [&len.to_be_bytes()[..], body].concat()
}

fn header(declared: u32, code: u32) -> Vec<u8> {
    [declared.to_be_bytes(), code.to_be_bytes()].concat()
}

#[test]
fn encryption_requests_are_told_apart() {
    assert_eq!(
        parse_first(&SSL_REQUEST),
        Ok(Some((FirstMessage::SslRequest, 8)))
    );
    assert_eq!(
        parse_first(&GSSENC_REQUEST),
        Ok(Some((FirstMessage::GssEncRequest, 8)))
    );
}

#[test]
fn bytes_behind_a_message_are_left_alone() {
    let first = raw(ProtocolVersion::V3_0, &[("user", "alice")]);
    let both = [&first[..], b"more"].concat();

    assert_eq!(parse_first(&both).unwrap().unwrap().1, first.len());
}

#[test]
fn a_message_in_pieces_waits_for_its_end() {
    let whole = raw(
        ProtocolVersion::V3_2,
        &[("user", "alice"), ("database", "dev")],
    );
    for cut in 0..whole.len() {
        assert_eq!(
            parse_first(&whole[..cut]),
            Ok(None),
            "cut after {cut} bytes"
        );
    }
    assert!(parse_first(&whole).unwrap().is_some());
}

#[test]
fn impossible_messages_are_refused_before_their_body_is_here() {
    let limit = u32::try_from(STARTUP_BYTES_MAX).unwrap() + 4;
    let too_long = |declared| StartupError::TooLong { declared };
    let version = |major, minor| StartupError::Version {
        version: ProtocolVersion { major, minor },
    };
    let cases = [
        (
            header(7, 0)[..4].to_vec(),
            StartupError::TooShort { declared: 7 },
        ),
        (header(limit + 1, 0)[..4].to_vec(), too_long(limit + 1)),
        (b"\x16\x03\x01\x02\x00".to_vec(), too_long(0x1603_0102)),
        (
            b"GET / HTTP/1.1".to_vec(),
            too_long(u32::from_be_bytes(*b"GET ")),
        ),
        (
            header(9, 80_877_103),
            StartupError::RequestLength { declared: 9 },
        ),
        (header(100, 2 << 16), version(2, 0)),
        (header(100, 1234 << 16 | 9999), version(1234, 9999)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(parse_first(&bytes), Err(expected), "{bytes:?}");
    }
    assert_eq!(parse_first(&header(limit, 3 << 16)), Ok(None));
}

#[test]
fn parameters_must_end_where_the_message_does() {
    let bodies: [&[u8]; 6] = [
        b"\0\x03\0\0",
        b"\0\x03\0\0user",
        b"\0\x03\0\0user\0alice",
        b"\0\x03\0\0user\0alice\0",
        b"\0\x03\0\0user\0\0\0\0",
        b"\0\x03\0\0\0x",
    ];
    for body in bodies {
        assert_eq!(
            parse_first(&framed(body)),
            Err(StartupError::Layout),
            "{body:?}"
        );
    }
}

#[test]
fn a_parameter_that_is_not_utf8_is_refused_by_its_position() {
    let body = b"\0\x03\0\0user\0alice\0database\0caf\xe9\0\0";

    assert_eq!(
        parse_first(&framed(body)),
        Err(StartupError::NotUtf8 { position: 2 })
    );
}

#[test]
fn of_a_parameter_given_twice_the_last_one_counts_as_in_postgresql() {
    let message = startup(&[("user", "alice"), ("user", "root")]);

    assert_eq!(message.user(), Some("root"));
    assert_eq!(message.params().len(), 2);
}

#[test]
fn setting_a_parameter_leaves_no_other_value_of_it() {
    let message =
        startup(&[("user", "a"), ("database", "dev"), ("user", "b")]).with_param("user", "IAM:a");

    assert_eq!(
        message.params(),
        [
            ("user".into(), "IAM:a".into()),
            ("database".into(), "dev".into())
        ]
    );
}

#[test]
fn removing_a_parameter_removes_every_occurrence() {
    let message = startup(&[("x", "1"), ("user", "a"), ("x", "2")]).without("x");

    assert_eq!(message.params(), [("user".into(), "a".into())]);
}

#[test]
fn an_empty_user_or_database_counts_as_not_given() {
    let message = startup(&[("user", ""), ("database", "")]);

    assert_eq!((message.user(), message.database()), (None, None));
}

#[test]
fn a_nul_in_a_value_cannot_end_it_early() {
    let message =
        StartupMessage::new(ProtocolVersion::V3_0).with_param("user", "alice\0database\0secret");

    let (parsed, _) = parse_first(&message.encode()).unwrap().unwrap();
    let FirstMessage::Startup(parsed) = parsed else {
        panic!("expected a start-up message")
    };
    assert_eq!(parsed.user(), Some("alice\u{fffd}database\u{fffd}secret"));
    assert_eq!(parsed.database(), None);
}

#[test]
fn a_cancel_secret_has_4_to_256_bytes() {
    for (len, valid) in [(3, false), (4, true), (256, true), (257, false)] {
        let request = CancelRequest {
            process_id: 7,
            secret: vec![9; len].into(),
        };
        let parsed = parse_first(&request.encode());
        match valid {
            true => assert_eq!(parsed, Ok(Some((FirstMessage::Cancel(request), 12 + len)))),
            false => assert_eq!(parsed, Err(StartupError::CancelSecret { len })),
        }
    }
}

#[test]
fn neither_cancel_secrets_nor_parameter_values_print() {
    let request = CancelRequest {
        process_id: 7,
        secret: vec![201; 4].into(),
    };

    assert_eq!(
        format!("{request:?}"),
        "CancelRequest { process_id: 7, .. }"
    );
    assert_eq!(format!("{:?}", request.encode()), "SecretFrame(16 bytes)");
    assert!(!format!("{:?}", startup(&[("options", "-c x.key=hunter2")])).contains("hunter2"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic_or_take_more_than_there_is(
        declared in prop_oneof![0u32..64, any::<u32>()],
        code in prop_oneof![80_877_100u32..80_877_106, 196_600u32..196_620, any::<u32>()],
        body in vec(prop_oneof![Just(0u8), any::<u8>()], 0..64),
        cut in 0usize..80,
    ) {
        let bytes = [header(declared, code), body].concat();
        let bytes = &bytes[..bytes.len().min(cut)];
        if let Ok(Some((_, used))) = parse_first(bytes) {
            prop_assert!(used <= bytes.len());
        }
    }

    #[test]
    fn a_startup_message_survives_the_wire(
        minor in any::<u16>(),
        params in vec(("[^\0]{1,12}", "[^\0]{0,20}"), 0..10),
    ) {
        let version = ProtocolVersion { major: 3, minor };
        let borrowed: Vec<(&str, &str)> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let bytes = raw(version, &borrowed);
        let (parsed, used) = parse_first(&bytes).unwrap().unwrap();
        prop_assert_eq!(used, bytes.len());
        let FirstMessage::Startup(parsed) = parsed else { panic!("expected a start-up message") };
        prop_assert_eq!(parsed.params(), &params[..]);
        prop_assert_eq!(&parsed.encode()[..], &bytes[..]);
    }
}
