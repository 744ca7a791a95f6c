//! Adoption: what an agent finds published by itself, from before its restart, counts as ready until it is told better.
//!
//! An adoptee is told by what its record says of it, since the agent that published it is gone: container, id, protocol
//! and port. It stops being one as soon as a probe (or Docker) has spoken, or Docker's list lacks its container.

use std::collections::BTreeMap;

use super::instance::{DockerStanding, Instance, InstanceKey, Offer};
use super::plan::{Serving, ServingMap, container_of};
use super::record::{Proto, Record, Text};
use super::standing::{Standings, State};

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
    /// What own records say of their instances.
    pub fn of_records<'r>(records: impl Iterator<Item = &'r Record>) -> Self {
        Self(records.filter_map(adoptee).collect())
    }

    /// How the instance served before the restart, if it did. A probe starts from here: ready, until it has failed
    /// `fall` times.
    pub fn get(&self, instance: &Instance) -> Option<&Serving> {
        self.0.get(&key_of(instance))
    }

    /// Takes up more; what is known already stays.
    pub fn extend(&mut self, more: Self) {
        for (key, serving) in more.0 {
            self.0.entry(key).or_insert(serving);
        }
    }

    /// Every adoptee: the id in its record, its container, and how it served.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &Text, &Serving)> {
        self.0.iter().map(|(key, serving)| (&key.id, &key.container, serving))
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
    Some((key, Serving { since, role: record.role }))
}

fn key_of(instance: &Instance) -> AdopteeKey {
    AdopteeKey {
        container: container_of(&instance.key).unwrap_or_default().into(),
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
            Some(standing) if standing.state.serves() => Serving { since: standing.since, role: standing.role },
            Some(standing) if standing.state != State::Starting => return None,
            _ => *taken?,
        };
        let since = before.get(key).or(taken).map_or(now.since, |earlier| earlier.since);
        Some((key.clone(), Serving { since, ..now }))
    };
    offer.instances.iter().filter_map(one).collect()
}
