//! The registrar keeps the store equal to what serves on this host: every record under one lease, put and deleted only
//! where it is ours.
//!
//! It is a thin shell around [`desk::Desk`], which decides, and [`jobs`], which ask the store: [`link`] says which is
//! next, [`outcome`] what comes of it. One job runs at a time and never blocks the loop: while the store hangs, what
//! this host shows and overlays goes on following the probes.

mod desk;
mod jobs;
mod link;
mod node;
mod outcome;
mod telemetry;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::health::adopted::Adopted;
use crate::model::health::standing::Standings;
use crate::model::offer::advertise::Place;
use crate::model::offer::instance::Offer;
use crate::model::publish::local::{DrainState, Local, Overlay};
use crate::model::publish::maintenance::Maintenance;
use crate::model::publish::memory::Resumed;
use crate::model::publish::node::AgentFacts;
use crate::model::publish::pace::rest_after;
use crate::model::publish::plan::Publisher;
use crate::model::steer::ordinal::told as ordinal;
use crate::model::words::key::Prefix;
use crate::model::words::node::NodeRecord;
use crate::model::words::record::{Record, Text};
use crate::model::words::trouble::Trouble;
use crate::state::StateDir;
use crate::store::{History, Reach, Store};
use desk::Desk;
use jobs::Job;
use link::{Link, Scan, lost, next_batch, running, sleep_until};
use node::NodeDesk;
use telemetry::Metrics;

/// How often everything below the prefix is looked through for leftovers.
const RECONCILE: Duration = Duration::from_secs(3600);
/// New sessions after a loss spread over this long.
const JITTER: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// How often it is shown how far a long row of commits has got.
const PROGRESS: Duration = Duration::from_millis(250);
/// How long the store has to delete the records when the agent stops,
const DELETE_DEADLINE: Duration = Duration::from_millis(1500);
/// and to end the lease then.
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
    /// What of it is withdrawn one by one, and by whose word.
    pub parts: watch::Receiver<Arc<Maintenance>>,
    /// The addresses that the host advertises.
    pub place: watch::Receiver<Arc<Place>>,
    /// How the host stands with its numbers.
    pub ordinals: watch::Receiver<Arc<ordinal::Standings>>,
}

impl Inputs {
    /// Returns when there is anything new.
    async fn changed(&mut self) -> Result<(), RegistrarError> {
        let (changed, of) = tokio::select! {
            biased;
            changed = self.drain.changed() => (changed, "drain switch"),
            changed = self.parts.changed() => (changed, "drain switch"),
            changed = self.offer.changed() => (changed, "inventory"),
            changed = self.standings.changed() => (changed, "probe fleet"),
            changed = self.place.changed() => (changed, "inventory"),
            changed = self.ordinals.changed() => (changed, "ordinals"),
        };
        changed.map_err(|_| RegistrarError::Orphaned(of))
    }
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

/// The worker that keeps what this host offers in the store.
pub struct Registrar {
    settings: Settings,
    store: Arc<dyn Store>,
    state: Arc<StateDir>,
    inputs: Inputs,
    local: watch::Sender<Arc<Local>>,
    overlay: watch::Sender<Arc<Overlay>>,
    adopted: watch::Sender<Arc<Adopted>>,
    reach: watch::Receiver<Reach>,
    trouble: watch::Receiver<Option<Trouble>>,
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
    /// Own commits have been made since, of which nothing follows but that they stand.
    progress: bool,
    refreshed: Instant,
    /// Until then what is new waits: a refresh takes as long as there are records, so in a flood of news at most every
    /// other moment is spent on it.
    rested: Instant,
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
        let publisher = Publisher {
            node: settings.node.clone(),
            owner: owner.clone(),
            prefix: settings.prefix.clone(),
            site: settings.agent.site.clone(),
        };
        let kept = settings.kept.iter().filter(|record| record.owner.as_ref() == Some(&owner));
        let adopted = match settings.resumed.lease {
            Some(_) => Adopted::of_records(kept),
            None => Adopted::default(),
        };
        let link = Link::new(&settings.resumed, store.history().borrow().generation);
        let node = NodeDesk::new(settings.prefix.node_key(&settings.node, &owner));
        let (local, local_out) = watch::channel(Arc::default());
        let (overlay, overlay_out) = watch::channel(Arc::default());
        let (adopted_in, adopted_out) = watch::channel(Arc::new(adopted.clone()));
        let registrar = Self {
            reach: store.reach(),
            trouble: store.trouble(),
            history: store.history(),
            metrics: Metrics::new(registry),
            random: StdRng::seed_from_u64(settings.seed),
            desk: Desk::new(publisher, adopted, settings.resumed.lease.is_some()),
            scan: Scan::now(),
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
            progress: false,
            refreshed: Instant::now(),
            rested: Instant::now(),
        };
        (registrar, Outputs { local: local_out, overlay: overlay_out, adopted: adopted_out })
    }

    /// Publishes until stopped. Then the records stay or go, as set up.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RegistrarError> {
        self.take_inputs();
        self.reach.mark_changed();
        let mut job: Option<Job> = None;
        loop {
            if self.refresh_at(job.is_some()).is_some_and(|at| at <= Instant::now()) {
                self.refresh();
            }
            // What is planned may be of before the news: it is worked out anew first.
            if job.is_none() && !self.has_news(false) {
                job = self.next_job();
            }
            let next = self.next_timer(job.is_some()).into_iter().chain(self.refresh_at(job.is_some())).min();
            let was_dirty = std::mem::replace(&mut self.dirty, true);
            tokio::select! {
                // Told to stop comes first: the other workers end then too, and that is no reason to complain.
                biased;
                () = stop.cancelled() => break,
                changed = self.inputs.changed() => {
                    changed?;
                    self.take_inputs();
                }
                Ok(()) = self.reach.changed() => self.on_reach(),
                Ok(()) = self.trouble.changed() => self.desk.trouble = self.trouble.borrow_and_update().clone(),
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
                    let news = self.on_batch(batch);
                    // Mostly it is of the commit under way, whose outcome brings the desk up to date.
                    self.stale |= news;
                    self.dirty = news && job.is_none();
                }
                batch = next_batch(&mut self.link.node_watch) => {
                    self.on_node_batch(batch);
                    self.dirty = false;
                }
                () = sleep_until(next) => {}
            }
            self.dirty |= was_dirty;
        }
        drop(job);
        self.leave().await;
        Ok(())
    }

    /// Puts the latest of what the registrar is told on the desk.
    fn take_inputs(&mut self) {
        let drain = *self.inputs.drain.borrow_and_update();
        if std::mem::replace(&mut self.desk.drain, drain) != drain {
            self.rested = Instant::now();
        }
        let parts = Arc::clone(&self.inputs.parts.borrow_and_update());
        if std::mem::replace(&mut self.desk.parts, Arc::clone(&parts)) != parts {
            self.rested = Instant::now();
        }
        self.desk.offer = Arc::clone(&self.inputs.offer.borrow_and_update());
        self.desk.standings = Arc::clone(&self.inputs.standings.borrow_and_update());
        let place = self.inputs.place.borrow_and_update();
        self.settings.agent.addresses = place.addresses().collect();
        self.settings.agent.ordinals = ordinal::numbers(&self.inputs.ordinals.borrow_and_update());
        self.desk.addresses_unread = place.unread_since;
        self.desk.addresses_remembered.clone_from(&place.remembered);
    }

    fn has_news(&self, busy: bool) -> bool {
        let after_the_job = self.stale || self.desk.overtaken();
        self.dirty || (after_the_job && !busy) || (self.progress && self.desk.ops.is_empty())
    }

    /// When the desk is to be brought up to date, if nothing else happens before.
    fn refresh_at(&self, busy: bool) -> Option<Instant> {
        let at = match self.has_news(busy) {
            true => Some(self.rested),
            false => self.progress.then(|| self.refreshed + PROGRESS),
        };
        at.into_iter().chain(self.desk.overlay_due(self.refreshed)).min()
    }

    /// Brings the desk up to date and tells others what changed.
    fn refresh(&mut self) {
        self.work_out();
        (self.dirty, self.stale, self.progress) = (false, false, false);
        self.rested = Instant::now() + rest_after(self.refreshed.elapsed());
    }

    fn work_out(&mut self) {
        let now = Instant::now();
        self.refreshed = now;
        self.desk.known = self.link.watch.is_some() && self.scan.is_over(now);
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

    /// Keeps or withdraws the records as the agent stops.
    async fn leave(mut self) {
        let keep = self.settings.on_stop == OnStop::Keep && self.state.writable();
        if keep || self.desk.lease == 0 {
            return;
        }
        // Deleted under a living lease they are known to be withdrawn; what goes with its lease may be a loss of the
        // store's, and is held and answered on by others.
        if tokio::time::timeout(DELETE_DEADLINE, self.delete_own()).await.is_err() {
            tracing::warn!("records cannot be deleted in time, they go with the lease");
        }
        let lease = self.desk.lease;
        match tokio::time::timeout(WITHDRAW_DEADLINE, self.store.revoke(lease)).await {
            Ok(Ok(())) => tracing::info!("records withdrawn"),
            Ok(Err(error)) => tracing::warn!(%error, "records cannot be withdrawn, they stay until the lease ends"),
            Err(_) => tracing::warn!("records cannot be withdrawn in time, they stay until the lease ends"),
        }
        self.link.session = None;
    }

    /// Deletes every record of this owner.
    async fn delete_own(&mut self) {
        self.desk.drain = DrainState::ShuttingDown { since: SystemTime::now() };
        self.refresh();
        while !self.desk.ops.is_empty() && self.desk.lease != 0 {
            match self.next_job() {
                Some(job) => self.on_outcome(job.await),
                None => sleep_until(self.link.rest).await,
            }
            self.refresh();
        }
    }
}

fn send_changed<T: PartialEq>(sender: &watch::Sender<Arc<T>>, value: T) {
    if **sender.borrow() != value {
        sender.send_replace(Arc::new(value));
    }
}
