//! Answers to datagrams that had to wait for another server: finished here, while the threads read on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::packet::Handled;
use super::socket::{Peer, Udp};

/// What still waits when the server stops gets so long: the forwarder gives it up at once.
const DRAIN: Duration = Duration::from_secs(1);

/// A datagram being answered.
pub(super) struct Late {
    /// The socket it came in on.
    pub(super) socket: Arc<Udp>,
    /// Its sender.
    pub(super) peer: Peer,
    pub(super) handling: BoxFuture<'static, Handled>,
}

/// Finishes what comes in until told to stop, and then what is left.
pub(super) async fn finish(mut late: mpsc::Receiver<Late>, stop: CancellationToken) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(one) = late.recv() => open.push(one.answer()),
            Some(()) = open.next() => {}
        }
    }
    while let Ok(one) = late.try_recv() {
        open.push(one.answer());
    }
    let _ = timeout(DRAIN, async { while open.next().await.is_some() {} }).await;
}

impl Late {
    async fn answer(self) {
        if let Some(reply) = self.handling.await.reply {
            let _ = self.socket.send(&reply, self.peer);
        }
    }
}
