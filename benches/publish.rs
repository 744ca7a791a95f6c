//! What publishing costs, against a real etcd on loopback: how soon a thousand instances stand again after the lease was
//! lost, and what a steady host writes and asks.
//!
//! `cargo bench --bench publish`; `WHARF_STEADY=60` says for how many seconds the steady host is watched.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/etcd/mod.rs"]
mod etcd;
#[path = "../tests/harness/mod.rs"]
mod harness;

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use etcd::Cluster;
use harness::{Host, Setup, eventually, instance};
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(30);

/// One line of the table.
struct Figure {
    what: String,
    figure: f64,
    budget: f64,
    unit: &'static str,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let figures = runtime.block_on(async {
        let mut figures = vec![lost_lease().await];
        figures.extend(steady().await);
        figures
    });
    println!("{:<58} {:>9} {:>9}", "what", "figure", "budget");
    let mut kept = true;
    for Figure { what, figure, budget, unit } in figures {
        let mark = if figure <= budget { "" } else { "  OVER" };
        kept &= figure <= budget;
        println!("{what:<58} {figure:>6.0} {unit:<2} {budget:>6.0} {unit:<2}{mark}");
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn host(cluster: &Cluster, directory: &tempfile::TempDir, count: u16) -> Host {
    let store = Arc::new(cluster.store(TTL));
    let host = Host::start(store, directory.path(), Setup { ttl: TTL, ..Setup::default() });
    host.ready((1..=count).map(|number| instance("redis", number)));
    published(&host, usize::from(count)).await;
    host
}

async fn published(host: &Host, count: usize) {
    eventually(&format!("{count} stand"), || async {
        host.outputs.local.borrow().instances.iter().filter(|it| it.published).count() == count
    })
    .await;
}

/// From the new session to the last of a thousand records, the longest of five; the wait that spreads hosts apart is not
/// counted.
async fn lost_lease() -> Figure {
    let (cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = host(&cluster, &directory, 1_000).await;
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let lease = host.outputs.local.borrow().lease;
        host.store.revoke(lease).await.unwrap();
        eventually("a new session", || async { ![0, lease].contains(&host.outputs.local.borrow().lease) }).await;
        let begin = Instant::now();
        published(&host, 1_000).await;
        longest = longest.max(begin.elapsed());
    }
    host.stop().await;
    let what = "1,000 instances published after a lost lease".to_owned();
    Figure { what, figure: longest.as_secs_f64() * 1_000.0, budget: 1_000.0, unit: "ms" }
}

/// Puts, watch events and keepalives of etcd's own count while nothing changes.
async fn steady() -> Vec<Figure> {
    let seconds = std::env::var("WHARF_STEADY").ok().and_then(|value| value.parse().ok()).unwrap_or(60);
    let (cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = host(&cluster, &directory, 100).await;
    // The node record may follow by 5 s.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = counts(&cluster);
    assert!(before[0] >= 100.0 && before[1] >= 100.0, "etcd counts what was published: {before:?}");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = counts(&cluster);
    host.stop().await;
    // One each third of the lease, and the one at the edge.
    let keepalives = (Duration::from_secs(seconds).as_secs_f64() / (TTL / 3).as_secs_f64()).floor() + 1.0;
    assert!(after[2] > before[2] || keepalives < 2.0, "no keepalive: {before:?} {after:?}");
    let rows = [("puts", 0.0), ("watch events", 0.0), ("keepalives", keepalives)];
    let row = |(place, (what, budget)): (usize, (&str, f64))| Figure {
        what: format!("100 steady services for {seconds} s: {what}"),
        figure: after[place] - before[place],
        budget,
        unit: "",
    };
    rows.into_iter().enumerate().map(row).collect()
}

const COUNTERS: [&str; 3] = [
    "etcd_mvcc_put_total ",
    "etcd_debugging_mvcc_events_total ",
    "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\"",
];

fn counts(cluster: &Cluster) -> [f64; 3] {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.members[0].client)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    COUNTERS.map(|counter| {
        let line = text.lines().find(|line| line.starts_with(counter));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("etcd does not count {counter}"))
    })
}
