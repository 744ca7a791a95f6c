//! How the registrar is connected: what it asks of the store next, when something is due without an event, and what
//! the store's coming, going and changing mean.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::desk::Heard;
use super::jobs::{self, Job, Opening, Outcome};
use super::{JITTER, Registrar};
use crate::model::publish::local::DrainState;
use crate::model::publish::memory::Resumed;
use crate::model::publish::op;
use crate::store::{Batch, LeaseId, MAX_WRITES, Reach, Revision, Session, StoreError, Watch};

/// How the registrar is connected.
#[derive(Default)]
pub(super) struct Link {
    pub(super) session: Option<Session>,
    pub(super) lost: Option<watch::Receiver<bool>>,
    pub(super) watch: Option<Box<dyn Watch>>,
    /// The watch of the node record.
    pub(super) node_watch: Option<Box<dyn Watch>>,
    /// Nothing is asked of the store before this.
    pub(super) rest: Option<Instant>,
    pub(super) retry: Option<Duration>,
    /// Keys to look at again before the next commit.
    pub(super) reread: Vec<String>,
    /// The last commit was refused: another one in a row waits.
    pub(super) refused: bool,
    /// Writes of one commit; 1 after the store has refused a larger one, to tell which it minds.
    pub(super) chunk: usize,
    /// Keys that the next sync asks for besides those of interest.
    pub(super) found: BTreeSet<String>,
    /// Keys that hung on the lease of before the restart.
    pub(super) adopting: BTreeSet<String>,
    /// The lease to take over, at the first session only.
    pub(super) adopt: Option<(LeaseId, Option<u64>)>,
    pub(super) inherit: Option<LeaseId>,
    pub(super) retire: Option<LeaseId>,
    /// The history that all of this is of.
    pub(super) generation: u64,
}

/// The search for leftovers of this owner.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) due: Option<Instant>,
    pub(super) place: Option<(String, Revision)>,
}

impl Link {
    /// Not connected yet, with what is remembered of before.
    pub(super) fn new(resumed: &Resumed, generation: u64) -> Self {
        Self {
            adopt: resumed.lease.map(|lease| (lease, resumed.cluster)),
            inherit: resumed.retire,
            chunk: MAX_WRITES,
            generation,
            ..Self::default()
        }
    }

    /// Reads own keys again before anything else is done.
    pub(super) fn unwatch(&mut self) {
        (self.watch, self.node_watch) = (None, None);
    }
}

impl Scan {
    /// From the beginning, at once.
    pub(super) fn now() -> Self {
        Self { due: Some(Instant::now()), place: None }
    }

    /// Whether everything has been looked through.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.place.is_none() && self.due.is_some_and(|due| due > now)
    }
}

impl Registrar {
    /// What is to be asked of the store next.
    pub(super) fn next_job(&mut self) -> Option<Job> {
        let now = Instant::now();
        if self.link.rest.is_some_and(|rest| rest > now) {
            return None;
        }
        self.link.rest = None;
        // The pages of a scan are all of the time when it began.
        if self.scan.place.is_none() {
            self.desk.view.read_begins();
        }
        let store = Arc::clone(&self.store);
        if self.link.session.is_none() {
            return Some(jobs::open(Opening {
                store,
                state: Arc::clone(&self.state),
                ttl: self.settings.lease_ttl,
                adopt: self.link.adopt,
                inherit: self.link.inherit,
                probe: self.node.key.clone(),
            }));
        }
        if self.link.watch.is_none() {
            let keys = self.desk.interest().into_iter().chain(self.link.found.iter().cloned()).collect();
            return Some(jobs::sync(store, self.settings.prefix.below(), keys, self.node.key.clone()));
        }
        if !self.link.reread.is_empty() {
            return Some(jobs::reread(store, std::mem::take(&mut self.link.reread)));
        }
        let lease = self.desk.lease;
        if !self.desk.ops.is_empty() {
            let ops = op::together(&self.desk.ops, self.link.chunk, MAX_WRITES).to_vec();
            return Some(jobs::commit(store, ops, lease));
        }
        if self.node.due(lease).is_some_and(|due| due <= now) {
            return Some(jobs::node(store, self.node.key.clone(), self.node.wanted.clone(), lease));
        }
        if self.scan.due.is_some_and(|due| due <= now) {
            return Some(jobs::scan(store, &self.settings.prefix, self.scan.place.clone()));
        }
        let new_ones_stand = self.desk.offer.listed || self.desk.drain != DrainState::Offering;
        self.link.retire.filter(|_| new_ones_stand).map(|lease| jobs::retire(store, lease))
    }

    /// When something is due with no event.
    pub(super) fn next_timer(&self, busy: bool) -> Option<Instant> {
        let now = Instant::now();
        let overlay = self.desk.overlay_due(now);
        if busy {
            return overlay;
        }
        if self.link.rest.is_some() {
            return self.link.rest.into_iter().chain(overlay).min();
        }
        let node = self.node.due(self.desk.lease);
        overlay.into_iter().chain(node).chain(self.scan.due).min()
    }

    pub(super) fn on_reach(&mut self) {
        let reach = *self.reach.borrow_and_update();
        if reach == Reach::There && self.desk.reach == Reach::Away {
            self.desk.doubted = Some(Instant::now());
            // It is back: no reason to wait out the rest of a pause, unless the pause spreads new sessions.
            self.link.retry = None;
            if self.link.session.is_some() {
                self.link.rest = None;
            }
        }
        self.desk.reach = reach;
    }

    /// The store is another one, or went back: nothing seen before counts.
    pub(super) fn on_history(&mut self) -> bool {
        let history = *self.history.borrow_and_update();
        if history.generation == self.link.generation {
            return false;
        }
        self.link.generation = history.generation;
        tracing::warn!(
            cluster = history.cluster,
            "the store went back in its history or is another one, publishing anew"
        );
        self.desk.forget(Instant::now());
        self.scan = Scan::now();
        self.on_lost("the store is another one");
        true
    }

    pub(super) fn on_lost(&mut self, why: &'static str) {
        if self.link.session.take().is_none() {
            return;
        }
        tracing::warn!(lease = format_args!("{:x}", self.desk.lease), why, "lease lost, publishing under a new one");
        self.metrics.lost.inc();
        self.desk.lost += 1;
        self.desk.doubted = Some(Instant::now());
        self.link.lost = None;
        self.link.unwatch();
        self.link.adopt = None;
        self.desk.lease = 0;
        self.node.lost();
        self.link.rest = Some(Instant::now() + JITTER.mul_f64(self.random.random::<f64>()));
    }

    /// Says whether what is shown and planned is to be worked out anew.
    pub(super) fn on_batch(&mut self, batch: Result<Batch, StoreError>) -> bool {
        match batch.map(|batch| self.desk.batch(&batch)) {
            Ok(heard) => {
                self.progress |= heard == Heard::Echo;
                heard == Heard::News
            }
            Err(error) => {
                self.on_watch_ended(&error);
                true
            }
        }
    }

    pub(super) fn on_node_batch(&mut self, batch: Result<Batch, StoreError>) {
        // The desk knows nothing of the node record.
        match batch {
            Ok(batch) => self.node.batch(&batch),
            Err(error) => self.on_watch_ended(&error),
        }
    }

    fn on_watch_ended(&mut self, error: &StoreError) {
        self.link.unwatch();
        if !matches!(error, StoreError::Away { .. }) {
            tracing::info!(%error, "watch ended, reading own keys again");
            self.scan = Scan::now();
        }
        self.pause();
    }
}

/// Returns when the job is done; never without one.
pub(super) async fn running(job: &mut Option<Job>) -> Outcome {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

/// Returns with the watch's next word; never without one.
pub(super) async fn next_batch(watch: &mut Option<Box<dyn Watch>>) -> Result<Batch, StoreError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Returns when the lease is lost; never without one.
pub(super) async fn lost(lost: &mut Option<watch::Receiver<bool>>) {
    match lost {
        // A session that went without a word is lost as well.
        Some(lost) => drop(lost.wait_for(|lost| *lost).await),
        None => std::future::pending().await,
    }
}

/// Returns when it is time; never without one.
pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
