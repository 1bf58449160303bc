//! First messages of PostgreSQL connections: what is understood says the same again, and a part of it is never refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_wire::startup::{FirstMessage, parse_first};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((message, len))) = parse_first(bytes) else {
        return;
    };
    assert!(len <= bytes.len());
    for end in 0..len {
        assert_eq!(parse_first(&bytes[..end]), Ok(None), "{end} of {len} bytes");
    }
    match message {
        FirstMessage::Startup(startup) => {
            let again = startup.encode();
            assert_eq!(
                parse_first(&again),
                Ok(Some((FirstMessage::Startup(startup), again.len())))
            );
        }
        FirstMessage::Cancel(cancel) => assert_eq!(*cancel.encode(), bytes[..len]),
        _ => assert_eq!(len, 8),
    }
});
