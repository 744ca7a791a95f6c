//! Instances in the older layout, kept as their keys come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::MOST;
use crate::catalog::index::{Foreign, Laid, LeaseId};
use crate::model::words::key::Prefix;
use crate::model::words::presence::{Part, Present};
use crate::model::words::record::{Record, Text};

/// The longest key that is looked at: what a DNS name has no room for is no endpoint.
const MAX_KEY: usize = 1024;
/// The longest name of a master that is kept.
const MAX_NAME: usize = 255;

/// One instance.
#[derive(Clone, Debug)]
struct Instance {
    present: Present,
    lease: LeaseId,
    revision: i64,
    /// The store lost it in its return: shown until then.
    held: Option<Duration>,
}

/// All of them, by the keys that their records would have, and the masters that are named, by their services' paths.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    instances: BTreeMap<String, Instance>,
    masters: BTreeMap<String, (Text, Option<Duration>)>,
}

impl Presence {
    /// Whether nothing is known: mostly nobody uses this layout.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.masters.is_empty()
    }

    /// Takes in a put below one of the prefixes; whether it was of this layout.
    pub fn put(&mut self, prefixes: &[Prefix], key: &str, value: &[u8], (lease, revision): (LeaseId, i64)) -> bool {
        match part(prefixes, key) {
            None => return false,
            Some(Part::Master(service)) => {
                // A value that is a record of its own stands in the tree as one.
                let name = Some(value).filter(|value| value.len() <= MAX_NAME && Record::decode(value).is_err());
                let name = name.and_then(|name| std::str::from_utf8(name).ok()).map(str::trim);
                match name.filter(|name| !name.is_empty()) {
                    Some(name) if self.masters.len() < MOST || self.masters.contains_key(service) => {
                        self.masters.insert(service.to_owned(), (name.into(), None));
                    }
                    _ => drop(self.masters.remove(service)),
                }
            }
            Some(Part::Of(own, field)) => {
                if self.instances.len() >= MOST && !self.instances.contains_key(&own) {
                    return false;
                }
                let fresh = || Instance { present: Present::default(), lease, revision, held: None };
                let instance = self.instances.entry(own).or_insert_with(fresh);
                instance.present.put(field, value);
                (instance.lease, instance.revision, instance.held) = (lease, revision, None);
            }
        }
        true
    }

    /// Takes in a delete; whether it was of this layout.
    pub fn delete(&mut self, prefixes: &[Prefix], key: &str) -> bool {
        match part(prefixes, key) {
            None => false,
            Some(Part::Master(service)) => self.masters.remove(service).is_some(),
            Some(Part::Of(own, field)) => {
                let Some(instance) = self.instances.get_mut(&own) else { return false };
                instance.present.delete(field);
                if instance.present.is_empty() {
                    self.instances.remove(&own);
                }
                true
            }
        }
    }

    /// A list has been read whole into `listed`, which takes this one's place. Where the store has just come back, what
    /// it lost is held `until` then: its owner may be about to write it again.
    pub fn listed(&mut self, listed: Self, until: Option<Duration>) {
        let before = std::mem::replace(self, listed);
        let Some(until) = until else { return };
        for (key, instance) in before.instances {
            if instance.present.record().is_some() && self.instances.len() < MOST {
                self.instances.entry(key).or_insert(Instance { held: instance.held.or(Some(until)), ..instance });
            }
        }
        for (service, (name, held)) in before.masters {
            self.masters.entry(service).or_insert((name, held.or(Some(until))));
        }
    }

    /// When the next hold is over.
    pub fn next(&self) -> Option<Duration> {
        let instances = self.instances.values().filter_map(|instance| instance.held);
        instances.chain(self.masters.values().filter_map(|(_, held)| *held)).min()
    }

    /// Lets go of what has been held long enough; whether there was any.
    pub fn expire(&mut self, now: Duration) -> bool {
        let before = (self.instances.len(), self.masters.len());
        self.instances.retain(|_, instance| instance.held.is_none_or(|until| until > now));
        self.masters.retain(|_, (_, held)| held.is_none_or(|until| until > now));
        before != (self.instances.len(), self.masters.len())
    }

    /// What is to be laid over the catalog.
    pub fn laid(&self) -> Laid {
        let found = |(key, instance): (&String, &Instance)| {
            Some(Foreign {
                key: key.as_str().into(),
                record: Arc::new(instance.present.record()?),
                lease: instance.lease,
                revision: instance.revision,
                held: instance.held.is_some(),
                if_writable: false,
            })
        };
        Laid {
            found: self.instances.iter().filter_map(found).collect(),
            masters: self.masters.iter().map(|(service, (name, _))| (service.clone(), name.clone())).collect(),
        }
    }
}

/// What a key is of, where it is of this layout: a cheap look comes first, as every key of the store passes here.
fn part<'k>(prefixes: &[Prefix], key: &'k str) -> Option<Part<'k>> {
    if key.len() > MAX_KEY || !(key.ends_with("/master") || key.contains("/instances/")) {
        return None;
    }
    prefixes.iter().find_map(|prefix| Part::of(key, prefix.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes() -> [Prefix; 1] {
        [Prefix::parse("/services").expect("a prefix")]
    }

    fn two() -> Presence {
        let mut presence = Presence::default();
        for (key, value) in [
            ("postgres/instances/1/host", "10.0.0.1"),
            ("postgres/instances/1/port", "5432"),
            ("postgres/instances/2/host", "10.0.0.2"),
            ("postgres/instances/2/port", "5432"),
            ("postgres/master", "2"),
        ] {
            assert!(presence.put(&prefixes(), &format!("/services/{key}"), value.as_bytes(), (7, 3)), "{key}");
        }
        presence
    }

    #[test]
    fn instances_and_their_master_are_found() {
        let laid = two().laid();
        let keys: Vec<&str> = laid.found.iter().map(|found| &*found.key).collect();
        assert_eq!(keys, ["/services/postgres/1", "/services/postgres/2"]);
        assert_eq!(laid.masters.get("/services/postgres").map(|name| &**name), Some("2"));
        let mut presence = two();
        assert!(!presence.put(&prefixes(), "/services/redis/a", b"10.0.0.1:1", (0, 4)));
        assert!(presence.delete(&prefixes(), "/services/postgres/instances/1/port"));
        assert_eq!(presence.laid().found.len(), 1, "half of one is none");
    }

    #[test]
    fn what_the_store_lost_in_its_return_is_held_for_a_while() {
        let mut presence = two();
        presence.listed(Presence::default(), Some(Duration::from_secs(30)));
        let laid = presence.laid();
        assert!(laid.found.len() == 2 && laid.found.iter().all(|found| found.held) && laid.masters.len() == 1);
        presence.listed(Presence::default(), Some(Duration::from_secs(90)));
        assert_eq!(presence.next(), Some(Duration::from_secs(30)), "no longer for a second loss");
        assert!(!presence.expire(Duration::from_secs(29)) && presence.expire(Duration::from_secs(30)));
        assert!(presence.is_empty());
        let mut presence = two();
        presence.listed(Presence::default(), None);
        assert!(presence.is_empty(), "gone is gone");
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut presence = Presence::default();
        for number in 0..MOST + 10 {
            presence.put(&prefixes(), &format!("/services/a/instances/{number}/port"), b"1", (0, 1));
            presence.put(&prefixes(), &format!("/services/a{number}/master"), b"1", (0, 1));
        }
        assert_eq!((presence.instances.len(), presence.masters.len()), (MOST, MOST));
        assert!(presence.put(&prefixes(), "/services/a/instances/5/host", b"h", (0, 2)), "known ones change");
        let long = format!("/services/{}/master", "x".repeat(MAX_KEY));
        assert!(!Presence::default().put(&prefixes(), &long, b"1", (0, 1)));
    }
}
