//! Ready-made replies for the common question by UDP: the same bytes that the handler made before, with the number,
//! flags and spelling of this question.
//!
//! A question that is anything but plain is not known here and goes to the handler, as does one whose answer may have
//! changed: a reply rests on the paths of the catalog that it was made from. Each thread has replies of its own, in
//! bounded memory, so nothing is shared and nothing waits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::handler::Rests;
use super::message::UDP_MOST;
use super::packet::question_end;
use super::serving::Serving;
use crate::model::catalog::Catalog;

/// Bytes of replies that a thread keeps.
const MOST: usize = 8 << 20;
/// What a reply costs beside its bytes.
const OVERHEAD: usize = 256;
/// Rotations kept of one answer.
const WAYS: usize = 8;
const OPT: usize = 11;
const OPT_TYPE: [u8; 3] = [0, 0, 41];

/// The replies of one thread.
pub(super) struct Ready {
    catalog: arc_swap::Cache<Arc<ArcSwap<Catalog>>, Arc<Catalog>>,
    replies: HashMap<Box<[u8]>, Reply>,
    bytes: usize,
    /// The key of the question that was looked for last; empty when it was not plain.
    key: Vec<u8>,
    question: usize,
}

struct Reply {
    rests: Rests,
    place: usize,
    ways: Vec<Box<[u8]>>,
}

impl Ready {
    pub(super) fn new(serving: &Serving) -> Self {
        let catalog = serving.view.cache();
        Self { catalog, replies: HashMap::new(), bytes: 0, key: Vec::with_capacity(320), question: 0 }
    }

    /// Writes the reply to a plain question that was answered before, and gives its counter's place. Otherwise the seed
    /// by which the handler is to answer.
    pub(super) fn answer(
        &mut self,
        packet: &[u8],
        serving: &Serving,
        client: IpAddr,
        seed: u64,
        out: &mut Vec<u8>,
    ) -> Result<usize, u64> {
        self.key.clear();
        let Some(end) = plain(packet, &mut self.key) else { return Err(seed) };
        if !serving.rules.allows(client) {
            self.key.clear();
            return Err(seed);
        }
        self.key.push(u8::from(serving.rules.recursion_for(client)));
        self.question = end;
        let Some(reply) = self.replies.get_mut(self.key.as_slice()) else { return Err(seed) };
        let catalog = self.catalog.load();
        if !still_true(&mut reply.rests, catalog, serving) {
            self.forget();
            return Err(seed);
        }
        let ways = reply.rests.ways.clamp(1, WAYS);
        if reply.ways.len() < ways {
            return Err(reply.ways.len() as u64);
        }
        let way = usize::try_from(seed).unwrap_or_default() % ways;
        out.clear();
        out.extend_from_slice(&reply.ways[way]);
        out[..2].copy_from_slice(&packet[..2]);
        out[2] = (out[2] & !0x01) | (packet[2] & 0x01);
        out[3] = (out[3] & !0x10) | (packet[3] & 0x10);
        out[12..end].copy_from_slice(&packet[12..end]);
        Ok(reply.place)
    }

    /// Keeps what the handler said to the question that was looked for last.
    pub(super) fn remember(&mut self, reply: &[u8], rests: Rests, place: usize) {
        if self.key.is_empty() || reply.len() < self.question {
            return;
        }
        let added = reply.len() + OVERHEAD;
        if self.bytes + added > MOST {
            self.replies.clear();
            self.bytes = 0;
        }
        match self.replies.get_mut(self.key.as_slice()) {
            Some(known) if known.rests.generation == rests.generation => known.ways.push(reply.into()),
            _ => {
                self.forget();
                self.replies.insert(self.key.as_slice().into(), Reply { rests, place, ways: vec![reply.into()] });
            }
        }
        self.bytes += added;
    }

    fn forget(&mut self) {
        if let Some(old) = self.replies.remove(self.key.as_slice()) {
            let freed: usize = old.ways.iter().map(|way| way.len() + OVERHEAD).sum();
            self.bytes = self.bytes.saturating_sub(freed);
        }
    }
}

/// Whether what a reply rests on is as it was.
fn still_true(rests: &mut Rests, catalog: &Catalog, serving: &Serving) -> bool {
    if rests.fresh_until.is_some_and(|until| until <= serving.view.now()) {
        return false;
    }
    let generation = catalog.generation();
    if rests.generation == generation {
        return true;
    }
    let still = catalog.holds_still(rests.epoch, &rests.dependencies);
    if still {
        rests.generation = generation;
    }
    still
}

/// Whether a packet is one plain question, perhaps with an OPT without options; writes what its answer depends on, and
/// gives where the question ends.
fn plain(packet: &[u8], key: &mut Vec<u8>) -> Option<usize> {
    let end = question_end(packet)?;
    // A query; RD, AD and CD may be set, everything else may not.
    let common = packet[2] & !0x01 == 0 && packet[3] & !0x30 == 0 && packet[6..10] == [0; 4] && packet[10] == 0;
    if !common {
        return None;
    }
    let takes = match (packet[11], packet.len() - end) {
        (0, 0) => [0, 0, 0],
        (1, OPT) => opt(&packet[end..])?,
        _ => return None,
    };
    key.extend(packet[12..end].iter().map(u8::to_ascii_lowercase));
    // The type and class are numbers, not letters.
    let numbers = key.len() - 4;
    key[numbers..].copy_from_slice(&packet[end - 4..end]);
    key.extend_from_slice(&takes);
    Some(end)
}

/// The size that fits and the DO bit, of an OPT of version 0 without options.
fn opt(record: &[u8]) -> Option<[u8; 3]> {
    let plain = record[..3] == OPT_TYPE && record[5..7] == [0, 0] && record[7] & 0x7f == 0 && record[8..] == [0; 3];
    let size = u16::from_be_bytes([record[3], record[4]]).clamp(512, UDP_MOST).to_be_bytes();
    plain.then_some([size[0], size[1], 1 | (record[7] & 0x80)])
}
