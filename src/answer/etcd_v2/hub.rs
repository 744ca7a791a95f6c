//! What happened lately in one tree: one watch of the store, shared by all who wait there.
//!
//! While the store is away nobody waits: whoever did is let go, asks again, and is told so.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use imbl::Vector;
use tokio::sync::{OnceCell, watch};
use tokio::time::{sleep, timeout};

use super::desk::away;
use super::ledger::Ledger;
use super::look::held;
use crate::model::etcd_v2::event::{Raw, Told};
use crate::model::etcd_v2::{Act, NodePath, Places};
use crate::store::{Batch, Event, Revision, Store, StoreError, Watch, watch_since};

/// Revisions that are remembered, and the bytes of their values; who asks for older ones reads them from the store.
const MOST: usize = 1_024;
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Pause before the store is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// A watch that is silent for longer is not in step any more.
const SILENCE: Duration = Duration::from_secs(10);

/// What happened in one revision.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) revision: Revision,
    /// Each change, and what is told of it once somebody asked.
    pub(super) changes: Vec<(Raw, OnceCell<Option<Told>>)>,
    /// What the commit was, once somebody asked.
    pub(super) act: OnceCell<Option<Act>>,
}

impl Entry {
    fn bytes(&self) -> usize {
        let size = |raw: &Raw| 256 + raw.path.as_str().len() + raw.now.as_ref().map_or(0, |held| held.value.len());
        self.changes.iter().map(|(raw, _)| size(raw)).sum()
    }
}

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Grows when what follows does not go on from what was.
    pub(super) epoch: u64,
    /// Whether the store's watch is running.
    pub(super) is_in_step: bool,
    /// From this revision on all is here.
    pub(super) from: Revision,
    /// Up to this one all has been seen.
    pub(super) seen: Revision,
    pub(super) entries: Vector<Arc<Entry>>,
    bytes: usize,
}

impl Log {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(Arc::new(entry));
        while self.entries.len() > MOST || self.bytes > MOST_BYTES {
            let Some(gone) = self.entries.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(gone.bytes());
            self.from = gone.revision + 1;
        }
    }
}

/// The worker.
#[derive(Debug)]
pub(super) struct Hub {
    store: Arc<dyn Store>,
    sorter: Sorter,
    log: watch::Sender<Log>,
    ledger: Ledger,
}

impl Hub {
    pub(super) fn new(
        store: Arc<dyn Store>,
        places: Arc<Places>,
        root: NodePath,
        ledger: Ledger,
    ) -> (Self, (Sorter, watch::Receiver<Log>)) {
        let (log, seen) = watch::channel(Log::default());
        let sorter = Sorter { places, root };
        (Self { store, sorter: sorter.clone(), log, ledger }, (sorter, seen))
    }

    pub(super) fn root(&self) -> &NodePath {
        &self.sorter.root
    }

    /// Works as long as it is polled.
    pub(super) async fn run(self) -> Infallible {
        loop {
            let error = match self.follow().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::debug!(%error, "what happens below {} is not in step with the store", self.root());
            self.ledger.tree(self.root(), Err(away(&error).cause));
            let is_lost = matches!(error, StoreError::Compacted(_) | StoreError::Rewound);
            self.log.send_modify(|log| {
                log.is_in_step = false;
                if is_lost {
                    *log = Log { epoch: log.epoch + 1, ..Log::default() };
                }
            });
            sleep(AGAIN).await;
        }
    }

    /// Goes on from what was seen; from now, if nothing was.
    async fn follow(&self) -> Result<Infallible, StoreError> {
        let generation = self.store.history().borrow().generation;
        let now = self.store.get(&[]).await?.revision;
        self.log.send_modify(|log| {
            if log.seen == 0 {
                (log.from, log.seen) = (now + 1, now);
            }
        });
        let from = self.log.borrow().seen + 1;
        let mut watch = watch_since(&*self.store, generation, &self.root().below(), from).await?;
        self.log.send_modify(|log| log.is_in_step = true);
        self.ledger.tree(self.root(), Ok(()));
        loop {
            let batch = next(&mut *watch).await?;
            let entries = self.sorter.entries(&batch);
            self.log.send_modify(|log| {
                entries.into_iter().for_each(|entry| log.push(entry));
                log.seen = log.seen.max(batch.revision);
            });
        }
    }
}

/// The next batch of a watch that may not be silent for long.
pub(super) async fn next(watch: &mut dyn Watch) -> Result<Batch, StoreError> {
    let silent = |_| StoreError::Away { tried: "watching what happens".to_owned(), source: None };
    timeout(SILENCE, watch.next()).await.map_err(silent)?
}

/// Makes entries of what a watch brings: places are counted among all changes of the tree, so that they are the same
/// for whoever waits in it.
#[derive(Clone, Debug)]
pub(super) struct Sorter {
    places: Arc<Places>,
    pub(super) root: NodePath,
}

impl Sorter {
    pub(super) fn entries(&self, batch: &Batch) -> Vec<Entry> {
        let mut revisions: BTreeMap<Revision, Vec<Raw>> = BTreeMap::new();
        let mut places: BTreeMap<Revision, usize> = BTreeMap::new();
        for event in &batch.events {
            let place = places.entry(event.revision()).or_default();
            if let Some(raw) = self.raw(event, *place) {
                revisions.entry(event.revision()).or_default().push(raw);
            }
            *place += 1;
        }
        let entry = |(revision, raws): (Revision, Vec<Raw>)| {
            let changes = raws.into_iter().map(|raw| (raw, OnceCell::new())).collect();
            Entry { revision, changes, act: OnceCell::new() }
        };
        revisions.into_iter().map(entry).collect()
    }

    fn raw(&self, event: &Event, place: usize) -> Option<Raw> {
        let key = event.key();
        let marked = self.places.marked(key).filter(|path| !path.is_root());
        let is_mark = marked.is_some();
        let path = marked.or_else(|| NodePath::of_key(key)).filter(|_| key != self.places.act())?;
        let now = match event {
            Event::Put(item) => Some(held(item.clone())),
            Event::Delete { .. } => None,
        };
        Some(Raw { path, is_mark, now, revision: event.revision(), place })
    }
}
