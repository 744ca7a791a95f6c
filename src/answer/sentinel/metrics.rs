//! What Sentinel's protocol counts of itself.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::host::clients::Counts;

#[derive(Clone, Debug, Default)]
pub(super) struct SentinelMetrics {
    pub(super) commands: Counter,
    pub(super) slow: Counter,
    pub(super) clients: Counts,
}

impl SentinelMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "wharf_sentinel_commands",
            "Commands of Sentinel's clients answered",
            metrics.commands.clone(),
        );
        registry.register(
            "wharf_sentinel_connections",
            "Connections of Sentinel's clients open now",
            metrics.clients.open.clone(),
        );
        registry.register(
            "wharf_sentinel_connections_evicted",
            "Connections of Sentinel's clients closed to make room for another peer's",
            metrics.clients.evicted.clone(),
        );
        registry.register(
            "wharf_sentinel_connections_behind",
            "Connections of Sentinel's clients closed because they did not take their events",
            metrics.slow.clone(),
        );
        metrics
    }
}
