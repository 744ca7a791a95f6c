//! SRV, MX and TXT: what a name's records say of ports, mail and text, with the addresses of their targets beside.

use std::collections::{HashMap, HashSet};

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
    /// Where in `records` the set of one target and type begins is found by these.
    lowest: HashMap<(Name, bool), u32>,
    seen: HashSet<(Name, std::net::IpAddr)>,
    looked_up: HashSet<Name>,
    room: usize,
}

impl Glue {
    fn add_address(&mut self, owner: &Name, ttl: u32, address: std::net::IpAddr) {
        if self.room < 16 || !self.seen.insert((owner.clone(), address)) {
            return;
        }
        self.room = self.room.saturating_sub(if address.is_ipv4() { 16 } else { 28 });
        let lowest = self.lowest.entry((owner.clone(), address.is_ipv4())).or_insert(ttl);
        *lowest = ttl.min(*lowest);
        self.records.push(address_record(owner, ttl, address));
    }

    /// Equal TTLs within a set, each record once.
    fn finish(mut self) -> Vec<Rr> {
        for record in &mut self.records {
            if let Some(address) = record.data.ip_addr()
                && let Some(lowest) = self.lowest.get(&(record.name.clone(), address.is_ipv4()))
            {
                record.ttl = *lowest;
            }
        }
        self.records
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
        hits.retain(|hit| !hit.entry.host.is_empty());
        drop_equal(&mut hits);
        let weights = weights(&hits);
        let ttl = hits.iter().map(|hit| self.ttl(hit.entry)).min().unwrap_or(0);
        rotate(&mut hits, self.context.seed);
        let mut room = self.context.room.saturating_sub(HEADER + wire_length(owner) + 4);
        let mut answers = Vec::new();
        let mut targets = Vec::new();
        let mut seen = HashSet::new();
        for hit in hits {
            if room == 0 {
                self.mark_cut();
                break;
            }
            let Some(target) = self.target(place, hit) else { continue };
            let (priority, weight) = (priority(hit.entry), weight_of(hit.entry, &weights));
            if seen.insert((priority, weight, hit.entry.port, target.clone())) {
                room = room.saturating_sub(SRV_SIZE + wire_length(&target));
                let data = SRV::new(priority, weight, hit.entry.port, target.clone());
                answers.push(Rr::from_rdata(owner.clone(), ttl, RData::SRV(data)));
            }
            targets.push((target, hit));
        }
        let additional = self.glue(targets, room);
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
        hits.retain(|hit| hit.entry.mail && !hit.entry.host.is_empty());
        let ttl = hits.iter().map(|hit| self.ttl(hit.entry)).min().unwrap_or(0);
        rotate(&mut hits, self.context.seed);
        let mut room = self.context.room.saturating_sub(HEADER + wire_length(owner) + 4);
        let (mut answers, mut targets, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for hit in hits {
            if room == 0 {
                self.mark_cut();
                break;
            }
            let Some(target) = self.target(place, hit) else { continue };
            if seen.insert((priority(hit.entry), target.clone())) {
                room = room.saturating_sub(MX_SIZE + wire_length(&target));
                let data = MX::new(priority(hit.entry), target.clone());
                answers.push(Rr::from_rdata(owner.clone(), ttl, RData::MX(data)));
            }
            targets.push((target, hit));
        }
        let additional = self.glue(targets, room);
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
    pub(super) fn target(&self, place: usize, hit: Hit<'_>) -> Option<Name> {
        let strip = usize::from(hit.entry.targetstrip.unwrap_or(0));
        if hit.entry.address.is_some() {
            return self.record_name(place, hit, strip);
        }
        let host = Self::host_name(hit.entry)?;
        let labels = usize::from(host.num_labels());
        Some(if strip > 0 && strip < labels { host.trim_to(labels - strip) } else { host })
    }

    /// The addresses of targets, as far as they are ours to tell and there is room.
    pub(super) fn glue(&mut self, targets: Vec<(Name, Hit<'c>)>, room: usize) -> Vec<Rr> {
        let mut glue = Glue { room, ..Glue::default() };
        for (target, hit) in targets {
            if glue.room == 0 {
                break;
            }
            if hit.entry.address.is_some() {
                let ttl = self.ttl(hit.entry);
                hit.entry.addresses().for_each(|address| glue.add_address(&target, ttl, address));
            } else if glue.looked_up.len() < MAX_TARGETS && glue.looked_up.insert(target.clone()) {
                self.look_up(&target, &mut glue);
            }
        }
        glue.finish()
    }

    fn look_up(&mut self, target: &Name, glue: &mut Glue) {
        let way = self.way_on(target, &[Family::V4, Family::V6], &mut Vec::new());
        for record in way.records.into_iter().filter(|_| way.arrived) {
            match record.data.ip_addr() {
                Some(address) => glue.add_address(&record.name, record.ttl, address),
                None if glue.records.contains(&record) => {}
                None => {
                    glue.room = glue.room.saturating_sub(12 + wire_length(&record.name));
                    glue.records.push(record);
                }
            }
        }
    }
}

/// What one prefix holds twice is answered once.
fn drop_equal(hits: &mut Vec<Hit<'_>>) {
    let mut seen = HashSet::with_capacity(hits.len());
    hits.retain(|hit| {
        let entry = &**hit.entry;
        let named = entry.address.is_none();
        let own = (&entry.host, entry.port, entry.priority, entry.weight, &entry.text, entry.proto());
        seen.insert((own, if named { None } else { Some((entry.targetstrip, &entry.key)) }))
    });
}

fn priority(entry: &Entry) -> u16 {
    entry.priority.filter(|priority| *priority > 0).unwrap_or(PRIORITY)
}

fn weight(entry: &Entry) -> u64 {
    entry.weight.filter(|weight| *weight > 0).map_or(WEIGHT, u64::from)
}

/// The sum of weights by priority.
fn weights(hits: &[Hit<'_>]) -> HashMap<u16, u64> {
    let mut sums = HashMap::new();
    for hit in hits {
        *sums.entry(priority(hit.entry)).or_insert(0) += weight(hit.entry);
    }
    sums
}

/// SkyDNS's weight: the record's share of its priority in hundredths, never 0.
fn weight_of(entry: &Entry, sums: &HashMap<u16, u64>) -> u16 {
    let sum = sums.get(&priority(entry)).copied().unwrap_or(1).max(1);
    u16::try_from(100 * weight(entry) / sum).unwrap_or(u16::MAX).max(1)
}

/// The strings that a text is cut into.
fn strings(text: &str) -> Vec<&[u8]> {
    text.as_bytes().chunks(TXT_STRING).collect()
}
