//! What publishing costs, against a real etcd on loopback: how soon a thousand instances stand again after the lease
//! was lost, and what a steady host writes and asks.
//!
//! `cargo bench --bench publish`; `WHARF_STEADY=60` says for how many seconds the steady host is watched.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/etcd/mod.rs"]
mod etcd;
#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "kit/mod.rs"]
mod kit;

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use etcd::Cluster;
use harness::{Host, Setup, eventually, instance};
use kit::{Table, milliseconds};
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(30);

/// Over how many seconds the steady host is looked at, unless told otherwise.
const STEADY: u64 = 60;

fn main() -> ExitCode {
    let mut table = Table::new("publish");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        lost_lease(&mut table).await;
        steady(&mut table).await;
    });
    table.finish()
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

/// From the new session to the last of a thousand records, the longest of five; the wait that spreads hosts apart is
/// not counted.
async fn lost_lease(table: &mut Table) {
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
    let what = "1,000 instances published after a lost lease";
    table.row(what, milliseconds(longest), 1_000.0, "ms", "from the new session, longest of 5");
}

/// Puts, watch events and keepalives of etcd's own count while nothing changes.
async fn steady(table: &mut Table) {
    let seconds = std::env::var("WHARF_STEADY").ok().and_then(|value| value.parse().ok()).unwrap_or(STEADY);
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
    for (place, (what, budget)) in
        [("puts", 0.0), ("watch events", 0.0), ("keepalives", keepalives)].into_iter().enumerate()
    {
        let what = format!("100 steady services for {seconds} s: {what}");
        table.row(&what, after[place] - before[place], budget, "", "by etcd's own count");
    }
}

const COUNTERS: [&str; 3] = [
    "etcd_mvcc_put_total ",
    "etcd_debugging_mvcc_events_total ",
    "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\"",
];

fn counts(cluster: &Cluster) -> [f64; 3] {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.members[0].client)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    COUNTERS.map(|counter| {
        let line = text.lines().find(|line| line.starts_with(counter));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("etcd does not count {counter}"))
    })
}
