//! Who may have a stream open, and whose turn it is to be answered: shared among networks, and in each among its
//! clients.
//!
//! When every place is taken, one of those who have most makes room: of the network with most, the client with most,
//! and of its streams the one that has been silent longest. So a crowd costs itself, not those who ask. Likewise a
//! client has one turn at a time, however many its streams and questions, and so has a network. This process itself
//! ([`Insider`]) waits behind nobody, so that no crowd keeps its watchdog from an answer.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::limit::network;
use super::metrics::Metrics;

/// Streams open at once.
const STREAMS: usize = 512;
/// Those of one client.
pub(super) const OF_ONE: usize = 128;

/// The places of all listeners.
#[derive(Debug)]
pub(super) struct Places {
    open: Mutex<HashMap<u64, Place>>,
    next: AtomicU64,
    clock: AtomicU64,
    /// Questions being answered at once.
    turns: Semaphore,
    insider: Insider,
    metrics: Arc<Metrics>,
}

/// The address that this process asks itself from, good for one stream: whoever has that port later is a client like
/// any other.
#[derive(Clone, Debug, Default)]
pub struct Insider(Arc<Mutex<Option<SocketAddr>>>);

impl Insider {
    /// Says where this process asks from; to be said before it connects.
    pub fn asks_from(&self, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    fn lets_in(&self, client: SocketAddr) -> bool {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.take_if(|known| *known == client).is_some()
    }
}

#[derive(Clone, Debug)]
struct Place {
    client: IpAddr,
    network: u64,
    /// Grows with every question: the smallest has been silent longest.
    last: Arc<AtomicU64>,
    leave: CancellationToken,
    /// The turn of this client, and that of its network.
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

/// A place taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    places: Arc<Places>,
    number: u64,
    place: Place,
    inside: bool,
}

/// A turn to be answered, for as long as it is kept.
#[derive(Debug)]
pub(super) struct Turn<'t> {
    _permits: Option<[SemaphorePermit<'t>; 3]>,
}

impl Places {
    /// For as many answers at once as may be.
    pub(super) fn new(turns: usize, insider: Insider, metrics: Arc<Metrics>) -> Self {
        Self {
            open: Mutex::default(),
            next: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            turns: Semaphore::new(turns.max(1)),
            insider,
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Place>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a client. Who makes room for it is told to leave.
    pub(super) fn take(self: &Arc<Self>, client: SocketAddr) -> Taken {
        let (inside, client) = (self.insider.lets_in(client), client.ip().to_canonical());
        let mut open = self.lock();
        if !inside && let Some(place) = makes_room(&open, client).and_then(|number| open.remove(&number)) {
            place.leave.cancel();
            self.metrics.evicted.fetch_add(1, Ordering::Relaxed);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let last = self.clock.fetch_add(1, Ordering::Relaxed);
        let place = Place::among(&open, client, last);
        if !inside {
            open.insert(number, place.clone());
        }
        self.metrics.streams.fetch_add(1, Ordering::Relaxed);
        Taken { places: self.clone(), number, place, inside }
    }
}

impl Place {
    /// A client's place, with the turns that it shares with those who are there.
    fn among(open: &HashMap<u64, Self>, client: IpAddr, last: u64) -> Self {
        let network = network(client);
        let one = || Arc::new(Semaphore::new(1));
        let own = open.values().find(|place| place.client == client).map(|place| place.own.clone());
        let shared = open.values().find(|place| place.network == network).map(|place| place.shared.clone());
        Self {
            client,
            network,
            last: Arc::new(AtomicU64::new(last)),
            leave: CancellationToken::new(),
            own: own.unwrap_or_else(one),
            shared: shared.unwrap_or_else(one),
        }
    }
}

impl Taken {
    /// Told to leave: another one needs the place more.
    pub(super) fn leave(&self) -> CancellationToken {
        self.place.leave.clone()
    }

    /// A whole question has come.
    pub(super) fn moved(&self) {
        self.place.last.store(self.places.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Waits for the turn of this stream: after the others of its client, then of its network, then of all.
    pub(super) async fn turn(&self) -> Turn<'_> {
        if self.inside {
            return Turn { _permits: None };
        }
        let open = "these are never closed";
        let own = self.place.own.acquire().await.expect(open);
        let shared = self.place.shared.acquire().await.expect(open);
        Turn { _permits: Some([own, shared, self.places.turns.acquire().await.expect(open)]) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.lock().remove(&self.number);
        self.places.metrics.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which stream makes room for another one of this client, if there is no room left.
fn makes_room(open: &HashMap<u64, Place>, client: IpAddr) -> Option<u64> {
    let is_full = open.values().filter(|place| place.client == client).count() >= OF_ONE;
    if !is_full && open.len() < STREAMS {
        return None;
    }
    let clients = counted(open.values().map(|place| place.client).chain([client]));
    let networks = counted(open.values().map(|place| place.network).chain([network(client)]));
    let rank = |place: &Place| {
        let last = place.last.load(Ordering::Relaxed);
        (networks[&place.network], clients[&place.client], Reverse(last))
    };
    let among = open.iter().filter(|(_, place)| !is_full || place.client == client);
    among.max_by_key(|(_, place)| rank(place)).map(|(number, _)| *number)
}

fn counted<T: Eq + Hash>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn places() -> Arc<Places> {
        of_turns(1)
    }

    fn of_turns(turns: usize) -> Arc<Places> {
        let metrics = Metrics::register(Vec::new(), &mut Registry::default());
        Arc::new(Places::new(turns, Insider::default(), metrics))
    }

    fn client(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 40_000)
    }

    fn take(places: &Arc<Places>, of: &str, times: usize) -> Vec<Taken> {
        (0..times).map(|_| places.take(client(of))).collect()
    }

    fn left(taken: &[Taken]) -> usize {
        taken.iter().filter(|taken| taken.leave().is_cancelled()).count()
    }

    #[test]
    fn who_has_most_makes_room_and_of_its_streams_the_silent_one() {
        let places = places();
        let polite = take(&places, "127.0.0.1", 1);
        let greedy: Vec<Vec<Taken>> = (2..10).map(|last| take(&places, &format!("127.0.0.{last}"), OF_ONE)).collect();
        greedy[7][0].moved();
        let another = take(&places, "127.0.0.11", 1);
        assert_eq!((left(&polite), left(&another)), (0, 0), "although silent longest");
        let gone: usize = greedy.iter().map(|streams| left(streams)).sum();
        assert_eq!(gone, 8 * OF_ONE + 2 - STREAMS);
        assert_eq!(places.lock().len(), STREAMS);
    }

    #[test]
    fn a_client_beyond_its_share_makes_room_for_itself() {
        let places = places();
        let other = take(&places, "192.0.2.1", 1);
        let first = take(&places, "127.0.0.2", OF_ONE);
        first[0].moved();
        let _more = take(&places, "127.0.0.2", 1);
        assert_eq!((left(&other), left(&first)), (0, 1));
        assert!(first[1].leave().is_cancelled(), "the other one asked lately");
    }

    #[test]
    fn many_addresses_of_one_network_are_one_crowd() {
        let places = places();
        let crowd: Vec<Taken> =
            (0..STREAMS).flat_map(|n| take(&places, &format!("2001:db8:0:100::{n:x}"), 1)).collect();
        let (_more, polite) = (take(&places, "2001:db8:0:101::1", 1), take(&places, "192.0.2.1", 100));
        assert_eq!((left(&crowd), left(&polite)), (101, 0));
    }

    #[test]
    fn of_equals_the_longest_silent_makes_room() {
        let places = places();
        let each: Vec<Taken> =
            (0..STREAMS).flat_map(|n| take(&places, &format!("10.{}.{}.1", n / 256, n % 256), 1)).collect();
        let newcomer = take(&places, "192.0.2.1", 1);
        assert!(each[0].leave().is_cancelled() && left(&each) == 1 && left(&newcomer) == 0);
    }

    #[tokio::test]
    async fn a_client_of_many_streams_has_one_turn_at_a_time() {
        let places = of_turns(8);
        let (greedy, polite) = (take(&places, "127.0.0.2", 2), take(&places, "192.0.2.1", 1));
        let begun = greedy[0].turn().await;
        let second = futures_util::FutureExt::now_or_never(greedy[1].turn());
        assert!(second.is_none(), "the client is being answered");
        assert!(futures_util::FutureExt::now_or_never(polite[0].turn()).is_some());
        drop(begun);
        assert!(futures_util::FutureExt::now_or_never(greedy[1].turn()).is_some());
    }

    #[tokio::test]
    async fn this_process_waits_behind_nobody_and_takes_nobodys_place() {
        let places = places();
        let crowd: Vec<Taken> = (0..4).flat_map(|last| take(&places, &format!("127.0.0.{last}"), OF_ONE)).collect();
        let _answered = crowd[0].turn().await;
        let at = SocketAddr::new(client("127.0.0.1").ip(), 50_000);
        places.insider.asks_from(at);
        let inside = places.take(at);
        assert!(futures_util::FutureExt::now_or_never(inside.turn()).is_some());
        assert_eq!(left(&crowd), 0);
        let outside = places.take(at);
        assert!(futures_util::FutureExt::now_or_never(outside.turn()).is_none(), "anybody may have that port now");
    }
}
