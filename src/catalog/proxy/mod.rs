//! An ambassador's rules: where a new connection goes now, and which of those that are there are cut and why.
//!
//! [`Aim`] is what one table sees in a snapshot. [`choose()`] picks an endpoint of it for a new connection;
//! [`verdict()`] judges a connection that runs. Only a *word* cuts: another role, a node that says down or drained,
//! another holder. What is merely gone, held or contested says nothing, so it cuts nothing, and new connections wait.

mod aim;
mod choose;
pub(crate) mod handed;
mod header;
pub(crate) mod redis;
mod reports;
pub mod told;
mod verdict;

pub(crate) use aim::{Aim, Closed, OwnListeners, Wanted};
pub(crate) use choose::{Load, choose};
pub(crate) use header::header;
pub(crate) use reports::Reports;
pub(crate) use verdict::{Cut, Line, verdict};

#[cfg(test)]
mod tests;

/// Which of several right endpoints a new connection takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest connections.
    #[default]
    Least,
    /// Each in turn.
    RoundRobin,
    /// The first in the order of keys, the next only while that cannot be reached.
    First,
}

/// What is sent ahead of a connection's bytes, so that the server knows whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendProxy {
    /// Nothing.
    #[default]
    Off,
    /// A line of text.
    V1,
    /// The binary form.
    V2,
}

/// What is spoken over a table's connections, as far as an ambassador understands it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes.
    #[default]
    Tcp,
    /// Commands and replies of Redis: sessions are moved over a switch.
    Redis,
}

/// What becomes of connections whose endpoint is not right any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// They are reset on both sides.
    Cut,
    /// They go on.
    Keep,
}
