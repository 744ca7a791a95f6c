//! Hickory's handler of a request: everything between a question that has been read and the message that answers it.
//!
//! What the catalog knows is said at once. What another server must be asked for is awaited here, through the
//! forwarder, and so is the master of a service that is being switched; nothing else waits. A [`Handler`] is made for
//! each request, so that its loop can learn afterwards what the reply rests on.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::Name;
use hickory_server::proto::rr::rdata::opt::EdnsOption;
use hickory_server::proto::serialize::binary::BinDecoder;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::Queries;
use tokio::sync::oneshot;

use super::forward::{Job, Wanted, joined};
use super::message::{Draft, UDP_MOST, limit};
use super::metrics::{Dropped, ZoneIndex, outcome};
use super::serving::Serving;
use crate::catalog::dns::{self, Answer, Context, Outcome, Question};
use crate::catalog::index::{Catalog, Dependency};
use crate::model::steer::names::Steered;
use crate::view::Progress;

/// An answer from elsewhere takes no longer: a little more than the forwarder's own deadline.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// How long a question for a role is kept while its service is being switched.
const PARKED: Duration = Duration::from_millis(500);
/// From so long after the beginning of a switch no question is kept any more: its operator has died, and nobody knows
/// when it is ended.
const SWITCH: Duration = Duration::from_secs(2);

/// While the store is away, what does not exist may come to be unseen: a client keeps it for so many seconds at most.
const STALE_TTL: u32 = 5;

/// The handler of one request.
#[derive(Debug)]
pub(super) struct Handler {
    serving: Arc<Serving>,
    /// Answers are rotated by it: another one for each request.
    seed: u64,
    /// Whether a message that hickory cannot write whole is taken from [`Told`] instead.
    takes_pieces: bool,
    told: OnceLock<Told>,
}

/// What is to be known of a reply beside its bytes.
#[derive(Debug)]
pub(super) struct Told {
    /// The counter's place.
    pub(super) place: usize,
    /// What it rests on, if the same may be said again.
    pub(super) rests: Option<Rests>,
    /// The message itself, where it was not sent.
    pub(super) pieces: Option<Vec<u8>>,
}

/// What a reply rests on.
#[derive(Clone, Debug)]
pub(super) struct Rests {
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) fresh_until: Option<Duration>,
    /// Its answers stand in the order of their priorities.
    pub(super) in_order: bool,
}

/// What is said.
#[derive(Debug)]
struct Said {
    answer: Answer,
    extended: Option<Extended>,
    zone: ZoneIndex,
    rests: Option<Rests>,
}

/// What is to be done about a question.
enum Decided {
    Said(Said),
    /// Another server must be asked for a name. What is known here already: a chain of CNAMEs that leads there.
    Elsewhere(Question, Name, Option<Answer>),
}

/// An extended error (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended(u16, &'static str);

impl Extended {
    const OTHER_CONTESTED: Self = Self(0, "contested: several claim this role");
    const OTHER_SPENT: Self = Self(0, "this name asks for more than one question may cost");
    const OTHER_CROWDED: Self = Self(0, "too many questions wait for an answer from elsewhere");
    const STALE: Self = Self(3, "the store is away");
    const NOT_READY: Self = Self(14, "the store has not been read yet");
    const PROHIBITED: Self = Self(18, "");
    const STALE_NXDOMAIN: Self = Self(19, "the store is away");
    const NOT_AUTHORITATIVE: Self = Self(20, "");
    /// Nobody who was asked could say.
    pub(super) const NETWORK: Self = Self(23, "no upstream answered");
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, reply: R) -> ResponseInfo {
        let begun = Instant::now();
        let said = match self.decide(request) {
            Decided::Said(said) if is_switching(&said.answer).is_some() => self.parked(request, said).await,
            Decided::Said(said) => said,
            Decided::Elsewhere(question, target, beginning) => {
                self.elsewhere(request, question, target, beginning).await
            }
        };
        let Serving { metrics, view, .. } = &*self.serving;
        let asked = question(request).map(|question| question.qtype);
        let place = metrics.place(said.zone, asked, outcome(said.answer.rcode));
        let info = self.send(request, &said, place, reply).await;
        metrics.answered(place, begun.elapsed());
        view.serving(&said.answer.leases);
        info
    }
}

impl Handler {
    /// For one request of a loop of ours.
    pub(super) fn new(serving: Arc<Serving>, seed: u64) -> Self {
        Self { serving, seed, takes_pieces: true, told: OnceLock::new() }
    }

    /// For a caller that knows of hickory's messages alone.
    #[cfg(test)]
    pub(super) fn for_others(serving: Arc<Serving>, seed: u64) -> Self {
        Self { takes_pieces: false, ..Self::new(serving, seed) }
    }

    /// What was said, once it was.
    pub(super) fn told(self) -> Option<Told> {
        self.told.into_inner()
    }

    fn decide(&self, request: &Request) -> Decided {
        let Serving { rules, metrics, .. } = &*self.serving;
        let nothing = |rcode, extended| {
            let said = Said { answer: Answer::empty(rcode), extended, zone: metrics.foreign(), rests: None };
            Decided::Said(said)
        };
        if request.metadata.op_code != OpCode::Query {
            return nothing(ResponseCode::NotImp, None);
        }
        if request.version() > 0 {
            return nothing(ResponseCode::BADVERS, None);
        }
        let Some(question) = question(request) else { return nothing(ResponseCode::FormErr, None) };
        if !rules.allows(request.src().ip()) {
            return nothing(ResponseCode::Refused, Some(Extended::PROHIBITED));
        }
        let recursion = request.metadata.recursion_desired && rules.recursion_for(request.src().ip());
        let goes_out = |name: &Name| recursion && !rules.serves(name);
        let catalog = self.serving.view.load();
        match dns::answer(&catalog, &rules.zones, &question, &self.context(request, &catalog)) {
            Outcome::Answer(answer) => Decided::Said(self.said(&catalog, answer)),
            Outcome::Chase { answer, target } if goes_out(&target) => {
                Decided::Elsewhere(question, target, Some(answer))
            }
            Outcome::Chase { answer, .. } => {
                let zone = answer.zone.map_or(metrics.foreign(), ZoneIndex);
                Decided::Said(Said { answer, extended: stale(&catalog), zone, rests: None })
            }
            Outcome::Foreign if goes_out(&question.name) => {
                let target = question.name.clone();
                Decided::Elsewhere(question, target, None)
            }
            Outcome::Foreign => nothing(ResponseCode::Refused, Some(Extended::NOT_AUTHORITATIVE)),
        }
    }

    fn context(&self, request: &Request, catalog: &Catalog) -> Context<'_> {
        let Serving { rules, view, .. } = &*self.serving;
        let negative_most = if catalog.is_stale() { STALE_TTL } else { u32::MAX };
        Context {
            dns_ttl: rules.dns_ttl,
            negative_ttl: rules.negative_ttl.min(negative_most),
            seed: self.seed,
            now: view.now(),
            room: usize::from(limit(request)),
            standpoint: &rules.standpoint,
        }
    }

    /// What the catalog says, and what is added while less than everything is known.
    fn said(&self, catalog: &Catalog, answer: Answer) -> Said {
        let zone = answer.zone.map_or(self.serving.metrics.foreign(), ZoneIndex);
        let negative = answer.zone.is_some() && answer.answers.is_empty();
        if negative && self.serving.view.progress() < Progress::Kept && answer.rcode != ResponseCode::Refused {
            let answer = Answer::empty(ResponseCode::ServFail);
            return Said { answer, extended: Some(Extended::NOT_READY), zone, rests: None };
        }
        let extended = match answer.rcode {
            _ if answer.spent => Some(Extended::OTHER_SPENT),
            _ if answer.contested => Some(Extended::OTHER_CONTESTED),
            ResponseCode::NXDomain => stale(catalog).map(|_| Extended::STALE_NXDOMAIN),
            _ => stale(catalog),
        };
        self.serving.metrics.left_out(answer.left_out);
        let rests = rests(&answer, catalog).filter(|_| is_switching(&answer).is_none());
        Said { answer, extended, zone, rests }
    }

    /// Waits until a service that is being switched has its master, as long as a question may be kept; then says what
    /// there is, to be asked again. A client's questions that wait count as
    /// those for other servers do.
    async fn parked(&self, request: &Request, mut said: Said) -> Said {
        let Serving { view, shares, .. } = &*self.serving;
        let share = shares.take(request.src().ip().to_canonical());
        let mut changed = view.changed();
        let until = view.now() + PARKED;
        while let (Some(since), true) = (is_switching(&said.answer), share.is_some()) {
            let left = until.min(since + SWITCH).saturating_sub(view.now());
            if left.is_zero() || !matches!(tokio::time::timeout(left, changed.changed()).await, Ok(Ok(()))) {
                break;
            }
            let Decided::Said(now) = self.decide(request) else { break };
            said = now;
        }
        if is_switching(&said.answer).is_some() {
            said.answer = said.answer.kept_for(0);
        }
        said
    }

    /// Asks another server, by the forwarder; whatever becomes of it, there is something to say.
    async fn elsewhere(&self, request: &Request, question: Question, target: Name, beginning: Option<Answer>) -> Said {
        let wanted = Wanted {
            name: target.to_lowercase(),
            qtype: question.qtype,
            qclass: question.qclass,
            dnssec: request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
            unchecked: request.metadata.checking_disabled,
            stream: request.protocol() != Protocol::Udp,
        };
        let Serving { metrics, forwarder, shares, .. } = &*self.serving;
        let client = request.src().ip().to_canonical();
        let said = |answer, extended| Said { answer, extended, zone: metrics.foreign(), rests: None };
        let (reply, fetched) = oneshot::channel();
        let job = shares.take(client).map(|share| Job { client, wanted, share, reply });
        if job.is_none_or(|job| forwarder.try_send(job).is_err()) {
            metrics.dropped(Dropped::Overload);
            return said(joined(beginning, &target, None), Some(Extended::OTHER_CROWDED));
        }
        let fetched = tokio::time::timeout(ELSEWHERE, fetched).await.ok().and_then(Result::ok).flatten();
        let extended = fetched.is_none().then_some(Extended::NETWORK);
        said(joined(beginning, &target, fetched), extended)
    }

    /// Says it: by hickory where it can write the message whole.
    async fn send<R: ResponseHandler>(
        &self,
        request: &Request,
        said: &Said,
        place: usize,
        mut reply: R,
    ) -> ResponseInfo {
        let edns = request.edns.as_ref().map(|edns| options(edns.flags().dnssec_ok, said.extended));
        let none = Queries::read(&mut BinDecoder::new(&[]), 0).expect("no bytes are no questions");
        let queries = if request.queries.len() == 1 { &request.queries } else { &none };
        let metadata = self.metadata(request, &said.answer);
        let mut draft = Draft { metadata, queries, answer: &said.answer, edns: edns.as_ref() };
        let limit = limit(request);
        let stream = request.protocol() != Protocol::Udp;
        let in_pieces = stream && self.takes_pieces && !draft.surely_fits(limit);
        let pieces = in_pieces.then(|| draft.in_pieces(limit)).and_then(Result::ok);
        let counts = if pieces.is_some() { draft.all() } else { draft.fitting(limit) };
        let whole = counts == draft.all();
        draft.metadata.truncation = !stream && (counts.answers < said.answer.answers.len() || said.answer.cut);
        let sent = match &pieces {
            Some(_) => None,
            None => reply.send_response(draft.message(counts)).await.ok(),
        };
        let rests = said.rests.clone().filter(|_| whole);
        let _ = self.told.set(Told { place, rests, pieces });
        sent.unwrap_or_else(|| Header { metadata: draft.metadata, counts: HeaderCounts::default() }.into())
    }

    fn metadata(&self, request: &Request, answer: &Answer) -> Metadata {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = answer.authoritative;
        metadata.recursion_available = self.serving.rules.recursion_for(request.src().ip());
        metadata.response_code = answer.rcode;
        metadata
    }
}

/// The question of a request that has one, and one only.
fn question(request: &Request) -> Option<Question> {
    let [query] = request.queries.queries() else { return None };
    let query = query.original();
    Some(Question { name: query.name().clone(), qtype: query.query_type(), qclass: query.query_class() })
}

/// Since when the service, a role of which is asked for, is being switched.
fn is_switching(answer: &Answer) -> Option<Duration> {
    match answer.steered? {
        Steered::Switching(since) => Some(since),
        Steered::Named => None,
    }
}

fn stale(catalog: &Catalog) -> Option<Extended> {
    catalog.is_stale().then_some(Extended::STALE)
}

/// Only what exists may be said again: names that do not are without number.
fn rests(answer: &Answer, catalog: &Catalog) -> Option<Rests> {
    let again = answer.rcode == ResponseCode::NoError && answer.zone.is_some() && !answer.cut;
    again.then(|| Rests {
        epoch: catalog.epoch(),
        generation: catalog.generation(),
        dependencies: answer.dependencies.clone(),
        fresh_until: answer.fresh_until,
        in_order: answer.in_order,
    })
}

fn options(dnssec: bool, extended: Option<Extended>) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_MOST).set_version(0).set_dnssec_ok(dnssec);
    if let Some(Extended(code, text)) = extended {
        let mut data = code.to_be_bytes().to_vec();
        data.extend_from_slice(text.as_bytes());
        edns.options_mut().insert(EdnsOption::Unknown(15, data));
    }
    edns
}
