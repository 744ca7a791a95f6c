//! Whether a server loses anything by following another one. No `REPLICAOF` destroys what only that server has.

use super::server::ServerState;
use super::topology::Applied;

/// How `REPLICAOF` is judged: by whom the server is to follow, and by what is known of both.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The name of the master to be.
    pub master: &'a str,
    /// What it says.
    pub state: &'a ServerState,
    /// The topology whose word on who is a replica counts, see [`Seen::counted`](super::seen::Seen::counted).
    pub counted: Option<&'a Applied>,
}

impl Judge<'_> {
    /// Whether the server called `name` has nothing that the master has not.
    pub fn loses_nothing(&self, name: &str, state: &ServerState) -> bool {
        let is_empty = state.keys == 0;
        is_empty || self.state.position.contains(&state.position) || self.counts_as_replica(name, state)
    }

    /// A replica that was restarted with an append-only file has a replication id that tells nothing. That it was a
    /// replica of this very process of the master, as `applied` has it, does.
    fn counts_as_replica(&self, name: &str, state: &ServerState) -> bool {
        let counted = |applied: &Applied| {
            applied.has_replica(name) && applied.master.name == self.master && applied.master.run == self.state.run
        };
        !state.is_master() && self.counted.is_some_and(counted)
    }
}
