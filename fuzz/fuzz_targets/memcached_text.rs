//! memcached's answer to a line of text.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, length))) = wharf::wire::memcached::parse_text(data) {
        assert!(length > 0 && length <= data.len());
    }
});
