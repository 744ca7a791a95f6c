//! Writers without pause: each tries one server after the other until one takes its writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::servers::Client;

const WRITERS: u64 = 4;
/// Each writer's numbers begin at its own multiple of this.
const SPAN: u64 = 1 << 40;
/// Between two attempts of one that was refused.
const AGAIN: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
pub struct Told {
    pub acked: Vec<u64>,
    /// Errors of a writer whose write before had been taken.
    pub errors: usize,
}

#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Told>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    begun: Instant,
    acked: AtomicU64,
    /// When the last write was acknowledged, and the longest time between two, in microseconds.
    last: AtomicU64,
    longest: AtomicU64,
}

impl Writers {
    pub fn start(ports: [u16; 3]) -> Self {
        let [acked, last, longest] = [const { AtomicU64::new(0) }; 3];
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), begun: Instant::now(), acked, last, longest });
        let start = |number| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || write(number, ports, &shared))
        };
        let threads = (0..WRITERS).map(start).collect();
        Self { shared, threads }
    }

    /// Until some more was written.
    pub fn progress(&self) {
        let wanted = self.shared.acked.load(Ordering::Relaxed) + 200;
        let until = Instant::now() + Duration::from_secs(60);
        while self.shared.acked.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < until, "no server takes writes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn forget_gap(&self) {
        self.shared.longest.store(0, Ordering::Relaxed);
    }

    /// The longest time without an acknowledged write since it was forgotten.
    pub fn gap(&self) -> Duration {
        Duration::from_micros(self.shared.longest.load(Ordering::Relaxed))
    }

    pub fn stop(self) -> Told {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for thread in self.threads {
            let told = thread.join().unwrap();
            all.acked.extend(told.acked);
            all.errors += told.errors;
        }
        all
    }
}

impl Shared {
    fn acknowledge(&self) {
        let now = self.begun.elapsed().as_micros() as u64;
        let gap = now.saturating_sub(self.last.fetch_max(now, Ordering::Relaxed));
        self.longest.fetch_max(gap, Ordering::Relaxed);
        self.acked.fetch_add(1, Ordering::Relaxed);
    }
}

fn write(writer: u64, ports: [u16; 3], shared: &Shared) -> Told {
    let mut told = Told::default();
    let mut open: Option<Client> = None;
    let (mut turn, mut number, mut is_well) = (0, writer * SPAN, false);
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(client) = &mut open else {
            turn += 1;
            open = Client::open(ports[turn % ports.len()]).ok();
            if open.is_none() {
                std::thread::sleep(AGAIN);
            }
            continue;
        };
        number += 1;
        if client.ask(&["RPUSH", "log", &number.to_string()]).is_ok_and(|reply| reply.starts_with(':')) {
            told.acked.push(number);
            shared.acknowledge();
            is_well = true;
        } else {
            told.errors += usize::from(std::mem::take(&mut is_well));
            open = None;
            std::thread::sleep(AGAIN);
        }
    }
    told
}
