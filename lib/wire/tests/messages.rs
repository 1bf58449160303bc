//! Messages of both sides: round trips, what malformed bodies give, and what never prints.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use tidegate_wire::{
    SqlState,
    backend::{
        self, Authentication, BackendKeyData, ErrorResponse, NegotiateProtocolVersion,
        NoticeResponse, ParameterStatus, ReadyForQuery, Severity, TxStatus,
    },
    frame::{HEADER_BYTES, LOGIN_FRAME_BYTES_MAX, peek_header},
    frontend::{self, parse_sql, query_sql},
    hello, route,
    startup::ProtocolVersion,
};

fn body(tag: u8, message: &[u8]) -> &[u8] {
    let header = peek_header(message, LOGIN_FRAME_BYTES_MAX)
        .expect("a valid header")
        .expect("a whole header");
    assert_eq!((header.tag, header.total()), (tag, message.len()));
    &message[HEADER_BYTES..]
}

#[test]
fn what_a_proxy_says_reads_back() {
    assert_eq!(
        Authentication::parse(body(b'R', &backend::authentication_ok())),
        Ok(Authentication::Ok)
    );
    assert_eq!(
        Authentication::parse(body(b'R', &backend::authentication_cleartext())),
        Ok(Authentication::CleartextPassword)
    );
    let key = backend::backend_key_data(7, b"secret");
    assert_eq!(
        BackendKeyData::parse(body(b'K', &key)),
        Ok(BackendKeyData {
            process_id: 7,
            secret: Bytes::from_static(b"secret")
        })
    );
    let status = backend::parameter_status("TimeZone", "UTC");
    assert_eq!(
        ParameterStatus::parse(body(b'S', &status)),
        Ok(ParameterStatus {
            name: "TimeZone".into(),
            value: "UTC".into()
        })
    );
    for status in [TxStatus::Idle, TxStatus::InTransaction, TxStatus::Failed] {
        assert_eq!(
            ReadyForQuery::parse(body(b'Z', &backend::ready_for_query(status))),
            Ok(ReadyForQuery(status))
        );
    }
    let negotiate =
        backend::negotiate_protocol_version(ProtocolVersion::V3_0, &["_pq_.compression"]);
    assert_eq!(
        NegotiateProtocolVersion::parse(body(b'v', &negotiate)),
        Ok(NegotiateProtocolVersion {
            newest: ProtocolVersion::V3_0,
            unsupported: vec!["_pq_.compression".into()]
        })
    );
}

#[test]
fn an_error_carries_both_severities_code_detail_and_hint() {
    let error = ErrorResponse::fatal(SqlState::INSUFFICIENT_PRIVILEGE, "access denied")
        .detail("no role allows it")
        .hint("ask for the role dba");

    let encoded = error.encode();
    assert_eq!(
        body(b'E', &encoded),
        b"SFATAL\0VFATAL\0C42501\0Maccess denied\0Dno role allows it\0Hask for the role dba\0\0"
    );
    assert_eq!(ErrorResponse::parse(body(b'E', &encoded)), error);
}

#[test]
fn a_notice_has_the_fields_of_an_error_under_its_own_type() {
    let notice = NoticeResponse::warning(SqlState::ADMIN_SHUTDOWN, "draining").hint("reconnect");

    assert_eq!(NoticeResponse::parse(body(b'N', &notice.encode())), notice);
}

#[test]
fn an_error_without_a_code_reads_as_internal() {
    let error = ErrorResponse::parse(b"Mwent wrong\0\0");

    assert_eq!(
        (error.severity, error.code),
        (Severity::Error, SqlState::INTERNAL_ERROR)
    );
    assert_eq!(error.message, "went wrong");
}

#[test]
fn a_translated_severity_does_not_hide_the_fixed_one() {
    let error = ErrorResponse::parse("SFATALERO\0VFATAL\0C28P01\0Mnein\0\0".as_bytes());

    assert_eq!(
        (error.severity, error.code),
        (Severity::Fatal, SqlState::INVALID_PASSWORD)
    );
}

#[test]
fn codes_that_are_no_sqlstate_are_not_taken_for_one() {
    assert_eq!(
        SqlState::from_bytes(b"28P01"),
        Some(SqlState::INVALID_PASSWORD)
    );
    for bytes in [&b"28p01"[..], b"28P0", b"28P011", b"28 01", b""] {
        assert_eq!(SqlState::from_bytes(bytes), None, "{bytes:?}");
    }
}

#[test]
fn every_login_challenge_is_read() {
    let digest = b"\0\0\0\x0d\0\0\0\0\0\0\0\x04salt\0\0\0\x05nonce";
    let cases: [(&[u8], Authentication); 7] = [
        (b"\0\0\0\x03", Authentication::CleartextPassword),
        (
            b"\0\0\0\x05salt",
            Authentication::Md5Password { salt: *b"salt" },
        ),
        (
            b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
            Authentication::Sasl {
                mechanisms: vec!["SCRAM-SHA-256-PLUS".into(), "SCRAM-SHA-256".into()],
            },
        ),
        (
            b"\0\0\0\x0br=1",
            Authentication::SaslContinue(Bytes::from_static(b"r=1")),
        ),
        (
            b"\0\0\0\x0cv=2",
            Authentication::SaslFinal(Bytes::from_static(b"v=2")),
        ),
        (
            digest,
            Authentication::RedshiftDigest {
                algo: backend::REDSHIFT_DIGEST_SHA256,
                salt: Bytes::from_static(b"salt"),
                server_nonce: Bytes::from_static(b"nonce"),
            },
        ),
        (b"\0\0\0\x0e", Authentication::Other(14)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Authentication::parse(bytes), Ok(expected));
    }
    for bytes in [
        &b"\0\0\0"[..],
        b"\0\0\0\x05sal",
        b"\0\0\0\x0aSCRAM",
        &digest[..digest.len() - 1],
    ] {
        assert!(Authentication::parse(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn login_answers_are_framed_as_servers_expect() {
    assert_eq!(body(b'p', &frontend::password_message(b"pw")), b"pw\0");
    assert_eq!(
        body(b'p', &frontend::sasl_initial("SCRAM-SHA-256", b"n,,")),
        b"SCRAM-SHA-256\0\0\0\0\x03n,,"
    );
    assert_eq!(body(b'p', &frontend::sasl_response(b"c=biws")), b"c=biws");
    assert_eq!(
        body(
            b'd',
            &frontend::redshift_digest_response(b"digest", b"nonce")
        ),
        b"\0\0\0\x06digest\0\0\0\x05nonce"
    );
    assert_eq!(body(b'X', &frontend::terminate()), b"");
    assert_eq!(body(b'Q', &frontend::query("select 1")), b"select 1\0");
}

#[test]
fn secrets_do_not_print() {
    let token = ParameterStatus {
        name: "driver_token".into(),
        value: "hunter2".into(),
    };
    let key = BackendKeyData {
        process_id: 7,
        secret: Bytes::from_static(b"hunter2"),
    };
    for printed in [
        format!("{token:?}"),
        format!("{key:?}"),
        format!("{:?}", frontend::password_message(b"hunter2")),
        format!("{:?}", backend::backend_key_data(7, b"hunter2")),
    ] {
        assert!(
            !printed.contains("hunter2") && !printed.contains("104, 117"),
            "{printed}"
        );
    }
}

#[test]
fn a_statement_cut_inside_a_character_says_so_and_stays_text() {
    let whole = query_sql("select 'é'\0".as_bytes());
    assert_eq!(
        (whole.text.as_ref(), whole.truncated),
        ("select 'é'", false)
    );

    let cut = query_sql(&"select 'é'".as_bytes()[..9]);
    assert_eq!((cut.text.as_ref(), cut.truncated), ("select '", true));
}

#[test]
fn a_prepared_statement_shows_name_and_text() {
    let view = parse_sql(b"s1\0select $1\0\0\0").unwrap();
    assert_eq!(
        (
            view.statement.as_ref(),
            view.sql.text.as_ref(),
            view.sql.truncated
        ),
        ("s1", "select $1", false)
    );

    assert!(parse_sql(b"s1\0select").unwrap().sql.truncated);
    assert_eq!(parse_sql(b"s1"), None);
}

#[test]
fn the_tag_of_a_finished_statement_is_read() {
    assert_eq!(backend::command_tag(b"SELECT 5\0"), Some("SELECT 5"));
    assert_eq!(backend::command_tag(b"SELECT"), None);
}

proptest! {
    #[test]
    fn no_body_makes_a_parser_panic(
        code in prop_oneof![0u32..16, any::<u32>()],
        tail in vec(prop_oneof![Just(0u8), Just(4), any::<u8>()], 0..80),
    ) {
        let coded = [&code.to_be_bytes()[..], &tail].concat();
        for bytes in [&coded, &tail] {
            let _ = Authentication::parse(bytes);
            let _ = BackendKeyData::parse(bytes);
            let _ = ErrorResponse::parse(bytes).encode();
            let _ = NegotiateProtocolVersion::parse(bytes);
            let _ = ParameterStatus::parse(bytes);
            let _ = ReadyForQuery::parse(bytes);
            let _ = backend::command_tag(bytes);
            let _ = hello::peek(bytes);
            let _ = parse_sql(bytes);
            let _ = peek_header(bytes, LOGIN_FRAME_BYTES_MAX);
            let _ = query_sql(bytes);
        }
    }

    #[test]
    fn an_error_survives_the_wire(message in "[^\0]{0,40}", detail in "[^\0]{0,40}", hint in "[^\0]{0,40}") {
        let error = ErrorResponse::error(SqlState::CONNECTION_REJECTED, message).detail(detail).hint(hint);
        prop_assert_eq!(ErrorResponse::parse(body(b'E', &error.encode())), error);
    }

    #[test]
    fn a_route_is_always_one_dns_label_that_its_sni_gives_back(name in "\\PC{0,100}") {
        let label = route::route_label(&name);
        let sni = format!("{label}.{}", route::db_suffix("tg.example.com"));
        prop_assert!((1..=63).contains(&label.len()), "{}", label);
        prop_assert_eq!(route::route_of_sni(&sni, "tg.example.com"), Some(label.as_str()));
    }
}
