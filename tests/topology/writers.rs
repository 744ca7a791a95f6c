//! Clients that write without pause, and go after the master when it moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

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
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    running: JoinSet<Told>,
}

impl Writers {
    /// So many of them, each with so much time between two writes.
    pub fn start(store: &Embedded, count: usize, pace: Duration) -> Self {
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut running = JoinSet::new();
        for writer in 0..count {
            running.spawn(write(writer, pace, store.clone(), Arc::clone(&stop), Arc::clone(&acked)));
        }
        Self { stop, acked, running }
    }

    /// Until every writer could have written some more.
    pub async fn progress(&self) {
        let wanted = self.acked.load(Ordering::Relaxed) + 40;
        let written = async {
            while self.acked.load(Ordering::Relaxed) < wanted {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(30), written).await.expect("writers go on");
    }

    pub async fn stop(mut self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        while let Some(told) = self.running.join_next().await {
            let told = told.unwrap();
            all.acked.extend(told.acked);
            all.failed.extend(told.failed);
        }
        all
    }
}

async fn write(writer: usize, pace: Duration, store: Embedded, stop: Arc<AtomicBool>, acked: Arc<AtomicU64>) -> Told {
    let mut told = Told::default();
    let mut client: Option<Client> = None;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut client else {
            sleep(Duration::from_millis(1)).await;
            if let Some(applied) = crate::applied(&store).await {
                client = Client::open(([127, 0, 0, 1], applied.master.port).into()).await.ok();
            }
            continue;
        };
        number += 1;
        sleep(pace).await;
        let value = format!("{writer}-{number}");
        match open.ask(&["RPUSH", "log", &value]).await {
            Ok(reply) if reply.starts_with(':') => {
                told.acked.insert(value);
                acked.fetch_add(1, Ordering::Relaxed);
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
