//! The catalog as a fold of what the store says: lists, changes, and the records held beside them.
//!
//! A list is folded into a copy that shares everything unchanged with the catalog, and takes its place when it is
//! whole: readers never see half of one. No sockets and no waiting here; time is an argument.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::lately::{LATELY, Lately, PUBLISHED};
use super::leases::Desk;
use super::source::ListPage;
use crate::catalog::fold::hold::{self, Claim, Holds, How, Vanished, Verdict};
use crate::catalog::index::{Catalog, Endpoint, LeaseId, LeaseTimes, MAX_RECORDS};
use crate::model::publish::local::Overlay;
use crate::model::publish::plan;
use crate::model::words::key::{self, Prefix};
use crate::model::words::record::{Record, Text};
use crate::store::{Batch, Event, Item, Revision};

/// While so many values are no records, further ones are not named in the log.
const NAMED: usize = 1_000;

/// The catalog and what is under way to it.
#[derive(Debug)]
pub(super) struct Fold {
    prefixes: Vec<Prefix>,
    owner: Text,
    /// What tells which of this owner's records it offers, once that is known.
    offered: Option<Arc<Overlay>>,
    /// When this owner last seemed to have lost its lease.
    robbed: Option<Duration>,
    lately: Lately,
    lease_ttl: Duration,
    catalog: Catalog,
    holds: Holds,
    list: Option<List>,
    /// How many records were held when that was last logged.
    told: usize,
}

/// A list that is not whole yet.
#[derive(Debug)]
struct List {
    catalog: Catalog,
    /// The catalog as it was: what is known of bad values.
    before: Catalog,
    /// The last key of the pages before that is a record's, however it is ordered among those that are no text.
    after: Option<String>,
    /// The store went back, and had come so far again when that was seen.
    rewound: Option<Revision>,
    gone: Vec<Gone>,
    /// What came anew or changed: what that means for holds is seen when the list is whole.
    put: Vec<Put>,
}

/// A record that the store no longer has.
#[derive(Debug)]
struct Gone {
    key: Text,
    endpoint: Option<Endpoint>,
    /// Its key holds something else by now.
    replaced: bool,
}

/// A key that was put, and what was held there until then.
#[derive(Debug)]
struct Put {
    key: Text,
    revision: Revision,
    held: Option<Endpoint>,
}

impl Fold {
    pub(super) fn new(prefixes: Vec<Prefix>, owner: Text, lease_ttl: Duration) -> Self {
        let (holds, lately) = Default::default();
        let catalog = Catalog::bounded(&prefixes, MAX_RECORDS);
        let (offered, robbed, list) = (None, None, None);
        Self { prefixes, owner, offered, robbed, lately, lease_ttl, catalog, holds, list, told: 0 }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Gives a little of what deleted records left behind back; whether there may be more.
    pub(super) fn tidy(&mut self) -> bool {
        self.catalog.tidy()
    }

    pub(super) fn holds(&self) -> &Holds {
        &self.holds
    }

    pub(super) fn set_stale(&mut self, since: Option<Duration>) {
        self.catalog.set_stale(since);
    }

    /// Begins with what an earlier run kept, or with nothing.
    pub(super) fn start_from(&mut self, mut kept: Catalog) {
        kept.set_advertised(self.catalog.advertised());
        if let Some(list) = &mut self.list {
            *list = List::over(&kept, list.rewound);
        }
        self.catalog = kept;
        self.holds = Holds::default();
    }

    /// Does the same to the catalog and to what will take its place.
    pub(super) fn both(&mut self, change: impl Fn(&mut Catalog)) {
        change(&mut self.catalog);
        if let Some(list) = &mut self.list {
            change(&mut list.catalog);
        }
    }

    /// A list begins.
    pub(super) fn begin(&mut self, rewound: Option<Revision>) {
        let rewound = rewound.or_else(|| self.list.take().and_then(|list| list.rewound));
        self.list = Some(List::over(&self.catalog, rewound));
    }

    /// A page of the list.
    pub(super) fn page(&mut self, page: &ListPage, desk: &mut Desk) {
        let ListPage { after, items, last, .. } = page;
        let (Some(list), Some(prefix)) = (&mut self.list, self.prefixes.get(page.prefix)) else { return };
        if page.revision < self.catalog.revision() {
            list.rewound.get_or_insert(page.revision);
        }
        let through = items.iter().rev().map(|item| item.key.as_str()).find(|key| !*last && !key.contains('\0'));
        let present = items.iter().map(|item| item.key.as_str());
        if after.is_none() {
            list.after = None;
        }
        if through.is_some() || *last {
            for key in list.catalog.vanished(prefix.as_str(), list.after.as_deref(), through, present) {
                list.gone.push(Gone::at(&list.catalog, &key));
            }
            list.after = through.map(str::to_owned);
        }
        for item in items {
            list.take(item);
            look_at_lease(&list.catalog, &item.key, desk);
        }
    }

    /// The list is whole: it takes the catalog's place.
    pub(super) fn listed(&mut self, revision: Revision, returned: Option<Duration>, now: Duration, desk: &mut Desk) {
        let Some(list) = self.list.take() else { return };
        let returned = self.shaken(returned, now);
        self.catalog = list.catalog;
        let fresh = list.gone.into_iter().filter(|gone| gone.replaced || !self.holds.contains(&gone.key));
        self.let_go(fresh.collect(), How::Relist { rewound: list.rewound.is_some(), returned }, now);
        for put in list.put {
            // What a store brings that went back was published long ago.
            let since = list.rewound.is_none_or(|begun| put.revision > begun);
            self.settle(put, since.then_some(now));
        }
        self.tell_held(desk);
        self.catalog.set_revision(revision);
        desk.sweep(&mut self.catalog);
    }

    /// What happened; whether anything did. Each revision is judged by itself, however many come together.
    pub(super) fn batch(&mut self, batch: &Batch, returned: Option<Duration>, now: Duration, desk: &mut Desk) -> bool {
        for events in batch.events.chunk_by(|a, b| a.revision() == b.revision()) {
            let returned = self.shaken(returned, now);
            self.revision(events, How::Deleted { returned }, now, desk);
        }
        self.tell_held(desk);
        desk.sweep(&mut self.catalog);
        self.catalog.set_revision(batch.revision);
        !batch.events.is_empty()
    }

    /// Time since the store came back, or took what it should not have.
    fn shaken(&self, returned: Option<Duration>, now: Duration) -> Option<Duration> {
        let robbed = self.robbed.map(|at| now.saturating_sub(at)).filter(|since| *since <= LATELY);
        returned.into_iter().chain(robbed).min()
    }

    /// One revision. What it takes away is seen first: what it puts may be the same under another key.
    fn revision(&mut self, events: &[Event], how: How, now: Duration, desk: &mut Desk) {
        let deleted = events.iter().filter_map(|event| match event {
            Event::Delete { key, .. } if !self.holds.contains(key) => Some(Gone::at(&self.catalog, key)),
            Event::Delete { .. } | Event::Put(_) => None,
        });
        let robbed = self.holds.any_of(&self.owner);
        let went = self.let_go(deleted.collect(), how, now);
        let mut overwritten = Vec::new();
        for event in events {
            let Event::Put(item) = event else { continue };
            let (held, stood) = match self.catalog.get(&item.key) {
                Some(there) if there.held() => (Some(there), None),
                there => (None, there),
            };
            let known = self.catalog.bad_at(&item.key).is_some();
            take(&mut self.catalog, item, known);
            look_at_lease(&self.catalog, &item.key, desk);
            self.settle(Put { key: item.key.as_str().into(), revision: item.revision, held }, Some(now));
            overwritten.extend(stood.filter(|stood| self.is_anothers(stood)).map(Gone::under));
        }
        self.let_go(overwritten, How::Overwritten, now);
        if !robbed && self.holds.any_of(&self.owner) {
            self.robbed = Some(now);
        }
        self.remember(went, now);
    }

    /// Whether another owner's record stands now where this one stood.
    fn is_anothers(&self, stood: &Endpoint) -> bool {
        let now = self.catalog.get(stood.key());
        stood.owner().zip(now.as_ref().and_then(Endpoint::owner)).is_some_and(|(was, is)| was != is)
    }

    /// Takes away what vanished, or holds it; what has gone for good, with what it claimed.
    fn let_go(&mut self, gone: Vec<Gone>, how: How, now: Duration) -> Vec<(Claim, Endpoint)> {
        let vanished: Vec<Vanished> = gone.iter().map(|gone| self.vanished(gone)).collect();
        let verdicts = hold::judge(&vanished, how);
        let mut went = Vec::new();
        for ((gone, vanished), verdict) in gone.into_iter().zip(vanished).zip(verdicts) {
            let time = self.lease_time(vanished.lease);
            match gone.endpoint.filter(|_| verdict != Verdict::Gone) {
                Some(endpoint) if gone.replaced => {
                    let Some(key) = self.show_aside(&endpoint) else { continue };
                    self.holds.hold(&Vanished { key: key.clone(), ..vanished }, verdict, now + time);
                    self.catalog.hold(&key, now + time);
                }
                Some(_) => {
                    self.holds.hold(&vanished, verdict, now + time);
                    self.catalog.hold(&gone.key, now + time);
                }
                None if gone.replaced => {}
                None => {
                    went.extend(vanished.claim.zip(self.catalog.get(&gone.key)));
                    self.catalog.delete(&gone.key);
                }
            }
        }
        went
    }

    /// For how long a lease was granted, as far as that is known.
    fn lease_time(&self, lease: LeaseId) -> Duration {
        self.catalog.lease(lease).map_or(self.lease_ttl, |lease| lease.granted)
    }

    /// Remembers for a moment what went of others with all else under its lease, and brings back what went together
    /// with that of several owners. What an owner deletes itself seldom goes so.
    fn remember(&mut self, went: Vec<(Claim, Endpoint)>, now: Duration) {
        let mut leases = HashMap::from([(0, true)]);
        for (claim, endpoint) in went.into_iter().filter(|(claim, _)| claim.owner != self.owner) {
            let lease = endpoint.lease();
            let more = || endpoint.node().is_some_and(|node| self.catalog.hangs_on(node, lease));
            if !*leases.entry(lease).or_insert_with(more) {
                self.lately.gone(claim, endpoint, now);
            }
        }
        for endpoint in self.lately.take_together(now) {
            self.bring_back(&endpoint, now + PUBLISHED);
        }
    }

    fn vanished(&self, gone: &Gone) -> Vanished {
        let endpoint = gone.endpoint.as_ref();
        let (claim, lease) = (endpoint.and_then(claim), endpoint.map_or(0, Endpoint::lease));
        let own = self.offered.as_ref().zip(claim.as_ref()).filter(|(_, claim)| claim.owner == self.owner);
        let offered = own.map(|(offered, own)| self.is_offered(offered, &gone.key, own));
        Vanished { key: gone.key.clone(), claim, lease, offered }
    }

    /// Whether this host still offers what it had under `key`, and has not just published it under another one.
    fn is_offered(&self, offered: &Overlay, key: &str, own: &Claim) -> bool {
        let here = offered.records.get(key).is_some_and(|record| own.is_of(key, record));
        let stands = |key: &str| self.catalog.get(key).is_some_and(|it| !it.held() && own.is_of(key, &it.record()));
        here || offered.records.iter().any(|(key, record)| own.is_of(key, record) && !stands(key))
    }

    /// A key was put, now if that is given: holds of the same claim are over, and what was held there for another is
    /// shown elsewhere.
    fn settle(&mut self, put: Put, now: Option<Duration>) {
        if self.holds.is_empty() && self.lately.is_empty() {
            return;
        }
        let there = self.catalog.get(&put.key);
        let (lease, claim) = (there.as_ref().map_or(0, Endpoint::lease), there.as_ref().and_then(claim));
        if let Some(claim) = &claim {
            self.lately.put(claim);
        }
        let meant = self.holds.put(&put.key, lease, claim.as_ref(), now);
        for key in &meant.over {
            // A list has been taken in whole by now: another record may stand there already.
            if self.catalog.get(key).is_some_and(|endpoint| endpoint.held()) {
                self.catalog.delete(key);
            }
        }
        if meant.displaced {
            let to = put.held.and_then(|endpoint| self.show_aside(&endpoint));
            if let (Some(until), Some(to)) = (self.holds.moved(&put.key, to.as_ref()), to) {
                self.catalog.hold(&to, until);
            }
        }
    }

    /// Shows a record whose key is another's now under the key that its owner will turn to, or one beside it.
    fn show_aside(&mut self, endpoint: &Endpoint) -> Option<Text> {
        let record = endpoint.record();
        let key = self.free_key(endpoint, &record)?;
        self.catalog.put_record(&key, &record, endpoint.lease(), endpoint.revision());
        Some(key)
    }

    /// A record's own key, or, if that is another's now, one of those beside it.
    fn free_key(&self, endpoint: &Endpoint, record: &Record) -> Option<Text> {
        let free = |key: &str| self.catalog.get(key).is_none() && self.catalog.bad_at(key).is_none();
        let own = Some(endpoint.key().clone()).filter(|key| free(key));
        own.or_else(|| plan::asides(endpoint.key(), record).find(|key| free(key)).map(Text::from))
    }

    /// Has the leases asked about that decide on what is held.
    fn tell_held(&mut self, desk: &mut Desk) {
        let held = self.holds.len();
        if held != std::mem::replace(&mut self.told, held) {
            tracing::info!(held, "records that the store lost are held");
        }
        for lease in self.holds.doubtful() {
            desk.doubtful(lease);
        }
    }

    /// This host says what it offers, once it is known whole: what is held of it and is offered no more is over;
    /// whether there was any.
    pub(super) fn offers(&mut self, offered: &Arc<Overlay>) -> bool {
        let all = !offered.partial && !offered.owner.is_empty();
        if !all && self.offered.is_none() {
            return false;
        }
        self.offered = Some(offered.clone());
        if !self.holds.any_of(&self.owner) {
            return false;
        }
        let claims = offered.records.iter().filter_map(|(key, record)| Claim::of(&key.as_str().into(), record));
        let claims: HashSet<Claim> = claims.collect();
        let over = self.holds.release(&self.owner, |claim| claims.contains(claim));
        for key in &over {
            self.both(|catalog| catalog.delete(key));
        }
        !over.is_empty()
    }

    /// This host has lost its lease. What others lost a moment ago may have gone the same way, and is held like what
    /// they lose from now on: unless its lease lives. Whether there is any.
    pub(super) fn lease_was_lost(&mut self, now: Duration, desk: &mut Desk) -> bool {
        self.robbed = Some(now);
        let mut held = false;
        for endpoint in self.lately.take(now) {
            held |= self.bring_back(&endpoint, now + self.lease_time(endpoint.lease()));
        }
        self.tell_held(desk);
        held
    }

    /// Shows again what went, unless its lease turns out to live; whether there is a place for it.
    fn bring_back(&mut self, endpoint: &Endpoint, until: Duration) -> bool {
        let (record, lease) = (endpoint.record(), endpoint.lease());
        let Some(key) = self.free_key(endpoint, &record) else { return false };
        let vanished = Vanished { key: key.clone(), claim: claim(endpoint), lease, offered: None };
        self.both(|catalog| {
            catalog.put_record(&key, &record, lease, endpoint.revision());
            catalog.hold(&key, until);
        });
        self.holds.hold(&vanished, Verdict::HeldUnlessLeaseLives, until)
    }

    /// The store says that a lease lives, and, if it was asked, what hangs on it.
    pub(super) fn lease_lives(&mut self, lease: LeaseId, times: LeaseTimes, keys: Option<&[String]>) {
        self.both(|catalog| catalog.set_lease(lease, times));
        let Some(keys) = keys.filter(|_| !self.holds.is_empty()) else { return };
        let gone = self.holds.lease_lives(lease, &keys.iter().map(String::as_str).collect());
        let own = |key: &Text| self.catalog.get(key).is_some_and(|endpoint| endpoint.owner() == Some(&self.owner));
        if gone.iter().any(own) {
            self.robbed = None;
        }
        for key in gone {
            self.both(|catalog| catalog.delete(&key));
        }
    }

    /// The store is another one, or went back: of its leases those of before are none.
    pub(super) fn other_history(&mut self) {
        self.holds.lease_says_nothing();
    }

    /// The store says that it does not.
    pub(super) fn lease_is_dead(&mut self, lease: LeaseId) {
        self.holds.lease_is_dead(lease);
        self.both(|catalog| catalog.drop_lease(lease));
    }

    /// When something is over next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.holds.next().into_iter().chain(self.lately.next()).min()
    }

    /// Takes away what has been held long enough; whether there was any.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        self.lately.forget(now);
        let over = self.holds.expire(now);
        for key in &over {
            self.both(|catalog| catalog.delete(key));
        }
        !over.is_empty()
    }
}

impl List {
    fn over(catalog: &Catalog, rewound: Option<Revision>) -> Self {
        let (before, mut catalog) = (catalog.clone(), catalog.clone());
        catalog.begin_list();
        Self { catalog, before, after: None, rewound, gone: Vec::new(), put: Vec::new() }
    }

    fn take(&mut self, item: &Item) {
        let rewound = self.rewound.is_some();
        let same = |endpoint: &Endpoint| {
            let unheld = endpoint.lease() == item.lease && !endpoint.held();
            unheld && (endpoint.revision() == item.revision || rewound) && {
                !rewound || Record::decode(&item.value).is_ok_and(|record| record == endpoint.record())
            }
        };
        let known = self.catalog.get(&item.key);
        if known.as_ref().is_some_and(same) {
            return;
        }
        if rewound {
            // The same revision may have brought something else in another history.
            self.catalog.delete(&item.key);
        }
        take(&mut self.catalog, item, self.before.bad_at(&item.key).is_some());
        let now = self.catalog.get(&item.key);
        let (held, stood) =
            known.map_or((None, None), |known| if known.held() { (Some(known), None) } else { (None, Some(known)) });
        let key: Text = item.key.as_str().into();
        let lost = |stood: &Endpoint| match (stood.owner(), &now) {
            (None, _) => false,
            (Some(_), None) => true,
            // In one history an owner's put goes over what it means it to; one that went back may have an older put.
            (Some(_), Some(now)) if rewound => claim(stood) != claim(now),
            (was, Some(now)) => was != now.owner(),
        };
        if let Some(stood) = stood.filter(lost) {
            self.gone.push(Gone::under(stood));
        }
        self.put.push(Put { key, revision: item.revision, held });
    }
}

impl Gone {
    fn at(catalog: &Catalog, key: &str) -> Self {
        Self { key: key.into(), endpoint: catalog.get(key), replaced: false }
    }

    /// What stood under a key that another record has now.
    fn under(endpoint: Endpoint) -> Self {
        Self { key: endpoint.key().clone(), endpoint: Some(endpoint), replaced: true }
    }
}

fn claim(endpoint: &Endpoint) -> Option<Claim> {
    Claim::of(endpoint.key(), &endpoint.record())
}

/// Puts one item; a value that is no record is logged once, with its key. There may be very many.
fn take(catalog: &mut Catalog, item: &Item, known: bool) {
    let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        catalog.put(&item.key, &item.value, item.lease, item.revision)
    }));
    let key = || key::shown(&item.key);
    match taken {
        Ok(Ok(())) => {}
        Ok(Err(reason)) if known || catalog.counts().bad > NAMED => {
            tracing::debug!(key = ?key(), %reason, "value is no record: skipped");
        }
        Ok(Err(reason)) => tracing::warn!(key = ?key(), %reason, "value is no record: skipped"),
        Err(_) => tracing::error!(key = ?key(), "panicked over a record: skipped"),
    }
}

/// Has an unknown lease asked about: an answer's TTL depends on it.
fn look_at_lease(catalog: &Catalog, key: &str, desk: &mut Desk) {
    let lease = catalog.get(key).map_or(0, |endpoint| endpoint.lease());
    if lease != 0 && catalog.lease(lease).is_none() {
        desk.unknown(lease);
    }
}
