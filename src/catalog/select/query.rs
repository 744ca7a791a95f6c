//! A set of records, described: where they stand, and what is selected of them.

use std::rc::Rc;

use super::Hit;
use crate::catalog::index::{DATAGRAMS, Entry, Pattern, family_term, site_term};
use crate::catalog::steps::Steps;
use crate::model::words::record::{Proto, Role};

/// What a label takes out of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    /// Those of this role.
    Role(Role),
    /// Those on the node whose name has this slug.
    Node(String),
    /// Those with a tag of this slug.
    Tag(String),
    /// Those of hosts within this site; the empty one is the world.
    Site(String),
    /// Those with an address of IPv4 (`true`) or IPv6.
    Family(bool),
}

impl Selector {
    /// Whether it takes a record; `None` when there are no steps left to know.
    pub(super) fn takes(&self, entry: &Entry, steps: &Steps) -> Option<bool> {
        match self {
            Self::Role(role) => Some(entry.role == Some(*role)),
            Self::Node(slug) => entry.is_on_within(slug, steps),
            Self::Tag(slug) => entry.is_tagged_within(slug, steps),
            Self::Site(outer) => entry.is_within(outer, steps),
            Self::Family(is_v4) => Some(entry.has_family(*is_v4)),
        }
    }

    pub(super) fn term(&self) -> String {
        match self {
            Self::Role(role) => format!("r:{role}"),
            Self::Node(slug) => format!("n:{slug}"),
            Self::Tag(slug) => format!("t:{slug}"),
            Self::Site(outer) => site_term(outer),
            Self::Family(is_v4) => family_term(*is_v4).to_owned(),
        }
    }

    /// The smaller, the fewer records it is likely to take.
    fn breadth(&self) -> u8 {
        match self {
            Self::Role(Role::Primary) => 0,
            Self::Node(_) => 1,
            Self::Tag(_) | Self::Site(_) => 2,
            Self::Role(Role::Replica) => 3,
            Self::Family(_) => 0,
        }
    }
}

/// Where the records of a set stand, before anything is selected.
#[derive(Clone, Debug)]
pub(super) enum Base<'c> {
    /// At or below these paths, by the place of their prefix.
    Paths(Vec<(usize, String)>),
    /// What a wildcard fits.
    Fitting(Rc<Fitting<'c>>),
}

/// What a wildcard fits, as far as it was looked for.
#[derive(Debug)]
pub(super) struct Fitting<'c> {
    pub(super) hits: Vec<Hit<'c>>,
    /// There is more.
    pub(super) cut: bool,
    /// The wildcard, by the place of the prefix.
    pub(super) patterns: Vec<(usize, Pattern)>,
}

/// A set of records, described.
#[derive(Clone, Debug)]
pub(super) struct Query<'c> {
    pub(super) base: Base<'c>,
    pub(super) proto: Option<Proto>,
    pub(super) selectors: Vec<Selector>,
    /// Only those that are nearest, whatever else is selected.
    pub(super) is_near: bool,
}

impl<'c> Query<'c> {
    pub(super) fn of(base: Base<'c>) -> Self {
        Self { base, proto: None, selectors: Vec::new(), is_near: false }
    }

    /// The term that an index is best asked for.
    pub(super) fn narrowest(&self) -> Option<String> {
        let narrowest = self.selectors.iter().min_by_key(|selector| selector.breadth()).map(Selector::term);
        narrowest.or_else(|| (self.proto == Some(Proto::Udp)).then(|| DATAGRAMS.to_owned()))
    }

    /// Whether what the index holds for the narrowest selector has to be sifted further.
    pub(super) fn is_sifted(&self) -> bool {
        self.proto.is_some() || self.selectors.len() > 1
    }

    /// Whether it takes a record; `None` when there are no steps left to know.
    pub(super) fn takes(&self, entry: &Entry, steps: &Steps) -> Option<bool> {
        if self.proto.is_some_and(|proto| entry.proto() != proto) {
            return Some(false);
        }
        for selector in &self.selectors {
            if !selector.takes(entry, steps)? {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Without what says no more than what a record speaks, or its role: when not even this takes anything, a node or
    /// tag is not known there.
    pub(super) fn loosened(&self) -> Option<Self> {
        let mut loose = Self { proto: None, is_near: false, ..self.clone() };
        loose.selectors.retain(|selector| !matches!(selector, Selector::Role(_)));
        (loose.selectors.len() < self.selectors.len() || self.proto.is_some()).then_some(loose)
    }
}
