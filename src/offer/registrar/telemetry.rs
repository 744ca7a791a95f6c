//! The registrar's figures.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::model::health::standing::State;
use crate::model::publish::local::Local;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// Counters and gauges, registered once.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) sessions: Counter<u64, AtomicU64>,
    pub(super) lost: Counter<u64, AtomicU64>,
    pub(super) writes: Counter<u64, AtomicU64>,
    pub(super) refused: Counter<u64, AtomicU64>,
    pub(super) node_writes: Counter<u64, AtomicU64>,
    records: Gauge,
    unconfirmed: Gauge,
    drained: Gauge,
    instances: Vec<(State, Gauge)>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let sessions = Counter::default();
        registry.register("wharf_publish_sessions", "Leases opened or taken over", sessions.clone());
        let lost = Counter::default();
        registry.register("wharf_publish_sessions_lost", "Leases lost", lost.clone());
        let writes = Counter::default();
        registry.register("wharf_publish_writes", "Records put or deleted", writes.clone());
        let refused = Counter::default();
        registry.register(
            "wharf_publish_conflicts",
            "Commits refused because a key was not as it was last seen",
            refused.clone(),
        );
        let node_writes = Counter::default();
        registry.register("wharf_publish_node_writes", "Times the node record was written", node_writes.clone());
        let records = Gauge::default();
        registry.register("wharf_publish_records", "Records of this host in the store", records.clone());
        let unconfirmed = Gauge::default();
        registry.register(
            "wharf_publish_unconfirmed",
            "Changes of this host that the store has not confirmed yet",
            unconfirmed.clone(),
        );
        let drained = Gauge::default();
        registry.register("wharf_drained", "1 while the node is drained", drained.clone());
        let family = Family::<StateLabel, Gauge>::default();
        registry.register("wharf_instances", "Instances of this host by state", family.clone());
        let instances = State::ALL
            .iter()
            .map(|state| (*state, family.get_or_create_owned(&StateLabel { state: state.as_str() })))
            .collect();
        Self { sessions, lost, writes, refused, node_writes, records, unconfirmed, drained, instances }
    }

    pub(super) fn show(&self, local: &Local) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.records.set(count(local.records));
        self.unconfirmed.set(count(local.unconfirmed));
        self.drained.set(i64::from(local.drained.is_some()));
        let states = local.states();
        for (state, gauge) in &self.instances {
            gauge.set(count(states.get(state).copied().unwrap_or(0)));
        }
    }
}
