//! How answers read the catalog: exact records, subtrees, selections, each bounded by a number of steps.

use std::ops::Bound;
use std::sync::Arc;

use super::entry::Entry;
use super::{Bad, CUT, Catalog, Counts, Endpoint, LeaseId, Text, WINDOW, path, selectors, window};
use crate::model::words::record::Role;

/// What an answer rests on: it holds as long as the catalog says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    path: Box<str>,
    generation: u64,
}

impl Dependency {
    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.path.len()
    }
}

/// Records found, and whether there are more than were looked at.
#[derive(Debug, Default)]
pub(crate) struct Found<'c> {
    pub(crate) entries: Vec<&'c Arc<Entry>>,
    pub(crate) cut: bool,
    /// What it cost, as [`steps`](crate::catalog::steps) count.
    pub(crate) steps: usize,
}

/// Steps that finding the beginning of a range takes.
pub(crate) const SEEK: usize = 8;

impl Catalog {
    /// The record under exactly this key.
    pub fn get(&self, key: &str) -> Option<Endpoint> {
        self.entry(key).cloned().map(Endpoint)
    }

    /// Every record, in the order of names: that of keys but for those that read as another one.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.tree.values().cloned().map(Endpoint)
    }

    /// Every value that is no record, by key.
    pub fn bad(&self) -> impl Iterator<Item = (&Text, &Bad)> {
        self.bad.iter()
    }

    /// Why the value under this key is no record.
    pub fn bad_at(&self, key: &str) -> Option<&Bad> {
        self.bad.get(key)
    }

    /// The paths of services that several endpoints claim to be the primary of.
    pub fn contested(&self) -> impl Iterator<Item = &Text> {
        self.contested.iter()
    }

    /// The paths of services with replicas that no endpoint claims to be the primary of.
    pub fn leaderless(&self) -> impl Iterator<Item = &Text> {
        self.leaderless.iter()
    }

    /// Numbers, without walking.
    pub fn counts(&self) -> Counts {
        Counts {
            records: self.tree.len(),
            services: self.services.len(),
            bad: self.bad.len(),
            left_out: self.left_out.len(),
            held: self.held.len(),
            yielding: self.yielding.len(),
            contested: self.contested.len(),
            leaderless: self.leaderless.len(),
        }
    }

    /// The keys below `prefix`, after `after` and up to `through` (all when `None`), that are not among `present`:
    /// what a page of a fresh list shows to have vanished.
    pub fn vanished<'p>(
        &self,
        prefix: &str,
        after: Option<&str>,
        through: Option<&str>,
        present: impl IntoIterator<Item = &'p str>,
    ) -> Vec<Text> {
        let (first, end) = (path::below(prefix), path::beyond(prefix));
        if after.is_some_and(|after| after >= end.as_str() || through.is_some_and(|through| after >= through)) {
            return Vec::new();
        }
        let from =
            after.filter(|after| *after >= first.as_str()).map_or(Bound::Included(first.as_str()), Bound::Excluded);
        let to = through.map_or(Bound::Excluded(end.as_str()), Bound::Included);
        let present: std::collections::HashSet<&str> = present.into_iter().collect();
        let plain = self.tree.range::<_, str>((from, to)).filter(|(_, entry)| !entry.is_renamed());
        let records = plain
            .chain(self.renamed.range::<_, str>((from, to)))
            .chain(self.yielding.range((from, to)))
            .map(|(key, _)| key);
        records.filter(|key| !present.contains(&***key)).cloned().collect()
    }

    /// What this owner, who runs on `node`, has published.
    pub fn owned_by(&self, node: &str, owner: &str) -> Vec<Endpoint> {
        let Some(slug) = crate::model::words::name::Label::slug(node) else { return Vec::new() };
        let term = format!("n:{slug}");
        let own = self.selectors.all(&term).filter(|entry| entry.owner.as_deref() == Some(owner));
        own.cloned().map(Endpoint).collect()
    }

    /// Whether any record of a node hangs on a lease.
    pub fn hangs_on(&self, node: &str, lease: LeaseId) -> bool {
        let Some(slug) = crate::model::words::name::Label::slug(node) else { return false };
        self.selectors.all(&format!("n:{slug}")).any(|entry| entry.lease == lease)
    }

    /// Whether everything that an answer rests on is as it was. `epoch` is what [`Catalog::epoch`] was then.
    pub fn holds_still(&self, epoch: u64, dependencies: &[Dependency]) -> bool {
        self.epoch == epoch && dependencies.iter().all(|on| self.stamp(&on.path) == on.generation)
    }

    /// Changes with what touches every answer: staleness, the times granted to leases.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What an answer about `path` rests on: the path itself when it has records below, else the one above.
    pub(crate) fn dependency(&self, path: &str) -> Dependency {
        let path = match path::parent(path) {
            Some(parent) if self.dirs.get(path).is_none() => parent,
            _ => path,
        };
        Dependency { path: path.into(), generation: self.stamp(path) }
    }

    /// What an answer rests on that any change may alter.
    pub(crate) fn dependency_on_all(&self) -> Dependency {
        Dependency { path: "".into(), generation: self.generation }
    }

    fn stamp(&self, path: &str) -> u64 {
        if path.is_empty() {
            return self.generation;
        }
        self.dirs.get(path).map_or(0, |dir| dir.generation)
    }

    /// Whether anything is at or below `path`.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.dirs.get(path).is_some() || self.at(path).next().is_some()
    }

    /// How many records are below `path`.
    pub(crate) fn size(&self, path: &str) -> usize {
        self.dirs.get(path).map_or(0, |dir| dir.below as usize)
    }

    /// The records whose name is exactly this path: one, or several when keys spell one name differently.
    pub(crate) fn at(&self, path: &str) -> impl Iterator<Item = &Arc<Entry>> + use<'_> {
        let (from, to) = (format!("{path}\0"), format!("{path}\u{1}"));
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        let renamed = (!self.renamed.is_empty()).then(|| self.tree.range::<_, str>(range));
        self.tree.get(path).into_iter().chain(renamed.into_iter().flatten().map(|(_, entry)| entry))
    }

    /// The records at or below `path`; more than [`WINDOW`] (or `limit`) are cut to a window that `seed` chooses.
    pub(crate) fn at_or_below(&self, path: &str, seed: u64, limit: usize) -> Found<'_> {
        let limit = limit.min(WINDOW);
        let mut found = self.exactly(path, limit);
        let size = self.size(path);
        if size == 0 {
            return found;
        }
        let cut = size > limit;
        let window = if cut { self.window(path, seed) } else { None };
        let limit = if cut { limit.min(CUT) } else { limit };
        let room = limit.saturating_sub(found.entries.len());
        found.entries.extend(self.below(path, window).take(room));
        if let Some(start) = window {
            let room = limit.saturating_sub(found.entries.len());
            let before = self.below(path, None).take_while(|entry| **entry.place() < *start);
            found.entries.extend(before.take(room));
        }
        found.cut |= cut;
        found.steps += SEEK + found.entries.len() + if cut { window::steps(size) } else { 0 };
        found
    }

    /// The most steps that finding at most `limit` of a set of more records takes.
    pub(crate) fn steps_of_window(size: usize, limit: usize) -> usize {
        1 + 2 * (SEEK + limit) + window::steps(size)
    }

    /// The records whose name is exactly this path, at most `limit`: the one whose key it is comes first.
    pub(crate) fn exactly(&self, path: &str, limit: usize) -> Found<'_> {
        let mut all = self.at(path);
        let entries: Vec<_> = all.by_ref().take(limit).collect();
        Found { steps: 1 + entries.len(), cut: all.next().is_some(), entries }
    }

    /// The records at or below `path` under a selector's term, cut likewise.
    pub(crate) fn under(&self, term: &str, path: &str, seed: u64, limit: usize) -> Found<'_> {
        let limit = limit.min(WINDOW);
        let mut entries: Vec<_> = self.selectors.within(term, path, None).take(limit + 1).collect();
        let mut steps = SEEK + entries.len();
        let cut = entries.len() > limit;
        if cut {
            entries.truncate(limit.min(CUT));
            steps += SEEK + entries.len() + window::steps(self.size(path));
            self.turn(&mut entries, term, path, seed);
        }
        Found { entries, cut, steps }
    }

    /// Puts as many records of the window that `seed` chooses in place of the first ones.
    fn turn<'c>(&'c self, entries: &mut Vec<&'c Arc<Entry>>, term: &str, path: &str, seed: u64) {
        let Some(start) = self.window(path, seed) else { return };
        let most = entries.len();
        let after = self.selectors.within(term, path, Some(start)).take(most);
        let before = std::mem::take(entries).into_iter().take_while(|entry| entry.path() < start);
        entries.extend(after);
        let room = most - entries.len();
        entries.extend(before.take(room));
    }

    /// Whether any record has a selector's term.
    pub(crate) fn has_term(&self, term: &str) -> bool {
        self.selectors.has(term)
    }

    /// The primaries at or below `path`, at most `limit`; those that are only held where there are no others.
    pub(crate) fn primaries(&self, path: &str, limit: usize) -> Found<'_> {
        let under = |term| self.selectors.within(term, path, None).take(limit).collect::<Vec<_>>();
        let living = under(selectors::LIVING_PRIMARY);
        let entries = if living.is_empty() { under(selectors::role_term(Role::Primary)) } else { living };
        Found { steps: 2 * SEEK + entries.len(), cut: false, entries }
    }

    /// The records published under an address, at most `limit`.
    pub(crate) fn published(&self, address: std::net::IpAddr, limit: usize) -> Vec<&Arc<Entry>> {
        self.addresses.all(address).take(limit).collect()
    }

    /// Records below `path`, from the place `start` on.
    pub(super) fn below(&self, path: &str, start: Option<&str>) -> impl Iterator<Item = &Arc<Entry>> + use<'_> {
        let (below, beyond) = (path::below(path), path::beyond(path));
        let range = (Bound::Included(start.unwrap_or(&below)), Bound::Excluded(beyond.as_str()));
        self.tree.range::<_, str>(range).map(|(_, entry)| entry)
    }
}
