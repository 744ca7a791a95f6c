//! All instances of this host as the fleet knows them: their health, what is remembered of their servers, when they
//! are asked next, and what was last told of them. No waiting happens here.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use imbl::ordmap::DiffItem;
use tracing::{error, info, warn};

use super::Settings;
use super::metrics::{End, Metrics};
use super::question::{Answer, Memo, Question};
use super::schedule::{self, Class, Id, Schedule};
use crate::host::Secrets;
use crate::model::health::adopted::Adopted;
use crate::model::health::standing::{Standing, Standings, State};
use crate::model::health::{Health, Outcome, Rules};
use crate::model::offer::instance::{CheckKind, Instance, InstanceKey, Offer, Source};

/// An error text that differs from the last one shown is shown after that long, unless the state changes before.
const ERROR_PATIENCE: Duration = Duration::from_secs(1);

/// Everything known of this host's instances.
#[derive(Debug)]
pub(super) struct Berths {
    settings: Settings,
    secrets: Arc<Secrets>,
    metrics: Metrics,
    offer: Arc<Offer>,
    ids: BTreeMap<InstanceKey, Id>,
    berths: HashMap<Id, Berth>,
    next_number: u64,
    schedule: Schedule,
    standings: Standings,
    changed: bool,
    /// Records taken over whose instances have not been seen yet.
    records: Adopted,
    /// This host could not probe the last time it tried.
    hindered: bool,
}

/// One instance.
#[derive(Debug)]
struct Berth {
    instance: Arc<Instance>,
    health: Health,
    born: Instant,
    memo: Memo,
    /// Grows whenever answers under way lose their meaning.
    generation: u64,
    asked_at: Instant,
    shown_at: Instant,
    /// Since when this host has not been able to ask it.
    unasked: Option<(Instant, SystemTime)>,
}

/// What a probe under way belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    id: Id,
    generation: u64,
    class: Class,
    kind: CheckKind,
}

/// A probe to be made.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) ticket: Ticket,
    pub(super) question: Question,
    pub(super) memo: Memo,
}

/// A probe that is over; without a result it panicked.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) ticket: Ticket,
    pub(super) result: Option<(Answer, Memo)>,
}

impl Berths {
    pub(super) fn new(settings: Settings, metrics: Metrics) -> Self {
        Self {
            secrets: Arc::new(Secrets::new(settings.secrets_dir.clone())),
            settings,
            metrics,
            offer: Arc::default(),
            ids: BTreeMap::new(),
            berths: HashMap::new(),
            next_number: 0,
            schedule: Schedule::new(Instant::now()),
            standings: Standings::new(),
            changed: false,
            records: Adopted::default(),
            hindered: false,
        }
    }

    /// Every standing, when one of them has changed since the last time.
    pub(super) fn news(&mut self) -> Option<Standings> {
        std::mem::take(&mut self.changed).then(|| self.standings.clone())
    }

    /// When something is to be done next, if nothing happens before.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        self.schedule.wake(now)
    }

    pub(super) fn count_in_flight(&self, count: usize) {
        self.metrics.in_flight(count);
    }

    /// Takes over what an earlier life of this agent published.
    pub(super) fn take_records(&mut self, records: &Adopted) {
        self.records.clone_from(records);
        let ids: Vec<Id> = self.berths.keys().copied().collect();
        for id in ids {
            self.adopt(id);
            self.show(id, Instant::now());
        }
        self.forget_records();
    }

    /// Brings the berths up to what is to be offered now.
    pub(super) fn follow(&mut self, offer: &Arc<Offer>) {
        let old = std::mem::replace(&mut self.offer, Arc::clone(offer));
        let now = Instant::now();
        for change in old.instances.diff(&offer.instances) {
            match change {
                DiffItem::Add(_, instance) => self.add(instance, now),
                DiffItem::Update { new: (_, instance), .. } => self.update(instance, now),
                DiffItem::Remove(key, _) => self.remove(key),
            }
        }
        self.forget_records();
    }

    /// The next probe to be made now.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Probe> {
        loop {
            let (id, class) = self.schedule.next(now)?;
            match self.begin(id, class, now) {
                Some(probe) => return Some(probe),
                None => self.schedule.landed(id, class),
            }
        }
    }

    /// Hears what a probe met.
    pub(super) fn hear(&mut self, landed: Landed) {
        let Landed { ticket, result } = landed;
        self.schedule.landed(ticket.id, ticket.class);
        self.metrics.landed(ticket.kind, End::of(result.as_ref().map(|(answer, _)| answer)));
        let current = |berth: &&mut Berth| berth.generation == ticket.generation;
        let Some(berth) = self.berths.get_mut(&ticket.id).filter(current) else { return };
        let was_first = berth.health.is_first();
        let outcome = match result {
            Some((Answer::Heard(outcome), memo)) => {
                (berth.memo, berth.unasked) = (memo, None);
                self.hindered = false;
                outcome
            }
            Some((Answer::Unasked(error), memo)) => {
                berth.memo = memo;
                if !std::mem::replace(&mut self.hindered, true) {
                    warn!(instance = %berth.instance.key, %error, "this host cannot probe");
                }
                berth.hear_nothing(&error.to_string(), self.settings.rules);
                self.plan_next(ticket.id, was_first);
                return self.show(ticket.id, Instant::now());
            }
            None => {
                error!(instance = %berth.instance.key, check = %ticket.kind, "a probe panicked");
                Outcome::fails("the probe itself failed")
            }
        };
        berth.health.hear_probe(outcome, self.settings.rules, SystemTime::now());
        self.plan_next(ticket.id, was_first);
        self.show(ticket.id, Instant::now());
    }

    fn add(&mut self, instance: &Arc<Instance>, now: Instant) {
        let id = Id { of: container_number(&instance.key.source), number: self.next_number };
        self.next_number += 1;
        let berth = Berth {
            instance: Arc::clone(instance),
            health: new_health(instance),
            born: now,
            memo: Memo::default(),
            generation: 0,
            asked_at: now,
            shown_at: now,
            unasked: None,
        };
        self.ids.insert(instance.key.clone(), id);
        self.berths.insert(id, berth);
        self.adopt(id);
        self.ask_soon(id, now);
        self.show(id, now);
    }

    fn update(&mut self, instance: &Arc<Instance>, now: Instant) {
        let Some(&id) = self.ids.get(&instance.key) else { return };
        let Some(berth) = self.berths.get_mut(&id) else { return };
        let before = std::mem::replace(&mut berth.instance, Arc::clone(instance));
        if before.started != instance.started {
            berth.begin_anew(now);
            self.ask_soon(id, now);
            return self.show(id, now);
        }
        let wanted = berth.health.wants_probes();
        let asked_otherwise = before.check != instance.check;
        if asked_otherwise {
            berth.memo = Memo::default();
            berth.health.set_probed(instance.check.kind != CheckKind::None, SystemTime::now());
        }
        berth.health.hear_docker(instance.docker, SystemTime::now());
        let wants = berth.health.wants_probes();
        if asked_otherwise || wanted != wants {
            berth.generation += 1;
            berth.born = if wanted { berth.born } else { now };
            self.ask_soon(id, now);
        }
        self.show(id, now);
    }

    fn remove(&mut self, key: &InstanceKey) {
        let Some(id) = self.ids.remove(key) else { return };
        self.schedule.cancel(id);
        self.berths.remove(&id);
        if let Some(shown) = self.standings.remove(key) {
            info!("{key} is gone, it was {}", shown.state);
            self.metrics.moved(Some(shown.state), None);
            self.changed = true;
        }
    }

    /// Uses the record taken over for this instance, once.
    fn adopt(&mut self, id: Id) {
        let Some(berth) = self.berths.get_mut(&id) else { return };
        let Some(served) = self.records.take(&berth.instance) else { return };
        berth.health.adopt(served.since, served.role, self.settings.rules, SystemTime::now());
    }

    /// Once Docker has been listed, a record without an instance is one without a container.
    fn forget_records(&mut self) {
        if self.offer.listed {
            self.records = Adopted::default();
        }
    }

    /// Plans the first probe of an instance that is new, or new to its check. One that counts as ready is not asked
    /// together with hundreds of its like.
    fn ask_soon(&mut self, id: Id, now: Instant) {
        let Some(berth) = self.berths.get_mut(&id) else { return };
        if !berth.health.wants_probes() {
            self.schedule.cancel(id);
        } else if berth.instance.check.target.is_none() {
            self.schedule.cancel(id);
            let outcome = Outcome::fails("no address of this host to ask at");
            berth.health.hear_probe(outcome, self.settings.rules, SystemTime::now());
        } else if berth.health.is_first() {
            self.schedule.plan(id, now, Class::First { born: berth.born });
        } else {
            let interval = berth.instance.check.interval.unwrap_or(self.settings.interval);
            self.schedule.plan_steady(id, now + schedule::spread(interval, rand::random()) / 2, interval);
        }
    }

    fn begin(&mut self, id: Id, class: Class, now: Instant) -> Option<Probe> {
        let berth = self.berths.get_mut(&id)?;
        let check = &berth.instance.check;
        let ticket = Ticket { id, generation: berth.generation, class, kind: check.kind };
        let question = Question {
            instance: Arc::clone(&berth.instance),
            target: check.target?,
            timeout: check.timeout.unwrap_or(self.settings.timeout),
            first: berth.health.is_first(),
            unsure: berth.health.is_first() || berth.health.is_down(),
            secrets: Arc::clone(&self.secrets),
            engine: self.offer.engine,
        };
        berth.asked_at = now;
        Some(Probe { ticket, question, memo: std::mem::take(&mut berth.memo) })
    }

    fn plan_next(&mut self, id: Id, was_first: bool) {
        let Some(berth) = self.berths.get(&id) else { return };
        let now = Instant::now();
        let interval = berth.instance.check.interval.unwrap_or(self.settings.interval);
        let dice = rand::random();
        if berth.health.is_first() {
            let gap = schedule::gap(Some(now.saturating_duration_since(berth.born)), interval, dice);
            let at = (berth.asked_at + gap).max(now);
            return self.schedule.plan(id, at, Class::First { born: berth.born });
        }
        let gap = if was_first { schedule::spread(interval, dice) } else { schedule::gap(None, interval, dice) };
        self.schedule.plan_steady(id, (berth.asked_at + gap).max(now), interval);
    }

    /// Brings what is shown of an instance up to what is known of it.
    fn show(&mut self, id: Id, now: Instant) {
        let Some(berth) = self.berths.get_mut(&id) else { return };
        let standing = berth.health.standing(berth.instance.role);
        let key = &berth.instance.key;
        let shown = self.standings.get(key);
        if shown.is_some_and(|shown| !berth.is_worth_showing(shown, &standing, now)) {
            return;
        }
        let was = shown.map(|shown| shown.state);
        if was != Some(standing.state) {
            self.metrics.moved(was, Some(standing.state));
            tell(&berth.instance, was, &standing);
        }
        berth.shown_at = now;
        self.standings.insert(key.clone(), Arc::new(standing));
        self.changed = true;
    }
}

/// One line for whoever looks after it; that what served does so no longer is worth a warning.
fn tell(instance: &Instance, was: Option<State>, now: &Standing) {
    let name = instance.services.first().map(ToString::to_string).unwrap_or_default();
    let (id, state) = (&instance.id, now.state);
    let why = now.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    let served = was.is_some_and(State::serves);
    if served && matches!(state, State::Down | State::Unhealthy) {
        warn!("{name} {id} {state}{why}, withdrawn");
    } else if served && !state.serves() {
        info!("{name} {id} {state}{why}, withdrawn");
    } else {
        info!("{name} {id} {state}{why}");
    }
}

impl Berth {
    /// Its container ended and was started again between two looks: what was known is of another life.
    fn begin_anew(&mut self, now: Instant) {
        (self.health, self.memo, self.born) = (new_health(&self.instance), Memo::default(), now);
        self.unasked = None;
        self.generation += 1;
    }

    fn hear_nothing(&mut self, why: &str, rules: Rules) {
        let (began, since) = *self.unasked.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        self.health.hear_nothing(why, (since, began.elapsed()), rules, SystemTime::now());
    }

    /// Changes count at once; mere changes of wording, which a server in trouble makes at every probe, do not.
    fn is_worth_showing(&self, shown: &Standing, standing: &Standing, now: Instant) -> bool {
        let same = |shown: &Standing| {
            (shown.state, shown.role, shown.since) == (standing.state, standing.role, standing.since)
        };
        let reworded = same(shown) && shown.error.is_some() && standing.error.is_some();
        if reworded && now.saturating_duration_since(self.shown_at) < ERROR_PATIENCE {
            return false;
        }
        shown != standing
    }
}

/// A number for a container or table. Two that have the same share what one would have.
fn container_number(source: &Source) -> u64 {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    hasher.finish()
}

fn new_health(instance: &Instance) -> Health {
    Health::new(instance.check.kind != CheckKind::None, instance.docker, SystemTime::now())
}
