//! The work of one question: how names are found, what was rested on, how long records may be kept.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use hickory_server::proto::rr::rdata::{A, AAAA, HINFO, SOA};

use super::{Answer, Context, Name, Outcome, Question, RData, RecordType, ResponseCode, Rr};
use crate::catalog::index::{Catalog, Dependency, Entry, LeaseId, LeaseTimes, WINDOW};
use crate::catalog::select::{Finder, Hit, Selection, grouped};
use crate::catalog::steps::{self, ASKED, Steps, TOLD};
use crate::model::steer::names::Steered;
use crate::model::words::zone::Zones;

/// What a wharf record may be kept for while its lease's time is not known, and what anything may be kept for that is
/// held, or stale.
pub(super) const SHORT_TTL: u32 = 5;
/// The longest that anything may be kept for (RFC 2181, section 8).
const LONGEST_TTL: u32 = i32::MAX.unsigned_abs();
/// Foreign leases whose remainder is asked for because of one answer.
const MAX_LEASES: usize = 64;

/// Seconds that a role's name may be kept where it goes by a topology: its next master is not waited for longer.
const STEERED_TTL: u32 = 1;

/// One question being answered.
#[derive(Debug)]
pub(super) struct Work<'c> {
    pub(super) catalog: &'c Catalog,
    pub(super) zones: &'c Zones,
    pub(super) question: &'c Question,
    pub(super) context: &'c Context<'c>,
    pub(super) steps: Steps,
    dependencies: Vec<Dependency>,
    fresh_until: Option<Duration>,
    leases: Vec<LeaseId>,
    /// The lease looked at last and its times: neighbours often share one.
    last_lease: Option<(LeaseId, Option<LeaseTimes>)>,
    /// The path that the record named last stands right below, and its name: neighbours nearly always share it.
    last_parent: Option<Parent<'c>>,
    contested: bool,
    steered: Option<Steered>,
    pub(super) in_order: bool,
    cut: bool,
    /// Nothing was found where the name's labels ask for more than could be looked at.
    pub(super) unsure: bool,
    pub(super) left_out: usize,
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
    pub(super) fn new(
        catalog: &'c Catalog,
        zones: &'c Zones,
        question: &'c Question,
        context: &'c Context<'c>,
    ) -> Self {
        Self {
            catalog,
            zones,
            question,
            context,
            steps: Steps::new(ASKED),
            dependencies: Vec::new(),
            fresh_until: None,
            leases: Vec::new(),
            last_lease: None,
            last_parent: None,
            contested: false,
            steered: None,
            in_order: false,
            cut: false,
            unsure: false,
            left_out: 0,
        }
    }

    /// The answer for a name of the zone at `place`.
    pub(super) fn in_zone(self, place: usize, labels: &[Vec<u8>]) -> Outcome {
        let owner = self.question.name.clone();
        let Some(own) = self.own_labels(place, labels) else {
            return Outcome::Answer(self.negative(place, ResponseCode::NXDomain));
        };
        if let Some(addresses) = self.numbered(place, &own) {
            return Outcome::Answer(self.numbered_host(place, &owner, &addresses));
        }
        let is_role = place == 0 && matches!(own[..], [role] if self.catalog.numbered().has(role));
        let host = self.host(place, &own);
        let (catalog, zones, question, context) = (self.catalog, self.zones, self.question, self.context);
        let outcome = self.by_type(place, &own, &owner);
        match outcome {
            Outcome::Answer(answer) if answer.rcode == ResponseCode::NXDomain => Outcome::Answer(match host {
                Some(host) => Self::new(catalog, zones, question, context).numbered_host(place, &owner, &host),
                // There is no name for it, and there are names below it.
                None if is_role => Answer { rcode: ResponseCode::NoError, ..answer },
                None => answer,
            }),
            outcome => outcome,
        }
    }

    fn by_type(self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        match self.question.qtype {
            // A reverse tree's hosts are what PTR leads to, not other names for it.
            RecordType::A | RecordType::AAAA | RecordType::CNAME if self.is_reverse(place) => self.no_data(place, own),
            RecordType::A => self.addresses(place, own, owner, &[Family::V4]),
            RecordType::AAAA => self.addresses(place, own, owner, &[Family::V6]),
            RecordType::SRV => self.service(place, own, owner),
            RecordType::MX => self.mail(place, own, owner),
            RecordType::TXT => self.text(place, own, owner),
            RecordType::CNAME => self.alias(place, own, owner),
            RecordType::NS if own.is_empty() => self.name_servers(place, owner),
            RecordType::SOA if own.is_empty() => self.start_of_authority(place, owner),
            RecordType::ANY => self.minimal(place, own, owner),
            _ => self.other(place, own, owner),
        }
    }

    /// The answer for a type that no record tells of.
    fn other(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        match self.find(place, own) {
            Some(selection) => self.led_on(place, own, owner, &selection.hits),
            None => Outcome::Answer(self.finish(place, None, Vec::new())),
        }
    }

    /// The answer for a name that has no such records, whether it exists or not.
    pub(super) fn no_data(mut self, place: usize, own: &[&str]) -> Outcome {
        let found = self.find(place, own);
        Outcome::Answer(self.finish(place, found.map(|_| Vec::new()), Vec::new()))
    }

    pub(super) fn is_reverse(&self, place: usize) -> bool {
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

    /// What the question's name takes; `None` when there is no such name.
    pub(super) fn find(&mut self, place: usize, own: &[&str]) -> Option<Selection<'c>> {
        self.find_by(place, |finder| finder.find(own))
    }

    /// What the question's name takes of those with an address of a family.
    pub(super) fn find_family(&mut self, place: usize, own: &[&str], family: Family) -> Option<Selection<'c>> {
        self.find_by(place, |finder| finder.find_family(own, family == Family::V4))
    }

    pub(super) fn find_by(
        &mut self,
        place: usize,
        find: impl FnOnce(&mut Finder<'c>) -> Option<Selection<'c>>,
    ) -> Option<Selection<'c>> {
        let selection = self.with_finder(place, WINDOW, |finder| {
            let selection = find(finder);
            (finder.unsure.get(), selection)
        });
        let (unsure, selection) = selection?;
        self.unsure |= unsure;
        self.steps.until(TOLD);
        self.grouped(selection)
    }

    /// What stands at or below a name as it is written, without selecting; at most `limit` records.
    pub(super) fn find_in_tree(&mut self, place: usize, own: &[&str], limit: usize) -> Option<Selection<'c>> {
        let selection = self.with_finder(place, limit, |finder| finder.find_in_tree(own))?;
        self.grouped(selection)
    }

    /// What stands exactly at a name.
    pub(super) fn exactly(&mut self, place: usize, own: &[&str]) -> Vec<Hit<'c>> {
        self.with_finder(place, WINDOW, |finder| finder.exactly(own)).map(|found| found.hits).unwrap_or_default()
    }

    /// Whether a name that the tree does not hold may take something all the same.
    pub(super) fn may_be_selected(&mut self, place: usize, own: &[&str]) -> bool {
        if !self.steps.may(8) {
            return true;
        }
        self.with_finder(place, 0, |finder| finder.may_be_selected(own)).unwrap_or_default()
    }

    fn grouped(&mut self, selection: Option<Selection<'c>>) -> Option<Selection<'c>> {
        let mut selection = selection?;
        self.contested |= selection.contested;
        self.cut_to_groups(&mut selection.hits);
        grouped(&mut selection.hits);
        Some(selection)
    }

    /// Takes the steps for comparing groups: for half of what is left, so that what stays can be told.
    fn cut_to_groups(&mut self, hits: &mut Vec<Hit<'c>>) {
        let most = self.steps.left() / 4;
        let mut compared = 0;
        let affordable = hits.iter().take_while(|hit| {
            compared += usize::from(hit.entry.group.is_some());
            compared <= most
        });
        let affordable = affordable.count();
        if affordable < hits.len() {
            hits.truncate(affordable);
            self.mark_cut();
        }
        self.steps.take(2 * compared.min(most));
    }

    fn with_finder<T>(&mut self, place: usize, limit: usize, find: impl FnOnce(&mut Finder<'c>) -> T) -> Option<T> {
        let mut finder = Finder {
            catalog: self.catalog,
            prefixes: self.zones.get(place)?.roots(),
            standpoint: self.context.standpoint,
            seed: self.context.seed,
            limit,
            steps: self.steps.clone(),
            dependencies: std::mem::take(&mut self.dependencies),
            unsure: Cell::new(false),
            steered: Cell::new(self.steered),
        };
        let found = find(&mut finder);
        self.steps = finder.steps;
        self.dependencies = finder.dependencies;
        self.steered = finder.steered.get();
        Some(found)
    }

    /// Does some work at the cost of no more than one of so many parts of what is left.
    pub(super) fn share<T>(&mut self, of: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        let end = self.steps.until(self.steps.taken() + self.steps.left() / of.max(1));
        let done = work(self);
        self.steps.until(end);
        done
    }

    /// The answer hangs on more than names.
    pub(super) fn rest_on_all(&mut self) {
        self.dependencies = vec![self.catalog.dependency_on_all()];
    }

    /// Says that there are more answers than are given.
    pub(super) fn mark_cut(&mut self) {
        self.cut = true;
    }

    /// Cuts a set to what can be told of it: a third of the steps is left for making its records.
    pub(super) fn cut_to_steps(&mut self, hits: &mut Vec<Hit<'c>>) {
        let least = self.steps.left() / 3;
        let affordable =
            hits.iter().take_while(|hit| self.steps.left() > least && self.steps.may(1 + cost_of_ttl(**hit))).count();
        if affordable < hits.len() {
            hits.truncate(affordable);
            self.mark_cut();
            self.unsure |= affordable == 0;
        }
    }

    /// How long the records of a set may be kept.
    pub(super) fn ttl_of(&mut self, hits: &[Hit<'c>]) -> u32 {
        hits.iter().map(|hit| self.ttl(hit.entry)).min().unwrap_or(0)
    }

    /// How long a record may be kept.
    pub(super) fn ttl(&mut self, entry: &Entry) -> u32 {
        let own = entry.ttl.filter(|ttl| *ttl > 0).unwrap_or(self.context.dns_ttl).min(LONGEST_TTL);
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
        if self.leases.len() < MAX_LEASES && !self.leases.contains(&entry.lease) {
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

    /// The host of a record as a name, when it is one and there are steps left to tell.
    pub(super) fn host_of(&mut self, entry: &Entry) -> Option<Name> {
        let cost = entry.host_name().map_or(0, |host| steps::name_of(host, b'.'));
        if !self.steps.may(cost) {
            self.left_out += 1;
            return None;
        }
        Self::host_name(entry)
    }

    /// The host of a record as a name, when it is one.
    pub(super) fn host_name(entry: &Entry) -> Option<Name> {
        let host = entry.host_name()?;
        let host = host.strip_suffix('.').unwrap_or(host);
        join(host.split('.').map(str::as_bytes))
    }

    /// Steps that the name which a record leads to takes.
    pub(super) fn cost_of_name(&self, hit: Hit<'c>) -> usize {
        if hit.entry.address.is_none() {
            return hit.entry.host_name().map_or(0, |host| steps::name_of(host, b'.'));
        }
        let path = hit.entry.path();
        let parent = path.rsplit_once('/').map(|(parent, _)| parent);
        let known = self.last_parent.as_ref().is_some_and(|last| Some(last.path) == parent);
        if known && hit.entry.targetstrip.is_none() { steps::NEIGHBOUR } else { steps::name_of(path, b'/') }
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
        let own = zone.roots().get(prefix)?.parts(path);
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
        let answer = Answer {
            authoritative: true,
            answers,
            additional,
            in_order: self.in_order,
            cut: self.cut,
            zone: Some(place),
            contested: self.contested,
            steered: self.steered,
            dependencies: self.dependencies,
            fresh_until: self.fresh_until,
            leases: self.leases,
            steps: self.steps.taken(),
            left_out: self.left_out,
            ..Answer::empty(ResponseCode::NoError)
        };
        if answer.steered.is_some() { answer.kept_for(STEERED_TTL) } else { answer }
    }

    /// An answer that says no, with the SOA that says for how long; or that it could not be known.
    pub(super) fn negative(self, place: usize, rcode: ResponseCode) -> Answer {
        if self.unsure {
            return Answer {
                rcode: ResponseCode::ServFail,
                spent: true,
                ..self.positive(place, Vec::new(), Vec::new())
            };
        }
        let soa = self.soa(place, self.zone_name(place));
        let answer = Answer { rcode, authority: vec![soa], ..self.positive(place, Vec::new(), Vec::new()) };
        if answer.steered.is_some() { answer.kept_for(STEERED_TTL) } else { answer }
    }

    /// The zone's SOA, under `owner`.
    pub(super) fn soa(&self, place: usize, owner: Name) -> Rr {
        let serial = u32::try_from(self.catalog.revision() & i64::from(u32::MAX)).unwrap_or(0);
        let (server, master) = (self.name_below(place, &["ns", "dns"]), self.name_below(place, &["hostmaster"]));
        let ttl = self.context.negative_ttl.min(LONGEST_TTL);
        let soa = SOA::new(server, master, serial, 28_800, 7_200, 604_800, ttl);
        Rr::from_rdata(owner, ttl, RData::SOA(soa))
    }

    /// RFC 8482: no server has to say all that it knows.
    fn minimal(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        let exists = own.is_empty() || self.find(place, own).is_some();
        Outcome::Answer(if exists { self.rfc8482(place, owner) } else { self.finish(place, None, Vec::new()) })
    }

    /// What is said instead of all.
    pub(super) fn rfc8482(self, place: usize, owner: &Name) -> Answer {
        let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
        let answers = vec![Rr::from_rdata(owner.clone(), self.context.negative_ttl, RData::HINFO(hinfo))];
        self.finish(place, Some(answers), Vec::new())
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

/// Steps that knowing takes for how long a record may be kept.
pub(super) fn cost_of_ttl(hit: Hit<'_>) -> usize {
    if hit.entry.held {
        6
    } else if hit.entry.lease != 0 {
        2
    } else {
        0
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
