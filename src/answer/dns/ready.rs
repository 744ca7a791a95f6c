//! Ready-made replies for the common question by UDP: the same bytes that the handler made before, with the number,
//! flags and spelling of this question, beginning with another answer each time.
//!
//! A question that is anything but plain is not known here and goes to the handler, as does one whose answer may have
//! changed: a reply rests on the paths of the catalog that it was made from. Each thread has replies of its own, in
//! bounded memory, so nothing is shared and nothing waits. When there is no room, what was not asked for since the last
//! time goes first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;

use super::handler::Rests;
use super::message::UDP_MOST;
use super::metrics::{Metrics, is_common};
use super::packet::question_end;
use super::serving::Serving;
use super::wheel::Wheel;
use crate::catalog::index::{Catalog, Dependency};

/// Bytes of replies that all threads keep together.
pub(super) const MOST: usize = 8 << 20;
/// What a reply costs beside its parts: its place in a table that is half empty, and what allocating them takes.
const OVERHEAD: usize = 2 * size_of::<(Box<[u8]>, Reply)>() + 96;
/// A reply with no more answers is kept in every order: one copy is the quickest. Others are turned when they are sent.
const COPIES: usize = 8;
/// A reply with services that is so near to its limit may lack addresses: in each order those of others.
const GLUE: usize = 28 + OPT;
const SRV: [u8; 2] = [0, 33];
/// What a client takes that says nothing.
const UDP_PLAIN: u16 = 512;
const OPT: usize = 11;
const OPT_TYPE: [u8; 3] = [0, 0, 41];

/// The replies of one thread.
pub(super) struct Ready {
    catalog: arc_swap::Cache<Arc<ArcSwap<Catalog>>, Arc<Catalog>>,
    replies: HashMap<Box<[u8]>, Reply>,
    /// Bytes that they may take, and do.
    most: usize,
    bytes: usize,
    metrics: Arc<Metrics>,
    /// The key of the question that is looked for.
    key: Vec<u8>,
}

/// What the handler said, with what it rests on and its counter's place.
pub(super) struct Remembered {
    pub(super) reply: Vec<u8>,
    pub(super) rests: Rests,
    pub(super) place: usize,
}

struct Reply {
    rests: Rests,
    place: usize,
    wheel: Wheel,
    /// The turn that comes next.
    turn: usize,
    /// Bytes of one turn, of all that are written here.
    length: usize,
    written: Box<[u8]>,
    /// Asked for since room was made last.
    used: bool,
}

impl Reply {
    fn new(reply: &[u8], wheel: Wheel, rests: Rests, place: usize) -> Self {
        let copies = if wheel.turns() > COPIES { 1 } else { wheel.turns() };
        let mut written = Vec::with_capacity(copies * reply.len());
        (0..copies).for_each(|turn| wheel.write(reply, turn, &mut written));
        // The first turn is what is said now.
        let turn = 1 % wheel.turns();
        Self { rests, place, wheel, turn, length: reply.len(), written: written.into(), used: false }
    }

    /// Writes the turn that comes next.
    fn write(&mut self, out: &mut Vec<u8>) {
        let turns = self.wheel.turns();
        if turns > COPIES {
            self.wheel.write(&self.written, self.turn, out);
        } else {
            out.extend_from_slice(&self.written[self.turn * self.length..][..self.length]);
        }
        self.turn = if self.turn + 1 == turns { 0 } else { self.turn + 1 };
        self.used = true;
    }

    fn cost(&self, key: &[u8]) -> usize {
        let rests: usize = self.rests.dependencies.iter().map(Dependency::size).sum();
        OVERHEAD + key.len() + self.written.len() + self.wheel.size() + rests
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.count(0);
    }
}

impl Ready {
    /// None yet; they may take so many bytes.
    pub(super) fn new(serving: &Serving, most: usize) -> Self {
        Self {
            catalog: serving.view.cache(),
            replies: HashMap::new(),
            most,
            bytes: 0,
            metrics: serving.metrics.clone(),
            key: Vec::with_capacity(320),
        }
    }

    /// Writes the reply to a plain question that was answered before, and gives its counter's place.
    pub(super) fn answer(
        &mut self,
        packet: &[u8],
        serving: &Serving,
        client: IpAddr,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let end = self.look_for(packet, serving, client)?;
        let reply = self.replies.get_mut(self.key.as_slice())?;
        let catalog = self.catalog.load();
        if !still_true(&mut reply.rests, catalog, serving) {
            self.forget();
            return None;
        }
        out.clear();
        reply.write(out);
        out[..2].copy_from_slice(&packet[..2]);
        out[2] = (out[2] & !0x01) | (packet[2] & 0x01);
        out[3] = (out[3] & !0x10) | (packet[3] & 0x10);
        out[12..end].copy_from_slice(&packet[12..end]);
        Some(reply.place)
    }

    /// What the answer to this question depends on is the key from now on; gives where the question ends.
    fn look_for(&mut self, packet: &[u8], serving: &Serving, client: IpAddr) -> Option<usize> {
        self.key.clear();
        let end = plain(packet, &mut self.key)?;
        self.key.push(u8::from(serving.rules.recursion_for(client)));
        serving.rules.allows(client).then_some(end)
    }

    /// Keeps what the handler said to a question, if it can be said in another order.
    pub(super) fn remember(&mut self, asked: (&[u8], IpAddr), serving: &Serving, said: Remembered) {
        let Remembered { reply, rests, place } = said;
        let Some(end) = self.look_for(asked.0, serving, asked.1).filter(|end| reply.len() >= *end) else { return };
        self.forget();
        if self.may_lack_glue(&reply, end) {
            return;
        }
        let Some(wheel) = Wheel::of(&reply, end, rests.in_order) else { return };
        let reply = Reply::new(&reply, wheel, rests, place);
        let cost = reply.cost(&self.key);
        if cost > self.most / 2 {
            return;
        }
        if self.bytes + cost > self.most {
            self.make_room();
        }
        self.replies.insert(self.key.as_slice().into(), reply);
        self.count(self.bytes + cost);
    }

    fn may_lack_glue(&self, reply: &[u8], end: usize) -> bool {
        // Behind the question, the key has the size that the client takes and two more bytes; see `plain`.
        let size = self.key.len().checked_sub(4).and_then(|at| self.key.get(at..at + 2)).unwrap_or(&[0, 0]);
        let limit = u16::from_be_bytes([size[0], size[1]]).max(UDP_PLAIN);
        let asked = &reply[end - 4..end - 2];
        asked == SRV && reply.len() + GLUE > usize::from(limit)
    }

    fn forget(&mut self) {
        if let Some(old) = self.replies.remove(self.key.as_slice()) {
            self.count(self.bytes - old.cost(&self.key));
        }
    }

    /// Keeps half of what fits at most: what was asked for, as far as that goes.
    fn make_room(&mut self) {
        let (most, mut kept) = (self.most / 2, 0);
        self.replies.retain(|key, reply| {
            let cost = reply.cost(key);
            let stays = std::mem::replace(&mut reply.used, false) && kept + cost <= most;
            kept += if stays { cost } else { 0 };
            stays
        });
        self.count(kept);
    }

    /// So many bytes are kept now.
    fn count(&mut self, bytes: usize) {
        self.metrics.ready_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.metrics.ready_bytes.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        self.bytes = bytes;
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
    if !is_common(u16::from_be_bytes([packet[end - 4], packet[end - 3]])) {
        return None;
    }
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

#[cfg(test)]
mod tests {
    use hickory_server::proto::rr::RData;

    use super::*;
    use crate::answer::dns::dry::Dry;

    /// A name that exists, as many times as wanted: any label stands for any.
    fn spelled(number: usize) -> String {
        let star = |bit: usize| if number >> bit & 1 == 1 { "any" } else { "*" };
        format!("{}.{}", star(0), star(1))
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_given_back() {
        let mut dry = Dry::with_room(20_000);
        for number in 0..400_u16 {
            let mut packet = Dry::named(&spelled(usize::from(number)), [1, 33, 28, 16][usize::from(number / 4 % 4)]);
            packet[11] = 1;
            packet.extend_from_slice(&[0, 0, 41]);
            packet.extend_from_slice(&(512 + number).to_be_bytes());
            packet.extend_from_slice(&[0; 6]);
            dry.answer(&packet);
            let ready = &dry.ready;
            let counted: usize = ready.replies.iter().map(|(key, reply)| reply.cost(key)).sum();
            assert!(ready.bytes <= 20_000 && ready.bytes == counted, "{} of {counted}", ready.bytes);
            assert_eq!(dry.serving.metrics.ready_bytes.load(Ordering::Relaxed), counted as u64);
        }
        assert!(dry.ready.bytes > 5_000);
        let metrics = dry.serving.metrics.clone();
        drop(dry);
        assert_eq!(metrics.ready_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_near_comes_first_in_ready_made_replies_too() {
        let mut dry = Dry::new();
        let packet = Dry::named("shop", 33);
        dry.answer(&packet);
        assert!(dry.is_ready(&packet));
        let mut told = std::collections::BTreeSet::new();
        let service = |data: &RData| match data {
            RData::SRV(srv) => format!("{}:{}", srv.priority, srv.target),
            other => panic!("{other}"),
        };
        for _ in 0..8 {
            let reply = dry.ready_made(&packet).expect("it is ready");
            let read = hickory_server::proto::op::Message::from_vec(&reply).expect("a message");
            told.insert(read.answers.iter().map(|record| service(&record.data)).collect::<Vec<_>>());
        }
        let turn = |order: [u8; 4]| {
            let priorities = [10, 11, 12, 12];
            let named = |(core, priority)| format!("{priority}:core-0{core}.shop.services.internal.");
            order.into_iter().zip(priorities).map(named).collect::<Vec<_>>()
        };
        assert_eq!(told, [turn([1, 2, 3, 4]), turn([1, 2, 4, 3])].into());
    }

    #[test]
    fn only_types_that_are_asked_for_are_kept() {
        let mut dry = Dry::new();
        for kind in (0..300).chain((300..=u16::MAX).step_by(997)) {
            dry.answer(&Dry::named("web", kind));
        }
        assert!(dry.ready.replies.len() <= 14, "{} kinds", dry.ready.replies.len());
    }

    #[test]
    fn a_flood_leaves_what_is_asked_for_again_and_again() {
        let mut dry = Dry::with_room(20_000);
        let popular = Dry::named("web", 33);
        for number in 0..300_u16 {
            let mut packet = Dry::named("*.web", 1);
            packet[11] = 1;
            packet.extend_from_slice(&[0, 0, 41]);
            packet.extend_from_slice(&(512 + number % 700).to_be_bytes());
            packet.extend_from_slice(&[0; 6]);
            dry.answer(&packet);
            dry.answer(&popular);
            if number > 0 {
                assert!(dry.is_ready(&popular), "gone after {number}");
            }
        }
    }
}
