//! What a database says while we log in to it, and of errors: read without a panic, and what is told on holds no more
//! than was said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_wire::backend::{
    Authentication, BackendKeyData, ErrorResponse, NegotiateProtocolVersion, NoticeResponse,
    ParameterStatus, ReadyForQuery, command_tag,
};

fuzz_target!(|body: &[u8]| {
    let _ = Authentication::parse(body);
    let _ = NegotiateProtocolVersion::parse(body);
    let _ = NoticeResponse::parse(body);
    let _ = command_tag(body);
    if let Ok(key) = BackendKeyData::parse(body) {
        assert!(!format!("{key:?}").is_empty());
    }
    if let Ok(status) = ParameterStatus::parse(body) {
        let shown = format!("{status:?}");
        assert!(!status.is_secret() || shown.ends_with(r#"value: "[redacted]" }"#));
    }
    if let Ok(ReadyForQuery(status)) = ReadyForQuery::parse(body) {
        assert_eq!(body, [status.as_byte()]);
    }
    let said = ErrorResponse::parse(body);
    let again = said.encode();
    assert_eq!(ErrorResponse::parse(&again[5..]).encode(), again);
});
