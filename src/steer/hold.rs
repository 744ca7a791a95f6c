//! The hold of one operation: a key on a lease of 5 s, for as long as the operation makes progress.
//!
//! Whoever has it may commit, and may send until its deadline, which counts from when the store was asked, not from
//! when it answered. A commit whose outcome is unknown is made again until it is known: its conditions let only one of
//! the attempts through.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::model::steer::journal::Journal;
use crate::model::steer::told::Paused;
use crate::model::steer::topology::Applied;
use crate::state::topology::Kept;
use crate::store::{Commit, Condition, Item, Revision, Session, Store, StoreError, Write};

/// How long a hold lives without a word of its operator.
const TTL: Duration = Duration::from_secs(5);
/// What is kept back of it for clocks that differ and for seconds that the store does not tell the parts of.
const MARGIN: Duration = Duration::from_millis(300);
/// The revision of what the store does not have.
const NOT_THERE: Revision = 0;
/// Pause before a commit of unknown outcome is made again.
const AGAIN: Duration = Duration::from_millis(50);

/// The keys of one service's topology.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) hold: String,
    pub(super) journal: String,
    pub(super) applied: String,
    pub(super) desired: String,
    pub(super) trigger: String,
    pub(super) paused: String,
}

impl Keys {
    pub(super) fn new(below: &str, service: &str) -> Self {
        Self {
            hold: format!("{below}hold"),
            journal: format!("{below}journal"),
            applied: format!("{below}applied"),
            desired: format!("/config/{service}/topology"),
            trigger: format!("/config/{service}/topology-trigger"),
            paused: format!("{below}paused"),
        }
    }

    pub(super) fn all(&self) -> Vec<String> {
        let mut all = vec![self.hold.clone(), self.journal.clone(), self.applied.clone()];
        all.extend([self.desired.clone(), self.trigger.clone(), self.paused.clone()]);
        all
    }
}

/// Why there is no hold, or a commit was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum HoldError {
    #[error("another operation is at work")]
    Busy,
    #[error("the hold is gone")]
    Gone,
    #[error("the outcome of a commit is not known")]
    Unknown,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A hold that is had.
pub(super) struct Hold {
    store: Arc<dyn Store>,
    keys: Keys,
    value: Bytes,
    session: Session,
    deadline: Instant,
    generation: u64,
    /// When it was taken, by the store's count.
    revision: Revision,
}

impl Hold {
    pub(super) async fn take(store: Arc<dyn Store>, keys: Keys, owner: &str) -> Result<Self, HoldError> {
        let asked = Instant::now();
        let generation = store.history().borrow().generation;
        let session = store.session(TTL, None).await?;
        // No two holds have one value, so that a store which went back cannot take one for another.
        let value = Bytes::from(format!("{owner} {:016x}", rand::random::<u64>()));
        let write = Write::Put { key: keys.hold.clone(), value: value.clone(), lease: session.lease() };
        let made = store.commit(&[Condition::Absent(keys.hold.clone())], &[write]).await;
        let deadline = asked + TTL.min(session.granted()) - MARGIN;
        let mut hold = Self { store, keys, value, session, deadline, generation, revision: NOT_THERE };
        match made {
            Ok(Commit::Done(revision)) => {
                hold.revision = revision;
                Ok(hold)
            }
            Ok(Commit::Refused(_)) => {
                hold.let_go().await;
                Err(HoldError::Busy)
            }
            Err(error) => {
                hold.let_go().await;
                Err(error.into())
            }
        }
    }

    /// The store's revision when it was taken.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// For how long this operator may still send.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether the store says that it is gone, or is another store.
    pub(super) fn is_lost(&self) -> bool {
        *self.session.lost().borrow() || self.store.history().borrow().generation != self.generation
    }

    /// Writes the journal, and what comes with it, on the condition of the hold and of the journal's revision; returns
    /// when that is known, at the latest when the hold ends.
    pub(super) async fn commit(
        &mut self,
        last: Option<Revision>,
        journal: &Journal,
        with: Vec<Write>,
    ) -> Result<Revision, HoldError> {
        let unchanged = match last {
            Some(revision) => Condition::Unchanged(self.keys.journal.clone(), revision),
            None => Condition::Absent(self.keys.journal.clone()),
        };
        let conditions = [Condition::Holds(self.keys.hold.clone(), self.value.clone()), unchanged];
        let value = Bytes::from(journal.encode());
        let mut writes = vec![Write::Put { key: self.keys.journal.clone(), value: value.clone(), lease: 0 }];
        writes.extend(with);
        let mut is_sure = true;
        loop {
            if self.left().is_zero() || self.is_lost() {
                return Err(if is_sure { HoldError::Gone } else { HoldError::Unknown });
            }
            match self.store.commit(&conditions, &writes).await {
                Ok(Commit::Done(revision)) => {
                    self.prolong().await;
                    return Ok(revision);
                }
                // Perhaps by an earlier attempt of ours.
                Ok(Commit::Refused(_)) => return self.was_written(&value, is_sure).await,
                Err(StoreError::Away { .. }) => is_sure = false,
                Err(error) if is_sure => return Err(error.into()),
                Err(_) => return Err(HoldError::Unknown),
            }
            sleep(AGAIN).await;
        }
    }

    async fn was_written(&self, value: &Bytes, is_sure: bool) -> Result<Revision, HoldError> {
        let page = self.store.get(std::slice::from_ref(&self.keys.journal)).await;
        match page.ok().and_then(|page| page.items.into_iter().next()).filter(|item| item.value == *value) {
            Some(item) => Ok(item.revision),
            None if is_sure => Err(HoldError::Gone),
            None => Err(HoldError::Unknown),
        }
    }

    /// A step was made, which gives the operation what the lease has left.
    async fn prolong(&mut self) {
        let asked = Instant::now();
        if let Ok(info) = self.store.lease(self.session.lease()).await {
            // Whole seconds are told, rounded either way.
            let left = info.left.saturating_sub(Duration::from_secs(1) + MARGIN);
            self.deadline = self.deadline.max(asked + left.min(TTL));
        }
    }

    /// Ends it at once.
    pub(super) async fn let_go(self) {
        if let Err(error) = self.store.revoke(self.session.lease()).await {
            tracing::debug!(%error, "a hold is left to its time");
        }
    }
}

/// What is in the store, and whether each was written since it was last seen to have gone back, by one who took the
/// hold since: a commit that was under way then tells of the store that was.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) journal: Option<(Journal, Revision)>,
    pub(super) applied: Option<Applied>,
    pub(super) desired: Option<Item>,
    pub(super) trigger: Option<Item>,
    pub(super) hold: bool,
    pub(super) paused: Option<Paused>,
    pub(super) trusted: bool,
    /// A journal that this build cannot read.
    pub(super) unreadable: Option<String>,
    /// Not read yet, or not in step with the store.
    pub(super) is_away: bool,
}

impl Found {
    pub(super) fn of(items: Vec<Item>, keys: &Keys, begun: Option<Revision>) -> Self {
        let mut found = Self { trusted: true, ..Self::default() };
        for item in items {
            let since = |held: Revision| begun.is_none_or(|begun| item.revision.min(held) > begun);
            if item.key == keys.journal {
                match Journal::decode(&item.value) {
                    Ok(journal) => {
                        found.trusted &= since(journal.held);
                        found.journal = Some((journal, item.revision));
                    }
                    Err(error) => found.unreadable = Some(format!("its journal cannot be read: {error}")),
                }
            } else if item.key == keys.applied {
                match Applied::decode(&item.value) {
                    Ok(applied) => {
                        found.trusted &= since(applied.held);
                        found.applied = Some(applied);
                    }
                    Err(error) => found.unreadable = Some(format!("what was applied cannot be read: {error}")),
                }
            } else if item.key == keys.desired {
                found.desired = Some(item);
            } else if item.key == keys.trigger {
                found.trigger = Some(item);
            } else if item.key == keys.hold {
                found.hold = true;
            } else if item.key == keys.paused {
                // Whatever somebody wrote there, he meant it.
                found.paused = Some(serde_json::from_slice(&item.value).unwrap_or_default());
            }
        }
        found
    }

    /// The same with what was kept beside the store, where the store has neither: it was emptied. Then nothing says
    /// that no more was done since.
    pub(super) fn or_kept(mut self, kept: &Kept) -> Self {
        if self.applied.is_none() && self.journal.is_none() && *kept != Kept::default() {
            self.applied.clone_from(&kept.applied);
            self.journal = kept.journal.clone().map(|journal| (journal, NOT_THERE));
            self.trusted = false;
        }
        self
    }

    /// The revision of the journal that the store has.
    pub(super) fn journal_revision(&self) -> Option<Revision> {
        self.journal.as_ref().map(|(_, revision)| *revision).filter(|revision| *revision != NOT_THERE)
    }

    /// Whether somebody's work was left to be ended.
    pub(super) fn is_unfinished(&self) -> bool {
        self.journal.as_ref().is_some_and(|(journal, _)| !journal.is_over())
    }

    /// Reads all of it as it stands now.
    pub(super) async fn read(store: &dyn Store, keys: &Keys) -> Result<Self, StoreError> {
        let page = store.get(&keys.all()).await?;
        let history = *store.history().borrow();
        let begun = (history.generation > 0).then_some(history.begun);
        Ok(Self::of(page.items, keys, begun))
    }
}
