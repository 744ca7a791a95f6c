//! Records that are known and not shown: what another program wrote of a server that an agent looks after itself.
//!
//! Where registrator runs beside wharf, both write a record of each container. The one without an owner yields to the
//! one of the same service, host, port and protocol whose owner's host has that address, and to the word of that host
//! that the server is not ready. It comes back by itself when that is over. A record yields to what the agents of the
//! host say and to nobody else, so no tenant can hide another one's.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use super::path;
use super::selectors::Addresses;
use super::{Catalog, Entry, LeaseId};
use crate::model::words::advertised::Advertised;
use crate::model::words::record::{Proto, Text};

/// So many records of one service at one address are looked at for each that comes or goes: whoever writes to the store
/// chooses how many there are.
const SIBLINGS: usize = 64;
/// So many records at one address are looked at when its host says something else of itself.
const AT_AN_ADDRESS: usize = 4_096;

/// The records that are not shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Yielding {
    entries: OrdMap<Text, Arc<Entry>>,
    addresses: Addresses,
}

impl Yielding {
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// By key, those of a range of keys.
    pub(super) fn range<'y>(
        &'y self,
        range: (Bound<&str>, Bound<&str>),
    ) -> impl Iterator<Item = (&'y Text, &'y Arc<Entry>)> + use<'y> {
        self.entries.range::<_, str>(range)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        self.addresses.insert(entry);
        self.entries.insert(entry.key.clone(), entry.clone());
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, entry: &Entry) -> bool {
        if self.entries.is_empty() || self.entries.remove(&entry.key).is_none() {
            return false;
        }
        self.addresses.remove(entry);
        true
    }

    pub(super) fn tidy(&mut self) -> bool {
        self.addresses.tidy()
    }
}

impl Catalog {
    /// Takes in which hosts have which addresses, and shows by it what had yielded or what yields now.
    pub fn set_advertised(&mut self, advertised: &Arc<Advertised>) {
        let changed = self.advertised.differences(advertised);
        self.advertised = Arc::clone(advertised);
        if self.foreign == 0 {
            return;
        }
        for address in changed {
            let shown = self.addresses.all(address).take(AT_AN_ADDRESS).filter(|entry| is_foreign(entry));
            let hidden = self.yielding.addresses.all(address).take(AT_AN_ADDRESS);
            let entries: Vec<_> = shown.chain(hidden).cloned().collect();
            self.weigh(entries);
        }
    }

    /// Which hosts have which addresses, as it was said last.
    pub fn advertised(&self) -> &Arc<Advertised> {
        &self.advertised
    }

    /// A record of an agent came or went: those of others that stand for the same server are weighed anew.
    pub(super) fn weigh_beside(&mut self, entry: &Entry) {
        if self.foreign == 0 || entry.owner.is_none() {
            return;
        }
        let Some(service) = self.service_of(entry) else { return };
        let same = |other: &&Arc<Entry>| is_foreign(other) && other.port == entry.port;
        let beside = entry.addresses().flat_map(|address| {
            let shown = self.addresses.below(address, &service).take(SIBLINGS);
            shown.chain(self.yielding.addresses.below(address, &service).take(SIBLINGS)).filter(same)
        });
        let entries: Vec<_> = beside.cloned().collect();
        self.weigh(entries);
    }

    /// Shows each, or not.
    fn weigh(&mut self, entries: Vec<Arc<Entry>>) {
        for entry in entries {
            if self.yields(&entry) != self.yielding.get(&entry.key).is_some() {
                self.unlink(&entry);
                self.insert(entry);
            }
        }
    }

    /// Whether a record is not to be shown.
    pub(super) fn yields(&self, entry: &Entry) -> bool {
        let (Some(address), true) = (entry.address, is_foreign(entry) && !self.advertised.is_empty()) else {
            return false;
        };
        self.advertised.waits(address, entry.port) || self.is_looked_after(entry, address)
    }

    /// Whether the agent of its host has a record of the same server.
    fn is_looked_after(&self, entry: &Entry, address: IpAddr) -> bool {
        let Some(service) = self.service_of(entry) else { return false };
        let is_of_host = |owner: &Text| self.advertised.is_of(address, owner);
        self.addresses.below(address, &service).take(SIBLINGS).any(|other| {
            let is_same = other.port == entry.port && protocol(other) == protocol(entry);
            is_same && other.owner.as_ref().is_some_and(is_of_host) && self.service_of(other).as_ref() == Some(&service)
        })
    }

    /// Counts the records that might yield: where there are none, nothing of this costs anything.
    pub(super) fn count_foreign(&mut self, entry: &Entry, change: isize) {
        if is_foreign(entry) {
            self.foreign = self.foreign.saturating_add_signed(change);
        }
    }

    /// The path of the service that a record is of, also where a dot in the last segment of its key makes a longer
    /// path.
    fn service_of<'e>(&self, entry: &'e Entry) -> Option<Cow<'e, str>> {
        let by_path = path::parent(entry.path())?;
        if !entry.is_renamed() {
            return Some(Cow::Borrowed(by_path));
        }
        let by_key = path::parent(&entry.key)?;
        let prefix = self.bounds.prefix_of(&entry.key);
        Some(path::alias(prefix, by_key).map_or(Cow::Borrowed(by_key), Cow::Owned))
    }

    /// The leases that records hang on, shown or not.
    pub fn leases_in_use(&self) -> HashSet<LeaseId> {
        self.tree.values().chain(self.yielding.values()).map(|entry| entry.lease).collect()
    }
}

/// Whether another program wrote it of a server at an address.
fn is_foreign(entry: &Entry) -> bool {
    entry.owner.is_none() && entry.address.is_some() && entry.port != 0
}

/// What it speaks. registrator says so at the end of its keys only.
fn protocol(entry: &Entry) -> Proto {
    let by_key = || if entry.key.ends_with(":udp") { Proto::Udp } else { Proto::default() };
    entry.proto.unwrap_or_else(by_key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::words::node::{NodeRecord, Waiting};

    const OURS: &str = r#"{"host":"10.0.0.1","port":6379,"node":"one","owner":"a","proto":"tcp"}"#;
    const THEIRS: &str = "/services/redis/one.example.com:redis:6379";

    fn node(owner: &str, address: &str, waits: Option<u16>) -> NodeRecord {
        let address: IpAddr = address.parse().expect("an address");
        let waiting = waits.map(|port| Waiting { host: Some(address), port: Some(port), ..Waiting::default() });
        NodeRecord {
            owner: owner.into(),
            addresses: vec![address],
            waiting: waiting.into_iter().collect(),
            ..NodeRecord::default()
        }
    }

    fn knowing(nodes: &[NodeRecord]) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.set_advertised(&Arc::new(Advertised::of(nodes)));
        catalog
    }

    fn shown(catalog: &Catalog) -> Vec<String> {
        catalog.endpoints().map(|endpoint| endpoint.key().to_string()).collect()
    }

    fn put(catalog: &mut Catalog, key: &str, value: &str) {
        catalog.put(key, value.as_bytes(), 0, 0).expect("a record");
    }

    #[test]
    fn what_registrator_writes_beside_us_is_one_server_and_comes_back_after_us() {
        let mut catalog = knowing(&[node("a", "10.0.0.1", None)]);
        put(&mut catalog, THEIRS, "10.0.0.1:6379");
        assert_eq!(shown(&catalog), [THEIRS], "before we offer it");
        put(&mut catalog, "/services/redis/one", OURS);
        assert_eq!(shown(&catalog), ["/services/redis/one"]);
        assert_eq!((catalog.counts().records, catalog.counts().yielding), (1, 1));
        put(&mut catalog, THEIRS, "10.0.0.1:6380");
        assert_eq!(shown(&catalog).len(), 2, "another port is another server");
        put(&mut catalog, THEIRS, "10.0.0.1:6379");
        catalog.delete("/services/redis/one");
        assert_eq!(shown(&catalog), [THEIRS]);
        catalog.delete(THEIRS);
        assert_eq!((catalog.counts().yielding, catalog.foreign), (0, 0));
    }

    #[test]
    fn what_its_host_holds_back_is_not_shown_for_another_program() {
        let mut catalog = knowing(&[node("a", "10.0.0.1", Some(6379))]);
        put(&mut catalog, THEIRS, "10.0.0.1:6379");
        assert_eq!(shown(&catalog), [""; 0]);
        catalog.set_advertised(&Arc::new(Advertised::of(&[node("a", "10.0.0.1", None)])));
        assert_eq!(shown(&catalog), [THEIRS]);
    }

    #[test]
    fn nobody_yields_to_the_owner_of_another_host() {
        let mut catalog = knowing(&[node("a", "10.0.0.2", None)]);
        put(&mut catalog, "/services/redis/one", OURS);
        put(&mut catalog, THEIRS, "10.0.0.1:6379");
        assert_eq!(shown(&catalog).len(), 2);
    }

    #[test]
    fn a_fresh_list_misses_what_had_yielded_too() {
        let mut catalog = knowing(&[node("a", "10.0.0.1", Some(6379))]);
        put(&mut catalog, THEIRS, "10.0.0.1:6379");
        let missed = catalog.vanished("/services", None, None, []);
        assert_eq!(missed.iter().map(|key| &**key).collect::<Vec<_>>(), [THEIRS]);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Put(String, String),
        Delete(String),
        Hold(String),
        Nodes(Vec<NodeRecord>),
    }

    fn event() -> impl Strategy<Value = Event> {
        let key = (0..2usize, 0..6usize).prop_map(|(service, at)| {
            let name = ["redis", "pg"][service];
            let at = ["one", "two", "h:x:1", "h.d:x:1", "h.d:x:1:udp", "h:y:2"][at];
            format!("/services/{name}/{at}")
        });
        let value = (0..2usize, 1..3u16, 0..4usize, any::<bool>()).prop_map(|(at, port, owner, udp)| {
            let host = ["10.0.0.1", "10.0.0.2"][at];
            let proto = if udp { r#","proto":"udp""# } else { "" };
            match ["", "a", "b", "-"][owner] {
                "-" => format!("{host}:{port}"),
                "" => format!(r#"{{"host":"{host}","port":{port}{proto}}}"#),
                owner => format!(r#"{{"host":"{host}","port":{port},"owner":"{owner}"{proto}}}"#),
            }
        });
        let node = (0..2usize, 0..2usize, prop::option::of(1..3u16))
            .prop_map(|(owner, at, waits)| node(["a", "b"][owner], ["10.0.0.1", "10.0.0.2"][at], waits));
        prop_oneof![
            6 => (key.clone(), value).prop_map(|(key, value)| Event::Put(key, value)),
            2 => key.clone().prop_map(Event::Delete),
            1 => key.prop_map(Event::Hold),
            2 => prop::collection::vec(node, 0..3).prop_map(Event::Nodes),
        ]
    }

    /// What is shown by the rule as it is written, of all values and all nodes at once.
    fn by_the_rule(values: &BTreeMap<String, String>, nodes: &[NodeRecord]) -> Vec<String> {
        let advertised = Advertised::of(nodes);
        let read = |key: &String, value: &String| {
            let record = crate::model::words::record::Record::decode(value.as_bytes()).expect("a record");
            let udp = record.proto == Some(Proto::Udp) || (record.proto.is_none() && key.ends_with(":udp"));
            let service = key.rsplit_once('/').map(|(service, _)| service.to_owned());
            let place = (service, record.host.parse::<IpAddr>().expect("an address"), record.port, udp);
            (place, record.owner)
        };
        let all: Vec<_> = values.iter().map(|(key, value)| (key, read(key, value))).collect();
        let yields = |(place, owner): &(_, Option<Text>)| {
            let of_host = |(_, (other, owner)): &(&String, ((_, IpAddr, _, _), Option<Text>))| {
                other == place && owner.as_ref().is_some_and(|owner| advertised.is_of(other.1, owner))
            };
            owner.is_none() && (advertised.waits(place.1, place.2) || all.iter().any(of_host))
        };
        all.iter().filter(|(_, record)| !yields(record)).map(|(key, _)| (*key).clone()).collect()
    }

    proptest! {
        #[test]
        fn whatever_comes_in_whatever_order_the_rule_says_what_is_shown(events in prop::collection::vec(event(), 0..60)) {
            let mut catalog = Catalog::default();
            let (mut values, mut nodes) = (BTreeMap::new(), Vec::new());
            for event in events {
                match event {
                    Event::Put(key, value) => {
                        put(&mut catalog, &key, &value);
                        values.insert(key, value);
                    }
                    Event::Delete(key) => {
                        catalog.delete(&key);
                        values.remove(&key);
                    }
                    Event::Hold(key) => catalog.hold(&key, Duration::from_secs(9)),
                    Event::Nodes(all) => {
                        catalog.set_advertised(&Arc::new(Advertised::of(&all)));
                        nodes = all;
                    }
                }
                let mut shown = shown(&catalog);
                shown.sort();
                prop_assert_eq!(shown, by_the_rule(&values, &nodes));
                prop_assert_eq!(catalog.counts().records + catalog.counts().yielding, values.len());
            }
            for key in values.keys() {
                catalog.delete(key);
            }
            prop_assert_eq!((catalog.counts().yielding, catalog.foreign, catalog.exists("/services")), (0, 0, false));
        }
    }
}
