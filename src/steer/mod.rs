//! Steering: what the agent tells the servers of a service that has a `[[topology]]` table, and nobody else, ever.
//!
//! The decisions are `model::steer`'s; here they are carried out. Between operations there is no lease, no keepalive and
//! no write.
//!
//! Nothing starts it yet: there is no `[[topology]]` setting, no command and no HTTP path for it, only `tests/topology`.
//!
//! | task | does | is told by |
//! |---|---|---|
//! | [`Follow`], one a service | keeps what the store has of its topology | the store's watch |
//! | [`Desk`], one a service | asks for operations, one after the other | requests, [`Follow`], the registry |
//!
//! | channel | from | to | when full |
//! |---|---|---|---|
//! | [`Request`] | HTTP, the command line | [`Desk`] | the next request is told that an operation is at work |

mod follow;
mod hold;
mod operation;
mod servers;

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rand::RngExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::host::Secrets;
use crate::model::steer::roster::Roster;
use crate::model::steer::topology::Desired;
use crate::model::words::key::Prefix;
use crate::store::Store;
use follow::Follow;
use hold::{Found, Keys};
use operation::{Ground, Task};
use servers::Access;

pub use operation::Outcome;

/// Requests that wait for the one before them.
const WAITING: usize = 4;
/// How often the registry is held against what was brought about.
const LOOK: Duration = Duration::from_millis(500);
/// How long the registry must differ before a hand is raised: an operation's own end takes the probes as long.
const DIFFERS: Duration = Duration::from_millis(1_500);
/// The first and the longest pause after an attempt that came to nothing.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Agents that see the same thing do not all begin at once.
const JITTER_MS: u64 = 200;

/// One `[[topology]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The service.
    pub service: String,
    /// Where its servers may be; nothing is sent elsewhere.
    pub servers: Vec<IpNet>,
    /// The ACL user to be.
    pub user: Option<String>,
    /// The file with the password, a bare name within `secrets`.
    pub password_file: Option<String>,
    /// Where password files are.
    pub secrets: Option<PathBuf>,
    /// How long writes may be held.
    pub max_pause: Duration,
    /// Whether the servers speak TLS.
    pub tls: bool,
}

/// Something to be done about a topology.
#[derive(Debug)]
pub struct Request {
    /// What somebody wants.
    pub desired: Desired,
    /// Whether he overrules what a person may overrule.
    pub force: bool,
    /// Whether he only wants to know.
    pub dry_run: bool,
    /// Told what came of it.
    pub reply: oneshot::Sender<Outcome>,
}

/// What is known of a topology, for those who show it.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The desired topology, as the store has it.
    pub desired: Option<Vec<u8>>,
    /// What was brought about.
    pub applied: Option<crate::model::steer::topology::Applied>,
    /// The last journal.
    pub journal: Option<crate::model::steer::journal::Journal>,
    /// Whether the store has not been read, or is away.
    pub stale: bool,
    /// What came of this agent's last attempt.
    pub last: Option<String>,
}

/// Where a topology is asked for and read.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The service.
    pub service: String,
    /// Where requests are handed in.
    pub requests: mpsc::Sender<Request>,
    /// What is known.
    pub shown: watch::Receiver<Arc<Shown>>,
}

/// The registry's word on a service, now.
pub type Registry = Arc<dyn Fn(&str) -> Roster + Send + Sync>;

/// What a desk stands on.
#[derive(Clone)]
pub struct Inputs {
    /// Where journals are kept.
    pub store: Arc<dyn Store>,
    /// The root of the tree of records.
    pub prefix: Prefix,
    /// This agent's identity.
    pub owner: String,
    /// The registry.
    pub registry: Registry,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("prefix", &self.prefix).field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// Asks for the operations of one service, one after the other.
pub struct Desk {
    settings: Settings,
    ground: Ground,
    registry: Registry,
    requests: mpsc::Receiver<Request>,
    found: watch::Receiver<Arc<Found>>,
    shown: watch::Sender<Arc<Shown>>,
    follow: Option<Follow>,
    /// The trigger that was seen last; those of before this agent's time are not its business.
    trigger: Option<i64>,
    differs_since: Option<Instant>,
    quiet_until: Instant,
    pause: Duration,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk for one table, and where it is reached.
    pub fn new(settings: Settings, inputs: Inputs) -> (Self, Handle) {
        let keys = Keys::new(&inputs.prefix.topology(&settings.service), &settings.service);
        let (follow, found) = Follow::new(Arc::clone(&inputs.store), keys.clone());
        let (hand_in, requests) = mpsc::channel(WAITING);
        let (shown, seen) = watch::channel(Arc::new(Shown { stale: true, ..Shown::default() }));
        let handle = Handle { service: settings.service.clone(), requests: hand_in, shown: seen };
        let ground = Ground {
            store: inputs.store,
            keys,
            owner: inputs.owner,
            service: settings.service.clone(),
            servers: settings.servers.clone(),
            max_pause: settings.max_pause,
        };
        let desk = Self {
            settings,
            ground,
            registry: inputs.registry,
            requests,
            found,
            shown,
            follow: Some(follow),
            trigger: None,
            differs_since: None,
            quiet_until: Instant::now(),
            pause: BACKOFF.0,
        };
        (desk, handle)
    }

    /// Works until `stop`. An operation under way is left as if this host had died: another one ends it.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let Some(follow) = self.follow.take() else { return Ok(()) };
        let work = async {
            tokio::join!(follow.run(), self.work());
        };
        stop.run_until_cancelled(work).await;
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
                    self.show(None);
                }
                _ = ticks.tick() => {}
            }
            self.look().await;
        }
    }

    async fn serve(&mut self, request: Request) {
        let task = Task::Apply { desired: request.desired, force: request.force, dry_run: request.dry_run };
        let outcome = self.operate(&task).await;
        // Whoever asked may have gone: what he asked for is done all the same.
        _ = request.reply.send(outcome);
    }

    /// Does what there is to do unasked.
    async fn look(&mut self) {
        let found = Arc::clone(&self.found.borrow());
        if found.is_away {
            return;
        }
        let trigger = found.trigger.as_ref().map_or(0, |item| item.revision);
        let is_new = self.trigger.replace(trigger).is_some_and(|seen| trigger > seen);
        if is_new && let Some(desired) = &found.desired {
            match Desired::parse(&desired.value) {
                Ok(desired) => self.unasked(&Task::Apply { desired, force: false, dry_run: false }).await,
                Err(error) => warn!(service = self.settings.service, %error, "the desired topology cannot be applied"),
            }
            return;
        }
        if found.hold {
            return;
        }
        if (found.is_unfinished() || self.differs(&found)) && Instant::now() >= self.quiet_until {
            self.unasked(&Task::Heal).await;
        }
    }

    /// Whether the registry has shown something else than what was brought about for a while.
    fn differs(&mut self, found: &Found) -> bool {
        let roster = (self.registry)(&self.settings.service);
        let is_as_applied = found.applied.as_ref().is_none_or(|applied| roster.is_as(applied));
        if is_as_applied {
            (self.differs_since, self.pause) = (None, BACKOFF.0);
            return false;
        }
        self.differs_since.get_or_insert_with(Instant::now).elapsed() >= DIFFERS
    }

    async fn unasked(&mut self, task: &Task) {
        let jitter = rand::rng().random_range(0..JITTER_MS);
        sleep(Duration::from_millis(jitter)).await;
        let outcome = self.operate(task).await;
        self.quiet_until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(BACKOFF.1);
        if !matches!(outcome, Outcome::Busy) {
            info!(service = self.settings.service, %outcome, "an operation that nobody asked for ended");
        }
    }

    async fn operate(&mut self, task: &Task) -> Outcome {
        let outcome = match self.access().await {
            Ok(access) => self.with_access(task, &access).await,
            Err(why) => Outcome::Failed(why),
        };
        self.show(Some(outcome.to_string()));
        outcome
    }

    /// A dead operator's work is ended first, with a hold and with connections of its own.
    async fn with_access(&self, task: &Task, access: &Access) -> Outcome {
        let roster = || (self.registry)(&self.settings.service);
        if let Task::Apply { dry_run, .. } = task {
            match Found::read(&*self.ground.store, &self.ground.keys).await {
                Ok(found) if found.is_unfinished() && *dry_run => return Outcome::Busy,
                Ok(found) if found.is_unfinished() => {
                    let ended = self.ground.operate(&Task::Heal, roster(), access).await;
                    if matches!(ended, Outcome::Busy | Outcome::Failed(_)) {
                        return ended;
                    }
                }
                Ok(_) => {}
                Err(error) => return Outcome::Failed(error.to_string()),
            }
        }
        self.ground.operate(task, roster(), access).await
    }

    async fn access(&self) -> Result<Access, String> {
        let settings = &self.settings;
        let password = match &settings.password_file {
            None => None,
            Some(name) => {
                let read = Secrets::new(settings.secrets.clone()).read(Path::new(name)).await;
                Some(read.map_err(|error| error.to_string())?.to_string())
            }
        };
        Ok(Access { service: settings.service.clone(), user: settings.user.clone(), password, tls: settings.tls })
    }

    fn show(&self, last: Option<String>) {
        let found = self.found.borrow();
        self.shown.send_modify(|shown| {
            *shown = Arc::new(Shown {
                desired: found.desired.as_ref().map(|item| item.value.to_vec()),
                applied: found.applied.clone(),
                journal: found.journal.as_ref().map(|(journal, _)| journal.clone()),
                stale: found.is_away,
                last: last.or_else(|| shown.last.clone()),
            });
        });
    }
}
