//! ClientHellos whole, in pieces, and wrong; and the routes that their names carry.

use proptest::{collection::vec, prelude::*};
use tidegate_wire::{
    hello::{
        ClientHello, HELLO_BYTES_MAX, HELLO_MESSAGE_BYTES_MAX, HELLO_RECORDS_MAX, HelloError,
        is_tls, peek,
    },
    route::{db_suffix, route_label, route_of_sni},
};

/// Bytes behind their length in `N` bytes.
fn sized<const N: usize>(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len())
        .expect("test bodies are small")
        .to_be_bytes();
    [&len[4 - N..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized::<2>(data)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &sized::<2>(&[&[0][..], &sized::<2>(name)].concat()))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    extension(
        16,
        &sized::<2>(
            &protocols
                .iter()
                .flat_map(|protocol| sized::<1>(protocol))
                .collect::<Vec<u8>>(),
        ),
    )
}

fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &sized::<1>(&[9; 32]),
        &sized::<2>(&[0x13, 0x01]),
        &sized::<1>(&[0]),
        &sized::<2>(&extensions.concat()),
    ]
    .concat();
    [&[1][..], &sized::<3>(&body)].concat()
}

fn records(message: &[u8], bytes_each: usize) -> Vec<u8> {
    message
        .chunks(bytes_each)
        .flat_map(|part| [&[22, 3, 1][..], &sized::<2>(part)].concat())
        .collect()
}

fn hello(server_name: Option<&str>, alpn: &[&[u8]]) -> ClientHello {
    ClientHello {
        server_name: server_name.map(str::to_owned),
        alpn: alpn.iter().map(|protocol| protocol.to_vec()).collect(),
    }
}

#[test]
fn server_name_and_alpn_are_read_past_unknown_extensions() {
    let key_share = extension(51, &[5; 1300]);
    let bytes = records(
        &message(&[
            key_share,
            server_name(b"DW.db.Example.com."),
            alpn(&[b"postgresql", b"h2"]),
        ]),
        16384,
    );

    let seen = peek(&bytes).unwrap().unwrap();
    assert_eq!(
        seen,
        hello(Some("dw.db.example.com"), &[b"postgresql", b"h2"])
    );
    assert!(seen.offers(b"h2") && !seen.offers(b"http/1.1"));
    assert!(is_tls(bytes[0]));
}

#[test]
fn a_hello_in_pieces_waits_for_its_end() {
    let message = message(&[extension(51, &[5; 1300]), server_name(b"dw.db.example.com")]);
    for bytes_each in [100, 600, 16384] {
        let whole = records(&message, bytes_each);
        for cut in 0..whole.len() {
            assert_eq!(
                peek(&whole[..cut]),
                Ok(None),
                "cut after {cut} of {}",
                whole.len()
            );
        }
        assert_eq!(
            peek(&whole),
            Ok(Some(hello(Some("dw.db.example.com"), &[])))
        );
    }
}

#[test]
fn a_hello_without_a_name_has_none() {
    assert_eq!(
        peek(&records(&message(&[]), 16384)),
        Ok(Some(hello(None, &[])))
    );
}

#[test]
fn bytes_behind_a_hello_are_left_alone() {
    let bytes = [records(&message(&[]), 16384), b"anything".to_vec()].concat();

    assert!(peek(&bytes).unwrap().is_some());
}

#[test]
fn other_protocols_are_refused_at_their_first_bytes() {
    let cases: [&[u8]; 5] = [
        b"G",
        b"\0",
        b"\x16\x02",
        b"\x15\x03\x01\0\x02",
        b"\x16\x03\x01\0\x04\x02",
    ];
    for bytes in cases {
        assert_eq!(peek(bytes), Err(HelloError::NotHello), "{bytes:?}");
    }
}

#[test]
fn an_impossible_size_is_refused_when_it_is_declared() {
    let record = HelloError::Malformed {
        part: "record length",
    };

    assert_eq!(peek(b"\x16\x03\x01\0\0"), Err(record));
    assert_eq!(peek(b"\x16\x03\x01\x40\x01"), Err(record));
    assert_eq!(
        peek(b"\x16\x03\x01\x40\0\x01\0\x40\0"),
        Err(HelloError::TooLong)
    );
    assert_eq!(peek(b"\x16\x03\x01\x40\0\x01\0\x3f\xfc"), Ok(None));
}

#[test]
fn a_hello_in_too_many_records_is_refused() {
    let message = message(&[server_name(b"dw.db.example.com")]);
    let bytes = records(&message, message.len().div_ceil(HELLO_RECORDS_MAX));
    assert!(peek(&bytes).unwrap().is_some());

    assert_eq!(peek(&records(&message, 1)), Err(HelloError::TooLong));
}

#[test]
fn the_longest_hello_fits_the_bytes_that_a_caller_keeps() {
    let empty = message(&[extension(51, &[])]).len();
    let longest = message(&[extension(51, &vec![0; HELLO_MESSAGE_BYTES_MAX - empty])]);
    let bytes = records(&longest, longest.len().div_ceil(HELLO_RECORDS_MAX));

    assert_eq!(longest.len(), HELLO_MESSAGE_BYTES_MAX);
    assert!(bytes.len() <= HELLO_BYTES_MAX);
    assert!(peek(&bytes).unwrap().is_some());
}

#[test]
fn names_that_are_no_host_names_are_refused() {
    for name in [
        &b""[..],
        b".",
        b"a b",
        b"a/b",
        b"caf\xc3\xa9",
        b"a\0b",
        &[b'a'; 256],
    ] {
        assert_eq!(
            peek(&records(&message(&[server_name(name)]), 16384)),
            Err(HelloError::ServerName),
            "{name:?}"
        );
    }
}

#[test]
fn a_name_given_twice_is_no_name() {
    let bytes = records(
        &message(&[server_name(b"a.example"), server_name(b"b.example")]),
        16384,
    );

    assert_eq!(
        peek(&bytes),
        Err(HelloError::Malformed { part: "extensions" })
    );
}

#[test]
fn short_names_are_their_own_route_in_lower_case() {
    assert_eq!(route_label("DW-Redshift_1"), "dw-redshift_1");
    assert_eq!(route_label(&"a".repeat(63)), "a".repeat(63));
}

#[test]
fn long_names_get_a_short_route_that_never_changes() {
    let name = "analytics-redshift-us-east-1-123456789012-reader-custom-reporting";

    assert_eq!(
        route_label(name),
        "analytics-redshift-us-east-1-123456789012-reader-c-67b1e174ff04"
    );
    assert_eq!(route_label(&name.to_uppercase()), route_label(name));
    assert_ne!(route_label(&format!("{name}2")), route_label(name));
}

#[test]
fn names_that_no_label_can_hold_get_a_route_too() {
    for (name, prefix) in [
        ("sales.eu", "sales-eu-"),
        ("", "db-"),
        ("-x-", "x-"),
        ("données", "donn-es-"),
    ] {
        let label = route_label(name);
        assert_eq!(
            label.strip_prefix(prefix).map(str::len),
            Some(12),
            "{label}"
        );
    }
}

#[test]
fn a_route_is_one_label_under_the_clusters_database_domain() {
    assert_eq!(db_suffix("tg.example.com"), "db.tg.example.com");
    assert_eq!(
        route_of_sni("dw.db.tg.example.com", "tg.example.com"),
        Some("dw")
    );
    assert_eq!(
        route_of_sni("DW.DB.tg.Example.com.", "tg.example.com"),
        Some("DW")
    );
    for sni in [
        "tg.example.com",
        "db.tg.example.com",
        "a.b.db.tg.example.com",
        "dw.db.example.com",
        ".db.tg.example.com",
    ] {
        assert_eq!(route_of_sni(sni, "tg.example.com"), None, "{sni}");
    }
}

proptest! {
    #[test]
    fn a_hello_reads_the_same_however_it_is_cut(bytes_each in 40usize..3000, name in "[a-z][a-z0-9-]{0,40}") {
        let message = message(&[extension(51, &[5; 1100]), server_name(name.as_bytes()), alpn(&[b"postgresql"])]);
        prop_assert_eq!(
            peek(&records(&message, bytes_each)),
            Ok(Some(hello(Some(&name), &[b"postgresql"])))
        );
    }

    #[test]
    fn a_damaged_hello_never_panics(damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in 0usize..400) {
        let mut bytes = records(&message(&[server_name(b"dw.db.example.com"), alpn(&[b"postgresql", b"h2"])]), 50);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = peek(&bytes[..bytes.len().min(cut)]);
    }
}
