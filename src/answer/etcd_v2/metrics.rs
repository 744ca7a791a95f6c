//! What is counted of etcd's v2 API. Labels come from closed sets.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::host::clients::Counts;

/// A request's kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) code: u16,
}

#[derive(Clone, Debug, Default)]
pub(super) struct EtcdV2Metrics {
    pub(super) requests: Family<Request, Counter>,
    pub(super) panics: Counter,
    pub(super) clients: Counts,
    pub(super) waits: Gauge,
    pub(super) away: Gauge,
}

impl EtcdV2Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { requests, panics, clients, waits, away } = metrics.clone();
        registry.register("wharf_etcd_v2_requests", "Requests of etcd's v2 API answered, by method and code", requests);
        registry.register(
            "wharf_etcd_v2_panics",
            "Requests of etcd's v2 API whose handling panicked; each cost that request only",
            panics,
        );
        registry.register("wharf_etcd_v2_waits", "Clients of etcd's v2 API that wait for a change now", waits);
        registry.register(
            "wharf_etcd_v2_trees_away",
            "Prefixes of etcd's v2 API whose changes are not in step with the store now",
            away,
        );
        registry.register(
            "wharf_etcd_v2_connections",
            "Connections of clients of etcd's v2 API open now",
            clients.open,
        );
        registry.register(
            "wharf_etcd_v2_connections_evicted",
            "Connections of clients of etcd's v2 API closed to make room for another peer's",
            clients.evicted,
        );
        metrics
    }
}
