//! The witness: what really serves, what each host answers, and which sentence of ARCHITECTURE.md is broken.
//!
//! It sees each snapshot of each host's catalog and each commit as the store takes it. Where the contract itself lets a
//! record go or stay, [`excuses`] says so and quotes it; nothing else is forgiven.

mod excuses;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use wharf::catalog::index::Catalog;
use wharf::model::words::record::Record;
use wharf::store::embedded::Embedded;
use wharf::store::{Commit, Condition, Item, LeaseId, Revision, Store, StoreError, Write};

use crate::steps::HOSTS;

pub const TTL: Duration = Duration::from_secs(9);
/// In this time a change of one host is in the store and answered by all others.
const SPREADS: Duration = Duration::from_secs(2);
/// In this time what was lost to a leader that was away is answered again by a host that lost its lease to it, too:
/// when it has heard of that.
const BACK_AGAIN: Duration = Duration::from_millis(500);
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
    started: Instant,
    out: Option<Out>,
    /// Such times of before.
    outs: Vec<Out>,
    /// When the store last took records of its own.
    published: Option<Instant>,
    /// When the store last took a keepalive of each lease of its own: that ends one TTL later.
    kept: BTreeMap<LeaseId, Instant>,
    slow: bool,
    /// Whether it has found the store away over a slow link, and when that was last over.
    away: bool,
    back: Option<Instant>,
    /// When its lease was ended under it, and whether that of others was, too; the last time last.
    revoked: Vec<(Instant, bool)>,
    /// When it was last told what runs, or its link was last well again.
    told: Instant,
    /// What it answers; none before its catalog is read.
    shown: Option<BTreeMap<Place, Shown>>,
}

/// How a host answers an instance.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// Since when the record is held.
    held: Option<Instant>,
    lease: LeaseId,
    revision: Revision,
}

#[derive(Clone, Copy, Debug)]
struct Owed {
    host: usize,
    place: Place,
    was: Shown,
    by: Instant,
}

/// Whether a serving instance may go from a host's answers.
enum Grant {
    No,
    /// For a moment.
    Short,
    Yes,
}

#[derive(Debug)]
struct Ledger {
    start: Instant,
    /// Of all that came, where runs are to be compared.
    trace: Option<DefaultHasher>,
    /// Whether to tell everything as it comes.
    aloud: bool,
    facts: BTreeMap<Place, Fact>,
    agents: Vec<Agent>,
    hung: bool,
    hangs: Vec<Out>,
    /// When the store last came back, from whatever.
    returned: Option<Instant>,
    /// When it last was another one, or an older one.
    replaced: Option<Instant>,
    /// When all records of several owners were deleted by hand at once.
    purged: Option<Instant>,
    /// What a host is to answer again, and by when.
    owed: Vec<Owed>,
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
    pub fn new(owners: impl Iterator<Item = String>, traced: bool) -> Self {
        let now = Instant::now();
        let agent = |owner| Agent {
            owner,
            running: false,
            started: now,
            out: None,
            outs: Vec::new(),
            published: None,
            kept: BTreeMap::new(),
            slow: false,
            away: false,
            back: None,
            revoked: Vec::new(),
            told: now,
            shown: None,
        };
        let ledger = Ledger {
            start: now,
            trace: traced.then(DefaultHasher::new),
            aloud: std::env::var_os("WHARF_TRACE").is_some(),
            facts: BTreeMap::new(),
            agents: owners.map(agent).collect(),
            hung: false,
            hangs: Vec::new(),
            returned: None,
            replaced: None,
            purged: None,
            owed: Vec::new(),
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
        self.ledger().trace.as_ref().map_or(0, DefaultHasher::finish)
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
        let agent = &mut self.ledger().agents[host];
        (agent.running, agent.away, agent.shown) = (running, false, None);
        if running {
            agent.started = Instant::now();
        }
    }

    /// The store has given this host a lease, or taken a keepalive of it.
    pub fn kept(&self, host: usize, lease: LeaseId) {
        self.ledger().agents[host].kept.insert(lease, Instant::now());
    }

    /// An agent can or cannot keep its lease, for a reason of its own host.
    pub fn in_touch(&self, host: usize, touch: bool) {
        let now = Instant::now();
        let agent = &mut self.ledger().agents[host];
        match &mut agent.out {
            Some(Out { until: None, .. }) if !touch => {}
            // Without a keepalive in between it has been out all along.
            Some(Out { until, .. })
                if !touch && until.is_some_and(|until| !agent.kept.values().any(|kept| *kept >= until)) =>
            {
                *until = None;
            }
            Some(Out { until: until @ None, .. }) => *until = Some(now),
            _ if !touch => {
                let before = agent.out.replace(Out { since: now, until: None });
                agent.outs.extend(before);
            }
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
        let (mut ledger, now) = (self.ledger(), Some(Instant::now()));
        (ledger.returned, ledger.replaced) = (now, now);
    }

    /// A record was deleted or spoiled by hand.
    pub fn tampered(&self, place: Place) {
        if let Some(fact) = self.ledger().facts.get_mut(&place) {
            fact.tampered = Some(Instant::now());
        }
    }

    /// A lease was ended before its time.
    pub fn ended(&self, lease: LeaseId) {
        let over = Instant::now() - TTL;
        for agent in &mut self.ledger().agents {
            agent.kept.entry(lease).and_modify(|kept| *kept = over);
        }
    }

    /// A host's lease was ended under it.
    pub fn revoked(&self, host: usize) {
        self.ledger().agents[host].revoked.push((Instant::now(), false));
    }

    /// Those of several were, by a leader that was away.
    pub fn usurped(&self, hosts: &[usize]) {
        let mut ledger = self.ledger();
        for host in hosts.iter().filter(|_| hosts.len() > 1) {
            ledger.agents[*host].revoked.push((Instant::now(), true));
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
            if writes.iter().any(|write| matches!(write, Write::Put { key, .. } if key.starts_with("/services/"))) {
                self.ledger().agents[host].published = Some(Instant::now());
            }
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
        let mut shown: BTreeMap<Place, (bool, LeaseId, Revision)> = BTreeMap::new();
        if ledger.aloud {
            let keys = catalog.endpoints().map(|found| (found.key().to_string(), found.port(), found.held()));
            ledger.note(&(host, "has", catalog.is_stale(), keys.collect::<Vec<_>>()));
        }
        for endpoint in catalog.endpoints() {
            if let Some(place) = place_of(&endpoint) {
                let shown = shown.entry(place).or_insert((true, 0, 0));
                if shown.0 || !endpoint.held() {
                    *shown = (endpoint.held(), endpoint.lease(), endpoint.revision());
                }
            }
        }
        ledger.note(&(host, "shows", &shown));
        let agent = &mut ledger.agents[host];
        // Section 8: "etcd away: a request unanswered for 500 ms". A slow link is enough for that.
        let away = catalog.is_stale() && (agent.slow || agent.away);
        if std::mem::replace(&mut agent.away, away) && !away {
            agent.back = Some(now);
        }
        let before = agent.shown.take().unwrap_or_default();
        for (place, was) in &before {
            let serving = ledger.facts.get(place).is_some_and(|fact| fact.serving);
            if !serving || shown.contains_key(place) {
                continue;
            }
            match ledger.granted(host, *place, *was, now) {
                Grant::Yes => {}
                Grant::Short => ledger.owed.push(Owed { host, place: *place, was: *was, by: now + BACK_AGAIN }),
                Grant::No => {
                    let how = format!("{place:?} serves and is no longer answered on host {host}");
                    ledger.breaks(Invariant::NoNameVanishes, how);
                }
            }
        }
        // The same record has been held all along; another one only from now on.
        let since = |place: &Place, revision| match before.get(place) {
            Some(was) if was.revision == revision => was.held.unwrap_or(now),
            _ => now,
        };
        let one = |(place, (held, lease, revision)): (Place, _)| {
            let held = if held { Some(since(&place, revision)) } else { None };
            (place, Shown { held, lease, revision })
        };
        let shown = shown.into_iter().map(one).collect();
        ledger.agents[host].shown = Some(shown);
        ledger.owed(now);
        ledger.ghosts(now);
    }

    /// Looks for what is answered too long, or too late again.
    pub fn watch(&self) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        ledger.owed(now);
        ledger.ghosts(now);
    }

    /// Whether the store is there, and has been for long enough.
    pub fn store_settled(&self) -> bool {
        let ledger = self.ledger();
        let revoked = ledger.agents.iter().map(|agent| agent.revoked.last().map(|(at, _)| *at));
        let tampered = ledger.facts.values().map(|fact| fact.tampered);
        let last = [ledger.returned, ledger.purged].into_iter().chain(tampered).chain(revoked);
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
        if !self.aloud && self.trace.is_none() {
            return;
        }
        let told = format!("{:?} {what:?}", self.start.elapsed());
        if self.aloud {
            eprintln!("{told}");
        }
        if let Some(trace) = &mut self.trace {
            told.hash(trace);
        }
    }

    fn owed(&mut self, now: Instant) {
        let due: Vec<Owed> = self.owed.extract_if(.., |owed| owed.by <= now).collect();
        for Owed { host, place, was, .. } in due {
            let shown = self.agents[host].shown.as_ref();
            let serves = self.facts.get(&place).is_some_and(|fact| fact.serving);
            // Of its own loss it is only sure when the store says so.
            let silent = self.hangs.iter().map(|hang| hang.until.unwrap_or(now)).chain(self.replaced);
            let told = silent.max().is_none_or(|silent| silent + SPREADS < now);
            let lacks = told && serves && shown.is_some_and(|shown| !shown.contains_key(&place));
            if lacks && !matches!(self.granted(host, place, was, now), Grant::Yes) {
                let how = format!("{place:?} serves and is not answered again on host {host}");
                self.breaks(Invariant::NoNameVanishes, how);
            }
        }
    }

    fn ghosts(&mut self, now: Instant) {
        for host in 0..HOSTS {
            let shown = self.agents[host].shown.iter().flatten();
            let ghost = shown.map(|(place, shown)| (*place, *shown)).find(|(place, shown)| {
                let serves = self.facts.get(place).is_some_and(|fact| fact.serving);
                !serves && self.lingers(host, *place, *shown, now).is_some_and(|until| until < now)
            });
            if let Some((place, _)) = ghost {
                self.breaks(Invariant::NoGhost, format!("{place:?} is still answered on host {host}"));
            }
        }
    }
}

fn place_of(endpoint: &wharf::catalog::index::Endpoint) -> Option<Place> {
    let host = endpoint.host();
    let host: usize = host.strip_prefix("10.0.0.")?.parse().ok()?;
    Some((host.checked_sub(1)?, endpoint.port().checked_sub(20_000)?))
}

fn key(write: &Write) -> &str {
    match write {
        Write::Put { key, .. } | Write::Delete(key) | Write::DeleteAll(key) => key,
    }
}
