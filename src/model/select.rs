//! Which records a name takes: what the tree holds, else a selection by role, node or tag within the rest.
//!
//! The order is the law: 1. what stands at or below the name; 2. else `_service._proto` as RFC 2782 has it; 3. else the
//! first label selects within what the rest takes: role, then node, then tag. At most two selectors stack. A role that
//! nobody has is no data, never another role; a primary that several claim is nobody.

use std::cell::Cell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::catalog::{Catalog, Dependency, Entry, Pattern};
use super::key::Prefix;
use super::record::{Proto, Role};

/// How many selectors may stack.
const MAX_SELECTORS: usize = 2;
/// Records that are enough to know that there are some.
const A_FEW: usize = 64;
/// Claims to be the primary that are looked at; two that differ are enough to know.
const MAX_CLAIMS: usize = 64;

/// What a label takes out of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Those of this role.
    Role(Role),
    /// Those on the node whose name has this slug.
    Node(String),
    /// Those with a tag of this slug.
    Tag(String),
}

impl Selector {
    fn takes(&self, entry: &Entry) -> bool {
        match self {
            Self::Role(role) => entry.role == Some(*role),
            Self::Node(slug) => entry.is_on(slug),
            Self::Tag(slug) => entry.is_tagged(slug),
        }
    }

    fn term(&self) -> String {
        match self {
            Self::Role(role) => format!("r:{role}"),
            Self::Node(slug) => format!("n:{slug}"),
            Self::Tag(slug) => format!("t:{slug}"),
        }
    }

    /// The smaller, the fewer records it is likely to take.
    fn breadth(&self) -> u8 {
        match self {
            Self::Role(Role::Primary) => 0,
            Self::Node(_) => 1,
            Self::Tag(_) => 2,
            Self::Role(Role::Replica) => 3,
        }
    }
}

/// Where the records of a set stand, before anything is selected.
#[derive(Clone, Debug)]
enum Base<'c> {
    /// At or below these paths, by the place of their prefix.
    Paths(Vec<(usize, String)>),
    /// What a wildcard fits, and whether there is more.
    Fitting(Rc<[Hit<'c>]>, bool),
}

/// A set of records, described.
#[derive(Clone, Debug)]
struct Query<'c> {
    base: Base<'c>,
    proto: Option<Proto>,
    selectors: Vec<Selector>,
}

/// A record that a name takes, and the place of the prefix that it stands below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit<'c> {
    pub(crate) entry: &'c Arc<Entry>,
    pub(crate) prefix: usize,
}

/// What a name takes.
#[derive(Debug, Default)]
pub(crate) struct Selection<'c> {
    pub(crate) hits: Vec<Hit<'c>>,
    /// There are more than were looked at.
    pub(crate) cut: bool,
    /// Several claim the role asked for.
    pub(crate) contested: bool,
}

/// Looks names up below the prefixes of one zone.
#[derive(Debug)]
pub(crate) struct Finder<'c> {
    pub(crate) catalog: &'c Catalog,
    pub(crate) prefixes: &'c [Prefix],
    /// Which window a large set is cut to.
    pub(crate) seed: u64,
    /// How many records may be looked at.
    pub(crate) limit: usize,
    /// How many have been.
    pub(crate) looked: Cell<usize>,
    /// What the findings rest on.
    pub(crate) dependencies: Vec<Dependency>,
}

impl<'c> Finder<'c> {
    /// What the name (lower-case labels below the zone, most particular first) takes; `None` when there is no such
    /// name.
    pub(crate) fn find(&mut self, labels: &[&str]) -> Option<Selection<'c>> {
        let (query, selection) = self.resolve(labels, 0, true)?;
        let mut selection = selection.unwrap_or_else(|| self.run(&query));
        selection.hits = self.merged(std::mem::take(&mut selection.hits));
        Some(selection)
    }

    /// What stands at or below the name, without selecting.
    pub(crate) fn find_in_tree(&mut self, labels: &[&str]) -> Option<Selection<'c>> {
        let query = self.in_tree(labels)?;
        let mut selection = self.run(&query);
        selection.hits = self.merged(std::mem::take(&mut selection.hits));
        Some(selection)
    }

    /// What stands exactly at the name.
    pub(crate) fn exactly(&mut self, labels: &[&str]) -> Vec<Hit<'c>> {
        let catalog = self.catalog;
        let paths = self.paths(labels);
        let hits = paths.iter().flat_map(|(prefix, path)| {
            catalog.at(path).map(|entry| Hit { entry, prefix: *prefix }).collect::<Vec<_>>()
        });
        let mut hits: Vec<_> = hits.collect();
        hits.sort_by_key(|hit| hit.entry.owner.is_none());
        hits
    }

    /// The query that the name stands for; with its result where that was needed to know that the name exists.
    /// Unless the `whole` of it is wanted, a few records will do to know.
    fn resolve(
        &mut self,
        labels: &[&str],
        selectors: usize,
        whole: bool,
    ) -> Option<(Query<'c>, Option<Selection<'c>>)> {
        if let Some(query) = self.in_tree(labels) {
            return Some((query, None));
        }
        match labels {
            [service, proto, rest @ ..] if proto_of(proto).is_some() && service.starts_with('_') => {
                self.by_rfc_2782(&service[1..], proto_of(proto)?, rest, selectors)
            }
            // What `_service._tcp.rest` stands below must exist, else resolvers stop there (RFC 8020).
            [proto, rest @ ..] if proto_of(proto).is_some() => {
                let (query, _) = self.resolve(rest, selectors, false)?;
                Some((query, Some(Selection::default())))
            }
            [first, rest @ ..] if !rest.is_empty() && selectors < MAX_SELECTORS => {
                let (query, _) = self.resolve(rest, selectors + 1, false)?;
                self.selected(first, query, whole)
            }
            _ => None,
        }
    }

    /// `_service._proto.rest` is those of `service.rest` that speak `proto`; the rest may begin with selectors.
    fn by_rfc_2782(
        &mut self,
        service: &str,
        proto: Proto,
        rest: &[&str],
        selectors: usize,
    ) -> Option<(Query<'c>, Option<Selection<'c>>)> {
        if service.is_empty() {
            return None;
        }
        for count in 0..=MAX_SELECTORS.saturating_sub(selectors).min(rest.len()) {
            let (before, after) = rest.split_at(count);
            let labels: Vec<&str> = before.iter().copied().chain([service]).chain(after.iter().copied()).collect();
            if let Some((mut query, _)) = self.resolve(&labels, selectors, false) {
                query.proto = Some(proto);
                return Some((query, None));
            }
        }
        None
    }

    /// Role, then node, then tag.
    fn selected(
        &mut self,
        label: &str,
        mut query: Query<'c>,
        whole: bool,
    ) -> Option<(Query<'c>, Option<Selection<'c>>)> {
        if let Some(role) = Role::parse(label) {
            query.selectors.push(Selector::Role(role));
            return Some((query, None));
        }
        for selector in [Selector::Node(label.to_owned()), Selector::Tag(label.to_owned())] {
            query.selectors.push(selector);
            let enough = if whole || query.proto.is_some() { self.left() } else { A_FEW };
            let selection = self.run_some(&query, enough);
            if !selection.hits.is_empty() || selection.contested || self.is_known(&query) {
                return Some((query, Some(selection)));
            }
            query.selectors.pop();
        }
        None
    }

    /// Whether the node or tag is known there at all: then a role or proto that it lacks is no data, as elsewhere.
    fn is_known(&self, query: &Query<'c>) -> bool {
        let mut loose = Query { proto: None, ..query.clone() };
        loose.selectors.retain(|selector| !matches!(selector, Selector::Role(_)));
        let narrowed = loose.selectors.len() < query.selectors.len() || query.proto.is_some();
        narrowed && !self.run_some(&loose, A_FEW).hits.is_empty()
    }

    fn in_tree(&mut self, labels: &[&str]) -> Option<Query<'c>> {
        if labels.iter().any(|label| is_wildcard(label)) {
            let (hits, cut) = self.fitting(labels);
            let base = Base::Fitting(hits.into(), cut);
            return Some(Query { base, proto: None, selectors: Vec::new() })
                .filter(|query| !matches!(&query.base, Base::Fitting(hits, _) if hits.is_empty()));
        }
        let catalog = self.catalog;
        let mut paths = self.paths(labels);
        paths.retain(|(_, path)| labels.is_empty() || catalog.exists(path));
        (!paths.is_empty()).then(|| Query { base: Base::Paths(paths), proto: None, selectors: Vec::new() })
    }

    /// What a name with wildcards fits.
    fn fitting(&mut self, labels: &[&str]) -> (Vec<Hit<'c>>, bool) {
        let (mut hits, mut cut) = (Vec::new(), false);
        for (prefix, pattern) in self.patterns(labels) {
            let found = self.catalog.matching(&pattern, self.seed, self.left());
            self.note(found.looked);
            cut |= found.cut;
            hits.extend(found.entries.into_iter().map(|entry| Hit { entry, prefix }));
        }
        (hits, cut)
    }

    /// How many records may still be looked at. A few may always be.
    fn left(&self) -> usize {
        self.limit.saturating_sub(self.looked.get()).max(A_FEW)
    }

    fn note(&self, looked: usize) {
        self.looked.set(self.looked.get() + looked);
    }

    fn paths(&mut self, labels: &[&str]) -> Vec<(usize, String)> {
        let paths: Vec<_> = self.prefixes.iter().map(|prefix| path_of(prefix.as_str(), labels.iter().rev())).collect();
        for path in &paths {
            self.rest_on(path);
        }
        paths.into_iter().enumerate().collect()
    }

    fn patterns(&mut self, labels: &[&str]) -> Vec<(usize, Pattern)> {
        let literal = labels.iter().rev().take_while(|label| !is_wildcard(label)).count();
        let (free, fixed) = labels.split_at(labels.len() - literal);
        let segments: Vec<Option<String>> =
            free.iter().rev().map(|label| (!is_wildcard(label)).then(|| (*label).to_owned())).collect();
        let patterns: Vec<_> = self
            .prefixes
            .iter()
            .map(|prefix| Pattern { root: path_of(prefix.as_str(), fixed.iter().rev()), segments: segments.clone() })
            .collect();
        for pattern in &patterns {
            self.rest_on(&pattern.root);
        }
        patterns.into_iter().enumerate().collect()
    }

    fn rest_on(&mut self, path: &str) {
        let dependency = self.catalog.dependency(path);
        if !self.dependencies.contains(&dependency) {
            self.dependencies.push(dependency);
        }
    }

    fn run(&self, query: &Query<'c>) -> Selection<'c> {
        self.run_some(query, self.left())
    }

    /// Looks at no more than `enough` records of the base that the narrowest selector takes.
    fn run_some(&self, query: &Query<'c>, enough: usize) -> Selection<'c> {
        if query.selectors.contains(&Selector::Role(Role::Primary)) {
            return self.run_for_primary(query);
        }
        let mut selection = self.run_base(query, enough);
        selection.hits.retain(|hit| takes(query, hit.entry));
        selection
    }

    /// What the base holds, already narrowed by the narrowest selector.
    fn run_base(&self, query: &Query<'c>, enough: usize) -> Selection<'c> {
        let paths = match &query.base {
            Base::Paths(paths) => paths,
            Base::Fitting(hits, cut) => return Selection { hits: hits.to_vec(), cut: *cut, contested: false },
        };
        let narrowest = query.selectors.iter().min_by_key(|selector| selector.breadth()).map(Selector::term);
        let mut selection = Selection::default();
        for (prefix, path) in paths {
            let found = match &narrowest {
                Some(term) => self.catalog.under(term, path, self.seed, enough.min(self.left())),
                None => self.catalog.at_or_below(path, self.seed, enough.min(self.left())),
            };
            self.note(found.looked);
            selection.cut |= found.cut;
            selection.hits.extend(found.entries.into_iter().map(|entry| Hit { entry, prefix: *prefix }));
        }
        selection
    }

    /// Nobody is named while two living endpoints of the base claim it, whatever else is selected. One that is only
    /// held gives way to one that lives.
    fn run_for_primary(&self, query: &Query<'c>) -> Selection<'c> {
        let claims = Query { selectors: vec![Selector::Role(Role::Primary)], ..query.clone() };
        let mut claiming = match &claims.base {
            Base::Paths(paths) => self.claims_below(paths),
            Base::Fitting(..) => self.run_base(&claims, self.left()).hits,
        };
        claiming.retain(|hit| takes(&claims, hit.entry));
        if claiming.iter().any(|hit| !hit.entry.held) {
            claiming.retain(|hit| !hit.entry.held);
        }
        let distinct: HashSet<_> = claiming.iter().map(|hit| place_of(hit.entry)).collect();
        if distinct.len() > 1 {
            return Selection { contested: true, ..Selection::default() };
        }
        claiming.retain(|hit| takes(query, hit.entry));
        Selection { hits: claiming, ..Selection::default() }
    }

    fn claims_below(&self, paths: &[(usize, String)]) -> Vec<Hit<'c>> {
        let catalog = self.catalog;
        let below = paths.iter().flat_map(|(prefix, path)| {
            catalog.primaries(path, MAX_CLAIMS).into_iter().map(|entry| Hit { entry, prefix: *prefix })
        });
        let claims: Vec<_> = below.collect();
        self.note(claims.len());
        claims
    }

    /// Several prefixes are a union: what connects to the same place is there once, the one with an owner first.
    fn merged(&self, mut hits: Vec<Hit<'c>>) -> Vec<Hit<'c>> {
        let Some(first) = hits.first().map(|hit| hit.prefix) else { return hits };
        if hits.iter().all(|hit| hit.prefix == first) {
            return hits;
        }
        hits.sort_by_key(|hit| hit.entry.owner.is_none());
        let mut taken = std::collections::HashMap::new();
        hits.retain(|hit| {
            !hit.entry.has_host() || *taken.entry(place_of(hit.entry)).or_insert(hit.prefix) == hit.prefix
        });
        hits
    }
}

/// What a client would connect to.
pub(crate) fn place_of(entry: &Entry) -> (Option<IpAddr>, Option<&str>, u16, Proto) {
    (entry.address, entry.host_name().map(|name| &**name), entry.port, entry.proto())
}

fn takes(query: &Query<'_>, entry: &Entry) -> bool {
    query.proto.is_none_or(|proto| entry.proto() == proto) && query.selectors.iter().all(|own| own.takes(entry))
}

fn proto_of(label: &str) -> Option<Proto> {
    match label {
        "_tcp" => Some(Proto::Tcp),
        "_udp" => Some(Proto::Udp),
        _ => None,
    }
}

fn is_wildcard(label: &str) -> bool {
    label == "*" || label == "any"
}

fn path_of<'l>(prefix: &str, outermost_first: impl Iterator<Item = &'l &'l str>) -> String {
    outermost_first.fold(prefix.to_owned(), |mut path, label| {
        path.push('/');
        path.push_str(label);
        path
    })
}

/// SkyDNS's groups: the shortest key with a group sets the group; records of another one are left out. Where several
/// shortest keys disagree there is no grouping.
pub(crate) fn grouped(hits: &mut Vec<Hit<'_>>) {
    let depth = |hit: &Hit<'_>| hit.entry.path().matches('/').count();
    let own = |hit: &Hit<'_>| hit.entry.group.clone().filter(|group| !group.is_empty());
    let Some(shortest) = hits.iter().filter(|hit| own(hit).is_some()).map(depth).min() else { return };
    let mut groups: Vec<_> = hits.iter().filter(|hit| depth(hit) == shortest).filter_map(own).collect();
    groups.dedup();
    if let [group] = groups.as_slice() {
        hits.retain(|hit| own(hit).is_none_or(|own| own == *group));
    }
}
