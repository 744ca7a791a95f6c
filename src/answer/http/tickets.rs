//! Answers that hold much while they are under way: so many at a time, shared by peer.

use tokio::sync::watch;

use crate::host::clients::{Guest, Sharer};
use crate::model::shares::{Crowding, Shares};

/// The tickets of one kind of answer. Clones are the same tickets.
#[derive(Clone, Debug)]
pub(in crate::answer) struct Tickets(watch::Sender<Shares<Sharer, Guest>>);

/// One of them, given back when dropped.
#[derive(Debug)]
pub(in crate::answer) struct Ticket {
    number: u64,
    of: Tickets,
}

impl Tickets {
    pub(in crate::answer) fn new(limit: usize) -> Self {
        Self(watch::Sender::new(Shares::new(limit)))
    }

    /// A ticket at once. When none is left the peer that has most loses one, be it this one: of its clients the one
    /// that has not moved for longest is sent away.
    pub(super) fn take(&self, guest: &Guest) -> Ticket {
        self.lend(guest, |_| true).expect("whoever has most can always be sent away")
    }

    /// The same, but `None` for a client whose own peer has most: clients that come back by themselves would else push
    /// each other out in turn.
    pub(in crate::answer) fn take_of_others(&self, guest: &Guest) -> Option<Ticket> {
        self.lend(guest, |crowding| !crowding.own)
    }

    fn lend(&self, guest: &Guest, may_push_out: impl Fn(Crowding) -> bool) -> Option<Ticket> {
        let (sharer, mut number) = (guest.peer.sharer(), None);
        self.0.send_modify(|shares| {
            if let Some(crowding) = shares.crowding(&sharer, Guest::rank) {
                if !may_push_out(crowding) {
                    return;
                }
                if let Some(out) = shares.give_back(crowding.number) {
                    out.leave.cancel();
                }
            }
            number = Some(shares.lend(sharer, guest.clone()));
        });
        number.map(|number| Ticket { number, of: self.clone() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.of.0.send_modify(|shares| drop(shares.give_back(self.number)));
    }
}
