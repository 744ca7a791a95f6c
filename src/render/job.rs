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
    /// When something was last seen that is new.
    seen: Duration,
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
            seen: Duration::ZERO,
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
        self.seen = now;
        self.compare(sight);
    }

    /// Whether what there is to be seen now is another thing than it was.
    fn compare(&mut self, sight: &Sight) -> bool {
        let mut differs = self.needs.look(sight);
        if self.held.is_some() {
            let held = hold(&self.needs, &self.table.min, sight);
            if held != self.held {
                // The first that there is to be seen is no change of anything: it is not waited for.
                if matches!(self.held, Some(Hold::Unread(_))) {
                    self.pace.ask();
                } else {
                    differs = true;
                }
                self.held = held;
            }
        }
        if differs {
            self.pace.changed(self.seen);
        }
        differs
    }

    /// What came while the file was being made is due by when it came; what is in the file already is not.
    fn catch_up(&mut self, sight: &Sight) {
        let noted = self.pace;
        if self.compare(sight) {
            self.pace.as_noted(noted);
        } else {
            self.pace.caught_up();
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
        self.catch_up(sight);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::facade::api;
    use crate::catalog::render::{Builtin, Wait};
    use crate::render::table::Origin;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A table that lists all services, quiet for 200 ms, in this folder.
    fn table(folder: &std::path::Path) -> Table {
        Table {
            name: "hosts".into(),
            from: Origin::Builtin(Builtin::parse("hosts").expect("a built-in")),
            with: Arc::default(),
            destination: folder.join("hosts"),
            mode: None,
            owner: None,
            group: None,
            check: Vec::new(),
            reload: Vec::new(),
            wait: Wait { least: at(200), most: at(5_000) },
            min: BTreeMap::new(),
            min_interval: Duration::ZERO,
            timeout: at(30_000),
            inplace: false,
            check_in_place: false,
            rollback: false,
        }
    }

    /// A service whose one endpoint has this port.
    fn sight(port: u16) -> Sight {
        let service = format!(r#"{{"name":"web","endpoints":[{{"key":"a","host":"10.0.0.1","port":{port}}}]}}"#);
        let service = serde_json::from_str(&service).expect("a service");
        let mut sight = Sight::default();
        sight.snapshot(api::Services { revision: 1, stale: false, services: vec![service] });
        sight
    }

    #[test]
    fn what_comes_while_a_file_is_made_counts_from_when_it_came_and_what_is_in_it_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut job = Job::new(&table(folder.path()));
        let made = |job: &Job, sight: &Sight| {
            let source = job.source.clone().expect("a built-in is fine");
            super::super::pass::pass(&job.table, Ok(&source), sight, &BTreeMap::new())
        };
        let (first, second, third) = (sight(1), sight(2), sight(3));
        job.look(&first, at(0));
        job.begin();
        let pass = made(&job, &first);
        job.look(&second, at(1_000));
        job.finish(pass, &second, at(6_000)); // a check took its time
        assert_eq!(
            job.due(Duration::ZERO),
            Some(at(1_200)),
            "it waits for quiet since the change, not since the check"
        );
        job.begin();
        let pass = made(&job, &third); // the newest, before it is looked at
        job.look(&third, at(6_100));
        assert_eq!(job.due(Duration::ZERO), None, "it is being made");
        job.finish(pass, &third, at(6_200));
        assert_eq!(job.due(Duration::ZERO), None, "it is in the file");
        job.look(&first, at(7_000));
        assert_eq!(job.due(Duration::ZERO), Some(at(7_200)));
    }
}
