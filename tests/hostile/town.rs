//! A town: one real agent with neighbours, who must not notice what an attacker does.
//!
//! The agent is the program itself, on loopback ports that it chose, with systemd's watchdog, a stand-in engine whose
//! containers are whatever a test says, and the embedded store or a real etcd. A neighbour is a container with a real
//! server behind its published port, which the agent probes before it offers it.
#![allow(dead_code)] // each kind of attacker uses its own part

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::runtime::Runtime;

use crate::beats::{Beats, PERIOD};
use crate::engine::{Engine, container};
use crate::etcd::Cluster;
use crate::program::{Agent, Options, told};

/// How much longer than in peace a neighbour may wait: fairness is the law of one second.
pub const FAIR: Duration = Duration::from_secs(1);
/// How long is waited for what should take a second, so that a failure tells how long it took.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one question by DNS waits before it is asked again.
const QUESTION: Duration = Duration::from_millis(250);
/// Numbers of neighbours' containers begin here; those below are the tests' own.
const FIRST_NEIGHBOUR: usize = 60_000;

static ALONE: Mutex<()> = Mutex::new(());

/// What a town is founded with; the default has the embedded store and no flags of its own.
#[derive(Clone, Debug, Default)]
pub struct Charter<'c> {
    /// A real etcd of one member instead of the embedded store.
    pub etcd: bool,
    /// The text of the agent's settings file.
    pub settings: &'c str,
    pub flags: Vec<String>,
    /// What it advertises; loopback when left out.
    pub advertise: Option<&'c str>,
}

/// Keeps every town of this process from being founded.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent among neighbours, and all that it stands on. Fields are dropped from the first to the last: the agent goes
/// before what it uses.
pub struct Town {
    pub agent: Agent,
    pub engine: Engine,
    pub etcd: Option<Cluster>,
    pub dns: SocketAddr,
    pub http: SocketAddr,
    /// How long a neighbour takes from its start to the first answer when nobody attacks: the longest of three.
    pub usual: Duration,
    beats: Beats,
    neighbours: Mutex<Vec<String>>,
    runtime: Runtime,
    _alone: MutexGuard<'static, ()>,
}

impl Town {
    /// With the embedded store.
    pub fn found() -> Self {
        Self::found_with(&Charter::default())
    }

    pub fn found_with(charter: &Charter<'_>) -> Self {
        let alone = alone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let engine = runtime.block_on(Engine::start());
        let etcd = charter.etcd.then(|| Cluster::start(1));
        let beats = Beats::listen();
        let mut flags = charter.flags.clone();
        if let Some(etcd) = &etcd {
            flags.extend(["--etcd-endpoints".to_owned(), etcd.endpoints().join(",")]);
        }
        let uri = format!("unix://{}", engine.path.display());
        let Charter { settings, advertise, .. } = *charter;
        let env = beats.environment();
        let options = Options { engine: Some(uri), settings, flags, env, advertise, ..Options::default() };
        let agent = Agent::start_with(&options);
        let (dns, http) = (agent.address("dns").parse().unwrap(), agent.address("http").parse().unwrap());
        let usual = Duration::ZERO;
        let neighbours = Mutex::default();
        let mut town = Self { agent, engine, etcd, dns, http, usual, beats, neighbours, runtime, _alone: alone };
        town.usual = (0..3).map(|_| town.neighbour_moves_in()).max().unwrap();
        town
    }

    /// Starts a container; what it is made of is [`container`] or any JSON that an engine may tell.
    pub fn run(&self, inspect: Value) {
        self.engine.run(inspect);
    }

    /// A new neighbour: how long after its start it was answered by DNS.
    fn neighbour_moves_in(&self) -> Duration {
        let mut neighbours = self.neighbours.lock().unwrap();
        let name = format!("neighbour-{}", neighbours.len());
        let mut facts = container(FIRST_NEIGHBOUR + neighbours.len(), "memcached:1.6", 11211, self.memcached());
        facts["Id"] = format!("{:012x}{:052x}", FIRST_NEIGHBOUR + neighbours.len(), 0).into();
        facts["Config"]["Labels"] = json!({"SERVICE_NAME": name});
        neighbours.push(name.clone());
        drop(neighbours);
        let started = Instant::now();
        self.run(facts);
        self.until(&format!("{name} is offered"), || self.answers(&name) == 1);
        started.elapsed()
    }

    /// A new neighbour is offered as soon as ever, and those of before still are.
    #[track_caller]
    pub fn neighbours_are_offered(&self) {
        let before = self.neighbours.lock().unwrap().clone();
        let took = self.neighbour_moves_in();
        let usual = self.usual;
        assert!(took <= usual + FAIR, "a neighbour waited {took:?}, without the attack {usual:?}\n{}", self.said());
        for name in before {
            let answers = self.answers_of_several(&name);
            assert_eq!(answers, 1, "{name} is answered no more\n{}", self.said());
        }
    }

    /// systemd had no reason to kill the agent, from its start until now.
    #[track_caller]
    pub fn beats_never_missed(&self) {
        let longest = self.beats.longest_wait();
        assert!(longest <= PERIOD, "the watchdog waited {longest:?} for a beat\n{}", self.said());
        let state = self.status("State");
        assert!(!state.is_empty() && !state.starts_with('Z'), "the agent has ended\n{}", self.said());
    }

    /// The agent's resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let kib = self.status("VmRSS");
        kib.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("the agent runs") * 1024
    }

    /// The CPU time that the agent has taken.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.agent.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // Linux counts it in hundredths of a second, whatever its own clock ticks at.
        Duration::from_millis(ticks * 10)
    }

    fn status(&self, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// The last lines of the agent's log.
    pub fn said(&self) -> String {
        let log = self.agent.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// What `wharf <line>` prints.
    pub fn wharf(&self, line: &str) -> String {
        told(&self.agent.wharf(line)).1
    }

    /// A question by UDP, asked once; `None` without an answer in time.
    pub fn ask(&self, name: &str, kind: RecordType) -> Option<Message> {
        let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(QUESTION)).unwrap();
        socket.connect(self.dns).unwrap();
        socket.send(&question.to_vec().unwrap()).unwrap();
        let mut reply = [0; 65_535];
        let length = socket.recv(&mut reply).ok()?;
        Message::from_vec(&reply[..length]).ok().filter(|reply| reply.metadata.id == question.metadata.id)
    }

    /// How many SRV answers `service` has; 0 also when nobody answers in time.
    pub fn answers(&self, service: &str) -> usize {
        self.ask(&format!("{service}.services.internal."), RecordType::SRV).map_or(0, |reply| reply.answers.len())
    }

    /// The same, asked for again within the fair second: a datagram may get lost where many are sent.
    fn answers_of_several(&self, service: &str) -> usize {
        let name = format!("{service}.services.internal.");
        let mut replies = (0..FAIR.as_millis() / QUESTION.as_millis()).map(|_| self.ask(&name, RecordType::SRV));
        replies.find_map(|reply| reply).map_or(0, |reply| reply.answers.len())
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The value of a metric (`name` or `name{labels}`), 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until it is so.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A server that answers as memcached does, on a port of loopback.
    pub fn memcached(&self) -> u16 {
        self.serve(|line| line.eq_ignore_ascii_case("version").then(|| "VERSION 1.6.38\r\n".to_owned()))
    }

    /// A server that accepts and never says a word.
    pub fn silence(&self) -> u16 {
        self.serve(|_| None)
    }

    /// A server of lines on a port of every address, for as long as the town stands.
    pub fn serve(&self, reply: fn(&str) -> Option<String>) -> u16 {
        let listener = self.runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (reader, mut writer) = stream.into_split();
                    let mut lines = BufReader::new(reader).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        if let Some(reply) = reply(line.trim_end()) {
                            let _ = writer.write_all(reply.as_bytes()).await;
                        }
                    }
                });
            }
        });
        port
    }
}
