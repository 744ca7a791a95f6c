//! The watch: subscribe, list, look at each container, and again after any break.
//!
//! The API version is asked for at every connect, since engines are upgraded under a running agent. The list is asked
//! for only once the engine has answered the subscription, so that nothing falls between. A full channel of sightings
//! makes the watch wait; the engine then keeps the events.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hyper::{HeaderMap, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::events::{FILTERS, Reader, Since};
use super::http::{self, EngineError};
use super::inspect::container_of;
use super::tracker::{Look, Tracker};
use crate::model::container::Sighting;
use crate::model::record::Text;

const OLDEST: Version = Version(1, 41);
const NEWEST: Version = Version(1, 52);
const MAX_INSPECT: usize = 32 * 1024 * 1024;
const MAX_LIST: usize = 256 * 1024 * 1024;

/// Where the engine is, and how long it is waited for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine's socket.
    pub endpoint: Endpoint,
    /// How long one inspect may take.
    pub inspect_deadline: Duration,
    /// How long the version, the subscription and a ping may take.
    pub answer_deadline: Duration,
    /// How long a list may take.
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
            answer_deadline: Duration::from_secs(3),
            list_deadline: Duration::from_secs(10),
            ping_interval: Duration::from_secs(5),
            relist_interval: Duration::from_secs(30),
            longest_backoff: Duration::from_secs(1),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
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
    last_event: Option<Since>,
    /// The engine refuses every version known here: its own is used, unknown as it is.
    newer: bool,
    /// What was last logged of the engine: it answers, or not.
    up: Option<bool>,
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
    Looked(Text, Result<http::Answer, EngineError>),
    Listed(Result<http::Answer, EngineError>, bool),
    Pinged(Result<http::Answer, EngineError>),
}

type Jobs = FuturesUnordered<BoxFuture<'static, Done>>;

impl Watch {
    /// A watch that tells `sightings` what it sees.
    pub fn new(settings: Settings, sightings: mpsc::Sender<Sighting>, registry: &mut Registry) -> Self {
        let metrics = Metrics::new(registry);
        Self { settings, sightings, metrics, tracker: Tracker::default(), last_event: None, newer: false, up: None }
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
        let mut pieces = self.subscribe(version).await?;
        self.metrics.connects.inc();
        if self.up != Some(true) {
            tracing::info!(engine = %self.settings.endpoint, api = %version, "engine answers");
        }
        self.up = Some(true);
        self.metrics.up.set(1);
        self.tell(Sighting::Engine(true)).await?;
        let mut reader = Reader::default();
        let mut jobs = Jobs::new();
        jobs.push(self.list(version, true));
        let mut ping_at = tokio::time::interval(self.settings.ping_interval);
        let mut relist_at = tokio::time::interval(self.settings.relist_interval);
        ping_at.reset();
        relist_at.reset();
        loop {
            self.start_looks(version, &jobs);
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
                piece = pieces.next() => self.take_events(&mut reader, &piece?),
                Some(done) = jobs.next() => self.take_done(done)?,
                () = timer => self.tracker.tick(Instant::now()),
                _ = ping_at.tick() => jobs.push(self.ping(version)),
                _ = relist_at.tick() => jobs.push(self.list(version, false)),
            }
        }
    }

    /// Opens the event stream. An engine that refuses the newest version known here is asked for its own next time.
    async fn subscribe(&mut self, version: Version) -> Result<http::Pieces, EngineError> {
        let path = self.events_path(version);
        let opened = http::stream(&self.settings.endpoint, &path, self.settings.answer_deadline).await;
        if let Err(EngineError::Status(_, StatusCode::BAD_REQUEST, _)) = &opened {
            self.newer = !self.newer;
        }
        opened
    }

    /// The newest version that both sides speak. What answers no ping (a proxy may not let it through) has a version.
    async fn negotiate(&self) -> Result<Version, EngineError> {
        let deadline = self.settings.answer_deadline;
        let headers = match http::get(&self.settings.endpoint, "/_ping", deadline, 64 * 1024).await {
            Ok(answer) => answer.headers,
            Err(EngineError::Status(..)) => HeaderMap::new(),
            Err(error) => return Err(error),
        };
        let told = headers.get("api-version").and_then(|value| value.to_str().ok()).and_then(Version::parse);
        let told = match told {
            Some(version) => version,
            None => self.version_of_engine().await?,
        };
        if told < OLDEST {
            let why = format!("the engine speaks API {told}; {OLDEST} or newer is needed");
            return Err(EngineError::Unreadable("/_ping".to_owned(), why));
        }
        Ok(if self.newer { told } else { told.min(NEWEST) })
    }

    async fn version_of_engine(&self) -> Result<Version, EngineError> {
        let deadline = self.settings.answer_deadline;
        let answer = http::get(&self.settings.endpoint, "/version", deadline, 1024 * 1024).await?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let unreadable = || EngineError::Unreadable("/version".to_owned(), "no ApiVersion".to_owned());
        value["ApiVersion"].as_str().and_then(Version::parse).ok_or_else(unreadable)
    }

    fn events_path(&self, version: Version) -> String {
        let mut path = format!("/v{version}/events?filters={}", percent(FILTERS));
        if let Some(since) = self.last_event {
            path.push_str(&format!("&since={since}"));
        }
        path
    }

    fn list(&mut self, version: Version, look_at_all: bool) -> BoxFuture<'static, Done> {
        self.tracker.list_asked();
        let (endpoint, deadline) = (self.settings.endpoint.clone(), self.settings.list_deadline);
        Box::pin(async move {
            let path = format!("/v{version}/containers/json");
            Done::Listed(http::get(&endpoint, &path, deadline, MAX_LIST).await, look_at_all)
        })
    }

    fn ping(&self, version: Version) -> BoxFuture<'static, Done> {
        let (endpoint, deadline) = (self.settings.endpoint.clone(), self.settings.answer_deadline);
        Box::pin(
            async move { Done::Pinged(http::get(&endpoint, &format!("/v{version}/_ping"), deadline, 64 * 1024).await) },
        )
    }

    fn start_looks(&mut self, version: Version, jobs: &Jobs) {
        while let Some(id) = self.tracker.next_look() {
            self.metrics.inspects.inc();
            let (endpoint, deadline) = (self.settings.endpoint.clone(), self.settings.inspect_deadline);
            jobs.push(Box::pin(async move {
                let path = format!("/v{version}/containers/{}/json", percent(&id));
                let answer = http::get(&endpoint, &path, deadline, MAX_INSPECT).await;
                Done::Looked(id, answer)
            }));
        }
    }

    fn take_events(&mut self, reader: &mut Reader, piece: &[u8]) {
        for event in reader.feed(piece) {
            self.metrics.events.inc();
            self.last_event = event.at.or(self.last_event);
            self.tracker.event(&event.id.as_str().into(), event.what, Instant::now());
        }
        self.metrics.unreadable.inc_by(reader.take_unreadable());
    }

    fn take_done(&mut self, done: Done) -> Result<(), EngineError> {
        match done {
            Done::Pinged(answer) => alive(answer),
            Done::Listed(answer, look_at_all) => {
                let ids = ids_of(&answer?.body)?;
                self.tracker.listed(ids, look_at_all);
                Ok(())
            }
            Done::Looked(id, answer) => {
                let look = look_of(&id, answer);
                if let Look::Failed(why) = &look {
                    self.metrics.failed.inc();
                    tracing::debug!(container = ?id, why = ?why, "container could not be inspected");
                }
                self.tracker.looked(&id, look, Instant::now());
                Ok(())
            }
        }
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

/// Whether a ping says that the engine is there and still takes our version; a proxy that lets no ping through is there.
fn alive(answer: Result<http::Answer, EngineError>) -> Result<(), EngineError> {
    match answer {
        Err(EngineError::Status(_, status, _)) if status.is_client_error() && status != StatusCode::BAD_REQUEST => {
            Ok(())
        }
        answer => answer.map(|_| ()),
    }
}

/// What an inspect's answer says; a panic while reading it costs that container only.
fn look_of(id: &Text, answer: Result<http::Answer, EngineError>) -> Look {
    let body = match answer {
        Ok(answer) => answer.body,
        Err(EngineError::Status(_, StatusCode::NOT_FOUND, _)) => return Look::Missing,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            return Look::Failed(format!("{error}{cause}"));
        }
    };
    match catch_unwind(AssertUnwindSafe(|| container_of(&body))) {
        Ok(Ok(facts)) if facts.id == *id || facts.id.starts_with(&**id) => Look::Facts(Arc::new(facts)),
        Ok(Ok(_)) => Look::Failed("the engine described another container".to_owned()),
        Ok(Err(error)) => Look::Failed(error.to_string()),
        Err(_) => {
            tracing::error!(container = ?id, "reading an inspect panicked");
            Look::Failed("reading it failed; this is a fault of wharf".to_owned())
        }
    }
}

/// The ids of a list; an entry without one is left out.
fn ids_of(body: &[u8]) -> Result<BTreeSet<Text>, EngineError> {
    let unreadable = |why: String| EngineError::Unreadable("/containers/json".to_owned(), why);
    let value: Value = serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))?;
    let list = value.as_array().ok_or_else(|| unreadable("no list".to_owned()))?;
    let ids = list.iter().filter_map(|one| one["Id"].as_str()).filter(|id| !id.is_empty());
    Ok(ids.map(Arc::from).collect())
}

fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
