//! The additional section as it grows: the addresses of targets, and the CNAMEs that lead to them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::work::{address_record, wire_length};
use super::{Name, RData, Rr};

/// Glue, and what room is left for it.
#[derive(Debug)]
pub(super) struct Glue {
    records: Vec<Rr>,
    /// Sets that several records may have, by name and type.
    sets: HashMap<Vec<u8>, usize>,
    /// The TTL that a set has: the least of all.
    ttls: Vec<u32>,
    /// What has been told of a set.
    known: HashSet<(usize, Vec<u8>)>,
    room: usize,
}

impl Glue {
    pub(super) fn new(room: usize) -> Self {
        Self { records: Vec::new(), sets: HashMap::new(), ttls: Vec::new(), known: HashSet::new(), room }
    }

    pub(super) fn has_room(&self) -> bool {
        self.room > 0
    }

    /// Adds an address of a target, which others may have too when it is `shared`.
    pub(super) fn add_address(&mut self, owner: &Name, ttl: u32, address: IpAddr, shared: bool) {
        let record = address_record(owner, ttl, address);
        if shared {
            self.add(record);
        } else if self.room > 0 {
            self.room = self.room.saturating_sub(if address.is_ipv4() { 16 } else { 28 });
            self.records.push(record);
        }
    }

    /// Adds a record of a target that others may have too: each once, and equal TTLs within a set.
    pub(super) fn add(&mut self, record: Rr) {
        let set = *self.sets.entry(set_of(&record)).or_insert(self.ttls.len());
        match self.ttls.get_mut(set) {
            Some(ttl) => *ttl = record.ttl.min(*ttl),
            None => self.ttls.push(record.ttl),
        }
        if self.room > 0 && self.known.insert((set, key_of_data(&record.data))) {
            self.room = self.room.saturating_sub(12 + data_length(&record.data));
            self.records.push(record);
        }
    }

    pub(super) fn records(mut self) -> Vec<Rr> {
        if !self.sets.is_empty() {
            for record in &mut self.records {
                let ttl = self.sets.get(&set_of(record)).and_then(|set| self.ttls.get(*set));
                record.ttl = ttl.copied().unwrap_or(record.ttl);
            }
        }
        self.records
    }
}

/// What stands for a name where it is compared with many: hickory hashes a name byte by byte, which takes ten times as
/// long.
pub(super) fn key_of(name: &Name) -> Vec<u8> {
    let mut key = Vec::with_capacity(wire_length(name) + 6);
    for label in name.iter() {
        key.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        key.extend_from_slice(label);
    }
    key.make_ascii_lowercase(); // a length is no letter
    key
}

/// What stands for a record's name and type.
fn set_of(record: &Rr) -> Vec<u8> {
    let mut key = key_of(&record.name);
    key.extend_from_slice(&u16::from(record.record_type()).to_be_bytes());
    key
}

/// What stands for data that leads somewhere.
pub(super) fn key_of_data(data: &RData) -> Vec<u8> {
    let with = |numbers: &[u16], name| {
        let mut key = key_of(name);
        key.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        key
    };
    match data {
        RData::A(address) => address.octets().to_vec(),
        RData::AAAA(address) => address.octets().to_vec(),
        RData::CNAME(name) => key_of(name),
        RData::SRV(srv) => with(&[srv.priority, srv.weight, srv.port], &srv.target),
        RData::MX(mx) => with(&[mx.preference], &mx.exchange),
        RData::NS(name) => key_of(name),
        other => other.to_string().into_bytes(),
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
