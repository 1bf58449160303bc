//! The scanner against a reader that has the whole stream at once.

use proptest::{collection::vec, prelude::*};
use tidegate_wire::frame::{FRAME_BYTES_MAX, FrameError, Header, Scanner, peek_header};

const KEEP_BYTES_MAX: usize = 24;

type Seen = (u8, usize, Vec<u8>, bool);

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).expect("test bodies are small");
    [&[tag][..], &len.to_be_bytes(), body].concat()
}

fn scan(scanner: &mut Scanner, chunks: &[&[u8]]) -> (Vec<Seen>, Result<(), FrameError>) {
    let mut seen = Vec::new();
    let mut result = Ok(());
    for chunk in chunks {
        result = scanner.feed(chunk, |event| {
            seen.push((
                event.tag,
                event.total_len,
                event.head.to_vec(),
                event.complete,
            ));
        });
        if result.is_err() {
            break;
        }
    }
    (seen, result)
}

fn naive(mut stream: &[u8], bulk: &[u8]) -> (Vec<Seen>, Result<(), FrameError>) {
    let mut seen = Vec::new();
    loop {
        let header = match peek_header(stream, FRAME_BYTES_MAX) {
            Ok(Some(header)) => header,
            Ok(None) => return (seen, Ok(())),
            Err(error) => return (seen, Err(error)),
        };
        let Some(body) = stream.get(5..header.total()) else {
            return (seen, Ok(()));
        };
        let keep = if bulk.contains(&header.tag) {
            0
        } else {
            body.len().min(KEEP_BYTES_MAX)
        };
        seen.push((
            header.tag,
            header.total(),
            body[..keep].to_vec(),
            keep == body.len(),
        ));
        stream = &stream[header.total()..];
    }
}

fn cut<'a>(stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut chunks = Vec::new();
    for size in sizes {
        let (chunk, behind) = rest.split_at(rest.len().min(*size));
        chunks.push(chunk);
        rest = behind;
    }
    chunks.push(rest);
    chunks
}

proptest! {
    #[test]
    fn any_cut_of_valid_messages_reads_like_the_whole(
        messages in vec((prop::sample::select(b"QPDdBZ".to_vec()), vec(any::<u8>(), 0..80)), 0..12),
        sizes in vec(0usize..40, 0..30),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        let chunks = cut(&stream, &sizes);

        let mut database = Scanner::database(KEEP_BYTES_MAX);
        prop_assert_eq!(scan(&mut database, &chunks), naive(&stream, b"dD"));
        prop_assert!(database.at_boundary());
        prop_assert_eq!(scan(&mut Scanner::client(KEEP_BYTES_MAX), &chunks), naive(&stream, b"d"));
    }

    #[test]
    fn any_cut_of_garbage_reads_like_the_whole(
        stream in vec(prop_oneof![Just(0u8), Just(4), Just(9), any::<u8>()], 0..200),
        sizes in vec(0usize..20, 0..30),
    ) {
        let chunks = cut(&stream, &sizes);

        prop_assert_eq!(scan(&mut Scanner::database(KEEP_BYTES_MAX), &chunks), naive(&stream, b"dD"));
    }
}

#[test]
fn a_message_cut_anywhere_is_no_boundary() {
    let stream = message(b'Q', b"select 1\0");
    for cut in 1..stream.len() {
        let mut scanner = Scanner::client(KEEP_BYTES_MAX);
        assert_eq!(scan(&mut scanner, &[&stream[..cut]]), (vec![], Ok(())));
        assert!(!scanner.at_boundary(), "cut after {cut} bytes");
    }
}

#[test]
fn an_impossible_length_is_reported_for_every_later_chunk() {
    let mut scanner = Scanner::client(KEEP_BYTES_MAX);
    let expected = Err(FrameError::TooShort {
        tag: b'Q',
        declared: 3,
    });

    assert_eq!(scan(&mut scanner, &[b"Q\0\0\0\x03"]).1, expected);
    assert_eq!(
        scan(&mut scanner, &[&message(b'S', b"")]),
        (vec![], expected)
    );
    assert_eq!(scan(&mut scanner, &[b""]).1, expected);
    assert!(!scanner.at_boundary());
}

#[test]
fn a_header_is_read_only_when_whole_and_within_the_limit() {
    let header = b"R\0\0\x01\x04";

    assert_eq!(peek_header(&header[..4], 256), Ok(None));
    assert_eq!(
        peek_header(header, 256),
        Ok(Some(Header {
            tag: b'R',
            len: 256
        }))
    );
    assert_eq!(
        peek_header(header, 255),
        Err(FrameError::TooLong {
            tag: b'R',
            declared: 260,
            bytes_max: 255
        })
    );
    assert!(peek_header(b"\x16\xff\xff\xff\xff", FRAME_BYTES_MAX).is_err());
}

#[test]
fn a_scanner_prints_no_content() {
    let mut scanner = Scanner::client(64);
    let mut printed = String::new();
    let stream = message(b'Q', b"create user x password 'hunter2'\0");
    scanner
        .feed(&stream, |event| printed = format!("{event:?}"))
        .expect("a valid message");
    scanner
        .feed(&stream[..20], |_| ())
        .expect("a valid message");

    let bytes: Vec<String> = b"create".iter().map(u8::to_string).collect();
    assert!(!printed.contains(&bytes.join(", ")), "{printed}");
    assert!(
        !format!("{scanner:?}").contains(&bytes.join(", ")),
        "{scanner:?}"
    );
}
