//! How one table stands, for whoever asks: what was told last, and what the socket and the desk noted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Settings;
use super::desk::Told;
use super::metrics::OfTable;
use crate::catalog::facade::autodiscovery::Absences;
use crate::catalog::facade::autodiscovery::told::{Autodiscovery, listed};

/// One table's.
#[derive(Debug)]
pub(super) struct Board {
    settings: watch::Receiver<Arc<Settings>>,
    told: watch::Receiver<Arc<Told>>,
    metrics: OfTable,
    noted: Arc<Mutex<Noted>>,
}

/// What its workers noted last.
#[derive(Debug, Default)]
struct Noted {
    address: Option<SocketAddr>,
    problem: Option<String>,
    is_in_step: bool,
    absences: Absences,
}

/// Where they note it.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<Mutex<Noted>>);

impl Notes {
    /// It listens there, or it does not, and why.
    pub(super) fn listens(&self, found: Result<Option<SocketAddr>, String>) {
        let mut noted = locked(&self.0);
        (noted.address, noted.problem) = match found {
            Ok(address) => (address, None),
            Err(problem) => (None, Some(problem)),
        };
    }

    /// Who is away, as far as can be seen.
    pub(super) fn sees(&self, is_in_step: bool, absences: &Absences) {
        let mut noted = locked(&self.0);
        noted.is_in_step = is_in_step;
        noted.absences.clone_from(absences);
    }
}

impl Board {
    pub(super) fn new(
        settings: watch::Receiver<Arc<Settings>>,
        told: watch::Receiver<Arc<Told>>,
        metrics: OfTable,
        notes: &Notes,
    ) -> Self {
        Self { settings, told, metrics, noted: Arc::clone(&notes.0) }
    }

    /// Where it listens, with the port that was chosen; none while it does not.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        locked(&self.noted).address
    }

    pub(super) fn told(&self) -> Autodiscovery {
        let (settings, told) = (Arc::clone(&self.settings.borrow()), Arc::clone(&self.told.borrow()));
        let noted = locked(&self.noted);
        Autodiscovery {
            service: settings.service.as_str().into(),
            listen: noted.address.unwrap_or(settings.listen).to_string().into(),
            tls: settings.tls.is_some(),
            reason: noted.problem.as_deref().map(Into::into),
            stale: !noted.is_in_step,
            version: told.list.as_ref().map(|list| list.version),
            leave_after_s: settings.leave_after.as_secs(),
            connections: u64::try_from(self.metrics.open()).unwrap_or_default(),
            members: told.list.as_ref().map(|list| listed(list, &noted.absences)).unwrap_or_default(),
        }
    }
}

fn locked(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}
