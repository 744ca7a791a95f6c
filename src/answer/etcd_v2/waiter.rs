//! One who waits for what happens: from the index that was asked for, or from now.
//!
//! What is remembered is told at once. What is older is read from the store by a watch of its own; where the store's
//! history does not reach back that far, he is told that it is gone.

use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::desk::away;
use super::hub::{Log, Sorter, next};
use super::look::Looker;
use crate::answer::http::json;
use crate::answer::http::tickets::Ticket;
use crate::host::clients::Counted;
use crate::model::etcd_v2::event::Told;
use crate::model::etcd_v2::{Code, Fault, Wait, index};
use crate::store::{Revision, StoreError, Watch};

/// How long one waits at most; etcd's clients ask again by themselves.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// One who waits.
pub(super) struct Waiter {
    wait: Wait,
    looker: Looker,
    sorter: Sorter,
    log: watch::Receiver<Log>,
    /// A watch of his own, where what is asked for is not remembered; and how far it has come.
    own: Option<(Box<dyn Watch>, Revision)>,
    epoch: u64,
    deadline: Instant,
    is_over: bool,
    _place: (Ticket, Counted),
}

impl Waiter {
    /// Begins to wait; tells the index of the store by then, too.
    pub(super) async fn begin(
        wait: Wait,
        looker: Looker,
        (sorter, log): (Sorter, watch::Receiver<Log>),
        place: (Ticket, Counted),
    ) -> Result<(Self, u64), Fault> {
        let told = |error: StoreError| away(&error);
        let now = looker.store.get(&[]).await.map_err(told)?.revision;
        let since = if wait.since == 0 { index::of(now + 1, 0) } else { wait.since };
        let wait = Wait { since, ..wait };
        let (epoch, deadline) = (log.borrow().epoch, Instant::now() + LONGEST);
        let mut waiter = Self { wait, looker, sorter, log, own: None, epoch, deadline, is_over: false, _place: place };
        waiter.reach_back(now).await?;
        Ok((waiter, index::last_of(now)))
    }

    /// Sees to it that everything from his index on will be seen.
    async fn reach_back(&mut self, now: Revision) -> Result<(), Fault> {
        let (from, _) = index::parts(self.wait.since);
        let from = from.max(1);
        // A log that does not run, or has not begun, will go on from what it has seen.
        let is_remembered = {
            let log = self.log.borrow();
            log.is_in_step && log.from <= from
        };
        if is_remembered {
            return Ok(());
        }
        let cleared = self.cleared(now);
        let gone = |error: StoreError| match error {
            StoreError::Compacted(_) => cleared.clone(),
            error => away(&error),
        };
        if from <= now {
            // A watch that begins before what is left of the history would only say so later.
            let before = Some((from - 1).max(1));
            self.looker.store.first(&self.sorter.root.below(), before).await.map_err(&gone)?;
        }
        let watch = self.looker.store.watch(&self.sorter.root.below(), from).await.map_err(gone)?;
        self.own = Some((watch, from - 1));
        Ok(())
    }

    fn cleared(&self, now: Revision) -> Fault {
        let cause = format!("the requested history has been cleared [{}/{}]", index::last_of(now), self.wait.since);
        Fault::new(Code::IndexCleared, cause).with_revision(now)
    }

    /// The next thing that he is told; nothing once the waiting is over.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let deadline = self.deadline;
        let found = timeout_at(deadline, self.find()).await.ok().flatten();
        let Some(told) = found else {
            self.is_over = true;
            return None;
        };
        self.wait.since = told.index + 1;
        self.is_over = !self.wait.stream;
        let mut text = Vec::with_capacity(256);
        json::write(&mut text, &told.reply);
        text.push(b'\n');
        Some(text.into())
    }

    async fn find(&mut self) -> Option<Told> {
        loop {
            let found = if self.own.is_some() { self.find_by_own().await } else { self.find_in_log().await };
            match found {
                Ok(Some(told)) => return Some(told),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "one who waits is let go: he asks again");
                    return None;
                }
            }
        }
    }

    /// Looks through one batch of his own watch; once it has come to what is remembered, it is not needed.
    async fn find_by_own(&mut self) -> Result<Option<Told>, StoreError> {
        let Some((watch, seen)) = &mut self.own else { return Ok(None) };
        let batch = next(&mut **watch).await?;
        *seen = batch.revision.max(*seen);
        let reached = *seen;
        for entry in self.sorter.entries(&batch) {
            if let Some(told) = self.looker.first_for(&self.wait, &entry).await? {
                if self.wait.stream {
                    // Of the same batch more may follow: he goes on from behind what he was told.
                    let from = index::parts(told.index).0;
                    self.own = Some((self.looker.store.watch(&self.sorter.root.below(), from).await?, from - 1));
                }
                return Ok(Some(told));
            }
        }
        let log = self.log.borrow();
        if log.is_in_step && log.epoch == self.epoch && log.from <= reached + 1 {
            drop(log);
            self.own = None;
            self.wait.since = self.wait.since.max(index::of(reached + 1, 0));
        }
        Ok(None)
    }

    /// Looks through what is remembered, and waits for more.
    async fn find_in_log(&mut self) -> Result<Option<Told>, StoreError> {
        let log = self.log.borrow_and_update().clone();
        let (from, _) = index::parts(self.wait.since);
        if log.epoch != self.epoch || !log.is_in_step || log.from > from {
            return Err(StoreError::Away { tried: "following what happens".to_owned(), source: None });
        }
        for entry in log.entries.iter().filter(|entry| entry.revision >= from) {
            if let Some(told) = self.looker.first_for(&self.wait, entry).await? {
                return Ok(Some(told));
            }
        }
        self.wait.since = self.wait.since.max(index::of(log.seen + 1, 0));
        let ended = |_| StoreError::Away { tried: "following what happens".to_owned(), source: None };
        self.log.changed().await.map_err(ended)?;
        Ok(None)
    }
}
