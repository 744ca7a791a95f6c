//! Keeps the catalog in step with the store, and hands out a snapshot after every change.
//!
//! Three things are laid over what the store says: staleness while it cannot be read, records held when it returns
//! with less than it had, and this host's own records while they are not confirmed. The store's word always comes
//! last: nothing here is written back.

mod asking;
mod chores;
mod contested;
mod fold;
mod heads;
mod lately;
mod layouts;
mod leases;
mod overlay;
mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::asking::{Asked, ask};
use self::chores::Chores;
use self::contested::Contested;
use self::fold::Fold;
use self::heads::HeadsHere;
use self::layouts::LayoutsHere;
use self::leases::Desk;
use self::overlay::overlaid;
use self::source::{Feed, Source};
use super::gauges::Gauges;
use super::keep::{self, Keep};
use crate::catalog::fold::hold;
use crate::catalog::index::{Catalog, Laid, LeaseId, MAX_RECORDS};
use crate::follow::nodes::Hosts;
use crate::model::publish::local::Overlay;
use crate::model::publish::pace::rest_after;
use crate::model::steer::names::Heads;
use crate::model::words::{key::Prefix, record::Text};
use crate::store::{Reach, Store};
use crate::view::{CatalogView, Outlet, Progress};

/// Feeds taken in before a snapshot is handed out, when many wait.
const TOGETHER: usize = 64;

/// How long the store is given to speak first. The kept catalog lacks what was published in the last seconds before the
/// agent ended, and to answer from it what the store would have told a moment later is to deny what serves.
const FIRST_WORD: Duration = Duration::from_millis(300);

/// What the mirror is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The trees to keep, none below another (see [`crate::model::words::zone::Zones::prefixes`]).
    pub prefixes: Vec<Prefix>,
    /// This host's name.
    pub node: Text,
    /// This agent's owner, whose records are held only while it offers them.
    pub owner: Text,
    /// How long a held record stays when nobody publishes it, where its own lease's time is not known.
    pub lease_ttl: Duration,
}

/// Why the mirror ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The task that reads the store is gone.
    #[error("reading the store ended")]
    Source,
}

/// The worker that keeps the catalog.
#[derive(Debug)]
pub struct Mirror {
    settings: Settings,
    max_records: usize,
    store: Arc<dyn Store>,
    overlay: watch::Receiver<Arc<Overlay>>,
    outlet: Outlet,
    served: mpsc::Receiver<LeaseId>,
    gauges: Gauges,
    keep: Option<Keep>,
    fold: Fold,
    desk: Desk,
    /// When to make a little order in what deleted records left behind, and when to list for those left out.
    chores: Chores,
    progress: Progress,
    /// Until when the kept catalog is not shown yet.
    holding: Option<Duration>,
    in_step: bool,
    reach: Reach,
    stale_since: Option<Duration>,
    /// When the store came back from being away.
    returned: Option<Duration>,
    was_away: bool,
    contested: Contested,
    heads: HeadsHere,
    layouts: LayoutsHere,
    /// What the registrar said last.
    said: Arc<Overlay>,
    /// What is laid over the catalog, while something is.
    laid: Option<Arc<Overlay>>,
    /// Until then what is new waits for the next turn of handing out: what is laid over takes as long to show as this
    /// host has records.
    rested: Duration,
    /// Whether something waits.
    unshown: bool,
}

impl Mirror {
    /// A mirror of the store's records with a reader of what it keeps. `keep` is the file that the catalog is kept in.
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        overlay: watch::Receiver<Arc<Overlay>>,
        keep: Option<PathBuf>,
        registry: &mut Registry,
    ) -> (Self, CatalogView) {
        let (outlet, view, served) = CatalogView::open();
        let layouts = LayoutsHere::new(settings.prefixes.clone());
        let mirror = Self {
            fold: Fold::new(settings.prefixes.clone(), settings.owner.clone(), settings.lease_ttl),
            settings,
            max_records: MAX_RECORDS,
            store,
            overlay,
            outlet,
            served,
            gauges: Gauges::register(registry),
            keep: keep.map(Keep::new),
            desk: Desk::default(),
            chores: Chores::default(),
            progress: Progress::Nothing,
            holding: None,
            in_step: false,
            reach: Reach::Unknown,
            stale_since: Some(Duration::ZERO),
            returned: None,
            was_away: false,
            contested: Contested::default(),
            heads: HeadsHere::default(),
            layouts,
            said: Arc::default(),
            laid: None,
            rested: Duration::ZERO,
            unshown: false,
        };
        (mirror, view)
    }

    /// The same with another bound than [`MAX_RECORDS`] of the records kept.
    pub fn at_most(mut self, records: usize) -> Self {
        self.max_records = records;
        self.fold.start_from(self.empty());
        self
    }

    /// The same with role names that go by the topologies of the services below `prefix`, and with what hosts say of
    /// themselves.
    pub fn naming(mut self, prefix: Prefix, heads: watch::Receiver<Arc<Heads>>, hosts: Hosts) -> Self {
        self.heads = HeadsHere::new(prefix, heads).among(hosts);
        self
    }

    /// The same with what is followed elsewhere laid over the records.
    pub fn laying(mut self, elsewhere: Vec<watch::Receiver<Arc<Laid>>>) -> Self {
        self.layouts = std::mem::take(&mut self.layouts).with(elsewhere);
        self
    }

    fn empty(&self) -> Catalog {
        Catalog::bounded(&self.settings.prefixes, self.max_records)
    }

    /// Keeps the catalog until told to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), MirrorError> {
        self.warm_up().await;
        let (source, mut fed) =
            Source::new(self.store.clone(), self.settings.prefixes.clone(), self.chores.list_again());
        let mut reading = JoinSet::new();
        reading.spawn(source.run());
        let mut reach = self.store.reach();
        self.reach = *reach.borrow_and_update();
        self.was_away = self.reach == Reach::Away;
        let mut asking: OptionFuture<BoxFuture<'static, Asked>> = None.into();
        let mut history = self.store.history();
        loop {
            let now = self.outlet.clock().now();
            let wake = self.wake(now);
            let may_ask = self.next_lease(now);
            if let Some(lease) = may_ask {
                let doubtful = self.fold.holds().doubtful().contains(&lease);
                asking = Some(ask(self.store.clone(), lease, doubtful)).into();
            }
            tokio::select! {
                // In a fixed order, what is rare and what has waited first: no stream of changes can starve the rest.
                biased;
                () = stop.cancelled() => break,
                Ok(()) = self.overlay.changed() => {
                    if self.listen() && (self.holding.is_none() || self.said.active) {
                        self.publish_in_turn();
                    }
                }
                () = self.heads.changed() => {
                    let now = self.outlet.clock().now();
                    self.heads.take_in(&mut self.fold, now);
                    if self.holding.is_none() && self.progress != Progress::Nothing {
                        self.publish();
                    }
                }
                () = self.layouts.changed() => {
                    if self.holding.is_none() && self.progress != Progress::Nothing {
                        self.publish_in_turn();
                    }
                }
                Ok(()) = reach.changed() => {
                    let reach = *reach.borrow_and_update();
                    self.reached(reach);
                }
                Ok(()) = history.changed() => {
                    let cluster = history.borrow_and_update().cluster;
                    self.fold.other_history();
                    self.seen_cluster(cluster);
                }
                Some(answer) = &mut asking => {
                    asking = None.into();
                    self.lease_answered(answer);
                }
                () = tokio::time::sleep(wake) => self.tick(),
                feed = fed.recv() => {
                    let feed = feed.ok_or(MirrorError::Source)?;
                    self.take_all(feed, &mut fed);
                }
                Some(lease) = self.served.recv() => {
                    let now = self.outlet.clock().now();
                    self.desk.served(lease, now);
                }
            }
        }
        self.put_away().await;
        Ok(())
    }

    /// Answers from the kept file until the store has been read, unless that is done in a moment.
    async fn warm_up(&mut self) {
        self.listen();
        let cluster = self.store.history().borrow().cluster;
        let empty = self.empty();
        if let Some(keep) = &mut self.keep
            && let Some(kept) = keep.load(empty, self.settings.prefixes.clone(), cluster).await
        {
            tracing::info!(records = kept.counts().records, "answering from the kept catalog until the store is read");
            self.fold.start_from(kept);
            self.progress = Progress::Kept;
            self.holding = Some(self.outlet.clock().now() + FIRST_WORD);
        }
        if self.said.active {
            self.publish();
        }
    }

    /// Takes in what the registrar says; whether readers should see what has become of it.
    fn listen(&mut self) -> bool {
        let said = self.overlay.borrow_and_update().clone();
        let mut changed = said.active || self.laid.is_some();
        changed |= self.fold.offers(&said);
        if said.lost > self.said.lost {
            let now = self.outlet.clock().now();
            changed |= self.fold.lease_was_lost(now, &mut self.desk);
        }
        self.said = said;
        changed
    }

    /// Takes in a feed, and what waits behind it.
    fn take_all(&mut self, first: Feed, fed: &mut mpsc::Receiver<Feed>) {
        let mut changed = self.take(first);
        for _ in 1..TOGETHER {
            match fed.try_recv() {
                Ok(feed) => changed |= self.take(feed),
                Err(_) => break,
            }
        }
        if changed {
            self.publish_in_turn();
        }
    }

    /// Takes in one feed; whether readers should see what has become of it.
    fn take(&mut self, feed: Feed) -> bool {
        let now = self.outlet.clock().now();
        match feed {
            Feed::Begin { rewound } => {
                self.layouts.begin();
                self.fold.begin(rewound);
                false
            }
            Feed::Page(page) => {
                let cluster = self.store.history().borrow().cluster;
                self.seen_cluster(cluster);
                self.layouts.page(&page);
                self.fold.page(&page, &mut self.desk);
                false
            }
            Feed::Listed(revision) => {
                self.back(now);
                let returned = self.returned_for(now);
                self.layouts.listed(returned.map(|_| now + self.settings.lease_ttl));
                self.fold.listed(revision, returned, now, &mut self.desk);
                self.progress = Progress::Read;
                self.step_in(now);
                true
            }
            Feed::Batch(batch) => {
                self.back(now);
                let caught_up = self.step_in(now);
                self.layouts.batch(&batch);
                self.fold.batch(&batch, self.returned_for(now), now, &mut self.desk) | caught_up
            }
            Feed::Away => {
                self.was_away = true;
                std::mem::replace(&mut self.in_step, false) | self.mark(now) | self.holding.is_some()
            }
        }
    }

    /// The store can be read: when it could not before, this is its return.
    fn back(&mut self, now: Duration) {
        if std::mem::take(&mut self.was_away) {
            self.returned = Some(now);
        }
    }

    fn returned_for(&self, now: Duration) -> Option<Duration> {
        self.returned.map(|at| now.saturating_sub(at)).filter(|since| *since <= hold::RETURN)
    }

    fn step_in(&mut self, now: Duration) -> bool {
        self.in_step = true;
        self.mark(now)
    }

    /// Marks the catalog stale or not; whether that changed.
    fn mark(&mut self, now: Duration) -> bool {
        let stale = !self.in_step || self.reach == Reach::Away;
        let since = stale.then(|| self.stale_since.unwrap_or(now));
        let changed = since.is_some() != self.stale_since.is_some();
        self.stale_since = since;
        if changed && stale {
            tracing::warn!("store away: answering from the last catalog");
        } else if changed {
            tracing::info!(revision = self.fold.catalog().revision(), "in step with the store");
        }
        changed
    }

    fn reached(&mut self, reach: Reach) {
        let now = self.outlet.clock().now();
        match reach {
            Reach::Away => self.was_away = true,
            Reach::There => self.back(now),
            Reach::Unknown => {}
        }
        self.reach = reach;
        let changed = self.mark(now);
        let waiting = self.progress == Progress::Nothing || self.holding.is_some();
        if changed || (waiting && reach == Reach::Away) {
            self.publish();
        }
    }

    /// A kept catalog of another cluster is none.
    fn seen_cluster(&mut self, cluster: Option<u64>) {
        let other = self.keep.as_ref().is_some_and(|keep| keep.is_of_another(cluster));
        if other && self.progress == Progress::Kept {
            tracing::warn!("kept catalog is of another cluster: dropped");
            self.fold.start_from(self.empty());
            self.progress = Progress::Nothing;
            self.publish();
        }
    }

    /// What is due.
    fn tick(&mut self) {
        let now = self.outlet.clock().now();
        self.chores.turn(&mut self.fold, now);
        let waited = self.unshown && self.rested <= now;
        let over = self.layouts.expire(now);
        if self.fold.expire(now) || over || waited || self.holding.is_some_and(|until| until <= now) {
            self.publish();
        }
        if self.progress == Progress::Read
            && let Some(keep) = &mut self.keep
        {
            let cluster = self.store.history().borrow().cluster;
            let behind = self.stale_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            keep.write_if_due(self.fold.catalog(), cluster, behind, now);
        }
    }

    fn wake(&self, now: Duration) -> Duration {
        let away = self.reach == Reach::Away;
        let lease = if away { None } else { self.desk.wake() };
        let unshown = self.unshown.then_some(self.rested);
        let due =
            [self.fold.next(), self.layouts.next(), lease, self.keep_due(), self.holding, self.chores.due(), unshown];
        due.into_iter().flatten().min().map_or(keep::EVERY, |at| at.saturating_sub(now))
    }

    fn keep_due(&self) -> Option<Duration> {
        self.keep.as_ref().filter(|_| self.progress == Progress::Read).map(Keep::due)
    }

    /// Hands out what is new, at once or when the last turn's rest is over.
    fn publish_in_turn(&mut self) {
        self.unshown = true;
        if self.rested <= self.outlet.clock().now() {
            self.publish();
        }
    }

    /// Hands out what the store says, with what is laid over it.
    fn publish(&mut self) {
        let begun = Instant::now();
        self.show();
        self.unshown = false;
        self.rested = self.outlet.clock().now() + rest_after(begun.elapsed());
    }

    fn show(&mut self) {
        self.holding = None;
        self.listen();
        let overlay = self.overlay();
        self.fold.set_stale(self.stale_since);
        let base = self.fold.catalog();
        let mut shown = if overlay.active { overlaid(base, &overlay, &self.settings.node) } else { base.clone() };
        self.heads.lay(&mut shown);
        self.layouts.lay(&mut shown);
        if overlay.active {
            self.progress = self.progress.max(Progress::Own);
        }
        if let Some(keep) = &mut self.keep {
            keep.changed(base.generation());
        }
        self.gauges.set(&shown, overlay.active);
        self.chores.changed(base, self.outlet.clock().now());
        self.contested.tell(&shown);
        self.outlet.publish(shown, self.progress);
    }

    /// What is to be laid over: what the registrar says, and after that what it offers until the catalog has its write.
    fn overlay(&mut self) -> Arc<Overlay> {
        let said = &self.said;
        let behind = self.fold.catalog().revision() < said.written;
        self.laid = match self.laid.take() {
            _ if said.active => Some(said.clone()),
            Some(laid) if behind => {
                let out = laid.out.clone();
                Some(Arc::new(Overlay { active: true, out, ..Overlay::clone(said) }))
            }
            _ => None,
        };
        self.laid.clone().unwrap_or_else(|| said.clone())
    }

    /// Keeps the catalog for the next run.
    async fn put_away(&mut self) {
        if self.progress != Progress::Read {
            return;
        }
        let cluster = self.store.history().borrow().cluster;
        if let Some(keep) = &mut self.keep {
            let now = self.outlet.clock().now();
            let behind = self.stale_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            keep.write_now(self.fold.catalog(), cluster, behind).await;
        }
    }
}
