//! Clients that write without pause, and go after the master when it moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wharf::store::embedded::Embedded;

use crate::servers::Client;

#[derive(Default)]
pub struct Told {
    acked: BTreeSet<String>,
    failed: BTreeSet<String>,
}

#[derive(Debug)]
pub struct Tally {
    pub acked: usize,
    /// Acknowledged and not there.
    pub missing: usize,
    /// Failed and there.
    pub phantom: usize,
}

pub struct Writers {
    shared: Arc<Shared>,
    running: JoinSet<Told>,
}

/// Where a writer looks for the master.
type Find = Arc<dyn Fn() -> BoxFuture<'static, Option<u16>> + Send + Sync>;

struct Shared {
    find: Find,
    pace: Duration,
    stop: AtomicBool,
    acked: AtomicU64,
    begun: Instant,
    /// When the last write was acknowledged, and the longest time between two, in microseconds.
    last: AtomicU64,
    worst: AtomicU64,
}

impl Shared {
    fn acknowledge(&self) {
        let now = self.begun.elapsed().as_micros() as u64;
        let gap = now.saturating_sub(self.last.fetch_max(now, Ordering::Relaxed));
        self.worst.fetch_max(gap, Ordering::Relaxed);
        self.acked.fetch_add(1, Ordering::Relaxed);
    }
}

impl Writers {
    /// So many of them, each with so much time between two writes, who go to the master that was brought about.
    pub fn start(store: &Embedded, count: usize, pace: Duration) -> Self {
        let store = store.clone();
        let find = move || {
            let store = store.clone();
            async move { Some(crate::applied(&store).await?.master.port) }.boxed()
        };
        Self::finding(Arc::new(find), count, pace)
    }

    /// The same, who try one of these after the other until it takes their writes.
    pub fn hunting(ports: Vec<u16>, count: usize, pace: Duration) -> Self {
        let turn = AtomicUsize::new(0);
        let find = move || {
            let port = ports[turn.fetch_add(1, Ordering::Relaxed) % ports.len()];
            async move { Some(port) }.boxed()
        };
        Self::finding(Arc::new(find), count, pace)
    }

    fn finding(find: Find, count: usize, pace: Duration) -> Self {
        let (stop, acked, begun) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
        let (last, worst) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { find, pace, stop, acked, begun, last, worst });
        let running = (0..count).map(|writer| write(writer, Arc::clone(&shared))).collect();
        Self { shared, running }
    }

    /// Until every writer could have written some more.
    pub async fn progress(&self) {
        let wanted = self.shared.acked.load(Ordering::Relaxed) + 40;
        let written = async {
            while self.shared.acked.load(Ordering::Relaxed) < wanted {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(30), written).await.expect("writers go on");
    }

    pub async fn stop(self) -> Told {
        self.stop_with_gap().await.0
    }

    /// With the longest time between two acknowledged writes.
    pub async fn stop_with_gap(mut self) -> (Told, Duration) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        while let Some(told) = self.running.join_next().await {
            let told = told.unwrap();
            all.acked.extend(told.acked);
            all.failed.extend(told.failed);
        }
        (all, Duration::from_micros(self.shared.worst.load(Ordering::Relaxed)))
    }
}

async fn write(writer: usize, shared: Arc<Shared>) -> Told {
    let mut told = Told::default();
    let mut client: Option<Client> = None;
    let mut number = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(open) = &mut client else {
            sleep(Duration::from_millis(1)).await;
            if let Some(port) = (shared.find)().await {
                client = Client::open(([127, 0, 0, 1], port).into()).await.ok();
            }
            continue;
        };
        number += 1;
        sleep(shared.pace).await;
        let value = format!("{writer}-{number}");
        match open.ask(&["RPUSH", "log", &value]).await {
            Ok(reply) if reply.starts_with(':') => {
                told.acked.insert(value);
                shared.acknowledge();
            }
            _ => {
                told.failed.insert(value);
                client = None;
            }
        }
    }
    told
}

impl Told {
    pub fn against(&self, list: &str) -> Tally {
        let there: BTreeSet<String> = list.lines().map(str::to_owned).collect();
        Tally {
            acked: self.acked.len(),
            missing: self.acked.difference(&there).count(),
            phantom: self.failed.intersection(&there).count(),
        }
    }
}
