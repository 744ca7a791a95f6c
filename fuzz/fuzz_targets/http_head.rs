//! The head of an HTTP response.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, length))) = wharf::wire::http::parse_head(data) {
        assert!(length > 0 && length <= data.len());
    }
});
