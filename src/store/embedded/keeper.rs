//! What an embedded store has that hangs on no lease, handed to whoever keeps it over a restart.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Item, Revision};

type Write = dyn Fn(Revision, Vec<Item>) -> io::Result<()> + Send + Sync;

/// Keeps one store's items.
pub(super) struct Keeper {
    write: Box<Write>,
    /// Who writes: one after the other, so that no older state follows a newer one.
    turn: Mutex<()>,
    /// The revision that is kept.
    kept: AtomicI64,
    failing: AtomicBool,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl Keeper {
    pub(super) fn new(
        kept: Revision,
        write: impl Fn(Revision, Vec<Item>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (turn, kept, failing) = (Mutex::new(()), AtomicI64::new(kept), AtomicBool::new(false));
        Self { write: Box::new(write), turn, kept, failing }
    }

    /// Whether a change of `revision` is not kept yet.
    pub(super) fn owes(&self, revision: Revision) -> bool {
        self.kept.load(Ordering::Acquire) < revision
    }

    /// Keeps what there is by the time that it is this one's turn. Blocks for as long as the disk takes; a disk that
    /// fails is tried again with the next change.
    pub(super) fn keep(&self, now: impl Fn() -> (Revision, Vec<Item>)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, items) = now();
        if !self.owes(revision) {
            return;
        }
        match (self.write)(revision, items) {
            Ok(()) => {
                self.kept.store(revision, Ordering::Release);
                self.failing.store(false, Ordering::Relaxed);
            }
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "what the store keeps over a restart cannot be written");
            }
            Err(_) => {}
        }
    }
}
