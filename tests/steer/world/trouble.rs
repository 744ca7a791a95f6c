//! What breaks: servers, links, the store.

use wharf::model::steer::server::Sight;

use super::{Connection, HOSTS, World};
use crate::machine::Restart;

impl World {
    pub(super) fn trouble_a_server(&mut self) {
        let at = self.dice.below(self.machines.len());
        if self.machines[at].up && self.dice.chance(40) {
            return self.stop(at);
        }
        let how = self.a_restart(at);
        self.restart(at, how);
    }

    pub(super) fn a_restart(&mut self, at: usize) -> Restart {
        match (self.machines[at].append_only, self.dice.below(10)) {
            (_, 0) => Restart::Empty,
            (true, 1) => Restart::Rebooted,
            (true, _) => Restart::AppendOnly,
            (false, _) => Restart::Snapshot,
        }
    }

    pub(super) fn stop(&mut self, at: usize) {
        self.tell(|| format!("server {at} dies"));
        (self.machines[at].up, self.machines[at].link) = (false, false);
        self.drop_links_to(at);
        self.break_connections(at, |_| true);
    }

    pub(super) fn restart(&mut self, at: usize, how: Restart) {
        self.stop(at);
        self.tell(|| format!("server {at} comes back: {how:?}"));
        let (run, fresh) = (self.name(), self.name() as u32);
        let before = self.machines[at].data;
        self.machines[at].restart(how, run, fresh);
        self.trouble.data |= self.machines[at].data != before || how != Restart::AppendOnly;
        // What no copy is left of is nobody's fault.
        let kept = self.machines.iter().fold(0, |all, machine| all | machine.data);
        self.acked &= kept;
    }

    pub(super) fn break_connections(&mut self, at: usize, which: impl Fn(&Connection) -> bool) {
        let gone: Vec<u64> = self.connections[at].iter().filter(|c| which(c)).map(|c| c.operator).collect();
        self.connections[at].retain(|connection| !which(connection));
        for id in gone {
            self.reply(at, id, None, &Sight::Broken);
        }
    }

    pub(super) fn trouble_a_link(&mut self) {
        let (at, host) = (self.dice.below(self.machines.len()), self.dice.below(HOSTS));
        self.cut[at][host] = !self.cut[at][host];
        // What was sent may still arrive; what is answered does not.
        if self.cut[at][host]
            && let Some(id) = self.operators[host].as_ref().map(|operator| operator.id)
        {
            self.reply(at, id, None, &Sight::Broken);
        }
    }

    pub(super) fn trouble_the_store(&mut self) {
        self.trouble.store = true;
        if self.dice.chance(70) {
            self.tell(|| "the store is restored".to_owned());
            self.store.restore(self.time);
        } else {
            self.tell(|| "the store is emptied".to_owned());
            self.store.wipe();
        }
    }
}
