//! One host's finding half over a real store: a test writes keys and asks by DNS.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod upstream;

use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdp};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::{Name, RecordType};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharf::answer::dns::{DnsServer, Settings, Upstream};
use wharf::follow::heads::HeadKeeper;
use wharf::follow::mirror::{self, Mirror};
use wharf::follow::nodes::Hosts;
use wharf::model::publish::local::Overlay;
use wharf::model::words::key::Prefix;
use wharf::model::words::site::Standpoint;
use wharf::model::words::zone::Zones;
use wharf::store::{Store, StoreError, Write};
use wharf::view::CatalogView;

/// How long anything may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` says so, looking every 5 ms.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a desk is set up with.
pub struct Setup {
    pub zones: Zones,
    pub ttl: Duration,
    pub negative_ttl: Duration,
    pub lease_ttl: Duration,
    pub keep: Option<PathBuf>,
    pub forward: Vec<Upstream>,
    pub standpoint: Standpoint,
    pub forward_allow: Vec<&'static str>,
    pub allow: Vec<&'static str>,
    pub rate_limit: u32,
    pub listen: SocketAddr,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            zones: Zones::new("services.internal", Prefix::parse("/services").unwrap(), []).unwrap(),
            ttl: Duration::from_secs(5),
            negative_ttl: Duration::from_secs(5),
            lease_ttl: Duration::from_secs(30),
            keep: None,
            forward: Vec::new(),
            standpoint: Standpoint::default(),
            forward_allow: vec!["127.0.0.0/8", "::1/128"],
            allow: Vec::new(),
            rate_limit: 100,
            listen: "127.0.0.1:0".parse().unwrap(),
        }
    }
}

/// A mirror and a server, both running.
pub struct Desk {
    pub address: SocketAddr,
    pub view: CatalogView,
    pub overlay: watch::Sender<Arc<Overlay>>,
    pub registry: Registry,
    pub store: Arc<dyn Store>,
    stop: CancellationToken,
    workers: Vec<JoinHandle<()>>,
}

impl Desk {
    pub fn start(store: Arc<dyn Store>, setup: Setup) -> Self {
        Self::start_with(store, setup, Overlay::default())
    }

    pub fn start_with(store: Arc<dyn Store>, setup: Setup, overlay: Overlay) -> Self {
        let mut registry = Registry::default();
        let (overlay, overlaid) = watch::channel(Arc::new(overlay));
        let settings = mirror::Settings {
            prefixes: setup.zones.prefixes().into_iter().cloned().collect(),
            node: "core-01".into(),
            owner: "own".into(),
            lease_ttl: setup.lease_ttl,
        };
        let (mirror, view) = Mirror::new(settings, store.clone(), overlaid, setup.keep, &mut registry);
        let prefix = Prefix::parse("/services").unwrap();
        let (heads, heads_seen) = HeadKeeper::new(store.clone(), &prefix);
        let hosts = Hosts { numbered: watch::channel(Arc::default()).1, advertised: watch::channel(Arc::default()).1 };
        let mirror = mirror.naming(prefix, heads_seen, hosts);
        let networks = |texts: Vec<&str>| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let settings = Settings {
            listen: vec![setup.listen],
            passed: Vec::new(),
            zones: setup.zones,
            ttl: setup.ttl,
            negative_ttl: setup.negative_ttl,
            forward: setup.forward,
            standpoint: setup.standpoint,
            forward_allow: networks(setup.forward_allow),
            allow: networks(setup.allow),
            rate_limit: setup.rate_limit,
        };
        let server = DnsServer::bind(settings, view.clone(), &mut registry).unwrap();
        let address = server.addresses()[0];
        let stop = CancellationToken::new();
        let (one, two, three) = (stop.clone(), stop.clone(), stop.clone());
        let workers = vec![
            tokio::spawn(async move { mirror.run(one).await.unwrap() }),
            tokio::spawn(async move { server.run(two).await.unwrap() }),
            tokio::spawn(async move { heads.run(three).await.unwrap() }),
        ];
        Self { address, view, overlay, registry, store, stop, workers }
    }

    /// Stops both and waits for them.
    pub async fn stop(self) {
        self.stop.cancel();
        for worker in self.workers {
            worker.await.unwrap();
        }
    }

    pub async fn udp(&self, name: &str, qtype: RecordType) -> Message {
        udp(self.address, &query(name, qtype)).await
    }

    pub async fn tcp(&self, name: &str, qtype: RecordType) -> Message {
        tcp(self.address, &query(name, qtype)).await
    }

    /// The answers to a question, as text without owner and TTL, sorted.
    pub async fn answers(&self, name: &str, qtype: RecordType) -> Vec<String> {
        let reply = self.udp(name, qtype).await;
        let mut answers: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
        answers.sort();
        answers
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// Puts values, without a lease.
pub async fn put(store: &dyn Store, values: &[(&str, &str)]) {
    put_on(store, 0, values).await;
}

pub async fn put_on(store: &dyn Store, lease: i64, values: &[(&str, &str)]) {
    for chunk in values.chunks(100) {
        let write = |(key, value): &(&str, &str)| Write::Put {
            key: (*key).to_owned(),
            value: (*value).to_owned().into(),
            lease,
        };
        let writes: Vec<_> = chunk.iter().map(write).collect();
        commit(store, &writes).await;
    }
}

/// Commits; a machine that is busy with other things may let a deadline pass, then once more.
pub async fn commit(store: &dyn Store, writes: &[Write]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(error) = store.commit(&[], writes).await {
        assert!(matches!(error, StoreError::Away { .. }) && tokio::time::Instant::now() < deadline, "{error}");
    }
}

pub async fn delete(store: &dyn Store, keys: &[&str]) {
    let writes: Vec<_> = keys.iter().map(|key| Write::Delete((*key).to_owned())).collect();
    commit(store, &writes).await;
}

pub fn query(name: &str, qtype: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), qtype));
    message
}

pub fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

pub async fn udp(server: SocketAddr, message: &Message) -> Message {
    let reply = udp_raw(server, &message.to_vec().unwrap()).await.expect("an answer");
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    reply
}

/// One datagram there and one back; `None` when nothing came within a second.
pub async fn udp_raw(server: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let client = StdUdp::bind(SocketAddr::new(server.ip(), 0)).unwrap();
    client.set_nonblocking(true).unwrap();
    let client = UdpSocket::from_std(client).unwrap();
    client.connect(server).await.unwrap();
    client.send(packet).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let received = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer)).await.ok()?;
    buffer.truncate(received.ok()?);
    Some(buffer)
}

/// Another client of this host: loopback has many addresses.
pub fn another(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

/// A socket of another client, connected.
pub async fn udp_from(client: IpAddr, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((client, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

/// A stream of another client.
pub async fn stream_from(client: IpAddr, server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(client, 0))?;
    socket.connect(server).await
}

pub async fn tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    ask(&mut stream, message).await
}

pub async fn ask(stream: &mut TcpStream, message: &Message) -> Message {
    let packet = message.to_vec().unwrap();
    stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
    stream.write_all(&packet).await.unwrap();
    let length = tokio::time::timeout(PATIENCE, stream.read_u16()).await.expect("an answer").unwrap();
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}
