//! Questions that come in streams: bounded in number, in time and in what one client may have of both.
//!
//! hickory frames the messages and times the silence; which streams are open is decided here, as hickory's own server
//! takes any number of them. When every place is taken, the stream that has been silent longest makes room: a crowd of
//! idle connections costs itself, not those who ask. Questions of one stream are answered one after the other.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use hickory_server::net::DnsStreamHandle;
use hickory_server::net::tcp::TcpStream as Messages;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::SerialMessage;
use hickory_server::server::TimeoutStream;
use tokio::net::TcpStream;
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::closing::Closing;
use super::packet;
use super::serving::Serving;

/// Streams open at once.
const STREAMS: usize = 512;
/// Those of one client.
pub(super) const OF_ONE: usize = 128;
/// A stream from which no whole question comes for so long, or that does not take its answer, is closed.
const SILENT: Duration = Duration::from_secs(6);
/// Answers of one stream that wait to be taken: its next question is read when they are.
const UNTAKEN: usize = 1;
/// What is left open when the server stops gets so long.
const DRAIN: Duration = Duration::from_secs(1);
/// After a failed accept, such as for want of file descriptors.
const BREATH: Duration = Duration::from_millis(50);

/// Accepts streams of one listener and answers them.
pub(super) struct Streams {
    serving: Arc<Serving>,
    listener: tokio::net::TcpListener,
    places: Arc<Places>,
}

/// The places of all listeners.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: std::sync::Mutex<HashMap<u64, Place>>,
    next: AtomicU64,
    clock: AtomicU64,
}

#[derive(Debug)]
struct Place {
    client: IpAddr,
    /// Grows with every question: the smallest has been silent longest.
    last: Arc<AtomicU64>,
    leave: CancellationToken,
}

/// A place taken; given back when dropped.
struct Taken {
    places: Arc<Places>,
    serving: Arc<Serving>,
    number: u64,
    last: Arc<AtomicU64>,
    leave: CancellationToken,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.lock().remove(&self.number);
        self.serving.metrics.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Taken {
    fn moved(&self) {
        self.last.store(self.places.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Places {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Place>> {
        self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A place for a client; who has been silent longest makes room when there is none.
    fn take(self: &Arc<Self>, serving: &Arc<Serving>, client: IpAddr) -> Taken {
        let client = client.to_canonical();
        let mut taken = self.lock();
        let own = taken.values().filter(|place| place.client == client).count();
        if own >= OF_ONE || taken.len() >= STREAMS {
            let among = taken.iter().filter(|(_, place)| own < OF_ONE || place.client == client);
            let silent = among.min_by_key(|(_, place)| place.last.load(Ordering::Relaxed)).map(|(number, _)| *number);
            if let Some(place) = silent.and_then(|number| taken.remove(&number)) {
                place.leave.cancel();
                serving.metrics.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let last = Arc::new(AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed)));
        let leave = CancellationToken::new();
        taken.insert(number, Place { client, last: last.clone(), leave: leave.clone() });
        serving.metrics.streams.fetch_add(1, Ordering::Relaxed);
        Taken { places: self.clone(), serving: serving.clone(), number, last, leave }
    }
}

impl Streams {
    pub(super) fn new(serving: Arc<Serving>, listener: TcpListener, places: Arc<Places>) -> io::Result<Self> {
        Ok(Self { serving, listener: tokio::net::TcpListener::from_std(listener)?, places })
    }

    /// Accepts and answers until told to stop, then lets answers under way end.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, client)) => drop(self.begin(&mut open, stream, client, &stop)),
                    Err(error) => {
                        tracing::debug!(%error, "stream not accepted");
                        tokio::time::sleep(BREATH).await;
                    }
                },
                Some(_) = open.join_next() => {}
            }
        }
        let drained = async { while open.join_next().await.is_some() {} };
        let _ = timeout(DRAIN, drained).await;
    }

    fn begin(&self, open: &mut JoinSet<()>, stream: TcpStream, client: SocketAddr, stop: &CancellationToken) -> Id {
        let taken = self.places.take(&self.serving, client.ip());
        let (serving, stop) = (self.serving.clone(), stop.clone());
        let task = open.spawn(async move {
            let leave = taken.leave.clone();
            tokio::select! {
                () = leave.cancelled() => {}
                ended = converse(&serving, stream, client, &taken, stop) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, %client, "stream ended");
                    }
                }
            }
        });
        task.id()
    }
}

/// Answers the questions of one stream until it ends, is silent, or slow.
async fn converse(
    serving: &Arc<Serving>,
    stream: TcpStream,
    client: SocketAddr,
    taken: &Taken,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let (messages, mut replies) = Messages::from_stream_with_buffer_size(Closing::new(stream, stop), client, UNTAKEN);
    let mut messages = TimeoutStream::new(messages, SILENT);
    let mut seed = taken.number;
    while let Some(message) = messages.next().await {
        let (question, _) = message?.into_parts();
        taken.moved();
        seed = seed.wrapping_add(1);
        let handled = packet::handle(serving.clone(), question, client, Protocol::Tcp, seed).await;
        let Some(reply) = handled.reply else { return Ok(()) };
        replies.send(SerialMessage::new(reply, client))?;
    }
    Ok(())
}
