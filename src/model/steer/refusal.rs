//! Why an operation is not begun. Each reason is a value, so that people, programs and tests are told the same.

use std::fmt;

use super::server::Hindrance;

/// One reason against an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The server does not answer, so it cannot be fenced.
    Unreached {
        /// Which one.
        server: String,
        /// Why.
        why: String,
    },
    /// Something at work in a server.
    Hindered {
        /// In which one.
        server: String,
        /// What.
        by: Hindrance,
    },
    /// No server takes writes.
    NoMaster,
    /// Several do.
    TwoMasters(Vec<String>),
    /// The target is no direct replica of the master with its link up.
    NoDirectReplica(String),
    /// The target takes writes itself.
    Writable(String),
    /// The target has another history.
    OtherHistory(String),
    /// The target is too far behind.
    Lags {
        /// The target.
        server: String,
        /// By how many bytes.
        bytes: u64,
    },
    /// A server has what no other has, and would lose it.
    WouldLose {
        /// The server.
        server: String,
        /// The keys it holds.
        keys: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The target is empty and the master is not.
    EmptyOverFull(String),
    /// Which server has the most cannot be told.
    Undecided(String),
}

impl Refusal {
    /// Whether a person may overrule it.
    pub fn can_be_forced(&self) -> bool {
        match self {
            Self::NoMaster
            | Self::NoDirectReplica(_)
            | Self::OtherHistory(_)
            | Self::Lags { .. }
            | Self::WouldLose { .. }
            | Self::EmptyOverFull(_)
            | Self::Undecided(_)
            | Self::Unreached { .. } => true,
            Self::TwoMasters(_) | Self::Writable(_) => false,
            Self::Hindered { by, .. } => matches!(by, Hindrance::Sentinel | Hindrance::Paused | Hindrance::Upstream(_)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached { server, why } => write!(f, "{server} cannot be reached: {why}"),
            Self::Hindered { server, by } => write!(f, "{server} {by}"),
            Self::NoMaster => f.write_str("no server takes writes"),
            Self::TwoMasters(servers) => write!(f, "several servers take writes: {}", servers.join(", ")),
            Self::NoDirectReplica(server) => {
                write!(f, "{server} is no direct replica of the master with its link up")
            }
            Self::Writable(server) => write!(f, "{server} takes writes itself"),
            Self::OtherHistory(server) => write!(f, "{server} has another replication id than the master"),
            Self::Lags { server, bytes } => write!(f, "{server} is {bytes} bytes behind the master"),
            Self::WouldLose { server, keys, bytes } => {
                write!(
                    f,
                    "{server} has {keys} keys ({bytes} bytes) that the new master may not have, and would lose them"
                )
            }
            Self::EmptyOverFull(server) => write!(f, "{server} is empty and the master is not"),
            Self::Undecided(why) => write!(f, "needs a hand: {why}"),
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loading => f.write_str("is loading its data"),
            Self::Syncing => f.write_str("is syncing with its master"),
            Self::Cluster => f.write_str("is in cluster mode, which keeps a topology of its own"),
            Self::Sentinel => f.write_str("is watched by a Sentinel"),
            Self::Failover => f.write_str("has a FAILOVER of its own at work"),
            Self::Paused => f.write_str("has its writes held by somebody else"),
            Self::Operator(service) => write!(f, "has an operation of the service {service} at work"),
            Self::Login(command) => write!(f, "does not allow this login to use {command}"),
            Self::Upstream(lacks) => write!(f, "could not follow the other: it lacks {lacks}"),
        }
    }
}
