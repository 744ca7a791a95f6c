//! The registrar keeps the store equal to what serves on this host: every record under one lease, put and deleted only
//! where it is ours.
//!
//! It is a thin shell around [`desk::Desk`], which decides, and [`jobs`], which ask the store. One job runs at a time
//! and never blocks the loop: while the store hangs, what this host shows and overlays goes on following the probes.

mod desk;
mod jobs;
mod telemetry;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::adopted::Adopted;
use crate::model::advertise::Place;
use crate::model::instance::Offer;
use crate::model::key::Prefix;
use crate::model::local::{DrainState, Local, Overlay};
use crate::model::memory::Resumed;
use crate::model::node::{AgentFacts, NodeRecord};
use crate::model::plan::{Op, Publisher};
use crate::model::record::{Record, Text};
use crate::model::standing::Standings;
use crate::state::StateDir;
use crate::store::{
    Batch, Commit, History, LeaseId, MAX_WRITES, Page, Reach, Revision, Session, Store, StoreError, Watch,
};
use desk::Desk;
use jobs::{Job, Opened, Opening, Outcome};
use telemetry::Metrics;

/// A node record is written at most this often.
const NODE_PAUSE: Duration = Duration::from_secs(5);
/// How often everything below the prefix is looked through for leftovers.
const RECONCILE: Duration = Duration::from_secs(3600);
/// New sessions after a loss spread over this long.
const JITTER: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// How long the store has to end the lease when the agent stops.
const WITHDRAW_DEADLINE: Duration = Duration::from_secs(3);

/// What becomes of the records when the agent stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStop {
    /// They stay for the rest of the lease, for the next agent to take over.
    #[default]
    Keep,
    /// They go at once.
    Withdraw,
}

/// How a registrar is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host's name.
    pub node: Text,
    /// The root of the tree.
    pub prefix: Prefix,
    /// How long records outlive a dead agent.
    pub lease_ttl: Duration,
    /// What becomes of them when it stops.
    pub on_stop: OnStop,
    /// What the node record says of the agent.
    pub agent: AgentFacts,
    /// What [`StateDir::open`] gave to go on from.
    pub resumed: Resumed,
    /// Own records of before the restart as the kept catalog has them, for when the store is away at start.
    pub kept: Vec<Record>,
    /// What chance goes by: new sessions after a loss are spread with it, so it differs from host to host.
    pub seed: u64,
}

/// What the registrar is told.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// What this host means to offer.
    pub offer: watch::Receiver<Arc<Offer>>,
    /// What probes say of it.
    pub standings: watch::Receiver<Arc<Standings>>,
    /// Whether it is withdrawn.
    pub drain: watch::Receiver<DrainState>,
    /// The addresses that the host advertises.
    pub place: watch::Receiver<Arc<Place>>,
}

/// What the registrar tells.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// All that this host shows of itself.
    pub local: watch::Receiver<Arc<Local>>,
    /// What is laid over the catalog.
    pub overlay: watch::Receiver<Arc<Overlay>>,
    /// What was found published at start and not spoken of by a probe since; known once the store has been read.
    pub adopted: watch::Receiver<Arc<Adopted>>,
}

/// Why the registrar ended.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// Another worker has gone.
    #[error("registrar: the {0} is gone")]
    Orphaned(&'static str),
}

/// See the module.
pub struct Registrar {
    settings: Settings,
    store: Arc<dyn Store>,
    state: Arc<StateDir>,
    inputs: Inputs,
    local: watch::Sender<Arc<Local>>,
    overlay: watch::Sender<Arc<Overlay>>,
    adopted: watch::Sender<Arc<Adopted>>,
    reach: watch::Receiver<Reach>,
    history: watch::Receiver<History>,
    metrics: Metrics,
    random: StdRng,
    desk: Desk,
    link: Link,
    node: NodeDesk,
    scan: Scan,
    /// Whether something has changed since the desk was last refreshed, at `refreshed`.
    dirty: bool,
    /// The same of what a watch brought while a job was under way.
    stale: bool,
    refreshed: Instant,
}

/// How the registrar is connected.
#[derive(Default)]
struct Link {
    session: Option<Box<dyn Session>>,
    lost: Option<watch::Receiver<bool>>,
    watch: Option<Box<dyn Watch>>,
    /// Nothing is asked of the store before this.
    rest: Option<Instant>,
    retry: Option<Duration>,
    /// Keys to look at again before the next commit.
    reread: Vec<String>,
    /// Writes of one commit; 1 after the store has refused a larger one, to tell which it minds.
    chunk: usize,
    /// Keys that the next sync asks for besides those of interest.
    found: BTreeSet<String>,
    /// Keys that hung on the lease of before the restart.
    adopting: BTreeSet<String>,
    /// The lease to take over, at the first session only.
    adopt: Option<(LeaseId, Option<u64>)>,
    inherit: Option<LeaseId>,
    retire: Option<LeaseId>,
    /// The history that all of this is of.
    generation: u64,
}

struct NodeDesk {
    key: String,
    wanted: Bytes,
    written: Option<(Bytes, LeaseId)>,
    /// It is not written before this.
    earliest: Instant,
}

/// The search for leftovers of this owner.
#[derive(Default)]
struct Scan {
    due: Option<Instant>,
    place: Option<(String, Revision)>,
}

impl Registrar {
    /// A registrar that publishes to `store` once it runs.
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        state: Arc<StateDir>,
        inputs: Inputs,
        registry: &mut Registry,
    ) -> (Self, Outputs) {
        let owner = settings.resumed.owner.clone();
        let publisher =
            Publisher { node: settings.node.clone(), owner: owner.clone(), prefix: settings.prefix.clone() };
        let kept = settings.kept.iter().filter(|record| record.owner.as_ref() == Some(&owner));
        let adopted = match settings.resumed.lease {
            Some(_) => Adopted::of_records(kept),
            None => Adopted::default(),
        };
        let link = Link {
            adopt: settings.resumed.lease.map(|lease| (lease, settings.resumed.cluster)),
            inherit: settings.resumed.retire,
            chunk: MAX_WRITES,
            generation: store.history().borrow().generation,
            ..Link::default()
        };
        let node = NodeDesk {
            key: settings.prefix.node_key(&settings.node, &owner),
            wanted: Bytes::new(),
            written: None,
            earliest: Instant::now(),
        };
        let (local, local_out) = watch::channel(Arc::default());
        let (overlay, overlay_out) = watch::channel(Arc::default());
        let (adopted_in, adopted_out) = watch::channel(Arc::new(adopted.clone()));
        let registrar = Self {
            reach: store.reach(),
            history: store.history(),
            metrics: Metrics::new(registry),
            random: StdRng::seed_from_u64(settings.seed),
            desk: Desk::new(publisher, adopted),
            scan: Scan { due: Some(Instant::now()), place: None },
            adopted: adopted_in,
            settings,
            store,
            state,
            inputs,
            local,
            overlay,
            link,
            node,
            dirty: true,
            stale: false,
            refreshed: Instant::now(),
        };
        (registrar, Outputs { local: local_out, overlay: overlay_out, adopted: adopted_out })
    }

    /// Publishes until stopped. Then the records stay or go, as set up.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RegistrarError> {
        self.inputs.offer.mark_changed();
        self.inputs.standings.mark_changed();
        self.inputs.drain.mark_changed();
        self.inputs.place.mark_changed();
        self.reach.mark_changed();
        let mut job: Option<Job> = None;
        loop {
            if std::mem::replace(&mut self.dirty, true)
                || (self.stale && job.is_none())
                || self.desk.overlay_due(self.refreshed).is_some()
            {
                self.refresh();
            }
            if job.is_none() {
                job = self.next_job();
            }
            let next = self.next_timer(job.is_some());
            tokio::select! {
                // Told to stop comes first: the other workers end then too, and that is no reason to complain.
                biased;
                () = stop.cancelled() => break,
                changed = self.inputs.drain.changed() => {
                    changed.map_err(|_| RegistrarError::Orphaned("drain switch"))?;
                    self.desk.drain = *self.inputs.drain.borrow_and_update();
                }
                changed = self.inputs.offer.changed() => {
                    changed.map_err(|_| RegistrarError::Orphaned("inventory"))?;
                    self.desk.offer = Arc::clone(&self.inputs.offer.borrow_and_update());
                }
                changed = self.inputs.standings.changed() => {
                    changed.map_err(|_| RegistrarError::Orphaned("probe fleet"))?;
                    self.desk.standings = Arc::clone(&self.inputs.standings.borrow_and_update());
                }
                changed = self.inputs.place.changed() => {
                    changed.map_err(|_| RegistrarError::Orphaned("inventory"))?;
                    self.settings.agent.addresses = self.inputs.place.borrow_and_update().addresses().collect();
                }
                Ok(()) = self.reach.changed() => self.on_reach(),
                Ok(()) = self.history.changed() => {
                    // What was asked of the store as it was has no answer in the one there is now.
                    if self.on_history() {
                        job = None;
                    }
                }
                () = lost(&mut self.link.lost) => self.on_lost("it ended in the store"),
                outcome = running(&mut job) => {
                    job = None;
                    self.on_outcome(outcome);
                }
                batch = next_batch(&mut self.link.watch) => {
                    self.on_batch(batch);
                    // Mostly it is the echo of the commit under way, whose outcome brings the desk up to date.
                    self.stale |= self.dirty;
                    self.dirty &= job.is_none();
                }
                () = sleep_until(next) => {}
            }
        }
        drop(job);
        self.leave().await;
        Ok(())
    }

    /// Brings the desk up to date and tells others what changed.
    fn refresh(&mut self) {
        let now = Instant::now();
        (self.refreshed, self.stale) = (now, false);
        self.desk.refresh(now);
        let local = self.desk.local();
        self.metrics.show(&local);
        self.node.wanted = NodeRecord::of(&local, &self.settings.agent).encode().into();
        send_changed(&self.local, local);
        send_changed(&self.overlay, self.desk.overlay(now));
        if **self.adopted.borrow() != self.desk.adopted {
            self.adopted.send_replace(Arc::new(self.desk.adopted.clone()));
        }
    }

    /// What is to be asked of the store next.
    fn next_job(&mut self) -> Option<Job> {
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
            return Some(jobs::sync(store, self.settings.prefix.below(), keys));
        }
        if !self.link.reread.is_empty() {
            return Some(jobs::reread(store, std::mem::take(&mut self.link.reread)));
        }
        let lease = self.desk.lease;
        if !self.desk.ops.is_empty() {
            let ops: Vec<Op> = self.desk.ops.iter().take(self.link.chunk).cloned().collect();
            return Some(jobs::commit(store, ops, lease));
        }
        if self.node.due(lease).is_some_and(|due| due <= now) {
            return Some(jobs::node(store, self.node.key.clone(), self.node.wanted.clone(), lease));
        }
        if self.scan.due.is_some_and(|due| due <= now) {
            return Some(jobs::scan(store, &self.settings.prefix, self.scan.place.clone()));
        }
        self.link.retire.filter(|_| self.desk.offer.listed).map(|lease| jobs::retire(store, lease))
    }

    /// When something is due with no event.
    fn next_timer(&self, busy: bool) -> Option<Instant> {
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

    fn on_reach(&mut self) {
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
    fn on_history(&mut self) -> bool {
        let history = *self.history.borrow_and_update();
        if history.generation == self.link.generation {
            return false;
        }
        self.link.generation = history.generation;
        tracing::warn!(
            cluster = history.cluster,
            "the store went back in its history or is another one, publishing anew"
        );
        self.desk.view.clear();
        self.scan = Scan { due: Some(Instant::now()), place: None };
        self.on_lost("the store is another one");
        true
    }

    fn on_lost(&mut self, why: &'static str) {
        if self.link.session.take().is_none() {
            return;
        }
        tracing::warn!(lease = format_args!("{:x}", self.desk.lease), why, "lease lost, publishing under a new one");
        self.metrics.lost.inc();
        self.desk.doubted = Some(Instant::now());
        self.link.lost = None;
        self.link.watch = None;
        self.link.adopt = None;
        self.desk.lease = 0;
        self.node.written = None;
        self.link.rest = Some(Instant::now() + JITTER.mul_f64(self.random.random::<f64>()));
    }

    fn on_batch(&mut self, batch: Result<Batch, StoreError>) {
        match batch {
            Ok(batch) => {
                self.dirty = self.desk.batch(&batch);
            }
            Err(error) => {
                self.link.watch = None;
                if !matches!(error, StoreError::Away { .. }) {
                    tracing::info!(%error, "watch ended, reading own keys again");
                    self.scan = Scan { due: Some(Instant::now()), place: None };
                }
                self.pause();
            }
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Session(result) => self.on_session(result),
            Outcome::Synced { asked, result } => self.on_synced(&asked, result),
            Outcome::Committed { ops, lease, result } => self.on_committed(&ops, lease, result),
            Outcome::Reread { asked, result } => match result {
                Ok(page) => self.desk.read(&asked, &page),
                Err(error) => self.on_error(&error),
            },
            Outcome::Node { value, lease, result } => match result {
                Ok(_) => {
                    self.metrics.node_writes.inc();
                    (self.node.written, self.node.earliest) = (Some((value, lease)), Instant::now() + NODE_PAUSE);
                }
                Err(error) => self.on_error(&error),
            },
            Outcome::Scanned(result) => self.on_scanned(result),
            Outcome::Retired { lease, result } => self.on_retired(lease, result),
        }
    }

    fn on_session(&mut self, result: Result<Opened, StoreError>) {
        let opened = match result {
            Ok(opened) => opened,
            Err(error) => return self.on_error(&error),
        };
        let lease = opened.session.lease();
        let (granted, adopted) = (opened.session.granted(), opened.session.adopted());
        tracing::info!(lease = format_args!("{lease:x}"), ?granted, adopted, "session open");
        self.metrics.sessions.inc();
        self.desk.lease = lease;
        self.desk.granted = granted;
        self.link.lost = Some(opened.session.lost());
        self.link.session = Some(opened.session);
        self.link.watch = None;
        self.link.found.extend(opened.found.iter().cloned());
        self.link.adopting = opened.found.into_iter().collect();
        self.link.retire = opened.retire;
        (self.link.adopt, self.link.inherit, self.link.retry) = (None, None, None);
    }

    fn on_synced(&mut self, asked: &[String], result: Result<(Page, Box<dyn Watch>), StoreError>) {
        match result {
            Ok((page, watch)) => {
                self.desk.adopt(&std::mem::take(&mut self.link.adopting), &page);
                self.link.found.clear();
                self.desk.read(asked, &page);
                self.link.watch = Some(watch);
                (self.link.reread, self.link.retry) = (Vec::new(), None);
            }
            Err(error) => self.on_error(&error),
        }
    }

    fn on_committed(&mut self, ops: &[Op], lease: LeaseId, result: Result<Commit, StoreError>) {
        match result {
            Ok(Commit::Done(revision)) => {
                self.metrics.writes.inc_by(ops.len() as u64);
                self.desk.view.committed(ops, lease, revision);
                self.desk.written = revision;
                self.link.retry = None;
                self.link.chunk = MAX_WRITES;
            }
            Ok(Commit::Refused(_)) => {
                self.metrics.refused.inc();
                self.link.reread = ops.iter().map(|op| op.key.clone()).collect();
            }
            Err(StoreError::Refused { tried, why }) => {
                tracing::warn!(?tried, ?why, key = ?ops.first().map(|op| &op.key), "the store refuses a write");
                self.link.chunk = 1;
                self.pause();
            }
            Err(error) => {
                // It may have been made or not: only reading tells, also of keys that nobody wants any more by then.
                self.link.found.extend(ops.iter().map(|op| op.key.clone()));
                self.link.watch = None;
                self.on_error(&error);
            }
        }
    }

    fn on_scanned(&mut self, result: Result<Page, StoreError>) {
        match result {
            Ok(page) => {
                self.desk.found(&page);
                let last = page.items.last().map(|item| item.key.clone());
                self.scan.place = last.filter(|_| page.more).map(|last| (last, page.revision));
                if self.scan.place.is_none() {
                    self.scan.due = Some(Instant::now() + RECONCILE);
                }
            }
            Err(error) => {
                self.scan.place = None;
                self.on_error(&error);
            }
        }
    }

    fn on_retired(&mut self, lease: LeaseId, result: Result<(), StoreError>) {
        match result {
            Err(error @ StoreError::Away { .. }) => self.on_error(&error),
            Err(StoreError::NoLease(_)) | Ok(()) => self.link.retire = None,
            Err(error) => {
                tracing::warn!(lease = format_args!("{lease:x}"), %error, "old lease cannot be ended, it runs out by itself");
                self.link.retire = None;
            }
        }
    }

    fn on_error(&mut self, error: &StoreError) {
        tracing::debug!(?error, "store call failed");
        match error {
            StoreError::NoLease(lease) if *lease == self.desk.lease => self.on_lost("the store does not know it"),
            StoreError::Refused { .. } => tracing::warn!(%error, "the store refuses"),
            _ => {}
        }
        self.pause();
    }

    /// Waits before the next job, longer each time.
    fn pause(&mut self) {
        let pause = self.link.retry.map_or(FIRST_RETRY, |last| (last * 2).min(LAST_RETRY));
        self.link.retry = Some(pause);
        let rest = Instant::now() + pause;
        self.link.rest = Some(self.link.rest.map_or(rest, |earlier| earlier.max(rest)));
    }

    /// Keeps or withdraws the records as the agent stops.
    async fn leave(mut self) {
        let keep = self.settings.on_stop == OnStop::Keep && self.state.writable();
        let lease = self.desk.lease;
        if keep || lease == 0 {
            return;
        }
        match tokio::time::timeout(WITHDRAW_DEADLINE, self.store.revoke(lease)).await {
            Ok(Ok(())) => tracing::info!("records withdrawn"),
            Ok(Err(error)) => tracing::warn!(%error, "records cannot be withdrawn, they stay until the lease ends"),
            Err(_) => tracing::warn!("records cannot be withdrawn in time, they stay until the lease ends"),
        }
        self.link.session = None;
    }
}

impl NodeDesk {
    /// When the record is to be written, if it differs from what stands.
    fn due(&self, lease: LeaseId) -> Option<Instant> {
        let stands = self.written.as_ref().is_some_and(|(value, on)| *value == self.wanted && *on == lease);
        (!stands && lease != 0).then_some(self.earliest)
    }
}

fn send_changed<T: PartialEq>(sender: &watch::Sender<Arc<T>>, value: T) {
    if **sender.borrow() != value {
        sender.send_replace(Arc::new(value));
    }
}

async fn running(job: &mut Option<Job>) -> Outcome {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

async fn next_batch(watch: &mut Option<Box<dyn Watch>>) -> Result<Batch, StoreError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Returns when the lease is lost.
async fn lost(lost: &mut Option<watch::Receiver<bool>>) {
    match lost {
        // A session that went without a word is lost as well.
        Some(lost) => drop(lost.wait_for(|lost| *lost).await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
