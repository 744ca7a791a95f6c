//! An orderly restart of what the ambassadors run in, seen from both ends of thousands of connections: none is cut,
//! none loses a byte, and who comes meanwhile waits.
//!
//! With `WHARF_DRILL=1` there are 8,000 idle and 1,000 busy ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::lab::etcd::Etcd;
use crate::machine::{Machine, UNPACKED, soon};

const PORT: u16 = 7000;
/// How long one connection may hear nothing while its ambassador is started again on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a busy connection has under way at a time.
const WINDOW: u64 = 256 * 1024;

/// Idle and busy connections.
fn crowd() -> (usize, usize) {
    if std::env::var_os("WHARF_DRILL").is_some() { (8_000, 1_000) } else { (400, 60) }
}

/// A server that sends back what it is sent.
struct Server {
    at: SocketAddr,
    open: Arc<AtomicUsize>,
}

impl Server {
    async fn start(at: std::net::IpAddr, tasks: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind((at, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                count.fetch_add(1, Ordering::SeqCst);
                streams.spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ended = tokio::io::copy(&mut read, &mut write).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { at, open }
    }

    fn is(&self, etcd: &Etcd, role: &str) {
        let value = format!(r#"{{"host":"{}","port":{},"role":"{role}"}}"#, self.at.ip(), self.at.port());
        etcd.put(&format!("/services/db/s-{}", self.at.port()), &value);
    }
}

/// The byte at a place of a connection's stream.
fn byte(connection: u64, place: u64) -> u8 {
    (place.wrapping_mul(connection | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// A connection that sends without a pause, and holds each byte that comes back against what it sent.
struct Busy {
    number: u64,
    sent: AtomicU64,
    back: AtomicU64,
}

impl Busy {
    async fn run(self: Arc<Self>, stream: TcpStream, stop: Arc<AtomicBool>) -> Result<(), String> {
        let (mut read, mut write) = stream.into_split();
        let sending = async {
            let mut size = 1;
            while !stop.load(Ordering::Relaxed) {
                let (sent, back) = (self.sent.load(Ordering::SeqCst), self.back.load(Ordering::SeqCst));
                if sent - back > WINDOW {
                    sleep(Duration::from_millis(2)).await;
                    continue;
                }
                size = (size * 7 + self.number) % 20_000 + 1;
                let portion: Vec<u8> = (sent..sent + size).map(|place| byte(self.number, place)).collect();
                write.write_all(&portion).await.map_err(|error| format!("sending: {error}"))?;
                self.sent.fetch_add(size, Ordering::SeqCst);
                sleep(Duration::from_millis(5)).await;
            }
            write.shutdown().await.map_err(|error| format!("ending: {error}"))
        };
        let receiving = async {
            let mut buffer = vec![0; 32 * 1024];
            loop {
                let got = timeout(PATIENCE, read.read(&mut buffer)).await.map_err(|_| "silence".to_owned())?;
                let got = got.map_err(|error| format!("receiving: {error}"))?;
                let back = self.back.load(Ordering::SeqCst);
                if let Some(wrong) = (0..got).find(|at| buffer[*at] != byte(self.number, back + *at as u64)) {
                    return Err(format!("byte {} is another one", back + wrong as u64));
                }
                self.back.fetch_add(got as u64, Ordering::SeqCst);
                if got == 0 {
                    return Ok(());
                }
            }
        };
        tokio::try_join!(sending, receiving)?;
        let (sent, back) = (self.sent.load(Ordering::SeqCst), self.back.load(Ordering::SeqCst));
        if sent == back { Ok(()) } else { Err(format!("{sent} bytes sent, {back} came back")) }
    }
}

/// So many connect without waiting for each other.
const AT_ONCE: usize = 500;

/// Everybody who is connected.
struct Crowd {
    idle: Vec<TcpStream>,
    busy: Vec<Arc<Busy>>,
    running: JoinSet<Result<(), String>>,
    stop: Arc<AtomicBool>,
}

impl Crowd {
    async fn gather(at: SocketAddr) -> Self {
        let (idle, busy) = crowd();
        let mut crowd = Self { idle: Vec::new(), busy: Vec::new(), running: JoinSet::new(), stop: Arc::default() };
        // An ambassador has so many wait at a time while their server is connected to, and refuses more.
        while crowd.idle.len() < idle {
            let come = crowd.idle.len();
            for _ in come..idle.min(come + AT_ONCE) {
                let mut stream = TcpStream::connect(at).await.unwrap();
                // It is known to run once its server has answered.
                stream.write_all(b"a").await.unwrap();
                crowd.idle.push(stream);
            }
            for stream in &mut crowd.idle[come..] {
                says(stream, b'a').await.unwrap();
            }
        }
        for number in 0..busy as u64 {
            let stream = TcpStream::connect(at).await.unwrap();
            let one = Arc::new(Busy { number, sent: AtomicU64::new(0), back: AtomicU64::new(0) });
            crowd.running.spawn(Arc::clone(&one).run(stream, Arc::clone(&crowd.stop)));
            crowd.busy.push(one);
        }
        crowd.moves().await;
        crowd
    }

    /// Every busy one gets something back that it sends from now on.
    async fn moves(&mut self) {
        let wanted: Vec<u64> = self.busy.iter().map(|one| one.sent.load(Ordering::SeqCst) + 1).collect();
        let begun = Instant::now();
        for (one, wanted) in self.busy.iter().zip(wanted) {
            while one.back.load(Ordering::SeqCst) < wanted {
                if let Some(ended) = self.running.try_join_next() {
                    panic!("a busy connection has ended: {ended:?}");
                }
                assert!(begun.elapsed() < PATIENCE, "busy connection {} stands still", one.number);
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Every idle one is there still.
    async fn is_whole(&mut self) {
        for (place, stream) in self.idle.iter_mut().enumerate() {
            stream.write_all(b"b").await.unwrap_or_else(|error| panic!("idle connection {place}: {error}"));
        }
        for (place, stream) in self.idle.iter_mut().enumerate() {
            says(stream, b'b').await.unwrap_or_else(|why| panic!("idle connection {place}: {why}"));
        }
    }

    /// Ends the busy ones, each of which must have got back what it sent.
    async fn finish(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap().unwrap();
        }
        self.busy.drain(..).map(|one| one.back.load(Ordering::SeqCst)).sum()
    }
}

async fn says(stream: &mut TcpStream, expected: u8) -> Result<(), String> {
    let read = timeout(PATIENCE, stream.read_u8()).await.map_err(|_| "silence".to_owned())?;
    let read = read.map_err(|error| error.to_string())?;
    if read == expected { Ok(()) } else { Err(format!("{read} instead of {expected}")) }
}

/// As many descriptors as there may be: two a connection.
fn take_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

fn pid(machine: &Machine<'_>, unit: &str) -> String {
    machine.run(&["systemctl", "show", "--value", "--property", "MainPID", unit]).trim().to_owned()
}

fn told(machine: &Machine<'_>) -> serde_json::Value {
    let said = machine.run(&["/opt/bin/wharf", "proxies", "db", "-o", "json"]);
    serde_json::from_str::<serde_json::Value>(&said).unwrap()["proxies"][0].clone()
}

fn leads_to(machine: &Machine<'_>, server: &Server) {
    soon("the ambassador leads there", || {
        let said = machine.try_run(&["/opt/bin/wharf", "proxies", "db"])?;
        if said.contains(&server.at.to_string()) { Ok(()) } else { Err(said) }
    });
}

/// Installs the agent, and the ambassadors apart from it.
fn install(machine: &Machine<'_>) {
    machine.install_with_etcd();
    let table = format!(
        "\\n[[proxy]]\\nname = \"db\"\\nlisten = \"0.0.0.0:{PORT}\"\\nservice = \"db\"\\nrole = \"primary\"\\n\
         wait = \"30s\"\\nallow = \"0.0.0.0/0\"\\nmax-connections = 12000\\n"
    );
    machine.shell(&format!(
        "sed -i '1i proxy-apart = true' /etc/wharf.toml && printf '{table}' >>/etc/wharf.toml && \
         cp {UNPACKED}/systemd/wharf-proxy.service /etc/systemd/system/ && systemctl daemon-reload"
    ));
    // What a test does while the ambassadors are down.
    machine.put(
        "/etc/systemd/system/wharf-proxy.service.d/10-waits.conf",
        "[Service]\nExecStartPre=/bin/sh -c 'while [ -e /run/hold ]; do sleep 0.05; done'\n",
    );
    machine.shell("systemctl daemon-reload && systemctl enable -q --now wharf-proxy && systemctl restart wharf");
}

mod everyday {
    use super::*;

    #[test]
    fn an_orderly_restart_cuts_no_connection_and_loses_no_byte() {
        take_descriptors();
        let lab = crate::lab::alone();
        let host = lab.host(1);
        let machine = Machine::boot(host);
        install(&machine);
        let runtime = Runtime::new().unwrap();
        let mut tasks = JoinSet::new();
        let here = lab.ground().address(254).into();
        let (a, b) =
            runtime.block_on(async { (Server::start(here, &mut tasks).await, Server::start(here, &mut tasks).await) });
        a.is(&lab.etcd(), "primary");
        leads_to(&machine, &a);
        let at = SocketAddr::new(host.address().into(), PORT);
        let mut crowd = runtime.block_on(Crowd::gather(at));
        let all = crowd.idle.len() + crowd.busy.len();
        assert_eq!(a.open.load(Ordering::SeqCst), all);

        // Another build: the same file with another name for it.
        machine.shell(
            "cp /opt/bin/wharf /opt/bin/wharf.new && echo >>/opt/bin/wharf.new && mv /opt/bin/wharf.new /opt/bin/wharf",
        );
        let before = pid(&machine, "wharf-proxy");
        let begun = Instant::now();
        machine.run(&["systemctl", "restart", "wharf-proxy"]);
        println!("restarted in {:?}", begun.elapsed());
        assert_ne!(pid(&machine, "wharf-proxy"), before);
        runtime.block_on(crowd.moves());
        println!("all of them moved on after {:?}", begun.elapsed());
        runtime.block_on(crowd.is_whole());
        assert_eq!(a.open.load(Ordering::SeqCst), all, "each has the connection that it had");
        soon("its connections are counted", || {
            let told = told(&machine);
            let counted = told["connections"] == all && told["cut"] == 0;
            if counted { Ok(()) } else { Err(told.to_string()) }
        });
        let kept = machine.run(&["systemctl", "show", "--value", "--property", "NFileDescriptorStore", "wharf-proxy"]);
        assert_eq!(kept.trim(), "0", "nothing is left with systemd");
        let moved = runtime.block_on(crowd.finish());
        println!("{all} connections, {moved} bytes came back as they were sent");

        role_changes_meanwhile(&machine, &lab.etcd(), &runtime, (&a, &b), at, crowd.idle);
        a_crash_resets(&machine, &runtime, at);
        in_the_agent(&machine, &runtime, &b, at);
    }

    /// The master becomes another one while no ambassador runs: nobody reaches the old one any more, and who comes
    /// meanwhile waits for the new one.
    fn role_changes_meanwhile(
        machine: &Machine<'_>,
        etcd: &Etcd,
        runtime: &Runtime,
        (a, b): (&Server, &Server),
        at: SocketAddr,
        mut idle: Vec<TcpStream>,
    ) {
        let before = pid(machine, "wharf-proxy");
        machine.shell("touch /run/hold && systemctl restart --no-block wharf-proxy");
        soon("it has gone", || machine.try_run(&["test", "!", "-e", &format!("/proc/{before}")]));
        let mut late = runtime.block_on(async {
            idle[0].write_all(b"too late").await.unwrap();
            TcpStream::connect(at).await.expect("its sockets listen still")
        });
        a.is(etcd, "replica");
        b.is(etcd, "primary");
        machine.shell("rm /run/hold");
        runtime.block_on(async {
            late.write_all(b"c").await.unwrap();
            says(&mut late, b'c').await.expect("the new one answers");
            for stream in &mut idle {
                let ended = timeout(PATIENCE, stream.read_u8()).await.expect("it is cut");
                assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            }
        });
        assert_eq!(b.open.load(Ordering::SeqCst), 1);
        let cut = idle.len();
        soon("all others are told as cut", || {
            let told = told(machine);
            if told["connections"] == 1 && told["cut"] == cut { Ok(()) } else { Err(told.to_string()) }
        });
    }

    fn a_crash_resets(machine: &Machine<'_>, runtime: &Runtime, at: SocketAddr) {
        let mut client = runtime.block_on(TcpStream::connect(at)).unwrap();
        runtime.block_on(async {
            client.write_all(b"d").await.unwrap();
            says(&mut client, b'd').await.unwrap();
        });
        let before = pid(machine, "wharf-proxy");
        machine.run(&["systemctl", "kill", "--signal", "KILL", "wharf-proxy"]);
        soon("it is back", || {
            let now = pid(machine, "wharf-proxy");
            if now != before && now != "0" { Ok(()) } else { Err(now) }
        });
        let ended = runtime.block_on(async { timeout(PATIENCE, client.read(&mut [0])).await.expect("it has ended") });
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    }

    /// The same where the agent serves the tables itself.
    fn in_the_agent(machine: &Machine<'_>, runtime: &Runtime, b: &Server, at: SocketAddr) {
        machine.shell("systemctl disable -q --now wharf-proxy && sed -i '/^proxy-apart/d' /etc/wharf.toml");
        machine.shell("systemctl restart wharf");
        leads_to(machine, b);
        let mut crowd = runtime.block_on(Crowd::gather(at));
        let before = pid(machine, "wharf");
        machine.run(&["systemctl", "restart", "wharf"]);
        assert_ne!(pid(machine, "wharf"), before);
        runtime.block_on(crowd.moves());
        runtime.block_on(crowd.is_whole());
        runtime.block_on(crowd.finish());
        assert_eq!(told(machine)["cut"], 0);
    }
}
