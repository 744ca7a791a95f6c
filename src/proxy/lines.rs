//! What runs to each endpoint of one table: how many connections, and how they are told that it is cut.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::proxy::{Aim, Balance, Cut, Line, Load, choose, verdict};
use crate::model::words::record::Text;

/// An endpoint that could not be reached is taken last for so long.
const FAILED: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Running {
    /// Whose record it was found by last.
    owner: Option<Text>,
    connections: usize,
    connecting: usize,
    cut: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    lines: HashMap<SocketAddr, Running>,
    failed: HashMap<SocketAddr, Instant>,
    turn: usize,
}

/// The lines of one table.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: Mutex<State>,
    /// Tells one who waits that a connection is not being opened any more.
    pub(super) freed: Notify,
}

/// A place on a line, first while it is opened and then while it runs.
#[derive(Debug)]
pub(super) struct OnLine<'a> {
    lines: &'a Lines,
    /// Where it runs to.
    pub(super) address: SocketAddr,
    /// Where that is by the other family of addresses.
    pub(super) also: Option<SocketAddr>,
    /// Cancelled when it is cut.
    pub(super) cut: CancellationToken,
    is_open: bool,
}

impl Lines {
    /// Takes the endpoint that a new connection is to try; none where there is none now.
    pub(super) fn take(&self, aim: &Aim, balance: Balance, tried: &[SocketAddr]) -> Option<OnLine<'_>> {
        let now = Instant::now();
        let mut state = self.state();
        state.failed.retain(|_, until| *until > now);
        let found = choose(aim, balance, tried, state.turn, |address| state.load(address))?;
        let address = found.address;
        state.turn = state.turn.wrapping_add(1);
        let running = state.lines.entry(address).or_default();
        running.owner.clone_from(&found.owner);
        running.connecting += 1;
        let cut = running.cut.clone();
        Some(OnLine { lines: self, address, also: found.also, cut, is_open: false })
    }

    /// Takes up a connection that was opened by the process before, unless it is to be cut. It is judged while no other
    /// word can come between.
    pub(super) fn take_up(&self, line: &Line, judge: impl Fn(&Line) -> Option<Cut>) -> Result<OnLine<'_>, Cut> {
        let mut state = self.state();
        if let Some(why) = judge(line) {
            return Err(why);
        }
        let running = state.lines.entry(line.address).or_default();
        running.owner.clone_from(&line.owner);
        running.connections += 1;
        let cut = running.cut.clone();
        Ok(OnLine { lines: self, address: line.address, also: None, cut, is_open: true })
    }

    /// Where a connection runs to, and whose record that was found by last.
    pub(super) fn line(&self, on_line: &OnLine<'_>) -> Line {
        let owner = self.state().lines.get(&on_line.address).and_then(|running| running.owner.clone());
        Line { address: on_line.address, owner }
    }

    /// Notes that an endpoint could not be reached.
    pub(super) fn failed(&self, address: SocketAddr) {
        self.state().failed.insert(address, Instant::now() + FAILED);
    }

    /// Cuts every line that is not right any more; tells why, and how many connections ran there.
    pub(super) fn judge(&self, aim: &Aim) -> Vec<(SocketAddr, Cut, usize)> {
        let mut cut = Vec::new();
        self.state().lines.retain(|address, running| {
            let judged = verdict(&Line { address: *address, owner: running.owner.clone() }, aim);
            if let Some(why) = judged {
                running.cut.cancel();
                cut.push((*address, why, running.connections));
            }
            judged.is_none()
        });
        cut
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn load(&self, address: SocketAddr) -> Load {
        let (connections, connecting) =
            self.lines.get(&address).map_or((0, 0), |running| (running.connections, running.connecting));
        Load { connections, connecting, failed: self.failed.contains_key(&address) }
    }
}

impl OnLine<'_> {
    /// Says that the connection is open; false where its line was cut meanwhile.
    pub(super) fn opened(&mut self) -> bool {
        let mut state = self.lines.state();
        let Some(running) = state.lines.get_mut(&self.address).filter(|_| !self.cut.is_cancelled()) else {
            return false;
        };
        running.connecting -= 1;
        running.connections += 1;
        self.is_open = true;
        self.lines.freed.notify_one();
        true
    }
}

impl Drop for OnLine<'_> {
    fn drop(&mut self) {
        let mut state = self.lines.state();
        // A line that was cut is not among the lines any more; another one may be at its place by now.
        let Some(running) = state.lines.get_mut(&self.address).filter(|_| !self.cut.is_cancelled()) else { return };
        if self.is_open {
            running.connections -= 1;
        } else {
            running.connecting -= 1;
            self.lines.freed.notify_one();
        }
        if running.connections + running.connecting == 0 {
            state.lines.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::proxy::OwnListeners;

    fn aim() -> Aim {
        Aim::fixed(&["10.0.0.1:1".parse().expect("an address")], &OwnListeners::default())
    }

    #[test]
    fn connections_are_counted_while_they_are_opened_and_while_they_run() {
        let (lines, aim) = (Lines::default(), aim());
        let mut first = lines.take(&aim, Balance::Least, &[]).expect("one");
        assert!(first.opened());
        let second = lines.take(&aim, Balance::Least, &[]).expect("one");
        let load = |lines: &Lines| lines.state().load(first.address);
        assert_eq!(load(&lines), Load { connections: 1, connecting: 1, failed: false });
        drop(second);
        lines.failed(first.address);
        assert_eq!(load(&lines), Load { connections: 1, connecting: 0, failed: true });
        drop(first);
        assert!(lines.state().lines.is_empty());
    }

    #[test]
    fn what_was_cut_is_not_opened_and_takes_nothing_from_its_successor() {
        let (lines, aim) = (Lines::default(), aim());
        let mut old = lines.take(&aim, Balance::Least, &[]).expect("one");
        // As a verdict does: the line goes, and its connections are told.
        lines.state().lines.remove(&old.address).expect("a line").cut.cancel();
        let new = lines.take(&aim, Balance::Least, &[]).expect("one");
        assert!(!old.opened());
        drop(old);
        assert_eq!(lines.state().load(new.address).connecting, 1);
    }
}
