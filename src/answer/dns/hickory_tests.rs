//! What hickory-server does by itself, beside what is done around it: a departure whose reason is gone fails here.
//!
//! The handler is hickory's own kind, so hickory's own server can run it; what both say is the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::opt::EdnsOption;
use hickory_server::proto::rr::rdata::{A, SRV};
use hickory_server::proto::rr::{Name, RData, Record as Rr, RecordType};
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dry::{Dry, same_but_for_order};
use super::handler::Handler;
use super::message::{Draft, Written};
use super::packet::handle;
use super::serving::Serving;
use crate::catalog::dns::Answer;

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53_000);
const PATIENCE: Duration = Duration::from_secs(20);

/// A handler for hickory's own server.
struct Plain {
    serving: Arc<Serving>,
    seed: AtomicU64,
}

#[async_trait]
impl RequestHandler for Plain {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, reply: R) -> ResponseInfo {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        Handler::for_others(self.serving.clone(), seed).handle_request::<R, T>(request, reply).await
    }
}

/// hickory's own server with our handler, and its address.
async fn server() -> (Server<Plain>, SocketAddr) {
    let plain = Plain { serving: Dry::new().serving.clone(), seed: AtomicU64::new(0) };
    let mut server = Server::new(plain);
    let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = udp.local_addr().expect("bound");
    server.register_socket(udp);
    (server, address)
}

async fn by_streams() -> (Server<Plain>, SocketAddr) {
    let (mut server, _) = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    server.register_listener(listener, PATIENCE, 4);
    (server, address)
}

async fn by_datagram(server: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    client.send_to(packet, server).await.expect("sent");
    let mut reply = vec![0; 65_535];
    let length = timeout(PATIENCE, client.recv(&mut reply)).await.ok()?.ok()?;
    reply.truncate(length);
    Some(reply)
}

async fn by_stream(stream: &mut TcpStream, packet: &[u8]) -> Vec<u8> {
    stream.write_u16(u16::try_from(packet.len()).expect("short")).await.expect("written");
    stream.write_all(packet).await.expect("written");
    let length = timeout(PATIENCE, stream.read_u16()).await.expect("in time").expect("an answer");
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.expect("all of it");
    reply
}

fn by_us(packet: &[u8], protocol: Protocol) -> Option<Vec<u8>> {
    let serving = Dry::new().serving.clone();
    handle(serving, packet.to_vec(), CLIENT, protocol).now_or_never().expect("nothing is asked elsewhere").reply
}

#[tokio::test]
async fn hickorys_own_server_says_the_same() {
    let ((_one, datagrams), (_two, streams)) = (server().await, by_streams().await);
    let mut stream = TcpStream::connect(streams).await.expect("accepted");
    for number in 0..16 {
        let packet = Dry::sample(number);
        let said = by_datagram(datagrams, &packet).await.expect("an answer");
        assert!(same_but_for_order(&said, &by_us(&packet, Protocol::Udp).expect("an answer")), "{packet:02x?}");
        let said = by_stream(&mut stream, &packet).await;
        assert!(same_but_for_order(&said, &by_us(&packet, Protocol::Tcp).expect("an answer")), "{packet:02x?}");
    }
}

#[tokio::test]
async fn hickorys_server_takes_any_number_of_streams_of_one_client() {
    let (_server, address) = by_streams().await;
    let mut open = Vec::new();
    for _ in 0..2 * super::places::OF_ONE {
        open.push(TcpStream::connect(address).await.expect("accepted"));
    }
    for stream in &mut open {
        assert!(!by_stream(stream, &Dry::sample(0)).await.is_empty());
    }
}

#[tokio::test]
async fn hickorys_server_answers_an_answer_that_it_cannot_read() {
    let (_server, address) = server().await;
    let mut packet = Dry::sample(0);
    packet.truncate(20);
    packet[2] |= 0x80;
    let reply = by_datagram(address, &packet).await.expect("an answer");
    assert_eq!(Message::from_vec(&reply).expect("well formed").metadata.response_code, ResponseCode::FormErr);
    assert_eq!(by_us(&packet, Protocol::Udp), None, "two servers could go on like this for ever");
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

/// A question in mixed letters, with an OPT.
fn request(qtype: RecordType, protocol: Protocol, takes: u16) -> Request {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name("Memcached.Services.Internal."), qtype));
    let mut edns = Edns::new();
    edns.set_max_payload(takes);
    message.set_edns(edns);
    Request::from_bytes(message.to_vec().expect("well formed"), CLIENT, protocol).expect("well formed")
}

fn addresses(count: u32) -> Answer {
    let own = name("Memcached.Services.Internal.");
    let answers = (0..count).map(|number| Rr::from_rdata(own.clone(), 5, RData::A(A(number.into())))).collect();
    Answer { answers, ..Answer::empty(ResponseCode::NoError) }
}

fn services(count: u16) -> Answer {
    let target = |number: u16| name(&format!("core-{number}.memcached.services.internal."));
    let srv = |number| {
        let data = RData::SRV(SRV::new(10, 1, 11_211, target(number)));
        Rr::from_rdata(name("Memcached.Services.Internal."), 5, data)
    };
    let glue = |number| Rr::from_rdata(target(number), 5, RData::A(A(u32::from(number).into())));
    let (answers, additional) = ((0..count).map(srv).collect(), (0..count).map(glue).collect());
    Answer { answers, additional, ..Answer::empty(ResponseCode::NoError) }
}

/// What hickory writes when it is given everything and a limit.
fn hickorys(draft: &Draft<'_>, limit: u16) -> Message {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    draft.message(draft.all()).destructive_emit(&mut encoder).expect("written");
    Message::from_vec(&bytes).expect("well formed")
}

/// What is written of it here, through hickory.
async fn ours(request: &Request, draft: &Draft<'_>, limit: u16) -> (Message, usize) {
    let written = Written::reply_to(request);
    written.clone().send_response(draft.message(draft.fitting(limit))).await.expect("written");
    let bytes = written.take().expect("written");
    (Message::from_vec(&bytes).expect("well formed"), bytes.len())
}

fn draft<'a>(request: &'a Request, answer: &'a Answer, edns: &'a Edns) -> Draft<'a> {
    let metadata = Metadata::response_from_request(&request.metadata);
    Draft { metadata, queries: &request.queries, answer, edns: Some(edns) }
}

#[tokio::test]
async fn hickory_calls_a_message_without_all_glue_cut_and_may_leave_its_opt_out() {
    let (answer, mut edns) = (services(18), Edns::new());
    // As it is while the store is away: RFC 8914's code and a few words.
    edns.options_mut().insert(EdnsOption::Unknown(15, b"\0\x03the store is away".to_vec()));
    let mut without = 0;
    for limit in 1_100..1_200 {
        let request = request(RecordType::SRV, Protocol::Udp, limit);
        let draft = draft(&request, &answer, &edns);
        let plain = hickorys(&draft, limit);
        assert_eq!((plain.answers.len(), plain.metadata.truncation), (18, true), "within {limit}");
        without += usize::from(plain.edns.is_none());
        let (message, length) = ours(&request, &draft, limit).await;
        let said = (message.answers.len(), message.metadata.truncation, message.edns.is_some());
        assert_eq!(said, (18, false, true), "within {limit}");
        assert!(message.additionals.len() < 18 && length <= usize::from(limit), "{length} of {limit} bytes");
    }
    assert!(without > 10, "only {without} of 100 lack their OPT");
}

#[tokio::test]
async fn answers_come_before_glue_and_glue_is_not_squeezed_in_behind_cut_answers() {
    let (request, answer, edns) = (request(RecordType::SRV, Protocol::Udp, 1_232), services(60), Edns::new());
    let draft = draft(&request, &answer, &edns);
    let (message, length) = ours(&request, &draft, 1_232).await;
    assert!(message.answers.len() > 15 && message.answers.len() < 60, "{} answers", message.answers.len());
    assert!(message.additionals.is_empty() && message.edns.is_some() && length <= 1_232);
}

#[tokio::test]
async fn hickory_does_not_find_the_question_again_as_an_owner() {
    let (request, answer, edns) = (request(RecordType::A, Protocol::Udp, 512), addresses(1), Edns::new());
    let draft = draft(&request, &answer, &edns);
    let mut bytes = Vec::new();
    draft.message(draft.all()).destructive_emit(&mut BinEncoder::new(&mut bytes)).expect("written");
    let (message, length) = ours(&request, &draft, 512).await;
    assert_eq!(bytes.len() - length, "Memcached.Services.Internal.".len() + 1 - 2);
    assert!(message.answers[0].name.eq_case(&name("Memcached.Services.Internal.")));
}

#[test]
fn hickory_compresses_too_few_names_for_2000_addresses() {
    let (request, answer, edns) = (request(RecordType::A, Protocol::Tcp, 512), addresses(2_000), Edns::new());
    let draft = draft(&request, &answer, &edns);
    let plain = hickorys(&draft, u16::MAX);
    assert!(plain.metadata.truncation && plain.answers.len() < 1_600, "{} answers", plain.answers.len());
    let bytes = draft.in_pieces(u16::MAX).expect("written");
    let message = Message::from_vec(&bytes).expect("well formed");
    assert_eq!((message.answers.len(), message.edns.is_some()), (2_000, true));
    assert_eq!(message.answers, answer.answers);
    assert_eq!(message.queries[0].name().to_ascii(), "Memcached.Services.Internal.");
}

#[test]
fn pieces_hold_as_many_services_as_fit_and_nothing_half() {
    let (request, answer, edns) = (request(RecordType::SRV, Protocol::Tcp, 512), services(2_000), Edns::new());
    let draft = draft(&request, &answer, &edns);
    for limit in [60, 100, 512, 1_232, 20_000, u16::MAX] {
        let bytes = draft.in_pieces(limit).expect("written");
        let message = Message::from_vec(&bytes).expect("well formed");
        assert!(bytes.len() <= usize::from(limit), "{} of {limit} bytes", bytes.len());
        assert_eq!(message.answers, answer.answers[..message.answers.len()]);
        assert!(message.additionals.is_empty() && message.edns.is_some());
        // Another answer would not have fitted.
        assert!(bytes.len() + 70 > usize::from(limit), "{} of {limit} bytes", bytes.len());
    }
}
