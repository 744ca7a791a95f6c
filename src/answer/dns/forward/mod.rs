//! Foreign names: looked up elsewhere for those who may ask for them.
//!
//! One task keeps everything: what is under way, who waits for it, what was answered lately. The same question is under
//! way once, whoever asks, so a loop through an upstream that asks us again waits for itself and ends with the
//! deadline. Every question ends with an answer or SERVFAIL; none waits in silence.

mod cache;
mod share;
mod sockets;
mod spelling;
mod uplinks;
mod upstream;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{DNSClass, Name, Record as Rr, RecordType};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::cache::Cache;
pub(super) use self::share::{Share, Shares, TOGETHER};
use self::spelling::respell;
use self::uplinks::Uplinks;
use self::upstream::{Health, Server, Servers};
use crate::catalog::dns::Answer;

/// Every question is answered by then, if only with SERVFAIL.
const DEADLINE: Duration = Duration::from_secs(4);

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
    /// Its room among all that wait.
    pub(super) share: Share,
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

impl Fetched {
    /// Every record, of all sections.
    fn records(&mut self) -> impl Iterator<Item = &mut Rr> {
        self.answers.iter_mut().chain(&mut self.authority).chain(&mut self.additional)
    }
}

/// Who waits for an answer.
#[derive(Debug)]
struct Waiting {
    _share: Share,
    reply: oneshot::Sender<Option<Fetched>>,
}

/// The worker that asks upstream.
#[derive(Debug)]
pub(super) struct Forwarder {
    uplinks: Uplinks,
    health: Health,
    servers: Servers,
    cache: Cache,
    /// No more than there are [`Shares`].
    waiting: HashMap<Wanted, Vec<Waiting>>,
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
    /// What it keeps of answers is counted in `cached`.
    pub(super) fn new(upstreams: Vec<Upstream>, own: Vec<SocketAddr>, cached: Arc<AtomicU64>) -> Self {
        Self {
            uplinks: Uplinks::new(upstreams, own),
            health: Health::default(),
            servers: Servers::new(),
            cache: Cache::counted(cached),
            waiting: HashMap::new(),
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
            waiting.reply(None);
        }
    }

    /// Takes on a question: answers it from the cache, joins it to the same one under way, or begins to ask.
    fn begin(&mut self, job: Job) -> Option<Fetch> {
        let Job { client, wanted, share, reply } = job;
        let waiting = Waiting { _share: share, reply };
        if let Some(fetched) = self.cache.get(&wanted, Instant::now()) {
            waiting.reply(Some(fetched));
            return None;
        }
        let upstreams = self.health.order(self.uplinks.now(), Instant::now());
        let looped = self.waiting.contains_key(&wanted) && is_upstream(client, &upstreams);
        if looped || upstreams.is_empty() {
            waiting.reply(None);
            return None;
        }
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
            waiting.reply(ended.fetched.clone());
        }
    }
}

impl Waiting {
    fn reply(self, fetched: Option<Fetched>) {
        // Who no longer waits has ended the stream that the question came in.
        let _ = self.reply.send(fetched);
    }
}

/// What was known here and what was found elsewhere, as one answer, with the name that led there spelled as it was.
pub(super) fn joined(beginning: Option<Answer>, target: &Name, fetched: Option<Fetched>) -> Answer {
    let Some(mut fetched) = fetched else {
        let zone = beginning.and_then(|known| known.zone);
        return Answer { zone, ..Answer::empty(ResponseCode::ServFail) };
    };
    fetched.records().for_each(|record| respell(record, target));
    let mut answer = beginning.unwrap_or_else(|| Answer::empty(fetched.rcode));
    answer.rcode = fetched.rcode;
    answer.answers.append(&mut fetched.answers);
    answer.authority.append(&mut fetched.authority);
    answer.additional.append(&mut fetched.additional);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn job(shares: &Arc<Shares>, client: u8, number: usize) -> (Job, oneshot::Receiver<Option<Fetched>>) {
        let (reply, answer) = oneshot::channel();
        let name = Name::from_ascii(format!("n{number}.example.org.")).expect("a name");
        let (qtype, qclass) = (RecordType::A, DNSClass::IN);
        let wanted = Wanted { name, qtype, qclass, dnssec: false, unchecked: false, stream: false };
        let client = IpAddr::from([10, 0, 0, client]);
        (Job { client, wanted, share: shares.take(client).expect("there is room"), reply }, answer)
    }

    #[tokio::test]
    async fn the_same_question_is_asked_once_and_everybody_has_the_answer() {
        let upstream = SocketAddr::from(([192, 0, 2, 53], 53));
        let (shares, mut forwarder) = (
            Shares::counted(Arc::default()),
            Forwarder::new(vec![Upstream::Server(upstream)], Vec::new(), Arc::default()),
        );
        let (first, mut one) = job(&shares, 1, 0);
        let (same, mut two) = job(&shares, 2, 0);
        let (other, mut three) = job(&shares, 2, 1);
        let wanted = first.wanted.clone();
        assert!(
            forwarder.begin(first).is_some() && forwarder.begin(same).is_none() && forwarder.begin(other).is_some()
        );
        assert!(one.try_recv().is_err() && shares.waiting() == 3);
        forwarder.end(Ended { wanted, fetched: None, answered: None, silent: vec![upstream] });
        assert!(matches!((one.try_recv(), two.try_recv()), (Ok(None), Ok(None))), "nobody waits in silence");
        assert!(three.try_recv().is_err());
        assert_eq!(shares.waiting(), 1, "room is given back with the answer");
    }

    #[tokio::test]
    async fn a_question_keeps_its_room_until_it_is_no_longer_asked_elsewhere() {
        let upstream = SocketAddr::from(([192, 0, 2, 53], 53));
        let (shares, mut forwarder) = (
            Shares::counted(Arc::default()),
            Forwarder::new(vec![Upstream::Server(upstream)], Vec::new(), Arc::default()),
        );
        let (gone, answer) = job(&shares, 1, 0);
        assert!(forwarder.begin(gone).is_some());
        drop(answer);
        assert_eq!(shares.waiting(), 1, "although its client has left");
    }
}
