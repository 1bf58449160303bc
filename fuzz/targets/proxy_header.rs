//! PROXY headers: what a part of the bytes was taken for, the whole is too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_wire::proxy_header::{self, HEADER_BYTES_MAX};

fuzz_target!(|bytes: &[u8]| {
    let whole = proxy_header::parse(bytes);
    for end in (1..bytes.len()).rev().take(64) {
        match proxy_header::parse(&bytes[..end]) {
            Ok(None) => assert!(end < HEADER_BYTES_MAX),
            sooner => assert_eq!(sooner, whole, "{end} of {} bytes", bytes.len()),
        }
    }
    if let Ok(Some(header)) = whole {
        assert!(header.len <= bytes.len() && proxy_header::is_begun(bytes));
    }
});
