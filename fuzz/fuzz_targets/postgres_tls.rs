//! PostgreSQL's answer to a request for TLS.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, length))) = wharf::wire::postgres::parse_tls(data) {
        assert!(length > 0 && length <= data.len());
    }
});
