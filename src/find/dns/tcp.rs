//! Questions that come in streams: bounded in number, in time and in what one client may have of both.
//!
//! When every place is taken, the stream that has been silent longest makes room: a crowd of idle connections costs
//! itself, not those who ask. Questions of one stream are answered one after the other.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::metrics::Dropped;
use super::packet::{Now, Transport, Verdict};
use super::serving::{Asked, Serving};

/// Streams open at once.
const STREAMS: usize = 512;
/// Those of one client.
const OF_ONE: usize = 128;
/// A stream that asks nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A question once begun, or an answer, takes no longer.
const SLOW: Duration = Duration::from_secs(4);
/// An answer from elsewhere takes no longer.
const ELSEWHERE: Duration = Duration::from_secs(10);
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
                ended = converse(&serving, stream, client.ip(), &taken, &stop) => {
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
    serving: &Serving,
    mut stream: TcpStream,
    client: IpAddr,
    taken: &Taken,
    stop: &CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut question = Vec::new();
    let mut reply = Vec::new();
    let mut seed = taken.number;
    loop {
        let length = tokio::select! {
            length = timeout(IDLE, stream.read_u16()) => length??,
            () = stop.cancelled() => return Ok(()),
        };
        let begun = Instant::now();
        question.resize(usize::from(length), 0);
        timeout(SLOW, stream.read_exact(&mut question)).await??;
        taken.moved();
        seed = seed.wrapping_add(1);
        if !answer(serving, &question, client, seed, begun, &mut reply).await {
            return Ok(());
        }
        let framed = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut whole = Vec::with_capacity(reply.len() + 2);
        whole.extend_from_slice(&framed.to_be_bytes());
        whole.extend_from_slice(&reply);
        timeout(SLOW, stream.write_all(&whole)).await??;
        question.shrink_to(4_096);
        reply.shrink_to(4_096);
    }
}

/// Answers one question into `reply`; `false` ends the stream.
async fn answer(
    serving: &Serving,
    question: &[u8],
    client: IpAddr,
    seed: u64,
    begun: Instant,
    reply: &mut Vec<u8>,
) -> bool {
    let verdict = {
        let catalog = serving.view.load();
        let now = Now { catalog: &catalog, progress: serving.view.progress(), now: serving.view.now(), seed };
        serving.rules.answer(&serving.metrics, question, client, Transport::Tcp, now, reply)
    };
    match verdict {
        Verdict::Reply(said) => {
            serving.metrics.answered(said.place, begun.elapsed());
            serving.view.serving(&said.leases);
            true
        }
        Verdict::Pending(pending) => {
            let (sender, answered) = oneshot::channel();
            if let Err(pending) = serving.forward(client, *pending, Asked::Stream { reply: sender, begun }) {
                serving.metrics.dropped(Dropped::Overload);
                pending.give_up(reply);
                return true;
            }
            match timeout(ELSEWHERE, answered).await {
                Ok(Ok(answer)) => {
                    *reply = answer;
                    true
                }
                _ => false,
            }
        }
        Verdict::Drop(why) => {
            serving.metrics.dropped(why);
            false
        }
    }
}
