//! The catalog's sorted indexes: which records one selector takes, and which are published under one address.
//!
//! Both are sets of a pair of a term and the record's path, so that one term within one subtree is one range. Terms are
//! numbers that [`Terms`] gives to what is selected by; addresses are their own terms.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdSet;

use super::entry::Entry;
use super::hashed::Hashed;
use super::ordered::Ordered;
use super::path;
use crate::model::words::name::Label;
use crate::model::words::record::{Proto, Role, Text};
use crate::model::words::site;

/// What stands for `node:core-01` and the like in the index, with how many records have it.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    known: Hashed<(u64, u64)>,
    next: u64,
}

impl Terms {
    /// The number of a term that some record has.
    pub(super) fn number(&self, term: &str) -> Option<u64> {
        self.known.get(term).map(|(number, _)| *number)
    }

    /// The number of a term that one more record has.
    fn add(&mut self, term: &str) -> u64 {
        if let Some((number, count)) = self.known.get_mut(term) {
            *count += 1;
            return *number;
        }
        self.next += 1;
        self.known.change(term, |_| Some((self.next, 1)));
        self.next
    }

    /// The number of a term that one record less has.
    fn drop(&mut self, term: &str) -> Option<u64> {
        let (number, count) = self.known.get_mut(term)?;
        let number = *number;
        *count -= 1;
        if *count == 0 {
            self.known.change(term, |_| None);
        }
        Some(number)
    }
}

/// Records by selector.
#[derive(Clone, Debug, Default)]
pub(super) struct Selectors {
    terms: Terms,
    set: Ordered<Under<u64>>,
}

impl Selectors {
    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        for term in terms(entry) {
            let term = self.terms.add(&term);
            self.set.insert(Under { term, entry: entry.clone() });
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        for term in terms(entry) {
            if let Some(number) = self.terms.drop(&term) {
                self.set.remove::<dyn Pair<u64>>(&(number, entry.path(), &*entry.key));
            }
        }
    }

    /// Does a little of what was left to do; whether there is more.
    pub(super) fn tidy(&mut self) -> bool {
        self.set.tidy()
    }

    /// Whether any record has `term`.
    pub(super) fn has(&self, term: &str) -> bool {
        self.terms.number(term).is_some()
    }

    /// What the records at or below `root` have under `term`, in order of path, from `start` on when it is given.
    pub(super) fn within<'s>(
        &'s self,
        term: &str,
        root: &str,
        start: Option<&str>,
    ) -> impl Iterator<Item = &'s Arc<Entry>> + use<'s> {
        let (below, beyond) = (path::below(root), path::beyond(root));
        let number = self.terms.number(term);
        let at = number.filter(|_| start.is_none()).map(|term| range(&self.set, (term, root, ""), (term, root, LAST)));
        let from = start.unwrap_or(&below);
        let further = number.map(|term| range(&self.set, (term, from, ""), (term, &beyond, "")));
        at.into_iter().flatten().chain(further.into_iter().flatten())
    }

    /// Everything under `term`, in order of path.
    pub(super) fn all<'s>(&'s self, term: &str) -> impl Iterator<Item = &'s Arc<Entry>> + use<'s> {
        let number = self.terms.number(term);
        number.map(|term| range(&self.set, (term, "", ""), (term, LAST, ""))).into_iter().flatten()
    }
}

/// Records by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    set: Ordered<Under<Second>>,
}

/// Which of a record's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Second(bool);

impl Addresses {
    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        for term in [Second(false), Second(true)] {
            if term.of(entry).is_some() && !(term.0 && entry.other == entry.address) {
                self.set.insert(Under { term, entry: entry.clone() });
            }
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        for address in entry.addresses() {
            self.set.remove::<dyn Pair<Ipv6Addr>>(&(bits(address), entry.path(), &*entry.key));
        }
    }

    /// Does a little of what was left to do; whether there is more.
    pub(super) fn tidy(&mut self) -> bool {
        self.set.tidy()
    }

    /// Everything under one address.
    pub(super) fn all(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Entry>> {
        range(&self.set, (bits(address), "", ""), (bits(address), LAST, ""))
    }

    /// What is under one address below a path.
    pub(super) fn below(&self, address: IpAddr, root: &str) -> impl Iterator<Item = &Arc<Entry>> + use<'_> {
        let (below, beyond) = (path::below(root), path::beyond(root));
        range(&self.set, (bits(address), &below, ""), (bits(address), &beyond, ""))
    }
}

impl Second {
    fn of(self, entry: &Entry) -> Option<IpAddr> {
        if self.0 { entry.other } else { entry.address }
    }
}

/// Addresses of both families in one order.
fn bits(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// What follows every path.
const LAST: &str = "\u{10ffff}";

/// A term and a path, as they are ordered.
trait Pair<T> {
    fn term(&self) -> T;
    fn path(&self) -> &str;
    /// Tells records of one path apart.
    fn key(&self) -> &str;
}

/// A record under a term.
#[derive(Clone, Debug)]
struct Under<T> {
    term: T,
    entry: Arc<Entry>,
}

impl Pair<u64> for Under<u64> {
    fn term(&self) -> u64 {
        self.term
    }
    fn path(&self) -> &str {
        self.entry.path()
    }
    fn key(&self) -> &str {
        &self.entry.key
    }
}

impl Pair<Ipv6Addr> for Under<Second> {
    fn term(&self) -> Ipv6Addr {
        self.term.of(&self.entry).map_or(Ipv6Addr::UNSPECIFIED, bits)
    }
    fn path(&self) -> &str {
        self.entry.path()
    }
    fn key(&self) -> &str {
        &self.entry.key
    }
}

impl<T: Copy> Pair<T> for (T, &str, &str) {
    fn term(&self) -> T {
        self.0
    }
    fn path(&self) -> &str {
        self.1
    }
    fn key(&self) -> &str {
        self.2
    }
}

impl<'p> Borrow<dyn Pair<u64> + 'p> for Under<u64> {
    fn borrow(&self) -> &(dyn Pair<u64> + 'p) {
        self
    }
}

impl<'p> Borrow<dyn Pair<Ipv6Addr> + 'p> for Under<Second> {
    fn borrow(&self) -> &(dyn Pair<Ipv6Addr> + 'p) {
        self
    }
}

impl<T: Ord> PartialEq for dyn Pair<T> + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Ord> Eq for dyn Pair<T> + '_ {}

impl<T: Ord> PartialOrd for dyn Pair<T> + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for dyn Pair<T> + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let terms = self.term().cmp(&other.term());
        terms.then_with(|| self.path().cmp(other.path())).then_with(|| self.key().cmp(other.key()))
    }
}

impl PartialEq for Under<u64> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Under<u64> {}

impl PartialOrd for Under<u64> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Under<u64> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two): (&dyn Pair<u64>, &dyn Pair<u64>) = (self, other);
        one.cmp(two)
    }
}

impl PartialEq for Under<Second> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Under<Second> {}

impl PartialOrd for Under<Second> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Under<Second> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two): (&dyn Pair<Ipv6Addr>, &dyn Pair<Ipv6Addr>) = (self, other);
        one.cmp(two)
    }
}

fn range<'s, T: Ord + Copy, U>(
    set: &'s OrdSet<Under<U>>,
    from: (T, &str, &str),
    to: (T, &str, &str),
) -> impl Iterator<Item = &'s Arc<Entry>> + use<'s, T, U>
where
    Under<U>: Ord + for<'p> Borrow<dyn Pair<T> + 'p>,
{
    let (from, to): (&dyn Pair<T>, &dyn Pair<T>) = (&from, &to);
    set.range::<_, dyn Pair<T>>((Bound::Included(from), Bound::Excluded(to))).map(|under| &under.entry)
}

/// Every term that a record is to be found under.
fn terms(entry: &Entry) -> Vec<String> {
    let slugged = |kind: &str, text: &Text| Label::slug(text).map(|slug| format!("{kind}:{slug}"));
    let mut terms: Vec<String> = entry.tags.iter().filter_map(|tag| slugged("t", tag)).collect();
    terms.sort_unstable();
    terms.dedup();
    terms.extend(entry.role.map(|role| role_term(role).to_owned()));
    terms.extend((entry.role == Some(Role::Primary) && !entry.held).then(|| LIVING_PRIMARY.to_owned()));
    terms.extend((entry.proto() == Proto::Udp).then(|| DATAGRAMS.to_owned()));
    for is_v4 in [true, false] {
        terms.extend(entry.has_family(is_v4).then(|| family_term(is_v4).to_owned()));
    }
    terms.extend(entry.node.as_ref().and_then(|node| slugged("n", node)));
    terms.extend(entry.site.iter().flat_map(|site| site::around(site)).map(site_term));
    terms
}

/// The term of primaries that are not merely held.
pub(super) const LIVING_PRIMARY: &str = "l:primary";
/// The term of what speaks datagrams. Streams have none: nearly everything is one.
pub(crate) const DATAGRAMS: &str = "p:udp";

/// The term of what has an address of a family.
pub(crate) fn family_term(is_v4: bool) -> &'static str {
    if is_v4 { "a:4" } else { "a:6" }
}

/// The term of what is within a site. The empty site is the world: what says where it is.
pub(crate) fn site_term(site: &str) -> String {
    format!("s:{site}")
}

/// The term of a role.
pub(super) fn role_term(role: Role) -> &'static str {
    match role {
        Role::Primary => "r:primary",
        Role::Replica => "r:replica",
    }
}
