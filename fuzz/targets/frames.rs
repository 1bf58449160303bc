//! Streams of messages: cut anywhere, they read as they do whole, and what clients say in them is understood or not,
//! without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_wire::{
    frame::{FrameError, Scanner},
    frontend,
};

type Seen = Vec<(u8, usize, Vec<u8>, bool)>;

fn scan(mut scanner: Scanner, chunks: [&[u8]; 3]) -> (Seen, Result<(), FrameError>, bool) {
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
    (seen, result, scanner.at_boundary())
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (a, b, bytes) = input;
    let a = usize::from(a).min(bytes.len());
    let b = a + usize::from(b).min(bytes.len() - a);
    let cut = [&bytes[..a], &bytes[a..b], &bytes[b..]];
    for new in [Scanner::client, Scanner::database] {
        let whole = scan(new(64), [bytes, &[], &[]]);
        assert_eq!(scan(new(64), cut), whole);
        for (tag, total, head, complete) in &whole.0 {
            assert!(head.len() <= 64 && *total >= 5 + head.len(), "{tag}");
            assert_eq!(*complete, head.len() + 5 == *total);
            let _ = frontend::parse_sql(head).map(|view| view.sql.text.len());
            assert!(frontend::query_sql(head).text.len() <= 3 * head.len());
        }
    }
});
