//! SRV, MX, NS and TXT: what a name's records say of ports, mail and text, with the addresses of their targets beside.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hickory_server::proto::rr::rdata::{MX, SRV, TXT};

use super::address::{Wanted, rotate};
use super::glue::{Glue, key_of, key_of_data};
use super::work::{Work, cost_of_ttl, wire_length};
use super::{Name, Outcome, RData, Rr};
use crate::catalog::index::Entry;
use crate::catalog::select::{Distances, Hit, Selection};
use crate::catalog::steps::{self, MOST};
use crate::model::words::site::FARTHEST;

/// SkyDNS's priority and weight where a record has none.
const PRIORITY: u16 = 10;
const WEIGHT: u64 = 100;
/// Named targets whose addresses are looked up for one answer.
const MAX_TARGETS: usize = 32;
/// Owner (compressed), type, class, TTL and length of a record, and the fixed part of an SRV's data.
const SRV_SIZE: usize = 12 + 6;
const MX_SIZE: usize = 12 + 2;
const HEADER: usize = 12;
/// The longest string within a TXT record.
const TXT_STRING: usize = 255;
/// Of more records than this no more are looked at than a message has room for.
const MANY: usize = 512;
/// Of a set that is cut so many of the nearest are looked for: as many as the largest message holds.
const NEAREST: usize = 1_024;
/// Steps that adding what a target leads to takes, each record.
const TOLD_GLUE: usize = 16;
/// The least that telling a text takes.
const TOLD_TEXT: usize = 6;
/// Bytes of a text that are compared with others in one step.
const TEXT_BYTES: usize = 16;

/// A record of an answer that leads to a target, with what it was found by.
type Leading<'c> = (usize, Hit<'c>);

impl<'c> Work<'c> {
    /// The answer for SRV.
    pub(super) fn service(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        let Some(mut selection) = self.find(place, own) else {
            return Outcome::Answer(self.finish(place, None, Vec::new()));
        };
        if selection.cut && self.prefers_near(&selection.hits) {
            self.add_nearest(place, own, &mut selection);
        }
        selection.hits.retain(|hit| hit.entry.has_host());
        if selection.hits.len() <= MANY.min(self.steps.left()) {
            self.steps.take(drop_equal(&mut selection.hits));
        }
        self.put_near_first(&mut selection.hits);
        let data = |hit: &Hit<'_>, weight, target| RData::SRV(SRV::new(priority(hit), weight, hit.entry.port, target));
        self.leading(place, owner, selection, SRV_SIZE, data)
    }

    /// Whether a service prefers what is near, or this host does.
    fn prefers_near(&self, hits: &[Hit<'c>]) -> bool {
        self.context.standpoint.prefers_near || hits.iter().any(|hit| hit.entry.prefers_near)
    }

    /// The window of a large set may hold nothing that is near: that is found by index, and takes the place of others.
    fn add_nearest(&mut self, place: usize, own: &[&str], selection: &mut Selection<'c>) {
        let nearest = self.share(2, |work| work.find_by(place, |finder| finder.find_outwards(own, NEAREST)));
        let mut hits = nearest.map(|nearest| nearest.hits).unwrap_or_default();
        self.steps.take(hits.len());
        let most = selection.hits.len().max(hits.len());
        let known: HashSet<_> = hits.iter().map(|hit| Arc::as_ptr(hit.entry)).collect();
        hits.extend(selection.hits.iter().filter(|hit| !known.contains(&Arc::as_ptr(hit.entry))));
        hits.truncate(most);
        selection.hits = hits;
    }

    /// Where a service prefers what is near, or this host does: priorities by the records' own and then by distance,
    /// from 10 on, and the records in that order. What there are no steps to know of is taken for far.
    fn put_near_first(&mut self, hits: &mut [Hit<'c>]) {
        if !self.prefers_near(hits) {
            return;
        }
        let standpoint = self.context.standpoint;
        let end = self.steps.until(self.steps.taken() + self.steps.left() / 2);
        let distances = Distances::from(standpoint);
        let rank = |hit: &Hit<'c>| {
            let distance = distances.of(hit.entry, &self.steps).unwrap_or(FARTHEST);
            (own_priority(hit.entry), distance)
        };
        let mut ranks: Vec<(u16, u8)> = hits.iter().map(rank).collect();
        self.steps.until(end);
        let of_hits = ranks.clone();
        ranks.sort_unstable();
        ranks.dedup();
        for (hit, rank) in hits.iter_mut().zip(of_hits) {
            let place = ranks.binary_search(&rank).unwrap_or_default();
            hit.class = Some(PRIORITY.saturating_add(u16::try_from(place).unwrap_or(u16::MAX)));
        }
        hits.sort_by_key(|hit| hit.class);
        self.in_order = true;
    }

    /// The answer for MX.
    pub(super) fn mail(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        let Some(selection) = self.find(place, own) else {
            return Outcome::Answer(self.finish(place, None, Vec::new()));
        };
        let mut mails = Selection { hits: selection.hits.clone(), ..selection };
        mails.hits.retain(|hit| takes_mail(hit.entry));
        if mails.hits.is_empty() {
            return self.led_on(place, own, owner, &selection.hits);
        }
        let data = |hit: &Hit<'_>, _: u16, target| RData::MX(MX::new(priority(hit), target));
        self.leading(place, owner, mails, MX_SIZE, data)
    }

    /// The answer for TXT.
    pub(super) fn text(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        let Some(selection) = self.find(place, own) else {
            return Outcome::Answer(self.finish(place, None, Vec::new()));
        };
        if selection.cut {
            self.mark_cut();
        }
        let answers = self.texts(&selection.hits, owner);
        if answers.is_empty() {
            return self.led_on(place, own, owner, &selection.hits);
        }
        Outcome::Answer(self.finish(place, Some(answers), Vec::new()))
    }

    /// The texts of a set, each once.
    pub(super) fn texts(&mut self, hits: &[Hit<'c>], owner: &Name) -> Vec<Rr> {
        let has_text = |hit: &&Hit<'c>| hit.entry.text.as_deref().is_some_and(|text| !text.is_empty());
        let mut hits: Vec<Hit<'c>> = hits.iter().filter(has_text).copied().collect();
        rotate(&mut hits, self.context.seed);
        self.cut_to_steps(&mut hits);
        let ttl = self.ttl_of(&hits);
        let mut room = self.context.room;
        let (mut answers, mut shared, mut seen) = (Vec::new(), HashSet::new(), HashSet::new());
        // Equal texts are nearly always one.
        let texts = hits.iter().filter_map(|hit| hit.entry.text.as_ref());
        for text in texts.filter(|text| shared.insert(Arc::as_ptr(text))) {
            if room == 0 || !self.steps.may(TOLD_TEXT + text.len() / TEXT_BYTES) {
                self.mark_cut();
                break;
            }
            if seen.insert(&**text) {
                room = room.saturating_sub(12 + text.len());
                answers.push(Rr::from_rdata(owner.clone(), ttl, RData::TXT(TXT::from_bytes(strings(text)))));
            }
        }
        answers
    }

    /// The mail servers of a set, without what leads on from there.
    pub(super) fn mails(&mut self, place: usize, hits: &[Hit<'c>], owner: &Name) -> Vec<Rr> {
        let hits = hits.iter().filter(|hit| takes_mail(hit.entry)).copied().collect();
        let data = |hit: &Hit<'_>, _: u16, target| RData::MX(MX::new(priority(hit), target));
        self.records_leading(place, owner, hits, MX_SIZE, data).0
    }

    /// The answer whose records each have a target, made by `data` of what was found, its weight and its target.
    pub(super) fn leading(
        mut self,
        place: usize,
        owner: &Name,
        selection: Selection<'c>,
        size: usize,
        data: impl Fn(&Hit<'_>, u16, Name) -> RData,
    ) -> Outcome {
        if selection.cut {
            self.mark_cut();
        }
        let (answers, found, room) = self.records_leading(place, owner, selection.hits, size, data);
        self.steps.until(MOST);
        let additional = self.glue(place, &found, &answers, room);
        Outcome::Answer(self.finish(place, Some(answers), additional))
    }

    /// Such records, what each was found by, and the room that is left.
    fn records_leading(
        &mut self,
        place: usize,
        owner: &Name,
        mut hits: Vec<Hit<'c>>,
        size: usize,
        data: impl Fn(&Hit<'_>, u16, Name) -> RData,
    ) -> (Vec<Rr>, Vec<Leading<'c>>, usize) {
        turn(&mut hits, self.context.seed);
        self.cut_to_room(place, &mut hits, size);
        if hits.len() > self.steps.left() {
            hits.truncate(self.steps.left());
            self.mark_cut();
        }
        self.steps.take(hits.len());
        let weights = weights(&hits);
        let mixed = hits.iter().any(|hit| hit.entry.is_renamed() || hit.prefix != hits[0].prefix);
        let mut room = self.context.room.saturating_sub(HEADER + wire_length(owner) + 4);
        let (mut answers, mut found, mut seen, mut ttl) = (Vec::<Rr>::new(), Vec::new(), HashMap::new(), u32::MAX);
        for hit in hits {
            let shared = mixed || is_shared(hit);
            if room == 0 || !self.may_name(hit, shared) {
                self.mark_cut();
                break;
            }
            let Some(target) = self.target(place, hit) else { continue };
            let length = wire_length(&target);
            let data = data(&hit, weight_of(&hit, &weights), target);
            let known = shared.then(|| seen.entry(key_of_data(&data)));
            let told = known.map_or(answers.len(), |known| *known.or_insert(answers.len()));
            found.push((told, hit));
            if told == answers.len() {
                room = room.saturating_sub(size + length);
                answers.push(Rr::from_rdata(owner.clone(), ttl, data));
            }
            ttl = ttl.min(self.ttl(hit.entry));
        }
        answers.iter_mut().for_each(|record| record.ttl = ttl);
        (answers, found, room)
    }

    /// Cuts a large set to the records that a message has room for. Of a smaller one all are looked at: equal ones are
    /// told once, and how much each weighs hangs on the others.
    fn cut_to_room(&mut self, place: usize, hits: &mut Vec<Hit<'c>>, size: usize) {
        if hits.len() <= MANY {
            return;
        }
        let lengths = hits.iter().scan(0, |length, hit| {
            *length += size + self.least_length(place, *hit);
            Some(*length)
        });
        let fitting = lengths.take_while(|length| *length < self.context.room).count() + 1;
        if fitting < hits.len() {
            hits.truncate(fitting.max(MANY));
            self.mark_cut();
        }
    }

    /// The least that the name takes in a message which a record leads to.
    fn least_length(&self, place: usize, hit: Hit<'c>) -> usize {
        let Some(zone) = self.zones.get(place).filter(|_| hit.entry.targetstrip.is_none()) else { return 1 };
        if let Some(host) = hit.entry.host_name() {
            return host.len() + 1;
        }
        let prefix = zone.prefixes().get(hit.prefix).map_or(0, |prefix| prefix.as_str().len());
        hit.entry.path().len() - prefix
    }

    /// Takes the steps for the name that a record leads to, more where it has to be compared with others, and for how
    /// long it may be kept; whether there are enough.
    fn may_name(&self, hit: Hit<'c>, shared: bool) -> bool {
        let cost = self.cost_of_name(hit) + cost_of_ttl(hit);
        self.steps.may(if shared { cost + compared(hit.entry) } else { cost })
    }

    /// The name that a client is sent to.
    fn target(&mut self, place: usize, hit: Hit<'c>) -> Option<Name> {
        let strip = usize::from(hit.entry.targetstrip.unwrap_or(0));
        if hit.entry.address.is_some() {
            return self.record_name(place, hit, strip);
        }
        let host = Self::host_name(hit.entry)?;
        let labels = usize::from(host.num_labels());
        Some(if strip > 0 && strip < labels { host.trim_to(labels - strip) } else { host })
    }

    /// The addresses of targets, as far as they are ours to tell and there is room.
    fn glue(&mut self, place: usize, found: &[Leading<'c>], answers: &[Rr], room: usize) -> Vec<Rr> {
        let mut glue = Glue::new(room);
        let mut looked_up = HashSet::new();
        for (told, hit) in found {
            let Some(target) = answers.get(*told).and_then(target_of) else { continue };
            if !glue.has_room() {
                break;
            }
            if hit.entry.address.is_some() {
                self.own_glue(place, target, *hit, &mut glue);
            } else if looked_up.len() < MAX_TARGETS && looked_up.insert(key_of(target)) {
                if !self.steps.may(2) {
                    self.left_out += 1;
                    break;
                }
                let yet_to_come = (found.len() + 1 - looked_up.len()).min(MAX_TARGETS + 1 - looked_up.len());
                self.look_up(target, yet_to_come.max(1), &mut glue);
            }
        }
        glue.records()
    }

    /// The addresses of a record that is its own target. One that is stripped to a name above the zone has none: what
    /// stands there is not ours to tell.
    fn own_glue(&mut self, place: usize, target: &Name, hit: Hit<'c>, glue: &mut Glue) {
        let within = self.zones.get(place).is_some_and(|zone| zone.labels().len() <= target.iter().len());
        if !within {
            return;
        }
        let ttl = self.ttl(hit.entry);
        let compares = is_shared(hit) || hit.entry.is_renamed();
        for address in hit.entry.addresses() {
            if self.steps.may(if compares { 3 * compared(hit.entry) } else { 4 }) {
                glue.add_address(target, ttl, address, compares);
            }
        }
    }

    /// The addresses that a name leads to, at the cost of one of so many.
    fn look_up(&mut self, target: &Name, of: usize, glue: &mut Glue) {
        let way = self.share(of, |work| work.way_on(target, Wanted::ADDRESSES, &mut Vec::new()));
        let records = way.records.into_iter().filter(|_| way.arrived);
        for record in records {
            if !self.steps.may(TOLD_GLUE) {
                self.left_out += 1;
                return;
            }
            glue.add(record);
        }
    }
}

/// Begins with another record each time; where they have classes, in each of these.
fn turn(hits: &mut [Hit<'_>], seed: u64) {
    hits.chunk_by_mut(|one, next| one.class == next.class).for_each(|class| rotate(class, seed));
}

/// The name that a record leads to.
fn target_of(record: &Rr) -> Option<&Name> {
    match &record.data {
        RData::SRV(srv) => Some(&srv.target),
        RData::MX(mx) => Some(&mx.exchange),
        RData::NS(ns) => Some(&ns.0),
        _ => None,
    }
}

fn takes_mail(entry: &Entry) -> bool {
    entry.mail && entry.has_host()
}

/// Whether other records may have the same target.
fn is_shared(hit: Hit<'_>) -> bool {
    hit.entry.address.is_none() || hit.entry.targetstrip.is_some_and(|strip| strip > 0)
}

/// What one prefix holds twice is answered once. Equal texts are nearly always one: where they are not, the records
/// are told twice. Says how many were compared.
fn drop_equal(hits: &mut Vec<Hit<'_>>) -> usize {
    let named = hits.iter().filter(|hit| hit.entry.host_name().is_some()).count();
    let mut seen = HashSet::with_capacity(named);
    hits.retain(|hit| {
        let entry = &**hit.entry;
        let text = entry.text.as_ref().map(Arc::as_ptr);
        let own = |name| (Arc::as_ptr(name), entry.port, entry.priority, entry.weight, text, entry.proto());
        entry.host_name().is_none_or(|name| seen.insert(own(name)))
    });
    named
}

fn priority(hit: &Hit<'_>) -> u16 {
    hit.class.unwrap_or_else(|| own_priority(hit.entry))
}

fn own_priority(entry: &Entry) -> u16 {
    entry.priority.filter(|priority| *priority > 0).unwrap_or(PRIORITY)
}

fn weight(entry: &Entry) -> u64 {
    entry.weight.filter(|weight| *weight > 0).map_or(WEIGHT, u64::from)
}

/// The sum of weights by priority, in order of that.
fn weights(hits: &[Hit<'_>]) -> Vec<(u16, u64)> {
    let mut sums: Vec<_> = hits.iter().map(|hit| (priority(hit), weight(hit.entry))).collect();
    sums.sort_unstable();
    sums.dedup_by(|next, sum| {
        let same = next.0 == sum.0;
        sum.1 += if same { next.1 } else { 0 };
        same
    });
    sums
}

/// SkyDNS's weight: the record's share of its priority in hundredths, never 0.
fn weight_of(hit: &Hit<'_>, sums: &[(u16, u64)]) -> u16 {
    let found = sums.binary_search_by_key(&priority(hit), |(priority, _)| *priority);
    let sum = found.map_or(1, |place| sums[place].1).max(1);
    u16::try_from(100 * weight(hit.entry) / sum).unwrap_or(u16::MAX).max(1)
}

/// The strings that a text is cut into.
fn strings(text: &str) -> Vec<&[u8]> {
    text.as_bytes().chunks(TXT_STRING).collect()
}

/// What it takes to look for a record's name among others.
fn compared(entry: &Entry) -> usize {
    steps::compared(entry.host_name().map_or(entry.path(), |host| &**host))
}
