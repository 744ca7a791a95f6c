//! The catalog in numbers, for metrics.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::catalog::index::Catalog;

/// Gauges of the catalog.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    records: Gauge,
    services: Gauge,
    bad: Gauge,
    held: Gauge,
    left_out: Gauge,
    yielding: Gauge,
    contested: Gauge,
    leaderless: Gauge,
    stale: Gauge,
    overlaid: Gauge,
    revision: Gauge,
}

impl Gauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        let mut show = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        show("wharf_catalog_records", "Records that are answered", &gauges.records);
        show("wharf_catalog_services", "Services that have one or more records", &gauges.services);
        show("wharf_catalog_bad_records", "Values in the store that are no record", &gauges.bad);
        show("wharf_catalog_held_records", "Records answered although the store lost them", &gauges.held);
        show("wharf_catalog_left_out_records", "Records left out by --max-records", &gauges.left_out);
        show("wharf_catalog_yielding_records", "Records of others that yield to an agent's", &gauges.yielding);
        show("wharf_catalog_contested_services", "Services of which several claim to be primary", &gauges.contested);
        show("wharf_service_without_primary", "Services with replicas and no primary", &gauges.leaderless);
        show("wharf_catalog_stale", "1 while the catalog is not in step with the store", &gauges.stale);
        show("wharf_catalog_overlaid", "1 while this host's own records are laid over", &gauges.overlaid);
        show("wharf_catalog_revision", "The store's revision that the catalog is in step with", &gauges.revision);
        gauges
    }

    pub(super) fn set(&self, shown: &Catalog, overlaid: bool) {
        let counts = shown.counts();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.records.set(number(counts.records));
        self.services.set(number(counts.services));
        self.bad.set(number(counts.bad));
        self.held.set(number(counts.held));
        self.left_out.set(number(counts.left_out));
        self.yielding.set(number(counts.yielding));
        self.contested.set(number(counts.contested));
        self.leaderless.set(number(counts.leaderless));
        self.stale.set(i64::from(shown.is_stale()));
        self.overlaid.set(i64::from(overlaid));
        self.revision.set(shown.revision());
    }
}
