//! One agent's way to the store: slow, lossy, cut, and as careful about what it hears as the way to etcd is.
//!
//! What an agent concludes of the store (away, back, another one, gone back) is concluded by etcd's own [`Chronicle`].
//! A call has two attempts of a second each. Of a commit that was given up nobody knows whether it was made, or will
//! be.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use wharf::store::etcd::chronicle::Chronicle;
use wharf::store::{
    Batch, Commit, Condition, History, LeaseId, LeaseInfo, Page, Reach, Revision, Session, Store, StoreError, Watch,
    Write,
};

use crate::cluster::{Bell, Cluster, Now};
use crate::witness::Witness;

/// A request unanswered for so long means that the store is away.
const AWAY: Duration = Duration::from_millis(500);
const ATTEMPT: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 2;
/// A watch without a word for so long is out of step.
const SILENCE: Duration = Duration::from_secs(5);
/// From one keepalive that was not answered to the next.
const AGAIN: Duration = Duration::from_millis(200);

/// How a link carries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Nothing gets through.
    pub cut: bool,
    /// Out of a hundred requests or answers, so many are lost.
    pub loss: u32,
    /// Milliseconds that the slowest take one way.
    pub slowest: u64,
}

/// A store as one agent reaches it.
#[derive(Clone, Debug)]
pub struct Link {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    host: usize,
    cluster: Arc<Cluster>,
    witness: Arc<Witness>,
    shared: Arc<Shared>,
    random: Mutex<StdRng>,
}

/// What the workers of one agent have together.
#[derive(Debug)]
struct Shared {
    chronicle: Chronicle,
    histories: Listeners<History>,
    reaches: Listeners<Reach>,
    /// Grows when the connection is given up: its streams end.
    connection: Bell<u64>,
}

/// Those who are told what the chronicle concludes, each by a channel of its own and in the order that they came. (Of
/// those who wait at one channel, tokio wakes any first.)
#[derive(Debug)]
struct Listeners<T>(Mutex<Vec<watch::Sender<T>>>);

impl<T: Copy + PartialEq> Listeners<T> {
    fn add(&self, now: T) -> watch::Receiver<T> {
        let (sender, receiver) = watch::channel(now);
        self.0.lock().unwrap().push(sender);
        receiver
    }

    fn tell(&self, now: T) {
        let mut senders = self.0.lock().unwrap();
        senders.retain(|sender| !sender.is_closed());
        for sender in senders.iter() {
            sender.send_if_modified(|was| std::mem::replace(was, now) != now);
        }
    }
}

impl Shared {
    fn new() -> Self {
        let (histories, reaches) = (Listeners(Mutex::default()), Listeners(Mutex::default()));
        Self { chronicle: Chronicle::default(), histories, reaches, connection: Bell::new(0) }
    }

    fn history(&self) -> watch::Receiver<History> {
        self.histories.add(*self.chronicle.history().borrow())
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.reaches.add(*self.chronicle.reach().borrow())
    }

    fn away(&self) {
        self.chronicle.away("the link");
        self.reaches.tell(*self.chronicle.reach().borrow());
    }

    fn told(&self, cluster: u64, revision: Revision, before: Revision) -> Result<(), StoreError> {
        let told = self.chronicle.told(cluster, revision, before);
        self.histories.tell(*self.chronicle.history().borrow());
        self.reaches.tell(*self.chronicle.reach().borrow());
        told
    }
}

/// What is asked of the store when the request has got there.
type Made<'m, T> = Box<dyn Fn(Now) -> BoxFuture<'m, T> + Send + Sync + 'm>;

fn away(tried: &str) -> StoreError {
    StoreError::Away { tried: tried.to_owned(), source: None }
}

impl Link {
    pub fn new(host: usize, cluster: Arc<Cluster>, witness: Arc<Witness>, seed: u64) -> Self {
        let shared = Arc::new(Shared::new());
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Self { core: Arc::new(Core { host, cluster, witness, shared, random }) }
    }

    /// The same link for another worker of the agent, with chances of its own: so none depends on the other's.
    pub fn beside(&self) -> Self {
        let Core { host, cluster, witness, shared, random } = &*self.core;
        let random = Mutex::new(StdRng::seed_from_u64(random.lock().unwrap().random()));
        let (cluster, witness, shared) = (Arc::clone(cluster), Arc::clone(witness), Arc::clone(shared));
        Self { core: Arc::new(Core { host: *host, cluster, witness, shared, random }) }
    }
}

impl Core {
    /// Whether a request gets lost on its way, and how long it takes.
    fn leg(&self) -> (bool, Duration) {
        let Quality { loss, slowest, .. } = self.cluster.now().links[self.host];
        let mut random = self.random.lock().unwrap();
        (random.random_range(0..100) < loss, Duration::from_millis(random.random_range(0..=slowest)))
    }

    /// Waits until something can get through.
    async fn open(&self) -> Now {
        self.cluster.bell.wait_for(|now| !now.hung && !now.links[self.host].cut).await
    }

    /// Gets the request there.
    async fn there(&self) -> Now {
        let (lost, time) = self.leg();
        sleep(time).await;
        if lost {
            return std::future::pending().await;
        }
        self.open().await
    }

    async fn attempt<'m, T>(&self, make: &Made<'m, T>) -> (T, Now) {
        let now = self.there().await;
        let made = make(now.clone()).await;
        let after = self.there().await;
        if after.breaks != now.breaks {
            return std::future::pending().await;
        }
        (made, now)
    }

    async fn call<'m, T>(&self, tried: &str, make: Made<'m, T>) -> Result<(T, Now), StoreError> {
        let attempts = async {
            for _ in 0..ATTEMPTS {
                match timeout(ATTEMPT, self.attempt(&make)).await {
                    Ok(answer) => return Ok(answer),
                    Err(_) => self.broken(),
                }
            }
            Err(away(tried))
        };
        tokio::pin!(attempts);
        let result = match timeout(AWAY, &mut attempts).await {
            Ok(result) => result,
            Err(_) => {
                self.shared.away();
                attempts.await
            }
        };
        if result.is_err() {
            self.shared.away();
        }
        result
    }

    /// A call whose answer tells of the store as a whole.
    async fn linearizable<'m, T: Send + 'm>(
        &self,
        tried: &str,
        make: Made<'m, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let before = self.shared.chronicle.newest();
        let make: Made<'m, (Result<T, StoreError>, Revision)> = Box::new(move |now| {
            let made = make(now.clone());
            async move { (made.await, now.store.get(&[]).await.map_or(0, |page| page.revision)) }.boxed()
        });
        let ((made, revision), now) = self.call(tried, make).await?;
        self.shared.told(now.id, revision, before)?;
        made
    }

    /// A call whose answer does not: after one that came too late, another one tells, as on the way to etcd.
    async fn aside<'m, T: Send + 'm>(
        &self,
        tried: &str,
        make: Made<'m, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (made, _) = self.call(tried, make).await?;
        if self.shared.chronicle.is_away() {
            self.linearizable("a look", Box::new(|_| async { Ok(()) }.boxed())).await?;
        }
        made
    }

    fn broken(&self) {
        self.shared.connection.change(|connection| *connection += 1);
        self.shared.chronicle.doubt();
    }

    async fn settled(&self) -> Result<(), StoreError> {
        if self.shared.chronicle.doubtful() {
            self.linearizable("a look", Box::new(|_| async { Ok(()) }.boxed())).await
        } else {
            Ok(())
        }
    }

    async fn watch(self: &Arc<Self>, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.settled().await?;
        let (history, generation) = (self.shared.history(), self.shared.chronicle.generation());
        let connection = self.shared.connection.get();
        let make: Made<'_, _> = Box::new(|now| async move { now.store.watch(prefix, from).await }.boxed());
        let (inner, now) = match timeout(ATTEMPT, self.attempt(&make)).await {
            Ok((inner, now)) => (inner?, now),
            Err(_) => {
                self.broken();
                return Err(away("a watch"));
            }
        };
        let (core, breaks, heard) = (Arc::clone(self), now.breaks, Instant::now());
        Ok(Box::new(LinkWatch { core, inner, breaks, connection, history, generation, heard, coming: None }))
    }

    async fn commit(self: &Arc<Self>, conditions: &[Condition], writes: &[Write]) -> Result<Commit, StoreError> {
        let asked = Instant::now();
        let make = |now: Now| {
            async move { self.witness.commit(self.host, &now.store, conditions, writes, asked).await }.boxed()
        };
        let result = self.linearizable("a commit", Box::new(make)).await;
        if matches!(result, Err(StoreError::Away { .. })) && self.random.lock().unwrap().random_bool(0.3) {
            self.made_yet(conditions.to_vec(), writes.to_vec(), asked);
        }
        result
    }

    /// Given up, but it is still under way: it is made when the store can be reached.
    fn made_yet(self: &Arc<Self>, conditions: Vec<Condition>, writes: Vec<Write>, asked: Instant) {
        let core = Arc::clone(self);
        let breaks = self.cluster.now().breaks;
        tokio::spawn(async move {
            let now = core.open().await;
            if now.breaks == breaks {
                let _ = core.witness.commit(core.host, &now.store, &conditions, &writes, asked).await;
            }
        });
    }

    async fn session(self: &Arc<Self>, ttl: Duration, adopt: Option<LeaseId>) -> Result<Session, StoreError> {
        self.settled().await?;
        let generation = self.shared.chronicle.generation();
        let make: Made<'_, Result<_, StoreError>> = Box::new(|now| {
            async move {
                let lives = match adopt {
                    Some(lease) => now.store.lease(lease).await.is_ok(),
                    None => false,
                };
                let session = now.store.session(ttl, adopt.filter(|_| lives)).await?;
                self.witness.kept(self.host, session.lease());
                Ok((session.lease(), session.granted(), session.adopted()))
            }
            .boxed()
        });
        let (lease, granted, adopted) = self.aside("a session", make).await?;
        let (sender, lost) = watch::channel(false);
        let core = Arc::clone(self);
        let keeper = tokio::spawn(async move {
            let mut history = core.shared.history();
            tokio::select! {
                biased;
                _ = history.wait_for(|history| history.generation != generation) => {}
                () = core.keep(lease, granted) => {}
            }
            sender.send_replace(true);
        });
        Ok(Session::new((lease, granted), adopted, lost, AbortOnDropHandle::new(keeper)))
    }

    /// Returns when the lease is lost.
    async fn keep(&self, lease: LeaseId, granted: Duration) {
        let mut pause = granted / 3;
        loop {
            sleep(pause).await;
            let once = move |now: Now| {
                async move {
                    now.store.lease(lease).await?;
                    self.witness.kept(self.host, lease);
                    now.store.session(granted, Some(lease)).await.map(drop)
                }
                .boxed()
            };
            pause = match self.aside("a keepalive", Box::new(once)).await {
                Ok(()) => granted / 3,
                Err(StoreError::NoLease(_)) => return,
                Err(_) => AGAIN,
            };
        }
    }
}

impl Store for Link {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        let make = move |now: Now| async move { now.store.read(prefix, after, at).await }.boxed();
        self.core.linearizable("a read", Box::new(make)).boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        self.core.watch(prefix, from).boxed()
    }

    fn session(&self, ttl: Duration, adopt: Option<LeaseId>) -> BoxFuture<'_, Result<Session, StoreError>> {
        self.core.session(ttl, adopt).boxed()
    }

    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Page, StoreError>> {
        let make = move |now: Now| async move { now.store.get(keys).await }.boxed();
        self.core.linearizable("a get", Box::new(make)).boxed()
    }

    fn commit<'a>(
        &'a self,
        conditions: &'a [Condition],
        writes: &'a [Write],
    ) -> BoxFuture<'a, Result<Commit, StoreError>> {
        self.core.commit(conditions, writes).boxed()
    }

    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>> {
        let make = move |now: Now| async move { now.store.lease(id).await }.boxed();
        self.core.aside("a lease", Box::new(make)).boxed()
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        let witness = &self.core.witness;
        let make = move |now: Now| {
            witness.ended(id);
            async move { now.store.revoke(id).await }.boxed()
        };
        self.core.aside("an end", Box::new(make)).boxed()
    }

    fn history(&self) -> watch::Receiver<History> {
        self.core.shared.history()
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.core.shared.reach()
    }
}

struct LinkWatch {
    core: Arc<Core>,
    inner: Box<dyn Watch>,
    breaks: u64,
    connection: u64,
    history: watch::Receiver<History>,
    generation: u64,
    heard: Instant,
    /// What is under way, and when it arrives.
    coming: Option<(Instant, Batch)>,
}

impl LinkWatch {
    async fn next_batch(&mut self) -> Result<Batch, StoreError> {
        let (breaks, generation, connection) = (self.breaks, self.generation, self.connection);
        let core = Arc::clone(&self.core);
        let arrival = arrival(&self.core, &mut self.inner, &mut self.coming);
        let silence = self.heard + SILENCE;
        tokio::select! {
            biased;
            _ = core.shared.connection.wait_for(|now| *now != connection) => Err(away("a watch: its connection is gone")),
            _ = core.cluster.bell.wait_for(|now| now.breaks != breaks) => {
                self.core.broken();
                Err(away("a watch: broken"))
            }
            _ = self.history.wait_for(|history| history.generation != generation) => Err(StoreError::Rewound),
            batch = arrival => {
                self.heard = Instant::now();
                if let Ok(batch) = &batch
                    && let Some(last) = batch.events.last()
                {
                    self.core.shared.chronicle.seen(last.revision());
                }
                batch
            }
            () = sleep_until(silence) => {
                self.core.shared.away();
                self.core.broken();
                Err(away("a watch: silent"))
            }
        }
    }
}

/// The next batch to get here, in order; dropped, it loses none.
async fn arrival(
    core: &Core,
    inner: &mut Box<dyn Watch>,
    coming: &mut Option<(Instant, Batch)>,
) -> Result<Batch, StoreError> {
    if coming.is_none() {
        core.open().await;
        let batch = inner.next().await?;
        let (lost, time) = core.leg();
        // On a stream what is lost is sent again.
        let again = if lost { Duration::from_millis(200) } else { Duration::ZERO };
        *coming = Some((Instant::now() + time + again, batch));
    }
    if let Some((at, _)) = coming {
        sleep_until(*at).await;
    }
    core.open().await;
    Ok(coming.take().map(|(_, batch)| batch).unwrap_or_default())
}

impl Watch for LinkWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        self.next_batch().boxed()
    }
}
