//! The registrar's desk: all that it knows, and every decision of it, without a store, a clock or a wait.
//!
//! Inputs are put on the desk as they come; [`Desk::refresh`] then works out what is to be written and shown. `now` is
//! an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::model::health::adopted::{Adopted, serving};
use crate::model::health::standing::{Serving, ServingMap, Standings};
use crate::model::offer::instance::{Instance, InstanceKey, Offer};
use crate::model::publish::local::{self, DrainState, Facts, Local, Overlay, SessionState};
use crate::model::publish::maintenance::Maintenance;
use crate::model::publish::op::{Change, Op};
use crate::model::publish::plan::{Assignment, Interest, Publisher, Wanted, assign, plan, wanted};
use crate::model::publish::view::{Holder, Seen, View};
use crate::model::words::record::Record;
use crate::model::words::trouble::Trouble;
use crate::store::{Batch, Event, Item, Page, Reach};

/// How long a change of ours may wait for the store's word before this host answers from its own knowledge.
const UNCONFIRMED: Duration = Duration::from_millis(500);

/// How long after its return the store's word is not taken for a lost record of ours, beyond the time in which a
/// keepalive tells whether the lease still lives: as long as new sessions are spread over, and one round of writes.
const SETTLING: Duration = Duration::from_secs(2);

/// What a watch has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heard {
    /// Nothing that matters.
    Nothing,
    /// That what was planned has happened.
    Echo,
    /// Something that may change what is to be done.
    News,
}

/// All that the registrar knows, and what follows from it.
#[derive(Debug)]
pub(super) struct Desk {
    publisher: Publisher,
    pub(super) view: View,
    pub(super) offer: Arc<Offer>,
    pub(super) standings: Arc<Standings>,
    pub(super) drain: DrainState,
    /// What of it is withdrawn one by one.
    pub(super) parts: Arc<Maintenance>,
    /// Since when this host's addresses could not be read again.
    pub(super) addresses_unread: Option<SystemTime>,
    pub(super) addresses_remembered: Vec<IpAddr>,
    /// Whether own keys have been read, and are watched.
    pub(super) known: bool,
    pub(super) adopted: Adopted,
    pub(super) reach: Reach,
    /// Why the store does not answer.
    pub(super) trouble: Option<Trouble>,
    pub(super) lease: i64,
    pub(super) granted: Duration,
    serving: ServingMap,
    made: BTreeMap<InstanceKey, Made>,
    assignment: Assignment,
    interest: Interest,
    pub(super) ops: Vec<Op>,
    /// Keys with an operation outstanding, and since when.
    pending: BTreeMap<String, Instant>,
    /// Keys of which a watch told that what was planned has happened, and no commit of ours has yet.
    echoed: BTreeSet<String>,
    /// When the store came back, or the lease was lost: for a while it may yet lose what it seems to hold.
    pub(super) doubted: Option<Instant>,
    /// How many leases have been lost.
    pub(super) lost: u64,
    /// The newest revision at which this host has changed anything, or has found that something of its own changed.
    pub(super) written: i64,
    /// Whether what is found of this owner before Docker has been listed counts as ready: under whatever lease it
    /// stands, since the store may have been replaced while the agent was away.
    adopts: bool,
    /// Whether this host's own is laid over the catalog.
    overlaid: bool,
}

/// The records of one serving instance.
#[derive(Debug)]
struct Made {
    instance: Arc<Instance>,
    serving: Serving,
    wanted: Vec<Wanted>,
    /// Why there are none.
    refused: Option<String>,
}

impl Made {
    fn new(instance: &Arc<Instance>, serving: Serving, publisher: &Publisher) -> Self {
        let (wanted, refused) = match wanted(instance, &serving, publisher) {
            Ok(wanted) => (wanted, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        Self { instance: Arc::clone(instance), serving, wanted, refused }
    }
}

impl Desk {
    pub(super) fn new(publisher: Publisher, adopted: Adopted, adopts: bool) -> Self {
        let view = View::new(Arc::clone(&publisher.owner));
        Self {
            publisher,
            view,
            offer: Arc::default(),
            standings: Arc::default(),
            drain: DrainState::Offering,
            parts: Arc::default(),
            addresses_unread: None,
            addresses_remembered: Vec::new(),
            known: false,
            adopted,
            reach: Reach::Unknown,
            trouble: None,
            lease: 0,
            granted: Duration::ZERO,
            serving: ServingMap::new(),
            made: BTreeMap::new(),
            assignment: Assignment::new(),
            interest: Interest::default(),
            ops: Vec::new(),
            pending: BTreeMap::new(),
            echoed: BTreeSet::new(),
            doubted: None,
            lost: 0,
            written: 0,
            adopts,
            overlaid: false,
        }
    }

    /// Works out what serves, under which keys, and what is to be written for it.
    pub(super) fn refresh(&mut self, now: Instant) {
        // In this order, so that a record found late still tells since when what serves already has been serving.
        self.serving = serving(&self.offer, &self.standings, &self.adopted, &self.serving);
        self.adopted.settle(&self.offer, &self.standings);
        let drained = self.drain != DrainState::Offering;
        self.make(drained);
        let wanted = || self.made.values().flat_map(|made| &made.wanted);
        self.interest = Interest::of(wanted());
        self.assignment = assign(wanted(), &self.view, &self.publisher);
        self.view.retain(|key| self.interest.covers(key));
        let retain = !self.offer.listed && !drained;
        self.ops = plan(&self.assignment, &self.view, self.lease, retain);
        self.echoed.clear();
        let before = std::mem::take(&mut self.pending);
        let since = |key: &String| before.get(key).copied().unwrap_or(now);
        self.pending = self.ops.iter().map(|op| (op.key.clone(), since(&op.key))).collect();
    }

    /// Makes the records of what serves; those of instances that have not changed are there already.
    fn make(&mut self, drained: bool) {
        let mut before = std::mem::take(&mut self.made);
        if drained {
            return;
        }
        for (key, serving) in &self.serving {
            let Some(instance) = self.offer.instances.get(key) else { continue };
            if self.parts.of(instance).is_some() {
                continue;
            }
            let made = match before.remove(key) {
                Some(made) if Arc::ptr_eq(&made.instance, instance) && made.serving == *serving => made,
                _ => Made::new(instance, *serving, &self.publisher),
            };
            self.made.insert(key.clone(), made);
        }
    }

    /// Every key whose state in the store matters now.
    pub(super) fn interest(&self) -> BTreeSet<String> {
        let own = self.interest.plain().chain(self.assignment.keys()).chain(self.view.keys()).cloned();
        own.chain(self.view.beside()).collect()
    }

    /// Takes in what a watch brought.
    pub(super) fn batch(&mut self, batch: &Batch) -> Heard {
        let mut heard = Heard::Nothing;
        for event in &batch.events {
            let (key, of_it) = match event {
                Event::Put(item) => (&item.key, self.item(item, None)),
                Event::Delete { key, revision } => (key, self.deleted(key, *revision)),
            };
            if of_it == Heard::Echo {
                self.echoed.insert(key.clone());
            }
            heard = heard.max(of_it);
        }
        self.view.reached(batch.revision);
        heard
    }

    fn deleted(&mut self, key: &str, revision: i64) -> Heard {
        if self.view.beside_changed(&self.publisher.prefix, key, None, revision) {
            return Heard::News;
        }
        let ours = self.view.held(key).is_some_and(|held| matches!(held.holder, Holder::Ours { .. }));
        if !self.view.deleted(key, revision) {
            return Heard::Nothing;
        }
        self.written = self.written.max(revision);
        if ours && !self.assignment.contains_key(key) { Heard::Echo } else { Heard::News }
    }

    /// Own operations were made. Says whether what is planned goes on from there: then nothing is worked out anew,
    /// which takes as long as there are records, for each of a long row of commits.
    pub(super) fn committed(&mut self, ops: &[Op], lease: i64, revision: i64) -> bool {
        self.view.committed(ops, lease, revision);
        self.written = self.written.max(revision);
        for op in ops {
            self.echoed.remove(&op.key);
        }
        // What the watch has brought since may have undone it already.
        let stands = |op: &Op| match &op.change {
            Change::Put(record) => self.stands(&op.key, record),
            Change::Delete => self.view.held(&op.key).is_none(),
        };
        if lease != self.lease || !self.ops.starts_with(ops) || !ops.iter().all(stands) {
            return false;
        }
        for done in self.ops.drain(..ops.len()) {
            self.pending.remove(&done.key);
        }
        true
    }

    /// Whether what is planned has happened in part by another hand than that of the commits told of: then it is worked
    /// out anew, or the store would refuse the rest.
    pub(super) fn overtaken(&self) -> bool {
        !self.echoed.is_empty()
    }

    /// Takes in what a read of exactly `asked` found.
    pub(super) fn read(&mut self, asked: &[String], page: &Page) {
        self.found(page);
        let found: BTreeSet<&str> = page.items.iter().map(|item| item.key.as_str()).collect();
        self.view.absent(asked.iter(), &found, page.revision);
        self.view.check_beside(page.items.iter().map(|item| (item.key.as_str(), &*item.value, item.lease)), asked);
    }

    /// The store is another one, or went back: nothing seen before counts.
    pub(super) fn forget(&mut self, now: Instant) {
        self.view.clear();
        self.written = 0;
        // Also without a session yet: what this host has published may be gone before it has one.
        self.doubted = Some(now);
    }

    /// Takes in the keys that a read found.
    pub(super) fn found(&mut self, page: &Page) {
        if self.adopts && !self.offer.listed {
            self.take_up(page.items.iter());
        }
        for item in &page.items {
            self.item(item, Some(page.revision));
        }
    }

    /// Takes in one key as it stands.
    fn item(&mut self, item: &Item, read_at: Option<i64>) -> Heard {
        if self.publisher.prefix.parts(&item.key).is_none() {
            return Heard::Nothing;
        }
        let value = (&*item.value, item.lease);
        if read_at.is_none() && self.view.beside_changed(&self.publisher.prefix, &item.key, Some(value), item.revision)
        {
            return Heard::News;
        }
        let seen = Seen { key: &item.key, value: &item.value, lease: item.lease, revision: item.revision, read_at };
        if !self.view.put(seen, |key| self.interest.covers(key)) {
            return Heard::Nothing;
        }
        // The echo of a write may come before its outcome, and what waited for it waits no more.
        self.written = self.written.max(item.revision);
        let planned = self.assignment.get(&item.key).is_some_and(|assigned| self.stands(&item.key, &assigned.record));
        if planned { Heard::Echo } else { Heard::News }
    }

    /// Whether the key holds what it should.
    fn stands(&self, key: &str, record: &Arc<Record>) -> bool {
        self.lease != 0 && self.view.confirms(key, record, self.lease)
    }

    /// Takes up what a restart finds of itself: own records among `found`.
    pub(super) fn adopt(&mut self, found: &BTreeSet<String>, page: &Page) {
        self.take_up(page.items.iter().filter(|item| found.contains(&item.key)));
    }

    fn take_up<'i>(&mut self, items: impl Iterator<Item = &'i Item>) {
        let owner = &self.publisher.owner;
        let records: Vec<Record> = items
            .filter_map(|item| Record::decode(&item.value).ok())
            .filter(|record| record.owner.as_ref() == Some(owner))
            .collect();
        self.adopted.extend(Adopted::of_records(records.iter()));
    }

    /// Keys that hold what they should.
    fn confirmed(&self) -> BTreeSet<&str> {
        let assigned = self.assignment.iter();
        assigned.filter(|(key, assigned)| self.stands(key, &assigned.record)).map(|(key, _)| key.as_str()).collect()
    }

    /// What this host shows.
    pub(super) fn local(&self) -> Local {
        let refused = |(key, made): (&InstanceKey, &Made)| Some((key.clone(), made.refused.clone()?));
        let refused: Vec<(InstanceKey, String)> = self.made.iter().filter_map(refused).collect();
        let facts = Facts {
            offer: &self.offer,
            standings: &self.standings,
            serving: &self.serving,
            drain: self.drain,
            parts: &self.parts,
            refused: &refused,
            assignment: &self.assignment,
            confirmed: &self.confirmed(),
        };
        Local {
            node: self.publisher.node.clone(),
            owner: self.publisher.owner.clone(),
            instances: local::instances(facts),
            skipped: self.offer.skipped.values().flat_map(|skipped| skipped.iter().cloned()).collect(),
            withheld: self.offer.withheld.values().flat_map(|withheld| withheld.iter().cloned()).collect(),
            drained: self.drain.since(),
            maintenance: Arc::clone(&self.parts),
            listed: self.offer.listed,
            engine: self.offer.engine,
            addresses_unread: self.addresses_unread,
            addresses_remembered: self.addresses_remembered.clone(),
            trouble: self.trouble.clone(),
            session: match (self.lease, self.reach) {
                (0, _) => SessionState::None,
                (_, Reach::Away) => SessionState::Doubtful,
                _ => SessionState::Alive,
            },
            lease: self.lease,
            granted: self.granted,
            unconfirmed: self.pending.len(),
            records: self.view.ours().count(),
            known: self.known,
        }
    }

    /// When the overlay has to be looked at again: for a change that waits, or a store that has settled.
    pub(super) fn overlay_due(&self, now: Instant) -> Option<Instant> {
        // What is laid over already stays until nothing waits, however long each change has waited.
        let waits = self.pending.values().filter(|_| !self.overlaid);
        waits.map(|since| *since + UNCONFIRMED).chain(self.settled()).filter(|due| *due > now).min()
    }

    /// When the store, back or with another lease, is believed again. A hung etcd answers first and revokes the leases
    /// that died meanwhile a moment later; the next keepalive tells.
    fn settled(&self) -> Option<Instant> {
        self.doubted.map(|since| since + self.granted / 3 + SETTLING)
    }

    /// What is laid over the catalog at `now`.
    pub(super) fn overlay(&mut self, now: Instant) -> Overlay {
        let late = self.pending.values().any(|since| *since + UNCONFIRMED <= now);
        let settling = self.settled().is_some_and(|settled| settled > now);
        // Before Docker has been listed what is published of containers says more than what is offered.
        let partial = !self.offer.listed && self.drain == DrainState::Offering;
        let nothing = partial && self.assignment.is_empty();
        // Once laid over it stays until nothing waits: what this host has shown it does not take back for half a
        // second.
        let unfinished = self.overlaid && !self.pending.is_empty();
        self.overlaid = !nothing && (late || settling || unfinished || self.reach == Reach::Away);
        let goes = |record: &Record| self.overlaid && (!partial || record.container.is_none());
        let ours = self.view.ours().filter(|(_, _, record)| goes(record));
        Overlay {
            active: self.overlaid,
            owner: self.publisher.owner.clone(),
            partial,
            lost: self.lost,
            written: self.written,
            out: ours.map(|(key, ..)| key.clone()).collect(),
            records: self.assignment.iter().map(|(key, it)| (key.clone(), Arc::clone(&it.record))).collect(),
        }
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "desk_laws.rs"]
mod laws;
