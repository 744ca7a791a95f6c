//! A resolver for tests: a few records, everything else NXDOMAIN; it may be silent, truncate, or refuse. Names that
//! begin with `never` it never answers. Like servers that point to the question, it repeats names in the question's
//! letters.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hickory_server::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// A running resolver.
pub struct Fixture {
    pub address: SocketAddr,
    pub state: Arc<State>,
    _tasks: JoinSet<()>,
}

/// How it behaves, and what it has seen.
#[derive(Default)]
pub struct State {
    records: Vec<Record>,
    pub silent: AtomicBool,
    pub truncating: AtomicBool,
    pub refusing: AtomicBool,
    pub asked: AtomicU32,
}

impl Fixture {
    pub async fn start(records: Vec<Record>) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let state = Arc::new(State { records, ..State::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(udp, state.clone()));
        tasks.spawn(streams(tcp, state.clone()));
        Self { address, state, _tasks: tasks }
    }

    pub fn asked(&self) -> u32 {
        self.state.asked.load(Ordering::Relaxed)
    }
}

async fn datagrams(socket: UdpSocket, state: Arc<State>) {
    let mut buffer = [0; 4_096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(reply) = state.reply(&buffer[..length], false) {
            socket.send_to(&reply, from).await.unwrap();
        }
    }
}

async fn streams(listener: TcpListener, state: Arc<State>) {
    let mut open = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let state = state.clone();
        open.spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut packet = vec![0; usize::from(length)];
                stream.read_exact(&mut packet).await.unwrap();
                let Some(reply) = state.reply(&packet, true) else { return };
                stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        });
    }
}

impl State {
    fn reply(&self, packet: &[u8], stream: bool) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.silent.load(Ordering::Relaxed) {
            return None;
        }
        let asked = Message::from_vec(packet).unwrap();
        let query = asked.queries[0].clone();
        if query.name().iter().next().is_some_and(|label| label.to_ascii_lowercase().starts_with(b"never")) {
            return None;
        }
        let mut reply = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
        reply.metadata.recursion_available = true;
        if self.refusing.load(Ordering::Relaxed) {
            reply.metadata.response_code = ResponseCode::Refused;
        } else if self.truncating.load(Ordering::Relaxed) && !stream {
            reply.metadata.truncation = true;
        } else {
            self.find(query.name(), query.query_type(), &mut reply.answers);
            let known = self.records.iter().any(|record| record.name == *query.name());
            if reply.answers.is_empty() && !known {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
        }
        reply.add_query(query);
        if let Some(edns) = asked.edns {
            reply.set_edns(edns);
        }
        Some(reply.to_vec().unwrap())
    }

    fn find(&self, name: &Name, qtype: RecordType, found: &mut Vec<Record>) {
        let own = self.records.iter().filter(|record| record.name.to_lowercase() == name.to_lowercase());
        for record in own {
            let mut record = record.clone();
            record.name = name.clone();
            if let RData::CNAME(target) = &mut record.data
                && target.0.zone_of(name)
            {
                target.0 = name.trim_to(usize::from(target.0.num_labels()));
            }
            if record.record_type() == qtype {
                found.push(record);
            } else if let RData::CNAME(target) = record.data.clone() {
                found.push(record);
                self.find(&target.0, qtype, found);
            }
        }
    }
}
