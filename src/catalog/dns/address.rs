//! A, AAAA and CNAME: addresses of what a name takes, and the way through names that stand in for others.
//!
//! A record whose host is a name is a CNAME. Where a name takes addresses as well, a CNAME could not stand beside them
//! (RFC 2181), so the addresses behind such records are given under the name itself. Of several CNAMEs one is given, to
//! a question of any type that the name has no records of (RFC 1034, section 3.6.2).
//!
//! Where a CNAME leads is looked up in the tree alone, as it is written: a record cannot make others' questions select.

use std::net::IpAddr;

use hickory_server::proto::rr::rdata::CNAME;

use super::work::{Family, Work, address_record};
use super::{Name, Outcome, RData, RecordType, ResponseCode, Rr};
use crate::catalog::index::{Entry, WINDOW};
use crate::catalog::select::Hit;
use crate::catalog::steps::MOST;

/// How many CNAMEs are followed in a row.
const MAX_CHAIN: usize = 8;
/// Of so many records with a name for a host one is chosen that leads somewhere.
const MAX_CHOICES: usize = 8;
/// Records that are looked at for one target of others.
const TARGET_WINDOW: usize = 256;
/// The least that an address takes in a message.
const LEAST_SIZE: usize = 16;

/// What is looked for at the end of a way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Addresses(&'static [Family]),
    Records(RecordType),
}

impl Wanted {
    pub(super) const ADDRESSES: Self = Self::Addresses(&[Family::V4, Family::V6]);
}

/// Where a name led.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// CNAMEs before what they lead to, then what was looked for.
    pub(super) records: Vec<Rr>,
    /// Whether it ended at what was looked for.
    pub(super) arrived: bool,
    /// The name outside of every zone that it leads to.
    outside: Option<Name>,
    /// A name of a zone on the way does not exist.
    missing: bool,
    /// What the last name has was not found out: there may be more.
    open: bool,
    /// The zone of the last name on the way.
    zone: Option<usize>,
}

/// Addresses of a set with the one TTL that they all have.
#[derive(Debug, Default)]
struct Addresses {
    found: Vec<IpAddr>,
    ttl: Option<u32>,
}

impl Addresses {
    fn add(&mut self, address: IpAddr, ttl: u32) {
        self.ttl = Some(self.ttl.map_or(ttl, |own| own.min(ttl)));
        self.found.push(address);
    }
}

impl<'c> Work<'c> {
    /// The answer for A or AAAA.
    pub(super) fn addresses(mut self, place: usize, own: &[&str], owner: &Name, wanted: &'static [Family]) -> Outcome {
        let apex = own.is_empty().then(|| self.find_in_tree(place, &["apex", "dns"], WINDOW)).flatten();
        let Some(mut selection) = apex.or_else(|| self.find(place, own)) else {
            return Outcome::Answer(self.negative(place, ResponseCode::NXDomain));
        };
        if selection.cut {
            self.mark_cut();
            let leads = |hit: &Hit<'_>| hit.entry.host_name().is_some() || has_wanted(hit.entry, wanted);
            if !selection.hits.iter().any(leads) {
                self.steps.take(selection.hits.len());
                let others = wanted.iter().find_map(|family| self.find_family(place, own, *family));
                selection = others.filter(|others| !others.hits.is_empty()).unwrap_or(selection);
            }
        }
        let way = self.way(place, selection.hits, owner, Wanted::Addresses(wanted), &mut Vec::new());
        self.led(place, way)
    }

    /// The answer for a name that has no records of the type asked for: where its CNAME leads, if it has one.
    pub(super) fn led_on(mut self, place: usize, own: &[&str], owner: &Name, hits: &[Hit<'c>]) -> Outcome {
        let has_address = hits.iter().any(|hit| hit.entry.addresses().next().is_some());
        if own.is_empty() || has_address || self.is_reverse(place) {
            return Outcome::Answer(self.finish(place, Some(Vec::new()), Vec::new()));
        }
        self.steps.until(MOST);
        let wanted = Wanted::Records(self.question.qtype);
        let way = self.one_alias(hits.to_vec(), owner, wanted, &mut vec![owner.clone()]);
        self.led(place, way)
    }

    /// The answer that a way makes.
    fn led(self, place: usize, way: Way) -> Outcome {
        if let Some(target) = way.outside.filter(|_| !way.arrived) {
            return Outcome::Chase { answer: self.positive(place, way.records, Vec::new()), target };
        }
        if way.arrived || way.open && !way.records.is_empty() {
            return Outcome::Answer(self.positive(place, way.records, Vec::new()));
        }
        let rcode = if way.missing { ResponseCode::NXDomain } else { ResponseCode::NoError };
        let mut answer = self.negative(way.zone.unwrap_or(place), rcode);
        (answer.zone, answer.answers) = (Some(place), way.records);
        Outcome::Answer(answer)
    }

    /// The answer for CNAME: of exactly this name, since what stands below it is no other name for it.
    pub(super) fn alias(mut self, place: usize, own: &[&str], owner: &Name) -> Outcome {
        for hit in self.exactly(place, own) {
            if let Some(target) = self.host_of(hit.entry).filter(|target| target != owner) {
                let answers = vec![self.cname(owner, target, hit.entry)];
                return Outcome::Answer(self.finish(place, Some(answers), Vec::new()));
            }
        }
        self.no_data(place, own)
    }

    /// The way from what a name takes. `passed` are the names on the way here.
    fn way(&mut self, place: usize, hits: Vec<Hit<'c>>, owner: &Name, wanted: Wanted, passed: &mut Vec<Name>) -> Way {
        passed.push(owner.clone());
        let has_address = hits.iter().any(|hit| hit.entry.addresses().next().is_some());
        let mut way = match wanted {
            Wanted::Addresses(families) if has_address => self.all_addresses(hits, owner, families, passed),
            Wanted::Addresses(_) => self.one_alias(hits, owner, wanted, passed),
            Wanted::Records(rtype) => {
                let records = self.records_of(place, rtype, &hits, owner);
                if records.is_empty() && !has_address && !self.is_reverse(place) {
                    self.one_alias(hits, owner, wanted, passed)
                } else {
                    Way { arrived: !records.is_empty(), records, ..Way::default() }
                }
            }
        };
        passed.pop();
        way.zone = way.zone.or(Some(place));
        way
    }

    fn records_of(&mut self, place: usize, rtype: RecordType, hits: &[Hit<'c>], owner: &Name) -> Vec<Rr> {
        match rtype {
            RecordType::TXT => self.texts(hits, owner),
            RecordType::MX => self.mails(place, hits, owner),
            _ => Vec::new(),
        }
    }

    fn all_addresses(
        &mut self,
        mut hits: Vec<Hit<'c>>,
        owner: &Name,
        families: &'static [Family],
        passed: &mut Vec<Name>,
    ) -> Way {
        rotate(&mut hits, self.context.seed);
        self.cut_to_steps(&mut hits);
        let mut of_family = [Addresses::default(), Addresses::default()];
        let slot = |address: IpAddr| usize::from(Family::of(address) == Family::V6);
        let mut behind = Vec::new();
        for hit in hits {
            let is_wanted = |address: &IpAddr| families.contains(&Family::of(*address));
            let mut own = hit.entry.addresses().filter(is_wanted).peekable();
            if own.peek().is_some() {
                let ttl = self.ttl(hit.entry);
                own.for_each(|address| of_family[slot(address)].add(address, ttl));
            } else if behind.len() < MAX_CHOICES && hit.entry.host_name().is_some() {
                behind.push(hit.entry);
            }
        }
        self.steps.take(of_family.iter().map(|addresses| addresses.found.len()).sum());
        self.go_on(passed);
        for (done, entry) in behind.iter().enumerate() {
            let Some(target) = self.host_of(entry) else { continue };
            let ttl = self.ttl(entry);
            let of = behind.len() - done;
            let way = self.share(of, |work| work.way_on(&target, Wanted::Addresses(families), passed));
            for record in way.records {
                if let Some(address) = record.data.ip_addr() {
                    of_family[slot(address)].add(address, ttl.min(record.ttl));
                }
            }
        }
        let mut way = Way::default();
        for addresses in of_family {
            self.push_addresses(addresses, owner, &mut way.records);
        }
        way.arrived = !way.records.is_empty();
        way
    }

    /// On the way from the question's own name, all the steps that are left may be taken.
    fn go_on(&self, passed: &[Name]) {
        if passed.len() == 1 && passed[0] == self.question.name {
            self.steps.until(MOST);
        }
    }

    /// Each address once, rotated, as many as there is room for.
    fn push_addresses(&mut self, mut addresses: Addresses, owner: &Name, records: &mut Vec<Rr>) {
        addresses.found.sort_unstable();
        addresses.found.dedup();
        rotate(&mut addresses.found, self.context.seed);
        let most = self.context.room / LEAST_SIZE + 1;
        if addresses.found.len() > most {
            self.mark_cut();
        }
        let ttl = addresses.ttl.unwrap_or(0);
        records.extend(addresses.found.into_iter().take(most).map(|address| address_record(owner, ttl, address)));
    }

    /// One of the names, if possible one that leads to what is wanted.
    fn one_alias(&mut self, mut hits: Vec<Hit<'c>>, owner: &Name, wanted: Wanted, passed: &mut Vec<Name>) -> Way {
        self.go_on(passed);
        hits.retain(|hit| hit.entry.host_name().is_some());
        rotate(&mut hits, self.context.seed);
        let mut best: Option<Way> = None;
        let mut left = hits.len().min(MAX_CHOICES);
        for hit in hits {
            let Some(target) = self.host_of(hit.entry).filter(|target| target != owner) else { continue };
            if left == 0 {
                break;
            }
            let next = self.share(left, |work| work.way_on(&target, wanted, passed));
            left -= 1;
            let mut records = vec![self.cname(owner, target, hit.entry)];
            records.extend(next.records);
            let way = Way { records, ..next };
            if way.arrived {
                return way;
            }
            if best.as_ref().is_none_or(|best| best.outside.is_none() && way.outside.is_some()) {
                best = Some(way);
            }
        }
        best.unwrap_or_default()
    }

    /// The way from a target on; nothing where it leads in a circle, too far or costs too much.
    pub(super) fn way_on(&mut self, target: &Name, wanted: Wanted, passed: &mut Vec<Name>) -> Way {
        if !self.steps.may(passed.len()) {
            return self.not_gone();
        }
        if passed.len() >= MAX_CHAIN || passed.contains(target) {
            return Way::default();
        }
        let labels: Vec<Vec<u8>> = target.iter().map(<[u8]>::to_ascii_lowercase).collect();
        let Some(place) = self.zones.find(&labels) else {
            return Way { outside: Some(target.clone()), ..Way::default() };
        };
        let Some(own) = self.own_labels(place, &labels) else {
            return Way { missing: true, zone: Some(place), ..Way::default() };
        };
        if !self.may_look_for(place, &own) {
            return self.not_gone();
        }
        match self.find_target(place, &own) {
            Some(hits) => self.way_of_target(place, hits, target, wanted, passed),
            None => {
                let open = self.may_be_selected(place, &own);
                Way { missing: !open, open, zone: Some(place), ..Way::default() }
            }
        }
    }

    /// A target that costs too much is left out. What the question's own name takes is known all the same.
    fn way_of_target(
        &mut self,
        place: usize,
        hits: Vec<Hit<'c>>,
        target: &Name,
        wanted: Wanted,
        passed: &mut Vec<Name>,
    ) -> Way {
        let unsure = std::mem::take(&mut self.unsure);
        let way = self.way(place, hits, target, wanted, passed);
        self.left_out += usize::from(std::mem::replace(&mut self.unsure, unsure));
        way
    }

    /// A way that there are no steps left for.
    fn not_gone(&mut self) -> Way {
        self.left_out += 1;
        Way { open: true, ..Way::default() }
    }

    /// Whether there are steps to look for a target. Looking takes them.
    fn may_look_for(&self, place: usize, own: &[&str]) -> bool {
        let prefixes = self.zones.get(place).map_or(0, |zone| zone.roots().len());
        self.steps.left() > prefixes * (24 + own.iter().map(|label| label.len() + 1).sum::<usize>() / 4)
    }

    fn find_target(&mut self, place: usize, own: &[&str]) -> Option<Vec<Hit<'c>>> {
        let window = TARGET_WINDOW.min(self.steps.spare() / 4);
        let apex = own.is_empty().then(|| self.find_in_tree(place, &["apex", "dns"], window)).flatten();
        let found = apex.or_else(|| self.find_in_tree(place, own, window))?;
        if found.cut {
            self.mark_cut();
        }
        Some(found.hits)
    }

    fn cname(&mut self, owner: &Name, target: Name, entry: &Entry) -> Rr {
        let ttl = self.ttl(entry);
        Rr::from_rdata(owner.clone(), ttl, RData::CNAME(CNAME(target)))
    }
}

fn has_wanted(entry: &Entry, wanted: &[Family]) -> bool {
    wanted.iter().any(|family| entry.has_family(*family == Family::V4))
}

/// Begins with another item each time.
pub(super) fn rotate<T>(items: &mut [T], seed: u64) {
    if let Some(by) = seed.checked_rem(items.len() as u64) {
        items.rotate_left(usize::try_from(by).unwrap_or(0));
    }
}
