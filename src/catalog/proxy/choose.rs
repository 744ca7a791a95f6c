//! Which endpoint a new connection takes.

use std::net::SocketAddr;

use super::Balance;
use super::aim::{Aim, Found};

/// Connections being opened to one endpoint at a time: a crowd that waits for one that does not answer shall not fill
/// its queue, nor keep all of ours there.
pub(crate) const MAX_CONNECTING: usize = 64;

/// What is under way to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Connections that run to it.
    pub(crate) connections: usize,
    /// Connections being opened to it.
    pub(crate) connecting: usize,
    /// Opening one has failed a moment ago.
    pub(crate) failed: bool,
}

/// The endpoint for a connection that has tried some in vain; none where all were tried or are busy. `turn` is how many
/// were chosen before it.
pub(crate) fn choose<'a>(
    aim: &'a Aim,
    balance: Balance,
    tried: &[SocketAddr],
    turn: usize,
    load: impl Fn(SocketAddr) -> Load,
) -> Option<&'a Found> {
    let free = aim.open.iter().filter(|found| !tried.contains(&found.address));
    let free = free.map(|found| (found, load(found.address)));
    let mut free: Vec<(&Found, Load)> = free.filter(|(_, load)| load.connecting < MAX_CONNECTING).collect();
    let first = free.iter().map(|(found, load)| (load.failed, found.tier)).min()?;
    free.retain(|(found, load)| (load.failed, found.tier) == first);
    match balance {
        Balance::First => free.first().map(|(found, _)| *found),
        Balance::RoundRobin => free.get(turn % free.len()).map(|(found, _)| *found),
        Balance::Least => {
            let start = turn % free.len();
            let in_turn = free[start..].iter().chain(&free[..start]);
            in_turn.min_by_key(|(_, load)| load.connections + load.connecting).map(|(found, _)| *found)
        }
    }
}
