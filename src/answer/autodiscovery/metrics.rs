//! What auto-discovery counts of itself. Services are those of this agent's tables.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::host::clients::Counts;

type ByService = Family<[(&'static str, String); 1], Gauge>;

#[derive(Clone, Debug, Default)]
pub(super) struct AutodiscoveryMetrics {
    pub(super) commands: Counter,
    pub(super) writes: Counter,
    pub(super) clients: Counts,
    members: ByService,
    version: ByService,
    in_step: ByService,
}

impl AutodiscoveryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { commands, writes, clients, members, version, in_step } = metrics.clone();
        registry.register("wharf_autodiscovery_commands", "Commands of auto-discovery's clients answered", commands);
        registry.register("wharf_autodiscovery_writes", "Member lists that this agent wrote to the store", writes);
        registry.register(
            "wharf_autodiscovery_connections",
            "Connections of auto-discovery's clients open now",
            clients.open,
        );
        registry.register(
            "wharf_autodiscovery_connections_evicted",
            "Connections of auto-discovery's clients closed to make room for another peer's",
            clients.evicted,
        );
        registry.register("wharf_autodiscovery_members", "Members of the list that clients are told", members);
        registry.register("wharf_autodiscovery_version", "Version of the list that clients are told", version);
        registry.register("wharf_autodiscovery_in_step", "1 while the list is in step with the store", in_step);
        metrics
    }

    /// What clients of a service are told now.
    pub(super) fn told(&self, service: &str, members: usize, version: u64, in_step: bool) {
        let of = [("service", service.to_owned())];
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.members.get_or_create(&of).set(i64::try_from(members).unwrap_or(i64::MAX));
        self.version.get_or_create(&of).set(number(version));
        self.in_step.get_or_create(&of).set(i64::from(in_step));
    }
}
