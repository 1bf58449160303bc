//! The header of the PROXY protocol, in both versions, at every cut.

use std::net::SocketAddr;

use proptest::prelude::*;
use tidegate_wire::proxy_header::{
    HEADER_BYTES_MAX, LINE_BYTES_MAX, ProxyHeader, ProxyHeaderError, is_begun, parse,
};

fn line(source: SocketAddr) -> Vec<u8> {
    let (family, to) = match source {
        SocketAddr::V4(_) => ("TCP4", "192.0.2.1"),
        SocketAddr::V6(_) => ("TCP6", "2001:db8::1"),
    };
    format!(
        "PROXY {family} {} {to} {} 3080\r\n",
        source.ip(),
        source.port()
    )
    .into_bytes()
}

fn binary(source: SocketAddr, beside: &[u8]) -> Vec<u8> {
    let (family, mut rest) = match source {
        SocketAddr::V4(v4) => (
            0x11,
            [v4.ip().octets().to_vec(), vec![192, 0, 2, 1]].concat(),
        ),
        SocketAddr::V6(v6) => (0x21, [v6.ip().octets().to_vec(), vec![0; 16]].concat()),
    };
    rest.extend(source.port().to_be_bytes());
    rest.extend(3080_u16.to_be_bytes());
    rest.extend(beside);
    let len = u16::try_from(rest.len())
        .expect("a header is short")
        .to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[family], &len, &rest].concat()
}

fn any_source() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn a_header_is_read_whole_and_at_no_earlier_cut(source in any_source(), beside in prop::collection::vec(any::<u8>(), 0..40), rest in prop::collection::vec(any::<u8>(), 0..40)) {
        for header in [line(source), binary(source, &beside)] {
            for cut in 0..header.len() {
                prop_assert_eq!(parse(&header[..cut]), Ok(None), "cut at {}", cut);
                prop_assert_eq!(is_begun(&header[..cut]), cut > 0);
            }
            let expected = ProxyHeader { source: Some(source), len: header.len() };
            prop_assert_eq!(parse(&[&header[..], &rest].concat()), Ok(Some(expected)));
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_wait_past_its_bounds(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3_u8) {
        let start: &[u8] = [&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"][usize::from(kind)];
        let bytes = [start, &bytes].concat();
        match parse(&bytes) {
            Ok(None) => prop_assert!(bytes.len() < HEADER_BYTES_MAX),
            Ok(Some(header)) => prop_assert!(header.len <= bytes.len()),
            Err(_) => {}
        }
    }
}

#[test]
fn what_says_nothing_of_the_client_is_no_error() {
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0cabcdefghijkl",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x02ab",
    ] {
        let len = header.len();
        assert_eq!(parse(header), Ok(Some(ProxyHeader { source: None, len })));
    }
}

#[test]
fn what_is_no_header_is_refused_at_the_first_byte_that_says_so() {
    for text in [
        &b"\0\0\0\x08"[..],
        b"\x16\x03\x01",
        b"PRO ",
        b"GET / HTTP/1.1\r\n",
        b"\r\n\r\n\r",
    ] {
        assert_eq!(parse(text), Err(ProxyHeaderError::Missing), "{text:?}");
        assert!(!is_begun(text));
    }
}

#[test]
fn malformed_headers_are_refused() {
    for text in [
        &b"PROXY \r\n"[..],
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY \xff\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0cabcdefghijkl",
        b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0cabcdefghijkl",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0babcdefghijk",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x0cabcdefghijkl",
    ] {
        assert!(
            matches!(parse(text), Err(ProxyHeaderError::Malformed(_))),
            "{text:?}"
        );
    }
    let endless = [&b"PROXY TCP4 "[..], &[b'1'; LINE_BYTES_MAX]].concat();
    assert!(matches!(
        parse(&endless),
        Err(ProxyHeaderError::Malformed(_))
    ));
    assert_eq!(
        parse(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"),
        Err(ProxyHeaderError::TooLong)
    );
}
