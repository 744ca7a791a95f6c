//! Endpoints that other programs keep in the store in layouts of their own, laid over what the records say, and the
//! masters that they name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::named::LARGEST;
use super::{Catalog, Entry, LeaseId, path};
use crate::model::words::name::Label;
use crate::model::words::record::{Record, Role, Text};

/// So many records under one address are looked at for one that is the same server.
const LOOKED_AT: usize = 64;
/// So many records are looked at for the masters of all services together.
const MOST: usize = 8 * LARGEST;

/// An endpoint in another layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// The key that a record of it would have.
    pub key: Text,
    /// What it amounts to.
    pub record: Arc<Record>,
    /// The lease that it hangs on.
    pub lease: LeaseId,
    /// The revision of its last change.
    pub revision: i64,
    /// The store lost it in its return.
    pub held: bool,
    /// It is the primary only if a probe of some host says so: who leads has not been said.
    pub if_writable: bool,
}

/// All that is to be laid over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Laid {
    /// Endpoints.
    pub found: Vec<Foreign>,
    /// By the path of a service, the name of the instance that leads it.
    pub masters: BTreeMap<String, Text>,
}

impl Catalog {
    /// Lays endpoints and masters over the records. A record under the same key is the better word; one of the same
    /// server in the same service takes the role that was found.
    pub fn lay_found(&mut self, laid: &Laid) {
        let most = self.bounds.records.take();
        for found in &laid.found {
            if self.entry(&found.key).is_none() && self.bounds.admit(&found.key).is_ok() {
                self.lay_one(found);
            }
        }
        self.bounds.records = most;
        let mut left = MOST;
        for (service, name) in &laid.masters {
            let below = self.dirs.get(service.as_str()).map_or(0, |dir| dir.below as usize);
            if below <= LARGEST.min(left) && self.steered(service).is_none() {
                left -= below;
                self.lay_master(service, name);
            }
        }
    }

    fn lay_one(&mut self, found: &Foreign) {
        let role = if found.if_writable && !self.is_writable(&found.record) { None } else { found.record.role };
        if let Some(twin) = self.twin(found) {
            let role = role.or(twin.role.filter(|role| *role != Role::Primary));
            return self.give_role(&twin, role);
        }
        self.put_record(&found.key, &Record { role, ..Record::clone(&found.record) }, found.lease, found.revision);
        if found.held {
            self.mark_held(&found.key, true);
        }
    }

    /// The record of the same server in the same service, if somebody offers it there.
    fn twin(&self, found: &Foreign) -> Option<Arc<Entry>> {
        let is_twin = |entry: &&Arc<Entry>| path::parent(&entry.key) == path::parent(&found.key);
        self.same_server(&found.record).find(is_twin).cloned()
    }

    /// Whether a host that offers this server finds that it takes writes.
    fn is_writable(&self, record: &Record) -> bool {
        self.same_server(record).any(|entry| entry.owner.is_some() && entry.role == Some(Role::Primary) && !entry.held)
    }

    fn same_server(&self, record: &Record) -> impl Iterator<Item = &Arc<Entry>> {
        let (address, port, proto) = (record.host.parse().ok(), record.port, record.proto.unwrap_or_default());
        let all = address.into_iter().flat_map(|address| self.addresses.all(address).take(LOOKED_AT));
        all.filter(move |entry| entry.port == port && entry.proto() == proto)
    }

    /// The instance of that name is the primary, unless it says itself that it follows another; no other one is.
    fn lay_master(&mut self, service: &str, name: &str) {
        let direct = |entry: &&Arc<Entry>| path::parent(&entry.key) == Some(service);
        let entries: Vec<Arc<Entry>> = self.below(service, None).filter(direct).cloned().collect();
        let slug = Label::slug(name);
        let is_named = |entry: &Arc<Entry>| {
            let last = entry.key.rsplit('/').next().unwrap_or_default();
            last == name || slug.as_ref().is_some_and(|slug| slug.as_str() == last)
        };
        // Who is named and not there may be about to be: until then the records' own word counts.
        if !entries.iter().any(is_named) {
            return;
        }
        for entry in entries {
            let role = match entry.role {
                None if is_named(&entry) => Some(Role::Primary),
                Some(Role::Primary) if !is_named(&entry) => None,
                role => role,
            };
            self.give_role(&entry, role);
        }
    }

    fn give_role(&mut self, entry: &Arc<Entry>, role: Option<Role>) {
        if entry.role != role {
            self.unlink(entry);
            self.insert(Arc::new(entry.with_role(role)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str, value: &str) -> Foreign {
        let record = Arc::new(Record::decode(value.as_bytes()).expect("a record"));
        Foreign { key: key.into(), record, lease: 7, revision: 3, held: false, if_writable: false }
    }

    fn roles(catalog: &Catalog) -> String {
        let each = catalog.endpoints().map(|endpoint| {
            let last = endpoint.key().rsplit('/').next().unwrap_or_default().to_owned();
            format!("{last}:{}", endpoint.role().map_or("-", Role::as_str))
        });
        each.collect::<Vec<_>>().join(" ")
    }

    /// Records as `name role port`, laid over by what was found and by a master's name.
    #[track_caller]
    fn check(records: &str, laid: &str, master: Option<&str>, expected: &str) {
        let value = |line: &str| {
            let mut words = line.split(' ');
            let (name, role, port) = (words.next(), words.next(), words.next());
            let (name, port) = (name.expect("a name"), port.expect("a port"));
            let role = role.and_then(Role::parse).map_or(String::new(), |role| format!(r#","role":"{role}""#));
            let value = format!(r#"{{"host":"10.0.0.1","port":{port},"owner":"o"{role}}}"#);
            (format!("/services/pg/{name}"), value)
        };
        let lines = |text: &str| -> Vec<String> {
            text.split(", ").filter(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        let mut catalog = Catalog::default();
        for (key, record) in lines(records).iter().map(|line| value(line)) {
            catalog.put(&key, record.as_bytes(), 1, 1).expect("a record");
        }
        let of = |line: &str| {
            let (plain, if_writable) = line.strip_suffix('?').map_or((line, false), |line| (line, true));
            let (key, record) = value(plain);
            Foreign { if_writable, ..found(&key, &record.replace(r#","owner":"o""#, "")) }
        };
        let masters = master.map(|name| ("/services/pg".to_owned(), name.into())).into_iter().collect();
        catalog.lay_found(&Laid { found: lines(laid).iter().map(|line| of(line)).collect(), masters });
        assert_eq!(roles(&catalog), expected, "{records} / {laid} / {master:?}");
    }

    #[test]
    fn what_is_found_stands_beside_the_records() {
        check("", "1 - 1, 2 - 2", None, "1:- 2:-");
        check("1 primary 1", "1 - 1, 2 - 2", None, "1:primary 2:-");
        check("core-01 - 1", "pg1 primary 1, pg2 replica 2", None, "core-01:primary pg2:replica");
        check("core-01 primary 1", "pg1 replica 1", None, "core-01:replica");
    }

    #[test]
    fn the_named_one_is_the_primary_unless_it_follows() {
        check("", "1 - 1, 2 - 2", Some("2"), "1:- 2:primary");
        check("1 primary 1, 2 - 2", "", Some("2"), "1:- 2:primary");
        check("1 primary 1, 2 replica 2", "", Some("2"), "1:- 2:replica");
        check("1 primary 1, 2 replica 2", "", Some("3"), "1:primary 2:replica");
        check("core-01 - 1", "", Some("Core 01"), "core-01:primary");
    }

    #[test]
    fn who_may_lead_leads_while_its_host_finds_it_writable() {
        check("", "pg1 primary 1?", None, "pg1:-");
        check("core-01 primary 1", "pg1 primary 1?", None, "core-01:primary");
        check("core-01 replica 1", "pg1 primary 1?", None, "core-01:replica");
    }

    #[test]
    fn a_key_that_is_no_name_is_not_laid() {
        let mut catalog = Catalog::default();
        let long = format!("/services/pg/{}", "x".repeat(64));
        catalog.lay_found(&Laid { found: vec![found(&long, "10.0.0.1:1")], ..Laid::default() });
        assert_eq!(catalog.counts().records, 0);
    }
}
