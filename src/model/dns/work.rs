//! The work of one question: how names are found, what was rested on, how long records may be kept.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use hickory_server::proto::rr::rdata::{A, AAAA, HINFO, SOA};

use super::{Answer, Context, Name, Outcome, Question, RData, RecordType, ResponseCode, Rr};
use crate::model::catalog::{Catalog, Dependency, Entry, LeaseId, LeaseTimes, WINDOW};
use crate::model::select::{Finder, Hit, Selection, grouped};
use crate::model::zone::Zones;

/// What a wharf record may be kept for while its lease's time is not known, and what anything may be kept for that is
/// held, or stale.
const SHORT_TTL: u32 = 5;
/// Steps beyond one whole window, for the targets of what it holds.
const MORE_STEPS: usize = 1_024;

/// One question being answered.
#[derive(Debug)]
pub(super) struct Work<'c> {
    pub(super) catalog: &'c Catalog,
    pub(super) zones: &'c Zones,
    pub(super) question: &'c Question,
    pub(super) context: &'c Context,
    /// Records that may still be looked at.
    steps: usize,
    looked: usize,
    dependencies: Vec<Dependency>,
    fresh_until: Option<Duration>,
    leases: Vec<LeaseId>,
    /// The lease looked at last and its times: neighbours often share one.
    last_lease: Option<(LeaseId, Option<LeaseTimes>)>,
    /// The path that the record named last stands right below, and its name: neighbours nearly always share it.
    last_parent: Option<Parent<'c>>,
    contested: bool,
    cut: bool,
}

/// A path's name in a zone.
#[derive(Debug)]
struct Parent<'c> {
    zone: usize,
    prefix: usize,
    path: &'c str,
    name: Option<Name>,
}

impl<'c> Work<'c> {
    pub(super) fn new(catalog: &'c Catalog, zones: &'c Zones, question: &'c Question, context: &'c Context) -> Self {
        Self {
            catalog,
            zones,
            question,
            context,
            steps: WINDOW + MORE_STEPS,
            looked: 0,
            dependencies: Vec::new(),
            fresh_until: None,
            leases: Vec::new(),
            last_lease: None,
            last_parent: None,
            contested: false,
            cut: false,
        }
    }

    /// The answer for a name of the zone at `place`.
    pub(super) fn in_zone(mut self, place: usize, labels: &[Vec<u8>]) -> Outcome {
        let owner = self.question.name.clone();
        let Some(own) = self.own_labels(place, labels) else {
            return Outcome::Answer(self.negative(place, ResponseCode::NXDomain));
        };
        match self.question.qtype {
            // A reverse tree's hosts are what PTR leads to, not other names for it.
            RecordType::A | RecordType::AAAA | RecordType::CNAME if self.is_reverse(place) => {
                let found = self.find(place, &own, None);
                Outcome::Answer(self.finish(place, found.map(|_| Vec::new()), Vec::new()))
            }
            RecordType::A => self.addresses(place, &own, &owner, &[Family::V4]),
            RecordType::AAAA => self.addresses(place, &own, &owner, &[Family::V6]),
            RecordType::SRV => self.service(place, &own, &owner),
            RecordType::MX => self.mail(place, &own, &owner),
            RecordType::TXT => self.text(place, &own, &owner),
            RecordType::CNAME => self.alias(place, &own, &owner),
            RecordType::NS if own.is_empty() => self.name_servers(place, &owner),
            RecordType::SOA if own.is_empty() => self.start_of_authority(place, &owner),
            RecordType::ANY => self.minimal(place, &own, &owner),
            _ => {
                let found = self.find(place, &own, None);
                Outcome::Answer(self.finish(place, found.map(|_| Vec::new()), Vec::new()))
            }
        }
    }

    fn is_reverse(&self, place: usize) -> bool {
        let top = self.zones.get(place).and_then(|zone| zone.labels().last());
        top.is_some_and(|label| label == "arpa")
    }

    /// The labels below the zone as text; `None` when no record can have such a name.
    pub(super) fn own_labels<'l>(&self, place: usize, labels: &'l [Vec<u8>]) -> Option<Vec<&'l str>> {
        let below = labels.len() - self.zones.get(place)?.labels().len();
        let text = |label: &'l Vec<u8>| {
            let text = std::str::from_utf8(label).ok()?;
            let fits = !text.bytes().any(|byte| matches!(byte, b'/' | b'.') || byte.is_ascii_control());
            fits.then_some(text)
        };
        labels[..below].iter().map(text).collect()
    }

    /// What a name of a zone takes; `None` when there is no such name. At most `limit` records are looked at.
    pub(super) fn find(&mut self, place: usize, own: &[&str], limit: Option<usize>) -> Option<Selection<'c>> {
        self.with_finder(place, limit, |finder| {
            let mut selection = finder.find(own)?;
            grouped(&mut selection.hits);
            Some(selection)
        })
    }

    /// What stands at or below a name, without selecting.
    pub(super) fn find_in_tree(&mut self, place: usize, own: &[&str]) -> Option<Selection<'c>> {
        self.with_finder(place, None, |finder| {
            let mut selection = finder.find_in_tree(own)?;
            grouped(&mut selection.hits);
            Some(selection)
        })
    }

    /// What stands exactly at a name.
    pub(super) fn exactly(&mut self, place: usize, own: &[&str]) -> Vec<Hit<'c>> {
        let find = |finder: &mut Finder<'c>| Some(Selection { hits: finder.exactly(own), ..Selection::default() });
        self.with_finder(place, None, find).map(|selection| selection.hits).unwrap_or_default()
    }

    fn with_finder(
        &mut self,
        place: usize,
        limit: Option<usize>,
        find: impl FnOnce(&mut Finder<'c>) -> Option<Selection<'c>>,
    ) -> Option<Selection<'c>> {
        let mut finder = Finder {
            catalog: self.catalog,
            prefixes: self.zones.get(place)?.prefixes(),
            seed: self.context.seed,
            limit: self.steps.min(limit.unwrap_or(WINDOW)),
            looked: Cell::new(0),
            dependencies: std::mem::take(&mut self.dependencies),
        };
        let selection = find(&mut finder);
        self.looked += finder.looked.get();
        self.steps = self.steps.saturating_sub(finder.looked.get());
        self.dependencies = finder.dependencies;
        if let Some(selection) = &selection {
            self.contested |= selection.contested;
        }
        selection
    }

    /// Whether there are records left to be looked at.
    pub(super) fn may_go_on(&self) -> bool {
        self.steps > 0
    }

    /// The answer hangs on more than names.
    pub(super) fn rest_on_all(&mut self) {
        self.dependencies = vec![self.catalog.dependency_on_all()];
    }

    /// Says that there are more answers than are given.
    pub(super) fn mark_cut(&mut self) {
        self.cut = true;
    }

    /// How long a record may be kept.
    pub(super) fn ttl(&mut self, entry: &Entry) -> u32 {
        let own = entry.ttl.filter(|ttl| *ttl > 0).unwrap_or(self.context.dns_ttl);
        let short = entry.held || self.catalog.is_stale();
        let own = if short { own.min(SHORT_TTL) } else { own };
        let own = if entry.held { own.min(self.time_held(entry)) } else { own };
        if entry.lease == 0 {
            return own;
        }
        let times = match self.last_lease {
            Some((lease, times)) if lease == entry.lease => times,
            _ => self.catalog.lease(entry.lease),
        };
        self.last_lease = Some((entry.lease, times));
        if entry.owner.is_some() {
            let third = |granted: Duration| u32::try_from(granted.as_secs() / 3).unwrap_or(u32::MAX).max(1);
            return own.min(times.map_or(SHORT_TTL, |times| third(times.granted)));
        }
        if !self.leases.contains(&entry.lease) && self.leases.len() < 64 {
            self.leases.push(entry.lease);
        }
        self.fresh_for_a_second();
        let left = times.map_or(Duration::from_secs(1), |times| times.until.saturating_sub(self.context.now));
        own.min(u32::try_from(left.as_secs()).unwrap_or(u32::MAX))
    }

    /// The answer tells of time that runs out.
    fn fresh_for_a_second(&mut self) {
        let again = self.context.now + Duration::from_secs(1);
        self.fresh_until = Some(self.fresh_until.map_or(again, |until| until.min(again)));
    }

    /// For how many seconds more a record is held, at least one: then its owner has published it again, or it goes.
    fn time_held(&mut self, entry: &Entry) -> u32 {
        self.fresh_for_a_second();
        let left = self.catalog.held_until(&entry.key).map(|until| until.saturating_sub(self.context.now));
        u32::try_from(left.map_or(1, |left| left.as_secs().max(1))).unwrap_or(u32::MAX)
    }

    /// The host of a record as a name, when it is one.
    pub(super) fn host_name(entry: &Entry) -> Option<Name> {
        let host = entry.host_name()?;
        let host = host.strip_suffix('.').unwrap_or(host);
        join(host.split('.').map(str::as_bytes))
    }

    /// The name of a record in the zone at `place`, below the prefix that it was found under.
    pub(super) fn record_name(&mut self, place: usize, hit: Hit<'c>, strip: usize) -> Option<Name> {
        let Some((parent, own)) = hit.entry.path().rsplit_once('/').filter(|_| strip == 0) else {
            return self.path_name(place, hit.prefix, hit.entry.path(), strip);
        };
        let last = self.last_parent.take();
        let known = last.filter(|last| (last.zone, last.prefix, last.path) == (place, hit.prefix, parent));
        let parent = known.unwrap_or_else(|| Parent {
            zone: place,
            prefix: hit.prefix,
            path: parent,
            name: self.path_name(place, hit.prefix, parent, 0),
        });
        let own = Name::root().append_label(own.as_bytes()).ok();
        let name = own.zip(parent.name.as_ref()).and_then(|(own, parent)| own.append_name(parent).ok());
        self.last_parent = Some(parent);
        name
    }

    /// The name that a path below a prefix reads as, without its first `strip` labels unless it has no more.
    fn path_name(&self, place: usize, prefix: usize, path: &str, strip: usize) -> Option<Name> {
        let zone = self.zones.get(place)?;
        let own = zone.prefixes().get(prefix)?.parts(path);
        let labels = own.into_iter().flatten().rev().chain(zone.labels().iter().map(String::as_str));
        let most = if strip > 0 { labels.clone().count() } else { 0 };
        join(labels.skip(if strip < most { strip } else { 0 }).map(str::as_bytes))
    }

    /// The zone's own name.
    pub(super) fn zone_name(&self, place: usize) -> Name {
        self.name_below(place, &[])
    }

    /// A name below a zone.
    pub(super) fn name_below(&self, place: usize, labels: &[&str]) -> Name {
        let zone = self.zones.get(place).into_iter().flat_map(|zone| zone.labels());
        let all = labels.iter().copied().chain(zone.map(String::as_str));
        join(all.map(str::as_bytes)).unwrap_or_default()
    }

    /// Closes the work: `None` for a name that does not exist, no answers for one without such records.
    pub(super) fn finish(self, place: usize, answers: Option<Vec<Rr>>, additional: Vec<Rr>) -> Answer {
        match answers {
            None => self.negative(place, ResponseCode::NXDomain),
            Some(answers) if answers.is_empty() => self.negative(place, ResponseCode::NoError),
            Some(answers) => self.positive(place, answers, additional),
        }
    }

    /// An answer with records.
    pub(super) fn positive(self, place: usize, answers: Vec<Rr>, additional: Vec<Rr>) -> Answer {
        Answer {
            authoritative: true,
            answers,
            additional,
            cut: self.cut,
            zone: Some(place),
            contested: self.contested,
            dependencies: self.dependencies,
            fresh_until: self.fresh_until,
            leases: self.leases,
            looked_at: self.looked,
            ..Answer::empty(ResponseCode::NoError)
        }
    }

    /// An answer that says no, with the SOA that says for how long.
    pub(super) fn negative(self, place: usize, rcode: ResponseCode) -> Answer {
        let soa = self.soa(place, self.zone_name(place));
        Answer { rcode, authority: vec![soa], ..self.positive(place, Vec::new(), Vec::new()) }
    }

    /// The zone's SOA, under `owner`.
    pub(super) fn soa(&self, place: usize, owner: Name) -> Rr {
        let serial = u32::try_from(self.catalog.revision() & i64::from(u32::MAX)).unwrap_or(0);
        let (server, master) = (self.name_below(place, &["ns", "dns"]), self.name_below(place, &["hostmaster"]));
        let soa = SOA::new(server, master, serial, 28_800, 7_200, 604_800, self.context.negative_ttl);
        Rr::from_rdata(owner, self.context.negative_ttl, RData::SOA(soa))
    }

    /// RFC 8482: no server has to say all that it knows.
    fn minimal(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        let exists = own.is_empty() || self.find(place, own, None).is_some();
        let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
        let answers = vec![Rr::from_rdata(owner.clone(), self.context.negative_ttl, RData::HINFO(hinfo))];
        Outcome::Answer(self.finish(place, exists.then_some(answers), Vec::new()))
    }
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// An address record.
pub(super) fn address_record(owner: &Name, ttl: u32, address: IpAddr) -> Rr {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Rr::from_rdata(owner.clone(), ttl, data)
}

/// A name of labels; `None` when they make none.
pub(super) fn join<'l>(labels: impl Iterator<Item = &'l [u8]>) -> Option<Name> {
    let mut name = Name::root();
    for label in labels {
        name = name.append_label(label).ok()?;
    }
    Some(name)
}

/// The bytes that a name takes on the wire, uncompressed.
pub(crate) fn wire_length(name: &Name) -> usize {
    // hickory's length counts a byte for each label, and one for the root when it is alone.
    if name.iter().next().is_none() { 1 } else { name.len() + 1 }
}
