//! The askers: an agent by DNS, a server in its own protocol, a member of etcd, and the machine itself. Each asks in
//! plain blocking code and tells from when to when; none knows what the answer should be.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, RecordType};

use crate::truth::Seen;

/// How long a resolver would wait for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A server that has not answered by then is taken for dead, as wharf's probes take it.
const SILENCE: Duration = Duration::from_millis(500);
/// One that answers later than this is neither.
const SLOW: Duration = Duration::from_millis(250);
/// What the canary takes on a machine at rest.
const AT_REST: Duration = Duration::from_millis(40);

/// The kinds of servers that are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memcached,
    Redis,
    Postgres,
}

impl Kind {
    /// Its service's name.
    pub fn service(self) -> &'static str {
        match self {
            Self::Memcached => "memcached",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    /// How often it is asked: a postgres forks for each question.
    pub fn interval(self) -> Duration {
        if self == Self::Postgres { Duration::from_millis(300) } else { Duration::from_millis(120) }
    }

    fn question(self) -> &'static [u8] {
        match self {
            Self::Memcached => b"version\r\n",
            Self::Redis => b"PING\r\n",
            // Protocol 3.0, user postgres.
            Self::Postgres => b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0",
        }
    }

    fn is_served_by(self, reply: &[u8]) -> bool {
        match self {
            Self::Memcached => reply.starts_with(b"VERSION "),
            Self::Redis => reply.starts_with(b"+PONG"),
            Self::Postgres => reply.starts_with(b"R"),
        }
    }
}

/// Asks a server whether it serves.
pub fn serves(kind: Kind, at: SocketAddrV4) -> Seen {
    let start = Instant::now();
    let answer = exchange(at, kind.question());
    let took = start.elapsed();
    match answer {
        Ok(reply) if !kind.is_served_by(&reply) => Seen::Dead,
        Ok(_) if took <= SLOW => Seen::Serves,
        // Connecting and waiting may take a silence each.
        Err(_) if took <= 2 * SILENCE + SLOW => Seen::Dead,
        _ => Seen::Unclear,
    }
}

/// Asks a member of etcd for something that only a quorum can answer; the term says how often its leader has changed.
pub fn store_term(member: SocketAddrV4) -> Option<u64> {
    let body = r#"{"key":"YW55"}"#;
    let request = format!("POST /v3/kv/range HTTP/1.0\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let reply = exchange(member, request.as_bytes()).ok()?;
    let reply = String::from_utf8_lossy(&reply);
    let body = reply.strip_prefix("HTTP/1.0 200")?.split_once("\r\n\r\n")?.1;
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    body["header"]["raft_term"].as_str()?.parse().ok()
}

/// The addresses that a process has connections to at a port, as the kernel tells it.
pub fn connected(pid: u32, port: u16) -> BTreeSet<Ipv4Addr> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let sockets: Vec<(u64, Ipv4Addr)> = table.lines().filter_map(|line| connection(line, port)).collect();
    if sockets.is_empty() {
        return BTreeSet::new();
    }
    // The table is of all of its network; these are its own.
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let own: BTreeSet<u64> = files.filter_map(|file| socket(&fs::read_link(file.ok()?.path()).ok()?)).collect();
    sockets.into_iter().filter(|(inode, _)| own.contains(inode)).map(|(_, address)| address).collect()
}

/// One line of the kernel's table: an open connection to a port, by its inode, and to whom.
fn connection(line: &str, port: u16) -> Option<(u64, Ipv4Addr)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, at) = words.get(2)?.split_once(':')?;
    let open = words.get(3) == Some(&"01") && u16::from_str_radix(at, 16) == Ok(port);
    // Written as the machine keeps it in memory.
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    let inode = words.get(9)?.parse().ok()?;
    open.then_some((inode, address))
}

fn socket(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn exchange(at: SocketAddrV4, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(at), SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(question)?;
    let mut reply = [0; 1024];
    let length = stream.read(&mut reply)?;
    Ok(reply[..length].to_vec())
}

/// Asks an agent for the endpoints of a name, as a client would that wants to connect to them.
pub fn endpoints(agent: SocketAddrV4, name: &str) -> Result<BTreeSet<SocketAddrV4>, String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|error| format!("bind: {error}"))?;
    let failed = |error: std::io::Error| format!("{:?}", error.kind());
    socket.connect(agent).map_err(failed)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let question = question(name)?;
    socket.send(&question.to_vec().map_err(|error| error.to_string())?).map_err(failed)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).map_err(failed)?;
    let reply = Message::from_vec(&buffer[..length]).map_err(|error| format!("cannot be read: {error}"))?;
    if reply.metadata.id != question.metadata.id || reply.metadata.truncation {
        return Err("another question's answer, or cut short".into());
    }
    match reply.metadata.response_code {
        ResponseCode::NXDomain => Ok(BTreeSet::new()),
        ResponseCode::NoError => targets(&reply),
        other => Err(format!("{other:?}")),
    }
}

fn question(name: &str) -> Result<Message, String> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).map_err(|error| error.to_string())?, RecordType::SRV));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    Ok(message)
}

fn targets(reply: &Message) -> Result<BTreeSet<SocketAddrV4>, String> {
    let servers = reply.answers.iter().filter_map(|record| match &record.data {
        RData::SRV(server) => Some(server),
        _ => None,
    });
    let address = |name: &Name| {
        reply.additionals.iter().filter(|record| &record.name == name).find_map(|record| match &record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        })
    };
    servers
        .map(|server| {
            let address = address(&server.target).ok_or_else(|| format!("no address for {}", server.target))?;
            Ok(SocketAddrV4::new(address, server.port))
        })
        .collect()
}

/// How late the machine is right now at what an answer is made of: to wake up, to start a program, to reach the disk.
pub fn lateness(folder: &Path) -> Duration {
    let start = Instant::now();
    crate::lab::wait::pause(Duration::from_millis(10));
    let mut program = Command::new("true");
    let _ = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(folder.join("canary"));
    let _ = file.and_then(|mut file| file.write_all(b"canary").and_then(|()| file.sync_data()));
    start.elapsed().saturating_sub(AT_REST)
}
