//! A, AAAA and CNAME: addresses of what a name takes, and the way through names that stand in for addresses.
//!
//! A record whose host is a name is a CNAME. Where a name takes addresses as well, a CNAME could not stand beside them
//! (RFC 2181), so the addresses behind such records are given under the name itself. Of several CNAMEs one is given.

use std::net::IpAddr;

use hickory_server::proto::rr::rdata::CNAME;

use super::work::{Family, Work, address_record};
use super::{Name, Outcome, RData, ResponseCode, Rr};
use crate::model::catalog::Entry;
use crate::model::select::Hit;

/// How many CNAMEs are followed in a row.
const MAX_CHAIN: usize = 8;
/// Of so many records with a name for a host one is chosen that leads somewhere.
const MAX_CHOICES: usize = 8;
/// Records that are looked at for one target of others.
const TARGET_WINDOW: usize = 256;
/// The least that an address takes in a message.
const LEAST_SIZE: usize = 16;

/// Where a name led.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// CNAMEs before what they lead to, then addresses.
    pub(super) records: Vec<Rr>,
    /// Whether it ended at one address at least.
    pub(super) arrived: bool,
    /// The name outside of every zone that it leads to.
    pub(super) outside: Option<Name>,
    /// A name of a zone on the way does not exist.
    pub(super) missing: bool,
}

/// Addresses of a set with the one TTL that they all have.
#[derive(Debug, Default)]
struct Addresses {
    found: Vec<IpAddr>,
    ttl: Option<u32>,
}

impl Addresses {
    fn add(&mut self, address: IpAddr, ttl: u32) {
        self.ttl = Some(self.ttl.map_or(ttl, |own| own.min(ttl)));
        self.found.push(address);
    }
}

impl Work<'_> {
    /// The answer for A or AAAA.
    pub(super) fn addresses(mut self, place: usize, own: &[&str], owner: &Name, wanted: &[Family]) -> Outcome {
        let way = self.way(place, own, owner, wanted, &mut Vec::new(), true);
        if let Some(target) = way.outside.filter(|_| !way.arrived) {
            return Outcome::Chase { answer: self.positive(place, way.records, Vec::new()), target };
        }
        let rcode = if way.missing && !way.arrived { ResponseCode::NXDomain } else { ResponseCode::NoError };
        if way.arrived {
            return Outcome::Answer(self.positive(place, way.records, Vec::new()));
        }
        let mut answer = self.negative(place, rcode);
        answer.answers = way.records;
        Outcome::Answer(answer)
    }

    /// The answer for CNAME: of exactly this name, since what stands below it is no other name for it.
    pub(super) fn alias(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        for hit in self.exactly(place, own) {
            if let Some(target) = Self::host_name(hit.entry).filter(|target| target != owner) {
                let answers = vec![self.cname(owner, target, hit.entry)];
                return Outcome::Answer(self.finish(place, Some(answers), Vec::new()));
            }
        }
        let found = self.find(place, own, None);
        Outcome::Answer(self.finish(place, found.map(|_| Vec::new()), Vec::new()))
    }

    /// The way from a name of a zone to addresses. `passed` are the names on the way here.
    pub(super) fn way(
        &mut self,
        place: usize,
        own: &[&str],
        owner: &Name,
        wanted: &[Family],
        passed: &mut Vec<Name>,
        first: bool,
    ) -> Way {
        let limit = (!first).then_some(TARGET_WINDOW);
        let apex = own.is_empty().then(|| self.find_in_tree(place, &["apex", "dns"])).flatten();
        let Some(selection) = apex.or_else(|| self.find(place, own, limit)) else {
            return Way { missing: true, ..Way::default() };
        };
        if selection.cut {
            self.mark_cut();
        }
        passed.push(owner.clone());
        let has_address = selection.hits.iter().any(|hit| hit.entry.addresses().next().is_some());
        let way = if has_address {
            self.all_addresses(&selection.hits, owner, wanted, passed)
        } else {
            self.one_alias(&selection.hits, owner, wanted, passed)
        };
        passed.pop();
        way
    }

    fn all_addresses(&mut self, hits: &[Hit<'_>], owner: &Name, wanted: &[Family], passed: &mut Vec<Name>) -> Way {
        let mut of_family = [Addresses::default(), Addresses::default()];
        let slot = |family: Family| usize::from(family == Family::V6);
        let mut behind = Vec::new();
        for hit in hits {
            let own: Vec<IpAddr> =
                hit.entry.addresses().filter(|address| wanted.contains(&Family::of(*address))).collect();
            if !own.is_empty() {
                let ttl = self.ttl(hit.entry);
                own.into_iter().for_each(|address| of_family[slot(Family::of(address))].add(address, ttl));
            } else if let Some(target) = Self::host_name(hit.entry)
                && behind.len() < MAX_CHOICES
            {
                behind.push((target, hit.entry));
            }
        }
        for (target, entry) in behind {
            let ttl = self.ttl(entry);
            for record in self.way_on(&target, wanted, passed).records {
                if let Some(address) = record.data.ip_addr() {
                    of_family[slot(Family::of(address))].add(address, ttl.min(record.ttl));
                }
            }
        }
        let mut way = Way::default();
        for addresses in of_family {
            self.push_addresses(addresses, owner, &mut way.records);
        }
        way.arrived = !way.records.is_empty();
        way
    }

    /// Each address once, rotated, as many as there is room for.
    fn push_addresses(&mut self, mut addresses: Addresses, owner: &Name, records: &mut Vec<Rr>) {
        addresses.found.sort_unstable();
        addresses.found.dedup();
        rotate(&mut addresses.found, self.context.seed);
        let most = self.context.room / LEAST_SIZE + 1;
        if addresses.found.len() > most {
            self.mark_cut();
        }
        let ttl = addresses.ttl.unwrap_or(0);
        records.extend(addresses.found.into_iter().take(most).map(|address| address_record(owner, ttl, address)));
    }

    /// One of the names, if possible one that leads to an address.
    fn one_alias(&mut self, hits: &[Hit<'_>], owner: &Name, wanted: &[Family], passed: &mut Vec<Name>) -> Way {
        let named = hits.iter().filter_map(|hit| Some((Self::host_name(hit.entry)?, hit.entry)));
        let mut choices: Vec<_> = named.filter(|(target, _)| target != owner).collect();
        rotate(&mut choices, self.context.seed);
        let mut best: Option<Way> = None;
        for (target, entry) in choices.into_iter().take(MAX_CHOICES) {
            let mut way = Way { records: vec![self.cname(owner, target.clone(), entry)], ..Way::default() };
            let next = self.way_on(&target, wanted, passed);
            way.records.extend(next.records);
            (way.arrived, way.outside, way.missing) = (next.arrived, next.outside, next.missing);
            if way.arrived {
                return way;
            }
            let better = best.as_ref().is_none_or(|best| best.outside.is_none() && way.outside.is_some());
            if better {
                best = Some(way);
            }
        }
        best.unwrap_or_default()
    }

    /// The way from a target on; nothing where it leads in a circle or too far.
    pub(super) fn way_on(&mut self, target: &Name, wanted: &[Family], passed: &mut Vec<Name>) -> Way {
        if passed.len() >= MAX_CHAIN || passed.contains(target) || !self.may_go_on() {
            return Way::default();
        }
        let labels: Vec<Vec<u8>> = target.iter().map(<[u8]>::to_ascii_lowercase).collect();
        let Some(place) = self.zones.find(&labels) else {
            return Way { outside: Some(target.clone()), ..Way::default() };
        };
        match self.own_labels(place, &labels) {
            Some(own) => self.way(place, &own, target, wanted, passed, false),
            None => Way { missing: true, ..Way::default() },
        }
    }

    fn cname(&mut self, owner: &Name, target: Name, entry: &Entry) -> Rr {
        let ttl = self.ttl(entry);
        Rr::from_rdata(owner.clone(), ttl, RData::CNAME(CNAME(target)))
    }
}

/// Begins with another item each time.
pub(super) fn rotate<T>(items: &mut [T], seed: u64) {
    if let Some(by) = seed.checked_rem(items.len() as u64) {
        items.rotate_left(usize::try_from(by).unwrap_or(0));
    }
}
