//! An agent with ambassadors over a real etcd, into which the test writes records and nodes' words as other agents
//! would; servers that say who they are, and clients that notice how they are treated.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::etcd::Cluster;
use crate::program::{Agent, Options};

/// How long anything may take on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A free port of an address that only this process uses, so that it stays free until it is bound.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 90 + (NEXT.fetch_add(1, Ordering::Relaxed) % 100) as u8, high, low.max(1));
    let listener = std::net::TcpListener::bind((host, 0)).expect("all of 127.0.0.0/8 is this host");
    listener.local_addr().unwrap()
}

/// Whether a new connection is greeted by this server now.
pub fn is_greeted(at: SocketAddr, name: &str) -> bool {
    use std::io::BufRead as _;
    let client = std::net::TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut line = String::new();
    std::io::BufReader::new(client).read_line(&mut line).is_ok() && line.trim_end() == name
}

pub struct Town {
    pub etcd: Cluster,
    pub agent: Agent,
    pub at: SocketAddr,
}

impl Town {
    /// One with a table at [`Town::at`] that has these keys besides.
    pub fn new(keys: &str) -> Self {
        let at = own_address();
        Self::with(at, &format!("[[proxy]]\nname = 'db'\nlisten = '{at}'\n{keys}\n"))
    }

    pub fn with(at: SocketAddr, settings: &str) -> Self {
        let etcd = Cluster::start(1);
        etcd.wait_healthy();
        let flags = vec!["--etcd-endpoints".to_owned(), etcd.endpoints().join(",")];
        let agent = Agent::start_with(&Options { settings, flags, ..Options::default() });
        agent.until("the ambassadors listen", |agent| agent.wharf("proxies").status.success());
        Self { etcd, agent, at }
    }

    /// Writes the record of a server, as the agent `o-NAME` would.
    pub fn put(&self, server: &Server, role: &str) {
        self.put_at(&server.name, server.at, role);
    }

    pub fn put_at(&self, name: &str, at: SocketAddr, role: &str) {
        let role = if role.is_empty() { String::new() } else { format!(r#","role":"{role}""#) };
        let value =
            format!(r#"{{"host":"{}","port":{},"node":"n-{name}","owner":"o-{name}"{role}}}"#, at.ip(), at.port());
        self.etcd.ctl(&["put", &format!("/services/db/{name}"), &value]);
    }

    pub fn delete(&self, name: &str) {
        self.etcd.ctl(&["del", &format!("/services/db/{name}")]);
    }

    /// What the node of a server says of it.
    pub fn say(&self, server: &Server, state: &str) {
        let name = &server.name;
        let value = serde_json::json!({
            "node": format!("n-{name}"), "owner": format!("o-{name}"), "states": {state: 1},
            "waiting": [{"id": name, "service": "db", "host": server.at.ip(), "port": server.at.port(), "state": state}],
        });
        let key = format!("/wharf/services/nodes/n-{name}/o-{name}");
        self.etcd.ctl(&["put", &key, &value.to_string()]);
    }

    /// How a table stands.
    pub fn told(&self, name: &str) -> serde_json::Value {
        let output = self.agent.wharf(&format!("proxies {name} -o json"));
        assert!(output.status.success(), "{output:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        told["proxies"][0].clone()
    }

    /// Waits until a table's field is so.
    pub fn until(&self, field: &str, expected: &serde_json::Value) {
        self.agent
            .until(&format!("{field} is {expected}: {}", self.told("db")), |_| self.told("db")[field] == *expected);
    }

    /// Waits until new connections go there.
    pub fn leads_to(&self, server: &Server) {
        self.until("target", &server.at.to_string().into());
    }

    pub async fn client(&self) -> Client {
        Client::open(self.at).await
    }
}

/// A server that says its name, and then what it is told.
pub struct Server {
    pub name: String,
    pub at: SocketAddr,
    /// Bytes that it was sent.
    pub taken: Arc<AtomicU64>,
    /// Connections that it has.
    pub open: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    pub async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let greeting = format!("{name}\n");
        let taken = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&taken);
        let there = Arc::new(AtomicUsize::new(0));
        let open_now = Arc::clone(&there);
        let serve = async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (greeting, taken, there) = (greeting.clone(), Arc::clone(&counting), Arc::clone(&open_now));
                there.fetch_add(1, Ordering::SeqCst);
                open.spawn(async move {
                    let ended = echo(&mut stream, &greeting, &taken).await;
                    there.fetch_sub(1, Ordering::SeqCst);
                    ended
                });
            }
        };
        Self { name: name.to_owned(), at, taken, open: there, _task: AbortOnDropHandle::new(tokio::spawn(serve)) }
    }
}

async fn echo(stream: &mut TcpStream, greeting: &str, taken: &AtomicU64) -> std::io::Result<()> {
    stream.write_all(greeting.as_bytes()).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        taken.fetch_add(read as u64, Ordering::SeqCst);
        stream.write_all(&buffer[..read]).await?;
    }
}

/// A client of an ambassador.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    pub async fn open(at: SocketAddr) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(at)).await.expect("in time").expect("it listens");
        Self { stream: BufReader::new(stream) }
    }

    /// One that comes from this address of the host.
    pub async fn open_from(from: [u8; 4], at: SocketAddr) -> Self {
        Self::try_from(from, at).await.expect("it listens")
    }

    /// The same; one that is reset at once may learn of it before it knows that it was connected.
    pub async fn try_from(from: [u8; 4], at: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = timeout(PATIENCE, socket.connect(at)).await.expect("in time")?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Wants a connection to be reset at once.
    pub async fn is_refused(from: [u8; 4], at: SocketAddr) {
        match Self::try_from(from, at).await {
            Ok(mut client) => client.is_reset().await,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }

    /// The next line; an error is how the connection ended.
    pub async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        match timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("an answer, or an end") {
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(error),
        }
    }

    /// Whether the server still answers.
    pub async fn echoes(&mut self) -> bool {
        self.stream.get_mut().write_all(b"still there?\n").await.is_ok()
            && self.line().await.is_ok_and(|line| line == "still there?")
    }

    /// Waits until the connection is reset.
    pub async fn is_reset(&mut self) {
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("it ends");
        let kind = ended.map_err(|error| error.kind());
        assert_eq!(kind, Err(std::io::ErrorKind::ConnectionReset), "{}", String::from_utf8_lossy(&rest));
    }
}
