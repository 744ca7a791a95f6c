//! Which records a name takes: what the tree holds, else a selection by role, nearness, node or tag within the rest.
//!
//! The order is the law: 1. what stands at or below the name; 2. else `_service._proto` as RFC 2782 has it; 3. else the
//! first label selects within what the rest takes: role, then nearness, then node, then tag. At most two selectors
//! stack. A role that nobody has is no data, never another role; a primary that several claim is nobody.

mod nearness;
mod query;

pub(crate) mod near;

use std::cell::Cell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

pub(crate) use self::nearness::Distances;
use self::query::{Base, Fitting, Query, Selector};
use super::steps::{Steps, lookup};
use crate::catalog::index::{Catalog, Dependency, Entry, Found, Pattern, SEEK};
use crate::model::steer::names::Steered;
use crate::model::words::key::Prefix;
use crate::model::words::record::{Proto, Role, Text};
use crate::model::words::site::Standpoint;

/// How many selectors may stack.
const MAX_SELECTORS: usize = 2;
/// Records that are enough to know that there are some, and the least that each of several prefixes may bring.
const A_FEW: usize = 64;
/// Claims to be the primary that are looked at; two that differ are enough to know.
const MAX_CLAIMS: usize = 64;
/// An answer that rests on more paths than this rests on the whole catalog.
const MAX_DEPENDENCIES: usize = 32;

/// A record that a name takes, and the place of the prefix that it stands below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit<'c> {
    pub(crate) entry: &'c Arc<Entry>,
    pub(crate) prefix: usize,
    /// The priority that it has among the near and the far, where answers prefer what is near.
    pub(crate) class: Option<u16>,
}

impl<'c> Hit<'c> {
    pub(crate) fn new(entry: &'c Arc<Entry>, prefix: usize) -> Self {
        Self { entry, prefix, class: None }
    }
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
    /// Where it is asked.
    pub(crate) standpoint: &'c Standpoint,
    /// Which window a large set is cut to.
    pub(crate) seed: u64,
    /// How many records may be found.
    pub(crate) limit: usize,
    /// What it costs.
    pub(crate) steps: Steps,
    /// What the findings rest on.
    pub(crate) dependencies: Vec<Dependency>,
    /// Nothing was found where not everything could be looked at.
    pub(crate) unsure: Cell<bool>,
    /// How the role asked for stands, where it goes by a topology.
    pub(crate) steered: Cell<Option<Steered>>,
}

impl<'c> Finder<'c> {
    /// What the name (lower-case labels below the zone, most particular first) takes; `None` when there is no such
    /// name.
    pub(crate) fn find(&mut self, labels: &[&str]) -> Option<Selection<'c>> {
        let (query, selection) = self.resolve(labels, Allowed { selectors: MAX_SELECTORS, form: true }, true)?;
        self.note_steering(&query);
        let selection = selection.unwrap_or_else(|| self.run(&query));
        Some(self.merged(selection))
    }

    /// Whether a role is asked for that goes by a topology.
    fn note_steering(&self, query: &Query<'c>) {
        let is_role = |selector: &Selector| matches!(selector, Selector::Role(_));
        if let Base::Paths(paths) = &query.base
            && query.selectors.iter().any(is_role)
            && let Some(steered) = paths.iter().find_map(|(_, path)| self.catalog.steered(path))
        {
            self.steered.set(Some(steered));
        }
    }

    /// What stands at or below the name as it is written, without selecting.
    pub(crate) fn find_in_tree(&mut self, labels: &[&str]) -> Option<Selection<'c>> {
        let query = self.in_tree(labels)?;
        let selection = self.run(&query);
        Some(self.merged(selection))
    }

    /// What the name takes of those with an address of a family.
    pub(crate) fn find_family(&mut self, labels: &[&str], is_v4: bool) -> Option<Selection<'c>> {
        let (mut query, _) = self.resolve(labels, Allowed { selectors: MAX_SELECTORS, form: true }, false)?;
        self.note_steering(&query);
        query.selectors.push(Selector::Family(is_v4));
        let selection = self.run(&query);
        Some(self.merged(selection))
    }

    /// The nearest of what the name takes, for a name that takes too much to be looked at whole.
    pub(crate) fn find_outwards(&mut self, labels: &[&str], enough: usize) -> Option<Selection<'c>> {
        let (query, _) = self.resolve(labels, Allowed { selectors: MAX_SELECTORS, form: true }, false)?;
        let selection = self.run_outwards(&query, enough);
        Some(self.merged(selection))
    }

    /// What stands exactly at the name.
    pub(crate) fn exactly(&mut self, labels: &[&str]) -> Selection<'c> {
        let mut selection = Selection::default();
        for (prefix, path) in self.paths(labels) {
            let found = self.catalog.exactly(&path, self.limit.min(self.steps.left()));
            self.add(&mut selection, found, prefix);
        }
        selection.hits.sort_by_key(|hit| hit.entry.owner.is_none());
        selection
    }

    /// Whether a name that the tree does not hold may take something all the same, by its first label.
    pub(crate) fn may_be_selected(&self, labels: &[&str]) -> bool {
        let Some(first) = labels.first() else { return false };
        let known = |selector: Selector| self.catalog.has_term(&selector.term());
        labels.iter().any(|label| is_wildcard(label))
            || first.starts_with('_')
            || Role::parse(first).is_some()
            || nearness::selects(labels)
            || known(Selector::Node((*first).to_owned()))
            || known(Selector::Tag((*first).to_owned()))
    }

    /// The query that the name stands for; with its result where that was needed to know that the name exists.
    /// Unless the `whole` of it is wanted, a few records will do to know.
    fn resolve(&mut self, labels: &[&str], allowed: Allowed, whole: bool) -> Option<Resolved<'c>> {
        if let Some(query) = self.as_written(labels) {
            return Some((query, None));
        }
        match labels {
            [service, proto, rest @ ..] if allowed.form && proto_of(proto).is_some() && service.starts_with('_') => {
                self.by_rfc_2782(&service[1..], proto_of(proto)?, rest, allowed.without_form())
            }
            // What `_service._tcp.rest` stands below must exist, else resolvers stop there (RFC 8020).
            [proto, rest @ ..] if allowed.form && proto_of(proto).is_some() => {
                let (query, _) = self.resolve(rest, allowed.without_form(), false)?;
                Some((query, Some(Selection::default())))
            }
            [first, rest @ ..] if !rest.is_empty() && allowed.selectors > 0 => {
                let (query, _) = self.resolve(rest, allowed.without_one_selector(), false)?;
                self.selected(first, query, nearness::selects(labels), whole)
            }
            _ => None,
        }
    }

    /// `_service._proto.rest` is those of `service.rest` that speak `proto`; the rest may begin with selectors.
    fn by_rfc_2782(&mut self, service: &str, proto: Proto, rest: &[&str], allowed: Allowed) -> Option<Resolved<'c>> {
        if service.is_empty() {
            return None;
        }
        for count in 0..=allowed.selectors.min(rest.len()) {
            let (before, after) = rest.split_at(count);
            let labels: Vec<&str> = before.iter().copied().chain([service]).chain(after.iter().copied()).collect();
            if let Some((mut query, _)) = self.resolve(&labels, allowed, false) {
                query.proto = Some(proto);
                return Some((query, None));
            }
        }
        None
    }

    /// Role, then what is near, then node, then tag.
    fn selected(&mut self, label: &str, mut query: Query<'c>, by_nearness: bool, whole: bool) -> Option<Resolved<'c>> {
        if let Some(role) = Role::parse(label) {
            query.selectors.push(Selector::Role(role));
            return Some((query, None));
        }
        if by_nearness {
            self.select_near(label, &mut query);
            return Some((query, None));
        }
        for selector in [Selector::Node(label.to_owned()), Selector::Tag(label.to_owned())] {
            query.selectors.push(selector);
            let enough = if whole { self.limit } else { A_FEW };
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
        query.loosened().is_some_and(|loose| !self.run_some(&loose, A_FEW).hits.is_empty())
    }

    fn as_written(&mut self, labels: &[&str]) -> Option<Query<'c>> {
        if !labels.iter().any(|label| is_wildcard(label)) {
            return self.in_tree(labels);
        }
        let fitting = self.fitting(labels);
        self.unsure.set(self.unsure.get() || fitting.hits.is_empty() && fitting.cut);
        (!fitting.hits.is_empty()).then(|| Query::of(Base::Fitting(Rc::new(fitting))))
    }

    fn in_tree(&mut self, labels: &[&str]) -> Option<Query<'c>> {
        let catalog = self.catalog;
        let mut paths = self.paths(labels);
        paths.retain(|(_, path)| labels.is_empty() || catalog.exists(path));
        (!paths.is_empty()).then(|| Query::of(Base::Paths(paths)))
    }

    /// What a name with wildcards fits. Some steps are left for what may be selected of it.
    fn fitting(&mut self, labels: &[&str]) -> Fitting<'c> {
        let patterns = self.patterns(labels);
        let share = self.steps.left() / 4 * 3 / patterns.len().max(1);
        let mut selection = Selection::default();
        for (prefix, pattern) in &patterns {
            let found = self.catalog.matching(pattern, self.seed, share);
            self.add(&mut selection, found, *prefix);
        }
        Fitting { hits: selection.hits, cut: selection.cut, patterns }
    }

    fn add(&self, selection: &mut Selection<'c>, found: Found<'c>, prefix: usize) {
        self.steps.take(found.steps);
        selection.cut |= found.cut;
        selection.hits.extend(found.entries.into_iter().map(|entry| Hit::new(entry, prefix)));
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
            self.steps.take(segments.len());
        }
        patterns.into_iter().enumerate().collect()
    }

    fn rest_on(&mut self, path: &str) {
        self.steps.take(lookup(path));
        let dependency = self.catalog.dependency(path);
        if self.dependencies.contains(&dependency) {
            return;
        }
        if self.dependencies.len() >= MAX_DEPENDENCIES {
            self.dependencies = vec![self.catalog.dependency_on_all()];
        }
        self.dependencies.push(dependency);
    }

    fn run(&self, query: &Query<'c>) -> Selection<'c> {
        self.run_some(query, self.limit)
    }

    /// Finds no more than `enough` records, unless more have to be sifted.
    fn run_some(&self, query: &Query<'c>, enough: usize) -> Selection<'c> {
        if query.is_near {
            return self.run_near(query);
        }
        if query.selectors.contains(&Selector::Role(Role::Primary)) {
            return self.run_for_primary(query);
        }
        let mut selection = self.run_base(query, if query.is_sifted() { self.limit } else { enough });
        if query.is_sifted() || matches!(query.base, Base::Fitting(_)) {
            self.sift(query, &mut selection);
        }
        self.unsure.set(self.unsure.get() || selection.cut && selection.hits.is_empty());
        selection
    }

    fn sift(&self, query: &Query<'c>, selection: &mut Selection<'c>) {
        let mut spent = false;
        selection.hits.retain(|hit| {
            let takes = if spent { None } else { query.takes(hit.entry, &self.steps) };
            spent |= takes.is_none();
            takes == Some(true)
        });
        selection.cut |= spent;
    }

    /// What the base holds, already narrowed by the narrowest selector where an index does that.
    fn run_base(&self, query: &Query<'c>, enough: usize) -> Selection<'c> {
        match (&query.base, query.narrowest()) {
            (Base::Fitting(fitting), Some(term)) if fitting.cut => self.run_fitting(fitting, &term),
            (Base::Fitting(fitting), _) => {
                self.steps.take(fitting.hits.len());
                Selection { hits: fitting.hits.clone(), cut: fitting.cut, contested: false }
            }
            (Base::Paths(paths), term) => self.run_paths(paths, term.as_deref(), enough),
        }
    }

    /// Where more than a window stands, each prefix brings its share of it.
    fn run_paths(&self, paths: &[(usize, String)], term: Option<&str>, enough: usize) -> Selection<'c> {
        let sizes: Vec<usize> = paths.iter().map(|(_, path)| self.catalog.size(path)).collect();
        let size: usize = sizes.iter().sum();
        let share = if size > enough { (enough / paths.len()).max(A_FEW) } else { enough };
        let mut selection = Selection::default();
        for ((prefix, path), size) in paths.iter().zip(sizes) {
            let limit = share.min(self.steps.left().saturating_sub(SEEK));
            if size > limit && self.steps.spare() < Catalog::steps_of_window(size, limit) {
                selection.cut = true;
                continue;
            }
            let found = match term {
                Some(term) => self.catalog.under(term, path, self.seed, limit),
                None => self.catalog.at_or_below(path, self.seed, limit),
            };
            self.add(&mut selection, found, *prefix);
        }
        selection
    }

    /// What fits a wildcard among the records of one selector: these may be few although all that fits is too much.
    fn run_fitting(&self, fitting: &Fitting<'c>, term: &str) -> Selection<'c> {
        let mut selection = Selection::default();
        for (prefix, pattern) in &fitting.patterns {
            let limit = self.limit.min(self.steps.left() / (1 + pattern.cost()) / fitting.patterns.len());
            let mut found = self.catalog.under(term, &pattern.root, self.seed, limit);
            found.steps += found.entries.len() * pattern.cost();
            found.entries.retain(|entry| pattern.fits(entry.path()));
            self.add(&mut selection, found, *prefix);
        }
        selection
    }

    /// Nobody is named while two living endpoints of the base claim it, whatever else is selected. One that is only
    /// held gives way to one that lives.
    fn run_for_primary(&self, query: &Query<'c>) -> Selection<'c> {
        let claims = Query { selectors: vec![Selector::Role(Role::Primary)], ..query.clone() };
        let mut claiming = match &claims.base {
            Base::Paths(paths) => self.claims_below(paths),
            Base::Fitting(..) => self.run_base(&claims, self.limit),
        };
        self.sift(&claims, &mut claiming);
        if claiming.hits.iter().any(|hit| !hit.entry.held) {
            claiming.hits.retain(|hit| !hit.entry.held);
        }
        self.steps.take(claiming.hits.len());
        let distinct: HashSet<_> = claiming.hits.iter().map(|hit| place_of(hit.entry)).collect();
        if distinct.len() > 1 {
            return Selection { contested: true, ..Selection::default() };
        }
        self.unsure.set(self.unsure.get() || claiming.cut && claiming.hits.is_empty());
        self.sift(query, &mut claiming);
        claiming
    }

    fn claims_below(&self, paths: &[(usize, String)]) -> Selection<'c> {
        let mut claims = Selection::default();
        for (prefix, path) in paths {
            let found = self.catalog.primaries(path, MAX_CLAIMS);
            self.add(&mut claims, found, *prefix);
        }
        claims.cut = false;
        claims
    }

    /// Several prefixes are a union: what connects to the same place is there once, the one with an owner first.
    fn merged(&self, mut selection: Selection<'c>) -> Selection<'c> {
        let most = self.steps.spare() / 4;
        let hits = &mut selection.hits;
        let Some(first) = hits.first().map(|hit| hit.prefix) else { return selection };
        if hits.iter().all(|hit| hit.prefix == first) {
            return selection;
        }
        selection.cut |= hits.len() > most;
        hits.truncate(most);
        self.steps.take(2 * hits.len());
        hits.sort_by_key(|hit| hit.entry.owner.is_none());
        let mut taken = std::collections::HashMap::with_capacity(hits.len());
        hits.retain(|hit| {
            !hit.entry.has_host() || *taken.entry(place_of(hit.entry)).or_insert(hit.prefix) == hit.prefix
        });
        selection
    }
}

/// A query, and its result if it has been run.
type Resolved<'c> = (Query<'c>, Option<Selection<'c>>);

/// How else than as it is written a name may still be read.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// So many of its first labels may select.
    selectors: usize,
    /// It may have the form of RFC 2782: this is taken apart once, else each `_tcp` of a hundred would be.
    form: bool,
}

impl Allowed {
    fn without_form(self) -> Self {
        Self { form: false, ..self }
    }

    fn without_one_selector(self) -> Self {
        Self { selectors: self.selectors - 1, ..self }
    }
}

/// What a client would connect to.
pub(crate) fn place_of(entry: &Entry) -> (Option<IpAddr>, Option<&str>, u16, Proto) {
    (entry.address, entry.host_name().map(|name| &**name), entry.port, entry.proto())
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
    let depth = |hit: &Hit<'_>| hit.entry.path().bytes().filter(|byte| *byte == b'/').count();
    let Some(shortest) = hits.iter().filter(|hit| group_of(hit).is_some()).map(depth).min() else { return };
    let mut setting = hits.iter().filter(|hit| group_of(hit).is_some() && depth(hit) == shortest).filter_map(group_of);
    let Some(group) = setting.next().cloned() else { return };
    if setting.all(|other| *other == group) {
        hits.retain(|hit| group_of(hit).is_none_or(|own| *own == group));
    }
}

fn group_of<'c>(hit: &Hit<'c>) -> Option<&'c Text> {
    hit.entry.group.as_ref().filter(|group| !group.is_empty())
}
