//! Which answer comes first: another one each time that a question is asked, so that each comes first equally often.
//!
//! Questions are counted by name and type, not together: of two that a client asks in turns, each would see every
//! second order only. The counts stand in a table of fixed size; two questions that meet there take turns.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use hickory_server::net::xfer::Protocol;

use super::message::HEADER;
use super::packet::question_end;

/// Counts in the table.
const COUNTS: usize = 1 << 12;
/// From one question's number to the next by stream: far, so that few questions see all of a set that no message holds
/// whole.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// How often questions were asked.
#[derive(Debug)]
pub(super) struct Order {
    hasher: RandomState,
    counts: Box<[AtomicU64]>,
}

impl Order {
    /// Beginning anywhere.
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        let counts = (0..COUNTS).map(|place| AtomicU64::new(hasher.hash_one(place) >> 1)).collect();
        Self { hasher, counts }
    }

    /// What the answer to a packet's question is rotated by.
    pub(super) fn next(&self, packet: &[u8], protocol: Protocol) -> u64 {
        let question = question_end(packet).and_then(|end| packet.get(HEADER..end)).unwrap_or_default();
        let mut hasher = self.hasher.build_hasher();
        question.iter().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
        let place = usize::try_from(hasher.finish() % COUNTS as u64).unwrap_or(0);
        let count = self.counts[place].fetch_add(1, Ordering::Relaxed);
        if protocol == Protocol::Udp { count } else { count.wrapping_mul(STRIDE) }
    }
}
