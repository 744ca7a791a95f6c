//! One role of one host: reads what the store has of it, and writes what the rules say.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::model::steer::ordinal::claim::{Act, Agent, Claimer, Me, Seen, Write as Claim};
use crate::model::steer::ordinal::entry::{Entry, Holding, Stored, key, numbers};
use crate::model::steer::ordinal::told::Standing;
use crate::model::words::key::Prefix;
use crate::model::words::node::NodeRecord;
use crate::model::words::ordinal::{HIGHEST, RoleName};
use crate::state::ordinal::KeptOrdinal;
use crate::store::{Commit, Condition, Event, History, Item, Revision, Store, StoreError, Write, watch_since};

/// Whoever came too late with a write looks again after a part of this: a hundred hosts claim at once.
const JITTER: Duration = Duration::from_millis(20);
/// Pause before a store that is away is asked again. Holders have 2 s in one that went back.
const AGAIN: Duration = Duration::from_millis(200);
/// While something stands against it that no watch of the role tells of, it is looked again so often.
const RECONSIDER: Duration = Duration::from_secs(5);
/// A watch that is silent for longer is not in step any more.
const SILENCE: Duration = Duration::from_secs(10);
/// So many keys of a role are read: more than there are numbers, and whoever writes there chooses how many.
const MOST: usize = 2 * HIGHEST as usize;

const UNKEPT: &str = "the host's number cannot be kept beside the store: one that is restored may give it away";

/// Who claims, and where.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where numbers are.
    pub store: Arc<dyn Store>,
    /// The root of the tree of records.
    pub prefix: Prefix,
    /// This host.
    pub me: Me,
}

/// The task that claims and keeps this host's number in one role.
#[derive(Debug)]
pub struct Desk {
    place: Place,
    role: RoleName,
    claimer: Claimer,
    kept: Option<KeptOrdinal>,
    history: watch::Receiver<History>,
    generation: u64,
    begun: Instant,
    /// Why the number cannot be kept.
    unkept: Option<String>,
}

/// What came of a look.
#[derive(Clone, Debug)]
pub struct Looked {
    /// How the host stands.
    pub standing: Standing,
    /// When it is to be looked again, whatever happens.
    pub again: Option<Instant>,
    /// What was read is of this revision.
    revision: Revision,
}

/// What was read.
struct Read {
    seen: Seen,
    revision: Revision,
}

impl Desk {
    /// One that goes on from what is kept.
    pub fn new(place: Place, role: RoleName, kept: Option<KeptOrdinal>) -> Self {
        let claimer = Claimer::new(place.me.clone(), kept.as_ref().and_then(KeptOrdinal::read));
        let history = place.store.history();
        let generation = history.borrow().generation;
        Self { place, role, claimer, kept, history, generation, begun: Instant::now(), unkept: None }
    }

    /// Whose number it is about.
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    /// Whether a number is remembered.
    pub fn remembers(&self) -> bool {
        self.claimer.holding().is_some()
    }

    /// Gives up what is remembered: the next look claims a new number.
    pub async fn forget(&mut self) {
        self.claimer.forget();
        self.keep(None).await;
    }

    /// Looks and writes until there is nothing left to be done now.
    pub async fn look(&mut self) -> Result<Looked, StoreError> {
        loop {
            let Read { seen, revision } = self.read().await?;
            // After the read: it is what tells that the store went back.
            self.note_history();
            let now = self.begun.elapsed();
            let told = |standing, again| Ok(Looked { standing, again, revision });
            let later = Some(Instant::now() + RECONSIDER);
            match self.claimer.look(now, &time(), &seen) {
                Act::Write(write) => self.write(&write).await?,
                Act::Released { number, revision } => {
                    if self.clear(number, revision).await? {
                        return told(Standing::Released, None);
                    }
                }
                Act::Have(holding) => {
                    self.keep(Some(&holding)).await;
                    return told(Standing::Held { number: holding.number, since: holding.since }, None);
                }
                Act::At(at) => return told(Standing::Claiming { reason: None }, Some(self.begun + at)),
                Act::Lost { number, to } => {
                    let holding = self.claimer.holding().cloned();
                    self.keep(holding.as_ref()).await;
                    return told(Standing::Lost { number, to }, None);
                }
                Act::Refused { machine } => return told(Standing::Refused { machine }, later),
                Act::Full => {
                    let reason = Some(format!("all of {HIGHEST} numbers are taken").into());
                    return told(Standing::Claiming { reason }, later);
                }
            }
        }
    }

    /// Waits until a look may say something else.
    pub async fn wait(&mut self, looked: &Looked) {
        let (begun, claimer) = (self.begun, &mut self.claimer);
        let unchanged = || claimer.unchanged(begun.elapsed());
        let watched = watch(&self.place, &self.role, self.generation, looked, unchanged);
        let again = async {
            match looked.again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            watched = watched => {
                if watched.is_err() {
                    sleep(AGAIN).await;
                }
            }
            () = again => {}
            _ = self.history.changed() => {}
        }
    }

    fn note_history(&mut self) {
        let generation = self.history.borrow_and_update().generation;
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.claimer.went_back(self.begun.elapsed());
        }
    }

    async fn read(&self) -> Result<Read, StoreError> {
        let below = self.place.prefix.ordinals(self.role.as_str());
        let (items, revision) = read_all(&*self.place.store, &below, MOST).await?;
        let stored = |item: &Item| Stored { revision: item.revision, entry: Entry::decode(&item.value) };
        let keys = items.iter().filter_map(|item| Some((item.key.strip_prefix(&below)?, stored(item))));
        let numbers = numbers(keys);
        let agents =
            if self.remembers() && !numbers.values().any(is_released) { Vec::new() } else { self.agents().await? };
        Ok(Read { seen: Seen { numbers, agents }, revision })
    }

    async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        let (items, _) = read_all(&*self.place.store, &self.place.prefix.nodes(), MOST).await?;
        let records = items.iter().filter_map(|item| NodeRecord::decode(&item.value).ok());
        let agent = |record: NodeRecord| Agent {
            number: record.ordinals.get(self.role.as_str()).copied(),
            node: record.node,
            machine: record.machine,
        };
        Ok(records.map(agent).collect())
    }

    async fn write(&mut self, write: &Claim) -> Result<(), StoreError> {
        let own = key(&self.place.prefix, &self.role, write.number);
        let mut conditions = vec![match write.over {
            Some(revision) => Condition::Unchanged(own.clone(), revision),
            None => Condition::Absent(own.clone()),
        }];
        let mut writes = vec![Write::Put { key: own, value: write.entry.encode().into(), lease: 0 }];
        if let Some((number, revision)) = write.instead_of {
            let before = key(&self.place.prefix, &self.role, number);
            conditions.push(Condition::Unchanged(before.clone(), revision));
            writes.push(Write::Delete(before));
        }
        match self.place.store.commit(&conditions, &writes).await? {
            Commit::Done(revision) => self.claimer.wrote(self.begun.elapsed(), write, revision),
            Commit::Refused(_) => {
                let share: f64 = rand::rng().random();
                sleep(JITTER.mul_f64(share)).await;
            }
        }
        Ok(())
    }

    /// Takes note that a person has freed the number; whether nothing came between.
    async fn clear(&mut self, number: u32, revision: Revision) -> Result<bool, StoreError> {
        let own = key(&self.place.prefix, &self.role, number);
        let done =
            self.place.store.commit(&[Condition::Unchanged(own.clone(), revision)], &[Write::Delete(own)]).await?;
        let is_done = matches!(done, Commit::Done(_));
        if is_done {
            self.forget().await;
        }
        Ok(is_done)
    }

    async fn keep(&mut self, holding: Option<&Holding>) {
        let Some(kept) = self.kept.as_ref().filter(|kept| kept.read().as_ref() != holding) else { return };
        self.unkept = kept.write(holding).await.err().map(|error| error.to_string());
        if let Some(error) = &self.unkept {
            tracing::warn!(role = %self.role, error, "{UNKEPT}");
        }
    }

    /// Why the number cannot be kept beside the store, if it cannot.
    pub fn unkept(&self) -> Option<String> {
        self.unkept.as_ref().map(|error| format!("{UNKEPT}: {error}"))
    }
}

fn is_released(stored: &Stored) -> bool {
    stored.entry.as_ref().is_some_and(|entry| entry.released)
}

/// Returns when something of the role has changed that matters to one who stands so; says so whenever nothing has.
async fn watch(
    place: &Place,
    role: &RoleName,
    generation: u64,
    looked: &Looked,
    mut unchanged: impl FnMut(),
) -> Result<(), StoreError> {
    let below = place.prefix.ordinals(role.as_str());
    let mut watch = watch_since(&*place.store, generation, &below, looked.revision + 1).await?;
    let held = looked.standing.number().map(|number| key(&place.prefix, role, number));
    let matters = |event: &Event| match (&held, event) {
        (None, _) => true,
        (Some(held), event) if event.key() == held => true,
        (Some(_), Event::Put(item)) => Entry::decode(&item.value).is_some_and(|entry| entry.node == place.me.node),
        (Some(_), Event::Delete { .. }) => false,
    };
    loop {
        let silent = |_| StoreError::Away { tried: "watching numbers".to_owned(), source: None };
        let batch = timeout(SILENCE, watch.next()).await.map_err(silent)??;
        if batch.events.iter().any(matters) {
            return Ok(());
        }
        unchanged();
    }
}

/// All keys below a prefix, at one revision.
pub(super) async fn read_all(store: &dyn Store, below: &str, most: usize) -> Result<(Vec<Item>, Revision), StoreError> {
    let (mut items, mut at) = (Vec::<Item>::new(), None);
    loop {
        let after = items.last().map(|item| item.key.clone());
        let page = store.read(below, after.as_deref(), at).await?;
        at = Some(page.revision);
        items.extend(page.items);
        if items.len() > most {
            let tried = format!("a look at {below}");
            return Err(StoreError::Refused { tried, why: format!("more than {most} keys are there") });
        }
        if !page.more {
            return Ok((items, page.revision));
        }
    }
}

/// The time as it is written.
pub(super) fn time() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
