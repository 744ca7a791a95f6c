//! Adoption: what an agent finds published by itself, from before its restart, counts as ready until it is told better.
//!
//! An adoptee is told by what its record says of it, since the agent that published it is gone: container, id, protocol
//! and port. It stops being one as soon as a probe (or Docker) has spoken, or Docker's list lacks its container. A
//! record that is older than the life that its container leads now speaks of an earlier one, and is not believed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::standing::{Serving, ServingMap, Standings, State};
use crate::model::offer::instance::{DockerStanding, Instance, InstanceKey, Offer};
use crate::model::words::record::{Proto, Record, Text};

/// Instances that are taken up at most. Whoever may write to the store may put any number of records in this owner's
/// name, and while the engine is away nothing says which of them are real.
pub const MAX_ADOPTED: usize = 65_536;

/// What tells one adoptee from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct AdopteeKey {
    container: Text,
    id: Text,
    proto: Proto,
    port: u16,
}

/// Every instance found published at start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adopted(BTreeMap<AdopteeKey, Serving>);

impl Adopted {
    /// What own records say of their instances; of so many that no host has them, only the first.
    pub fn of_records<'r>(records: impl Iterator<Item = &'r Record>) -> Self {
        Self(records.filter_map(adoptee).take(MAX_ADOPTED).collect())
    }

    /// How the instance served before the restart, if it did. A probe starts from here: ready, until it has failed
    /// `fall` times.
    pub fn get(&self, instance: &Instance) -> Option<&Serving> {
        self.0.get(&key_of(instance)).filter(|serving| !is_before(serving.since, instance))
    }

    /// The same, to be used once.
    pub fn take(&mut self, instance: &Instance) -> Option<Serving> {
        let serving = self.get(instance).copied()?;
        self.0.remove(&key_of(instance));
        Some(serving)
    }

    /// Takes up more as far as there is room; what is known already stays.
    pub fn extend(&mut self, more: Self) {
        for (key, serving) in more.0 {
            if self.0.len() < MAX_ADOPTED || self.0.contains_key(&key) {
                self.0.entry(key).or_insert(serving);
            }
        }
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Lets go those that probes or Docker have spoken of.
    pub fn settle(&mut self, offer: &Offer, standings: &Standings) {
        if self.0.is_empty() {
            return;
        }
        let mut waiting = BTreeMap::new();
        for instance in offer.instances.values() {
            let spoken = standings.get(&instance.key).is_some_and(|standing| standing.state != State::Starting);
            if let Some((key, serving)) = self.0.remove_entry(&key_of(instance))
                && !spoken
                && !vetoed(instance.docker)
            {
                waiting.insert(key, serving);
            }
        }
        if offer.listed {
            self.0 = waiting;
        } else {
            self.0.append(&mut waiting);
        }
    }
}

fn adoptee(record: &Record) -> Option<(AdopteeKey, Serving)> {
    let since = humantime::parse_rfc3339(record.since.as_deref()?).ok()?;
    let key = AdopteeKey {
        container: record.container.clone().unwrap_or_default(),
        id: record.id.clone()?,
        proto: record.proto.unwrap_or_default(),
        port: record.port,
    };
    Some((key, Serving { since, role: record.role, told: None }))
}

/// Whether `since`, as a record tells it in whole seconds, was over before the instance's container was started.
fn is_before(since: SystemTime, instance: &Instance) -> bool {
    let started = humantime::parse_rfc3339(&instance.started);
    started.is_ok_and(|started| since + Duration::from_secs(1) <= started)
}

fn key_of(instance: &Instance) -> AdopteeKey {
    AdopteeKey {
        container: instance.key.container().unwrap_or_default().into(),
        id: instance.id.clone(),
        proto: instance.key.proto,
        port: instance.port,
    }
}

/// Whether Docker's word alone means that it does not serve.
pub fn vetoed(docker: DockerStanding) -> bool {
    matches!(docker, DockerStanding::Unhealthy | DockerStanding::Paused | DockerStanding::Stopping)
}

/// What serves, by probes, Docker and adoption; `before` gives the time since when without a break.
pub fn serving(offer: &Offer, standings: &Standings, adopted: &Adopted, before: &ServingMap) -> ServingMap {
    let one = |(key, instance): (&InstanceKey, &std::sync::Arc<Instance>)| {
        if vetoed(instance.docker) {
            return None;
        }
        let standing = standings.get(key);
        let taken = adopted.get(instance);
        let now = match standing {
            Some(standing) if standing.state.serves() => {
                Serving { since: standing.since, role: standing.role, told: Some(standing.since) }
            }
            Some(standing) if standing.state != State::Starting => return None,
            _ => *taken?,
        };
        // A standing that serves since another time than it said before is back from a break that was not seen here.
        let without_break = |earlier: &&Serving| earlier.told.is_none_or(|told| now.told == Some(told));
        let since = taken.or(before.get(key)).filter(without_break).map_or(now.since, |earlier| earlier.since);
        Some((key.clone(), Serving { since, ..now }))
    };
    offer.instances.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::standing::Standing;
    use super::*;
    use crate::model::offer::advertise::{Advertised, Place};
    use crate::model::offer::container::{Binding, Container, RunState, Sighting};
    use crate::model::offer::inventory::Inventory;
    use crate::model::offer::naming::Settings;

    /// The offer of one host with one container in the life that began at `started`.
    fn offer(started: &str) -> Offer {
        let v4 = Advertised { address: [10, 0, 0, 1].into(), explicit: true };
        let place = Place { v4: Some(v4), ..Place::default() };
        let mut inventory = Inventory::new(Settings { place, ..Settings::new("core-01") }, Vec::new());
        let bindings = vec![Binding { host_ip: "".into(), host_port: "11211".into() }];
        inventory.apply(Sighting::Seen(Arc::new(Container {
            id: "ab".repeat(32).into(),
            name: "cache".into(),
            image: "memcached".into(),
            exposed: ["11211/tcp".into()].into(),
            ports: [("11211/tcp".into(), bindings)].into(),
            state: RunState::Running,
            started_at: started.into(),
            ..Container::default()
        })));
        inventory.offer().clone()
    }

    fn only(offer: &Offer) -> &Arc<Instance> {
        offer.instances.values().next().expect("one instance")
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn record_of(instance: &Instance, since: u64) -> Record {
        Record {
            id: Some(instance.id.clone()),
            container: instance.key.container().map(Into::into),
            port: instance.port,
            proto: Some(instance.key.proto),
            since: Some(humantime::format_rfc3339_seconds(at(since)).to_string().into()),
            ..Record::default()
        }
    }

    fn standing(offer: &Offer, state: State, since: u64) -> Standings {
        let standing = Standing { state, role: None, since: at(since), error: None };
        [(only(offer).key.clone(), Arc::new(standing))].into_iter().collect()
    }

    fn since(serving: &ServingMap) -> Option<SystemTime> {
        serving.values().next().map(|serving| serving.since)
    }

    #[test]
    fn a_record_older_than_the_life_of_its_container_is_not_believed() {
        for (started, believed) in [
            ("", true),
            ("not a time", true),
            ("1970-01-01T00:16:39.9Z", true),
            // The record says 1,000 and may mean 1,000.9.
            ("1970-01-01T00:16:40.9Z", true),
            ("1970-01-01T00:16:41Z", false),
            ("2026-11-21T11:42:33.123456789Z", false),
        ] {
            let offer = offer(started);
            let mut adopted = Adopted::of_records([&record_of(only(&offer), 1_000)].into_iter());
            assert_eq!(adopted.get(only(&offer)).is_some(), believed, "{started}");
            assert_eq!(adopted.take(only(&offer)).is_some(), believed, "{started}");
            assert_eq!(adopted.take(only(&offer)), None, "once");
        }
    }

    #[test]
    fn no_more_is_taken_up_than_a_host_may_have() {
        let offer = offer("");
        let record = |number: usize| Record { id: Some(number.to_string().into()), ..record_of(only(&offer), 1_000) };
        let records = |from: usize, count: usize| (from..from + count).map(record).collect::<Vec<_>>();
        let mut adopted = Adopted::of_records(records(0, MAX_ADOPTED - 1).iter());
        assert_eq!(adopted.len(), MAX_ADOPTED - 1);
        adopted.extend(Adopted::of_records(records(MAX_ADOPTED, 9).iter()));
        assert_eq!(adopted.len(), MAX_ADOPTED);
    }

    #[test]
    fn a_record_found_late_tells_since_when_what_serves_has_been_serving() {
        let offer = offer("");
        let serves = standing(&offer, State::Ready, 2_000);
        let none = Adopted::default();
        let first = serving(&offer, &serves, &none, &ServingMap::new());
        assert_eq!(since(&first), Some(at(2_000)));
        let mut adopted = Adopted::of_records([&record_of(only(&offer), 1_000)].into_iter());
        let second = serving(&offer, &serves, &adopted, &first);
        assert_eq!(since(&second), Some(at(1_000)));
        adopted.settle(&offer, &serves);
        assert!(adopted.is_empty());
        assert_eq!(since(&serving(&offer, &serves, &adopted, &second)), Some(at(1_000)), "and goes on to");
    }

    #[test]
    fn a_standing_that_began_again_is_a_new_time() {
        let offer = offer("");
        let adopted = Adopted::of_records([&record_of(only(&offer), 1_000)].into_iter());
        let waiting = serving(&offer, &standing(&offer, State::Starting, 1_900), &adopted, &ServingMap::new());
        let none = Adopted::default();
        let told = serving(&offer, &standing(&offer, State::Ready, 2_000), &none, &waiting);
        assert_eq!(since(&told), Some(at(1_000)), "the first word after a restart is no break");
        let again = serving(&offer, &standing(&offer, State::Ready, 3_000), &none, &told);
        assert_eq!(since(&again), Some(at(3_000)), "another one is: what was between was not seen");
    }
}
