//! What the threads and tasks of the server share: the rules, the view of the catalog, the counters, and the way to the
//! forwarder.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::forward::{Job, Shares, TOGETHER};
use super::metrics::Metrics;
use super::order::Order;
use super::rules::Rules;
use crate::view::CatalogView;

/// Shared by everything that answers.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) rules: Rules,
    pub(super) metrics: Arc<Metrics>,
    pub(super) view: CatalogView,
    /// Questions for the forwarder. There is room for as many as there are shares.
    pub(super) forwarder: mpsc::Sender<Job>,
    /// Who may have a question answered elsewhere.
    pub(super) shares: Arc<Shares>,
    /// Which answer comes first.
    pub(super) order: Order,
}

impl Serving {
    /// With the end that the forwarder reads.
    pub(super) fn new(rules: Rules, metrics: Arc<Metrics>, view: CatalogView) -> (Arc<Self>, mpsc::Receiver<Job>) {
        let (forwarder, jobs) = mpsc::channel(TOGETHER);
        let shares = Shares::counted(metrics.waiting.clone());
        (Arc::new(Self { rules, metrics, view, forwarder, shares, order: Order::new() }), jobs)
    }
}
