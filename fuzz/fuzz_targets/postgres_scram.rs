//! PostgreSQL's first word of SCRAM.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wharf::wire::postgres::parse_server_first(data).ok();
});
