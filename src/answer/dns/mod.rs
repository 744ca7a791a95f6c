//! Answers by DNS: sockets, and who answers what comes in on them.
//!
//! [`handler`] is hickory-server's handler of a request, and hickory reads, frames and writes the messages; threads
//! ([`udp`]) and tasks ([`tcp`]) bring them there and back; [`ready`] spares the common question the way. No question
//! waits for the store, Docker or a lock: answers come from the latest snapshot of the catalog.

mod closing;
pub mod dry;
mod forward;
mod handler;
#[cfg(test)]
mod hickory_tests;
mod late;
mod limit;
mod message;
mod metrics;
mod order;
mod packet;
mod places;
mod ready;
mod rules;
mod serving;
mod socket;
mod tcp;
mod udp;
mod waiting;
mod wheel;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::forward::Upstream;
use self::forward::{Forwarder, Job, TOGETHER};
use self::late::{Late, finish};
use self::limit::RateLimit;
use self::metrics::Metrics;
pub use self::places::Insider;
use self::places::Places;
use self::rules::Rules;
use self::serving::Serving;
use self::socket::Sockets;
pub use self::socket::{AddressError, BindError};
use self::tcp::Streams;
use self::udp::Thread;
use crate::model::words::site::Standpoint;
use crate::model::words::zone::Zones;
use crate::view::{CatalogView, Progress};

/// Threads that answer datagrams of one address.
const THREADS: usize = 4;
/// Questions stay in the sockets for so long at most, until there is something to answer from.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers from elsewhere that wait to be sent: more than may be asked for at once, as some have just come.
const LATE: usize = 4 * TOGETHER;

/// What the server is told at start.
#[derive(Debug)]
pub struct Settings {
    /// Addresses to bind, unless sockets were passed.
    pub listen: Vec<SocketAddr>,
    /// Sockets passed by systemd: only these are read, if there are any.
    pub passed: Vec<OwnedFd>,
    /// Zones to answer for.
    pub zones: Zones,
    /// Where this host is.
    pub standpoint: Standpoint,
    /// Time an answer may be kept.
    pub ttl: Duration,
    /// Time a negative answer may be kept.
    pub negative_ttl: Duration,
    /// Where foreign names are looked up; empty: they are refused.
    pub forward: Vec<Upstream>,
    /// For whom they are.
    pub forward_allow: Vec<IpNet>,
    /// Who may ask at all; empty is everyone.
    pub allow: Vec<IpNet>,
    /// UDP answers a second to one network outside `forward_allow`; 0 is no limit.
    pub rate_limit: u32,
}

/// Why the server ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The sign to stop could not be made, or a thread not started.
    #[error("cannot start a thread that answers")]
    Start(#[source] io::Error),
    /// A socket cannot be read any more.
    #[error("reading a socket failed")]
    Socket(#[source] io::Error),
    /// A thread or task is gone.
    #[error("a part of the server ended: {0}")]
    Ended(String),
}

/// The server, bound and not yet answering.
#[derive(Debug)]
pub struct DnsServer {
    serving: Arc<Serving>,
    sockets: Sockets,
    limit: Arc<RateLimit>,
    forwarder: Forwarder,
    jobs: mpsc::Receiver<Job>,
    insider: Insider,
}

impl DnsServer {
    /// Binds every address, or takes what was passed; all problems at once.
    pub fn bind(settings: Settings, view: CatalogView, registry: &mut Registry) -> Result<Self, BindError> {
        let sockets = if settings.passed.is_empty() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Sockets::bind(&settings.listen, cores.min(THREADS))?
        } else {
            Sockets::take(settings.passed)?
        };
        let names = settings.zones.iter().map(|zone| format!("{}.", zone.name())).collect();
        let metrics = Metrics::register(names, registry);
        let own = sockets.addresses();
        let rules = Rules {
            zones: settings.zones,
            dns_ttl: seconds(settings.ttl),
            negative_ttl: seconds(settings.negative_ttl),
            forward: !settings.forward.is_empty(),
            standpoint: settings.standpoint,
            forward_allow: settings.forward_allow,
            allow: settings.allow,
        };
        let forwarder = Forwarder::new(settings.forward, own, metrics.cached_bytes.clone());
        let (serving, jobs) = Serving::new(rules, metrics, view);
        Ok(Self {
            serving,
            sockets,
            limit: Arc::new(RateLimit::new(settings.rate_limit)),
            forwarder,
            jobs,
            insider: Insider::default(),
        })
    }

    /// The addresses that are answered on, each once.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.addresses()
    }

    /// Where this process says that it asks from.
    pub fn insider(&self) -> Insider {
        self.insider.clone()
    }

    /// Answers until told to stop. What waits in the sockets then is left there, for who may read them next.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DnsError> {
        let mut changed = self.serving.view.changed();
        let answers = changed.wait_for(|change| change.progress > Progress::Nothing);
        tokio::select! {
            _ = tokio::time::timeout(PATIENCE, answers) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let (reader, bell) = io::pipe().map_err(DnsError::Start)?;
        let (late, waits) = mpsc::channel(LATE);
        let mut threads = start_threads(&self.serving, self.sockets.udp, &self.limit, &late, &Arc::new(reader.into()));
        let mut tasks = JoinSet::new();
        tasks.spawn(finish(waits, stop.clone()));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let places = Arc::new(Places::new(cores / 2, self.insider, self.serving.metrics.clone()));
        for listener in self.sockets.tcp {
            let streams = Streams::new(self.serving.clone(), listener, places.clone()).map_err(DnsError::Socket)?;
            tasks.spawn(streams.run(stop.clone()));
        }
        tasks.spawn(self.forwarder.run(self.jobs, stop.clone()));
        let ended = tokio::select! {
            // Parts that end because they were told to are no reason to complain.
            biased;
            () = stop.cancelled() => Ok(()),
            ended = first(&mut threads) => ended,
            Some(ended) = tasks.join_next() => Err(DnsError::Ended(ended.err().map_or_else(String::new, |e| e.to_string()))),
        };
        drop(bell);
        while threads.join_next().await.is_some() {}
        while tasks.join_next().await.is_some() {}
        ended
    }
}

type Threads = JoinSet<io::Result<()>>;

fn start_threads(
    serving: &Arc<Serving>,
    sockets: Vec<socket::Udp>,
    limit: &Arc<RateLimit>,
    late: &mpsc::Sender<Late>,
    stop: &Arc<OwnedFd>,
) -> Threads {
    let mut threads = JoinSet::new();
    let room = ready::MOST / sockets.len().max(1);
    for socket in sockets {
        let thread = Thread {
            serving: serving.clone(),
            socket: Arc::new(socket),
            limit: limit.clone(),
            late: late.clone(),
            stop: stop.clone(),
            room,
        };
        threads.spawn_blocking(move || thread.run());
    }
    threads
}

async fn first(threads: &mut Threads) -> Result<(), DnsError> {
    match threads.join_next().await {
        Some(Ok(Ok(()))) => Err(DnsError::Ended("a thread returned".to_owned())),
        Some(Ok(Err(error))) => Err(DnsError::Socket(error)),
        Some(Err(error)) => Err(DnsError::Ended(error.to_string())),
        None => std::future::pending().await,
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
