//! A store that goes away, forgets answers, is wiped, and keeps things from its watches, when told to. Its times are
//! those of the runtime, so tests with paused time go through hours of it.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)] // each test file uses its own part

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use wharf::store::embedded::Embedded;
use wharf::store::{
    Batch, Commit, Condition, Event, History, LeaseId, LeaseInfo, Page, Reach, Revision, Session, Store, StoreError,
    Watch, Write,
};

/// A store that fails when told to.
#[derive(Debug)]
pub struct Faulty {
    inner: Mutex<Embedded>,
    random: Mutex<StdRng>,
    away: watch::Sender<bool>,
    reach: watch::Sender<Reach>,
    history: watch::Sender<History>,
    /// It is wiped before the next watch is opened.
    trap: AtomicBool,
    /// What watches leave out.
    hidden: Mutex<Option<String>>,
    /// How much longer calls take there, and back again.
    slow: Mutex<Duration>,
}

fn lost_call() -> StoreError {
    StoreError::Away { tried: "a call".into(), source: None }
}

impl Faulty {
    pub fn new(seed: u64) -> Self {
        Self {
            inner: Mutex::new(Embedded::new()),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            away: watch::Sender::new(false),
            reach: watch::Sender::new(Reach::There),
            history: watch::Sender::new(History { cluster: Some(1), ..History::default() }),
            trap: AtomicBool::new(false),
            hidden: Mutex::new(None),
            slow: Mutex::new(Duration::ZERO),
        }
    }

    pub fn inner(&self) -> Embedded {
        self.inner.lock().unwrap().clone()
    }

    pub fn set_away(&self, away: bool) {
        self.away.send_replace(away);
        self.reach.send_replace(if away { Reach::Away } else { Reach::There });
    }

    /// Another store from now on.
    pub fn wipe(&self) {
        *self.inner.lock().unwrap() = Embedded::new();
        self.history.send_modify(|history| history.generation += 1);
    }

    /// Another store, but only once somebody has read this one and is about to watch it.
    pub fn wipe_before_the_next_watch(&self) {
        self.trap.store(true, Ordering::SeqCst);
    }

    /// Whether that has happened.
    pub fn has_wiped(&self) -> bool {
        !self.trap.load(Ordering::SeqCst)
    }

    /// Watches do not tell of keys that begin so.
    pub fn hide(&self, prefix: &str) {
        *self.hidden.lock().unwrap() = Some(prefix.to_owned());
    }

    /// Calls take so much longer there, and back again; watches tell at once.
    pub fn slow_down(&self, by: Duration) {
        *self.slow.lock().unwrap() = by;
    }

    /// A call takes its time; while the store is away it fails, before it is made or after.
    async fn through<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let (before, wait) = {
            let mut random = self.random.lock().unwrap();
            (random.random_bool(0.5), Duration::from_millis(random.random_range(0..20)))
        };
        let slow = *self.slow.lock().unwrap();
        tokio::time::sleep(wait + slow).await;
        if *self.away.borrow() && before {
            return Err(lost_call());
        }
        let result = call.await;
        tokio::time::sleep(wait / 2 + slow).await;
        if *self.away.borrow() { Err(lost_call()) } else { result }
    }
}

impl Store for Faulty {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.through(async move { self.inner().read(prefix, after, at).await }).boxed()
    }

    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.through(async move { self.inner().get(keys).await }).boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        self.through(async move {
            if self.trap.swap(false, Ordering::SeqCst) {
                self.wipe();
            }
            let inner = self.inner().watch(prefix, from).await?;
            let hidden = self.hidden.lock().unwrap().clone();
            let (mut away, mut history) = (self.away.subscribe(), self.history.subscribe());
            away.mark_unchanged();
            history.mark_unchanged();
            Ok(Box::new(FaultyWatch { inner, hidden, away, history }) as Box<dyn Watch>)
        })
        .boxed()
    }

    fn session(&self, ttl: Duration, adopt: Option<LeaseId>) -> BoxFuture<'_, Result<Session, StoreError>> {
        self.through(async move { self.inner().session(ttl, adopt).await }).boxed()
    }

    fn commit<'a>(
        &'a self,
        conditions: &'a [Condition],
        writes: &'a [Write],
    ) -> BoxFuture<'a, Result<Commit, StoreError>> {
        self.through(async move { self.inner().commit(conditions, writes).await }).boxed()
    }

    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>> {
        self.through(async move { self.inner().lease(id).await }).boxed()
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.through(async move { self.inner().revoke(id).await }).boxed()
    }

    fn history(&self) -> watch::Receiver<History> {
        self.history.subscribe()
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }
}

struct FaultyWatch {
    inner: Box<dyn Watch>,
    hidden: Option<String>,
    away: watch::Receiver<bool>,
    history: watch::Receiver<History>,
}

impl Watch for FaultyWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        async {
            tokio::select! {
                batch = self.inner.next() => {
                    let mut batch = batch?;
                    let hidden = |event: &Event| self.hidden.as_ref().is_some_and(|it| event.key().starts_with(it));
                    batch.events.retain(|event| !hidden(event));
                    Ok(batch)
                }
                _ = self.away.wait_for(|away| *away) => Err(lost_call()),
                _ = self.history.changed() => Err(StoreError::Rewound),
            }
        }
        .boxed()
    }
}
