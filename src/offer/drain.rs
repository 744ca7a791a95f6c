//! The drain switch: thrown by command it is remembered through restarts and reboots; thrown by the host's own shutdown
//! it is not, so that everything is back after the next boot with no command.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::model::publish::local::DrainState;
use crate::model::publish::maintenance::{Maintenance, Withdrawn};
use crate::state::StateDir;

/// Throws and tells the drain switch; clones are the same switch.
#[derive(Clone, Debug)]
pub struct Drain {
    state: Arc<StateDir>,
    now: watch::Sender<DrainState>,
    parts: watch::Sender<Arc<Maintenance>>,
}

/// Why something is not withdrawn, or not offered again.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// It holds only until the next restart.
    #[error("done, but not remembered over a restart: {0}")]
    Forgetful(#[from] io::Error),
    /// There is no room for another.
    #[error("too much of this host is drained one by one: drain all of it")]
    Full,
    /// It was not drained.
    #[error("{0} is not drained")]
    Unknown(String),
}

impl Drain {
    /// The switch as it was left.
    pub fn new(state: Arc<StateDir>) -> Self {
        let left = state.memory().drained.map_or(DrainState::Offering, |since| DrainState::Drained { since });
        let parts = watch::Sender::new(Arc::new(state.memory().maintenance.clone()));
        Self { state, now: watch::Sender::new(left), parts }
    }

    /// What is withdrawn, by whose word and why, as it changes.
    pub fn parts(&self) -> watch::Receiver<Arc<Maintenance>> {
        self.parts.subscribe()
    }

    /// Withdraws one thing, or (`what` is none) the whole host, and remembers by whose word.
    pub fn withdraw(&self, one: Withdrawn) -> Result<(), DrainError> {
        let (is_host, since) = (one.what.is_none(), one.since);
        let mut parts = (**self.parts.borrow()).clone();
        if !parts.add(one) {
            return Err(DrainError::Full);
        }
        // A disk that is full keeps nobody from draining.
        let told = self.tell(parts);
        let drained = if is_host { self.drain(since) } else { Ok(()) };
        Ok(told.and(drained)?)
    }

    /// Offers one thing, or the whole host, again.
    pub fn restore(&self, what: Option<&str>) -> Result<(), DrainError> {
        let mut parts = (**self.parts.borrow()).clone();
        let was = parts.remove(what);
        let told = self.tell(parts);
        match what {
            None => Ok(self.undrain().and(told)?),
            Some(what) if !was => Err(DrainError::Unknown(what.to_owned())),
            Some(_) => Ok(told?),
        }
    }

    fn tell(&self, parts: Maintenance) -> io::Result<()> {
        self.parts.send_replace(Arc::new(parts.clone()));
        self.state.remember(|memory| memory.maintenance = parts)
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
