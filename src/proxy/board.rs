//! What is known of one table from outside: its counts, and how it stands.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use super::metrics::TableMetrics;
use crate::catalog::proxy::Aim;
use crate::catalog::proxy::told::Proxy;
use crate::model::words::record::Text;

/// Endpoints that are named; a service may have thousands.
const NAMED: usize = 8;

/// The board of one table.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) counts: TableMetrics,
    stand: Mutex<Stand>,
}

/// How it stands.
#[derive(Clone, Debug, Default)]
struct Stand {
    name: Text,
    listen: Vec<Text>,
    target: Option<Text>,
    closed: Option<Text>,
    deaf: Option<Text>,
}

impl Board {
    pub(super) fn new(name: &str, counts: TableMetrics) -> Arc<Self> {
        let stand = Stand { name: name.into(), ..Stand::default() };
        Arc::new(Self { counts, stand: Mutex::new(stand) })
    }

    /// Shows where it listens, and why it does not listen everywhere.
    pub(super) fn listens(&self, listen: &[SocketAddr], problem: Option<String>) {
        self.stands(|stand| {
            stand.listen = listen.iter().map(|address| address.to_string().into()).collect();
            stand.deaf = problem.map(Into::into);
        });
    }

    /// Shows where new connections go.
    pub(super) fn aims(&self, aim: &Aim) {
        let named = aim.open.iter().take(NAMED).map(|found| found.address.to_string());
        let mut target = named.collect::<Vec<_>>().join(", ");
        if aim.open.len() > NAMED {
            target.push_str(&format!(" and {} more", aim.open.len() - NAMED));
        }
        self.stands(|stand| {
            stand.target = (!target.is_empty()).then(|| target.into());
            stand.closed = aim.closed.map(|closed| closed.as_str().into());
        });
    }

    /// All of it.
    pub(super) fn told(&self) -> Proxy {
        let stand = self.stand.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or_default();
        let (cut, refused) = self.counts.ended();
        Proxy {
            name: stand.name,
            listen: stand.listen,
            target: stand.target,
            reason: stand.deaf.or(stand.closed),
            connections: now(&self.counts.connections),
            parked: now(&self.counts.parked),
            cut,
            refused,
            bytes: self.counts.meter.up.get() + self.counts.meter.down.get(),
            counts: None,
        }
    }

    /// All of it for the agent, which shows it among its metrics.
    pub(super) fn reported(&self) -> Proxy {
        Proxy { counts: Some(self.counts.told()), ..self.told() }
    }

    fn stands(&self, change: impl FnOnce(&mut Stand)) {
        change(&mut self.stand.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
