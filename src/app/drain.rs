//! Takes requests to drain from HTTP to the switch that remembers them.

use std::convert::Infallible;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::topology::Masters;
use crate::answer::http::DrainRequest;
use crate::offer::drain::Drain;

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
            let stays = if request.drain { self.masters.give_away().await } else { vec![] };
            let done = if request.drain { self.switch.drain(SystemTime::now()) } else { self.switch.undrain() };
            let told = done.map(|()| stays);
            let told = told.map_err(|error| format!("done, but not remembered over a restart: {error}"));
            _ = request.reply.send(told);
        }
        stop.cancelled().await;
        Ok(())
    }
}
