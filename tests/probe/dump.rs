//! A dump that Redis takes a while to read, so that it can be met while it loads.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::io::Write as _;
use std::path::Path;

/// How to make Redis read each key of a dump for a millisecond, and answer meanwhile.
pub const SLOWLY: [&str; 6] =
    ["--enable-debug-command", "yes", "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];

/// Writes a dump that takes a while to read: `key-load-delay` makes each key cost that many microseconds.
pub fn dump(directory: &Path, keys: u32) {
    let mut bytes = b"REDIS0009\xfe\x00".to_vec();
    for key in 0..keys {
        let name = format!("{key:08}");
        bytes.extend_from_slice(&[0, 8]);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\x01x");
    }
    // The end, and a checksum that is not checked.
    bytes.push(0xff);
    bytes.extend_from_slice(&[0; 8]);
    let mut file = std::fs::File::create(directory.join("dump.rdb")).unwrap();
    file.write_all(&bytes).unwrap();
}
