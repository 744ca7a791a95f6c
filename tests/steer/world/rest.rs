//! How a history goes well for a while, and how it ends: all trouble is over, and a master is there again.

use super::{HOSTS, Promise, World};
use crate::machine::{Machine, Restart};
use crate::operator::Waits;

impl World {
    /// For a while nothing is late for one host, so that several operations fit a history.
    pub(super) fn go_well(&mut self) {
        let host = self.dice.below(HOSTS);
        let most = self.dice.below(24);
        for _ in 0..most {
            let Some(id) = self.operators[host].as_ref().map(|operator| operator.id) else { return };
            if let Some(which) = self.commits.iter().position(|commit| commit.operator == id) {
                let commit = self.commits.swap_remove(which);
                self.make(&commit, false);
            }
            for at in 0..self.machines.len() {
                if let Some(which) = self.connections[at].iter().position(|connection| connection.operator == id) {
                    self.execute_next(at, which);
                }
                self.follow(at, usize::MAX);
            }
            self.act_if_free(host);
            self.look();
        }
    }

    pub(super) fn act_if_free(&mut self, host: usize) {
        let Some(mut operator) = self.operators[host].take() else { return };
        if matches!(operator.waits, Waits::Nothing) && self.act(host, &mut operator) {
            self.end(host, &operator);
        } else {
            self.operators[host] = Some(operator);
        }
    }

    /// All trouble ends; what was under way ends; operators are let to do what there is to do.
    pub(super) fn come_to_rest(&mut self) {
        for at in 0..self.machines.len() {
            self.cut[at] = [false; HOSTS];
            if !self.machines[at].up {
                let how = if self.machines[at].append_only { Restart::AppendOnly } else { Restart::Snapshot };
                self.restart(at, how);
            }
        }
        self.operators = [None, None];
        for _ in 0..12 {
            self.time += 6_000;
            self.store.expire(self.time);
            self.begin_at(0, None);
            let busy = self.operators[0].is_some();
            for _ in 0..40 {
                self.turn();
                self.look();
                if self.broken.is_some() {
                    return;
                }
                if self.operators[0].is_none() && self.commits.is_empty() {
                    break;
                }
            }
            self.operators = [None, None];
            if !busy && self.store.now.hold.is_none() {
                break;
            }
        }
        let has_master = self.machines.iter().any(Machine::is_master);
        if !has_master && !self.trouble.store && !self.trouble.data {
            self.breaks(Promise::MasterAgain, "nobody takes writes".to_owned());
        }
    }

    /// Everybody does what there is to do, once.
    pub(super) fn turn(&mut self) {
        while let Some(commit) = self.commits.pop() {
            self.make(&commit, false);
        }
        for at in 0..self.machines.len() {
            for which in 0..self.connections[at].len() {
                self.execute_next(at, which);
            }
            self.follow(at, usize::MAX);
        }
        self.time += 5;
        self.act_if_free(0);
    }
}
