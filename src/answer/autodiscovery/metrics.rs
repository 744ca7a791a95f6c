//! What auto-discovery counts of itself. Services are those of this agent's tables.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::host::clients::Counts;

type Labels = [(&'static str, String); 1];
type ByService = Family<Labels, Gauge>;

#[derive(Clone, Debug, Default)]
pub(super) struct AutodiscoveryMetrics {
    commands: Counter,
    writes: Counter,
    evicted: Counter,
    connections: ByService,
    listening: ByService,
    members: ByService,
    version: ByService,
    in_step: ByService,
}

/// Those of one table.
#[derive(Clone, Debug)]
pub(super) struct OfTable {
    of: Labels,
    open: Gauge,
    all: AutodiscoveryMetrics,
}

impl AutodiscoveryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { commands, writes, evicted, connections, listening, members, version, in_step } = metrics.clone();
        registry.register("wharf_autodiscovery_commands", "Commands of auto-discovery's clients answered", commands);
        registry.register("wharf_autodiscovery_writes", "Member lists that this agent wrote to the store", writes);
        registry.register(
            "wharf_autodiscovery_connections",
            "Connections of auto-discovery's clients open now",
            connections,
        );
        registry.register(
            "wharf_autodiscovery_connections_evicted",
            "Connections of auto-discovery's clients closed to make room for another peer's",
            evicted,
        );
        registry.register("wharf_autodiscovery_listening", "1 while clients can ask", listening);
        registry.register("wharf_autodiscovery_members", "Members of the list that clients are told", members);
        registry.register("wharf_autodiscovery_version", "Version of the list that clients are told", version);
        registry.register("wharf_autodiscovery_in_step", "1 while the list is in step with the store", in_step);
        metrics
    }

    /// Those of the table of a service.
    pub(super) fn of(&self, service: &str) -> OfTable {
        let of = [("service", service.to_owned())];
        let open = self.connections.get_or_create(&of).clone();
        OfTable { of, open, all: self.clone() }
    }
}

impl OfTable {
    /// What is counted of its clients.
    pub(super) fn clients(&self) -> Counts {
        Counts { open: self.open.clone(), evicted: self.all.evicted.clone() }
    }

    /// Connections that are open now.
    pub(super) fn open(&self) -> i64 {
        self.open.get()
    }

    /// A command was answered.
    pub(super) fn answered(&self) {
        self.all.commands.inc();
    }

    /// A list was written.
    pub(super) fn wrote(&self) {
        self.all.writes.inc();
    }

    /// Whether clients can ask.
    pub(super) fn listens(&self, listens: bool) {
        self.all.listening.get_or_create(&self.of).set(i64::from(listens));
    }

    /// What clients are told now.
    pub(super) fn told(&self, members: usize, version: u64, in_step: bool) {
        let Self { of, all, .. } = self;
        all.members.get_or_create(of).set(i64::try_from(members).unwrap_or(i64::MAX));
        all.version.get_or_create(of).set(i64::try_from(version).unwrap_or(i64::MAX));
        all.in_step.get_or_create(of).set(i64::from(in_step));
    }

    /// The table is gone, and nothing is said of it any more.
    pub(super) fn forget(&self) {
        let AutodiscoveryMetrics { connections, listening, members, version, in_step, .. } = &self.all;
        for family in [connections, listening, members, version, in_step] {
            family.remove(&self.of);
        }
    }
}
