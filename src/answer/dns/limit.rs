//! Response rate limiting: how many answers a second one network gets by UDP, where sources can be forged.
//!
//! A fixed table of counters, shared by all threads without a lock. Networks that meet in one place are told apart by a
//! tag; when a place is full of others of this second, they are counted together, which errs on the strict side.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Places in the table; each 8 bytes.
const PLACES: usize = 1 << 14;
/// Places that a network may take, one beside the other.
const WAYS: usize = 4;
const COUNT_BITS: u32 = 20;
const TIME_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Nothing is added beyond: more threads than the rest has room for never add at once.
const FULL: u64 = COUNT - (1 << 10);
const TIME: u64 = (1 << TIME_BITS) - 1;

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Its answer.
    Answer,
    /// An empty answer that bids it to come by TCP.
    Truncated,
    /// Nothing.
    Nothing,
}

/// Answers counted by network and second.
#[derive(Debug)]
pub(super) struct RateLimit {
    rate: u64,
    hasher: RandomState,
    places: Box<[AtomicU64]>,
}

impl RateLimit {
    /// At most `rate` answers a second to one network; 0 is no limit.
    pub(super) fn new(rate: u32) -> Self {
        let places = if rate == 0 { 0 } else { PLACES };
        Self {
            rate: u64::from(rate).min(COUNT / 2),
            hasher: RandomState::new(),
            places: (0..places).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts one answer to `client` in this `second`, and says what it gets.
    pub(super) fn count(&self, client: IpAddr, second: u64) -> Share {
        if self.places.is_empty() {
            return Share::Answer;
        }
        let hash = self.hasher.hash_one(network(client));
        let excess = self.add(hash, second & TIME).saturating_sub(self.rate);
        match excess {
            0 => Share::Answer,
            excess if excess + self.rate >= FULL => Share::Nothing,
            excess if excess.is_multiple_of(2) => Share::Truncated,
            _ => Share::Nothing,
        }
    }

    /// How many it is for that hash in that second.
    fn add(&self, hash: u64, time: u64) -> u64 {
        let tag = hash >> (COUNT_BITS + TIME_BITS);
        let first = usize::try_from(hash & 0xffff_ffff).unwrap_or(0) % PLACES;
        let ways = (0..WAYS).map(|way| &self.places[(first ^ way) % PLACES]);
        let mine = |held: u64| held >> (COUNT_BITS + TIME_BITS) == tag && (held >> COUNT_BITS) & TIME == time;
        let mut chosen = &self.places[first];
        for place in ways {
            let held = place.load(Ordering::Relaxed);
            if mine(held) {
                return one_more(place);
            }
            if (held >> COUNT_BITS) & TIME != time {
                chosen = place;
            }
        }
        let held = chosen.load(Ordering::Relaxed);
        if (held >> COUNT_BITS) & TIME == time {
            return one_more(chosen);
        }
        // Two threads may begin the same second here; one answer more is let through then.
        chosen.store((tag << (COUNT_BITS + TIME_BITS)) | (time << COUNT_BITS) | 1, Ordering::Relaxed);
        1
    }
}

/// Counts one more in a place, as far as that can be counted; how many it is.
fn one_more(place: &AtomicU64) -> u64 {
    let count = place.load(Ordering::Relaxed) & COUNT;
    if count >= FULL { count } else { 1 + (place.fetch_add(1, Ordering::Relaxed) & COUNT) }
}

/// The /24 or /56 that an address belongs to.
pub(super) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4) >> 8),
        IpAddr::V6(v6) => u64::try_from(u128::from(v6) >> 72).unwrap_or(0) | (1 << 63),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn many(limit: &RateLimit, client: &str, second: u64, times: usize) -> [usize; 3] {
        let mut seen = [0; 3];
        for _ in 0..times {
            match limit.count(address(client), second) {
                Share::Answer => seen[0] += 1,
                Share::Truncated => seen[1] += 1,
                Share::Nothing => seen[2] += 1,
            }
        }
        seen
    }

    #[test]
    fn a_network_has_its_answers_then_every_second_truncated() {
        let limit = RateLimit::new(100);
        assert_eq!(many(&limit, "192.0.2.1", 7, 60), [60, 0, 0]);
        assert_eq!(many(&limit, "192.0.2.200", 7, 60), [40, 10, 10], "the same /24");
        assert_eq!(many(&limit, "192.0.3.1", 7, 60), [60, 0, 0], "another /24");
        assert_eq!(many(&limit, "192.0.2.1", 8, 60), [60, 0, 0], "another second");
    }

    #[test]
    fn a_v6_network_is_a_56() {
        let limit = RateLimit::new(10);
        assert_eq!(many(&limit, "2001:db8:0:1200::1", 1, 10), [10, 0, 0]);
        assert_eq!(many(&limit, "2001:db8:0:12ff::1", 1, 2), [0, 1, 1], "the same /56");
        assert_eq!(many(&limit, "2001:db8:0:1300::1", 1, 10), [10, 0, 0], "another /56");
    }

    #[test]
    fn more_than_can_be_counted_frees_nobody() {
        let limit = RateLimit::new(5);
        assert_eq!(many(&limit, "198.51.100.1", 3, 5), [5, 0, 0]);
        let more = usize::try_from(2 * COUNT).expect("small");
        assert_eq!(many(&limit, "198.51.100.1", 3, more)[0], 0, "the count began anew");
        assert_eq!(many(&limit, "198.51.100.1", 3, 100), [0, 0, 100]);
        assert_eq!(many(&limit, "198.51.100.1", 4, 5), [5, 0, 0], "the next second");
    }

    #[test]
    fn no_limit_is_no_limit() {
        assert_eq!(many(&RateLimit::new(0), "192.0.2.1", 0, 100_000), [100_000, 0, 0]);
    }

    #[test]
    fn a_flood_of_networks_does_not_free_one() {
        let limit = RateLimit::new(5);
        assert_eq!(many(&limit, "198.51.100.1", 3, 5), [5, 0, 0]);
        for network in 0..50_000_u32 {
            let client = IpAddr::from((0x0a00_0000 + (network << 8)).to_be_bytes());
            limit.count(client, 3);
        }
        assert_eq!(many(&limit, "198.51.100.1", 3, 4)[0], 0);
    }
}
