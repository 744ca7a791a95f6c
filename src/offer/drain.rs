//! The drain switch: thrown by command it is remembered through restarts and reboots; thrown by the host's own shutdown
//! it is not, so that everything is back after the next boot with no command.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::model::publish::local::DrainState;
use crate::state::StateDir;

/// Throws and tells the drain switch; clones are the same switch.
#[derive(Clone, Debug)]
pub struct Drain {
    state: Arc<StateDir>,
    now: watch::Sender<DrainState>,
}

impl Drain {
    /// The switch as it was left.
    pub fn new(state: Arc<StateDir>) -> Self {
        let left = state.memory().drained.map_or(DrainState::Offering, |since| DrainState::Drained { since });
        Self { state, now: watch::Sender::new(left) }
    }

    /// The switch as it changes.
    pub fn watch(&self) -> watch::Receiver<DrainState> {
        self.now.subscribe()
    }

    /// Withdraws until told otherwise, from `now` on; a drained node keeps the time of its first drain. An error says
    /// that it holds only until the next restart.
    pub fn drain(&self, now: SystemTime) -> io::Result<()> {
        let since = match *self.now.borrow() {
            DrainState::Drained { since } => since,
            DrainState::Offering | DrainState::ShuttingDown { .. } => now,
        };
        self.now.send_replace(DrainState::Drained { since });
        self.state.remember(|memory| memory.drained = Some(since))
    }

    /// Offers again.
    pub fn undrain(&self) -> io::Result<()> {
        self.now.send_replace(DrainState::Offering);
        self.state.remember(|memory| memory.drained = None)
    }

    /// The host shuts down: withdraws, and remembers nothing of it.
    pub fn shut_down(&self, now: SystemTime) {
        self.now.send_if_modified(|state| {
            let offering = *state == DrainState::Offering;
            if offering {
                *state = DrainState::ShuttingDown { since: now };
            }
            offering
        });
    }

    /// The shutdown was called off.
    pub fn stay_up(&self) {
        self.now.send_if_modified(|state| {
            let leaving = matches!(state, DrainState::ShuttingDown { .. });
            if leaving {
                *state = DrainState::Offering;
            }
            leaving
        });
    }
}
