//! Which leases to ask the store about, and when: at most fifty questions a second, whatever is served.
//!
//! First come leases whose life decides about records held, then foreign ones that are being served and whose
//! remainder is due to be told anew, then those nothing is known of yet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::catalog::index::{Catalog, LeaseId, LeaseTimes};

/// From one question to the next.
pub(super) const PACE: Duration = Duration::from_millis(20);
/// After a question that was not answered.
const AGAIN: Duration = Duration::from_secs(1);
/// How many leases are known before the first look for those that nothing hangs on.
const SWEEP: usize = 1_024;

/// Leases to be asked about.
#[derive(Debug, Default)]
pub(super) struct Desk {
    doubtful: VecDeque<LeaseId>,
    unknown: VecDeque<LeaseId>,
    /// Everything in `doubtful` and `unknown`, and what is being asked now.
    listed: HashSet<LeaseId>,
    /// Foreign leases: when their remainder is to be asked for again if they are served.
    due: HashMap<LeaseId, Duration>,
    served: VecDeque<LeaseId>,
    asking: Option<LeaseId>,
    not_before: Duration,
    sweep_at: usize,
}

impl Desk {
    /// Nothing is known of this lease yet.
    pub(super) fn unknown(&mut self, lease: LeaseId) {
        if lease != 0 && self.listed.insert(lease) {
            self.unknown.push_back(lease);
        }
    }

    /// Records held depend on this lease's life.
    pub(super) fn doubtful(&mut self, lease: LeaseId) {
        self.listed.insert(lease);
        if !self.doubtful.contains(&lease) {
            self.doubtful.push_back(lease);
        }
    }

    /// A foreign record on this lease has been answered.
    pub(super) fn served(&mut self, lease: LeaseId, now: Duration) {
        match self.due.get(&lease) {
            Some(due) if *due > now => {}
            Some(_) => {
                self.due.insert(lease, now + AGAIN);
                self.served.push_back(lease);
            }
            None => self.unknown(lease),
        }
    }

    /// The lease to ask about now, if any may be.
    pub(super) fn next(&mut self, now: Duration) -> Option<LeaseId> {
        if self.asking.is_some() || now < self.not_before {
            return None;
        }
        let next =
            self.doubtful.pop_front().or_else(|| self.served.pop_front()).or_else(|| self.unknown.pop_front())?;
        self.asking = Some(next);
        self.not_before = now + PACE;
        Some(next)
    }

    /// When the next question may be asked; `None` while there is none or one is under way.
    pub(super) fn wake(&self) -> Option<Duration> {
        let waiting = !(self.doubtful.is_empty() && self.served.is_empty() && self.unknown.is_empty());
        (waiting && self.asking.is_none()).then_some(self.not_before)
    }

    /// The question was answered.
    pub(super) fn answered(&mut self, lease: LeaseId, left: Option<Duration>, now: Duration) {
        self.asking = None;
        self.listed.remove(&lease);
        match left {
            Some(left) => drop(self.due.insert(lease, now + left / 3)),
            None => drop(self.due.remove(&lease)),
        }
    }

    /// It was not: later again.
    pub(super) fn unanswered(&mut self, lease: LeaseId, doubtful: bool, now: Duration) {
        self.asking = None;
        self.not_before = now + AGAIN;
        if doubtful {
            self.doubtful.push_back(lease);
        } else {
            self.unknown.push_back(lease);
        }
    }

    /// Forgets leases that nothing in the catalog hangs on, once there are many: known ones, and those to be asked
    /// about.
    pub(super) fn sweep(&mut self, catalog: &mut Catalog) {
        let known = self.due.len() + self.listed.len();
        if known < self.sweep_at.max(SWEEP) {
            return;
        }
        let used = catalog.leases_in_use();
        let asking = self.asking;
        let is_used = |lease: &LeaseId| used.contains(lease) || asking == Some(*lease);
        for lease in self.due.keys().filter(|lease| !is_used(lease)) {
            catalog.drop_lease(*lease);
        }
        self.due.retain(|lease, _| is_used(lease));
        self.listed.retain(is_used);
        for queue in [&mut self.doubtful, &mut self.unknown, &mut self.served] {
            queue.retain(is_used);
            queue.shrink_to(2 * queue.len());
        }
        self.due.shrink_to(2 * self.due.len());
        self.listed.shrink_to(2 * self.listed.len());
        self.sweep_at = 2 * (self.due.len() + self.listed.len());
    }
}

/// A lease's times on the catalog's clock.
pub(super) fn times(granted: Duration, left: Duration, now: Duration) -> LeaseTimes {
    LeaseTimes { granted, until: now + left }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn fifty_questions_a_second_at_most() {
        let mut desk = Desk::default();
        (1..1_000).for_each(|lease| desk.unknown(lease));
        let mut asked = 0;
        for now in 0..1_000 {
            if let Some(lease) = desk.next(ms(now)) {
                asked += 1;
                desk.answered(lease, Some(ms(30_000)), ms(now));
            }
        }
        assert_eq!(asked, 50);
    }

    #[test]
    fn doubt_comes_first_and_each_lease_is_asked_once() {
        let mut desk = Desk::default();
        desk.unknown(1);
        desk.unknown(1);
        desk.unknown(2);
        desk.doubtful(9);
        let mut order = Vec::new();
        for now in [0, 20, 40, 60, 80] {
            if let Some(lease) = desk.next(ms(now)) {
                order.push(lease);
                desk.answered(lease, Some(ms(30_000)), ms(now));
            }
        }
        assert_eq!(order, [9, 1, 2]);
    }

    #[test]
    fn a_served_lease_is_asked_again_after_a_third_of_its_remainder() {
        let mut desk = Desk::default();
        desk.served(5, ms(0));
        assert_eq!(desk.next(ms(0)), Some(5));
        desk.answered(5, Some(ms(3_000)), ms(0));
        desk.served(5, ms(900));
        assert_eq!(desk.next(ms(900)), None);
        desk.served(5, ms(1_000));
        desk.served(5, ms(1_001));
        assert_eq!(desk.next(ms(1_001)), Some(5));
        assert_eq!(desk.wake(), None, "one at a time");
        desk.answered(5, None, ms(1_010));
        assert_eq!((desk.next(ms(2_000)), desk.wake()), (None, None));
    }

    #[test]
    fn leases_that_nothing_hangs_on_are_forgotten() {
        let (mut desk, mut catalog) = (Desk::default(), Catalog::default());
        for lease in 1..100_000 {
            catalog.put("/services/web/1", b"10.0.0.1:80", lease, lease).expect("a record");
            desk.unknown(lease);
            if lease % 3 == 0
                && let Some(asked) = desk.next(ms(20 * lease.unsigned_abs()))
            {
                let now = ms(20 * lease.unsigned_abs());
                desk.answered(asked, Some(ms(30_000)), now);
                catalog.set_lease(asked, times(ms(30_000), ms(30_000), now));
            }
            desk.sweep(&mut catalog);
            let known = desk.due.len() + desk.listed.len() + desk.unknown.len();
            assert!(known <= 2 * SWEEP, "{known} kept");
        }
    }

    #[test]
    fn an_unanswered_question_is_put_again_after_a_while() {
        let mut desk = Desk::default();
        desk.doubtful(5);
        assert_eq!(desk.next(ms(0)), Some(5));
        desk.unanswered(5, true, ms(10));
        assert_eq!((desk.next(ms(500)), desk.wake()), (None, Some(ms(1_010))));
        assert_eq!(desk.next(ms(1_010)), Some(5));
    }
}
