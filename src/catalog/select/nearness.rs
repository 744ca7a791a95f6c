//! `near.` and `local.`: of what the rest of a name takes, what is nearest to the agent that is asked, or on its host.
//!
//! A set that is small is told apart by looking at each of its records. A large one is asked for site by site, from
//! this host outwards, through the index. Either way a record costs what its neighbours do: texts that many share are
//! compared once.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::query::{Query, Selector};
use super::{Finder, Hit, Selection};
use crate::catalog::index::Entry;
use crate::catalog::steps::{Steps, compared};
use crate::model::words::site::{self, FARTHEST, Standpoint};

/// A set of so many records is looked at record by record.
const FEW: usize = 512;

/// Whether a name's first label asks for what is near of the rest. `local.dns` of a zone is SkyDNS's own.
pub(super) fn selects(labels: &[&str]) -> bool {
    matches!(labels, ["near" | "local", rest @ ..] if !rest.is_empty() && rest != ["dns"])
}

/// How far records are from here; each site is compared once.
#[derive(Debug)]
pub(crate) struct Distances<'s> {
    standpoint: &'s Standpoint,
    known: RefCell<HashMap<*const u8, u8>>,
}

impl<'s> Distances<'s> {
    pub(crate) fn from(standpoint: &'s Standpoint) -> Self {
        Self { standpoint, known: RefCell::default() }
    }

    /// 0 on this host; `None` when there are no steps left to know.
    pub(crate) fn of(&self, entry: &Entry, steps: &Steps) -> Option<u8> {
        if let Some(node) = self.standpoint.node()
            && entry.is_on_within(node, steps)?
        {
            return Some(0);
        }
        let Some(site) = &entry.site else { return steps.may(1).then_some(FARTHEST) };
        // The text is as long as its records, and they as the catalog that is asked.
        let place = Arc::as_ptr(site).cast::<u8>();
        let mut known = self.known.borrow_mut();
        let cost = if known.contains_key(&place) { 0 } else { compared(site) };
        steps.may(cost).then(|| *known.entry(place).or_insert_with(|| self.standpoint.distance_to(Some(site))))
    }
}

impl<'c> Finder<'c> {
    pub(super) fn select_near(&self, label: &str, query: &mut Query<'c>) {
        if label == "near" {
            query.is_near = true;
        } else {
            let own = self.standpoint.node().unwrap_or_default();
            query.selectors.push(Selector::Node(own.to_owned()));
        }
    }

    /// The endpoints at the least distance, widened until there are as many as they ask for.
    pub(super) fn run_near(&self, query: &Query<'c>) -> Selection<'c> {
        let all = Query { is_near: false, ..query.clone() };
        let few = self.run_some(&all, FEW);
        if few.contested || !few.cut {
            return self.nearest_of(few);
        }
        self.nearest_in_index(&all).unwrap_or_else(|| self.run(&all))
    }

    /// The nearest of these, as far as there are steps to know.
    fn nearest_of(&self, mut selection: Selection<'c>) -> Selection<'c> {
        let distances = Distances::from(self.standpoint);
        let hits = std::mem::take(&mut selection.hits);
        let all = hits.len();
        let known = hits.into_iter().map_while(|hit| Some((distances.of(hit.entry, &self.steps)?, hit)));
        let mut known: Vec<(u8, Hit<'c>)> = known.collect();
        selection.cut |= known.len() < all;
        let most = radius(&known);
        known.retain(|(distance, _)| *distance <= most);
        selection.hits = known.into_iter().map(|(_, hit)| hit).collect();
        selection
    }

    /// What the smallest site around us holds that holds enough; `None` when none does.
    fn nearest_in_index(&self, all: &Query<'c>) -> Option<Selection<'c>> {
        let node = self.standpoint.node().map(|node| Selector::Node(node.to_owned()));
        let own = node.map_or_else(Selection::default, |node| self.narrowed(all, node));
        if is_enough(&own.hits) {
            return Some(own);
        }
        let sites = site::around(self.standpoint.site().unwrap_or_default());
        for site in sites.map(|site| Selector::Site(site.to_owned())) {
            if !self.steps.may(compared(&site.term())) {
                return None;
            }
            let mut found = self.narrowed(all, site.clone());
            let apart = own.hits.iter().filter(|hit| site.takes(hit.entry, &self.steps) == Some(false));
            found.hits.extend(apart);
            if is_enough(&found.hits) {
                return Some(found);
            }
        }
        None
    }

    /// Those of a set too large to be looked at whole that are nearest, from this host outwards, until there are
    /// `enough`. Where a site holds too many itself, what is nearer than that comes before its window.
    pub(super) fn run_outwards(&self, all: &Query<'c>, enough: usize) -> Selection<'c> {
        let own = self.standpoint.node().map(|node| Selector::Node(node.to_owned()));
        let sites = site::around(self.standpoint.site().unwrap_or_default()).filter(|site| !site.is_empty());
        let (mut found, mut seen) = (Selection::default(), HashSet::new());
        for selector in own.into_iter().chain(sites.map(|site| Selector::Site(site.to_owned()))) {
            if found.hits.len() >= enough || !self.steps.may(compared(&selector.term())) {
                break;
            }
            let wider = self.narrowed(all, selector);
            self.steps.take(wider.hits.len());
            found.hits.extend(wider.hits.into_iter().filter(|hit| seen.insert(Arc::as_ptr(hit.entry))));
        }
        found
    }

    fn narrowed(&self, all: &Query<'c>, selector: Selector) -> Selection<'c> {
        if !self.catalog.has_term(&selector.term()) {
            return Selection::default();
        }
        let mut narrowed = all.clone();
        narrowed.selectors.push(selector);
        self.run(&narrowed)
    }
}

/// Whether there are as many as these ask for.
fn is_enough(hits: &[Hit<'_>]) -> bool {
    let wanted = hits.iter().map(|hit| hit.entry.near_min).max();
    wanted.is_some_and(|wanted| hits.len() >= usize::from(wanted))
}

/// The least distance within which there are as many as those within it ask for.
fn radius(known: &[(u8, Hit<'_>)]) -> u8 {
    let mut at = [(0_usize, 0_u8); FARTHEST as usize + 1];
    for (distance, hit) in known {
        let (count, wanted) = &mut at[usize::from(*distance)];
        (*count, *wanted) = (*count + 1, (*wanted).max(hit.entry.near_min));
    }
    let (mut count, mut wanted) = (0, 1);
    let reached = at.iter().position(|(more, ask)| {
        (count, wanted) = (count + more, wanted.max(*ask));
        count >= usize::from(wanted)
    });
    reached.and_then(|distance| u8::try_from(distance).ok()).unwrap_or(FARTHEST)
}
