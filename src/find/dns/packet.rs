//! One packet in, one packet out: everything between the socket and [`crate::model::dns::answer`].
//!
//! hickory reads the question and writes the records; the rules of size are here: never more than the client takes (or
//! 1232 bytes by UDP), glue goes before answers do, TC only when answers are missing, OPT exactly when it was asked.
//! Nothing waits here. What another server must be asked for is handed back as a [`Pending`].

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::opt::EdnsOption;
use hickory_server::proto::rr::{Name, Record as Rr};
use ipnet::IpNet;

use super::metrics::{Dropped, Metrics, ZoneIndex, outcome};
use super::wire::Writer;
use crate::find::view::Progress;
use crate::model::catalog::{Catalog, Dependency, LeaseId};
use crate::model::dns::{self, Answer, Context, Outcome, Question};
use crate::model::zone::Zones;

/// The largest reply by UDP, whatever the client says it takes.
pub(super) const UDP_MOST: u16 = 1232;
/// The largest reply to a client that says nothing.
const UDP_PLAIN: u16 = 512;
const HEADER: usize = 12;
/// An OPT record without options.
const OPT: usize = 11;

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// As a datagram.
    Udp,
    /// In a stream.
    Tcp,
}

/// What answering depends on and does not change while the server runs.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) zones: Zones,
    pub(super) dns_ttl: u32,
    pub(super) negative_ttl: u32,
    /// Foreign names are forwarded, for clients in `forward_allow`.
    pub(super) forward: bool,
    pub(super) forward_allow: Vec<IpNet>,
    /// Who may ask at all; empty is everyone.
    pub(super) allow: Vec<IpNet>,
}

/// What a packet is answered from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'c> {
    pub(super) catalog: &'c Catalog,
    pub(super) progress: Progress,
    /// On the catalog's clock.
    pub(super) now: Duration,
    /// Another one for each packet: answers are rotated by it.
    pub(super) seed: u64,
}

/// What is to be done about a packet.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The reply is in the buffer.
    Reply(Said),
    /// Another server must be asked.
    Pending(Box<Pending>),
    /// Nothing.
    Drop(Dropped),
}

/// What was said, for counting and for saying it again.
#[derive(Debug)]
pub(super) struct Said {
    /// The counter's place.
    pub(super) place: usize,
    /// What it rests on, if the same may be said again.
    pub(super) rests: Option<Rests>,
    /// Foreign leases that were answered.
    pub(super) leases: Vec<LeaseId>,
}

/// What a reply rests on.
#[derive(Clone, Debug)]
pub(super) struct Rests {
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) fresh_until: Option<Duration>,
    /// Ways to say it that differ by rotation only.
    pub(super) ways: usize,
}

/// A question that another server must be asked to answer.
#[derive(Debug)]
pub(super) struct Pending {
    /// How the reply is written.
    pub(super) frame: Frame,
    /// The name asked for elsewhere.
    pub(super) target: Name,
    /// What is known here already: a chain of CNAMEs that leads to the target.
    pub(super) beginning: Option<Answer>,
}

/// How the reply to one question is written.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    request: Metadata,
    pub(super) question: Question,
    /// The client's OPT: its DO bit. `None` means that the reply has none either.
    pub(super) edns: Option<bool>,
    /// Bytes that the reply may have.
    pub(super) limit: u16,
    pub(super) transport: Transport,
    recursion: bool,
}

/// An extended error (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended(pub(super) u16, pub(super) &'static str);

impl Extended {
    const OTHER_CONTESTED: Self = Self(0, "contested: several claim this role");
    const STALE: Self = Self(3, "the store is away");
    const NOT_READY: Self = Self(14, "the store has not been read yet");
    const PROHIBITED: Self = Self(18, "");
    const STALE_NXDOMAIN: Self = Self(19, "the store is away");
    const NOT_AUTHORITATIVE: Self = Self(20, "");
    /// Nobody who was asked could say.
    pub(super) const NETWORK: Self = Self(23, "no upstream answered");
}

impl Pending {
    /// The reply when nobody can be asked.
    pub(super) fn give_up(&self, reply: &mut Vec<u8>) {
        self.frame.write(&Answer::empty(ResponseCode::ServFail), Some(Extended::NETWORK), reply);
    }
}

impl Rules {
    /// Answers a packet into `reply`. A panic costs this packet only.
    pub(super) fn answer(
        &self,
        metrics: &Metrics,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        now: Now<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        reply.clear();
        let answered =
            catch_unwind(AssertUnwindSafe(|| self.answer_packet(metrics, packet, client, transport, now, reply)));
        answered.unwrap_or_else(|_| {
            tracing::error!(packet = %Hex(packet), %client, "panicked over a packet: dropped");
            reply.clear();
            Verdict::Drop(Dropped::Panic)
        })
    }

    fn answer_packet(
        &self,
        metrics: &Metrics,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        now: Now<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        if packet.len() < HEADER {
            return Verdict::Drop(Dropped::Short);
        }
        if packet[2] & 0x80 != 0 {
            return Verdict::Drop(Dropped::Response);
        }
        let plain =
            |rcode| Said { place: metrics.place(metrics.foreign(), None, outcome(rcode)), rests: None, leases: vec![] };
        let Ok(message) = Message::from_vec(packet) else {
            write_header_only(packet, malformed(packet), reply);
            return Verdict::Reply(plain(malformed(packet)));
        };
        let frame = match Frame::of(&message, transport, self.recursion_for(client)) {
            Ok(frame) => frame,
            Err((rcode, edns)) => {
                write_error(&message, rcode, edns, reply);
                return Verdict::Reply(plain(rcode));
            }
        };
        let place = |zone, rcode| metrics.place(zone, Some(frame.question.qtype), outcome(rcode));
        if !contains(&self.allow, client, true) {
            frame.write(&Answer::empty(ResponseCode::Refused), Some(Extended::PROHIBITED), reply);
            let place = place(metrics.foreign(), ResponseCode::Refused);
            return Verdict::Reply(Said { place, rests: None, leases: vec![] });
        }
        match dns::answer(now.catalog, &self.zones, &frame.question, &self.context(&frame, now)) {
            Outcome::Answer(answer) => {
                let (answer, extended) = told(answer, now);
                let zone = answer.zone.map_or(metrics.foreign(), ZoneIndex);
                let whole = frame.write(&answer, extended, reply);
                let place = place(zone, answer.rcode);
                let rests = rests(&answer, now, whole);
                Verdict::Reply(Said { place, rests, leases: answer.leases })
            }
            Outcome::Chase { answer, target } if frame.recursion => {
                let beginning = Some(answer);
                Verdict::Pending(Box::new(Pending { frame, target, beginning }))
            }
            Outcome::Chase { answer, .. } => {
                let zone = answer.zone.map_or(metrics.foreign(), ZoneIndex);
                frame.write(&answer, stale(now), reply);
                Verdict::Reply(Said { place: place(zone, answer.rcode), rests: None, leases: answer.leases })
            }
            Outcome::Foreign if frame.recursion && frame.request.recursion_desired => {
                let target = frame.question.name.clone();
                Verdict::Pending(Box::new(Pending { frame, target, beginning: None }))
            }
            Outcome::Foreign => {
                frame.write(&Answer::empty(ResponseCode::Refused), Some(Extended::NOT_AUTHORITATIVE), reply);
                let place = place(metrics.foreign(), ResponseCode::Refused);
                Verdict::Reply(Said { place, rests: None, leases: vec![] })
            }
        }
    }

    fn context(&self, frame: &Frame, now: Now<'_>) -> Context {
        Context {
            dns_ttl: self.dns_ttl,
            negative_ttl: self.negative_ttl,
            seed: now.seed,
            now: now.now,
            room: usize::from(frame.limit),
        }
    }

    /// Whether foreign names are looked up for this client.
    pub(super) fn recursion_for(&self, client: IpAddr) -> bool {
        self.forward && contains(&self.forward_allow, client, false)
    }

    /// Whether answers to this client are not counted: it is one of our own.
    pub(super) fn is_trusted(&self, client: IpAddr) -> bool {
        contains(&self.forward_allow, client, false)
    }

    /// Whether this client may ask at all.
    pub(super) fn allows(&self, client: IpAddr) -> bool {
        contains(&self.allow, client, true)
    }
}

fn contains(networks: &[IpNet], address: IpAddr, when_empty: bool) -> bool {
    let address = address.to_canonical();
    if networks.is_empty() { when_empty } else { networks.iter().any(|network| network.contains(&address)) }
}

/// What is said while less than everything is known.
fn told(answer: Answer, now: Now<'_>) -> (Answer, Option<Extended>) {
    let negative = answer.zone.is_some() && answer.answers.is_empty();
    if negative && now.progress < Progress::Kept && answer.rcode != ResponseCode::Refused {
        let zone = answer.zone;
        return (Answer { zone, ..Answer::empty(ResponseCode::ServFail) }, Some(Extended::NOT_READY));
    }
    let extended = match answer.rcode {
        _ if answer.contested => Some(Extended::OTHER_CONTESTED),
        ResponseCode::NXDomain => stale(now).map(|_| Extended::STALE_NXDOMAIN),
        _ => stale(now),
    };
    (answer, extended)
}

fn stale(now: Now<'_>) -> Option<Extended> {
    now.catalog.is_stale().then_some(Extended::STALE)
}

/// Only what exists may be said again: names that do not are without number.
fn rests(answer: &Answer, now: Now<'_>, whole: bool) -> Option<Rests> {
    let again = answer.rcode == ResponseCode::NoError && answer.zone.is_some() && !answer.cut && whole;
    again.then(|| Rests {
        epoch: now.catalog.epoch(),
        generation: now.catalog.generation(),
        dependencies: answer.dependencies.clone(),
        fresh_until: answer.fresh_until,
        ways: answer.answers.len(),
    })
}

impl Frame {
    fn of(message: &Message, transport: Transport, recursion: bool) -> Result<Self, (ResponseCode, Option<bool>)> {
        let edns = message.edns.as_ref().map(|edns| edns.flags().dnssec_ok);
        if message.metadata.op_code != OpCode::Query {
            return Err((ResponseCode::NotImp, edns));
        }
        if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Err((ResponseCode::BADVERS, edns));
        }
        let [query] = message.queries.as_slice() else { return Err((ResponseCode::FormErr, edns)) };
        let question = Question { name: query.name().clone(), qtype: query.query_type(), qclass: query.query_class() };
        let takes = message.edns.as_ref().map_or(UDP_PLAIN, |edns| edns.max_payload().clamp(UDP_PLAIN, UDP_MOST));
        let limit = if transport == Transport::Udp { takes } else { u16::MAX };
        Ok(Self { request: message.metadata, question, edns, limit, transport, recursion })
    }

    /// Writes the reply; whether all of it went in.
    pub(super) fn write(&self, answer: &Answer, extended: Option<Extended>, reply: &mut Vec<u8>) -> bool {
        reply.clear();
        let options = self.edns.map(|dnssec| options(dnssec, answer.rcode, extended));
        let reserve = options.as_ref().map_or(0, |edns| u16::try_from(opt_length(edns)).unwrap_or(0));
        let mut writer = Writer::new(reply, HEADER, usize::from(self.limit - reserve));
        let mut counts = [1_u16, 0, 0, 0];
        let mut whole = writer.question(&self.question).is_ok();
        let (answers, all) = writer.records(&answer.answers);
        counts[1] = answers;
        let truncated = self.transport == Transport::Udp && (!all || answer.cut);
        if all {
            let (authority, glue);
            (counts[2], authority) = writer.records(&answer.authority);
            (counts[3], glue) = writer.records(&answer.additional);
            whole &= authority && glue;
        }
        if let Some(edns) = &options {
            writer.set_limit(usize::from(self.limit));
            counts[3] += writer.records(&[Rr::from(edns)]).0;
        }
        let metadata = self.metadata(answer, truncated);
        write_header(reply, &metadata, counts);
        whole && all
    }

    fn metadata(&self, answer: &Answer, truncated: bool) -> Metadata {
        let mut metadata = Metadata::response_from_request(&self.request);
        metadata.authoritative = answer.authoritative;
        metadata.truncation = truncated;
        metadata.recursion_available = self.recursion;
        metadata.response_code = answer.rcode;
        metadata
    }

    /// The client checks signatures itself.
    pub(super) fn checking_disabled(&self) -> bool {
        self.request.checking_disabled
    }
}

fn options(dnssec: bool, rcode: ResponseCode, extended: Option<Extended>) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_MOST).set_version(0).set_rcode_high(rcode.high());
    edns.set_dnssec_ok(dnssec);
    if let Some(Extended(code, text)) = extended {
        let mut data = code.to_be_bytes().to_vec();
        data.extend_from_slice(text.as_bytes());
        edns.options_mut().insert(EdnsOption::Unknown(15, data));
    }
    edns
}

fn opt_length(edns: &Edns) -> usize {
    let options: usize = edns.options().options.iter().map(|(_, option)| 4 + usize::from(option.len())).sum();
    OPT + options
}

fn write_header(reply: &mut [u8], metadata: &Metadata, counts: [u16; 4]) {
    let Some(header) = reply.get_mut(..HEADER) else { return };
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    header[..2].copy_from_slice(&metadata.id.to_be_bytes());
    header[2] = 0x80
        | (u8::from(metadata.op_code) << 3)
        | flag(metadata.authoritative, 0x04)
        | flag(metadata.truncation, 0x02)
        | flag(metadata.recursion_desired, 0x01);
    header[3] = flag(metadata.recursion_available, 0x80)
        | flag(metadata.checking_disabled, 0x10)
        | metadata.response_code.low();
    for (place, count) in counts.iter().enumerate() {
        header[4 + 2 * place..6 + 2 * place].copy_from_slice(&count.to_be_bytes());
    }
}

/// A question that was read but is not answered.
fn write_error(message: &Message, rcode: ResponseCode, edns: Option<bool>, reply: &mut Vec<u8>) {
    reply.clear();
    let mut metadata = Metadata::new(message.metadata.id, MessageType::Response, message.metadata.op_code);
    metadata.recursion_desired = message.metadata.recursion_desired;
    metadata.response_code = rcode;
    let mut counts = [0; 4];
    let mut writer = Writer::new(reply, HEADER, usize::from(UDP_PLAIN));
    if let [query] = message.queries.as_slice() {
        let question = Question { name: query.name().clone(), qtype: query.query_type(), qclass: query.query_class() };
        counts[0] = u16::from(writer.question(&question).is_ok());
    }
    if let Some(dnssec) = edns {
        counts[3] = writer.records(&[Rr::from(&options(dnssec, rcode, None))]).0;
    }
    write_header(reply, &metadata, counts);
}

/// What is said to a packet that cannot be read.
fn malformed(packet: &[u8]) -> ResponseCode {
    if packet[2] & 0x78 == 0 { ResponseCode::FormErr } else { ResponseCode::NotImp }
}

fn write_header_only(packet: &[u8], rcode: ResponseCode, reply: &mut Vec<u8>) {
    reply.clear();
    reply.extend_from_slice(&packet[..2]);
    reply.push(0x80 | (packet[2] & 0x79));
    reply.push(rcode.low());
    reply.extend_from_slice(&[0; 8]);
}

/// An empty reply that bids the client to come by TCP, made of the question alone.
pub(super) fn truncated(packet: &[u8], reply: &mut Vec<u8>) -> bool {
    reply.clear();
    let Some(end) = question_end(packet) else { return false };
    reply.extend_from_slice(&packet[..end]);
    reply[2] = 0x80 | 0x02 | (packet[2] & 0x79);
    reply[3] = 0;
    reply[6..HEADER].fill(0);
    true
}

/// Where the only question of a packet ends, if it is written plainly.
pub(super) fn question_end(packet: &[u8]) -> Option<usize> {
    if packet.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => at += length,
            _ => return None,
        }
    }
    let end = at + 4;
    (end <= packet.len() && at - HEADER <= 255).then_some(end)
}

/// The first bytes of a packet, for the log.
struct Hex<'p>(&'p [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(300).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
