//! What a server says of itself, and when one server has all that another one has.
//!
//! A replication id names a history, an offset a point of it. A server that is promoted begins a history of its own and
//! goes on answering for the one before, up to where it left it (`second`). So whether a replica may be given to a
//! master without losing anything can be read off the two of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::Mark;

/// A point in a server's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// `master_replid`.
    pub id: String,
    /// `slave_repl_offset` of a replica, `master_repl_offset` of a master.
    pub offset: u64,
    /// `master_replid2` and `second_repl_offset`: the history before, and the first offset that is not of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second: Option<(String, u64)>,
}

impl Position {
    /// Whether everything up to `other` lies in this history.
    pub fn contains(&self, other: &Self) -> bool {
        let in_own = self.id == other.id && other.offset <= self.offset;
        let in_second = self.second.as_ref().is_some_and(|(id, end)| *id == other.id && other.offset < *end);
        in_own || in_second
    }

    /// Whether the two tell of one history, wherever they are in it.
    pub fn is_kin(&self, other: &Self) -> bool {
        let second = |position: &Self| position.second.as_ref().map(|(id, _)| id.clone());
        self.id == other.id
            || second(self).is_some_and(|id| id == other.id)
            || second(other).is_some_and(|id| id == self.id)
    }
}

/// Whom a server follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Follows {
    /// Nobody: it is a master, and takes writes.
    #[default]
    NoOne,
    /// An address that nobody serves: it is frozen.
    Frozen(Mark),
    /// Another server.
    At {
        /// `master_host`.
        host: String,
        /// `master_port`.
        port: u16,
        /// `master_link_status:up`.
        up: bool,
    },
}

/// Something at work in a server that an operation must not meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hindrance {
    /// It reads its data set.
    Loading,
    /// It receives a data set from its master.
    Syncing,
    /// Cluster mode keeps a topology of its own.
    Cluster,
    /// A Sentinel is connected to it.
    Sentinel,
    /// Its own `FAILOVER` is at work.
    Failover,
    /// Somebody else holds its writes.
    Paused,
    /// An operation of this other service has a living connection to it.
    Operator(String),
    /// This login may not use this command.
    Login(String),
    /// A replica of the other wants a login or TLS, and this one is not set up for it.
    Upstream(String),
}

/// What it takes to follow a server, and what a server has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// It answers only those who have logged in, and so must its replicas.
    pub asks_login: bool,
    /// It has a `masterauth` to log in with elsewhere.
    pub has_login: bool,
    /// The servers speak TLS, and it would not: `tls-replication` is not set.
    pub lacks_tls: bool,
}

impl Upstream {
    /// What a server that has this lacks to follow one that wants `other`.
    pub fn lacks(&self, other: &Self) -> Option<&'static str> {
        if other.asks_login && !self.has_login {
            return Some("masterauth");
        }
        self.lacks_tls.then_some("tls-replication yes")
    }
}

/// What one server said over this operation's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    /// `run_id`: another one is another process.
    pub run: String,
    /// Whom it follows.
    pub follows: Follows,
    /// Where in which history it is.
    pub position: Position,
    /// How many keys it holds.
    pub keys: u64,
    /// `used_memory_dataset`, for those who are told what would be lost.
    pub bytes: u64,
    /// `aof_enabled`: what it acknowledged outlives its process.
    pub append_only: bool,
    /// Whether its host has rebooted since it was last seen, where that is known.
    pub rebooted: Option<bool>,
    /// What it takes to follow it, and what it has to follow another.
    pub upstream: Upstream,
    /// What is in the way.
    pub hindrances: Vec<Hindrance>,
    /// When this operation's pause was acknowledged, and how far the server had come by then.
    pub paused: Option<(Duration, u64)>,
    /// When this operation's freeze was acknowledged.
    pub frozen: Option<Duration>,
    /// Whether this operation has ended whatever pause there was.
    pub unpaused: bool,
}

impl ServerState {
    /// Whether it takes writes, as far as replication goes.
    pub fn is_master(&self) -> bool {
        self.follows == Follows::NoOne
    }

    /// Whether the freeze of operation `number` holds it.
    pub fn is_frozen_by(&self, number: u64) -> bool {
        self.follows == Follows::Frozen(Mark::of(number))
    }

    /// Whether it is a replica of the server at this address.
    pub fn is_replica_of(&self, host: &str, port: u16) -> bool {
        matches!(&self.follows, Follows::At { host: h, port: p, .. } if h == host && *p == port)
    }
}

/// One server as an operation sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// No connection could be had, so it is not fenced; why.
    Unreached(String),
    /// The connection broke. None is opened again under this operation.
    Broken,
    /// It answers, over a fenced connection.
    Answers(Box<ServerState>),
}

impl Sight {
    /// What it says, when it answers.
    pub fn state(&self) -> Option<&ServerState> {
        match self {
            Self::Answers(state) => Some(state),
            Self::Unreached(_) | Self::Broken => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(id: &str, offset: u64, second: Option<(&str, u64)>) -> Position {
        Position { id: id.to_owned(), offset, second: second.map(|(id, end)| (id.to_owned(), end)) }
    }

    #[test]
    fn a_history_contains_what_lies_behind_it() {
        let master = at("b", 30, Some(("a", 21)));
        for (other, contained) in [
            (at("b", 30, None), true),
            (at("b", 31, None), false),
            (at("a", 20, None), true),
            (at("a", 21, None), false),
            (at("c", 0, None), false),
        ] {
            assert_eq!(master.contains(&other), contained, "{other:?}");
        }
    }

    #[test]
    fn kinship_goes_both_ways() {
        let (young, old, stranger) = (at("b", 30, Some(("a", 21))), at("a", 50, None), at("c", 1, None));
        assert!(young.is_kin(&old) && old.is_kin(&young) && !stranger.is_kin(&young));
    }
}
