//! A client that counts in a redis list, one number at a time, and looks its master up again whenever anything fails:
//! what it was told against what is there in the end.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::dns;
use super::wait::eventually;

const LIST: &str = "counter";
/// From one number to the next, as the seed's counter has it.
const PACE: Duration = Duration::from_millis(6);
/// How long a connection or a reply may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A counter at work.
#[derive(Debug)]
pub struct Counter {
    master: Master,
    stop: Arc<AtomicBool>,
    so_far: Arc<SoFar>,
    thread: JoinHandle<Told>,
}

/// Where the list is, by the DNS server of one host.
#[derive(Clone, Debug)]
struct Master {
    server: Ipv4Addr,
    name: String,
}

/// How often it went well, and how often it did not.
#[derive(Debug, Default)]
struct SoFar {
    acknowledged: AtomicUsize,
    failed: AtomicUsize,
}

/// What the counter was told.
#[derive(Debug, Default)]
struct Told {
    acknowledged: BTreeSet<usize>,
    failed: BTreeSet<usize>,
}

/// What it was told against what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Numbers that were acknowledged.
    pub acknowledged: usize,
    /// Those that are not there.
    pub missing: usize,
    /// Numbers that failed.
    pub failed: usize,
    /// Those that are there all the same.
    pub phantom: usize,
}

impl Counter {
    /// Counts at whatever `name` leads to by this DNS server, from now on.
    pub fn start(server: Ipv4Addr, name: &str) -> Self {
        let master = Master { server, name: name.to_owned() };
        let (stop, so_far) = (Arc::<AtomicBool>::default(), Arc::<SoFar>::default());
        let work = (master.clone(), Arc::clone(&stop), Arc::clone(&so_far));
        let thread = std::thread::spawn(move || count(&work.0, &work.1, &work.2));
        Self { master, stop, so_far, thread }
    }

    /// Waits until so many more numbers were acknowledged.
    #[track_caller]
    pub fn counts_on(&self, more: usize) {
        let acknowledged = &self.so_far.acknowledged;
        let wanted = acknowledged.load(Ordering::Relaxed) + more;
        eventually("the counter counts on", || acknowledged.load(Ordering::Relaxed) >= wanted);
    }

    /// How many numbers have failed so far.
    pub fn failed(&self) -> usize {
        self.so_far.failed.load(Ordering::Relaxed)
    }

    /// Stops, reads the list and compares.
    ///
    /// # Panics
    /// When the list cannot be read.
    #[track_caller]
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let told = self.thread.join().expect("the counter does not panic");
        let list = eventually("the list is read", || self.master.connect()?.list());
        Tally {
            acknowledged: told.acknowledged.len(),
            missing: told.acknowledged.difference(&list).count(),
            failed: told.failed.len(),
            phantom: told.failed.intersection(&list).count(),
        }
    }
}

#[allow(clippy::disallowed_methods)] // a plain thread: nobody's runtime is held up
fn count(master: &Master, stop: &AtomicBool, so_far: &SoFar) -> Told {
    let mut told = Told::default();
    let mut connection = None;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PACE);
        let Some(open) = connection.as_mut() else {
            connection = master.connect();
            continue;
        };
        number += 1;
        if push(open, number).is_some() {
            told.acknowledged.insert(number);
            so_far.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else {
            told.failed.insert(number);
            so_far.failed.fetch_add(1, Ordering::Relaxed);
            connection = None;
        }
    }
    told
}

impl Master {
    fn connect(&self) -> Option<Connection> {
        let found = dns::dig_from_here(self.server, &[&self.name, "SRV"]).targets();
        let address: SocketAddr = found.first()?.parse().ok()?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Connection(BufReader::new(stream)))
    }
}

struct Connection(BufReader<TcpStream>);

/// One number at the list's end; nothing when it was not acknowledged.
fn push(connection: &mut Connection, number: usize) -> Option<()> {
    connection.send(&["RPUSH", LIST, &number.to_string()])?;
    connection.line()?.starts_with(':').then_some(())
}

impl Connection {
    fn send(&mut self, words: &[&str]) -> Option<()> {
        self.0.get_mut().write_all(format!("{}\r\n", words.join(" ")).as_bytes()).ok()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        line.ends_with("\r\n").then(|| line.trim_end().to_owned())
    }

    fn list(&mut self) -> Option<BTreeSet<usize>> {
        self.send(&["LRANGE", LIST, "0", "-1"])?;
        let length: usize = self.line()?.strip_prefix('*')?.parse().ok()?;
        (0..length).map(|_| self.line().and_then(|_size| self.line()?.parse().ok())).collect()
    }
}
