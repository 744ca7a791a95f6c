//! The catalog's sorted indexes: which records one selector takes, and which are published under one address.
//!
//! Both are sets of a pair of a term and the record's path, so that one term within one subtree is one range.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdSet;

use super::entry::Entry;
use super::path;
use crate::model::name::Label;
use crate::model::record::{Role, Text};

/// A term and a path, as they are ordered.
pub(super) trait Pair {
    fn term(&self) -> &str;
    fn path(&self) -> &str;
    /// Tells records of one path apart.
    fn key(&self) -> &str;
}

/// A record under a term.
#[derive(Clone, Debug)]
pub(super) struct Under {
    pub(super) term: Text,
    pub(super) entry: Arc<Entry>,
}

impl Pair for Under {
    fn term(&self) -> &str {
        &self.term
    }
    fn path(&self) -> &str {
        self.entry.path()
    }
    fn key(&self) -> &str {
        &self.entry.key
    }
}

impl Pair for (&str, &str, &str) {
    fn term(&self) -> &str {
        self.0
    }
    fn path(&self) -> &str {
        self.1
    }
    fn key(&self) -> &str {
        self.2
    }
}

impl<'p> Borrow<dyn Pair + 'p> for Under {
    fn borrow(&self) -> &(dyn Pair + 'p) {
        self
    }
}

impl PartialEq for dyn Pair + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn Pair + '_ {}

impl PartialOrd for dyn Pair + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Pair + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let terms = self.term().cmp(other.term());
        terms.then_with(|| self.path().cmp(other.path())).then_with(|| self.key().cmp(other.key()))
    }
}

impl PartialEq for Under {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Under {}

impl PartialOrd for Under {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Under {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two): (&dyn Pair, &dyn Pair) = (self, other);
        one.cmp(two)
    }
}

/// What the records at or below `root` have under `term`, in order of path, from `start` on when it is below `root`.
pub(super) fn within<'s>(
    set: &'s OrdSet<Under>,
    term: &str,
    root: &str,
    start: Option<&str>,
) -> impl Iterator<Item = &'s Arc<Entry>> + use<'s> {
    let (below, beyond) = (path::below(root), path::beyond(root));
    let exact = start.is_none().then(|| range(set, (term, root, ""), (term, root, "\u{10ffff}")));
    exact.into_iter().flatten().chain(range(set, (term, start.unwrap_or(&below), ""), (term, &beyond, "")))
}

/// Everything under `term`, in order of path.
pub(super) fn all<'s>(set: &'s OrdSet<Under>, term: &str) -> impl Iterator<Item = &'s Arc<Entry>> + use<'s> {
    range(set, (term, "", ""), (term, "\u{10ffff}", ""))
}

fn range<'s>(
    set: &'s OrdSet<Under>,
    from: (&str, &str, &str),
    to: (&str, &str, &str),
) -> impl Iterator<Item = &'s Arc<Entry>> + use<'s> {
    let (from, to): (&dyn Pair, &dyn Pair) = (&from, &to);
    set.range::<_, dyn Pair>((Bound::Included(from), Bound::Excluded(to))).map(|under| &under.entry)
}

/// Every term that a record is to be found under.
pub(super) fn terms(entry: &Entry) -> Vec<String> {
    let slugged = |kind: &str, text: &Text| Label::slug(text).map(|slug| format!("{kind}:{slug}"));
    let mut terms: Vec<String> = entry.addresses().map(address_term).collect();
    terms.extend(entry.role.map(role_term).map(str::to_owned));
    terms.extend(entry.node.as_ref().and_then(|node| slugged("n", node)));
    terms.extend(entry.tags.iter().filter_map(|tag| slugged("t", tag)));
    terms.sort_unstable();
    terms.dedup();
    terms
}

/// The term of an address.
pub(super) fn address_term(address: IpAddr) -> String {
    format!("a:{address}")
}

/// The term of a role.
pub(super) fn role_term(role: Role) -> &'static str {
    match role {
        Role::Primary => "r:primary",
        Role::Replica => "r:replica",
    }
}
