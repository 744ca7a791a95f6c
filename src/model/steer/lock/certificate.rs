//! The certificate of a program that was started under a lock, and the entry of one who waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hold::LONGEST as LONGEST_TTL;

/// The longest that is read: anybody may write there.
const LONGEST: usize = 4096;

/// Who runs. Whatever it cannot be read as, it is there, and somebody may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// The create revision of its queue key.
    pub token: i64,
    /// Its host.
    pub node: String,
    /// That host's boot.
    pub boot: String,
    /// Its lease: a store that was restored gives out revisions, but no lease, for the second time.
    pub lease: i64,
    /// When it started, in seconds since 1970, by its own clock.
    pub since: u64,
    /// The time that its lease was granted, in milliseconds.
    pub ttl: u64,
}

impl Certificate {
    /// As it is written.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("it has text keys")
    }

    /// As it is read; what cannot be read is nobody's.
    pub fn decode(bytes: &[u8]) -> Self {
        let read = (bytes.len() <= LONGEST).then(|| serde_json::from_slice(bytes).ok()).flatten();
        read.unwrap_or_default()
    }

    /// The time granted; of one that does not tell it, ours.
    pub fn granted(&self, ours: Duration) -> Duration {
        granted(self.ttl, ours)
    }
}

fn granted(told: u64, ours: Duration) -> Duration {
    if told == 0 { ours } else { Duration::from_millis(told).min(LONGEST_TTL) }
}

/// One who waits, as its queue key tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Its host.
    pub node: String,
    /// Since when, in seconds since 1970, by its own clock.
    pub since: u64,
    /// The time that its lease was granted, in milliseconds.
    pub ttl: u64,
}

impl Entry {
    /// As it is written.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("it has text keys")
    }

    /// The time granted; of one that does not tell it, ours.
    pub fn granted(&self, ours: Duration) -> Duration {
        granted(self.ttl, ours)
    }

    /// As it is read: etcdctl writes nothing there.
    pub fn decode(bytes: &[u8]) -> Self {
        let read = (bytes.len() <= LONGEST).then(|| serde_json::from_slice(bytes).ok()).flatten();
        read.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_nobodys() {
        let one =
            Certificate { token: 7, node: "core-01".into(), boot: "b".into(), lease: 0x694d, since: 1, ttl: 15_000 };
        assert_eq!(Certificate::decode(one.encode().as_bytes()), one);
        for bad in ["", "7", "{\"token\":\"x\"}", &"x".repeat(10_000)] {
            assert_eq!(Certificate::decode(bad.as_bytes()), Certificate::default(), "{bad}");
        }
        assert_eq!(Certificate::decode(b"{\"token\":7,\"more\":1}").token, 7);
        assert_eq!(Certificate::default().granted(Duration::from_secs(9)), Duration::from_secs(9));
    }
}
