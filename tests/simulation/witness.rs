//! The witness: what really serves, what each host answers, and which sentence of ARCHITECTURE.md is broken.
//!
//! It sees each snapshot of each host's catalog and each commit as the store takes it. Where the contract itself lets a
//! record go or stay, `granted` and `lingers` say so and quote it; nothing else is forgiven.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use wharf::model::catalog::Catalog;
use wharf::model::record::Record;
use wharf::store::embedded::Embedded;
use wharf::store::{Commit, Condition, Item, Store, StoreError, Write};

use crate::steps::HOSTS;

pub const TTL: Duration = Duration::from_secs(9);
/// In this time a change of one host is in the store and answered by all others.
const SPREADS: Duration = Duration::from_secs(2);
/// In this time an agent that reaches the store has kept its lease, or adopted it.
const KEEPS: Duration = Duration::from_millis(1_500);
/// In this time after the store's return everything is published again.
pub const RETURNS: Duration = Duration::from_secs(3);

/// The invariants, by their names in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    NoGhost,
    NoBlink,
    NoOverwriting,
    SteadyStateIsSilent,
    TheCatalogIsTheStore,
    NoNameVanishes,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    pub invariant: Invariant,
    pub how: String,
    pub at: Duration,
}

/// An instance: its host and its container's number, which its address and port tell.
pub type Place = (usize, u16);

#[derive(Debug)]
struct Fact {
    serving: bool,
    changed: Instant,
    tampered: Option<Instant>,
}

/// From when to when, if that is over, a host's agent could not reach the store, or the store hung.
#[derive(Clone, Copy, Debug)]
struct Out {
    since: Instant,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Agent {
    owner: String,
    running: bool,
    out: Option<Out>,
    slow: bool,
    /// When it was last told what runs, or its link was last well again.
    told: Instant,
    /// What it answers, and since when that is held; none before its catalog is read.
    shown: Option<BTreeMap<Place, Option<Instant>>>,
}

#[derive(Debug)]
struct Ledger {
    start: Instant,
    trace: DefaultHasher,
    /// Whether to tell everything as it comes.
    aloud: bool,
    facts: BTreeMap<Place, Fact>,
    agents: Vec<Agent>,
    hung: bool,
    hangs: Vec<Out>,
    /// When the store last came back, from whatever.
    returned: Option<Instant>,
    /// When all records of several owners were deleted by hand at once.
    purged: Option<Instant>,
    broken: Option<Broken>,
}

#[derive(Debug)]
pub struct Witness {
    ledger: Mutex<Ledger>,
}

/// The instance that a record is of; `None` for other programs' records.
pub fn place(record: &Record) -> Option<Place> {
    let host: usize = record.host.strip_prefix("10.0.0.")?.parse().ok()?;
    Some((host.checked_sub(1)?, record.port.checked_sub(20_000)?))
}

impl Witness {
    pub fn new(owners: impl Iterator<Item = String>) -> Self {
        let now = Instant::now();
        let agent = |owner| Agent { owner, running: false, out: None, slow: false, told: now, shown: None };
        let ledger = Ledger {
            start: now,
            trace: DefaultHasher::new(),
            aloud: std::env::var_os("WHARF_TRACE").is_some(),
            facts: BTreeMap::new(),
            agents: owners.map(agent).collect(),
            hung: false,
            hangs: Vec::new(),
            returned: None,
            purged: None,
            broken: None,
        };
        Self { ledger: Mutex::new(ledger) }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub fn broken(&self) -> Option<Broken> {
        self.ledger().broken.clone()
    }

    /// What tells one run from another.
    pub fn trace(&self) -> u64 {
        self.ledger().trace.finish()
    }

    pub fn breaks(&self, invariant: Invariant, how: String) {
        self.ledger().breaks(invariant, how);
    }

    pub fn note(&self, what: &impl Debug) {
        self.ledger().note(what);
    }

    /// What really serves.
    pub fn serves(&self, place: Place, serving: bool) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        let fact = ledger.facts.entry(place).or_insert(Fact { serving: false, changed: now, tampered: None });
        if fact.serving != serving {
            (fact.serving, fact.changed) = (serving, now);
        }
    }

    pub fn serving(&self) -> Vec<Place> {
        self.ledger().facts.iter().filter(|(_, fact)| fact.serving).map(|(place, _)| *place).collect()
    }

    /// An agent starts or ends.
    pub fn runs(&self, host: usize, running: bool) {
        let mut ledger = self.ledger();
        ledger.agents[host].running = running;
        ledger.agents[host].shown = None;
    }

    /// An agent can or cannot keep its lease, for a reason of its own host.
    pub fn in_touch(&self, host: usize, touch: bool) {
        let now = Instant::now();
        let agent = &mut self.ledger().agents[host];
        match &mut agent.out {
            Some(Out { until: None, .. }) if !touch => {}
            // Too short to be sure of a keepalive: it has been out all along.
            Some(Out { until, .. }) if !touch && until.is_some_and(|until| now < until + KEEPS) => *until = None,
            Some(Out { until: until @ None, .. }) => *until = Some(now),
            _ if !touch => agent.out = Some(Out { since: now, until: None }),
            _ => {}
        }
        agent.told = now;
    }

    pub fn slow(&self, host: usize, slow: bool) {
        let agent = &mut self.ledger().agents[host];
        (agent.slow, agent.told) = (slow, Instant::now());
    }

    pub fn told(&self, host: usize) {
        self.ledger().agents[host].told = Instant::now();
    }

    pub fn hangs(&self, hung: bool) {
        let mut ledger = self.ledger();
        let now = Instant::now();
        if ledger.hung && !hung {
            ledger.returned = Some(now);
            ledger.hangs.iter_mut().for_each(|hang| hang.until = hang.until.or(Some(now)));
        } else if hung && !ledger.hung {
            ledger.hangs.push(Out { since: now, until: None });
        }
        ledger.hung = hung;
    }

    /// The store is another one, or an older one.
    pub fn returns(&self) {
        self.ledger().returned = Some(Instant::now());
    }

    /// A record was deleted or spoiled by hand.
    pub fn tampered(&self, place: Place) {
        if let Some(fact) = self.ledger().facts.get_mut(&place) {
            fact.tampered = Some(Instant::now());
        }
    }

    /// All records of several owners were deleted by hand at once.
    pub fn purged(&self) {
        self.ledger().purged = Some(Instant::now());
    }

    /// A commit of this host, as the store takes it.
    pub async fn commit(
        &self,
        host: usize,
        store: &Embedded,
        conditions: &[Condition],
        writes: &[Write],
        asked: Instant,
    ) -> Result<Commit, StoreError> {
        let keys: Vec<String> = writes.iter().map(|write| key(write).to_owned()).collect();
        let before = store.get(&keys).await?;
        let result = store.commit(conditions, writes).await;
        self.note(&(host, "commit", &keys, result.is_ok()));
        if matches!(result, Ok(Commit::Done(_))) {
            for item in before.items.iter().filter(|item| item.key.starts_with("/services/")) {
                self.written(host, store, item, writes, asked).await;
            }
        }
        result
    }

    /// A key that was there has been written.
    async fn written(&self, host: usize, store: &Embedded, was: &Item, writes: &[Write], asked: Instant) {
        let Ok(record) = Record::decode(&was.value) else { return };
        let owner = self.ledger().agents[host].owner.clone();
        if record.owner.as_deref().is_some_and(|was| was != owner) {
            self.breaks(Invariant::NoOverwriting, format!("host {host} wrote {} of {:?}", was.key, record.owner));
        }
        let deleted = writes.iter().any(|write| matches!(write, Write::Delete(key) if *key == was.key));
        let Some(place) = place(&record).filter(|_| deleted && record.owner.as_deref() == Some(&*owner)) else {
            return;
        };
        let serves = |fact: &Fact| fact.serving && fact.changed + Duration::from_millis(50) < asked;
        let served = self.ledger().facts.get(&place).is_some_and(serves);
        let left = store.read("/services/", None, None).await.map(|page| page.items).unwrap_or_default();
        let elsewhere = left.iter().filter_map(|item| Record::decode(&item.value).ok());
        let stays = elsewhere
            .into_iter()
            .any(|left| left.owner.as_deref() == Some(&*owner) && self::place(&left) == Some(place));
        if served && !stays {
            self.breaks(Invariant::NoBlink, format!("host {host} deleted {}, which serves", was.key));
        }
    }

    /// A snapshot of a host's catalog.
    pub fn look(&self, host: usize, catalog: &Catalog) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        let mut shown: BTreeMap<Place, bool> = BTreeMap::new();
        if ledger.aloud {
            let keys = catalog.endpoints().map(|found| (found.key().to_string(), found.port(), found.held()));
            ledger.note(&(host, "has", catalog.is_stale(), keys.collect::<Vec<_>>()));
        }
        for endpoint in catalog.endpoints() {
            if let Some(place) = place_of(&endpoint) {
                let held = shown.entry(place).or_insert(true);
                *held &= endpoint.held();
            }
        }
        ledger.note(&(host, "shows", &shown));
        let before = ledger.agents[host].shown.take().unwrap_or_default();
        for (place, held) in &before {
            let serving = ledger.facts.get(place).is_some_and(|fact| fact.serving);
            if serving && !shown.contains_key(place) && !ledger.granted(host, *place, *held, now) {
                let how = format!("{place:?} serves and is no longer answered on host {host}");
                ledger.breaks(Invariant::NoNameVanishes, how);
            }
        }
        let since = |place, held: bool| held.then(|| before.get(place).copied().flatten().unwrap_or(now));
        let shown = shown.iter().map(|(place, held)| (*place, since(place, *held))).collect();
        ledger.agents[host].shown = Some(shown);
        ledger.ghosts(now);
    }

    /// Looks for what is answered too long.
    pub fn ghosts(&self) {
        self.ledger().ghosts(Instant::now());
    }

    /// Whether the store is there, and has been for long enough.
    pub fn store_settled(&self) -> bool {
        let ledger = self.ledger();
        let last = [ledger.returned, ledger.purged].into_iter().chain(ledger.facts.values().map(|fact| fact.tampered));
        !ledger.hung && last.flatten().all(|at| at + RETURNS < Instant::now())
    }

    /// Whether this host's agent runs, reaches the store well, and has been told what runs for long enough.
    pub fn settled(&self, host: usize) -> bool {
        let calm = self.is_calm(host);
        let agent = &self.ledger().agents[host];
        calm && agent.running && !agent.slow && agent.out.is_none_or(|out| out.until.is_some())
    }

    /// Whether nothing has happened to this host for long enough.
    pub fn is_calm(&self, host: usize) -> bool {
        self.ledger().agents[host].told + RETURNS < Instant::now()
    }
}

impl Ledger {
    fn breaks(&mut self, invariant: Invariant, how: String) {
        let at = self.start.elapsed();
        if self.broken.is_none() {
            self.note(&("BROKEN", invariant, &how));
        }
        self.broken.get_or_insert(Broken { invariant, how, at });
    }

    fn note(&mut self, what: &impl Debug) {
        let told = format!("{:?} {what:?}", self.start.elapsed());
        if self.aloud {
            eprintln!("{told}");
        }
        told.hash(&mut self.trace);
    }

    /// Whether the contract lets a serving instance go from a host's answers.
    fn granted(&self, host: usize, place: Place, held: Option<Instant>, now: Instant) -> bool {
        let (agent, view) = (&self.agents[place.0], &self.agents[host]);
        let soon = |at: Instant| now <= self.known_by(at, &[agent, view], now);
        // Section 8: "node lost: its records are gone from the store ≤ lease TTL + 1 s", and "agent killed: records stay
        // ≤ lease TTL". The last keepalive may be a third of the TTL old.
        let lost = agent.out.is_some_and(|out| {
            let end = out.until.unwrap_or(now);
            end - out.since >= TTL * 2 / 3 - Duration::from_secs(2) && soon(end)
        });
        // Section 3: "A key of ours that someone deletes or spoils comes back within a second", section 8: "A delete
        // under a living lease counts at once".
        let fact = &self.facts[&place];
        let tampered = fact.tampered.is_some_and(soon);
        // The same for this host's own records when several owners' were deleted in one revision: only "records of *other*
        // owners" are held.
        let purged = host == place.0 && self.purged.is_some_and(soon);
        // Section 3: "Only what serves is there". A moment ago it did not, and that word is still on its way.
        let again = soon(fact.changed);
        // Section 8: "held … until their owner publishes or one lease TTL is over".
        let over = held.is_some_and(|since| now - since >= TTL - Duration::from_millis(10));
        lost || tampered || purged || again || over
    }

    /// By when what was done at `at` has come to where it matters: time in which the store hung, or one of the hosts could
    /// not reach it, does not count.
    fn known_by(&self, at: Instant, hosts: &[&Agent], now: Instant) -> Instant {
        let mut outs: Vec<Out> = hosts.iter().filter_map(|agent| agent.out).chain(self.hangs.iter().copied()).collect();
        outs.sort_by_key(|out| out.since);
        let later = |by: Instant, out: &Out| {
            let until = out.until.unwrap_or(now);
            if out.since <= by && until + SPREADS > by { until + SPREADS } else { by }
        };
        outs.iter().fold(at + SPREADS, later)
    }

    fn ghosts(&mut self, now: Instant) {
        for host in 0..HOSTS {
            let shown = self.agents[host].shown.iter().flat_map(BTreeMap::keys);
            let ghost = shown.copied().find(|place| {
                let serves = self.facts.get(place).is_some_and(|fact| fact.serving);
                !serves && self.lingers(host, *place, now).is_some_and(|until| until < now)
            });
            if let Some(place) = ghost {
                self.breaks(Invariant::NoGhost, format!("{place:?} is still answered on host {host}"));
            }
        }
    }

    /// Until when the contract lets an instance be answered that does not serve any more; `None` is for now.
    fn lingers(&self, host: usize, place: Place, now: Instant) -> Option<Instant> {
        let ended = self.facts.get(&place).map_or(self.start, |fact| fact.changed);
        let (agent, view) = (&self.agents[place.0], &self.agents[host]);
        let mut until = ended.max(agent.told) + SPREADS;
        if agent.slow || view.slow || !agent.running && host == place.0 {
            return None;
        }
        if let Some(out) = agent.out {
            // Section 8: "agent killed: records stay ≤ lease TTL", "node lost: … ≤ lease TTL + 1 s".
            let end = out.until.unwrap_or(now);
            until = until.max(end.min(out.since + TTL + Duration::from_secs(1)) + SPREADS);
        }
        if host == place.0 {
            // Section 8: etcd is away after "a watch without progress for 5 s", when a change that it confirmed had not come
            // back yet.
            let away = self.known_by(ended, &[agent], now) + Duration::from_secs(5);
            return Some(if self.hangs.is_empty() && agent.out.is_none() { until } else { until.max(away) });
        }
        // Section 8: "etcd away: DNS answers go on from the last catalog".
        if self.hung || view.out.is_some_and(|out| out.until.is_none()) {
            return None;
        }
        // Section 8: "held: still answered, … until their owner publishes or one lease TTL is over", after a return "in
        // the first relist, together with their lease within 10 s of it, or several owners' in one revision". A restored
        // lease has its time anew.
        let back = view.out.and_then(|out| out.until);
        for returned in [self.returned, self.purged, back].into_iter().flatten() {
            until = until.max(returned + TTL.max(Duration::from_secs(10)) + TTL + SPREADS);
        }
        Some(until)
    }
}

fn place_of(endpoint: &wharf::model::catalog::Endpoint) -> Option<Place> {
    let host = endpoint.host();
    let host: usize = host.strip_prefix("10.0.0.")?.parse().ok()?;
    Some((host.checked_sub(1)?, endpoint.port().checked_sub(20_000)?))
}

fn key(write: &Write) -> &str {
    match write {
        Write::Put { key, .. } | Write::Delete(key) => key,
    }
}
