//! How many questions wait for an answer from elsewhere, and who may add one: shared among networks, and in each among
//! its clients.
//!
//! Nobody has to wait for room: what a network may have is as much as is free, what a client may have is a quarter of
//! what its network has left. So however many take all that they can get, something is free for the next one, and one
//! who asks alone has [`SHARE`]. Counted without a lock, in cells that a hash chooses: two of them for each, of which
//! the smaller counts, so that hardly anybody is taken for another one.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::answer::dns::limit::network;

/// Questions that wait at once: each may need a socket.
pub(in crate::answer::dns) const TOGETHER: usize = 1_024;
/// Those of one client.
const SHARE: usize = 128;
/// What a client may have is one part of so many of what is left.
const PART: usize = 4;
/// Cells of one row.
const CELLS: usize = 1 << 12;

/// What is shared.
#[derive(Debug)]
pub(in crate::answer::dns) struct Shares {
    clients: Sketch,
    networks: Sketch,
    /// Questions that wait, for all to see.
    all: Arc<AtomicU64>,
}

/// Room for one question, given back when dropped.
#[derive(Debug)]
pub(in crate::answer::dns) struct Share {
    shares: Arc<Shares>,
    client: [usize; 2],
    network: [usize; 2],
}

/// Counts by hash.
#[derive(Debug)]
struct Sketch {
    hasher: RandomState,
    rows: [Box<[AtomicU16]>; 2],
}

impl Shares {
    /// Nobody waits yet; those who come to are counted in `all`.
    pub(in crate::answer::dns) fn counted(all: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { clients: Sketch::new(), networks: Sketch::new(), all })
    }

    /// How many questions wait.
    pub(super) fn waiting(&self) -> usize {
        usize::try_from(self.all.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Room for one more question of a client, if it may have one.
    pub(in crate::answer::dns) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let client = client.to_canonical();
        let (own, shared) = (self.clients.cells(client), self.networks.cells(network(client)));
        let free = TOGETHER.saturating_sub(self.waiting());
        let left = free.saturating_sub(self.networks.count(shared));
        let has = self.clients.count(own);
        if has >= SHARE || PART * has >= left {
            return None;
        }
        if self.all.fetch_add(1, Ordering::Relaxed) >= TOGETHER as u64 {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.clients.add(own);
        self.networks.add(shared);
        Some(Share { shares: self.clone(), client: own, network: shared })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.clients.remove(self.client);
        self.shares.networks.remove(self.network);
        self.shares.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sketch {
    fn new() -> Self {
        let row = || (0..CELLS).map(|_| AtomicU16::new(0)).collect();
        Self { hasher: RandomState::new(), rows: [row(), row()] }
    }

    fn cells(&self, item: impl Hash) -> [usize; 2] {
        let hash = self.hasher.hash_one(item);
        [hash, hash >> 32].map(|half| usize::try_from(half & 0xffff_ffff).unwrap_or(0) % CELLS)
    }

    fn each(&self, cells: [usize; 2]) -> [&AtomicU16; 2] {
        [&self.rows[0][cells[0]], &self.rows[1][cells[1]]]
    }

    fn count(&self, cells: [usize; 2]) -> usize {
        let [one, two] = self.each(cells).map(|cell| cell.load(Ordering::Relaxed));
        usize::from(one.min(two))
    }

    fn add(&self, cells: [usize; 2]) {
        self.each(cells).iter().for_each(|cell| _ = cell.fetch_add(1, Ordering::Relaxed));
    }

    fn remove(&self, cells: [usize; 2]) {
        self.each(cells).iter().for_each(|cell| _ = cell.fetch_sub(1, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that these clients can get, taking turns.
    fn grab(shares: &Arc<Shares>, clients: &[IpAddr]) -> Vec<Share> {
        let mut taken = Vec::new();
        loop {
            let before = taken.len();
            taken.extend(clients.iter().filter_map(|client| shares.take(*client)));
            if taken.len() == before {
                return taken;
            }
        }
    }

    fn client(network: u8, number: u8) -> IpAddr {
        IpAddr::from([10, 0, network, number])
    }

    #[test]
    fn who_asks_alone_has_a_share_and_gives_it_back() {
        let shares = Shares::counted(Arc::default());
        let taken = grab(&shares, &[client(0, 1)]);
        assert_eq!((taken.len(), shares.waiting()), (SHARE, SHARE));
        assert!(shares.take(client(0, 2)).is_some(), "a neighbour is not kept out");
        drop(taken);
        assert_eq!((shares.waiting(), grab(&shares, &[client(0, 1)]).len()), (0, SHARE));
    }

    #[test]
    fn however_many_take_all_they_get_another_one_has_room() {
        for many in [1, 2, 8, 20, 100, 250] {
            let shares = Shares::counted(Arc::default());
            let greedy: Vec<IpAddr> = (0..many).map(|number| client(0, number)).collect();
            let taken = grab(&shares, &greedy);
            assert!(taken.len() <= TOGETHER / 2, "{many}: {}", taken.len());
            let neighbour = grab(&shares, &[client(0, 251)]);
            assert!(!neighbour.is_empty(), "{many} of its own network leave it nothing");
            assert!(grab(&shares, &[client(1, 1)]).len() >= 8, "{many} of another network");
        }
    }

    #[test]
    fn all_together_never_have_more_than_there_is() {
        let shares = Shares::counted(Arc::default());
        let clients: Vec<IpAddr> =
            (0..=255).flat_map(|network| (0..8).map(move |number| client(network, number))).collect();
        let taken = grab(&shares, &clients);
        assert!(taken.len() <= TOGETHER && shares.waiting() == taken.len());
    }
}
