//! Reads the store for the mirror: lists every prefix at one revision, watches from there, starts again where it must.
//!
//! It decides nothing about records. What it reads goes to the mirror through a bounded channel, in order; while the
//! mirror is busy it waits, and the store's own buffers hold what comes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc, watch};

use crate::model::words::key::Prefix;
use crate::store::{Batch, History, Item, Reach, Revision, Store, StoreError, Watch, watch_since};

/// Between two attempts, unless the store says earlier that it is back.
const PAUSE: Duration = Duration::from_millis(250);
/// Feeds under way to the mirror.
const UNDER_WAY: usize = 16;

/// What the mirror is told.
#[derive(Debug)]
pub(super) enum Feed {
    /// A list begins: forget what an earlier one that did not come to its end has brought.
    Begin {
        /// The store is another one, or went back in its history, which had come so far when that was seen: revisions
        /// seen before mean nothing.
        rewound: Option<Revision>,
    },
    /// A page of the list.
    Page(ListPage),
    /// The list is whole.
    Listed(Revision),
    /// What happened below one prefix; empty says that nothing has been missed.
    Batch(Batch),
    /// The store cannot be read now.
    Away,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct ListPage {
    /// The place of the prefix in the settings.
    pub(super) prefix: usize,
    /// The revision that the list is read at.
    pub(super) revision: Revision,
    /// The last key of the page before.
    pub(super) after: Option<String>,
    /// Keys in order.
    pub(super) items: Vec<Item>,
    /// No page of this prefix follows.
    pub(super) last: bool,
}

/// The reading side.
#[derive(Debug)]
pub(super) struct Source {
    store: Arc<dyn Store>,
    prefixes: Vec<Prefix>,
    feed: mpsc::Sender<Feed>,
    /// The mirror wants a fresh list.
    again: Arc<Notify>,
}

/// The mirror is gone.
struct Over;

/// How a watch ended.
enum End {
    /// It may go on from where it was.
    Broken,
    /// It cannot: read afresh.
    Relist,
}

impl Source {
    pub(super) fn new(
        store: Arc<dyn Store>,
        prefixes: Vec<Prefix>,
        again: Arc<Notify>,
    ) -> (Self, mpsc::Receiver<Feed>) {
        let (feed, fed) = mpsc::channel(UNDER_WAY);
        (Self { store, prefixes, feed, again }, fed)
    }

    /// Reads until nobody listens any more.
    pub(super) async fn run(self) {
        let _ = self.read_on().await;
    }

    async fn read_on(&self) -> Result<(), Over> {
        let mut generation = None;
        loop {
            let revision = self.list(&mut generation).await?;
            self.follow(revision, generation.unwrap_or_default()).await?;
        }
    }

    fn generation(&self) -> u64 {
        self.store.history().borrow().generation
    }

    async fn tell(&self, feed: Feed) -> Result<(), Over> {
        self.feed.send(feed).await.map_err(|_| Over)
    }

    /// Lists everything, however often it takes. `generation` is the history that the last whole list was of: a
    /// list of another one, whoever found out about it, means that revisions seen before mean nothing.
    async fn list(&self, generation: &mut Option<u64>) -> Result<Revision, Over> {
        loop {
            let History { generation: begun, begun: since, .. } = *self.store.history().borrow();
            let rewound = generation.filter(|before| *before != begun).map(|_| since);
            self.tell(Feed::Begin { rewound }).await?;
            match self.list_once().await? {
                Ok(revision) if self.generation() == begun => {
                    self.tell(Feed::Listed(revision)).await?;
                    *generation = Some(begun);
                    return Ok(revision);
                }
                // Some of its pages are of one history and some of another.
                Ok(_) => continue,
                Err(error) => {
                    tracing::debug!(%error, "list interrupted");
                    if !matches!(error, StoreError::Compacted(_) | StoreError::Rewound) {
                        self.tell(Feed::Away).await?;
                    }
                }
            }
            self.pause().await;
        }
    }

    async fn list_once(&self) -> Result<Result<Revision, StoreError>, Over> {
        let mut at = None;
        for (place, prefix) in self.prefixes.iter().enumerate() {
            let below = prefix.below();
            let mut after: Option<String> = None;
            loop {
                let page = match self.store.read(&below, after.as_deref(), at).await {
                    Ok(page) => page,
                    Err(error) => return Ok(Err(error)),
                };
                at = Some(page.revision);
                let next = page.items.last().map(|item| item.key.clone());
                let last = !page.more || next.is_none();
                let (revision, items) = (page.revision, page.items);
                self.tell(Feed::Page(ListPage { prefix: place, revision, after, items, last })).await?;
                if last {
                    break;
                }
                after = next;
                // Pages may be large: the next one is read when this one has been taken.
                drop(self.feed.reserve_many(UNDER_WAY).await.map_err(|_| Over)?);
            }
        }
        Ok(Ok(at.unwrap_or_default()))
    }

    /// Watches every prefix from `revision` of the history `generation` on, until one must read afresh.
    async fn follow(&self, revision: Revision, generation: u64) -> Result<(), Over> {
        let mut reached = vec![revision; self.prefixes.len()];
        loop {
            match self.watch_all(&mut reached, generation).await? {
                End::Broken => {
                    self.tell(Feed::Away).await?;
                    self.pause().await;
                }
                End::Relist => return Ok(()),
            }
        }
    }

    async fn watch_all(&self, reached: &mut [Revision], generation: u64) -> Result<End, Over> {
        let mut history = self.store.history();
        let mut running = FuturesUnordered::new();
        for (place, prefix) in self.prefixes.iter().enumerate() {
            match watch_since(&*self.store, generation, &prefix.below(), reached[place] + 1).await {
                Ok(watch) => running.push(step(place, watch)),
                Err(error) => return Ok(ended(&error)),
            }
        }
        loop {
            tokio::select! {
                // Not only from now on: another caller may have found out while nothing was watched here, and then a
                // watch from a revision of the old history would stay blind until the new one gets there.
                biased;
                () = another(&mut history, generation) => return Ok(End::Relist),
                () = self.feed.closed() => return Err(Over),
                () = self.again.notified() => return Ok(End::Relist),
                Some((place, watch, next)) = running.next() => match next {
                    Ok(mut batch) => {
                        reached[place] = reached[place].max(batch.revision);
                        batch.revision = reached.iter().copied().min().unwrap_or_default();
                        self.tell(Feed::Batch(batch)).await?;
                        running.push(step(place, watch));
                    }
                    Err(error) => return Ok(ended(&error)),
                },
            }
        }
    }

    /// Waits a little, or until the store is back.
    async fn pause(&self) {
        let mut reach = self.store.reach();
        let back = async {
            if reach.wait_for(|reach| *reach == Reach::Away).await.is_ok() {
                let _ = reach.wait_for(|reach| *reach == Reach::There).await;
            }
        };
        let _ = tokio::time::timeout(PAUSE, back).await;
    }
}

/// Returns when the store tells another history than this one, also if it has done so before.
async fn another(history: &mut watch::Receiver<History>, generation: u64) {
    if history.wait_for(|history| history.generation != generation).await.is_err() {
        std::future::pending::<()>().await;
    }
}

type Step = BoxFuture<'static, (usize, Box<dyn Watch>, Result<Batch, StoreError>)>;

fn step(place: usize, mut watch: Box<dyn Watch>) -> Step {
    Box::pin(async move {
        let next = watch.next().await;
        (place, watch, next)
    })
}

fn ended(error: &StoreError) -> End {
    tracing::debug!(%error, "watch ended");
    match error {
        StoreError::Compacted(_) | StoreError::Rewound => End::Relist,
        _ => End::Broken,
    }
}
