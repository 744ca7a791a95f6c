//! The store in this process: for one host, and for tests.
//!
//! It keeps what `etcd` keeps (revisions, a bounded history, leases), in memory, and is gone with the process, but for
//! what hangs on no lease, where somebody keeps that ([`Embedded::keeping`]). A lease with a living session never ends;
//! one whose session was dropped runs out after its time, which the next call or running watch notices: no task of its
//! own turns here.

mod keeper;
mod living;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{
    Batch, Commit, Condition, Event, History, Item, LeaseId, LeaseInfo, MAX_WRITES, Page, Reach, Revision, Session,
    Store, StoreError, Watch, Write,
};

use keeper::Keeper;
use living::{EmbeddedWatch, Kept, page_of};

/// How many changes a watch may lie behind before it must read afresh.
const HISTORY: usize = 16 * 1024;
/// How often an idle watch says that it is in step.
const IDLE: Duration = Duration::from_secs(2);

/// A store in memory; clones share it.
#[derive(Clone, Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes watches, in the order that they came: what follows from one write always comes in one order.
    changed: Notify,
    reach: watch::Sender<Reach>,
    history: watch::Sender<History>,
    keeper: Option<Keeper>,
}

#[derive(Debug)]
struct State {
    items: BTreeMap<String, Item>,
    revision: Revision,
    log: VecDeque<Change>,
    /// Changes up to here are no longer in the log.
    forgotten: Revision,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: LeaseId,
    /// When something that hangs on no lease changed last.
    loose: Revision,
}

/// What happened to a key, and how it was before.
#[derive(Clone, Debug)]
struct Change {
    event: Event,
    before: Option<Item>,
}

#[derive(Debug)]
struct Lease {
    granted: Duration,
    /// How many sessions keep it.
    keepers: usize,
    /// When it ends; `None` while a session keeps it.
    ends: Option<Instant>,
    keys: BTreeSet<String>,
    lost: watch::Sender<bool>,
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}

impl Embedded {
    /// An empty store at revision 1, as etcd's first is.
    pub fn new() -> Self {
        Self::of(State {
            items: BTreeMap::new(),
            revision: 1,
            log: VecDeque::new(),
            forgotten: 1,
            leases: BTreeMap::new(),
            next_lease: 1,
            loose: 0,
        })
    }
}

impl Embedded {
    /// A store as one that ended left it: at that revision, with these items on this one lease, which has all of its
    /// time before it.
    pub fn restored(
        revision: Revision,
        lease: LeaseId,
        granted: Duration,
        items: impl IntoIterator<Item = Item>,
    ) -> Self {
        let of_lease = |item: Item| (item.key.clone(), Item { lease, ..item });
        let items: BTreeMap<String, Item> = items.into_iter().map(of_lease).collect();
        let revision = items.values().map(|item| item.revision).fold(revision.max(1), Revision::max);
        let keys = items.keys().cloned().collect();
        let ends = Some(Instant::now() + granted);
        let kept = Lease { granted, keepers: 0, ends, keys, lost: watch::Sender::new(false) };
        Self::of(State {
            items,
            revision,
            log: VecDeque::new(),
            forgotten: revision,
            leases: BTreeMap::from([(lease, kept)]),
            next_lease: lease.max(0).saturating_add(1),
            loose: 0,
        })
    }

    /// Another store that begins as this one stands, as one restored from a backup does: its leases have no session,
    /// and all of their time before them.
    pub fn copy(&self) -> Self {
        let state = self.shared.state();
        let ends = |granted: Duration| Some(Instant::now() + granted);
        let lease = |lease: &Lease| Lease {
            granted: lease.granted,
            keepers: 0,
            ends: ends(lease.granted),
            keys: lease.keys.clone(),
            lost: watch::Sender::new(false),
        };
        Self::of(State {
            items: state.items.clone(),
            revision: state.revision,
            log: state.log.clone(),
            forgotten: state.forgotten,
            leases: state.leases.iter().map(|(id, known)| (*id, lease(known))).collect(),
            next_lease: state.next_lease,
            loose: state.loose,
        })
    }

    /// The same store with what an earlier one kept of what hangs on no lease, which `write` keeps from now on: a
    /// commit that changes such a key is answered when it is kept.
    pub fn keeping(
        self,
        revision: Revision,
        items: impl IntoIterator<Item = Item>,
        write: impl Fn(Revision, Vec<Item>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let Self { shared } = self.copy();
        let shared = Arc::into_inner(shared).expect("a copy is nobody else's yet");
        let mut state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        for item in items {
            state.revision = state.revision.max(item.revision);
            state.items.entry(item.key.clone()).or_insert(item);
        }
        state.revision = state.revision.max(revision);
        // Nobody may ask for the history of before: what was kept has none.
        state.forgotten = state.revision;
        state.log.clear();
        Self::with(state, Some(Keeper::new(revision, write)))
    }

    fn of(state: State) -> Self {
        Self::with(state, None)
    }

    fn with(state: State, keeper: Option<Keeper>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Notify::new(),
                reach: watch::Sender::new(Reach::There),
                history: watch::Sender::new(History::default()),
                keeper,
            }),
        }
    }
}

impl Shared {
    /// The state with every lease that is over taken out. A poisoned lock is taken all the same: each change is whole
    /// before the next begins.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let over: Vec<LeaseId> = state
            .leases
            .iter()
            .filter(|(_, lease)| lease.ends.is_some_and(|ends| ends <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.end(&mut state, id);
        }
        state
    }

    fn end(&self, state: &mut State, id: LeaseId) -> bool {
        let Some(lease) = state.leases.remove(&id) else { return false };
        lease.lost.send_replace(true);
        if !lease.keys.is_empty() {
            let revision = state.revision + 1;
            for key in lease.keys {
                state.delete(&key, revision);
            }
            self.advance(state, revision);
        }
        true
    }

    fn advance(&self, state: &mut State, revision: Revision) {
        state.revision = revision;
        while state.log.len() > HISTORY {
            if let Some(gone) = state.log.pop_front() {
                state.forgotten = gone.event.revision();
            }
        }
        self.changed.notify_waiters();
    }

    fn commit(&self, conditions: &[Condition], writes: &[Write]) -> Result<Commit, StoreError> {
        if conditions.len().max(writes.len()) > MAX_WRITES {
            let tried = format!("commit of {} writes", writes.len());
            return Err(StoreError::Refused { tried, why: format!("more than {MAX_WRITES} together") });
        }
        let mut state = self.state();
        let state = &mut *state;
        if !conditions.iter().all(|condition| state.meets(condition)) {
            return Ok(Commit::Refused(state.revision));
        }
        if let Some(lease) = writes.iter().find_map(|write| state.missing_lease(write)) {
            return Err(StoreError::NoLease(lease));
        }
        let revision = state.revision + 1;
        let mut changed = false;
        for write in writes {
            changed |= state.write(write, revision);
        }
        if changed {
            self.advance(state, revision);
        }
        Ok(Commit::Done(state.revision))
    }

    fn session(&self, ttl: Duration, adopt: Option<LeaseId>) -> (LeaseId, Duration, bool, watch::Receiver<bool>) {
        let mut state = self.state();
        if let Some(id) = adopt
            && let Some(lease) = state.leases.get_mut(&id)
        {
            lease.ends = None;
            lease.keepers += 1;
            return (id, lease.granted, true, lease.lost.subscribe());
        }
        let id = state.fresh_lease();
        let (lost, receiver) = watch::channel(false);
        state.leases.insert(id, Lease { granted: ttl, keepers: 1, ends: None, keys: BTreeSet::new(), lost });
        (id, ttl, false, receiver)
    }

    fn events(&self, prefix: &str, from: Revision) -> Result<Batch, StoreError> {
        let state = self.state();
        if from <= state.forgotten && state.forgotten > 1 {
            return Err(StoreError::Compacted(state.forgotten + 1));
        }
        let start = state.log.partition_point(|change| change.event.revision() < from);
        let events =
            state.log.iter().skip(start).map(|change| &change.event).filter(|event| event.key().starts_with(prefix));
        Ok(Batch { events: events.cloned().collect(), revision: state.revision })
    }

    /// What hangs on no lease, and when that changed last.
    fn loose(&self) -> (Revision, Vec<Item>) {
        let state = self.state();
        (state.loose, state.items.values().filter(|item| item.lease == 0).cloned().collect())
    }

    /// Has what was changed and hangs on no lease kept.
    async fn keep(self: &Arc<Self>) {
        let owes = |keeper: &Keeper| keeper.owes(self.state().loose);
        if !self.keeper.as_ref().is_some_and(owes) {
            return;
        }
        let own = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            if let Some(keeper) = &own.keeper {
                keeper.keep(|| own.loose());
            }
        });
        if let Err(panicked) = kept.await {
            tracing::error!(%panicked, "what the store keeps over a restart was not written");
        }
    }

    /// When the next lease ends by itself.
    fn next_end(&self) -> Option<Instant> {
        self.state().leases.values().filter_map(|lease| lease.ends).min()
    }
}

impl State {
    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Absent(key) => !self.items.contains_key(key),
            Condition::Unchanged(key, revision) => self.items.get(key).is_some_and(|item| item.revision == *revision),
            Condition::Holds(key, value) => self.items.get(key).is_some_and(|item| item.value == *value),
            Condition::NoneCreatedSince(prefix, revision) => self.below(prefix).all(|item| item.created <= *revision),
            Condition::NonePutSince(prefix, revision) => self.below(prefix).all(|item| item.revision <= *revision),
        }
    }

    /// The next number that no lease has. What was restored may stand at the very end of the numbers.
    fn fresh_lease(&mut self) -> LeaseId {
        while self.next_lease <= 0 || self.leases.contains_key(&self.next_lease) {
            self.next_lease = self.next_lease.checked_add(1).unwrap_or(1).max(1);
        }
        let fresh = self.next_lease;
        self.next_lease = fresh.checked_add(1).unwrap_or(1);
        fresh
    }

    fn missing_lease(&self, write: &Write) -> Option<LeaseId> {
        match write {
            Write::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease) => Some(*lease),
            Write::Put { .. } | Write::Delete(_) | Write::DeleteAll(_) => None,
        }
    }

    fn write(&mut self, write: &Write, revision: Revision) -> bool {
        match write {
            Write::Delete(key) => self.delete(key, revision),
            Write::DeleteAll(prefix) => {
                let keys: Vec<String> = self.below(prefix).map(|item| item.key.clone()).collect();
                keys.iter().filter(|key| self.delete(key, revision)).count() > 0
            }
            Write::Put { key, value, lease } => {
                let created = self.items.get(key).map_or(revision, |item| item.created);
                let item = Item { key: key.clone(), value: value.clone(), lease: *lease, revision, created };
                self.detach(key);
                if *lease == 0 || self.is_loose(key) {
                    self.loose = revision;
                }
                if let Some(lease) = self.leases.get_mut(lease) {
                    lease.keys.insert(key.clone());
                }
                let before = self.items.insert(key.clone(), item.clone());
                self.log.push_back(Change { event: Event::Put(item), before });
                true
            }
        }
    }

    fn delete(&mut self, key: &str, revision: Revision) -> bool {
        self.detach(key);
        if self.is_loose(key) {
            self.loose = revision;
        }
        let before = self.items.remove(key);
        let was = before.is_some();
        if was {
            self.log.push_back(Change { event: Event::Delete { key: key.to_owned(), revision }, before });
        }
        was
    }

    fn below<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = &'s Item> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.items.range::<str, _>(from).map(|(_, item)| item).take_while(move |item| item.key.starts_with(prefix))
    }

    fn is_loose(&self, key: &str) -> bool {
        self.items.get(key).is_some_and(|item| item.lease == 0)
    }

    fn detach(&mut self, key: &str) {
        if let Some(old) = self.items.get(key)
            && let Some(lease) = self.leases.get_mut(&old.lease)
        {
            lease.keys.remove(key);
        }
    }

    /// Items with this prefix as they stood at `at`: the ones of now, with the log taken back.
    fn at(&self, prefix: &str, at: Revision) -> Result<BTreeMap<String, Item>, StoreError> {
        if at < self.forgotten && self.forgotten > 1 {
            return Err(StoreError::Compacted(self.forgotten + 1));
        }
        let mut items: BTreeMap<_, _> = self.below(prefix).map(|item| (item.key.clone(), item.clone())).collect();
        let later = self.log.iter().rev().take_while(|change| change.event.revision() > at);
        for Change { event, before } in later.filter(|change| change.event.key().starts_with(prefix)) {
            match before {
                Some(item) => drop(items.insert(item.key.clone(), item.clone())),
                None => drop(items.remove(event.key())),
            }
        }
        Ok(items)
    }
}

impl Store for Embedded {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        async move {
            let state = self.shared.state();
            match at {
                Some(at) if at < state.revision => Ok(page_of(&state.at(prefix, at)?, prefix, after, at)),
                _ => Ok(page_of(&state.items, prefix, after, state.revision)),
            }
        }
        .boxed()
    }

    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Page, StoreError>> {
        async move {
            let state = self.shared.state();
            let names: BTreeSet<&String> = keys.iter().collect();
            let items = names.into_iter().filter_map(|key| state.items.get(key).cloned()).collect();
            Ok(Page { items, revision: state.revision, more: false })
        }
        .boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        async move {
            let (shared, idle) = (Arc::clone(&self.shared), Instant::now() + IDLE);
            let watch = EmbeddedWatch { shared, prefix: prefix.to_owned(), from, idle };
            Ok(Box::new(watch) as Box<dyn Watch>)
        }
        .boxed()
    }

    fn session(&self, ttl: Duration, adopt: Option<LeaseId>) -> BoxFuture<'_, Result<Session, StoreError>> {
        async move {
            let (lease, granted, adopted, lost) = self.shared.session(ttl, adopt);
            let keeper = Kept { shared: Arc::clone(&self.shared), lease };
            Ok(Session::new((lease, granted), adopted, lost, keeper))
        }
        .boxed()
    }

    fn commit<'a>(
        &'a self,
        conditions: &'a [Condition],
        writes: &'a [Write],
    ) -> BoxFuture<'a, Result<Commit, StoreError>> {
        async move {
            let made = self.shared.commit(conditions, writes)?;
            self.shared.keep().await;
            Ok(made)
        }
        .boxed()
    }

    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>> {
        async move {
            let state = self.shared.state();
            let lease = state.leases.get(&id).ok_or(StoreError::NoLease(id))?;
            let left = lease.ends.map_or(lease.granted, |ends| ends.saturating_duration_since(Instant::now()));
            Ok(LeaseInfo { granted: lease.granted, left, keys: lease.keys.iter().cloned().collect() })
        }
        .boxed()
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let mut state = self.shared.state();
            if self.shared.end(&mut state, id) { Ok(()) } else { Err(StoreError::NoLease(id)) }
        }
        .boxed()
    }

    fn history(&self) -> watch::Receiver<History> {
        self.shared.history.subscribe()
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.shared.reach.subscribe()
    }
}
