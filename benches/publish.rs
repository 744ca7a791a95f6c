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
use std::sync::Arc;
use std::time::Duration;

use etcd::Cluster;
use harness::{Host, Setup, eventually, instance};
use tokio::time::Instant;
use wharf::store::Store;

const TTL: Duration = Duration::from_secs(30);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        lost_lease().await;
        steady().await;
    });
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

/// From the new session to the last of a thousand records; the wait that spreads hosts apart is not counted.
async fn lost_lease() {
    let (cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = host(&cluster, &directory, 1_000).await;
    for _ in 0..5 {
        let lease = host.outputs.local.borrow().lease;
        host.store.revoke(lease).await.unwrap();
        eventually("a new session", || async { ![0, lease].contains(&host.outputs.local.borrow().lease) }).await;
        let begin = Instant::now();
        published(&host, 1_000).await;
        println!("1,000 instances after a lost lease: {:?}", begin.elapsed());
    }
    host.stop().await;
}

/// Puts, watch events and keepalives of etcd's own count while nothing changes.
async fn steady() {
    let seconds = std::env::var("WHARF_STEADY").ok().and_then(|value| value.parse().ok()).unwrap_or(60);
    let (cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = host(&cluster, &directory, 100).await;
    // The node record may follow by 5 s.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = figures(&cluster);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = figures(&cluster);
    println!("100 steady services for {seconds} s, lease {TTL:?}:");
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        println!("  {name}: {}", after - before);
    }
    host.stop().await;
}

const FIGURES: [(&str, &str); 4] = [
    ("puts", "etcd_mvcc_put_total "),
    ("watch events", "etcd_debugging_mvcc_events_total "),
    ("keepalives", "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\""),
    ("words asked of the watch", "grpc_server_msg_received_total{grpc_method=\"Watch\""),
];

fn figures(cluster: &Cluster) -> Vec<(&'static str, f64)> {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.members[0].client)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    FIGURES.map(|(name, start)| (name, value(start).unwrap_or(0.0))).to_vec()
}
