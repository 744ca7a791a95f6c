//! What ambassadors count, by table.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::pump::Meter;
use crate::catalog::proxy::Cut;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    proxy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    proxy: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    proxy: String,
    direction: &'static str,
}

/// Why a connection was sent away, or closed before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refused {
    /// Its client may not connect.
    Allow,
    /// There was no endpoint within its time.
    Wait,
    /// Somebody who has fewer connections needed the place.
    Room,
    /// This host has no descriptors or ports left.
    Host,
}

impl Refused {
    const ALL: [Self; 4] = [Self::Allow, Self::Wait, Self::Room, Self::Host];

    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Wait => "wait",
            Self::Room => "room",
            Self::Host => "host",
        }
    }
}

/// The metrics of all tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    connections: Family<TableLabel, Gauge>,
    parked: Family<TableLabel, Gauge>,
    unreached: Family<TableLabel, Counter>,
    cut: Family<ReasonLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    bytes: Family<DirectionLabels, Counter>,
}

/// Those of one table.
#[derive(Clone, Debug)]
pub(super) struct TableMetrics {
    /// Connections that run now.
    pub(super) connections: Gauge,
    /// Connections that wait now.
    pub(super) parked: Gauge,
    /// Endpoints that could not be reached.
    pub(super) unreached: Counter,
    /// Bytes moved.
    pub(super) meter: Meter,
    cut: [(Cut, Counter); 4],
    refused: [(Refused, Counter); 4],
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let connections = metrics.connections.clone();
        registry.register("wharf_proxy_connections", "Connections that run through an ambassador now", connections);
        let parked = metrics.parked.clone();
        registry.register("wharf_proxy_parked", "Connections that wait for an endpoint now", parked);
        let unreached = metrics.unreached.clone();
        registry.register("wharf_proxy_unreached", "Endpoints that a connection could not be opened to", unreached);
        let cut = metrics.cut.clone();
        registry.register("wharf_proxy_cut", "Connections cut because their server was not right any more", cut);
        let refused = metrics.refused.clone();
        registry.register("wharf_proxy_refused", "Connections sent away, by reason", refused);
        registry.register("wharf_proxy_bytes", "Bytes moved by ambassadors", metrics.bytes.clone());
        metrics
    }

    /// Those of the table of this name.
    pub(super) fn of(&self, name: &str) -> TableMetrics {
        let table = TableLabel { proxy: name.to_owned() };
        let reason = |reason| ReasonLabels { proxy: name.to_owned(), reason };
        let bytes =
            |direction| self.bytes.get_or_create(&DirectionLabels { proxy: name.to_owned(), direction }).clone();
        TableMetrics {
            connections: self.connections.get_or_create(&table).clone(),
            parked: self.parked.get_or_create(&table).clone(),
            unreached: self.unreached.get_or_create(&table).clone(),
            meter: Meter { up: bytes("up"), down: bytes("down") },
            cut: Cut::ALL.map(|why| (why, self.cut.get_or_create(&reason(why.as_str())).clone())),
            refused: Refused::ALL.map(|why| (why, self.refused.get_or_create(&reason(why.as_str())).clone())),
        }
    }
}

impl TableMetrics {
    pub(super) fn cut(&self, why: Cut, connections: usize) {
        if let Some((_, count)) = self.cut.iter().find(|(of, _)| *of == why) {
            count.inc_by(connections as u64);
        }
    }

    pub(super) fn refused(&self, why: Refused) {
        if let Some((_, count)) = self.refused.iter().find(|(of, _)| *of == why) {
            count.inc();
        }
    }

    /// Connections cut and refused so far.
    pub(super) fn ended(&self) -> (u64, u64) {
        let cut = self.cut.iter().map(|(_, count)| count.get()).sum();
        (cut, self.refused.iter().map(|(_, count)| count.get()).sum())
    }
}
