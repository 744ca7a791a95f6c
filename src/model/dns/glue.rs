//! The additional section as it grows: the addresses of targets, and the CNAMEs that lead to them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::work::{address_record, wire_length};
use super::{Name, RData, RecordType, Rr};

/// Glue, and what room is left for it.
#[derive(Debug)]
pub(super) struct Glue {
    records: Vec<Rr>,
    /// What has been told of names that several records may have.
    known: HashSet<(Name, RData)>,
    /// The TTL that a set of theirs has: the least of all.
    ttls: HashMap<(Name, RecordType), u32>,
    room: usize,
}

impl Glue {
    pub(super) fn new(room: usize) -> Self {
        Self { records: Vec::new(), known: HashSet::new(), ttls: HashMap::new(), room }
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
        let set = (record.name.clone(), record.record_type());
        self.ttls.entry(set).and_modify(|ttl| *ttl = record.ttl.min(*ttl)).or_insert(record.ttl);
        if self.room > 0 && self.known.insert((record.name.clone(), record.data.clone())) {
            self.room = self.room.saturating_sub(12 + data_length(&record.data));
            self.records.push(record);
        }
    }

    pub(super) fn records(mut self) -> Vec<Rr> {
        if !self.ttls.is_empty() {
            for record in &mut self.records {
                let set = (record.name.clone(), record.record_type());
                record.ttl = self.ttls.get(&set).copied().unwrap_or(record.ttl);
            }
        }
        self.records
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
