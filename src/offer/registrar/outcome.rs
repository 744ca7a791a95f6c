//! What comes of the registrar's jobs, and when it tries again.

use tokio::time::Instant;

use super::jobs::{Opened, Outcome, Synced};
use super::{FIRST_RETRY, LAST_RETRY, RECONCILE, Registrar};
use crate::model::health::adopted::Adopted;
use crate::model::publish::op::{Change, Op};
use crate::model::words::place::place;
use crate::store::{Commit, LeaseId, MAX_WRITES, Page, StoreError};

impl Registrar {
    pub(super) fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Session(result) => self.on_session(result),
            Outcome::Synced { asked, result } => self.on_synced(&asked, result),
            Outcome::Committed { ops, lease, result } => self.on_committed(&ops, lease, result),
            Outcome::Reread { asked, result } => match result {
                Ok(page) => self.desk.read(&asked, &page),
                Err(error) => self.on_error(&error),
            },
            Outcome::Node { value, lease, result } => match result {
                Ok(Commit::Done(revision) | Commit::Refused(revision)) => {
                    self.metrics.node_writes.inc();
                    self.node.written(value, lease, revision);
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
        self.link.unwatch();
        self.link.found.extend(opened.found.iter().cloned());
        self.link.adopting = opened.found.into_iter().collect();
        self.link.retire = opened.retire;
        let before = self.link.adopt.is_some() || self.link.inherit.is_some();
        if before && self.link.adopting.is_empty() {
            // The records of before are gone: what the kept catalog says of them is over.
            self.desk.adopted = Adopted::default();
        }
        (self.link.adopt, self.link.inherit, self.link.retry) = (None, None, None);
    }

    fn on_synced(&mut self, asked: &[String], result: Result<Synced, StoreError>) {
        match result {
            Ok(Synced { page, watch, node_watch }) => {
                self.desk.adopt(&std::mem::take(&mut self.link.adopting), &page);
                self.link.found.clear();
                self.desk.read(asked, &page);
                self.node.read(&page);
                (self.link.watch, self.link.node_watch) = (Some(watch), Some(node_watch));
                (self.link.reread, self.link.retry) = (Vec::new(), None);
            }
            Err(error) => self.on_error(&error),
        }
    }

    fn on_committed(&mut self, ops: &[Op], lease: LeaseId, result: Result<Commit, StoreError>) {
        match result {
            Ok(Commit::Done(revision)) => {
                self.metrics.writes.inc_by(ops.len() as u64);
                ops.iter().for_each(tell);
                (self.link.retry, self.link.refused) = (None, false);
                self.link.chunk = MAX_WRITES;
                if self.desk.committed(ops, lease, revision) {
                    (self.dirty, self.progress) = (false, true);
                }
            }
            Ok(Commit::Refused(_)) => {
                self.metrics.refused.inc();
                self.link.reread = ops.iter().map(|op| op.key.clone()).collect();
                // Once is somebody else's write in between. Again and again is a contest, not to be held at full speed.
                if std::mem::replace(&mut self.link.refused, true) {
                    self.pause();
                }
            }
            Err(StoreError::Refused { tried, why }) => {
                tracing::warn!(?tried, ?why, key = ?ops.first().map(|op| &op.key), "the store refuses a write");
                self.link.chunk = 1;
                self.pause();
            }
            Err(error) => {
                // It may have been made or not: only reading tells, also of keys that nobody wants any more by then.
                self.link.found.extend(ops.iter().map(|op| op.key.clone()));
                self.link.unwatch();
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
    pub(super) fn pause(&mut self) {
        let pause = self.link.retry.map_or(FIRST_RETRY, |last| (last * 2).min(LAST_RETRY));
        self.link.retry = Some(pause);
        let rest = Instant::now() + pause;
        self.link.rest = Some(self.link.rest.map_or(rest, |earlier| earlier.max(rest)));
    }
}

/// One line for each record that now stands or stands no longer.
fn tell(op: &Op) {
    match &op.change {
        Change::Put(record) => {
            let role = record.role.map(|role| format!(" {role}")).unwrap_or_default();
            tracing::info!("published {} at {}{role}", op.key, place(&record.host, record.port));
        }
        Change::Delete => tracing::info!("withdrawn {}", op.key),
    }
}
