//! What an operator sees at one moment, which with the journal decides what comes next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::journal::Journal;
use super::server::{ServerState, Sight};
use super::topology::{Applied, Server};

/// All that a step depends on beside the journal and the time.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every server of the topology: where the registry has it, and what it says.
    pub servers: BTreeMap<String, (Server, Sight)>,
    /// The topology that was brought about last.
    pub applied: Option<Applied>,
    /// Whether `applied` and the journal were written since the store was last seen to have gone back.
    pub trusted: bool,
    /// For how long this operator may still send.
    pub hold_left: Duration,
    /// For how long the registry has shown something else than what was brought about.
    pub differs_for: Duration,
    /// Whether the store is away, another one, or says that the hold is gone.
    pub store_lost: bool,
    /// The time of day, as it is written into what is published.
    pub wall: String,
}

impl Seen {
    /// What the server called `name` says, when it answers.
    pub fn state(&self, name: &str) -> Option<&ServerState> {
        self.servers.get(name).and_then(|(_, sight)| sight.state())
    }

    /// The server as it would be written down now.
    pub fn written(&self, name: &str) -> Option<Server> {
        let (server, sight) = self.servers.get(name)?;
        let state = sight.state();
        Some(Server {
            name: name.to_owned(),
            run: state.map(|state| state.run.clone()).unwrap_or_default(),
            position: state.map(|state| state.position.clone()).unwrap_or_default(),
            ..server.clone()
        })
    }

    /// What was brought about last, where its word on who is a replica still counts: nothing newer may be in a store
    /// that went back, and the operation before did not decide for another master, who took writes of his own.
    pub fn counted(&self, before: Option<&Journal>) -> Option<&Applied> {
        let applied = self.applied.as_ref().filter(|_| self.trusted)?;
        Journal::head(before, Some(applied)).filter(|head| head.name == applied.master.name).map(|_| applied)
    }

    /// Everybody who answers.
    pub fn answering(&self) -> impl Iterator<Item = (&str, &ServerState)> {
        self.servers.iter().filter_map(|(name, (_, sight))| sight.state().map(|state| (name.as_str(), state)))
    }

    /// The first that does not answer, and why.
    pub fn silent(&self) -> Option<(&str, String)> {
        self.servers.iter().find_map(|(name, (_, sight))| match sight {
            Sight::Unreached(why) => Some((name.as_str(), why.clone())),
            Sight::Broken => Some((name.as_str(), "its connection broke".to_owned())),
            Sight::Answers(_) => None,
        })
    }
}
