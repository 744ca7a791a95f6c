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
use super::message::{HEADER, Written};
use super::metrics::{Dropped, outcome};
use super::serving::Serving;

/// Bytes of a packet that are told when answering it panicked.
const TOLD: usize = 300;

/// What became of a packet.
#[derive(Debug, Default)]
pub(super) struct Handled {
    /// The reply, if the packet deserves one.
    pub(super) reply: Option<Vec<u8>>,
    /// What the reply rests on, and its counter's place, if the same may be said again.
    pub(super) rests: Option<(Rests, usize)>,
}

/// Answers a packet. Waits for nothing but what must be asked elsewhere.
pub(super) async fn handle(
    serving: Arc<Serving>,
    packet: Vec<u8>,
    from: SocketAddr,
    protocol: Protocol,
    seed: u64,
) -> Handled {
    let begins: Box<[u8]> = packet[..packet.len().min(TOLD)].into();
    let metrics = serving.metrics.clone();
    let handled = AssertUnwindSafe(handle_one(serving, packet, from, protocol, seed)).catch_unwind().await;
    handled.unwrap_or_else(|_| {
        tracing::error!(packet = %Hex(&begins), client = %from, "panicked over a packet: dropped");
        metrics.dropped(Dropped::Panic);
        Handled::default()
    })
}

async fn handle_one(
    serving: Arc<Serving>,
    packet: Vec<u8>,
    from: SocketAddr,
    protocol: Protocol,
    seed: u64,
) -> Handled {
    let begun = Instant::now();
    let Some(head) = packet.first_chunk::<HEADER>().copied() else { return dropped(&serving, Dropped::Short) };
    if head[2] & 0x80 != 0 {
        return dropped(&serving, Dropped::Response);
    }
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

/// A packet, for the log.
struct Hex<'p>(&'p [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
