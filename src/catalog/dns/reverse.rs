//! PTR: a reverse tree that is served comes first, then the addresses of what is published. Anything else is foreign.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_server::proto::rr::rdata::PTR;

use super::work::Work;
use super::{Name, Outcome, RData, Rr};
use crate::catalog::select::Hit;

/// The most names of one address.
const MAX_NAMES: usize = 16;
/// Records of one address that are looked at.
const MAX_RECORDS: usize = 256;

impl<'c> Work<'c> {
    /// The answer for PTR of an address.
    pub(super) fn reverse(mut self, labels: &[Vec<u8>], address: IpAddr) -> Outcome {
        let owner = self.question.name.clone();
        let zone = self.zones.find(labels);
        let own = zone.and_then(|place| self.own_labels(place, labels)).unwrap_or_default();
        if let Some(place) = zone {
            let hits = self.exactly(place, &own);
            let named: Vec<_> = hits.iter().filter_map(|hit| Some((self.host_of(hit.entry)?, *hit))).collect();
            if !named.is_empty() {
                let answers = self.pointers(&owner, named);
                return Outcome::Answer(self.finish(place, Some(answers), Vec::new()));
            }
        }
        let named = self.published(address);
        if !named.is_empty() {
            let answers = self.pointers(&owner, named);
            return Outcome::Answer(self.finish(0, Some(answers), Vec::new()));
        }
        // What is served is answered: it is never asked elsewhere.
        zone.map_or(Outcome::Foreign, |place| self.no_data(place, &own))
    }

    /// The names of what is published under an address.
    fn published(&mut self, address: IpAddr) -> Vec<(Name, Hit<'c>)> {
        self.rest_on_all();
        let mut named = Vec::new();
        for entry in self.catalog.published(address, MAX_RECORDS) {
            self.steps.take(1 + self.zones.iter().map(|zone| zone.roots().len()).sum::<usize>());
            let Some((place, hit)) = self.place_of(entry) else { continue };
            if !self.steps.may(self.cost_of_name(hit)) {
                break;
            }
            named.extend(self.record_name(place, hit, 0).map(|name| (name, hit)));
        }
        named
    }

    /// The first zone that a record has a name in.
    fn place_of<'e>(&self, entry: &'e std::sync::Arc<crate::catalog::index::Entry>) -> Option<(usize, Hit<'e>)> {
        self.zones.iter().enumerate().find_map(|(place, zone)| {
            let prefix = zone.roots().iter().position(|root| root.parts(entry.path()).is_some())?;
            Some((place, Hit::new(entry, prefix)))
        })
    }

    fn pointers(&mut self, owner: &Name, named: Vec<(Name, Hit<'c>)>) -> Vec<Rr> {
        let ttl = named.iter().map(|(_, hit)| self.ttl(hit.entry)).min().unwrap_or(0);
        let mut answers: Vec<Rr> = Vec::new();
        for (name, _) in named {
            let record = Rr::from_rdata(owner.clone(), ttl, RData::PTR(PTR(name)));
            if answers.len() < MAX_NAMES && !answers.contains(&record) {
                answers.push(record);
            }
        }
        answers
    }
}

/// The address that a reverse name (lower-case) is of; `None` when it is of none, or of a whole network.
pub(super) fn address_of(labels: &[Vec<u8>]) -> Option<IpAddr> {
    match labels {
        [own @ .., zone, arpa] if arpa == b"arpa" && zone == b"in-addr" && own.len() == 4 => {
            let mut octets = [0; 4];
            for (octet, label) in octets.iter_mut().zip(own.iter().rev()) {
                let text = std::str::from_utf8(label).ok()?;
                *octet = text.parse().ok()?;
                if octet.to_string() != text {
                    return None;
                }
            }
            Some(Ipv4Addr::from(octets).into())
        }
        [own @ .., zone, arpa] if arpa == b"arpa" && zone == b"ip6" && own.len() == 32 => {
            let nibble = |label: &Vec<u8>| match label.as_slice() {
                [digit] => char::from(*digit).to_digit(16),
                _ => None,
            };
            let fold = |bits: u128, label: &Vec<u8>| Some(bits << 4 | u128::from(nibble(label)?));
            own.iter().rev().try_fold(0, fold).map(|bits| Ipv6Addr::from_bits(bits).into())
        }
        _ => None,
    }
}
