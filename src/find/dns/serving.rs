//! What the threads and tasks of the server share: the rules, the view of the catalog, the counters, and the way to the
//! forwarder.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::forward::Job;
use super::metrics::Metrics;
use super::rules::Rules;
use crate::find::view::CatalogView;

/// Questions that may wait for an answer from elsewhere.
pub(super) const ELSEWHERE: usize = 4_096;
/// Those on their way to the forwarder.
const UNDER_WAY: usize = 1_024;

/// Shared by everything that answers.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) rules: Rules,
    pub(super) metrics: Arc<Metrics>,
    pub(super) view: CatalogView,
    /// Questions for the forwarder. When it is full they are answered with SERVFAIL.
    pub(super) forwarder: mpsc::Sender<Job>,
    /// A place for each question that waits for an answer from elsewhere.
    pub(super) elsewhere: Semaphore,
}

impl Serving {
    /// With the end that the forwarder reads.
    pub(super) fn new(rules: Rules, metrics: Arc<Metrics>, view: CatalogView) -> (Arc<Self>, mpsc::Receiver<Job>) {
        let (forwarder, jobs) = mpsc::channel(UNDER_WAY);
        (Arc::new(Self { rules, metrics, view, forwarder, elsewhere: Semaphore::new(ELSEWHERE) }), jobs)
    }
}
