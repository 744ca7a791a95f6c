//! One table's socket: it is opened, opened elsewhere when the settings say so, and tried again while it cannot be had.
//!
//! ```text
//!            opened                     listen or certificate changed
//! (wanted) ─────────▶ serving ───────────────────────────────────────▶ (wanted)
//!     ▲ 1 s later, or when the settings change
//!     └── it cannot be had
//! ```

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::board::Notes;
use super::certificate::{Certificate, CertificateError};
use super::conversation::{self, Surroundings};
use super::{BOUNDS, Settings};
use crate::host::clients::{BindError, Clients, Counts, Listener};

/// How long it is before a socket that cannot be had is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificate is of no use.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// A socket that is bound and not yet served.
#[derive(Debug)]
pub(super) struct Door {
    clients: Clients,
    certificate: Option<Arc<Certificate>>,
}

impl Door {
    pub(super) async fn open(wanted: &Settings, counts: Counts) -> Result<Self, Closed> {
        let certificate = match wanted.tls.clone() {
            Some((certificate, key)) => Some(Arc::new(Certificate::read(certificate, key)?)),
            None => None,
        };
        let (clients, _no_door) = Clients::new(Listener::tcp(wanted.listen).await?, BOUNDS, counts);
        Ok(Self { clients, certificate })
    }

    /// Serves until `stop`, and shows what the certificate's files hold then.
    async fn serve(self, around: Surroundings, stop: CancellationToken) {
        let (certificate, stopping) = (self.certificate.clone(), stop.clone());
        let converse = move |link, guest| {
            conversation::serve(link, guest, around.clone(), self.certificate.clone(), stopping.clone())
        };
        let serving = self.clients.serve(stop, converse);
        match certificate {
            None => serving.await,
            Some(certificate) => tokio::select! {
                () = serving => {}
                () = certificate.follow() => {}
            },
        }
    }
}

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    settings: watch::Receiver<Arc<Settings>>,
    around: Surroundings,
    counts: Counts,
    notes: Notes,
    opened: Arc<Settings>,
    door: Option<Door>,
    problem: Option<String>,
}

impl Table {
    /// A table with its socket bound, if it can be.
    pub(super) async fn new(
        settings: watch::Receiver<Arc<Settings>>,
        around: Surroundings,
        counts: Counts,
        notes: Notes,
    ) -> Self {
        let opened = Arc::clone(&settings.borrow());
        let mut table = Self { settings, around, counts, notes, opened, door: None, problem: None };
        table.open().await;
        table
    }

    /// Serves until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let Some(door) = self.door.take() else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(AGAIN) => {}
                    Ok(()) = self.settings.changed() => {}
                }
                self.open().await;
                continue;
            };
            let closing = stop.child_token();
            let mut serving = pin!(door.serve(self.around.clone(), closing.clone()));
            tokio::select! {
                () = &mut serving => {} // at the stop
                () = other_door(&mut self.settings, &self.opened) => {
                    closing.cancel();
                    serving.as_mut().await;
                    self.open().await;
                }
            }
        }
    }

    /// Opens the socket that is wanted now; why it cannot be had is said once.
    async fn open(&mut self) {
        let wanted = Arc::clone(&self.settings.borrow_and_update());
        let (problem, found) = match Door::open(&wanted, self.counts.clone()).await {
            Ok(door) => {
                let address = door.clients.listener().address();
                self.door = Some(door);
                (None, Ok(address))
            }
            Err(closed) => {
                let problem = in_full(&closed);
                (Some(problem.clone()), Err(problem))
            }
        };
        if let Some(problem) = problem.as_ref().filter(|problem| Some(*problem) != self.problem.as_ref()) {
            tracing::error!(service = wanted.service, problem, "auto-discovery cannot be served, trying again");
        } else if let Ok(address) = &found {
            tracing::info!(service = wanted.service, ?address, "auto-discovery is served");
        }
        (self.problem, self.opened) = (problem, wanted);
        self.around.metrics.listens(found.is_ok());
        self.notes.listens(found);
    }
}

/// Waits until another address or certificate is wanted than what was opened.
async fn other_door(settings: &mut watch::Receiver<Arc<Settings>>, opened: &Settings) {
    let is_other = |wanted: &Arc<Settings>| (wanted.listen, &wanted.tls) != (opened.listen, &opened.tls);
    if settings.wait_for(is_other).await.is_err() {
        std::future::pending::<()>().await; // nobody will want another one any more
    }
}

/// What failed, and why.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
