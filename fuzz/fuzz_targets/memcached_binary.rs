//! memcached's answer in the binary protocol.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, length))) = wharf::wire::memcached::parse_binary(data) {
        assert!(length > 0 && length <= data.len());
    }
});
