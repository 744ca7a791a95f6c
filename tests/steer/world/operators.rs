//! What operators do in a history: begin, act, write, and die.

use std::collections::VecDeque;

use wharf::model::steer::command::Command;
use wharf::model::steer::journal::Stage;
use wharf::model::steer::seen::Seen;
use wharf::model::steer::server::Sight;

use super::{Connection, HOSTS, World};
use crate::Mischief;
use crate::operator::{Act, Operator, Waits, servers};
use crate::store::Commit;

impl World {
    pub(super) fn operator_acts(&mut self) {
        let host = self.dice.below(HOSTS);
        let Some(mut operator) = self.operators[host].take() else { return };
        let over = match &operator.waits {
            Waits::Replies(_) => false,
            Waits::Nothing => self.act(host, &mut operator),
            // No answer for too long: the same once more.
            Waits::Written { .. } => {
                if self.time >= operator.deadline {
                    true
                } else if self.dice.chance(30) {
                    self.is_unsure(&mut operator)
                } else {
                    false
                }
            }
        };
        if over {
            self.end(host, &operator);
        } else {
            self.operators[host] = Some(operator);
        }
    }

    pub(super) fn is_unsure(&mut self, operator: &mut Operator) -> bool {
        if let Waits::Written { unsure, journal, .. } = &mut operator.waits {
            *unsure = true;
            let frozen =
                journal.stage == Stage::Promote && operator.journal.as_ref().is_some_and(|j| j.stage == Stage::Intent);
            if self.mischief == Some(Mischief::UndoWithoutStore) && frozen {
                let old = journal.old.as_ref().map(|old| old.name.parse::<usize>().unwrap());
                let id = operator.id;
                let connections = old.map(|old| self.connections[old].as_mut_slice()).unwrap_or_default();
                for connection in connections.iter_mut().filter(|connection| connection.operator == id) {
                    connection.queue.push_back(Some(Command::Undo));
                }
                return true;
            }
        }
        self.commits.extend(operator.commit());
        false
    }

    pub(super) fn act(&mut self, host: usize, operator: &mut Operator) -> bool {
        match operator.act(self.time) {
            Act::End => return true,
            Act::Commit(commit) => {
                self.tell(|| format!("{} writes {:?}", operator.id, commit.journal.stage));
                self.known[host] = self.known[host].max(commit.journal.number);
                self.commits.push(commit);
            }
            Act::Send(commands) => {
                for (at, command) in commands {
                    self.send(operator, at, command);
                }
            }
        }
        false
    }

    /// Nothing is sent after the hold's deadline, which `step` has looked at in this very moment.
    pub(super) fn send(&mut self, operator: &mut Operator, at: usize, command: Option<Command>) {
        self.tell(|| format!("{} sends {command:?} to {at}", operator.id));
        let id = operator.id;
        if let Some(command) = command.as_ref().filter(|command| is_late(self.mischief, command)) {
            self.strays.push((at, id, command.clone()));
        }
        if let Some(connection) = self.connections[at].iter_mut().find(|connection| connection.operator == id) {
            return connection.queue.push_back(command);
        }
        let time = self.time;
        operator.hears(at, command.as_ref(), Sight::Broken, time);
    }

    pub(super) fn deliver_a_commit(&mut self) {
        if self.commits.is_empty() {
            return;
        }
        let which = self.dice.below(self.commits.len());
        let commit = self.commits.swap_remove(which);
        let lost = self.dice.chance(15);
        self.make(&commit, lost);
    }

    pub(super) fn make(&mut self, commit: &Commit, lost: bool) {
        let made = self.store.commit(commit, self.time);
        self.tell(|| format!("the store has {:?} of {}: {made:?}", commit.journal.stage, commit.operator));
        if lost {
            return;
        }
        for host in 0..HOSTS {
            let Some(mut operator) = self.operators[host].take() else { continue };
            let is_its = operator.id == commit.operator && operator.attempts == commit.attempt;
            if is_its && self.hears_of_commit(&mut operator, made) {
                self.end(host, &operator);
            } else {
                self.operators[host] = Some(operator);
            }
        }
    }

    /// What became of its commit; a refusal may mean that an earlier attempt was made, which a read tells.
    pub(super) fn hears_of_commit(&mut self, operator: &mut Operator, made: Option<u64>) -> bool {
        let Waits::Written { journal, .. } = &operator.waits else { return false };
        let there =
            self.store.now.journal.as_ref().filter(|(there, _)| there == journal).map(|(_, revision)| *revision);
        match made.or(there) {
            Some(revision) if self.store.renew(operator.id, self.time) => {
                operator.written(revision, self.time);
                false
            }
            _ => !operator.refused(),
        }
    }

    pub(super) fn end(&mut self, host: usize, operator: &Operator) {
        self.tell(|| format!("operator {} ends", operator.id));
        self.store.let_go(operator.id);
        self.read[host] = operator.journal.clone();
        // What it sent is on its way; the connection closes behind it.
    }

    pub(super) fn crash(&mut self) {
        let host = self.dice.below(HOSTS);
        if let Some(operator) = self.operators[host].take() {
            self.tell(|| format!("operator {} dies", operator.id));
            self.read[host] = operator.journal;
        }
    }

    /// A host whose operator has nothing to do takes the hold, fences every server, and looks what there is to do.
    pub(super) fn begin(&mut self) {
        let host = self.dice.below(HOSTS);
        let wish = self.dice.below(self.machines.len());
        let wish = self.dice.chance(70).then_some(wish);
        self.begin_at(host, wish);
    }

    pub(super) fn begin_at(&mut self, host: usize, wish: Option<usize>) {
        let id = self.name();
        if self.operators[host].is_some() {
            return;
        }
        let Some(held) = self.store.take_hold(id, self.time) else { return };
        let mut operator = Operator::new(id, held, self.sees(host, id), self.time);
        let journal = self.store.now.journal.clone();
        let wish = wish.map(|wish| wish.to_string());
        operator.revision = journal.as_ref().map(|(_, revision)| *revision);
        let last = journal.as_ref().map(|(journal, _)| journal);
        self.known[host] = self.known[host].max(last.map_or(0, |last| last.number));
        if self.mischief == Some(Mischief::ReplaysJournal)
            && self.read[host].as_ref().is_some_and(|read| !read.is_over())
        {
            operator.journal = self.read[host].clone();
            self.operators[host] = Some(operator);
            return;
        }
        let trusted = operator.seen.trusted;
        if let Some((journal, revision)) = &journal {
            operator.seen.trusted &= self.store.trusts(*revision, journal.held);
        }
        let first = operator.first(last, self.known[host], wish.as_deref(), self.mischief);
        operator.seen.trusted = trusted;
        let Some((journal, applied)) = first else { return self.store.let_go(id) };
        self.known[host] = self.known[host].max(journal.number);
        self.tell(|| format!("operator {id} begins {:?} {:?} {}", journal.kind, journal.stage, journal.target.name));
        operator.wait_for(journal, applied);
        self.commits.extend(operator.commit());
        self.operators[host] = Some(operator);
    }

    /// Fences whom it reaches: every other connection of an operation is killed, with what was sent over it.
    pub(super) fn sees(&mut self, host: usize, id: u64) -> Seen {
        // A freeze without a journal has been waited for: what is done then is what may be unsafe.
        let differs_for = std::time::Duration::from_secs(60);
        let mut seen = Seen { servers: servers(self.machines.len()), differs_for, ..Default::default() };
        let applied = self.store.now.applied.clone();
        seen.trusted = applied.as_ref().is_none_or(|(applied, revision)| self.store.trusts(*revision, applied.held));
        seen.applied = applied.map(|(applied, _)| applied);
        for at in 0..self.machines.len() {
            if !self.machines[at].up || self.cut[at][host] {
                continue;
            }
            self.connections[at].clear();
            for other in self.operators.iter_mut().flatten() {
                // The one that was killed hears of it when it waits for this server, or sends to it.
                if matches!(&other.waits, Waits::Replies(waits) if waits.contains(&at)) {
                    other.hears(at, None, Sight::Broken, self.time);
                }
            }
            self.connections[at].push(Connection { operator: id, queue: VecDeque::new() });
            let state = Sight::Answers(Box::new(self.machines[at].state()));
            if let Some(entry) = seen.servers.get_mut(&at.to_string()) {
                entry.1 = state;
            }
        }
        seen
    }
}

/// A command that a planted bug sends over a connection of no operation, too, which no fence finds.
fn is_late(mischief: Option<Mischief>, command: &Command) -> bool {
    match mischief {
        Some(Mischief::LateNoOne) => matches!(command, Command::Promote),
        Some(Mischief::LateRelease) => matches!(command, Command::Release { .. }),
        _ => false,
    }
}
