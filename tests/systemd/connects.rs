//! Programs that use memcached as programs do: by name, and for as long as its answer holds.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::everyday::SERVICE;
use crate::lab::dns;

/// A client as people have them: it asks for the name, keeps the answer as long as it may, and connects to what it was
/// told, again and again.
#[derive(Debug)]
pub struct Client {
    stop: Arc<AtomicBool>,
    failed: Arc<Mutex<Vec<String>>>,
    made: Arc<Mutex<BTreeMap<String, usize>>>,
    runs: Option<JoinHandle<()>>,
}

impl Client {
    /// Begins, with the resolver on this host.
    pub fn start(server: Ipv4Addr) -> Self {
        let client = Self { stop: Arc::default(), failed: Arc::default(), made: Arc::default(), runs: None };
        let (stop, failed, made) = (client.stop.clone(), client.failed.clone(), client.made.clone());
        let runs = std::thread::spawn(move || {
            let (mut known, mut until) = (vec![], Instant::now());
            while !stop.load(Ordering::SeqCst) {
                if known.is_empty() || Instant::now() >= until {
                    let answer = dns::dig_on_53(server, &[SERVICE, "SRV"]);
                    let ttl = answer.answers.iter().map(|row| row.ttl).min().unwrap_or(0);
                    (known, until) = (answer.targets(), Instant::now() + Duration::from_secs(ttl.into()));
                }
                for target in &known {
                    let at: SocketAddr = target.parse().unwrap();
                    match version_of(at) {
                        Ok(()) => *made.lock().unwrap().entry(target.clone()).or_default() += 1,
                        Err(why) => failed.lock().unwrap().push(format!("{target}: {why}")),
                    }
                }
            }
        });
        Self { runs: Some(runs), ..client }
    }

    /// Connections made to a target so far.
    pub fn made(&self, target: &str) -> usize {
        self.made.lock().unwrap().get(target).copied().unwrap_or(0)
    }

    /// Ends, with what failed.
    pub fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.runs.take().unwrap().join().unwrap();
        std::mem::take(&mut self.failed.lock().unwrap())
    }
}

/// A whole exchange with a memcached.
fn version_of(at: SocketAddr) -> Result<(), String> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&at, limit).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(limit)).unwrap();
    stream.write_all(b"version\r\n").map_err(|error| error.to_string())?;
    let mut reply = [0; 64];
    let length = stream.read(&mut reply).map_err(|error| error.to_string())?;
    if reply[..length].starts_with(b"VERSION") { Ok(()) } else { Err(format!("said {:?}", &reply[..length])) }
}
