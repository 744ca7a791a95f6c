//! What the connections of one table share: its settings, where they go now, what runs where, and who waits.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Table;
use super::board::Board;
use super::lines::Lines;
use super::metrics::Refused;
use super::pump::Pipes;
use crate::catalog::proxy::Aim;
use crate::host::clients::{Counted, Peer, Sharer};
use crate::model::shares::Shares;

/// Connections of one table that wait for an endpoint. Of more than these the oldest one of whoever has most goes.
const MOST_PARKED: usize = 1_024;

/// What connections share. Another one is made when the settings change; those that run keep theirs.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) table: Arc<Table>,
    pub(super) aim: watch::Receiver<Arc<Aim>>,
    pub(super) lines: Arc<Lines>,
    pub(super) board: Arc<Board>,
    pub(super) pipes: Pipes,
    pub(super) parking: Arc<Parking>,
    /// Cancelled when the table is at its end.
    pub(super) closing: CancellationToken,
    /// Cancelled when connections are to be left to the next process.
    pub(super) leaving: CancellationToken,
}

impl Room {
    /// Counts one that was sent away.
    pub(super) fn refused(&self, why: Refused) {
        self.board.counts.refused(why);
    }

    /// Lets one wait.
    pub(super) fn park(&self, from: SocketAddr) -> Parked<'_> {
        let leave = CancellationToken::new();
        let number = self.parking.enter(from, leave.clone());
        Parked { parking: &self.parking, number, leave, _count: Counted::new(self.board.counts.parked.clone()) }
    }
}

/// Those that wait.
#[derive(Debug)]
pub(super) struct Parking(Mutex<Shares<Sharer, CancellationToken>>);

/// One that waits.
pub(super) struct Parked<'a> {
    parking: &'a Parking,
    number: u64,
    /// Cancelled when it has to make room for others.
    pub(super) leave: CancellationToken,
    _count: Counted,
}

impl Default for Parking {
    fn default() -> Self {
        Self(Mutex::new(Shares::new(MOST_PARKED)))
    }
}

impl Parking {
    fn enter(&self, from: SocketAddr, leave: CancellationToken) -> u64 {
        let mut shares = self.shares();
        let sharer = Peer::Tcp(from.ip()).sharer();
        if let Some(crowding) = shares.crowding(&sharer, |_| ())
            && let Some(oldest) = shares.give_back(crowding.number)
        {
            oldest.cancel();
        }
        shares.lend(sharer, leave)
    }

    fn shares(&self) -> MutexGuard<'_, Shares<Sharer, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.parking.shares().give_back(self.number);
    }
}
