//! ClientHellos: what a part of the bytes was taken for, the whole is too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_wire::{hello, route};

fuzz_target!(|bytes: &[u8]| {
    let whole = hello::peek(bytes);
    for end in (0..bytes.len()).rev().take(64) {
        match hello::peek(&bytes[..end]) {
            Ok(None) => {}
            sooner => assert_eq!(sooner, whole, "{end} of {} bytes", bytes.len()),
        }
    }
    if let Ok(Some(found)) = whole
        && let Some(name) = found.server_name
    {
        assert!(name.len() <= 255 && !name.ends_with('.'));
        let _ = route::route_of_sni(&name, "tidegate.example.com");
    }
});
