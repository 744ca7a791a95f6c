//! Who is measured: `wharf proxy`, HAProxy twice, and tokio's copy, each between the same clients and servers.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::load::Servers;

/// Buffers of this size are the fastest that tokio's copy has.
const COPY: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// One of them, at work.
pub struct Peer {
    pub name: &'static str,
    /// Where it leads to the server that answers, and to the one that only takes.
    pub echo: SocketAddr,
    pub sink: SocketAddr,
    child: Child,
    _dir: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// All of them; ours first, and then the one that it is measured by.
    pub fn all(servers: &Servers) -> Vec<Self> {
        vec![
            Self::start("wharf", |dir, ways| wharf(dir, ways, servers)),
            Self::start("HAProxy splice", |dir, ways| haproxy(dir, ways, servers, "option splice-auto")),
            Self::start("HAProxy", |dir, ways| haproxy(dir, ways, servers, "")),
            Self::start("tokio", |_, ways| {
                let mut command = Command::new(std::env::current_exe().unwrap());
                let way = |from: SocketAddr, to: SocketAddr| format!("{from}={to}");
                command.arg("--copy").arg(way(ways.0, servers.echo)).arg(way(ways.1, servers.sink));
                command
            }),
        ]
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start(name: &'static str, command: impl FnOnce(&TempDir, (SocketAddr, SocketAddr)) -> Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (echo, sink) = (free(), free());
        let mut command = command(&dir, (echo, sink));
        let child = command.env("TOKIO_WORKER_THREADS", "1").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {error}"));
        let begun = Instant::now();
        while TcpStream::connect(echo).is_err() || TcpStream::connect(sink).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { name, echo, sink, child, _dir: dir }
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn wharf(dir: &TempDir, ways: (SocketAddr, SocketAddr), servers: &Servers) -> Command {
    let table = |name: &str, listen: SocketAddr, to: SocketAddr| {
        format!("[[proxy]]\nname = '{name}'\nlisten = '{listen}'\nupstream = '{to}'\nmax-connections = 20000\n")
    };
    let file = dir.path().join("wharf.toml");
    let tables = table("echo", ways.0, servers.echo) + &table("sink", ways.1, servers.sink);
    std::fs::write(&file, tables).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(["proxy", "--node", "bench", "--store", "embedded", "--log", "error"]).arg("--config").arg(file);
    command.arg("--state-dir").arg(dir.path()).arg("--http-socket").arg(dir.path().join("http.sock"));
    command
}

fn haproxy(dir: &TempDir, ways: (SocketAddr, SocketAddr), servers: &Servers, option: &str) -> Command {
    let listen = |name: &str, at: SocketAddr, to: SocketAddr| format!("listen {name}\n  bind {at}\n  server a {to}\n");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 9000\ndefaults\n  mode tcp\n  {option}\n  timeout connect 5s\n  \
         timeout client 1h\n  timeout server 1h\n{}{}",
        listen("echo", ways.0, servers.echo),
        listen("sink", ways.1, servers.sink)
    );
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(file);
    command
}

/// tokio's own copy, until it is killed.
pub fn copy(echo: &str, sink: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::join!(lead(echo), lead(sink)) });
}

async fn lead(way: &str) {
    let (listen, to) = way.split_once('=').unwrap();
    let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
    let to: SocketAddr = to.parse().unwrap();
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let Ok(mut server) = tokio::net::TcpStream::connect(to).await else { return };
            client.set_nodelay(true).ok();
            server.set_nodelay(true).ok();
            let _ended = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, COPY, COPY).await;
        });
    }
}
