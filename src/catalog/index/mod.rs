//! The catalog: a snapshot of every record of the cluster, kept as a fold of the store's events.
//!
//! One change costs the same among ten records and among 100,000. A clone is a snapshot: it costs a few counters, never
//! changes, and is read without waiting. Writers change their own clone and hand it out; a change touches the paths
//! above it, so that an answer knows by its [`Dependency`]s whether it still holds.

mod bad;
mod entry;
mod hashed;
mod intern;
mod laid;
mod named;
mod ordered;
mod path;
mod read;
mod selectors;
mod services;
mod shares;
mod short;
mod wild;
mod window;
mod yields;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use imbl::{HashMap, OrdMap, OrdSet};

pub use self::bad::Bad;
use self::bad::{BadValues, LeftOut};
pub(crate) use self::entry::Entry;
pub use self::entry::{Endpoint, LeaseId, LeaseTimes};
use self::hashed::Hashed;
use self::intern::Interner;
pub use self::laid::{Foreign, Laid};
pub use self::read::Dependency;
pub(crate) use self::read::{Found, SEEK};
use self::selectors::{Addresses, Selectors};
pub(crate) use self::selectors::{DATAGRAMS, family_term, site_term};
pub use self::services::{Led, Service};
use self::shares::Shares;
pub(crate) use self::wild::Pattern;
use self::window::Marks;
use self::yields::Yielding;
use crate::model::steer::names::Steered;
use crate::model::words::advertised::Advertised;
use crate::model::words::key::{self, Prefix};
use crate::model::words::ordinal::Numbered;
use crate::model::words::record::{BadRecord, Record, Role, Text};

/// The most records of a catalog, unless it is told another number.
pub const MAX_RECORDS: usize = 1_000_000;
/// A set larger than this is cut to a rotating window.
pub const WINDOW: usize = 4_096;
/// What a larger set is cut to: no more would fit a message as SRV.
const CUT: usize = 1_024;

/// What is known of one path that has records below it.
#[derive(Clone, Copy, Debug, Default)]
struct Dir {
    /// Records below it, at any depth.
    below: u32,
    /// The last change at or below it.
    generation: u64,
}

/// What is known of one path that has records directly below it: it is a service.
#[derive(Clone, Copy, Debug, Default)]
struct Members {
    records: u32,
    /// Those of them that claim to be the primary.
    primaries: u32,
    /// Those that follow one.
    replicas: u32,
}

/// Numbers of a catalog, for metrics and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that are answered.
    pub records: usize,
    /// Services that have one or more.
    pub services: usize,
    /// Values that are no record.
    pub bad: usize,
    /// Records for which there is no room.
    pub left_out: usize,
    /// Records answered although the store lost them.
    pub held: usize,
    /// Records of other programs that yield to those of agents.
    pub yielding: usize,
    /// Services that several endpoints claim to be the primary of.
    pub contested: usize,
    /// Services with replicas that no endpoint claims to be the primary of.
    pub leaderless: usize,
}

/// A snapshot of every record of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Every record by its place: its key, or the path that this reads as, NUL and the key.
    tree: OrdMap<Text, Arc<Entry>>,
    /// Those that stand elsewhere than under their key, by key.
    renamed: OrdMap<Text, Arc<Entry>>,
    marks: Marks,
    dirs: Hashed<Dir>,
    selectors: Selectors,
    addresses: Addresses,
    services: OrdMap<Text, Members>,
    contested: OrdSet<Text>,
    leaderless: OrdSet<Text>,
    shares: Shares,
    bad: BadValues,
    left_out: LeftOut,
    held: OrdMap<Text, Duration>,
    leases: HashMap<LeaseId, LeaseTimes>,
    revision: i64,
    stale_since: Option<Duration>,
    generation: u64,
    epoch: u64,
    /// Shared by all clones, so that no two different states ever have one number.
    clock: Arc<AtomicU64>,
    pool: Arc<Mutex<Interner>>,
    bounds: Bounds,
    /// The paths of services whose role names go by a topology.
    steered: Arc<BTreeMap<String, Steered>>,
    /// Where numbered hosts are.
    numbered: Arc<Numbered>,
    /// Records of other programs that yield to those of agents.
    yielding: Yielding,
    /// Records of other programs that are shown or yield.
    foreign: usize,
    advertised: Arc<Advertised>,
}

/// What may be in a catalog.
#[derive(Clone, Debug, Default)]
struct Bounds {
    /// The trees that it is of; with none, a key's first segment is its prefix.
    prefixes: Arc<[Prefix]>,
    /// The most records, if there is a most.
    records: Option<usize>,
}

impl Bounds {
    /// Whether a key is one of a DNS name.
    fn admit(&self, key: &str) -> Result<(), BadRecord> {
        let below = key[self.prefix_of(key).len()..].strip_prefix('/');
        key::flaw(below.unwrap_or(key)).map_or(Ok(()), |flaw| Err(BadRecord::new(flaw)))
    }

    /// What a key has in front of the DNS name that it is of.
    fn prefix_of<'k>(&self, key: &'k str) -> &'k str {
        let is_below = |prefix: &&Prefix| prefix.parts(key).is_some();
        let known = self.prefixes.iter().find(is_below).map(|prefix| prefix.as_str().len());
        let first = || Some(key.strip_prefix('/')?.find('/')? + 1);
        &key[..known.or_else(first).unwrap_or(0)]
    }
}

impl Catalog {
    /// An empty catalog of these trees that takes so many records.
    pub fn bounded(prefixes: &[Prefix], records: usize) -> Self {
        Self { bounds: Bounds { prefixes: prefixes.into(), records: Some(records) }, ..Self::default() }
    }

    /// Takes what the store holds under `key`, in place of whatever was there. A value that is no record takes the old
    /// record away and is remembered as bad.
    pub fn put(&mut self, key: &str, value: &[u8], lease: LeaseId, revision: i64) -> Result<(), BadRecord> {
        let same = |old: &Arc<Entry>| revision != 0 && old.revision == revision && old.lease == lease && !old.held;
        if self.entry(key).is_some_and(same) {
            return Ok(());
        }
        let decoded = Record::decode(value);
        if decoded.is_err() && path::is_foreign_layout(key) {
            self.delete(key);
            return Ok(());
        }
        match decoded.and_then(|record| self.bounds.admit(key).map(|()| record)) {
            Ok(record) => {
                self.put_record(key, &record, lease, revision);
                Ok(())
            }
            Err(reason) => {
                self.delete(key);
                self.touch();
                self.bad.insert(key, Bad { reason: reason.clone(), revision });
                Err(reason)
            }
        }
    }

    /// Puts a record that is decoded already. Where there are too many now, the newest of whoever has most makes room.
    pub fn put_record(&mut self, key: &str, record: &Record, lease: LeaseId, revision: i64) {
        let old = self.take(key);
        let mut pool = self.pool();
        let entry = Arc::new(Entry::new((self.bounds.prefix_of(key), key), record, lease, revision, &mut pool));
        drop(pool);
        if old.as_ref().is_some_and(|old| old.counts_for() != entry.counts_for()) {
            self.left_out.room();
        }
        self.insert(entry.clone());
        for entry in old.iter().chain([&entry]) {
            self.weigh_beside(entry);
        }
        self.make_room();
    }

    /// Takes `key` away; nothing happens when it is not there.
    pub fn delete(&mut self, key: &str) {
        if let Some(old) = self.take(key) {
            self.left_out.room();
            self.weigh_beside(&old);
        }
    }

    fn take(&mut self, key: &str) -> Option<Arc<Entry>> {
        if self.bad.remove(key) {
            self.touch();
        }
        self.left_out.remove(key);
        self.held.remove(key);
        let old = self.entry(key).cloned()?;
        self.unlink(&old);
        Some(old)
    }

    fn make_room(&mut self) {
        while self.bounds.records.is_some_and(|most| self.tree.len() + self.yielding.len() > most) {
            let Some(entry) = self.shares.excess() else { return };
            self.held.remove(&entry.key);
            self.unlink(&entry);
            self.left_out.insert(&entry.key);
            self.weigh_beside(&entry);
        }
    }

    /// Whether records were left out for which there may be room now: a fresh list would tell.
    pub fn has_room_again(&self) -> bool {
        self.left_out.may_return()
    }

    /// A fresh list is about to tell anew what is left out and what is no record.
    pub fn begin_list(&mut self) {
        (self.bad, self.left_out) = Default::default();
    }

    /// Gives a little of what deleted records leave behind back; whether there may be more.
    pub fn tidy(&mut self) -> bool {
        let more = [self.selectors.tidy(), self.addresses.tidy(), self.yielding.tidy(), self.pool().tidy()];
        more.contains(&true)
    }

    fn pool(&self) -> MutexGuard<'_, Interner> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on answering a record that the store lost in its return, until its owner publishes or `until` has come.
    pub fn hold(&mut self, key: &str, until: Duration) {
        self.mark_held(key, true);
        if self.entry(key).is_some() {
            self.held.insert(key.into(), until);
        }
    }

    /// Until when a record is held.
    pub fn held_until(&self, key: &str) -> Option<Duration> {
        self.held.get(key).copied()
    }

    /// Takes a hold back: the record counts as any other.
    pub fn unhold(&mut self, key: &str) {
        self.held.remove(key);
        self.mark_held(key, false);
    }

    /// The held keys whose time is over.
    pub fn overdue(&self, now: Duration) -> Vec<Text> {
        self.held.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone()).collect()
    }

    /// Every held key and until when it is held.
    pub fn holds(&self) -> impl Iterator<Item = (&Text, Duration)> {
        self.held.iter().map(|(key, until)| (key, *until))
    }

    /// What the store said of a lease.
    pub fn set_lease(&mut self, id: LeaseId, times: LeaseTimes) {
        let granted = self.leases.insert(id, times).map(|old| old.granted);
        self.generation = self.next();
        if granted != Some(times.granted) {
            self.epoch = self.generation;
        }
    }

    /// Forgets a lease.
    pub fn drop_lease(&mut self, id: LeaseId) {
        if self.leases.remove(&id).is_some() {
            self.generation = self.next();
            self.epoch = self.generation;
        }
    }

    /// What is known of a lease.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseTimes> {
        self.leases.get(&id).copied()
    }

    /// The store's revision that this is in step with.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Says what revision this is in step with.
    pub fn set_revision(&mut self, revision: i64) {
        self.revision = revision;
    }

    /// Since when this has not been in step with the store; `None` while it is.
    pub fn stale_since(&self) -> Option<Duration> {
        self.stale_since
    }

    /// Whether this is not in step with the store.
    pub fn is_stale(&self) -> bool {
        self.stale_since.is_some()
    }

    /// Says since when this is not in step, or that it is.
    pub fn set_stale(&mut self, since: Option<Duration>) {
        if self.stale_since.is_some() != since.is_some() {
            self.generation = self.next();
            self.epoch = self.generation;
        }
        self.stale_since = since;
    }

    /// A number that no other state of this catalog or of any clone has: equal numbers, equal answers.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// This catalog with some keys out and some records in, cheaply: both share everything else.
    pub fn overlay<'o>(
        &self,
        out: impl IntoIterator<Item = &'o str>,
        records: impl IntoIterator<Item = (&'o str, &'o Record)>,
    ) -> Self {
        let mut over = self.clone();
        // Our own are few, and take nobody's place.
        over.bounds.records = None;
        for key in out {
            over.delete(key);
        }
        for (key, record) in records {
            over.put_record(key, record, 0, 0);
        }
        over
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        self.shares.insert(&entry);
        self.count_foreign(&entry, 1);
        if self.yields(&entry) {
            self.yielding.insert(&entry);
            return;
        }
        let generation = self.touch();
        self.count(&entry, generation, 1);
        self.selectors.insert(&entry);
        self.addresses.insert(&entry);
        if entry.is_renamed() {
            self.renamed.insert(entry.key.clone(), entry.clone());
        }
        let place = entry.place().clone();
        self.tree.insert(place.clone(), entry);
        self.marks.insert(&place, &self.tree);
    }

    fn unlink(&mut self, entry: &Arc<Entry>) {
        self.shares.remove(entry);
        self.count_foreign(entry, -1);
        self.pool().released(entry.texts());
        if self.yielding.remove(entry) {
            return;
        }
        let generation = self.touch();
        self.count(entry, generation, -1);
        self.selectors.remove(entry);
        self.addresses.remove(entry);
        self.renamed.remove(&entry.key);
        self.tree.remove(entry.place());
        self.marks.remove(entry.place());
    }

    /// Counts a record into the paths above it, or out of them.
    fn count(&mut self, entry: &Entry, generation: u64, change: i32) {
        if let Some(dir) = self.dirs.get_mut(entry.path()) {
            dir.generation = generation;
        }
        for above in path::above(entry.path()) {
            self.dirs.change(above, |dir| {
                let below = dir.map_or(0, |dir| dir.below).saturating_add_signed(change);
                (below > 0).then_some(Dir { below, generation })
            });
        }
        if let Some(service) = path::parent(entry.path()) {
            self.count_member(service, entry.role.filter(|_| !entry.held), change);
        }
    }

    fn count_member(&mut self, service: &str, role: Option<Role>, change: i32) {
        let mut members = self.services.get(service).copied().unwrap_or_default();
        members.records = members.records.saturating_add_signed(change);
        match role {
            Some(Role::Primary) => members.primaries = members.primaries.saturating_add_signed(change),
            Some(Role::Replica) => members.replicas = members.replicas.saturating_add_signed(change),
            None => {}
        }
        mark(&mut self.contested, service, members.primaries > 1);
        mark(&mut self.leaderless, service, members.primaries == 0 && members.replicas > 0);
        match (members.records, self.services.get_mut(service)) {
            (0, _) => drop(self.services.remove(service)),
            (_, Some(known)) => *known = members,
            (_, None) => drop(self.services.insert(service.into(), members)),
        }
    }

    fn mark_held(&mut self, key: &str, held: bool) {
        let Some(old) = self.entry(key).filter(|old| old.held != held).cloned() else { return };
        self.unlink(&old);
        self.insert(Arc::new(old.with_held(held)));
    }

    fn entry(&self, key: &str) -> Option<&Arc<Entry>> {
        self.renamed.get(key).or_else(|| self.tree.get(key)).or_else(|| self.yielding.get(key))
    }

    fn touch(&mut self) -> u64 {
        self.generation = self.next();
        self.generation
    }

    fn next(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }
}
/// Has a service in a set, or not.
fn mark(set: &mut OrdSet<Text>, service: &str, is_in: bool) {
    if is_in != set.contains(service) {
        if is_in { drop(set.insert(service.into())) } else { drop(set.remove(service)) }
    }
}
