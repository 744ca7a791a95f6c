//! The watch: subscribe, list, look at each container, and again after any break.
//!
//! The API version is asked for at every connect, since engines are upgraded under a running agent. The list is asked
//! for only once the engine has answered the subscription, so that nothing falls between; and once more a moment later,
//! since dockerd answers just before it subscribes. A full channel of sightings makes the watch wait; the engine then
//! keeps some thousand events, and drops the others: the list that is compared every half minute makes good for those.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::ClientVersion;
use bollard::models::EventMessage;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hyper::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::engine::{Engine, EngineError, Events};
use super::events::{Heard, event_of};
use super::inspect::container_of;
use super::listing::entries;
use super::networks::Networks;
use super::tracker::{Look, Tracker};
use crate::model::offer::container::{Scope, Sighting};
use crate::model::words::record::Text;

/// How soon after the subscription the list is compared for the first time.
const SECOND_LIST: Duration = Duration::from_secs(1);
/// A list or an inspect that is late is given twice as long the next time, up to so many times as long: an engine that
/// is slow answers at last, and is not asked in vain for ever.
const MOST_PATIENCE: u32 = 16;

const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };
const NEWEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 52 };

/// Where the engine is, and how long it is waited for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine's socket.
    pub endpoint: Endpoint,
    /// How long one inspect may take at first.
    pub inspect_deadline: Duration,
    /// How long the version, the subscription and a ping may take: a loaded engine takes seconds, and each break means
    /// looking at every container anew.
    pub answer_deadline: Duration,
    /// How long a list may take at first.
    pub list_deadline: Duration,
    /// How often a silent engine is asked whether it is there.
    pub ping_interval: Duration,
    /// How often the list is compared, should the engine have dropped an event.
    pub relist_interval: Duration,
    /// The longest wait between two attempts to connect.
    pub longest_backoff: Duration,
}

impl Settings {
    /// The usual deadlines for an engine.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            inspect_deadline: Duration::from_secs(10),
            answer_deadline: Duration::from_secs(10),
            list_deadline: Duration::from_secs(10),
            ping_interval: Duration::from_secs(5),
            relist_interval: Duration::from_secs(30),
            longest_backoff: Duration::from_secs(1),
        }
    }
}

#[derive(Debug)]
struct Metrics {
    up: Gauge,
    connects: Counter,
    events: Counter,
    unreadable: Counter,
    inspects: Counter,
    failed: Counter,
}

impl Metrics {
    fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            up: Gauge::default(),
            connects: Counter::default(),
            events: Counter::default(),
            unreadable: Counter::default(),
            inspects: Counter::default(),
            failed: Counter::default(),
        };
        registry.register("wharf_docker_up", "1 while the engine answers", metrics.up.clone());
        registry.register("wharf_docker_connects", "Times the event stream was opened", metrics.connects.clone());
        registry.register("wharf_docker_events", "Events of the engine that were read", metrics.events.clone());
        let help = "Events of the engine that could not be read";
        registry.register("wharf_docker_unreadable_events", help, metrics.unreadable.clone());
        registry.register("wharf_docker_inspects", "Inspects that were made", metrics.inspects.clone());
        let help = "Inspects without a usable answer";
        registry.register("wharf_docker_failed_inspects", help, metrics.failed.clone());
        metrics
    }
}

/// The worker that watches one engine.
#[derive(Debug)]
pub struct Watch {
    settings: Settings,
    sightings: mpsc::Sender<Sighting>,
    metrics: Metrics,
    tracker: Tracker,
    heard: Heard,
    networks: Networks,
    /// How many times as long as at first the next list may take.
    list_patience: u32,
    /// The engine refuses every version known here: its own is used, unknown as it is.
    newer: bool,
    /// What was last logged of the engine: it answers, or not.
    up: Option<bool>,
}

/// A host without an engine: it has no container, which is known at once.
pub async fn no_engine(sightings: mpsc::Sender<Sighting>, stop: CancellationToken) -> Result<(), NobodyListens> {
    for sighting in [Sighting::Engine(true), Sighting::Listed(BTreeSet::new()), Sighting::InStep] {
        sightings.send(sighting).await.map_err(|_| NobodyListens)?;
    }
    stop.cancelled().await;
    Ok(())
}

/// Nobody takes the sightings any more.
#[derive(Debug, thiserror::Error)]
#[error("the inventory has ended")]
pub struct NobodyListens;

/// How one connection ended.
enum Ended {
    Stopped,
    NobodyListens,
    Broken(EngineError),
}

impl From<EngineError> for Ended {
    fn from(error: EngineError) -> Self {
        Self::Broken(error)
    }
}

enum Done {
    Looked(Text, Look, Vec<(Text, Scope)>),
    Listed(Result<String, EngineError>, bool),
    Pinged(Result<(), EngineError>),
}

type Jobs = FuturesUnordered<BoxFuture<'static, Done>>;

impl Watch {
    /// A watch that tells `sightings` what it sees.
    pub fn new(settings: Settings, sightings: mpsc::Sender<Sighting>, registry: &mut Registry) -> Self {
        let metrics = Metrics::new(registry);
        Self {
            settings,
            sightings,
            metrics,
            tracker: Tracker::default(),
            heard: Heard::default(),
            networks: Networks::default(),
            list_patience: 1,
            newer: false,
            up: None,
        }
    }

    /// Watches until told to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), NobodyListens> {
        let first = Duration::from_millis(50).min(self.settings.longest_backoff);
        let mut backoff = first;
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => Ended::Stopped,
                ended = self.connection() => ended,
            };
            let error = match ended {
                Ended::Stopped => return Ok(()),
                Ended::NobodyListens => return Err(NobodyListens),
                Ended::Broken(error) => error,
            };
            self.tracker.disconnected();
            self.tracker.told.clear();
            self.set_up(false, &error.to_string(), &error);
            if self.sightings.send(Sighting::Engine(false)).await.is_err() {
                return Err(NobodyListens);
            }
            backoff = if began.elapsed() > Duration::from_secs(5) { first } else { backoff };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(self.settings.longest_backoff);
        }
    }

    fn set_up(&mut self, up: bool, what: &str, error: &dyn std::error::Error) {
        if self.up == Some(up) {
            return;
        }
        self.up = Some(up);
        self.metrics.up.set(i64::from(up));
        if !up {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(engine = %self.settings.endpoint, error = what, cause, "engine is away; trying again");
        }
    }

    /// One connection, from negotiation to whatever ends it.
    async fn connection(&mut self) -> Ended {
        match self.watch().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn watch(&mut self) -> Result<std::convert::Infallible, Ended> {
        let version = self.negotiate().await?;
        let engine = Engine::new(self.settings.endpoint.clone(), Some(version));
        let mut events = self.subscribe(&engine).await?;
        self.metrics.connects.inc();
        if self.up != Some(true) {
            tracing::info!(engine = %self.settings.endpoint, api = %version, "engine answers");
        }
        self.up = Some(true);
        self.metrics.up.set(1);
        self.tell(Sighting::Engine(true)).await?;
        let mut jobs = Jobs::new();
        jobs.push(self.list(&engine, true));
        let mut ping_at = tokio::time::interval(self.settings.ping_interval);
        let mut relist_at = tokio::time::interval(self.settings.relist_interval);
        ping_at.reset();
        relist_at.reset_after(SECOND_LIST.min(self.settings.relist_interval));
        loop {
            self.start_looks(&engine, &jobs);
            self.tell_all().await?;
            let timer = self.tracker.next_timer().map(tokio::time::Instant::from_std);
            let timer = async {
                match timer {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = events.next() => self.take_event(event)?,
                Some(done) = jobs.next() => {
                    if let Some(next) = self.take_done(done, &engine)? {
                        jobs.push(next);
                    }
                }
                () = timer => self.tracker.tick(Instant::now()),
                _ = ping_at.tick() => jobs.push(self.ping(&engine)),
                _ = relist_at.tick(), if !self.tracker.is_listing() => jobs.push(self.list(&engine, false)),
            }
        }
    }

    /// Opens the event stream. An engine that refuses the newest version known here is asked for its own next time.
    async fn subscribe(&mut self, engine: &Engine) -> Result<Events, EngineError> {
        let opened = engine.events(self.heard.resume(), self.settings.answer_deadline).await;
        if let Err(EngineError::Status(_, StatusCode::BAD_REQUEST, _)) = &opened {
            self.newer = !self.newer;
        }
        opened
    }

    /// The newest version that both sides speak. What answers no ping (a proxy may not let it through) has a version.
    async fn negotiate(&self) -> Result<ClientVersion, EngineError> {
        let engine = Engine::new(self.settings.endpoint.clone(), None);
        let deadline = self.settings.answer_deadline;
        let told = match engine.ping(deadline).await {
            Ok(told) => told,
            Err(EngineError::Status(..)) => None,
            Err(error) => return Err(error),
        };
        let told = match told {
            Some(version) => version,
            None => engine.version(deadline).await?,
        };
        if told < OLDEST {
            let why = format!("the engine speaks API {told}; {OLDEST} or newer is needed");
            return Err(EngineError::Unreadable("/_ping".to_owned(), why));
        }
        Ok(if self.newer || told < NEWEST { told } else { NEWEST })
    }

    fn list(&mut self, engine: &Engine, look_at_all: bool) -> BoxFuture<'static, Done> {
        self.tracker.list_asked();
        let (engine, deadline) = (engine.clone(), self.settings.list_deadline * self.list_patience);
        Box::pin(async move { Done::Listed(engine.list(deadline).await, look_at_all) })
    }

    fn ping(&self, engine: &Engine) -> BoxFuture<'static, Done> {
        let (engine, deadline) = (engine.clone(), self.settings.answer_deadline);
        Box::pin(async move { Done::Pinged(engine.ping(deadline).await.map(|_| ())) })
    }

    fn start_looks(&mut self, engine: &Engine, jobs: &Jobs) {
        while let Some(id) = self.tracker.next_look() {
            self.metrics.inspects.inc();
            let patience = 2_u32.saturating_pow(self.tracker.failures(&id)).min(MOST_PATIENCE);
            let (engine, networks) = (engine.clone(), self.networks.clone());
            let deadline = self.settings.inspect_deadline * patience;
            jobs.push(Box::pin(async move {
                let (look, news) = look(&id, &engine, &networks, deadline).await;
                Done::Looked(id, look, news)
            }));
        }
    }

    /// One that cannot be read ends the connection, and is not asked for again: the list says what it may have said.
    fn take_event(&mut self, event: Result<EventMessage, EngineError>) -> Result<(), EngineError> {
        let event = event.inspect_err(|error| {
            if matches!(error, EngineError::Unreadable(..)) {
                self.metrics.unreadable.inc();
                self.heard.forget();
            }
        })?;
        if let Some(event) = event_of(&event) {
            self.metrics.events.inc();
            let now = Instant::now();
            if let Some(age) = self.heard.take(&event, now) {
                self.tracker.event(&event.id.as_str().into(), event.what, age, now);
            }
        }
        Ok(())
    }

    /// Takes in what a job brought; says what is to be asked next, if anything.
    fn take_done(&mut self, done: Done, engine: &Engine) -> Result<Option<BoxFuture<'static, Done>>, EngineError> {
        match done {
            Done::Pinged(answer) => alive(answer)?,
            // Whether the engine is there the pings tell: a late list is no reason to begin anew, and to be later
            // still.
            Done::Listed(Err(error @ EngineError::Deadline(..)), look_at_all) => {
                self.list_patience = (self.list_patience * 2).min(MOST_PATIENCE);
                tracing::warn!(%error, "the engine's list is late, waiting longer for the next");
                self.tracker.list_failed();
                return Ok(Some(self.list(engine, look_at_all)));
            }
            Done::Listed(answer, look_at_all) => {
                let unreadable = |why| EngineError::Unreadable("/containers/json".to_owned(), why);
                let list = entries(&answer?).map_err(unreadable)?;
                self.heard.caught_up();
                self.tracker.listed(list, look_at_all);
            }
            Done::Looked(id, look, news) => {
                self.networks.learn(news);
                if let Look::Failed(why) = &look {
                    self.metrics.failed.inc();
                    tracing::debug!(container = ?id, why = ?why, "container could not be inspected");
                }
                self.tracker.looked(&id, look, Instant::now());
            }
        }
        Ok(None)
    }

    async fn tell_all(&mut self) -> Result<(), Ended> {
        while let Some(sighting) = self.tracker.told.pop_front() {
            self.tell(sighting).await?;
        }
        Ok(())
    }

    async fn tell(&self, sighting: Sighting) -> Result<(), Ended> {
        self.sightings.send(sighting).await.map_err(|_| Ended::NobodyListens)
    }
}

/// Whether a ping says that the engine is there and still takes our version; a proxy that lets no ping through is
/// there.
fn alive(answer: Result<(), EngineError>) -> Result<(), EngineError> {
    match answer {
        Err(EngineError::Status(_, status, _)) if status.is_client_error() && status != StatusCode::BAD_REQUEST => {
            Ok(())
        }
        answer => answer,
    }
}

/// Looks at one container, and at those of its networks that matter and are not known yet; these are told beside.
async fn look(id: &Text, engine: &Engine, networks: &Networks, deadline: Duration) -> (Look, Vec<(Text, Scope)>) {
    let mut look = match engine.inspect(id, deadline).await {
        Ok(body) => look_of(id, &body),
        Err(EngineError::Status(_, StatusCode::NOT_FOUND, _)) => Look::Missing,
        Err(error) => failed(&error),
    };
    let mut news = Vec::new();
    if let Look::Facts(facts) = &mut look {
        match networks.fill_in(Arc::make_mut(facts), engine, deadline).await {
            Ok(found) => news = found,
            Err(error) => look = failed(&error),
        }
    }
    (look, news)
}

fn failed(error: &EngineError) -> Look {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Look::Failed(format!("{error}{cause}"))
}

/// What an inspect's answer says; a panic while reading it costs that container only.
fn look_of(id: &Text, body: &str) -> Look {
    match catch_unwind(AssertUnwindSafe(|| container_of(body.as_bytes()))) {
        Ok(Ok(facts)) if facts.id == *id || facts.id.starts_with(&**id) => Look::Facts(Arc::new(facts)),
        Ok(Ok(_)) => Look::Failed("the engine described another container".to_owned()),
        Ok(Err(error)) => Look::Failed(error.to_string()),
        Err(_) => {
            tracing::error!(container = ?id, "reading an inspect panicked");
            Look::Failed("reading it failed; this is a fault of wharf".to_owned())
        }
    }
}
