//! The worker: one loop that follows the offer, starts the probes that are due, hears their answers and publishes
//! standings. All probes run within its one task; a thousand of them are a thousand small futures.
//!
//! Nothing is polled and nothing waits to be batched: a change of the offer or of an answer is out before the loop
//! turns again.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use imbl::ordmap::DiffItem;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::metrics::{End, Metrics};
use super::question::{self, Answer, Memo, Question};
use super::schedule::{self, Class, Id, Schedule};
use super::{Adopted, Adoptions, Settings};
use crate::model::health::{Health, Outcome, Verdict};
use crate::model::instance::{CheckKind, Instance, InstanceKey, Offer, Source};
use crate::model::record::Text;
use crate::model::standing::{Standing, Standings};

/// An error text that differs from the last one shown is shown after that long, unless the state changes before.
const ERROR_PATIENCE: Duration = Duration::from_secs(1);

/// Why the fleet ended.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Nobody says any more what is to be offered.
    #[error("the offer ended")]
    OfferEnded,
}

/// Follows the offer and keeps every instance's standing.
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    offer: watch::Receiver<Arc<Offer>>,
    adopted: watch::Receiver<Arc<Adoptions>>,
    standings: watch::Sender<Arc<Standings>>,
    metrics: Metrics,
    state: Berths,
    asking: FuturesUnordered<BoxFuture<'static, Landed>>,
}

/// Everything known of this host's instances.
#[derive(Debug)]
struct Berths {
    offer: Arc<Offer>,
    ids: BTreeMap<InstanceKey, Id>,
    berths: HashMap<Id, Berth>,
    next_id: Id,
    schedule: Schedule,
    standings: Standings,
    changed: bool,
    /// Ids of records that have been used, or whose time is over.
    adopted: HashSet<Text>,
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
}

/// A probe that is over.
struct Landed {
    id: Id,
    generation: u64,
    class: Class,
    kind: CheckKind,
    result: Result<(Answer, Memo), Box<dyn Any + Send>>,
}

impl Fleet {
    /// A fleet that follows `offer`, and where its standings are told. `adopted` may come late, as it is read from the
    /// store; see [`Adoptions`].
    pub fn new(
        settings: Settings,
        offer: watch::Receiver<Arc<Offer>>,
        adopted: watch::Receiver<Arc<Adoptions>>,
        registry: &mut Registry,
    ) -> (Self, watch::Receiver<Arc<Standings>>) {
        let (standings, receiver) = watch::channel(Arc::default());
        let state = Berths {
            offer: Arc::default(),
            ids: BTreeMap::new(),
            berths: HashMap::new(),
            next_id: 0,
            schedule: Schedule::new(),
            standings: Standings::new(),
            changed: false,
            adopted: HashSet::new(),
        };
        let metrics = Metrics::new(registry);
        (Self { settings, offer, adopted, standings, metrics, state, asking: FuturesUnordered::new() }, receiver)
    }

    /// Works until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), FleetError> {
        self.offer.mark_changed();
        let mut adoptions_end = false;
        loop {
            self.start_due();
            self.publish();
            let wake = self.state.schedule.wake(Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = self.offer.changed() => {
                    changed.map_err(|_| FleetError::OfferEnded)?;
                    self.follow_offer();
                }
                changed = self.adopted.changed(), if !adoptions_end => {
                    adoptions_end = changed.is_err();
                    self.adopt();
                }
                Some(landed) = self.asking.next() => self.hear(landed),
                () = sleep_until(wake), if wake.is_some() => {}
            }
        }
    }

    fn follow_offer(&mut self) {
        let new = Arc::clone(&self.offer.borrow_and_update());
        let old = std::mem::replace(&mut self.state.offer, Arc::clone(&new));
        let now = Instant::now();
        for change in old.instances.diff(&new.instances) {
            match change {
                DiffItem::Add(key, instance) => self.state.add(key, instance, now, &self.metrics),
                DiffItem::Update { new: (key, instance), .. } => self.state.update(key, instance, now, &self.metrics),
                DiffItem::Remove(key, _) => self.state.remove(key, &self.metrics),
            }
        }
        self.adopt();
    }

    /// Uses the records taken over for instances that are there and have not spoken for themselves.
    fn adopt(&mut self) {
        let adopted = Arc::clone(&self.adopted.borrow_and_update());
        for (id, record) in adopted.iter() {
            self.state.adopt(id, record, &self.metrics);
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while let Some((id, class)) = self.state.schedule.next(now) {
            let Some(probe) = self.state.begin(id, class, now, &self.settings) else {
                self.state.schedule.landed(class);
                continue;
            };
            self.asking.push(probe);
        }
        self.metrics.in_flight(self.asking.len());
    }

    fn hear(&mut self, landed: Landed) {
        self.state.schedule.landed(landed.class);
        self.state.hear(landed, &self.settings, &self.metrics);
    }

    fn publish(&mut self) {
        if std::mem::take(&mut self.state.changed) {
            self.standings.send_replace(Arc::new(self.state.standings.clone()));
        }
    }
}

impl Berths {
    fn add(&mut self, key: &InstanceKey, instance: &Arc<Instance>, now: Instant, metrics: &Metrics) {
        let id = self.next_id;
        self.next_id += 1;
        let health = Health::new(is_probed(instance), instance.docker, SystemTime::now());
        let berth = Berth {
            instance: Arc::clone(instance),
            health,
            born: now,
            memo: Memo::default(),
            generation: 0,
            asked_at: now,
            shown_at: now,
        };
        self.ids.insert(key.clone(), id);
        self.berths.insert(id, berth);
        self.ask_at_once(id, now);
        self.show(id, now, metrics);
    }

    fn update(&mut self, key: &InstanceKey, instance: &Arc<Instance>, now: Instant, metrics: &Metrics) {
        let Some(&id) = self.ids.get(key) else { return };
        let Some(berth) = self.berths.get_mut(&id) else { return };
        let before = std::mem::replace(&mut berth.instance, Arc::clone(instance));
        let wanted = berth.health.wants_probes();
        let asked_otherwise = before.check != instance.check;
        if asked_otherwise {
            berth.memo = Memo::default();
            berth.health.set_probed(is_probed(instance), SystemTime::now());
        }
        berth.health.hear_docker(instance.docker, SystemTime::now());
        let wants = berth.health.wants_probes();
        if asked_otherwise || wanted != wants {
            berth.generation += 1;
            berth.born = if wanted { berth.born } else { now };
            self.ask_at_once(id, now);
        }
        self.show(id, now, metrics);
    }

    fn remove(&mut self, key: &InstanceKey, metrics: &Metrics) {
        let Some(id) = self.ids.remove(key) else { return };
        self.schedule.cancel(id);
        self.berths.remove(&id);
        if let Some(shown) = self.standings.remove(key) {
            metrics.moved(Some(shown.state), None);
            self.changed = true;
        }
    }

    fn adopt(&mut self, record_id: &Text, record: &Adopted, metrics: &Metrics) {
        if self.adopted.contains(record_id) {
            return;
        }
        let now = Instant::now();
        let of_this_record = |instance: &Instance| instance.id == *record_id && is_of(instance, record);
        let ids = self.berths.iter().filter(|(_, berth)| of_this_record(&berth.instance)).map(|(id, _)| *id);
        let ids: Vec<Id> = ids.collect();
        for id in &ids {
            if let Some(berth) = self.berths.get_mut(id) {
                berth.health.adopt(record.since, record.role, SystemTime::now());
                self.show(*id, now, metrics);
            }
        }
        if !ids.is_empty() || self.offer.listed {
            self.adopted.insert(Arc::clone(record_id));
        }
    }

    /// Plans the first probe of an instance that is new, or new to its check.
    fn ask_at_once(&mut self, id: Id, now: Instant) {
        let Some(berth) = self.berths.get_mut(&id) else { return };
        if !berth.health.wants_probes() {
            self.schedule.cancel(id);
        } else if berth.instance.check.target.is_none() {
            self.schedule.cancel(id);
            let outcome = Outcome::fails("no address of this host to ask at");
            // One word is enough here: there will be no other.
            let rules = crate::model::health::Rules { rise: 1, fall: 1 };
            berth.health.hear_probe(outcome, rules, SystemTime::now());
        } else {
            let class = if berth.health.is_first() { Class::First { born: berth.born } } else { Class::Steady };
            self.schedule.plan(id, now, class);
        }
    }

    /// Makes the probe that is due.
    fn begin(&mut self, id: Id, class: Class, now: Instant, settings: &Settings) -> Option<BoxFuture<'static, Landed>> {
        let berth = self.berths.get_mut(&id)?;
        let check = &berth.instance.check;
        let question = Question {
            instance: Arc::clone(&berth.instance),
            target: check.target?,
            timeout: check.timeout.unwrap_or(settings.timeout),
            first: berth.health.is_first(),
            unsure: berth.health.is_first() || berth.health.is_down(),
        };
        berth.asked_at = now;
        let (kind, generation) = (check.kind, berth.generation);
        let mut memo = std::mem::take(&mut berth.memo);
        let probe = async move {
            let answer = question::ask(&question, &mut memo).await;
            (answer, memo)
        };
        let guarded = AssertUnwindSafe(probe).catch_unwind();
        Some(guarded.map(move |result| Landed { id, generation, class, kind, result }).boxed())
    }

    fn hear(&mut self, landed: Landed, settings: &Settings, metrics: &Metrics) {
        let Landed { id, generation, kind, result, .. } = landed;
        let end = End::of(&result);
        metrics.landed(kind, end);
        let Some(berth) = self.berths.get_mut(&id).filter(|berth| berth.generation == generation) else { return };
        let was_first = berth.health.is_first();
        let outcome = match result {
            Ok((answer, memo)) => {
                berth.memo = memo;
                berth.heard(answer)
            }
            Err(_) => {
                error!(instance = %berth.instance.key, check = %kind, "a probe panicked");
                Some(Outcome::fails("the probe itself failed"))
            }
        };
        if let Some(outcome) = outcome {
            berth.health.hear_probe(outcome, settings.rules, SystemTime::now());
        }
        self.plan_next(id, was_first, settings);
        self.show(id, Instant::now(), metrics);
    }

    fn plan_next(&mut self, id: Id, was_first: bool, settings: &Settings) {
        let Some(berth) = self.berths.get(&id) else { return };
        let now = Instant::now();
        let interval = berth.instance.check.interval.unwrap_or(settings.interval);
        let dice = rand::random::<f64>();
        let first = berth.health.is_first();
        let gap = if was_first && !first {
            schedule::spread(interval, dice)
        } else {
            schedule::gap(first.then(|| now.saturating_duration_since(berth.born)), interval, dice)
        };
        let class = if first { Class::First { born: berth.born } } else { Class::Steady };
        self.schedule.plan(id, (berth.asked_at + gap).max(now), class);
    }

    /// Brings what is shown of an instance up to what is known of it.
    fn show(&mut self, id: Id, now: Instant, metrics: &Metrics) {
        let Some(berth) = self.berths.get_mut(&id) else { return };
        let standing = berth.health.standing(berth.instance.role);
        let key = &berth.instance.key;
        let shown = self.standings.get(key);
        if shown.is_some_and(|shown| !berth.is_worth_showing(shown, &standing, now)) {
            return;
        }
        let from = shown.map(|shown| shown.state);
        if from != Some(standing.state) {
            metrics.moved(from, Some(standing.state));
            let was = from.map_or("new", crate::model::standing::State::as_str);
            info!(instance = %key, id = ?berth.instance.id, was, now = %standing.state, error = ?standing.error,
                "instance changed its state");
        }
        berth.shown_at = now;
        self.standings.insert(key.clone(), Arc::new(standing));
        self.changed = true;
    }
}

impl Berth {
    /// What an answer means for its health; nothing when it was no answer.
    fn heard(&self, answer: Answer) -> Option<Outcome> {
        match answer {
            Answer::Heard(outcome) => Some(outcome),
            Answer::Unasked(error) => {
                warn!(instance = %self.instance.key, %error, "this host could not probe");
                None
            }
        }
    }

    /// Changes count at once; mere changes of wording, which a server in trouble makes at every probe, do not.
    fn is_worth_showing(&self, shown: &Standing, standing: &Standing, now: Instant) -> bool {
        let reworded = shown.error.is_some() && standing.error.is_some() && shown.error != standing.error;
        if reworded && now.saturating_duration_since(self.shown_at) < ERROR_PATIENCE {
            let same = Standing { error: standing.error.clone(), ..shown.clone() };
            return same != *standing;
        }
        shown != standing
    }
}

impl End {
    fn of<E>(result: &Result<(Answer, Memo), E>) -> Self {
        match result {
            Ok((Answer::Heard(outcome), _)) if outcome.verdict == Verdict::Fails => Self::Fails,
            Ok((Answer::Heard(_), _)) => Self::Serves,
            Ok((Answer::Unasked(_), _)) => Self::Unasked,
            Err(_) => Self::Panic,
        }
    }
}

fn is_probed(instance: &Instance) -> bool {
    instance.check.kind != CheckKind::None
}

/// Whether `record` was published for this very container.
fn is_of(instance: &Instance, record: &Adopted) -> bool {
    match (&instance.key.source, &record.container) {
        (Source::Container(id), Some(short)) => id.starts_with(&**short),
        (Source::Static(_), None) => true,
        _ => false,
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}
