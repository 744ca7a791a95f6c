//! What a host does for its number, by what it has read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::entry::{Entry, Holding, Stored};
use crate::model::words::ordinal::HIGHEST;
use crate::model::words::record::Text;

/// How long a claim has to stand before it counts. In a store that went back holders come first: they need a part of
/// it.
pub const UNCONTRADICTED: Duration = Duration::from_secs(5);
/// So long after the store went back another's number may be of before: its holder writes his own again by then.
pub const SETTLING: Duration = Duration::from_secs(2);
/// When it is looked again where another host has something to do first.
const AGAIN: Duration = Duration::from_millis(500);

/// Who claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// The host's name.
    pub node: Text,
    /// Its machine, when it has an identity.
    pub machine: Option<Text>,
}

impl Me {
    /// Whether a machine may be this one: where either has no identity nothing tells them apart.
    fn is_machine(&self, other: Option<&Text>) -> bool {
        self.machine.is_none() || other.is_none() || self.machine.as_ref() == other
    }
}

/// An agent that lives, as its node record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its host.
    pub node: Text,
    /// Its machine.
    pub machine: Option<Text>,
    /// The number that it has for the role.
    pub number: Option<u32>,
}

/// What was read of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its numbers.
    pub numbers: BTreeMap<u32, Stored>,
    /// Who lives.
    pub agents: Vec<Agent>,
}

/// A write of a number, on the condition that its key is as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The number.
    pub number: u32,
    /// The revision that is written over; none where there is no such key.
    pub over: Option<i64>,
    /// What is to stand there.
    pub entry: Entry,
    /// A number of this host's from before, and its revision: it goes in the same commit.
    pub instead_of: Option<(u32, i64)>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing: the number is this host's.
    Have(Holding),
    /// Write, then tell of it ([`Claimer::wrote`]) and look again.
    Write(Write),
    /// Look again at that time: until then the claim may be contradicted.
    At(Duration),
    /// The number was freed: delete its key and forget it.
    Released {
        /// The number.
        number: u32,
        /// The revision that says so.
        revision: i64,
    },
    /// The number is another's now.
    Lost {
        /// The number.
        number: u32,
        /// Whose it is.
        to: Text,
    },
    /// An agent of this name lives on another machine.
    Refused {
        /// That machine.
        machine: Text,
    },
    /// No number is free.
    Full,
}

/// A claim of this host's that does not count yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    number: u32,
    revision: i64,
    since: Duration,
}

/// One host that claims a number of one role.
#[derive(Clone, Debug)]
pub struct Claimer {
    me: Me,
    holding: Option<Holding>,
    pending: Option<Pending>,
    /// Until then the store may still lack what holders write again.
    settled: Duration,
    /// When the store said last that the number is this host's.
    confirmed: Option<Duration>,
    /// It said so just before it went back: nobody else's claim can have come to count since.
    sure: bool,
}

impl Claimer {
    /// One who goes on from what was remembered, if that was of this host.
    pub fn new(me: Me, kept: Option<Holding>) -> Self {
        let own = |kept: &Holding| kept.node == me.node && me.is_machine(kept.machine.as_ref());
        let holding = kept.filter(own);
        Self { holding, me, pending: None, settled: Duration::ZERO, confirmed: None, sure: false }
    }

    /// The number that it has, or had.
    pub fn holding(&self) -> Option<&Holding> {
        self.holding.as_ref()
    }

    /// The store went back, or is another one: a claim has to stand anew.
    pub fn went_back(&mut self, now: Duration) {
        self.pending = None;
        self.settled = now + SETTLING;
        self.sure = self.confirmed.is_some_and(|at| now < at + UNCONTRADICTED);
    }

    /// Nothing has changed until now of what the last look saw.
    pub fn unchanged(&mut self, now: Duration) {
        self.confirmed = self.confirmed.map(|_| now);
    }

    /// It has no number any more, and claims a new one when it looks again.
    pub fn forget(&mut self) {
        (self.holding, self.pending) = (None, None);
    }

    /// A write was made, at this revision.
    pub fn wrote(&mut self, now: Duration, write: &Write, revision: i64) {
        let number = write.number;
        if write.entry.tentative {
            self.pending = Some(Pending { number, revision, since: now });
        } else {
            self.hold(number, &write.entry);
        }
    }

    /// What is to be done. `time` is the RFC 3339 time that a new claim is written with.
    pub fn look(&mut self, now: Duration, time: &str, seen: &Seen) -> Act {
        if let Some(newer) = self.newer_than_kept(seen) {
            self.holding = None;
            if let Some((number, entry)) = newer.and_then(|number| Some((number, entry_of(seen, number)?))) {
                self.hold(number, entry);
            }
        }
        let act = match self.holding.clone() {
            Some(holding) => self.keep(now, time, holding, seen),
            None => self.claim(now, time, seen),
        };
        match act {
            Act::Have(_) => self.confirmed = Some(now),
            Act::Lost { .. } | Act::Released { .. } => self.confirmed = None,
            _ => {}
        }
        act
    }

    fn hold(&mut self, number: u32, entry: &Entry) -> Holding {
        self.pending = None;
        let since = entry.since.clone();
        let (node, machine) = (self.me.node.clone(), self.me.machine.clone());
        let holding = Holding { number, node, machine, since, lost_to: None };
        self.holding = Some(holding.clone());
        holding
    }

    /// Whether the store has another number of this host's, claimed later than what is remembered: the number, or
    /// nothing where it does not count yet and the one that is remembered is another's.
    fn newer_than_kept(&self, seen: &Seen) -> Option<Option<u32>> {
        let holding = self.holding.as_ref()?;
        let (number, stored) = self.own(seen, Some(holding.number))?;
        let entry = stored.entry.as_ref()?;
        let is_newer = entry.since > holding.since && !entry.released && self.me.is_machine(entry.machine.as_ref());
        let is_over = entry_of(seen, holding.number).is_some_and(|kept| kept.node != self.me.node);
        match entry.tentative {
            false => is_newer.then_some(Some(number)),
            true => (is_newer && is_over).then_some(None),
        }
    }

    /// A number that bears this host's name, but for one: one that counts before others, then the lowest.
    fn own<'s>(&self, seen: &'s Seen, but: Option<u32>) -> Option<(u32, &'s Stored)> {
        let own = seen.numbers.iter().filter(|(number, stored)| {
            let is_own = stored.entry.as_ref().is_some_and(|entry| entry.node == self.me.node);
            is_own && Some(**number) != but
        });
        let rank = |stored: &Stored| stored.entry.as_ref().is_some_and(|entry| entry.tentative || entry.released);
        own.min_by_key(|(number, stored)| (rank(stored), **number)).map(|(number, stored)| (*number, stored))
    }

    /// Keeps what it has. What is written where it stood no more is of now: should the store go back, the later of two
    /// that held a number is right.
    fn keep(&mut self, now: Duration, time: &str, holding: Holding, seen: &Seen) -> Act {
        let number = holding.number;
        if let Some(to) = holding.lost_to {
            return Act::Lost { number, to };
        }
        let of_this_machine =
            |stored: &Stored| stored.entry.as_ref().is_some_and(|entry| self.me.is_machine(entry.machine.as_ref()));
        let before = self.own(seen, Some(number)).filter(|(_, stored)| of_this_machine(stored));
        let before = before.map(|(number, stored)| (number, stored.revision));
        let again = |over| Act::Write(self.again(number, time.into(), over, before));
        let Some(stored) = seen.numbers.get(&number) else { return again(None) };
        let over = Some(stored.revision);
        let Some(entry) = &stored.entry else { return again(over) };
        let is_own = entry.node == self.me.node && self.me.is_machine(entry.machine.as_ref());
        match entry {
            _ if is_own && entry.released => Act::Released { number, revision: stored.revision },
            _ if is_own && (entry.tentative || before.is_some()) => {
                Act::Write(self.again(number, holding.since, over, before))
            }
            _ if is_own => Act::Have(holding),
            _ if entry.released && self.waits_for(&seen.agents, &entry.node, number) => Act::At(now + AGAIN),
            _ if entry.released || entry.tentative => again(over),
            // The store went back to when it was another's: it was freed since, or it would not have been claimed. Or
            // one who was away wrote his of before into it: the host that goes by the number now keeps it.
            _ if now < self.settled && (self.sure || entry.since < holding.since) => again(over),
            _ if now < self.settled => Act::At(self.settled),
            _ => {
                // Whatever becomes of the key from here on: another one has had it, and may have it still.
                let to = entry.node.clone();
                self.holding = Some(Holding { lost_to: Some(to.clone()), ..holding });
                Act::Lost { number, to }
            }
        }
    }

    /// Whether another agent lives that goes by a number that was freed: this host, which may be called alike, is none.
    fn waits_for(&self, agents: &[Agent], node: &str, number: u32) -> bool {
        let is_me = |agent: &Agent| agent.node == self.me.node && self.me.is_machine(agent.machine.as_ref());
        agents.iter().any(|agent| !is_me(agent) && &*agent.node == node && agent.number == Some(number))
    }

    /// The write of a number that counts already.
    fn again(&self, number: u32, since: Text, over: Option<i64>, instead_of: Option<(u32, i64)>) -> Write {
        let (node, machine) = (self.me.node.clone(), self.me.machine.clone());
        let entry = Entry { node, machine, since, ..Entry::default() };
        Write { number, over, entry, instead_of }
    }

    /// Goes on towards a number.
    fn claim(&mut self, now: Duration, time: &str, seen: &Seen) -> Act {
        if let Some(act) = self.pend(now, seen) {
            return act;
        }
        let stranger =
            seen.agents.iter().find(|agent| agent.node == self.me.node && !self.me.is_machine(agent.machine.as_ref()));
        let Some((number, stored)) = self.own(seen, None) else {
            return match stranger.and_then(|agent| agent.machine.clone()) {
                Some(machine) => Act::Refused { machine },
                None => self.claim_lowest(time, seen),
            };
        };
        let entry = stored.entry.clone().unwrap_or_default();
        if entry.released || !self.me.is_machine(entry.machine.as_ref()) {
            // The host was installed anew, or it is another one of the same name.
            return match stranger.and_then(|agent| agent.machine.clone()) {
                Some(machine) => Act::Refused { machine },
                None => Act::Write(self.tentative(number, Some(stored.revision), time)),
            };
        }
        if entry.tentative {
            // A claim of before a crash, or before the store went back.
            self.pending = Some(Pending { number, revision: stored.revision, since: now });
            return Act::At(now + UNCONTRADICTED);
        }
        let holding = self.hold(number, &entry);
        self.keep(now, time, holding, seen)
    }

    /// What becomes of a claim that does not count yet; nothing when it was contradicted.
    fn pend(&mut self, now: Duration, seen: &Seen) -> Option<Act> {
        let pending = self.pending.take()?;
        let stored = seen.numbers.get(&pending.number).filter(|stored| stored.revision == pending.revision)?;
        let entry = stored.entry.clone().filter(|entry| entry.node == self.me.node && entry.tentative)?;
        let (number, revision, counts) = (pending.number, pending.revision, pending.since + UNCONTRADICTED);
        self.pending = Some(pending);
        if now < counts {
            return Some(Act::At(counts));
        }
        let entry = Entry { tentative: false, ..entry };
        Some(Act::Write(Write { number, over: Some(revision), entry, instead_of: None }))
    }

    fn claim_lowest(&self, time: &str, seen: &Seen) -> Act {
        let others = seen.agents.iter().filter(|agent| agent.node != self.me.node);
        let told: Vec<u32> = others.filter_map(|agent| agent.number).collect();
        let free =
            (1..=HIGHEST).filter(|number| !told.contains(number)).find_map(|number| match seen.numbers.get(&number) {
                None => Some((number, None)),
                Some(stored) => {
                    let freed = stored.entry.as_ref().filter(|entry| entry.released)?;
                    (!is_told(&seen.agents, &freed.node, number)).then_some((number, Some(stored.revision)))
                }
            });
        free.map_or(Act::Full, |(number, over)| Act::Write(self.tentative(number, over, time)))
    }

    fn tentative(&self, number: u32, over: Option<i64>, time: &str) -> Write {
        let entry = Entry {
            node: self.me.node.clone(),
            machine: self.me.machine.clone(),
            since: time.into(),
            tentative: true,
            released: false,
        };
        Write { number, over, entry, instead_of: None }
    }
}

fn entry_of(seen: &Seen, number: u32) -> Option<&Entry> {
    seen.numbers.get(&number)?.entry.as_ref()
}

/// Whether an agent lives that goes by this number, and has not seen that it was freed.
fn is_told(agents: &[Agent], node: &str, number: u32) -> bool {
    agents.iter().any(|agent| &*agent.node == node && agent.number == Some(number))
}

#[cfg(test)]
mod tests;
