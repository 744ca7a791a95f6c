//! Foreign names: looked up elsewhere for those who may ask for them.
//!
//! One task keeps everything: what is under way, who waits for it, what was answered lately. The same question is under
//! way once, whoever asks, so a loop through an upstream that asks us again waits for itself and ends with the
//! deadline. Every question ends with an answer or SERVFAIL; none waits in silence.

mod cache;
mod sockets;
mod uplinks;
mod upstream;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{DNSClass, Name, Record as Rr, RecordType};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::cache::Cache;
use self::uplinks::Uplinks;
use self::upstream::{Health, Server, Servers};
use crate::model::dns::Answer;

/// Every question is answered by then, if only with SERVFAIL.
const DEADLINE: Duration = Duration::from_secs(4);
/// Questions under way at once.
const TOGETHER: usize = 1_024;
/// Those that one client waits for.
const SHARE: usize = 128;

/// A resolver for foreign names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// What this host uses.
    System,
    /// This one.
    Server(SocketAddr),
}

/// A question as it is put upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// Lower case.
    pub(super) name: Name,
    pub(super) qtype: RecordType,
    pub(super) qclass: DNSClass,
    pub(super) dnssec: bool,
    pub(super) unchecked: bool,
    pub(super) stream: bool,
}

/// A question for the forwarder.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) client: IpAddr,
    pub(super) wanted: Wanted,
    /// Where the answer is waited for; `None` when nobody could say.
    pub(super) reply: oneshot::Sender<Option<Fetched>>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    rcode: ResponseCode,
    answers: Vec<Rr>,
    authority: Vec<Rr>,
    additional: Vec<Rr>,
    truncated: bool,
}

/// Who waits for an answer.
#[derive(Debug)]
struct Waiting {
    client: IpAddr,
    reply: oneshot::Sender<Option<Fetched>>,
}

/// The worker that asks upstream.
#[derive(Debug)]
pub(super) struct Forwarder {
    uplinks: Uplinks,
    health: Health,
    servers: Servers,
    cache: Cache,
    waiting: HashMap<Wanted, Vec<Waiting>>,
    shares: HashMap<IpAddr, usize>,
}

/// Upstreams that did not answer, and the answer if one did.
struct Ended {
    wanted: Wanted,
    fetched: Option<Fetched>,
    answered: Option<SocketAddr>,
    silent: Vec<SocketAddr>,
}

type Fetch = BoxFuture<'static, Ended>;

impl Forwarder {
    pub(super) fn new(upstreams: Vec<Upstream>, own: Vec<SocketAddr>) -> Self {
        Self {
            uplinks: Uplinks::new(upstreams, own),
            health: Health::default(),
            servers: Servers::new(),
            cache: Cache::default(),
            waiting: HashMap::new(),
            shares: HashMap::new(),
        }
    }

    /// Asks until told to stop; what is under way then is answered with SERVFAIL.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) {
        let mut fetching: FuturesUnordered<Fetch> = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(job) = jobs.recv() => {
                    if let Some(fetch) = self.begin(job) {
                        fetching.push(fetch);
                    }
                }
                Some(ended) = fetching.next() => self.end(ended),
            }
        }
        let left: Vec<_> = self.waiting.drain().flat_map(|(_, waiting)| waiting).collect();
        for waiting in left {
            self.reply(waiting, None);
        }
    }

    /// Takes on a question: answers it from the cache, joins it to the same one under way, or begins to ask.
    fn begin(&mut self, job: Job) -> Option<Fetch> {
        let Job { client, wanted, reply } = job;
        let waiting = Waiting { client, reply };
        if let Some(fetched) = self.cache.get(&wanted, Instant::now()) {
            self.reply(waiting, Some(&fetched));
            return None;
        }
        let share = self.shares.entry(waiting.client).or_default();
        let crowded = *share >= SHARE || self.waiting.len() >= TOGETHER;
        let upstreams = self.health.order(self.uplinks.now(), Instant::now());
        let looped = self.waiting.contains_key(&wanted) && is_upstream(waiting.client, &upstreams);
        if crowded || looped || upstreams.is_empty() {
            self.reply(waiting, None);
            return None;
        }
        *share += 1;
        let crowd = self.waiting.entry(wanted.clone()).or_default();
        crowd.push(waiting);
        (crowd.len() == 1).then(|| fetch(wanted, self.servers.take(&upstreams)))
    }

    fn end(&mut self, ended: Ended) {
        let now = Instant::now();
        for silent in ended.silent {
            self.health.failed(silent, now);
        }
        if let Some(server) = ended.answered {
            self.health.answered(server);
        }
        if let Some(fetched) = &ended.fetched {
            self.cache.put(&ended.wanted, fetched, now);
        }
        for waiting in self.waiting.remove(&ended.wanted).unwrap_or_default() {
            if let Some(share) = self.shares.get_mut(&waiting.client) {
                *share -= 1;
                if *share == 0 {
                    self.shares.remove(&waiting.client);
                }
            }
            self.reply(waiting, ended.fetched.as_ref());
        }
    }

    fn reply(&mut self, waiting: Waiting, fetched: Option<&Fetched>) {
        if self.shares.get(&waiting.client) == Some(&0) {
            self.shares.remove(&waiting.client);
        }
        // Who no longer waits has ended the stream that the question came in.
        let _ = waiting.reply.send(fetched.cloned());
    }
}

/// What was known here and what was found elsewhere, as one answer.
pub(super) fn joined(beginning: Option<Answer>, fetched: Option<&Fetched>) -> Answer {
    let Some(fetched) = fetched else {
        let zone = beginning.and_then(|known| known.zone);
        return Answer { zone, ..Answer::empty(ResponseCode::ServFail) };
    };
    let mut answer = beginning.unwrap_or_else(|| Answer::empty(fetched.rcode));
    answer.rcode = fetched.rcode;
    answer.answers.extend_from_slice(&fetched.answers);
    answer.authority.extend_from_slice(&fetched.authority);
    answer.additional.extend_from_slice(&fetched.additional);
    answer.cut |= fetched.truncated;
    answer
}

/// A question that is under way already and comes from one of those asked has gone in a circle. On loopback anybody may
/// have asked it: there the deadline ends the circle.
fn is_upstream(client: IpAddr, upstreams: &[SocketAddr]) -> bool {
    !client.is_loopback() && upstreams.iter().any(|upstream| upstream.ip().to_canonical() == client)
}

fn fetch(wanted: Wanted, servers: Vec<Server>) -> Fetch {
    Box::pin(async move {
        let mut silent = Vec::new();
        let asking = upstream::ask_in_turn(&wanted, &servers, &mut silent);
        let found = tokio::time::timeout(DEADLINE, asking).await.ok().flatten();
        let (answered, fetched) = found.unzip();
        Ended { wanted, fetched, answered, silent }
    })
}
