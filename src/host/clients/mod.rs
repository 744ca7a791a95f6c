//! A bounded server of streams: it accepts, shares its places among those who come, and lets go in time.
//!
//! | task | from | to |
//! |---|---|---|
//! | [`Clients::serve`], one per socket | the listener, [`Door`]s | one task per client |
//! | a client's task | its stream | ends by itself, by [`Guest::leave`], or `drain` after the stop |
//!
//! A newcomer never waits for those who are there: when every place is taken, the peer that has most loses one, first
//! those of its connections that never asked anything, then those that have not moved for longest. What is said over
//! a stream is the business of whoever serves; this part knows bytes and places only.

mod guest;
mod listener;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, warn};

pub use guest::{Guest, Impatient, Turns};
pub use listener::{BindError, Link, Listener, Peer, Sharer};

use crate::model::shares::Shares;

/// Pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accepts that fail no further apart than this are one outage: in between, what was let go lets one or another
/// succeed.
const OUTAGE: Duration = Duration::from_secs(10);
/// Bytes on their way through a door.
const DOOR: usize = 16 * 1024;

/// What a server allows itself.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Clients at a time on one socket.
    pub clients: usize,
    /// Time that clients have to be done with when the server stops.
    pub drain: Duration,
}

/// What is counted of a server's clients.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Connections open now.
    pub open: Gauge,
    /// Connections closed to make room for others.
    pub evicted: Counter,
}

/// A way in from this process, past socket and places: who comes through it is served by the very same loop.
#[derive(Clone, Debug)]
pub struct Door(mpsc::Sender<DuplexStream>);

impl Door {
    /// Enters; done once the server's loop has room to take the stream.
    pub async fn enter(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(DOOR);
        self.0.send(theirs).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }
}

/// The clients of one socket.
#[derive(Debug)]
pub struct Clients {
    listener: Listener,
    visits: mpsc::Receiver<DuplexStream>,
    bounds: Bounds,
    counts: Counts,
}

impl Clients {
    /// Those of this listener, and a door to them.
    pub fn new(listener: Listener, bounds: Bounds, counts: Counts) -> (Self, Door) {
        let (door, visits) = mpsc::channel(1);
        (Self { listener, visits, bounds, counts }, Door(door))
    }

    /// The socket.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Accepts clients and converses with each until told to stop, then gives those that are left their time.
    pub async fn serve<C, F>(mut self, stop: CancellationToken, converse: C)
    where
        C: Fn(Link, Guest) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut hall = Hall::new(self.bounds.clients, self.counts.clone());
        let mut failing = Failing::default();
        loop {
            // Nothing is lost with a branch that is dropped: an accept or a receive that is not done has taken nobody.
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = hall.open.join_next_with_id() => hall.left(ended),
                Some(link) = self.visits.recv() => hall.let_in(Link::Inside(link), Peer::Inside, &converse),
                () = failing.over(), if failing.is_pausing() => failing.go_on(),
                accepted = self.listener.accept(), if !failing.is_pausing() => match accepted {
                    Ok((link, peer)) => {
                        failing.passed(Instant::now());
                        hall.let_in(link, peer, &converse);
                    }
                    Err(error) if is_of_client(&error) => {}
                    Err(error) => {
                        failing.pause(&error, Instant::now());
                        hall.make_room();
                    }
                },
            }
        }
        let _ = timeout(self.bounds.drain, async { while hall.open.join_next().await.is_some() {} }).await;
    }
}

/// Clients that are there.
struct Hall {
    open: JoinSet<()>,
    shares: Shares<Sharer, Guest>,
    places: HashMap<Id, u64>,
    clock: Arc<AtomicU64>,
    counts: Counts,
}

impl Hall {
    fn new(limit: usize, counts: Counts) -> Self {
        Self { open: JoinSet::new(), shares: Shares::new(limit), places: HashMap::new(), clock: Arc::default(), counts }
    }

    /// Gives a client a place, and takes one from whoever has most if there is none left. This process itself needs
    /// none.
    fn let_in<F>(&mut self, link: Link, peer: Peer, converse: impl Fn(Link, Guest) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let sharer = peer.sharer();
        if peer != Peer::Inside
            && let Some(crowding) = self.shares.crowding(&sharer, Guest::rank)
        {
            self.evict(crowding.number);
        }
        let turns = self.shares.any_of(&sharer).map(|guest| guest.turns.clone()).unwrap_or_default();
        let guest = Guest::new(peer, turns, &self.clock);
        let (conversation, leave) = (converse(link, guest.clone()), guest.leave.clone());
        let open = Counted::new(self.counts.open.clone());
        let task = async move {
            let _open = open;
            leave.run_until_cancelled(conversation).await;
        };
        let id = self.open.spawn(task.in_current_span()).id();
        if peer != Peer::Inside {
            self.places.insert(id, self.shares.lend(sharer, guest));
        }
    }

    fn left(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                warn!(%error, "a client's connection was not ended well");
                error.id()
            }
        };
        if let Some(number) = self.places.remove(&id) {
            self.shares.give_back(number);
        }
    }

    /// Closes the connection that is worth least, so that there is a descriptor for the next client.
    fn make_room(&mut self) {
        if let Some(number) = self.shares.dearest(Guest::rank) {
            self.evict(number);
        }
    }

    fn evict(&mut self, number: u64) {
        if let Some(guest) = self.shares.give_back(number) {
            guest.leave.cancel();
            self.counts.evicted.inc();
        }
    }
}

/// Whether clients cannot be accepted at the moment.
#[derive(Default)]
pub(crate) struct Failing {
    until: Option<Instant>,
    outage: Option<Outage>,
}

/// Failed accepts of one cause: how many, and when the last one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outage {
    failed: u64,
    last: Instant,
}

impl Failing {
    pub(crate) fn is_pausing(&self) -> bool {
        self.until.is_some()
    }

    pub(crate) async fn over(&self) {
        match self.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    /// Accepts again.
    pub(crate) fn go_on(&mut self) {
        self.until = None;
    }

    /// Accepts nobody for a while: what has run out is not there again at once. Said once in an outage.
    pub(crate) fn pause(&mut self, error: &io::Error, now: Instant) {
        self.passed(now);
        self.until = Some(now + ACCEPT_PAUSE);
        let failed = self.outage.map_or(0, |outage| outage.failed) + 1;
        if failed == 1 {
            warn!(%error, "clients cannot be accepted, trying again");
        }
        self.outage = Some(Outage { failed, last: now });
    }

    /// Says that an outage is over, once no accept has failed for long enough.
    pub(crate) fn passed(&mut self, now: Instant) {
        if let Some(Outage { failed, .. }) = self.outage.take_if(|outage| now >= outage.last + OUTAGE) {
            info!(failed, "clients can be accepted again");
        }
    }
}

/// Whether a failed accept tells of one client that has gone already, rather than of this host (accept(2)).
pub(crate) fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable | WouldBlock
    )
}

/// Something that is counted as long as it lives, however it ends.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one more.
    pub fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    /// Says hello to a byte, and then nothing.
    async fn hello(link: Link, guest: Guest) {
        async fn speak(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, guest: Guest) -> io::Result<()> {
            while stream.read_u8().await.is_ok() {
                guest.asked();
                stream.write_all(b"hello").await?;
            }
            Ok(())
        }
        let _ = match link {
            Link::Tcp(stream) => speak(stream, guest).await,
            Link::Unix(stream) => speak(stream, guest).await,
            Link::Inside(stream) => speak(stream, guest).await,
        };
    }

    struct Server {
        at: std::net::SocketAddr,
        door: Door,
        counts: Counts,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn server(clients: usize) -> Server {
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let at = listener.address().expect("TCP");
        let counts = Counts::default();
        let bounds = Bounds { clients, drain: Duration::from_millis(50) };
        let (clients, door) = Clients::new(listener, bounds, counts.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(clients.serve(stop.clone(), hello));
        Server { at, door, counts, stop, task }
    }

    async fn from(source: [u8; 4], to: std::net::SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((source, 0).into()).expect("all of 127.0.0.0/8 is this host");
        socket.connect(to).await.expect("it listens")
    }

    async fn greeted(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> bool {
        let mut reply = [0; 5];
        let asked = async {
            stream.write_all(b"x").await?;
            stream.read_exact(&mut reply).await
        };
        matches!(timeout(Duration::from_secs(10), asked).await, Ok(Ok(_)))
    }

    #[tokio::test]
    async fn a_crowd_of_one_peer_keeps_nobody_out() {
        let server = server(8).await;
        let mut friend = from([127, 0, 0, 2], server.at).await;
        assert!(greeted(&mut friend).await);
        let mut crowd = Vec::new();
        for _ in 0..64 {
            crowd.push(from([127, 0, 0, 3], server.at).await);
        }
        assert!(greeted(from([127, 0, 0, 4], server.at).await).await, "a newcomer is served");
        assert!(greeted(from([127, 0, 0, 3], server.at).await).await, "the crowd's own peer too");
        assert!(greeted(friend).await, "who was there stays");
        assert!(server.counts.evicted.get() >= 57);
        let mut first = crowd.swap_remove(0);
        assert!(matches!(first.read(&mut [0]).await, Ok(0) | Err(_)), "the crowd's first has been let go");
    }

    #[test]
    fn an_outage_is_one_however_often_an_accept_succeeds_in_between() {
        let (mut failing, begun) = (Failing::default(), Instant::now());
        let error = io::Error::from(io::ErrorKind::Other);
        for turn in 0..100 {
            let now = begun + ACCEPT_PAUSE * turn;
            failing.pause(&error, now);
            failing.passed(now + Duration::from_millis(1));
        }
        let last = begun + ACCEPT_PAUSE * 99;
        assert_eq!(failing.outage, Some(Outage { failed: 100, last }), "said once, and counted");
        failing.passed(last + OUTAGE);
        assert_eq!(failing.outage, None);
        failing.pause(&error, last + OUTAGE);
        failing.pause(&error, last + OUTAGE * 2);
        assert_eq!(failing.outage.map(|outage| outage.failed), Some(1), "the next outage is another one");
    }

    #[tokio::test]
    async fn a_full_house_has_a_door_for_the_process_itself() {
        let server = server(1).await;
        let _other = from([127, 0, 0, 2], server.at).await;
        assert!(greeted(server.door.enter().await.expect("it serves")).await);
    }

    #[tokio::test]
    async fn a_stop_waits_for_nobody_longer_than_its_drain() {
        let server = server(4).await;
        let mut silent = from([127, 0, 0, 2], server.at).await;
        assert!(greeted(&mut silent).await);
        server.stop.cancel();
        timeout(Duration::from_secs(10), server.task).await.expect("in time").expect("no panic");
        assert_eq!(server.counts.open.get(), 0);
    }

    #[test]
    fn a_lack_of_descriptors_is_not_the_clients_doing() {
        let of = |number: i32| is_of_client(&io::Error::from_raw_os_error(number));
        for number in [nix::libc::ECONNABORTED, nix::libc::EINTR, nix::libc::EHOSTUNREACH] {
            assert!(of(number), "{number}");
        }
        for number in [nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::ENOBUFS, nix::libc::ENOMEM] {
            assert!(!of(number), "{number}");
        }
    }
}
