//! The finding side of an agent in this process: HTTP over a catalog that the test writes, and a client that sends
//! exactly what it is told to.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)] // each test file uses its own part

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharf::answer::http::{
    AutodiscoverySource, DrainRequest, ForgetSource, HttpMetrics, HttpServer, OrdinalAsk, OrdinalDone, OrdinalSource,
    ProxySource, Readiness, RenderSource, Settings, Sources, Token, TopologyAsk,
};
use wharf::catalog::facade::api::{Locks, Nodes};
use wharf::catalog::facade::autodiscovery::told::{Autodiscoveries, Autodiscovery, Listed};
use wharf::catalog::facade::etcd_v2;
use wharf::catalog::index::Catalog;
use wharf::catalog::proxy::told::{Proxies, Proxy};
use wharf::catalog::render::told::{Render, Renders};
use wharf::model::publish::local::Local;
use wharf::model::steer::lock::certificate::Certificate;
use wharf::model::steer::lock::told::{Holder, Status, Waiting};
use wharf::model::steer::ordinal::told::Standing;
use wharf::model::steer::told::{Answer, Instance, Last, Named, Paused, Topology};
use wharf::model::words::key::Prefix;
use wharf::model::words::site::Standpoint;
use wharf::model::words::zone::Zones;
use wharf::view::{CatalogView, Outlet, Progress};

/// How etcd's v2 API stands where one of its clients was refused.
/// One that is held while the program of its last holder is not known to be dead.
fn locks() -> Locks {
    let since = 1_767_225_600;
    let holder = Holder {
        node: "core-02".into(),
        token: 7,
        since: Some(since),
        left: Some(1_500),
        key: "/locks/orders/7".into(),
    };
    let waiting = vec![Waiting { node: "core-03".into(), since, key: "/locks/orders/8".into() }];
    let certificate = Certificate { token: 6, node: "core-09".into(), since, ..Certificate::default() };
    let status = Status { name: "orders".into(), holder: Some(holder), certificate: Some(certificate), waiting };
    Locks { locks: vec![status], stale: false }
}

fn troubled() -> etcd_v2::Standing {
    let mut standing = etcd_v2::Standing { listen: Some("127.0.0.1:4001".into()), ..etcd_v2::Standing::default() };
    etcd_v2::Standing::note(
        &mut standing.refused,
        SystemTime::now(),
        "127.0.0.1",
        "PUT /v2/keys/other",
        "/other is not served",
    );
    standing
}

/// Where nobody listens, whatever else runs: a port that only root may have, and does not use.
pub const NOBODY: &str = "127.0.0.1:1";

/// A free port of an address that no other test uses, so that it stays free until it is bound (again).
pub fn own_address() -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::new(127, 77, high, low), 0));
    listener.expect("all of 127.0.0.0/8 is this host").local_addr().unwrap()
}

/// Claims a 7 for this host, which is 8 when it is claimed anew; frees the 9 of core-09 and nobody else's.
fn counted(ask: OrdinalAsk) -> OrdinalDone {
    match ask {
        OrdinalAsk::Claim { renumber } => {
            let number = if renumber { 8 } else { 7 };
            OrdinalDone::Stands(Standing::Held { number, since: "2026-03-04T05:06:07Z".into() })
        }
        OrdinalAsk::Release { node: Some(node) } if node == "core-09" => {
            OrdinalDone::Freed { node, number: 9, is_free: true }
        }
        OrdinalAsk::Release { node } => OrdinalDone::None { node: node.unwrap_or_else(|| "core-02".into()) },
    }
}

/// One ambassador at work and one that waits.
pub fn proxies() -> Proxies {
    let waiting = Proxy { name: "redis".into(), reason: Some("contested".into()), parked: 2, ..Proxy::default() };
    let at_work = Proxy {
        name: "postgres".into(),
        listen: vec!["127.0.0.1:5432".into()],
        target: Some("10.0.0.1:5432".into()),
        connections: 3,
        cut: 1,
        refused: 4,
        bytes: 1 << 40,
        ..Proxy::default()
    };
    Proxies { proxies: vec![at_work, waiting] }
}

/// A list with a member that is away, and one that nobody can ask for.
pub fn discoveries() -> Autodiscoveries {
    let member = |number: u8, away_s| Listed {
        id: format!("core-0{number}:memcached:11211").into(),
        node: Some(format!("core-0{number}").into()),
        host: format!("10.77.0.{number}").into(),
        port: 11211,
        away_s,
    };
    let told = Autodiscovery {
        service: "memcached".into(),
        listen: "0.0.0.0:11311".into(),
        tls: true,
        version: Some(1_767_225_600),
        leave_after_s: 300,
        connections: 2,
        members: vec![member(1, None), member(2, Some(12))],
        ..Autodiscovery::default()
    };
    let unheard = Autodiscovery {
        service: "sessions".into(),
        listen: "127.0.0.1:11312".into(),
        reason: Some("cannot listen on 127.0.0.1:11312".into()),
        stale: true,
        ..Autodiscovery::default()
    };
    Autodiscoveries { autodiscoveries: vec![told, unheard] }
}

/// A file that follows the cluster, as the process that renders tells of it.
pub fn rendered() -> Renders {
    let render = Render {
        name: "haproxy".into(),
        destination: "/etc/haproxy/haproxy.cfg".into(),
        template: "haproxy".into(),
        state: "waiting".into(),
        reason: Some("services are not read yet".into()),
        needs: vec!["service web".into()],
        changed: Some("2026-03-04T05:06:07Z".into()),
        writes: 3,
        ..Render::default()
    };
    Renders { renders: vec![render] }
}

/// A running HTTP side.
pub struct Side {
    pub address: SocketAddr,
    pub seed: Option<SocketAddr>,
    pub catalog: Catalog,
    slot: Outlet,
    pub local: watch::Sender<Arc<Local>>,
    pub nodes: watch::Sender<Arc<Nodes>>,
    pub ready: watch::Sender<Readiness>,
    pub drains: mpsc::Receiver<DrainRequest>,
    pub door: wharf::host::clients::Door,
    renders: RenderSource,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How it is started.
#[derive(Default)]
pub struct Options {
    pub token: Option<&'static str>,
    pub hosts: Vec<String>,
    pub socket: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub seeds: Vec<(SocketAddr, String)>,
}

impl Side {
    /// A process has told how its files stand.
    pub fn renders(&self) {
        self.renders.take(rendered());
    }

    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let (slot, catalog, _leases) = CatalogView::open();
        let (local, local_seen) = watch::channel(Arc::new(Local { node: "core-01".into(), ..Local::default() }));
        let (nodes, nodes_seen) = watch::channel(Arc::new(Nodes::default()));
        let (ready, ready_seen) = watch::channel(Readiness { dns: true, catalog: true });
        let (drain, drains) = mpsc::channel(4);
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let zones = Zones::new(
            "services.internal",
            Prefix::parse("/services").unwrap(),
            [("skydns.local".to_owned(), Prefix::parse("/skydns/local/skydns").unwrap())],
        );
        let settings = Settings {
            listen: vec![options.listen.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap())],
            socket: options.socket,
            token: options.token.and_then(Token::new),
            hosts: options.hosts,
            version: "0.1.0".into(),
            standpoint: Standpoint::new("core-02", None, false),
            probe_interval: Duration::from_secs(2),
            seeds: options.seeds,
            exhibitor: None,
        };
        let renders = RenderSource::register(&mut registry);
        let sources = Sources {
            catalog,
            zones: Arc::new(zones.unwrap()),
            local: local_seen,
            nodes: nodes_seen,
            forget: ForgetSource::new(|node| Box::pin(async move { Ok(usize::from(node == "core-09")) })),
            ordinals: watch::channel(Arc::default()).1,
            etcd_v2: watch::channel(troubled()).1,
            ordinal: OrdinalSource::new(|_, ask| Box::pin(async move { Ok(counted(ask)) })),
            locks: watch::channel(Arc::new(locks())).1,
            ready: ready_seen,
            drain,
            topology: topologies(),
            autodiscovery: AutodiscoverySource::new(discoveries),
            proxies: ProxySource::new(proxies, |_| {}),
            renders: renders.clone(),
            registry: Arc::new(registry),
            metrics,
        };
        let server = HttpServer::bind(settings, sources).await.expect("a free port");
        let address = server.addresses()[0];
        let seed = server.seed_addresses().first().copied();
        let door = server.door().expect("it has a socket");
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { server.run(stop).await.expect("no loop ends by itself") }
        });
        slot.publish(Catalog::default(), Progress::Read);
        Self {
            address,
            seed,
            catalog: Catalog::default(),
            slot,
            local,
            nodes,
            ready,
            drains,
            door,
            renders,
            stop,
            task,
        }
    }

    /// Puts a record and shows it.
    pub fn put(&mut self, key: &str, value: &str) {
        let revision = self.catalog.revision() + 1;
        let _ = self.catalog.put(key, value.as_bytes(), 1, revision);
        self.catalog.set_revision(revision);
        self.show();
    }

    /// Deletes a key and shows it.
    pub fn delete(&mut self, key: &str) {
        self.catalog.delete(key);
        self.catalog.set_revision(self.catalog.revision() + 1);
        self.show();
    }

    /// Says whether the store is away.
    pub fn set_stale(&mut self, stale: bool) {
        self.catalog.set_stale(stale.then_some(Duration::from_secs(1)));
        self.show();
    }

    /// Shows the catalog as it is now.
    pub fn show(&self) {
        self.slot.publish(self.catalog.clone(), Progress::Read);
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)).await
    }

    /// A connection from this address of the host.
    pub async fn connect_from(&self, source: [u8; 4]) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).expect("all of 127.0.0.0/8 is this host");
        socket.connect(self.address).await.expect("it listens")
    }

    /// The same as [`Self::get`] from this address of the host.
    pub async fn get_from(&self, source: [u8; 4], path: &str) -> Reply {
        let mut stream = self.connect_from(source).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.expect("it reads");
        read_reply(stream).await
    }

    /// Sends these bytes and reads all that comes.
    pub async fn send(&self, request: &str) -> Reply {
        send_to(self.address, request).await
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("it stops in time").expect("no panic");
    }
}

/// Sends these bytes and reads all that comes.
pub async fn send_to(address: SocketAddr, request: &str) -> Reply {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    read_reply(stream).await
}

/// Sends these bytes over a unix socket.
pub async fn send_unix(path: &std::path::Path, request: &str) -> Reply {
    let mut stream = UnixStream::connect(path).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    read_reply(stream).await
}

async fn read_reply(mut stream: impl AsyncReadExt + Unpin) -> Reply {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("it closes the connection");
    Reply::parse(&bytes)
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let head = head.to_ascii_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { dechunked(body) } else { body.to_owned() };
        Self { status, head, body }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn has_header(&self, name: &str, value: &str) -> bool {
        self.head.lines().any(|line| line == format!("{name}: {value}"))
    }
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// A stream of server-sent events.
pub struct Events {
    stream: TcpStream,
    text: String,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    pub id: Option<String>,
    pub kind: String,
    pub data: serde_json::Value,
}

impl Side {
    /// Follows `path`, as one who has seen `last`.
    pub async fn events(&self, path: &str, last: Option<&str>) -> Events {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        // HTTP/1.0, so that the body comes without chunk sizes between.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n{last}\r\n", self.address);
        stream.write_all(request.as_bytes()).await.expect("it reads");
        Events { stream, text: String::new() }
    }
}

impl Events {
    /// The next event; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.taken() {
                return Some(event);
            }
            let mut bytes = vec![0; 16 * 1024];
            let read = tokio::time::timeout(Duration::from_secs(60), self.stream.read(&mut bytes));
            let read = read.await.expect("an event or a heartbeat comes in time").unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// A whole event out of what has been read.
    fn taken(&mut self) -> Option<Event> {
        loop {
            let end = self.text.find("\n\n")?;
            let block: String = self.text.drain(..end + 2).collect();
            let block = block.replace("\r\n", "\n");
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(kind) = field("event: ") {
                let data = field("data: ").expect("an event has data");
                let data = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error} in {data}"));
                return Some(Event { id: field("id: "), kind, data });
            }
        }
    }
}

/// One topology, as those who steer would tell of it, and a refusal of whatever is to be changed.
fn topologies() -> mpsc::Sender<TopologyAsk> {
    let (ask, mut asked) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(ask) = asked.recv().await {
            match ask {
                TopologyAsk::Tell(name, reply) => {
                    let one = full_topology();
                    let is_meant = name.is_none_or(|name| name == one.service);
                    reply.send(if is_meant { vec![one] } else { vec![] }).ok();
                }
                TopologyAsk::Change { service, change, reply } => {
                    let error = Some(format!("{service}: {change:?}"));
                    reply.send((409, Answer { error, hint: Some("mend it".to_owned()), ..Answer::default() })).ok();
                }
            }
        }
    });
    ask
}

fn full_topology() -> Topology {
    let since = "2026-03-04T05:06:07Z".to_owned();
    let told = || Some("told".to_owned());
    Topology {
        service: "redis-1".to_owned(),
        desired: Some(serde_json::json!({ "master": { "address": "a" }, "slaves": [] })),
        applied: Some(Named { master: "a".to_owned(), epoch: 1, since: since.clone() }),
        phase: told(),
        last: Some(Last { result: "done".to_owned(), gap_ms: Some(7), at: since.clone(), ..Last::default() }),
        paused: Some(Paused { since, by: "core-01".to_owned() }),
        told: told(),
        instances: vec![Instance { role: told(), follows: told(), link: told(), why: told(), ..Instance::default() }],
        ..Topology::default()
    }
}
