//! What ambassadors count, by table.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::pump::Meter;
use crate::catalog::proxy::Cut;
use crate::catalog::proxy::told::{Counts, Proxies};

/// Tables of a process apart that are shown: no file has more.
const MOST_APART: usize = 256;

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
    moved: Family<TableLabel, Counter>,
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
    /// Sessions that went on with another server.
    pub(super) moved: Counter,
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
        let moved = metrics.moved.clone();
        registry.register("wharf_proxy_moved", "Sessions that went on with another server", moved);
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
            moved: self.moved.get_or_create(&table).clone(),
            meter: Meter { up: bytes("up"), down: bytes("down") },
            cut: Cut::ALL.map(|why| (why, self.cut.get_or_create(&reason(why.as_str())).clone())),
            refused: Refused::ALL.map(|why| (why, self.refused.get_or_create(&reason(why.as_str())).clone())),
        }
    }
}

/// Shows among this process's metrics what a process apart tells of its tables.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    metrics: Metrics,
    last: Arc<Mutex<HashMap<String, Counts>>>,
}

impl Mirror {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, last: Arc::default() }
    }

    /// Takes what is told now; a table that is not told of any more has no connections.
    pub(super) fn take(&self, told: &Proxies) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for name in last.keys().filter(|name| told.proxies.iter().all(|proxy| *proxy.name != ***name)) {
            let table = self.metrics.of(name);
            table.connections.set(0);
            table.parked.set(0);
        }
        for proxy in &told.proxies {
            let Some(counts) = &proxy.counts else { continue };
            if last.len() >= MOST_APART && !last.contains_key(&*proxy.name) {
                continue;
            }
            let table = self.metrics.of(&proxy.name);
            let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            table.connections.set(gauge(proxy.connections));
            table.parked.set(gauge(proxy.parked));
            let before = last.insert(proxy.name.to_string(), counts.clone()).unwrap_or_default();
            table.follow(&before, counts);
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

    /// All that is counted.
    pub(super) fn told(&self) -> Counts {
        let cut = self.cut.iter().map(|(why, count)| (why.as_str().to_owned(), count.get())).collect();
        let refused = self.refused.iter().map(|(why, count)| (why.as_str().to_owned(), count.get())).collect();
        let (up, down) = (self.meter.up.get(), self.meter.down.get());
        Counts { unreached: self.unreached.get(), moved: self.moved.get(), cut, refused, up, down }
    }

    /// Counts on from what a process apart told before to what it tells now. One that was started again counts from 0.
    fn follow(&self, before: &Counts, now: &Counts) {
        let add = |counter: &Counter, before: u64, now: u64| {
            counter.inc_by(now.checked_sub(before).unwrap_or(now));
        };
        let of = |counts: &BTreeMap<String, u64>, why: &str| counts.get(why).copied().unwrap_or(0);
        add(&self.unreached, before.unreached, now.unreached);
        add(&self.moved, before.moved, now.moved);
        add(&self.meter.up, before.up, now.up);
        add(&self.meter.down, before.down, now.down);
        for (why, counter) in &self.cut {
            add(counter, of(&before.cut, why.as_str()), of(&now.cut, why.as_str()));
        }
        for (why, counter) in &self.refused {
            add(counter, of(&before.refused, why.as_str()), of(&now.refused, why.as_str()));
        }
    }

    /// Connections cut and refused so far.
    pub(super) fn ended(&self) -> (u64, u64) {
        let cut = self.cut.iter().map(|(_, count)| count.get()).sum();
        (cut, self.refused.iter().map(|(_, count)| count.get()).sum())
    }
}
