//! A model of the store: a hold with a lease, a journal, what was applied; restored from a copy, or emptied.

use wharf::model::steer::journal::Journal;
use wharf::model::steer::topology::Applied;

/// How long a hold lives without a word of its operator.
pub const TTL: u64 = 5_000;

#[derive(Clone, Debug, Default)]
pub struct State {
    pub revision: u64,
    /// Whose, and until when.
    pub hold: Option<(u64, u64)>,
    pub journal: Option<(Journal, u64)>,
    pub applied: Option<(Applied, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct Store {
    pub now: State,
    pub copy: Option<State>,
    /// The revision that the store had when it was last seen to have gone back.
    pub begun: Option<u64>,
}

/// A commit under way. It may arrive at any time, or never.
#[derive(Clone, Debug)]
pub struct Commit {
    pub operator: u64,
    pub attempt: u64,
    pub revision: Option<u64>,
    pub journal: Journal,
    pub applied: Option<Applied>,
}

impl Store {
    pub fn expire(&mut self, time: u64) {
        if self.now.hold.is_some_and(|(_, until)| time >= until) {
            self.now.hold = None;
        }
    }

    /// The revision at which the hold was taken.
    pub fn take_hold(&mut self, operator: u64, time: u64) -> Option<u64> {
        self.expire(time);
        if self.now.hold.is_some() {
            return None;
        }
        self.now.revision += 1;
        self.now.hold = Some((operator, time + TTL));
        Some(self.now.revision)
    }

    pub fn let_go(&mut self, operator: u64) {
        if self.now.hold.is_some_and(|(whose, _)| whose == operator) {
            self.now.hold = None;
        }
    }

    /// The journal's revision when it was written, `None` when a condition did not hold.
    pub fn commit(&mut self, commit: &Commit, time: u64) -> Option<u64> {
        self.expire(time);
        let holds = self.now.hold.is_some_and(|(whose, _)| whose == commit.operator);
        let unchanged = self.now.journal.as_ref().map(|(_, revision)| *revision) == commit.revision;
        if !holds || !unchanged {
            return None;
        }
        self.now.revision += 1;
        self.now.journal = Some((commit.journal.clone(), self.now.revision));
        if let Some(applied) = &commit.applied {
            self.now.applied = Some((applied.clone(), self.now.revision));
        }
        Some(self.now.revision)
    }

    /// Prolongs the hold of one who made a step.
    pub fn renew(&mut self, operator: u64, time: u64) -> bool {
        self.expire(time);
        match &mut self.now.hold {
            Some((whose, until)) if *whose == operator => {
                *until = time + TTL;
                true
            }
            _ => false,
        }
    }

    /// Whether what is there at `revision`, by one who took the hold at `held`, was written since.
    pub fn trusts(&self, revision: u64, held: i64) -> bool {
        self.begun.is_none_or(|begun| revision.min(held as u64) > begun)
    }

    pub fn save(&mut self) {
        self.copy = Some(self.now.clone());
    }

    /// Goes back to its copy, whose leases live on.
    pub fn restore(&mut self, time: u64) {
        if let Some(copy) = self.copy.clone() {
            self.now = copy;
            self.now.hold = self.now.hold.map(|(whose, _)| (whose, time + TTL));
            self.begun = Some(self.now.revision);
        }
    }

    pub fn wipe(&mut self) {
        self.now = State { revision: 1, ..State::default() };
        self.begun = Some(1);
    }
}
