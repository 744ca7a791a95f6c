//! What HTTP counts of itself. Labels come from closed sets: an unknown path is `other`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::host::clients::Counts;

/// A request's kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Request {
    pub(super) endpoint: &'static str,
    pub(super) code: u16,
}

/// HTTP's own metrics, made while the registry can still be written.
#[derive(Clone, Debug, Default)]
pub struct HttpMetrics {
    pub(super) requests: Family<Request, Counter>,
    pub(super) panics: Counter,
    pub(super) clients: Counts,
    pub(super) watchers: Gauge,
}

impl HttpMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "wharf_http_requests",
            "HTTP requests answered, by endpoint and status code",
            metrics.requests.clone(),
        );
        registry.register(
            "wharf_http_panics",
            "HTTP requests whose handling panicked; each cost that request only",
            metrics.panics.clone(),
        );
        registry.register("wharf_http_connections", "HTTP connections open now", metrics.clients.open.clone());
        registry.register(
            "wharf_http_connections_evicted",
            "HTTP connections closed to make room for another peer's",
            metrics.clients.evicted.clone(),
        );
        registry.register("wharf_http_watchers", "Clients that follow /v1/watch now", metrics.watchers.clone());
        metrics
    }
}
