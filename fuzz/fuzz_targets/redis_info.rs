//! A section of Redis's INFO.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wharf::wire::redis::Replication::default().read(data);
});
