//! One table at work: what it waits for, and when it is due.

use std::sync::Arc;
use std::time::Duration;

use super::board::Board;
use super::pass::{End, Pass};
use super::table::Table;
use crate::catalog::render::{Backoff, Hold, Need, Needs, Pace, Sight, Source, hold};

/// One table at work.
pub(super) struct Job {
    pub(super) table: Arc<Table>,
    /// Its template, or why it is of no use.
    pub(super) source: Result<Arc<Source>, String>,
    pub(super) board: Arc<Board>,
    /// A pass is under way.
    pub(super) is_busy: bool,
    /// What a crash left has been taken up.
    is_recovered: bool,
    /// The last reload failed, and the old file was put back.
    is_rolled_back: bool,
    /// What stands on the board is that a reload failed.
    is_unloaded: bool,
    pace: Pace,
    needs: Needs,
    held: Option<Hold>,
    retry: Backoff,
}

impl Job {
    pub(super) fn new(table: &Table) -> Self {
        let mut job = Self {
            table: Arc::new(table.clone()),
            source: Err(String::new()),
            board: Board::new(table),
            is_busy: false,
            is_recovered: false,
            is_rolled_back: false,
            is_unloaded: false,
            pace: Pace::default(),
            needs: Needs::default(),
            held: None,
            retry: Backoff::default(),
        };
        job.read();
        job
    }

    /// Reads its template again; another text is due at once.
    pub(super) fn read(&mut self) {
        let source = self.table.source().map(Arc::new);
        if source == self.source {
            return;
        }
        match (&source, &self.source) {
            // What is there goes on with the template that was fine.
            (Err(what), Ok(_)) => drop(self.stands("wrong", Some(what))),
            (Err(what), Err(_)) => {
                self.stands("wrong", Some(what));
                self.source = source;
            }
            (Ok(_), _) => {
                self.source = source;
                self.retry.reset();
                self.pace.ask();
            }
        }
    }

    /// Takes another table of the same name.
    pub(super) fn adopt(&mut self, table: &Table) {
        if *self.table != *table {
            let is_elsewhere = self.table.destination != table.destination;
            self.table = Arc::new(table.clone());
            self.is_recovered &= !is_elsewhere;
            self.board.is_of(table);
            self.retry.reset();
            self.pace.ask();
        }
        self.read();
    }

    /// Takes in what there is to be seen now.
    pub(super) fn look(&mut self, sight: &Sight, now: Duration) {
        if self.needs.look(sight) {
            self.pace.changed(now);
        }
        if self.held.is_some() {
            let held = hold(&self.needs, &self.table.min, sight);
            if held != self.held {
                // The first that there is to be seen is no change of anything: it is not waited for.
                if matches!(self.held, Some(Hold::Unread(_))) {
                    self.pace.ask();
                } else {
                    self.pace.changed(now);
                }
                self.held = held;
            }
        }
    }

    /// When its next pass is due; none while there is nothing to do. `not_before` is what its reload asks for.
    pub(super) fn due(&self, not_before: Duration) -> Option<Duration> {
        if self.is_busy || (self.source.is_err() && self.is_recovered) {
            return None;
        }
        if !self.is_recovered {
            return Some(Duration::ZERO);
        }
        let due = [self.pace.due(self.table.wait), self.retry.next()].into_iter().flatten().min()?;
        Some(due.max(not_before))
    }

    /// A pass begins; whether it is the first, which takes up what a crash has left.
    pub(super) fn begin(&mut self) -> bool {
        self.is_busy = true;
        self.pace.take();
        self.retry.begin();
        !std::mem::replace(&mut self.is_recovered, true)
    }

    /// A pass has ended; what is owed to be loaded now, by its digest.
    pub(super) fn finish(&mut self, pass: Pass, sight: &Sight, now: Duration) -> Option<String> {
        self.is_busy = false;
        self.needs = pass.needs;
        self.held = pass.held;
        self.board.calls(self.needs.iter());
        self.board.owes(pass.owed.is_some());
        self.settle(pass.end, now);
        self.look(sight, now);
        pass.owed
    }

    fn settle(&mut self, end: End, now: Duration) {
        match end {
            End::Same => {
                let time = std::fs::metadata(&self.table.destination).and_then(|facts| facts.modified());
                time.into_iter().for_each(|time| self.board.is_of_time(time));
                self.retry.reset();
                self.stands("current", None);
            }
            End::Written => {
                self.is_rolled_back = false;
                if !self.table.rollback {
                    self.retry.reset(); // else it is known to be good only when it is loaded
                }
                self.board.written();
                self.stands("current", None);
                tracing::info!(name = self.table.name, file = %self.table.destination.display(), "file written");
            }
            End::Waits(why) => {
                if self.stands("waiting", Some(&why)) {
                    tracing::info!(name = self.table.name, why, "the last good file stays");
                }
            }
            End::Wrong(what) => {
                if self.stands("wrong", Some(&what)) {
                    tracing::error!(name = self.table.name, what, "the template is wrong");
                }
            }
            End::Refused(what) => {
                self.board.refused();
                self.fails("refused", &what, now);
            }
            End::Failed(what) => self.fails("failed", &what, now),
        }
    }

    /// It did not work, and is tried again later.
    pub(super) fn fails(&mut self, state: &str, what: &str, now: Duration) {
        self.retry.failed(now);
        if self.stands(state, Some(what)) {
            tracing::error!(name = self.table.name, state, what, "the new file is not in place");
        }
    }

    /// What its template called.
    pub(super) fn needs(&self) -> impl Iterator<Item = &Need> {
        self.needs.iter()
    }

    /// Its reload has ended; `failed` is what was said then.
    pub(super) fn reloaded(&mut self, failed: Option<&str>, is_still_owed: bool, now: Duration) {
        self.board.reloaded(failed.is_none());
        self.board.owes(is_still_owed);
        match failed {
            None if is_still_owed || self.is_rolled_back => {}
            None => {
                if std::mem::take(&mut self.is_unloaded) && self.board.is("failed") {
                    self.stands("current", None);
                }
                if self.board.is("current") {
                    self.retry.reset();
                }
            }
            // The old file is back: the new one is tried again later, from the beginning.
            Some(what) if self.table.rollback => {
                self.is_rolled_back = true;
                self.fails("failed", &format!("reload: {what}"), now);
            }
            Some(what) => {
                self.is_unloaded = true;
                if self.stands("failed", Some(&format!("written, but not loaded: {what}"))) {
                    tracing::error!(name = self.table.name, what, "the reload failed and is tried again");
                }
            }
        }
    }

    fn stands(&self, state: &str, reason: Option<&str>) -> bool {
        self.board.stands(state, reason)
    }
}
