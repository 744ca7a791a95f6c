//! One topology's desk: takes what is asked for, sees what is to be done unasked, and has it done, one after the other.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::RngExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::follow::Follow;
use super::glance::Glance;
use super::hold::{Found, Keys};
use super::late::Late;
use super::lookup::{self, Places};
use super::operation::{Ground, Scene, Task};
use super::servers::Access;
use super::show::Show;
use super::{Ask, Handle, Inputs, Metrics, Outcome, Registry, Request, Settings, access};
use crate::model::steer::told::{Paused, Shown};
use crate::model::steer::topology::Desired;
use crate::state::topology::Kept;
use crate::store::Write;

/// Requests that wait for the one before them.
const WAITING: usize = 4;
/// How often the registry is held against what was brought about.
const LOOK: Duration = Duration::from_millis(500);
/// How long the registry must differ before a hand is raised: an operation's own end takes the probes as long, and what
/// is left to do on the old master must not be cut short by anybody.
const DIFFERS: Duration = Duration::from_millis(2_100);
/// The first and the longest pause after an attempt that came to nothing.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Agents that see the same thing do not all begin at once.
const JITTER_MS: u64 = 200;

/// Asks for the operations of one service, one after the other.
pub struct Desk {
    settings: Settings,
    ground: Ground,
    node: String,
    registry: Registry,
    requests: mpsc::Receiver<Request>,
    found: watch::Receiver<Arc<Found>>,
    shown: watch::Sender<Arc<Shown>>,
    metrics: Option<Metrics>,
    helpers: Option<Helpers>,
    /// What is left to do on the last old master.
    late: Option<Late>,
    /// The trigger that was seen last; those of before this agent's time are not its business.
    trigger: Option<i64>,
    /// The trigger that was tried last, and the topology that it was to apply.
    tried: Option<(i64, i64)>,
    /// Whether that one waits for a name.
    unfound: bool,
    differs_since: Option<Instant>,
    quiet_until: Instant,
    pause: Duration,
}

/// Those who work beside the desk.
struct Helpers {
    follow: Follow,
    show: Show,
    glance: Glance,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk for one table, and where it is reached.
    pub fn new(settings: Settings, inputs: Inputs) -> (Self, Handle) {
        let service = settings.service.clone();
        let keys = Keys::new(&inputs.prefix.topology(&service), &service);
        let (follow, found) = Follow::new(Arc::clone(&inputs.store), keys.clone());
        let (show, shown) = Show::new(service.clone(), found.clone(), inputs.kept, inputs.metrics.clone());
        let (hand_in, requests) = mpsc::channel(WAITING);
        let (looks, looked) = mpsc::channel(WAITING);
        let glance = Glance::new(settings.clone(), Arc::clone(&inputs.registry), found.clone(), looked);
        let table = Arc::new(settings.clone());
        let handle = Handle { settings: table, requests: hand_in, shown: shown.subscribe(), looks };
        let ground = Ground {
            store: inputs.store,
            keys,
            owner: inputs.owner,
            service,
            servers: settings.servers.clone(),
            max_pause: settings.max_pause,
            marks: inputs.prefix.marks(&settings.service),
            agents: inputs.agents,
        };
        let desk = Self {
            settings,
            ground,
            node: inputs.node,
            registry: inputs.registry,
            requests,
            found,
            shown,
            metrics: inputs.metrics,
            helpers: Some(Helpers { follow, show, glance }),
            late: None,
            trigger: None,
            tried: None,
            unfound: false,
            differs_since: None,
            quiet_until: Instant::now(),
            pause: BACKOFF.0,
        };
        (desk, handle)
    }

    /// Works until `stop`. An operation under way is left as if this host had died: another one ends it.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let Some(Helpers { follow, show, glance }) = self.helpers.take() else { return Ok(()) };
        let work = async {
            tokio::join!(follow.run(), show.run(), glance.run(), self.work());
        };
        stop.run_until_cancelled(Box::pin(work)).await;
        Ok(())
    }

    async fn work(&mut self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Nothing is lost with a branch that is dropped: a request stays in its channel, a change in its own.
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => std::future::pending().await,
                },
                changed = self.found.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                () = Late::due(self.late.as_ref()) => {
                    if let Some(late) = self.late.take() {
                        late.close().await;
                    }
                }
                _ = ticks.tick() => {}
            }
            self.look().await;
        }
    }

    async fn serve(&mut self, request: Request) {
        if request.reply.is_closed() {
            return;
        }
        let outcome = match request.ask {
            Ask::Apply { desired, force, dry_run } => self.operate(&Task::Apply { desired, force, dry_run }).await,
            Ask::Pause(pause) => self.pause(pause).await,
            Ask::GiveAway => self.give_away(&request.reply).await,
        };
        // Whoever asked may have gone: what he asked for is done all the same.
        _ = request.reply.send(outcome);
    }

    /// Makes the first that may be master in place of this host's own; done where that is elsewhere already. None is
    /// tried any more once whoever asked has gone: his host is withdrawn by then.
    async fn give_away(&mut self, asker: &oneshot::Sender<Outcome>) -> Outcome {
        let applied = self.shown.borrow().applied.clone();
        let roster = (self.registry)(&self.settings.service);
        let Some((applied, names)) = applied.as_ref().and_then(|applied| {
            let names = roster.successors(applied, &self.node)?;
            Some((applied, names))
        }) else {
            return Outcome::Done { gap: None };
        };
        let mut outcome = Outcome::Refused(vec!["no replica on another host is ready".to_owned()]);
        for name in names {
            let desired = Desired::successor(&self.settings.service, applied, name);
            outcome = self.operate(&Task::Apply { desired, force: false, dry_run: false }).await;
            if !matches!(outcome, Outcome::Refused(_)) || asker.is_closed() {
                break;
            }
        }
        outcome
    }

    async fn pause(&self, pause: bool) -> Outcome {
        let key = self.ground.keys.paused.clone();
        let write = if pause {
            let since = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let paused = Paused { since, by: self.node.clone() };
            let value = serde_json::to_vec(&paused).expect("text always encodes");
            Write::Put { key, value: value.into(), lease: 0 }
        } else {
            Write::Delete(key)
        };
        match self.ground.store.commit(&[], &[write]).await {
            Ok(_) => Outcome::Done { gap: None },
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    /// Does what there is to do unasked.
    async fn look(&mut self) {
        let found = Arc::clone(&self.found.borrow());
        if found.is_away || found.paused.is_some() && !found.is_unfinished() {
            return;
        }
        let trigger = found.trigger.as_ref().map_or(0, |item| item.revision);
        let seen = *self.trigger.get_or_insert(trigger);
        if trigger > seen && self.tried.is_none_or(|(tried, _)| tried != trigger) {
            // Nothing of this one has come to nothing yet.
            (self.quiet_until, self.pause) = (Instant::now(), BACKOFF.0);
        }
        if Instant::now() < self.quiet_until {
            return;
        }
        if trigger > seen {
            self.triggered(&found, trigger).await;
        } else if !found.hold && self.late.is_none() && (found.is_unfinished() || self.differs(&found)) {
            self.unasked(&Task::Heal).await;
        }
    }

    /// Applies the desired topology again. What is refused ends the trigger; all else is tried again.
    ///
    /// A name that DNS does not answer for may come yet. Its trigger waits for it until another topology is desired:
    /// that one is for a trigger of its own, or somebody else's operation has succeeded and written it.
    async fn triggered(&mut self, found: &Found, trigger: i64) {
        let revision = found.desired.as_ref().map_or(0, |desired| desired.revision);
        let is_replaced = self.unfound && self.tried.is_some_and(|tried| tried.0 == trigger && tried.1 != revision);
        (self.tried, self.unfound) = (Some((trigger, revision)), false);
        let again = match found.desired.as_ref().map(|desired| Desired::parse(&desired.value)) {
            None => false,
            Some(_) if is_replaced => {
                info!(service = self.settings.service, "another topology is desired than a trigger was waiting for");
                false
            }
            Some(Ok(desired)) => {
                let outcome = self.unasked(&Task::Apply { desired, force: false, dry_run: false }).await;
                self.unfound = matches!(outcome, Outcome::Unfound(_));
                self.unfound || matches!(outcome, Outcome::Busy | Outcome::Failed(_) | Outcome::Unchanged(_))
            }
            Some(Err(error)) => {
                warn!(service = self.settings.service, %error, "the desired topology cannot be applied");
                false
            }
        };
        if !again {
            self.trigger = Some(trigger);
        }
    }

    /// Whether the registry has shown something else than what was brought about for a while.
    fn differs(&mut self, found: &Found) -> bool {
        let roster = (self.registry)(&self.settings.service);
        let applied = found.applied.clone().or_else(|| self.shown.borrow().applied.clone());
        if applied.is_none_or(|applied| roster.is_as(&applied)) {
            (self.differs_since, self.pause) = (None, BACKOFF.0);
            return false;
        }
        self.differs_since.get_or_insert_with(Instant::now).elapsed() >= DIFFERS
    }

    async fn unasked(&mut self, task: &Task) -> Outcome {
        let jitter = rand::rng().random_range(0..JITTER_MS);
        sleep(Duration::from_millis(jitter)).await;
        let outcome = self.operate(task).await;
        self.quiet_until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(BACKOFF.1);
        if !matches!(outcome, Outcome::Busy) {
            info!(service = self.settings.service, %outcome, "an operation that nobody asked for ended");
        }
        outcome
    }

    async fn operate(&mut self, task: &Task) -> Outcome {
        // Its connection would be ended by the fence in any case.
        self.late = None;
        let outcome = match access(&self.settings).await {
            Ok(access) => self.with_access(task, &access).await,
            Err(why) => Outcome::Failed(why),
        };
        if let Some(metrics) = &self.metrics {
            metrics.count(&self.settings.service, &outcome);
        }
        let words = outcome.to_string();
        self.shown.send_modify(|shown| *shown = Arc::new(Shown { last: Some(words), ..Shown::clone(shown) }));
        outcome
    }

    /// A dead operator's work is ended first, with a hold and with connections of its own.
    async fn with_access(&mut self, task: &Task, access: &Access) -> Outcome {
        if let Task::Apply { dry_run, .. } = task {
            match Found::read(&*self.ground.store, &self.ground.keys).await {
                Ok(found) if found.is_unfinished() && *dry_run => return Outcome::Busy,
                Ok(found) if found.paused.is_some() && !*dry_run => return paused(&found),
                Ok(found) if found.is_unfinished() => {
                    let ended = self.carry_out(&Task::Heal, access).await;
                    if matches!(ended, Outcome::Busy | Outcome::Failed(_)) {
                        return ended;
                    }
                }
                Ok(_) => {}
                Err(error) => return Outcome::Failed(error.to_string()),
            }
        }
        self.carry_out(task, access).await
    }

    async fn carry_out(&mut self, task: &Task, access: &Access) -> Outcome {
        let shown = Arc::clone(&self.shown.borrow());
        let roster = (self.registry)(&self.settings.service);
        let places = match task {
            Task::Apply { desired, .. } => lookup::places(&self.settings, &shown, &roster, desired).await,
            Task::Heal => Ok(Places::new()),
        };
        let places = match places {
            Ok(places) => places,
            Err(unfound) => return Outcome::Unfound(unfound),
        };
        let scene = Scene {
            roster,
            places,
            access,
            kept: Kept { applied: shown.applied.clone(), journal: shown.journal.clone() },
            differs_for: self.differs_since.map(|since| since.elapsed()).unwrap_or_default(),
        };
        let (outcome, late) = self.ground.operate(task, scene).await;
        self.late = late;
        outcome
    }
}

fn paused(found: &Found) -> Outcome {
    let paused = found.paused.clone().unwrap_or_default();
    Outcome::Paused(format!("paused on {} since {}", paused.by, paused.since))
}
