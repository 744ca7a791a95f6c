//! The connections of one table that are there, and who makes room for another one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::handed::Handed;
use super::metrics::Refused;
use super::room::Room;
use super::session::{self, Visitor};
use crate::host::clients::{Peer, Sharer};
use crate::model::shares::Shares;

/// What connections have to be reset in once their time is over.
const RESET: Duration = Duration::from_secs(1);
/// One that is being opened has its time to be.
const LEAVE: Duration = Duration::from_secs(2);

/// The hall of one table.
pub(super) struct Hall {
    open: JoinSet<Option<Handed>>,
    shares: Shares<Sharer, CancellationToken>,
    places: HashMap<Id, u64>,
    /// What connections have left that were told to sooner than the table was.
    handed: Vec<Handed>,
}

impl Hall {
    pub(super) fn new(limit: usize) -> Self {
        Self { open: JoinSet::new(), shares: Shares::new(limit), places: HashMap::new(), handed: Vec::new() }
    }

    /// Has so many places from now on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.shares.set_limit(limit);
    }

    /// Gives a newcomer a place. Where none is left whoever has most loses one; who has most itself is sent away, since
    /// what it has may be worth more than one more.
    pub(super) fn let_in(&mut self, stream: TcpStream, from: SocketAddr, room: &Arc<Room>) {
        let sharer = Peer::Tcp(from.ip()).sharer();
        match self.shares.crowding(&sharer, |_| ()) {
            Some(crowding) if crowding.own => {
                room.refused(Refused::Room);
                return session::reset(&stream);
            }
            Some(crowding) => self.evict(crowding.number),
            None => {}
        }
        let leave = CancellationToken::new();
        let number = self.shares.lend(sharer, leave.clone());
        let visitor = Visitor { stream, from, leave };
        let task = self.open.spawn(session::serve(visitor, Arc::clone(room)).in_current_span());
        self.places.insert(task.id(), number);
    }

    /// Goes on with a connection of the process before.
    pub(super) fn take_up(&mut self, handed: Handed, room: &Arc<Room>) {
        let leave = CancellationToken::new();
        let number = self.shares.lend(Peer::Tcp(handed.from.ip()).sharer(), leave.clone());
        let task = self.open.spawn(session::go_on(handed, leave, Arc::clone(room)).in_current_span());
        self.places.insert(task.id(), number);
    }

    /// What the connections leave, once they have been told to.
    pub(super) async fn leave(mut self) -> Vec<Handed> {
        let mut left = std::mem::take(&mut self.handed);
        let all = async {
            while let Some(ended) = self.open.join_next().await {
                left.extend(ended.ok().flatten());
            }
        };
        // One that is late is dropped with the set.
        let _late = timeout(LEAVE, all).await;
        left
    }

    /// Lets the dearest one go: something else than places has run out.
    pub(super) fn make_room(&mut self) {
        if let Some(number) = self.shares.dearest(|_| ()) {
            self.evict(number);
        }
    }

    /// The next one that has ended; none while there is none at all.
    pub(super) async fn next_end(&mut self) -> Option<()> {
        let ended = self.open.join_next_with_id().await?;
        self.left(ended);
        Some(())
    }

    /// Waits for those that have been told to end.
    pub(super) async fn close(mut self) {
        // What is left after its time is dropped with the set.
        let _late = timeout(RESET, async { while self.open.join_next().await.is_some() {} }).await;
    }

    fn left(&mut self, ended: Result<(Id, Option<Handed>), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        match ended {
            Ok((_, handed)) => self.handed.extend(handed),
            Err(error) if error.is_panic() => tracing::error!("a connection's handling panicked"),
            Err(_) => {}
        }
        if let Some(number) = self.places.remove(&id) {
            self.shares.give_back(number);
        }
    }

    fn evict(&mut self, number: u64) {
        if let Some(leave) = self.shares.give_back(number) {
            leave.cancel();
        }
    }
}
