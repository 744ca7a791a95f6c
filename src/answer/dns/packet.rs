//! One packet in, one packet out: what is seen to before a packet is a request, and what is left of it afterwards.
//!
//! hickory reads the request and [`Handler`] answers it. A packet without a header and one that is itself an answer
//! get nothing; one that cannot be read gets FORMERR. A panic costs the packet that caused it.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{OpCode, ResponseCode};
use hickory_server::server::{Request, RequestHandler};

use super::handler::{Handler, Rests};
use super::message::{HEADER, UDP_MOST, Written};
use super::metrics::{Dropped, outcome};
use super::serving::Serving;

/// Bytes of a packet that are told when answering it panicked.
const TOLD: usize = 300;

/// The flag of a reply that more is to be had by TCP.
const TC: u8 = 0x02;
/// The root's name and OPT's number.
const OPT: [u8; 3] = [0, 0, 41];
/// Records beside an OPT that are passed over to find it, such as a signature.
const MANY: u8 = 4;

/// What became of a packet.
#[derive(Debug, Default)]
pub(super) struct Handled {
    /// The reply, if the packet deserves one.
    pub(super) reply: Option<Vec<u8>>,
    /// What the reply rests on, and its counter's place, if the same may be said again.
    pub(super) rests: Option<(Rests, usize)>,
}

/// Answers a packet. Waits for nothing but what must be asked elsewhere.
pub(super) async fn handle(serving: Arc<Serving>, packet: Vec<u8>, from: SocketAddr, protocol: Protocol) -> Handled {
    let begins: Box<[u8]> = packet[..packet.len().min(TOLD)].into();
    let metrics = serving.metrics.clone();
    let handled = AssertUnwindSafe(handle_one(serving, packet, from, protocol)).catch_unwind().await;
    handled.unwrap_or_else(|_| {
        tracing::error!(packet = %Hex(&begins), client = %from, "panicked over a packet: dropped");
        metrics.dropped(Dropped::Panic);
        Handled::default()
    })
}

async fn handle_one(serving: Arc<Serving>, packet: Vec<u8>, from: SocketAddr, protocol: Protocol) -> Handled {
    let begun = Instant::now();
    let Some(head) = packet.first_chunk::<HEADER>().copied() else { return dropped(&serving, Dropped::Short) };
    if head[2] & 0x80 != 0 {
        return dropped(&serving, Dropped::Response);
    }
    let seed = serving.order.next(&packet, protocol);
    // Nothing stands before the first name, so it can point to nothing.
    let spelled = head[4..6] != [0, 1] || question_end(&packet).is_some();
    let request = match Request::from_bytes(packet, from, protocol) {
        Ok(request) if spelled => request,
        _ => {
            let rcode = malformed(&head);
            let metrics = &serving.metrics;
            metrics.answered(metrics.place(metrics.foreign(), None, outcome(rcode)), begun.elapsed());
            return Handled { reply: Some(header_only(&head, rcode)), rests: None };
        }
    };
    let handler = Handler::new(serving, seed);
    let written = Written::reply_to(&request);
    handler.handle_request::<_, TokioTime>(&request, written.clone()).await;
    let told = handler.told();
    let (pieces, rests) = told.map_or((None, None), |told| (told.pieces, told.rests.map(|rests| (rests, told.place))));
    Handled { reply: pieces.or_else(|| written.take()), rests }
}

fn dropped(serving: &Serving, why: Dropped) -> Handled {
    serving.metrics.dropped(why);
    Handled::default()
}

/// What is said to a packet that cannot be read.
fn malformed(head: &[u8; HEADER]) -> ResponseCode {
    if OpCode::from_u8(head[2] >> 3 & 0x0f) == OpCode::Query { ResponseCode::FormErr } else { ResponseCode::NotImp }
}

fn header_only(head: &[u8; HEADER], rcode: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    reply[..2].copy_from_slice(&head[..2]);
    reply[2] = 0x80 | (head[2] & 0x79);
    reply[3] = rcode.low();
    reply
}

/// An empty reply that bids the client to come by TCP, made of the question alone, with an OPT if it had one (RFC
/// 6891): whether it is one, and not BADVERS.
pub(super) fn truncated(packet: &[u8], reply: &mut Vec<u8>) -> Option<ResponseCode> {
    reply.clear();
    let end = question_end(packet)?;
    let opt = opt(packet, end)?;
    reply.extend_from_slice(&packet[..end]);
    reply[2] = 0x80 | (packet[2] & 0x79);
    reply[3] = packet[3] & 0x10;
    reply[6..HEADER].fill(0);
    let Some(flags) = opt else {
        reply[2] |= TC;
        return Some(ResponseCode::NoError);
    };
    let rcode = if flags[1] > 0 { ResponseCode::BADVERS } else { ResponseCode::NoError };
    reply[2] |= if flags[1] > 0 { 0 } else { TC };
    reply[11] = 1;
    reply.extend_from_slice(&OPT);
    reply.extend_from_slice(&UDP_MOST.to_be_bytes());
    reply.extend_from_slice(&[rcode.high(), 0, flags[2] & 0x80, 0, 0, 0]);
    Some(rcode)
}

/// The flags of the only OPT behind a question (extended code, version, DO), if there is one; nothing at all where what
/// stands there cannot be read.
#[allow(clippy::option_option)] // A packet without OPT is as good as one with it.
fn opt(packet: &[u8], question: usize) -> Option<Option<[u8; 3]>> {
    let (counts, mut at) = (packet.get(6..HEADER)?, question);
    if counts[..5] != [0; 5] || counts[5] > MANY {
        return None;
    }
    let mut found = None;
    for _ in 0..counts[5] {
        let is_root = *packet.get(at)? == 0;
        let fixed = if is_root { at + 1 } else { name_end(packet, at)? };
        let record = packet.get(fixed..fixed + 10)?;
        if is_root && record[..2] == OPT[1..] {
            let flags = [record[4], record[5], record[6]];
            found = found.is_none().then_some(Some(flags))?;
        }
        at = fixed + 10 + usize::from(u16::from_be_bytes([record[8], record[9]]));
    }
    (at <= packet.len()).then_some(found)
}

/// Where a name ends.
fn name_end(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
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

/// A packet, for the log.
struct Hex<'p>(&'p [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::op::{Edns, Message, MessageType, Query};
    use hickory_server::proto::rr::rdata::opt::EdnsOption;
    use hickory_server::proto::rr::{Name, RecordType};

    use super::*;

    fn question(edns: Option<(u8, bool)>) -> Vec<u8> {
        let mut message = Message::new(77, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("Web.services.internal.").expect("a name"), RecordType::SRV));
        if let Some((version, dnssec)) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(4_096).set_version(version).set_dnssec_ok(dnssec);
            edns.options_mut().insert(EdnsOption::Unknown(10, vec![1; 8]));
            message.set_edns(edns);
        }
        message.to_vec().expect("written")
    }

    fn cut(packet: &[u8]) -> Option<(ResponseCode, Message, Vec<u8>)> {
        let mut reply = Vec::new();
        let rcode = truncated(packet, &mut reply)?;
        Some((rcode, Message::from_vec(&reply).expect("a message"), reply))
    }

    #[test]
    fn what_is_told_to_come_by_tcp_has_an_opt_exactly_when_the_question_had() {
        for edns in [None, Some((0, false)), Some((0, true))] {
            let packet = question(edns);
            let (rcode, reply, bytes) = cut(&packet).expect("a reply");
            assert_eq!((rcode, reply.metadata.response_code), (ResponseCode::NoError, ResponseCode::NoError));
            assert!(reply.metadata.truncation && reply.metadata.recursion_desired && reply.answers.is_empty());
            assert_eq!(reply.queries[0].name().to_ascii(), "Web.services.internal.");
            assert_eq!(reply.edns.as_ref().map(|edns| (edns.version(), edns.flags().dnssec_ok)), edns);
            assert!(bytes.len() <= packet.len(), "never larger than what was asked");
        }
    }

    #[test]
    fn an_unknown_version_is_badvers_and_not_cut() {
        let (rcode, reply, bytes) = cut(&question(Some((1, true)))).expect("a reply");
        assert_eq!((rcode, u16::from(reply.metadata.response_code)), (ResponseCode::BADVERS, 16));
        assert_eq!((bytes[2] & TC, reply.edns.map(|edns| edns.version())), (0, Some(0)));
    }

    #[test]
    fn what_cannot_be_read_gets_nothing() {
        let packet = question(Some((0, false)));
        assert!(cut(&packet[..packet.len() - 12]).is_none(), "half an OPT");
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = packet.clone();
            change(&mut packet);
            cut(&packet)
        };
        assert!(with(&|packet| packet[7] = 1).is_none(), "an answer within a question");
        assert!(with(&|packet| packet[11] = 255).is_none());
        let twice = |packet: &mut Vec<u8>| {
            packet[11] = 2;
            let opt = packet[packet.len() - 23..].to_vec();
            packet.extend(opt);
        };
        assert!(with(&twice).is_none(), "two OPT");
    }

    proptest::proptest! {
        #[test]
        fn no_packet_panics(packet in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            truncated(&packet, &mut Vec::new());
        }
    }
}
