//! Takes requests to drain from HTTP to the switch that remembers them.

use std::convert::Infallible;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::topology::Masters;
use crate::answer::http::{DrainRequest, NotDrained};
use crate::model::publish::maintenance::Withdrawn;
use crate::offer::drain::{Drain, DrainError};

/// Requests that may wait; further ones wait at HTTP.
const WAITING: usize = 8;

/// The worker between the two halves.
pub(super) struct DrainDesk {
    switch: Drain,
    masters: Masters,
    requests: mpsc::Receiver<DrainRequest>,
}

impl DrainDesk {
    /// A desk before `switch`, and where requests are handed in.
    pub(super) fn new(switch: Drain, masters: Masters) -> (Self, mpsc::Sender<DrainRequest>) {
        let (hand_in, requests) = mpsc::channel(WAITING);
        (Self { switch, masters, requests }, hand_in)
    }

    /// Works until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        while let Some(Some(request)) = stop.run_until_cancelled(self.requests.recv()).await {
            let DrainRequest { drain, what, who, reason, reply } = request;
            // A master is given away with its host; who drains one service has its master elsewhere already, or means
            // it.
            let stays = if drain && what.is_none() { self.masters.give_away().await } else { vec![] };
            let done = match drain {
                true => self.switch.withdraw(Withdrawn::new(what.as_deref(), &who, &reason, SystemTime::now())),
                false => self.switch.restore(what.as_deref()),
            };
            _ = reply.send(done.map(|()| stays).map_err(|error| not_drained(&error)));
        }
        stop.cancelled().await;
        Ok(())
    }
}

fn not_drained(error: &DrainError) -> NotDrained {
    let said = error.to_string();
    if matches!(error, DrainError::Unknown(_)) { NotDrained::Unknown(said) } else { NotDrained::Failed(said) }
}
