//! Asking one server, or several in turn, and remembering which of them answer.
//!
//! Each server is a pool of hickory-resolver's with that server alone: it chooses numbers, ports and the case of
//! letters, sends again, keeps streams open and drops broken ones. Which server comes next is decided here, as a pool
//! of several would take the first refusal for the last word and ask no third server within its deadline.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use hickory_server::proto::op::{DnsRequest, DnsRequestOptions, Message, Query, ResponseCode};
use hickory_server::proto::rr::RecordType;
use tokio::time::timeout;

use super::sockets::Sockets;
use super::spelling::respell;
use super::{Fetched, TOGETHER, Wanted};
use crate::answer::dns::message::UDP_MOST;
use crate::model::words::plain::plain;

/// A server that has not answered by then is left for the next one.
const PATIENCE: Duration = Duration::from_millis(1_200);
/// What the resolver gives one server: less, so that it notices itself which stream is dead.
const ATTEMPT: Duration = Duration::from_millis(1_000);
/// A TTL has 31 bits.
const LONGEST_TTL: u32 = i32::MAX.cast_unsigned();
/// Rounds through all servers.
const ROUNDS: usize = 2;
/// A server that did not answer is asked last for so long.
const RESPITE: Duration = Duration::from_secs(5);

/// Which servers answered lately.
#[derive(Debug, Default)]
pub(super) struct Health {
    failed: HashMap<SocketAddr, Instant>,
}

impl Health {
    /// The servers in the order to be asked: those that failed lately come last.
    pub(super) fn order(&self, servers: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let mut order = servers.to_vec();
        order.sort_by_key(|server| self.failed.get(server).is_some_and(|at| now.duration_since(*at) < RESPITE));
        order
    }

    /// A server did not answer.
    pub(super) fn failed(&mut self, server: SocketAddr, now: Instant) {
        if self.failed.insert(server, now).is_none() {
            tracing::warn!(%server, "upstream does not answer");
        }
    }

    /// A server did.
    pub(super) fn answered(&mut self, server: SocketAddr) {
        if self.failed.remove(&server).is_some() {
            tracing::info!(%server, "upstream answers again");
        }
    }
}

/// One server, ready to be asked.
#[derive(Clone)]
pub(super) struct Server {
    address: SocketAddr,
    /// Without a stream to fall back to: who asked by datagram is told that the answer was cut, and asks again.
    datagrams: NameServerPool<Sockets>,
    streams: NameServerPool<Sockets>,
}

/// The servers asked so far.
pub(super) struct Servers {
    context: Arc<PoolContext>,
    sockets: Sockets,
    known: HashMap<SocketAddr, Server>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.known.keys()).finish()
    }
}

impl Servers {
    /// None yet.
    pub(super) fn new() -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = ATTEMPT;
        options.num_concurrent_reqs = 1;
        options.max_active_requests = TOGETHER;
        let plain = TlsConfig::new().expect("built without TLS there is nothing in it that could fail");
        let context = Arc::new(PoolContext::new(options, plain));
        Self { context, sockets: Sockets::default(), known: HashMap::new() }
    }

    /// These servers, in this order; others are forgotten, with their streams.
    pub(super) fn take(&mut self, addresses: &[SocketAddr]) -> Vec<Server> {
        self.known.retain(|address, _| addresses.contains(address));
        addresses.iter().map(|address| self.server(*address)).collect()
    }

    fn server(&mut self, address: SocketAddr) -> Server {
        let pool = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            let server = NameServerConfig::new(address.ip(), true, vec![connection]);
            NameServerPool::from_config([server], self.context.clone(), self.sockets.clone())
        };
        let new =
            || Server { address, datagrams: pool(ConnectionConfig::udp()), streams: pool(ConnectionConfig::tcp()) };
        self.known.entry(address).or_insert_with(new).clone()
    }
}

/// Asks one server after the other until one answers to the point. When none does, a refusal is better than nothing.
pub(super) async fn ask_in_turn(
    wanted: &Wanted,
    servers: &[Server],
    silent: &mut Vec<SocketAddr>,
) -> Option<(SocketAddr, Fetched)> {
    let mut refusal = None;
    for server in (0..ROUNDS).flat_map(|_| servers) {
        match timeout(PATIENCE, ask(wanted, server)).await {
            Ok(Ok(fetched)) if matches!(fetched.rcode, ResponseCode::NoError | ResponseCode::NXDomain) => {
                return Some((server.address, fetched));
            }
            Ok(Ok(fetched)) => refusal = Some((server.address, fetched)),
            Ok(Err(NetError::Busy)) => {}
            Ok(Err(error)) => {
                let error = error.to_string();
                tracing::debug!(error = %plain(&error), server = %server.address, "upstream not asked");
                silent.push(server.address);
            }
            Err(_) => silent.push(server.address),
        }
        if refusal.is_some() && servers.len() == 1 {
            break;
        }
    }
    refusal
}

async fn ask(wanted: &Wanted, server: &Server) -> Result<Fetched, NetError> {
    if !wanted.stream {
        match answer(wanted, server.datagrams.send(request(wanted, true)).first_answer().await) {
            // An answer in other letters than the question: forged, or the server cannot keep them. A stream tells.
            Err(NetError::NoConnections) => {}
            answered => return answered,
        }
    }
    answer(wanted, server.streams.send(request(wanted, false)).first_answer().await)
}

fn request(wanted: &Wanted, random_case: bool) -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.edns_payload_len = UDP_MOST;
    options.edns_set_dnssec_ok = wanted.dnssec;
    options.case_randomization = random_case;
    let mut query = Query::query(wanted.name.clone(), wanted.qtype);
    query.set_query_class(wanted.qclass);
    let mut request = DnsRequest::from_query(query, options);
    request.metadata.checking_disabled = wanted.unchecked;
    request
}

/// What the resolver calls an error is often an answer all the same.
fn answer<R: Into<Message>>(wanted: &Wanted, result: Result<R, NetError>) -> Result<Fetched, NetError> {
    let mut fetched = match result {
        Ok(response) => fetched(wanted, response.into())?,
        Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => Fetched {
            authority: nothing.authorities.map(|records| records.to_vec()).unwrap_or_default(),
            ..bare(nothing.response_code)
        },
        Err(NetError::Dns(DnsError::ResponseCode(rcode))) => bare(rcode),
        Err(NetError::Truncated) => Fetched { truncated: true, ..bare(ResponseCode::NoError) },
        Err(error) => return Err(error),
    };
    for record in fetched.records() {
        // The letters' case was for the server alone.
        respell(record, &wanted.name);
        // RFC 2181 section 8.
        record.ttl = if record.ttl > LONGEST_TTL { 0 } else { record.ttl };
    }
    Ok(fetched)
}

fn bare(rcode: ResponseCode) -> Fetched {
    Fetched { rcode, answers: Vec::new(), authority: Vec::new(), additional: Vec::new(), truncated: false }
}

fn fetched(wanted: &Wanted, reply: Message) -> Result<Fetched, NetError> {
    let same = |query: &Query| {
        let name = query.name().to_lowercase() == wanted.name;
        name && query.query_type() == wanted.qtype && query.query_class() == wanted.qclass
    };
    if !matches!(reply.queries.as_slice(), [query] if same(query)) {
        return Err(NetError::Message("the answer is to another question"));
    }
    let mut additional = reply.additionals;
    additional.retain(|record| record.record_type() != RecordType::OPT);
    Ok(Fetched {
        rcode: reply.metadata.response_code,
        answers: reply.answers,
        authority: reply.authorities,
        additional,
        truncated: reply.metadata.truncation,
    })
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::op::{MessageType, OpCode};
    use hickory_server::proto::rr::rdata::{CNAME, SOA};
    use hickory_server::proto::rr::{DNSClass, Name, RData, Record};
    use tokio::net::UdpSocket;

    use super::*;

    #[test]
    fn a_silent_server_is_asked_last_for_a_while() {
        let (one, two) = (SocketAddr::from(([192, 0, 2, 1], 53)), SocketAddr::from(([192, 0, 2, 2], 53)));
        let (mut health, start) = (Health::default(), Instant::now());
        health.failed(one, start);
        assert_eq!(health.order(&[one, two], start), [two, one]);
        assert_eq!(health.order(&[one, two], start + RESPITE), [one, two]);
        health.failed(one, start + RESPITE);
        health.answered(one);
        assert_eq!(health.order(&[one, two], start + RESPITE), [one, two]);
    }

    fn asked(name: &str) -> Wanted {
        let name = Name::from_ascii(name).expect("a name");
        Wanted { name, qtype: RecordType::A, qclass: DNSClass::IN, dnssec: true, unchecked: true, stream: false }
    }

    /// A server that answers one question after the other as told.
    async fn answering(
        answer: impl Fn(&Message) -> Message + Send + 'static,
    ) -> (tokio_util::task::AbortOnDropHandle<()>, Vec<Server>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = socket.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).expect("a message");
                let mut reply = answer(&question);
                reply.metadata.id = question.metadata.id;
                socket.send_to(&reply.to_vec().expect("written"), from).await.expect("sent");
            }
        });
        (tokio_util::task::AbortOnDropHandle::new(task), Servers::new().take(&[address]))
    }

    fn reply(question: &Message, rcode: ResponseCode) -> Message {
        let mut reply = Message::new(0, MessageType::Response, OpCode::Query);
        reply.metadata.response_code = rcode;
        reply.add_query(question.queries[0].clone());
        reply
    }

    #[tokio::test]
    async fn what_says_there_is_nothing_is_passed_on_with_its_authority() {
        for rcode in [ResponseCode::NXDomain, ResponseCode::NoError] {
            let (_task, servers) = answering(move |question| {
                let mut reply = reply(question, rcode);
                let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 7);
                let zone = question.queries[0].name().base_name();
                reply.authorities.push(Record::from_rdata(zone, 60, RData::SOA(soa)));
                reply
            })
            .await;
            let found = ask_in_turn(&asked("a.example."), &servers, &mut Vec::new()).await;
            let (_, fetched) = found.expect("an answer");
            let owners: Vec<_> = fetched.authority.iter().map(|record| record.name.to_ascii()).collect();
            assert_eq!((fetched.rcode, owners), (rcode, vec!["example.".to_owned()]));
        }
    }

    #[tokio::test]
    async fn refusals_are_passed_on_as_they_are() {
        for rcode in [ResponseCode::Refused, ResponseCode::ServFail, ResponseCode::NotImp, ResponseCode::FormErr] {
            let (_task, servers) = answering(move |question| reply(question, rcode)).await;
            let found = ask_in_turn(&asked("a.example."), &servers, &mut Vec::new()).await;
            assert_eq!(found.map(|(_, fetched)| fetched.rcode), Some(rcode));
        }
    }

    #[tokio::test]
    async fn the_flags_go_up_and_the_alias_without_an_address_comes_back() {
        let (_task, servers) = answering(|question| {
            let edns = question.edns.as_ref().expect("EDNS");
            assert!(question.metadata.checking_disabled && question.metadata.recursion_desired);
            assert!(edns.flags().dnssec_ok && edns.max_payload() == UDP_MOST);
            let mut reply = reply(question, ResponseCode::NoError);
            let alias = RData::CNAME(CNAME(Name::from_ascii("b.example.").expect("a name")));
            reply.answers.push(Record::from_rdata(question.queries[0].name().clone(), 60, alias));
            reply
        })
        .await;
        let wanted = asked("a-long-name-of-many-letters.example.");
        let (_, fetched) = ask_in_turn(&wanted, &servers, &mut Vec::new()).await.expect("an answer");
        let owners: Vec<_> = fetched.answers.iter().map(|record| record.name.to_ascii()).collect();
        assert_eq!(owners, ["a-long-name-of-many-letters.example."]);
    }

    #[tokio::test]
    async fn an_answer_in_other_letters_is_not_believed() {
        let (_task, servers) = answering(|question| {
            let mut reply = reply(question, ResponseCode::NoError);
            reply.queries[0].name = question.queries[0].name().to_lowercase();
            reply
        })
        .await;
        // No stream there to ask instead.
        let wanted = asked("a-long-name-of-many-letters.example.");
        let mut silent = Vec::new();
        assert!(ask_in_turn(&wanted, &servers, &mut silent).await.is_none());
        assert_eq!(silent.len(), ROUNDS);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_costs_no_time() {
        let address = UdpSocket::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("bound");
        let servers = Servers::new().take(&[address]);
        let begun = Instant::now();
        let mut silent = Vec::new();
        assert!(ask_in_turn(&asked("a.example."), &servers, &mut silent).await.is_none());
        assert_eq!(silent, [address; ROUNDS]);
        assert!(begun.elapsed() < ATTEMPT, "{:?}", begun.elapsed());
    }

    #[test]
    fn servers_no_longer_named_are_forgotten() {
        let (one, two) = (SocketAddr::from(([192, 0, 2, 1], 53)), SocketAddr::from(([192, 0, 2, 2], 53)));
        let mut servers = Servers::new();
        assert_eq!(servers.take(&[one, two]).len(), 2);
        servers.take(&[two]);
        assert_eq!(servers.known.keys().copied().collect::<Vec<_>>(), [two]);
    }
}
