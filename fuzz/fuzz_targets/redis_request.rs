//! One command of a client of Redis Sentinel's protocol.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((words, length))) = wharf::wire::redis::request::parse(data) {
        assert!(length > 0 && length <= data.len() && words.len() <= wharf::wire::redis::request::MOST_WORDS);
    }
});
