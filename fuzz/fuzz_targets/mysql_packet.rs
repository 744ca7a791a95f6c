//! One packet of MySQL.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, length))) = wharf::wire::mysql::parse(data) {
        assert!(length > 0 && length <= data.len());
    }
});
