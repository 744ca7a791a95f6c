//! MySQL's first word.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wharf::wire::mysql::parse_greeting(data).ok();
});
