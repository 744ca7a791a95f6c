//! SRV, MX and TXT: what a name's records say of ports, mail and text, with the addresses of their targets beside.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use hickory_server::proto::rr::rdata::{MX, SRV, TXT};

use super::address::rotate;
use super::work::{Family, Work, address_record, wire_length};
use super::{Name, Outcome, RData, Rr};
use crate::model::catalog::Entry;
use crate::model::select::Hit;

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

/// The additional section as it grows, and what room is left for it.
#[derive(Debug, Default)]
struct Glue {
    records: Vec<Rr>,
    /// The names of targets that several records may have, with what was told of them.
    shared: HashMap<Name, Vec<usize>>,
    room: usize,
}

impl Glue {
    /// Adds an address of a target that no other record has.
    fn add_address(&mut self, owner: &Name, ttl: u32, address: IpAddr) {
        if self.room > 0 {
            self.room = self.room.saturating_sub(if address.is_ipv4() { 16 } else { 28 });
            self.records.push(address_record(owner, ttl, address));
        }
    }

    /// Adds a record of a target that others may have too: each once, and equal TTLs within a set.
    fn add_shared(&mut self, mut record: Rr) {
        let own = self.shared.entry(record.name.clone()).or_default();
        let rtype = record.record_type();
        let set: Vec<usize> = own.iter().copied().filter(|place| self.records[*place].record_type() == rtype).collect();
        record.ttl = set.iter().map(|place| self.records[*place].ttl).fold(record.ttl, u32::min);
        set.iter().for_each(|place| self.records[*place].ttl = record.ttl);
        let known = set.iter().any(|place| self.records[*place].data == record.data);
        if !known && self.room > 0 {
            self.room = self.room.saturating_sub(12 + data_length(&record.data));
            own.push(self.records.len());
            self.records.push(record);
        }
    }
}

/// About how long a record's data is.
fn data_length(data: &RData) -> usize {
    match data {
        RData::A(_) => 4,
        RData::AAAA(_) => 16,
        RData::CNAME(name) => wire_length(name),
        _ => 0,
    }
}

impl<'c> Work<'c> {
    /// The answer for SRV.
    pub(super) fn service(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        let Some(selection) = self.find(place, own, None) else {
            return Outcome::Answer(self.finish(place, None, Vec::new()));
        };
        if selection.cut {
            self.mark_cut();
        }
        let mut hits: Vec<Hit<'c>> = selection.hits;
        hits.retain(|hit| hit.entry.has_host());
        drop_equal(&mut hits);
        let weights = weights(&hits);
        let ttl = hits.iter().map(|hit| self.ttl(hit.entry)).min().unwrap_or(0);
        rotate(&mut hits, self.context.seed);
        let mut room = self.context.room.saturating_sub(HEADER + wire_length(owner) + 4);
        let (mut answers, mut targets, mut seen) = (Vec::<Rr>::new(), Vec::new(), HashMap::new());
        for hit in hits {
            if room == 0 {
                self.mark_cut();
                break;
            }
            let Some(target) = self.target(place, hit) else { continue };
            let (priority, weight) = (priority(hit.entry), weight_of(hit.entry, &weights));
            let known = is_shared(hit).then(|| seen.entry((priority, weight, hit.entry.port, target.clone())));
            let told = known.map_or(answers.len(), |known| *known.or_insert(answers.len()));
            targets.push((told, hit));
            if told == answers.len() {
                room = room.saturating_sub(SRV_SIZE + wire_length(&target));
                let data = SRV::new(priority, weight, hit.entry.port, target);
                answers.push(Rr::from_rdata(owner.clone(), ttl, RData::SRV(data)));
            }
        }
        let additional = self.glue(named(&targets, &answers), room);
        Outcome::Answer(self.finish(place, Some(answers), additional))
    }

    /// The answer for MX.
    pub(super) fn mail(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        let Some(selection) = self.find(place, own, None) else {
            return Outcome::Answer(self.finish(place, None, Vec::new()));
        };
        if selection.cut {
            self.mark_cut();
        }
        let mut hits: Vec<Hit<'c>> = selection.hits;
        hits.retain(|hit| hit.entry.mail && hit.entry.has_host());
        let ttl = hits.iter().map(|hit| self.ttl(hit.entry)).min().unwrap_or(0);
        rotate(&mut hits, self.context.seed);
        let mut room = self.context.room.saturating_sub(HEADER + wire_length(owner) + 4);
        let (mut answers, mut targets, mut seen) = (Vec::<Rr>::new(), Vec::new(), HashMap::new());
        for hit in hits {
            if room == 0 {
                self.mark_cut();
                break;
            }
            let Some(target) = self.target(place, hit) else { continue };
            let told = *seen.entry((priority(hit.entry), target.clone())).or_insert(answers.len());
            targets.push((told, hit));
            if told == answers.len() {
                room = room.saturating_sub(MX_SIZE + wire_length(&target));
                let data = MX::new(priority(hit.entry), target);
                answers.push(Rr::from_rdata(owner.clone(), ttl, RData::MX(data)));
            }
        }
        let additional = self.glue(named(&targets, &answers), room);
        Outcome::Answer(self.finish(place, Some(answers), additional))
    }

    /// The answer for TXT.
    pub(super) fn text(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        let Some(selection) = self.find(place, own, None) else {
            return Outcome::Answer(self.finish(place, None, Vec::new()));
        };
        if selection.cut {
            self.mark_cut();
        }
        let texts = selection.hits.iter().filter_map(|hit| Some((hit.entry.text.as_deref()?, hit.entry)));
        let mut texts: Vec<_> = texts.filter(|(text, _)| !text.is_empty()).collect();
        let ttl = texts.iter().map(|(_, entry)| self.ttl(entry)).min().unwrap_or(0);
        rotate(&mut texts, self.context.seed);
        let mut room = self.context.room;
        let (mut answers, mut seen) = (Vec::new(), HashSet::new());
        for (text, _) in texts {
            if room == 0 {
                self.mark_cut();
                break;
            }
            if seen.insert(text) {
                room = room.saturating_sub(12 + text.len());
                answers.push(Rr::from_rdata(owner.clone(), ttl, RData::TXT(TXT::from_bytes(strings(text)))));
            }
        }
        Outcome::Answer(self.finish(place, Some(answers), Vec::new()))
    }

    /// The name that a client is sent to.
    pub(super) fn target(&mut self, place: usize, hit: Hit<'c>) -> Option<Name> {
        let strip = usize::from(hit.entry.targetstrip.unwrap_or(0));
        if hit.entry.address.is_some() {
            return self.record_name(place, hit, strip);
        }
        let host = Self::host_name(hit.entry)?;
        let labels = usize::from(host.num_labels());
        Some(if strip > 0 && strip < labels { host.trim_to(labels - strip) } else { host })
    }

    /// The addresses of targets, as far as they are ours to tell and there is room.
    pub(super) fn glue<'t>(&mut self, targets: impl Iterator<Item = (&'t Name, Hit<'c>)>, room: usize) -> Vec<Rr> {
        let mut glue = Glue { room, ..Glue::default() };
        let mut looked_up = HashSet::new();
        for (target, hit) in targets {
            if glue.room == 0 {
                break;
            }
            if hit.entry.address.is_none() {
                if looked_up.len() < MAX_TARGETS && looked_up.insert(target.clone()) {
                    self.look_up(target, &mut glue);
                }
                continue;
            }
            let ttl = self.ttl(hit.entry);
            for address in hit.entry.addresses() {
                if is_shared(hit) {
                    glue.add_shared(address_record(target, ttl, address));
                } else {
                    glue.add_address(target, ttl, address);
                }
            }
        }
        glue.records
    }

    fn look_up(&mut self, target: &Name, glue: &mut Glue) {
        let way = self.way_on(target, &[Family::V4, Family::V6], &mut Vec::new());
        if way.arrived {
            way.records.into_iter().for_each(|record| glue.add_shared(record));
        }
    }
}

/// The targets that these answers name, each with a record that it was found by.
fn named<'t, 'c>(found: &'t [(usize, Hit<'c>)], answers: &'t [Rr]) -> impl Iterator<Item = (&'t Name, Hit<'c>)> {
    found.iter().filter_map(|(told, hit)| match &answers.get(*told)?.data {
        RData::SRV(srv) => Some((&srv.target, *hit)),
        RData::MX(mx) => Some((&mx.exchange, *hit)),
        _ => None,
    })
}

/// Whether other records may have the same target.
fn is_shared(hit: Hit<'_>) -> bool {
    hit.entry.address.is_none() || hit.entry.targetstrip.is_some_and(|strip| strip > 0)
}

/// What one prefix holds twice is answered once.
fn drop_equal(hits: &mut Vec<Hit<'_>>) {
    let mut seen = HashSet::new();
    hits.retain(|hit| {
        let entry = &**hit.entry;
        let own = |name| (name, entry.port, entry.priority, entry.weight, &entry.text, entry.proto());
        entry.host_name().is_none_or(|name| seen.insert(own(name)))
    });
}

fn priority(entry: &Entry) -> u16 {
    entry.priority.filter(|priority| *priority > 0).unwrap_or(PRIORITY)
}

fn weight(entry: &Entry) -> u64 {
    entry.weight.filter(|weight| *weight > 0).map_or(WEIGHT, u64::from)
}

/// The sum of weights by priority. There are few priorities.
fn weights(hits: &[Hit<'_>]) -> Vec<(u16, u64)> {
    let mut sums: Vec<(u16, u64)> = Vec::new();
    for hit in hits {
        let (priority, weight) = (priority(hit.entry), weight(hit.entry));
        match sums.binary_search_by_key(&priority, |(own, _)| *own) {
            Ok(place) => sums[place].1 += weight,
            Err(place) => sums.insert(place, (priority, weight)),
        }
    }
    sums
}

/// SkyDNS's weight: the record's share of its priority in hundredths, never 0.
fn weight_of(entry: &Entry, sums: &[(u16, u64)]) -> u16 {
    let place = sums.binary_search_by_key(&priority(entry), |(own, _)| *own);
    let sum = place.map_or(1, |place| sums[place].1).max(1);
    u16::try_from(100 * weight(entry) / sum).unwrap_or(u16::MAX).max(1)
}

/// The strings that a text is cut into.
fn strings(text: &str) -> Vec<&[u8]> {
    text.as_bytes().chunks(TXT_STRING).collect()
}
