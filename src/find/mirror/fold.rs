//! The catalog as a fold of what the store says: lists, changes, and the records held beside them.
//!
//! A list is folded into a copy that shares everything unchanged with the catalog, and takes its place when it is
//! whole: readers never see half of one. No sockets and no waiting here; time is an argument.

use std::collections::HashSet;
use std::time::Duration;

use super::leases::Desk;
use super::source::ListPage;
use crate::model::catalog::{Catalog, LeaseId, LeaseTimes};
use crate::model::hold::{self, Holds, How, Vanished};
use crate::model::key::Prefix;
use crate::model::record::{Record, Text};
use crate::store::{Batch, Event, Item, Revision};

/// The catalog and what is under way to it.
#[derive(Debug)]
pub(super) struct Fold {
    prefixes: Vec<Prefix>,
    owner: Text,
    lease_ttl: Duration,
    catalog: Catalog,
    holds: Holds,
    list: Option<List>,
}

/// A list that is not whole yet.
#[derive(Debug)]
struct List {
    catalog: Catalog,
    rewound: bool,
    vanished: Vec<Vanished>,
    /// Keys that came anew or changed, with their owner: their holds end when the list is whole.
    put: Vec<(Text, Option<Text>)>,
}

impl Fold {
    pub(super) fn new(prefixes: Vec<Prefix>, owner: Text, lease_ttl: Duration) -> Self {
        let (catalog, holds) = Default::default();
        Self { prefixes, owner, lease_ttl, catalog, holds, list: None }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn holds(&self) -> &Holds {
        &self.holds
    }

    pub(super) fn set_stale(&mut self, since: Option<Duration>) {
        self.catalog.set_stale(since);
    }

    /// Begins with what an earlier run kept, or with nothing.
    pub(super) fn start_from(&mut self, kept: Catalog) {
        if let Some(list) = &mut self.list {
            *list = List::over(&kept, list.rewound);
        }
        self.catalog = kept;
        self.holds = Holds::default();
    }

    /// Does the same to the catalog and to what will take its place.
    fn both(&mut self, change: impl Fn(&mut Catalog)) {
        change(&mut self.catalog);
        if let Some(list) = &mut self.list {
            change(&mut list.catalog);
        }
    }

    /// A list begins.
    pub(super) fn begin(&mut self, rewound: bool) {
        let rewound = rewound || self.list.take().is_some_and(|list| list.rewound);
        self.list = Some(List::over(&self.catalog, rewound));
    }

    /// A page of the list.
    pub(super) fn page(&mut self, page: &ListPage, desk: &mut Desk) {
        let ListPage { after, items, last, .. } = page;
        let (Some(list), Some(prefix)) = (&mut self.list, self.prefixes.get(page.prefix)) else { return };
        list.rewound |= page.revision < self.catalog.revision();
        let through = items.last().filter(|_| !*last).map(|item| item.key.as_str());
        let present = items.iter().map(|item| item.key.as_str());
        for key in list.catalog.vanished(prefix.as_str(), after.as_deref(), through, present) {
            list.vanished.push(vanished(&list.catalog, &key));
        }
        for item in items {
            list.take(item, &self.holds);
            look_at_lease(&list.catalog, &item.key, desk);
        }
    }

    /// The list is whole: it takes the catalog's place.
    pub(super) fn listed(&mut self, revision: Revision, returned: Option<Duration>, now: Duration, desk: &mut Desk) {
        let Some(list) = self.list.take() else { return };
        self.catalog = list.catalog;
        for (key, owner) in &list.put {
            self.holds.put(key, owner.as_ref(), now);
        }
        let fresh: Vec<_> = list.vanished.into_iter().filter(|record| !self.holds.contains(&record.key)).collect();
        self.let_go(&fresh, How::Relist { rewound: list.rewound, returned }, now, desk);
        self.catalog.set_revision(revision);
        desk.sweep(&mut self.catalog);
    }

    /// What happened; whether anything did.
    pub(super) fn batch(&mut self, batch: &Batch, returned: Option<Duration>, now: Duration, desk: &mut Desk) -> bool {
        let put: HashSet<&str> = batch.events.iter().filter_map(put_key).collect();
        let mut gone = Vec::new();
        for event in &batch.events {
            match event {
                Event::Put(item) => {
                    take(&mut self.catalog, item);
                    look_at_lease(&self.catalog, &item.key, desk);
                    let owner = self.catalog.get(&item.key).and_then(|endpoint| endpoint.owner().cloned());
                    self.holds.put(&item.key, owner.as_ref(), now);
                }
                Event::Delete(key) if put.contains(key.as_str()) => self.catalog.delete(key),
                Event::Delete(key) if self.holds.contains(key) => {}
                Event::Delete(key) => gone.push(vanished(&self.catalog, key)),
            }
        }
        self.let_go(&gone, How::Deleted { returned }, now, desk);
        self.catalog.set_revision(batch.revision);
        !batch.events.is_empty()
    }

    /// Takes away what vanished, or holds it.
    fn let_go(&mut self, gone: &[Vanished], how: How, now: Duration, desk: &mut Desk) {
        let verdicts = hold::judge(gone, how, &self.owner);
        for (record, verdict) in gone.iter().zip(verdicts) {
            let time = self.catalog.lease(record.lease).map_or(self.lease_ttl, |lease| lease.granted);
            let known = self.catalog.get(&record.key).is_some();
            if known && self.holds.hold(record, verdict, now + time) {
                self.catalog.hold(&record.key, now + time);
            } else {
                self.catalog.delete(&record.key);
            }
        }
        let held = self.holds.len();
        if held > 0 && !gone.is_empty() {
            tracing::info!(held, "holding records that the store lost");
        }
        for lease in self.holds.doubtful() {
            desk.doubtful(lease);
        }
    }

    /// The store says that a lease lives.
    pub(super) fn lease_lives(&mut self, lease: LeaseId, times: LeaseTimes) {
        self.both(|catalog| catalog.set_lease(lease, times));
        for key in self.holds.lease_known(lease, true) {
            self.both(|catalog| catalog.delete(&key));
        }
    }

    /// The store says that it does not.
    pub(super) fn lease_is_dead(&mut self, lease: LeaseId) {
        self.holds.lease_known(lease, false);
        self.both(|catalog| catalog.drop_lease(lease));
    }

    /// Takes away what has been held long enough; whether there was any.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let over = self.holds.expire(now);
        for key in &over {
            self.both(|catalog| catalog.delete(key));
        }
        !over.is_empty()
    }
}

impl List {
    fn over(catalog: &Catalog, rewound: bool) -> Self {
        Self { catalog: catalog.clone(), rewound, vanished: Vec::new(), put: Vec::new() }
    }

    fn take(&mut self, item: &Item, holds: &Holds) {
        let held = holds.contains(&item.key);
        let same = |endpoint: &crate::model::catalog::Endpoint| {
            let unheld = endpoint.lease() == item.lease && !endpoint.held();
            unheld && (endpoint.revision() == item.revision || self.rewound) && {
                !self.rewound || Record::decode(&item.value).is_ok_and(|record| record == endpoint.record())
            }
        };
        let known = self.catalog.get(&item.key);
        if known.as_ref().is_some_and(same) {
            return;
        }
        if self.rewound {
            // The same revision may have brought something else in another history.
            self.catalog.delete(&item.key);
        }
        take(&mut self.catalog, item);
        if held || known.is_none() || !holds.is_empty() {
            let owner = self.catalog.get(&item.key).and_then(|endpoint| endpoint.owner().cloned());
            self.put.push((item.key.as_str().into(), owner));
        }
    }
}

/// Puts one item; a value that is no record is logged once, with its key.
fn take(catalog: &mut Catalog, item: &Item) {
    let known = catalog.bad_at(&item.key).is_some();
    let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        catalog.put(&item.key, &item.value, item.lease, item.revision)
    }));
    match taken {
        Ok(Ok(())) => {}
        Ok(Err(reason)) if known => tracing::debug!(key = ?item.key, %reason, "still no record"),
        Ok(Err(reason)) => tracing::warn!(key = ?item.key, %reason, "value is no record: skipped"),
        Err(_) => tracing::error!(key = ?item.key, "panicked over a record: skipped"),
    }
}

/// Has an unknown lease asked about: an answer's TTL depends on it.
fn look_at_lease(catalog: &Catalog, key: &str, desk: &mut Desk) {
    let lease = catalog.get(key).map_or(0, |endpoint| endpoint.lease());
    if lease != 0 && catalog.lease(lease).is_none() {
        desk.unknown(lease);
    }
}

fn vanished(catalog: &Catalog, key: &str) -> Vanished {
    let endpoint = catalog.get(key);
    Vanished {
        key: key.into(),
        owner: endpoint.as_ref().and_then(|endpoint| endpoint.owner().cloned()),
        lease: endpoint.map_or(0, |endpoint| endpoint.lease()),
    }
}

fn put_key(event: &Event) -> Option<&str> {
    match event {
        Event::Put(item) => Some(&item.key),
        Event::Delete(_) => None,
    }
}
