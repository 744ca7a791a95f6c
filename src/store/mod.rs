//! The store: keys, bytes, revisions and leases. It knows nothing of records.
//!
//! Two real implementations stand behind [`Store`]: `etcd`, and `embedded` for one host; one suite of tests holds both
//! to the same behaviour. Every call has a deadline of its own; an error says what was tried and is an ordinary
//! outcome for the caller, who tries again by the state he is in.

pub mod embedded;
pub mod etcd;

use std::any::Any;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::model::words::trouble::Trouble;

/// A point in the store's history; grows by one with every commit.
pub type Revision = i64;

/// The identity of a lease within one cluster; 0 is none.
pub type LeaseId = i64;

/// One key as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name; of one that is no text, what [`crate::model::words::key::text`] makes of it.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The lease it hangs on; 0 is none.
    pub lease: LeaseId,
    /// The revision of its last put.
    pub revision: Revision,
    /// The revision of the put that made it.
    pub created: Revision,
}

/// One page of a read.
#[derive(Clone, Debug)]
pub struct Page {
    /// Items in key order.
    pub items: Vec<Item>,
    /// The revision that this page, and every further one, is read at.
    pub revision: Revision,
    /// Whether more items follow the last one.
    pub more: bool,
}

/// What happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was written.
    Put(Item),
    /// It went: deleted, or its lease ended.
    Delete {
        /// The key's name.
        key: String,
        /// The revision that took it away.
        revision: Revision,
    },
}

impl Event {
    /// The key it happened to.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(item) => &item.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision that it happened in.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(item) => item.revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// What a watch brings: everything of one or more whole revisions, or (empty) a sign that it is in step.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The changes in order.
    pub events: Vec<Event>,
    /// Everything up to here has been seen, so a later watch goes on from the next revision.
    pub revision: Revision,
}

/// Something that must hold for a commit to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no such key.
    Absent(String),
    /// The key's last put was at this revision.
    Unchanged(String, Revision),
    /// The key holds this value.
    Holds(String, Bytes),
    /// No key that begins so was made after this revision; of revision 0, there is none at all.
    NoneCreatedSince(String, Revision),
    /// No key that begins so was put after this revision.
    NonePutSince(String, Revision),
}

/// One write of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Puts a value, on a lease when it is not 0.
    Put {
        /// The key's name.
        key: String,
        /// Its value.
        value: Bytes,
        /// The lease it hangs on.
        lease: LeaseId,
    },
    /// Deletes a key.
    Delete(String),
    /// Deletes every key that begins so; no other write of the commit may be to one of them.
    DeleteAll(String),
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// All of it was written, at this revision.
    Done(Revision),
    /// A condition did not hold; nothing was written.
    Refused(Revision),
}

/// How the store is reached now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers.
    There,
    /// It does not: unanswered, no leader, or refused.
    Away,
}

/// Which history of which cluster the revisions and leases seen belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The identity of the cluster, once known.
    pub cluster: Option<u64>,
    /// Grows when the store turns out to be another one, or an older one than it was.
    pub generation: u64,
    /// How far it had come by then: what was put later was put by someone who knows it as it is.
    pub begun: Revision,
}

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer within the deadline, no connection, or no leader: the same call may go through later.
    #[error("store away: {tried}")]
    Away {
        /// What was tried, and where.
        tried: String,
        /// Why it failed.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The revision asked for is gone from the history; read afresh.
    #[error("history before revision {0} is gone")]
    Compacted(Revision),
    /// The store is not the one it was: wiped, restored from a backup, or another cluster. Read afresh; every session
    /// from before is lost.
    #[error("the store went back in its history, or is another one")]
    Rewound,
    /// The lease does not exist (any more).
    #[error("lease {0:x} is gone")]
    NoLease(LeaseId),
    /// The store says no: rights, sizes.
    #[error("store refused {tried}: {why}")]
    Refused {
        /// What was tried.
        tried: String,
        /// What the store said.
        why: String,
    },
}

/// A tree of keys with history and leases.
pub trait Store: Send + Sync + fmt::Debug {
    /// One page of the keys that begin with `prefix`, from after `after`, as they stood at `at` (now when `None`; the
    /// first page of a read is linearizable).
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// Everything that happens below `prefix` from revision `from` on (inclusive).
    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>>;

    /// A new lease of `ttl`, or the one given when it still lives: kept alive until it is closed, dropped or lost.
    fn session(&self, ttl: Duration, adopt: Option<LeaseId>) -> BoxFuture<'_, Result<Session, StoreError>>;

    /// The keys of those named that exist, in the order of their names, as they stand now (linearizable), however many.
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// The first of the keys that begin with `prefix`, as it stood at `at` (now when `None`).
    fn first<'a>(&'a self, prefix: &'a str, at: Option<Revision>) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        Box::pin(async move { Ok(self.read(prefix, None, at).await?.items.into_iter().next()) })
    }

    /// All writes together when all conditions hold, else nothing; at most [`MAX_WRITES`] of either. After `Away` it
    /// may have been made or not, or be made yet: only conditions keep that harmless.
    fn commit<'a>(
        &'a self,
        conditions: &'a [Condition],
        writes: &'a [Write],
    ) -> BoxFuture<'a, Result<Commit, StoreError>>;

    /// The keys attached to a lease, and the time it has left; `NoLease` when it is gone.
    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>>;

    /// The same without the keys, which may be more than an answer holds.
    fn lease_times(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>> {
        self.lease(id)
    }

    /// Ends a lease and deletes its keys.
    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Which history the store tells, as it changes. A change means: read afresh, open a new session.
    fn history(&self) -> watch::Receiver<History>;

    /// How the store is reached, as it changes.
    fn reach(&self) -> watch::Receiver<Reach>;

    /// What stands in the way while it does not answer, as that changes; nothing ever does where none is given.
    fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        watch::channel(None).1
    }
}

/// Watches from `from` on, a revision read when the store's history was at `generation`. Another history counts from
/// elsewhere: a watch of it would leave out what came before `from`, or stay silent until it gets there.
pub async fn watch_since(
    store: &dyn Store,
    generation: u64,
    prefix: &str,
    from: Revision,
) -> Result<Box<dyn Watch>, StoreError> {
    let watch = store.watch(prefix, from).await?;
    // Asked last: what changes from here on the watch itself is told.
    if store.history().borrow().generation == generation { Ok(watch) } else { Err(StoreError::Rewound) }
}

/// A lease, and whether its keys are told: anybody may hang so many on one that an answer cannot hold them, and then
/// only its times are.
pub async fn lease_as_told(store: &dyn Store, id: LeaseId) -> Result<(LeaseInfo, bool), StoreError> {
    match store.lease(id).await {
        Ok(info) => Ok((info, true)),
        Err(StoreError::Refused { .. }) => store.lease_times(id).await.map(|info| (info, false)),
        Err(error) => Err(error),
    }
}

/// Writes that fit one commit together with their conditions.
pub const MAX_WRITES: usize = 100;

/// A lease as the store knows it.
#[derive(Clone, Debug)]
pub struct LeaseInfo {
    /// The time granted.
    pub granted: Duration,
    /// The time left.
    pub left: Duration,
    /// The keys that hang on it.
    pub keys: Vec<String>,
}

/// A running watch.
pub trait Watch: Send {
    /// The next batch. While nothing happens, an empty one at least every 5 s says that the watch is in step;
    /// `StoreError::Away` means it is not any more (watch again from the revision after the last batch's), `Compacted`
    /// and `Rewound` that one must read afresh. Each ends the watch. Cancel-safe: a dropped future loses no event.
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>>;
}

/// A lease kept alive. Dropping it stops the keepalive and leaves the lease to its time.
#[derive(Debug)]
pub struct Session {
    lease: LeaseId,
    granted: Duration,
    adopted: bool,
    lost: watch::Receiver<bool>,
    /// What keeps it alive until it is dropped.
    _keeper: Box<dyn Any + Send + Sync>,
}

impl Session {
    /// A lease that lives at least as long as its `keeper`, unless `lost` becomes true.
    pub fn new(
        (lease, granted): (LeaseId, Duration),
        adopted: bool,
        lost: watch::Receiver<bool>,
        keeper: impl Any + Send + Sync,
    ) -> Self {
        Self { lease, granted, adopted, lost, _keeper: Box::new(keeper) }
    }

    /// The lease.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// The time granted, which may be more than was asked for.
    pub fn granted(&self) -> Duration {
        self.granted
    }

    /// Whether it took over a lease that was alive already.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Becomes true when the lease is lost.
    pub fn lost(&self) -> watch::Receiver<bool> {
        self.lost.clone()
    }
}
