//! An operator of the model: the shell around the step function, as the program's own is, one act at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use wharf::model::steer::begin::{self, Wish, begin};
use wharf::model::steer::command::Command;
use wharf::model::steer::heal::heal;
use wharf::model::steer::journal::{Journal, Stage};
use wharf::model::steer::seen::Seen;
use wharf::model::steer::server::Sight;
use wharf::model::steer::step::{Step, step};
use wharf::model::steer::takeover::take_over;
use wharf::model::steer::topology::{Applied, Server};

use crate::Mischief;
use crate::store::{Commit, TTL};

/// What is kept back of the hold's time for clocks that differ.
const MARGIN: u64 = 300;

/// What an operator has asked, and not yet heard of.
#[derive(Clone, Debug)]
pub enum Waits {
    Nothing,
    /// For the replies of these servers.
    Replies(Vec<usize>),
    /// For a commit; whether an earlier attempt of it is still on its way.
    Written {
        journal: Journal,
        applied: Option<Applied>,
        unsure: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Operator {
    pub id: u64,
    /// The store's revision when it took the hold.
    held: i64,
    pub journal: Option<Journal>,
    pub revision: Option<u64>,
    pub seen: Seen,
    pub began: u64,
    pub deadline: u64,
    pub waits: Waits,
    pub attempts: u64,
}

/// What the world is to do for it.
pub enum Act {
    Commit(Commit),
    Send(Vec<(usize, Option<Command>)>),
    End,
}

impl Operator {
    /// One that has the hold and its connections, and has sent nothing yet.
    pub fn new(id: u64, held: u64, seen: Seen, time: u64) -> Self {
        Self {
            id,
            held: held as i64,
            journal: None,
            revision: None,
            seen,
            began: time,
            deadline: time + TTL - MARGIN,
            waits: Waits::Nothing,
            attempts: 0,
        }
    }

    /// The first commit of its part: a takeover, a switch or what heals; nothing when there is nothing to do.
    pub fn first(
        &self,
        last: Option<&Journal>,
        number: u64,
        wish: Option<&str>,
        mischief: Option<Mischief>,
    ) -> Option<(Journal, Option<Applied>)> {
        let name = self.id.to_string();
        let operator = begin::Operator { name: &name, last: number, before: last };
        if let Some(journal) = last.filter(|journal| !journal.is_over()) {
            let mut taken = take_over(journal, &name, self.seen.trusted);
            let is_master = |name: &str| self.seen.state(name).is_some_and(|state| state.is_master());
            if mischief == Some(Mischief::DecidesAnew)
                && taken.stage == Stage::Promote
                && !is_master(&taken.target.name)
            {
                (taken.stage, taken.last) = (Stage::Abort, None);
            }
            return Some((taken, None));
        }
        let healed = heal(&self.seen, operator).ok().flatten();
        let wished = || {
            let wish = Wish { master: wish?.to_owned(), slaves: vec![], force: false, max_pause: 200 };
            begin(&wish, &self.seen, operator).ok()
        };
        healed.or_else(wished).map(|journal| (journal, None))
    }

    pub fn wait_for(&mut self, journal: Journal, applied: Option<Applied>) {
        let held = self.held;
        let (journal, applied) = (Journal { held, ..journal }, applied.map(|applied| Applied { held, ..applied }));
        self.waits = Waits::Written { journal, applied, unsure: false };
    }

    /// The commit that it waits for, once more.
    pub fn commit(&mut self) -> Option<Commit> {
        let Waits::Written { journal, applied, .. } = &self.waits else { return None };
        self.attempts += 1;
        Some(Commit {
            operator: self.id,
            attempt: self.attempts,
            revision: self.revision,
            journal: journal.clone(),
            applied: applied.clone(),
        })
    }

    /// What it does when it waits for nothing.
    pub fn act(&mut self, time: u64) -> Act {
        let Some(journal) = &self.journal else { return Act::End };
        self.seen.hold_left = Duration::from_millis(self.deadline.saturating_sub(time));
        match step(journal, &self.seen, self.now(time)) {
            Step::Write { journal, applied } => {
                self.wait_for(*journal, applied.map(|applied| *applied));
                self.commit().map_or(Act::End, Act::Commit)
            }
            Step::Send(commands) => {
                let commands: Vec<_> =
                    commands.into_iter().map(|(name, command)| (index(&name), Some(command))).collect();
                self.waits = Waits::Replies(commands.iter().map(|(at, _)| *at).collect());
                Act::Send(commands)
            }
            Step::Look(names) => {
                self.waits = Waits::Replies(names.iter().map(|name| index(name)).collect());
                Act::Send(names.iter().map(|name| (index(name), None)).collect())
            }
            Step::End(_) => Act::End,
        }
    }

    pub fn now(&self, time: u64) -> Duration {
        Duration::from_millis(time - self.began)
    }

    /// Takes a reply in.
    pub fn hears(&mut self, from: usize, command: Option<&Command>, sight: Sight, time: u64) {
        let now = self.now(time);
        let entry = self.seen.servers.get_mut(&from.to_string()).unwrap();
        let before = entry.1.state().cloned();
        entry.1 = sight;
        if let Sight::Answers(state) = &mut entry.1 {
            if let Some(before) = before {
                (state.paused, state.frozen, state.unpaused) = (before.paused, before.frozen, before.unpaused);
            }
            match command {
                Some(Command::Pause) => state.paused = Some((now, state.position.offset)),
                Some(Command::Freeze(_)) => state.frozen = Some(now),
                Some(Command::Undo | Command::Unpause) => state.unpaused = true,
                _ => {}
            }
        }
        if let Waits::Replies(waits) = &mut self.waits {
            waits.retain(|at| *at != from);
            if waits.is_empty() {
                self.waits = Waits::Nothing;
            }
        }
    }

    /// The commit was made.
    pub fn written(&mut self, revision: u64, time: u64) {
        if let Waits::Written { journal, applied, .. } = std::mem::replace(&mut self.waits, Waits::Nothing) {
            (self.journal, self.revision) = (Some(journal), Some(revision));
            if applied.is_some() {
                (self.seen.applied, self.seen.trusted) = (applied, true);
            }
            self.deadline = time + TTL - MARGIN;
        }
    }

    /// The commit was refused, and what the store has is not it. Whether there is anything left to do.
    pub fn refused(&mut self) -> bool {
        let Waits::Written { unsure, .. } = std::mem::replace(&mut self.waits, Waits::Nothing) else { return true };
        self.seen.store_lost = true;
        // Only what was never decided may be undone, and only if no decision of it can be on its way.
        !unsure && self.journal.as_ref().is_some_and(|journal| journal.stage == Stage::Intent)
    }
}

pub fn index(name: &str) -> usize {
    name.parse().unwrap()
}

/// The registry's word on where the servers are.
pub fn servers(count: usize) -> BTreeMap<String, (Server, Sight)> {
    (0..count)
        .map(|at| {
            let server = Server { name: at.to_string(), host: at.to_string(), port: 1, ..Server::default() };
            (at.to_string(), (server, Sight::Unreached("not asked".to_owned())))
        })
        .collect()
}
