//! Asking one server, or several in turn, and remembering which of them answer.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Fetched, Wanted};
use crate::find::dns::packet::UDP_MOST;

/// A server that has not answered by then is left for the next one.
const PATIENCE: Duration = Duration::from_millis(1_200);
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

/// Asks one server after the other until one answers to the point. When none does, a refusal is better than nothing.
pub(super) async fn ask_in_turn(
    wanted: &Wanted,
    servers: &[SocketAddr],
    silent: &mut Vec<SocketAddr>,
) -> Option<(SocketAddr, Fetched)> {
    let mut refusal = None;
    for server in (0..ROUNDS).flat_map(|_| servers) {
        match timeout(PATIENCE, ask(wanted, *server)).await {
            Ok(Ok(fetched)) if matches!(fetched.rcode, ResponseCode::NoError | ResponseCode::NXDomain) => {
                return Some((*server, fetched));
            }
            Ok(Ok(fetched)) => refusal = Some((*server, fetched)),
            Ok(Err(error)) => {
                tracing::debug!(%error, %server, "upstream not asked");
                silent.push(*server);
            }
            Err(_) => silent.push(*server),
        }
        if refusal.is_some() && servers.len() == 1 {
            break;
        }
    }
    refusal
}

async fn ask(wanted: &Wanted, server: SocketAddr) -> io::Result<Fetched> {
    let question = question(wanted);
    let packet = question.to_vec().map_err(io::Error::other)?;
    let reply =
        if wanted.stream { by_stream(&packet, server).await? } else { by_datagram(&question, &packet, server).await? };
    if !is_reply_to(&question, &reply) {
        return Err(io::Error::other("the answer is to another question"));
    }
    Ok(fetched(reply))
}

fn question(wanted: &Wanted) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = wanted.unchecked;
    let mut query = Query::query(wanted.name.clone(), wanted.qtype);
    query.set_query_class(wanted.qclass);
    message.add_query(query);
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_MOST).set_version(0).set_dnssec_ok(wanted.dnssec);
    message.set_edns(edns);
    message
}

async fn by_datagram(question: &Message, packet: &[u8], server: SocketAddr) -> io::Result<Message> {
    let any = if server.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    // A socket for each question: its port is as hard to guess as the question's number.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = [0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(reply) if is_reply_to(question, &reply) => return Ok(reply),
            // Forged or late: the true one may still come.
            _ => continue,
        }
    }
}

async fn by_stream(packet: &[u8], server: SocketAddr) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), packet].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    Message::from_vec(&reply).map_err(io::Error::other)
}

fn is_reply_to(question: &Message, reply: &Message) -> bool {
    let same = match (question.queries.as_slice(), reply.queries.as_slice()) {
        ([asked], [answered]) => {
            let name = asked.name().to_lowercase() == answered.name().to_lowercase();
            name && asked.query_type() == answered.query_type() && asked.query_class() == answered.query_class()
        }
        // Some refuse without repeating the question.
        (_, []) => reply.metadata.response_code != ResponseCode::NoError,
        _ => false,
    };
    same && reply.metadata.id == question.metadata.id && reply.metadata.message_type == MessageType::Response
}

fn fetched(reply: Message) -> Fetched {
    let mut additional = reply.additionals;
    additional.retain(|record| record.record_type() != RecordType::OPT);
    Fetched {
        rcode: reply.metadata.response_code,
        answers: reply.answers,
        authority: reply.authorities,
        additional,
        truncated: reply.metadata.truncation,
    }
}

#[cfg(test)]
mod tests {
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
}
