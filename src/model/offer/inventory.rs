//! The inventory: sightings of containers go in, what this host means to offer comes out.
//!
//! Pure and incremental: a sighting costs its own container and those that share its network, never the others. An
//! instance that did not change keeps its `Arc`. A panic while one container is mapped costs that container and is
//! shown as its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::container::{Container, Sighting};
use super::instance::{DockerStanding, Instance, InstanceKey, Offer, Skipped, Withheld};
use super::naming::{self, Offered, Settings, StaticService, kind};
use crate::model::words::record::Text;

/// Everything known of this host's containers and tables.
#[derive(Debug)]
pub struct Inventory {
    settings: Settings,
    services: Vec<StaticService>,
    containers: BTreeMap<Text, Entry>,
    /// Containers that use another one's network, by what they call that one: its id, or what this begins with.
    sharers: BTreeMap<Text, BTreeSet<Text>>,
    offer: Offer,
    keys: BTreeMap<Text, Vec<InstanceKey>>,
    by_kind: BTreeMap<&'static str, usize>,
    /// What of a container is skipped beyond what is shown.
    further: BTreeMap<Text, Further>,
    /// How many attributes are withheld.
    withheld: usize,
}

/// How many there are of each kind.
type Further = BTreeMap<&'static str, usize>;

#[derive(Debug)]
struct Entry {
    facts: Arc<Container>,
    stopping: bool,
}

impl Inventory {
    /// An empty inventory that offers the tables of the config file.
    pub fn new(settings: Settings, services: Vec<StaticService>) -> Self {
        let mut inventory = Self {
            settings,
            services: Vec::new(),
            containers: BTreeMap::new(),
            sharers: BTreeMap::new(),
            offer: Offer::default(),
            keys: BTreeMap::new(),
            by_kind: BTreeMap::new(),
            further: BTreeMap::new(),
            withheld: 0,
        };
        inventory.set_services(services);
        inventory
    }

    /// What is offered now; cheap to clone.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// How many ports are skipped for a reason of this kind.
    pub fn skipped(&self, kind: &str) -> usize {
        self.by_kind.get(kind).copied().unwrap_or(0)
    }

    /// How many attributes are withheld because their keys speak of secrets.
    pub fn withheld(&self) -> usize {
        self.withheld
    }

    /// The facts of a container.
    pub fn container(&self, id: &str) -> Option<&Arc<Container>> {
        self.containers.get(id).map(|entry| &entry.facts)
    }

    /// Whether a container has a port that no probe looks at.
    pub fn has_unprobed(&self, id: &str) -> bool {
        let keys = self.keys.get(id).into_iter().flatten();
        keys.filter_map(|key| self.offer.instances.get(key))
            .any(|instance| instance.check.kind == super::instance::CheckKind::None)
    }

    /// How containers are read from now on.
    pub fn set_settings(&mut self, settings: Settings) {
        if self.settings == settings {
            return;
        }
        self.settings = settings;
        let ids: Vec<Text> = self.containers.keys().cloned().collect();
        ids.iter().for_each(|id| self.map(id));
        self.map_services();
    }

    /// The tables of the config file from now on.
    pub fn set_services(&mut self, services: Vec<StaticService>) {
        let old = std::mem::replace(&mut self.services, services);
        for (number, service) in old.iter().enumerate() {
            self.put(&static_id(service, number), Offered::default());
        }
        self.map_services();
    }

    /// Takes one sighting in.
    pub fn apply(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Seen(facts) => self.see(facts),
            Sighting::Gone(id) => self.forget(&id),
            Sighting::Stopping(id) => self.set_stopping(&id, true),
            Sighting::Survived(id) => self.set_stopping(&id, false),
            Sighting::Unseen(id, why) => self.unseen(&id, why),
            Sighting::Listed(ids) => {
                let known = self.containers.keys().chain(self.offer.skipped.keys());
                let gone: Vec<Text> = known.filter(|id| !ids.contains(*id) && !is_static(id)).cloned().collect();
                gone.iter().for_each(|id| self.forget(id));
            }
            Sighting::InStep => self.offer.listed = true,
            Sighting::Engine(answers) => self.offer.engine = answers,
        }
    }

    fn see(&mut self, facts: Arc<Container>) {
        if !facts.runs() {
            return self.forget(&facts.id.clone());
        }
        // Some engines tell of every health check; what says nothing new costs nothing.
        if self.containers.get(&facts.id).is_some_and(|entry| entry.facts == facts) {
            return;
        }
        let id = facts.id.clone();
        let same_life = |entry: &Entry| entry.facts.started_at == facts.started_at;
        let stopping = self.containers.get(&id).is_some_and(|entry| entry.stopping && same_life(entry));
        self.share_no_more(&id);
        if let Some(other) = shared_with(&facts) {
            self.sharers.entry(other.into()).or_default().insert(id.clone());
        }
        self.containers.insert(id.clone(), Entry { facts, stopping });
        self.map_with_sharers(&id);
    }

    fn forget(&mut self, id: &Text) {
        self.share_no_more(id);
        self.containers.remove(id);
        self.map_with_sharers(id);
    }

    fn share_no_more(&mut self, id: &Text) {
        let Some(other) = self.containers.get(id).and_then(|entry| shared_with(&entry.facts)) else { return };
        if let Some(sharers) = self.sharers.get_mut(other) {
            sharers.remove(id);
            if sharers.is_empty() {
                self.sharers.remove(other);
            }
        }
    }

    fn set_stopping(&mut self, id: &Text, stopping: bool) {
        if let Some(entry) = self.containers.get_mut(id).filter(|entry| entry.stopping != stopping) {
            entry.stopping = stopping;
            self.map(id);
        }
    }

    /// A container that was read before stands by that; a new one is shown with the reason.
    fn unseen(&mut self, id: &Text, why: String) {
        if self.containers.contains_key(id) {
            return;
        }
        let container = id.get(..12).unwrap_or(id).into();
        let skipped = vec![Skipped { container, port: String::new(), kind: kind::INSPECT, reason: why }];
        self.put(id, Offered { skipped, ..Offered::default() });
    }

    fn map_with_sharers(&mut self, id: &Text) {
        self.map(id);
        if self.sharers.is_empty() {
            return;
        }
        let beginnings = (1..=id.len()).filter_map(|end| id.get(..end));
        let sharers: Vec<Text> = beginnings.filter_map(|other| self.sharers.get(other)).flatten().cloned().collect();
        sharers.iter().for_each(|sharer| self.map(sharer));
    }

    fn map(&mut self, id: &Text) {
        let offered = match self.containers.get(id) {
            None => Offered::default(),
            Some(entry) => self.mapped(entry),
        };
        self.put(id, offered);
    }

    fn mapped(&self, entry: &Entry) -> Offered {
        let others = |id: &str| {
            let mut found = self
                .containers
                .range::<str, _>((Bound::Included(id), Bound::Unbounded))
                .take_while(|(full, _)| full.starts_with(id));
            found.next().map(|(_, entry)| entry.facts.clone())
        };
        let mapped = catch_unwind(AssertUnwindSafe(|| naming::instances(&entry.facts, &others, &self.settings)));
        let Ok(mut offered) = mapped else { return panicked(entry.facts.shown()) };
        if entry.stopping {
            offered.instances.iter_mut().for_each(|instance| instance.docker = DockerStanding::Stopping);
        }
        offered
    }

    fn map_services(&mut self) {
        for number in 0..self.services.len() {
            let service = &self.services[number];
            let id = static_id(service, number);
            let mapped = catch_unwind(AssertUnwindSafe(|| naming::static_instances(service, number, &self.settings)));
            let offered = mapped.unwrap_or_else(|_| panicked(service.name.clone()));
            self.put(&id, offered);
        }
    }

    /// Replaces what one container or table offers.
    fn put(&mut self, id: &Text, offered: Offered) {
        let Offered { instances, skipped, further, withheld } = offered;
        let keys: Vec<InstanceKey> = instances.iter().map(|instance| instance.key.clone()).collect();
        for key in self.keys.remove(id).into_iter().flatten().filter(|key| !keys.contains(key)) {
            self.offer.instances.remove(&key);
        }
        for instance in instances {
            self.put_instance(instance);
        }
        if !keys.is_empty() {
            self.keys.insert(id.clone(), keys);
        }
        self.put_skipped(id, skipped, further);
        self.put_withheld(id, withheld);
    }

    fn put_withheld(&mut self, id: &Text, withheld: Vec<Withheld>) {
        let old = self.offer.withheld.get(id).map_or(&[][..], |old| old);
        if old == withheld {
            return;
        }
        self.withheld = self.withheld - old.len() + withheld.len();
        if withheld.is_empty() {
            self.offer.withheld.remove(id);
        } else {
            self.offer.withheld.insert(id.clone(), withheld.into());
        }
    }

    fn put_instance(&mut self, instance: Instance) {
        let same = self.offer.instances.get(&instance.key).is_some_and(|old| **old == instance);
        if !same {
            self.offer.instances.insert(instance.key.clone(), Arc::new(instance));
        }
    }

    fn put_skipped(&mut self, id: &Text, skipped: Vec<Skipped>, further: Further) {
        let old = self.offer.skipped.get(id).map_or(&[][..], |old| old);
        if old == skipped && self.further.get(id).map_or(further.is_empty(), |old| *old == further) {
            return;
        }
        count(&mut self.by_kind, old, self.further.get(id), -1);
        count(&mut self.by_kind, &skipped, Some(&further), 1);
        self.further.remove(id);
        if !further.is_empty() {
            self.further.insert(id.clone(), further);
        }
        if skipped.is_empty() {
            self.offer.skipped.remove(id);
        } else {
            self.offer.skipped.insert(id.clone(), skipped.into());
        }
    }
}

/// The container whose network this one uses, by its id or what that begins with.
fn shared_with(facts: &Container) -> Option<&str> {
    facts.network_mode.strip_prefix("container:").filter(|other| !other.is_empty())
}

/// Counts what one container has skipped, in or out.
fn count(by_kind: &mut BTreeMap<&'static str, usize>, skipped: &[Skipped], further: Option<&Further>, sign: isize) {
    let shown = skipped.iter().map(|one| (one.kind, 1));
    let further = further.into_iter().flatten().map(|(kind, count)| (*kind, *count));
    for (kind, number) in shown.chain(further) {
        let count = by_kind.entry(kind).or_default();
        *count = count.saturating_add_signed(sign * number.cast_signed());
    }
}

fn panicked(container: Text) -> Offered {
    let reason = "naming failed on it; this is a fault of wharf".to_owned();
    let skipped = vec![Skipped { container, port: String::new(), kind: kind::PANIC, reason }];
    Offered { skipped, ..Offered::default() }
}

const STATIC: &str = "static:";

fn static_id(service: &StaticService, number: usize) -> Text {
    format!("{STATIC}{}#{number}", service.name).into()
}

fn is_static(id: &str) -> bool {
    id.starts_with(STATIC)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::offer::advertise::{HostAddresses, choose};
    use crate::model::offer::container::{Network, RunState};

    const IDS: [&str; 5] = ["a0", "a0b1", "b0", "b1", "c0"];

    fn settings() -> Settings {
        let host = HostAddresses { source_v4: "192.0.2.10".parse().ok(), ..HostAddresses::default() };
        Settings { place: choose(&[], &host), internal: true, ..Settings::new("node1") }
    }

    fn container(id: usize, mode: usize, ports: usize) -> Container {
        let bridge = Network { addresses: vec!["172.17.0.2".parse().expect("an address")], ..Network::default() };
        Container {
            id: IDS[id].into(),
            name: IDS[id].into(),
            image: "redis".into(),
            state: if ports == 0 { RunState::Stopped } else { RunState::Running },
            exposed: (0..ports).map(|port| format!("{}/tcp", 6_379 + port).into()).collect(),
            env: ["SERVICE_PASSWORD=hunter2".into()][..usize::from(ports == 2)].to_vec(),
            // The beginning of an id is enough to name it.
            network_mode: ["default", "container:a", "container:a0", "container:b1", "container:c0"][mode].into(),
            networks: [("bridge".into(), bridge)].into(),
            ..Container::default()
        }
    }

    /// What is offered, and the numbers of what is not.
    fn shown(inventory: &Inventory) -> impl PartialEq + std::fmt::Debug {
        let instances: Vec<Arc<Instance>> = inventory.offer.instances.values().cloned().collect();
        let skipped: Vec<_> = kind::ALL.iter().map(|kind| inventory.skipped(kind)).collect();
        (instances, skipped, inventory.withheld())
    }

    proptest! {
        #[test]
        fn what_is_offered_follows_from_what_runs_now(all in prop::collection::vec((0..5_usize, 0..5_usize, 0..4_usize), 1..40)) {
            let mut inventory = Inventory::new(settings(), Vec::new());
            let mut last = BTreeMap::new();
            for (id, mode, ports) in all {
                let facts = Arc::new(container(id, mode, ports));
                last.insert(id, facts.clone());
                inventory.apply(Sighting::Seen(facts));
            }
            for turned in [false, true] {
                let mut fresh = Inventory::new(settings(), Vec::new());
                let mut order: Vec<&Arc<Container>> = last.values().collect();
                if turned {
                    order.reverse();
                }
                order.into_iter().for_each(|facts| fresh.apply(Sighting::Seen(facts.clone())));
                prop_assert_eq!(shown(&inventory), shown(&fresh));
            }
            prop_assert_eq!(inventory.withheld(), inventory.offer.withheld.values().map(|one| one.len()).sum::<usize>());
        }
    }
}
