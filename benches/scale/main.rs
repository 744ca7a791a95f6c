//! What one more host, one more instance and one more change cost etcd and every other host: measured with real agents
//! on one etcd member, then multiplied out for clusters that fit on no bench.
//!
//! `cargo bench --bench scale`. `docs/scale.md` says what follows from it. The agents watch an engine without
//! containers; records are written by this program.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "../../tests/engine/mod.rs"]
mod engine;
#[path = "../../tests/etcd/mod.rs"]
mod etcd;
#[path = "../kit/mod.rs"]
mod kit;
#[path = "../agent/process.rs"]
mod process;
#[path = "../dns/records.rs"]
mod records;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use engine::Engine;
use etcd::Cluster;
use kit::{Table, cpu_of, memory_of};
use process::{Agent, Sockets};
use wharf::store::etcd::Etcd;
use wharf::store::{MAX_WRITES, Store as _, Write};

const AGENTS: usize = 30;
const RECORDS: usize = 20_000;
const CHANGES: usize = 1_000;
/// How long a cluster at rest is looked at: three keepalives of each agent.
const REST: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);

/// What a cluster is multiplied out of. Times in microseconds of CPU, memory in bytes.
#[derive(Debug, Default)]
struct Units {
    /// etcd, for one agent at rest, each second.
    rest: f64,
    rest_bytes: f64,
    agent_memory: f64,
    /// etcd, for one change that one agent watches.
    fan_out: f64,
    fan_out_bytes: f64,
    /// An agent, for one change.
    change: f64,
    /// One record: in etcd's memory, in etcd's file, in an agent's memory.
    record: f64,
    record_file: f64,
    record_agent: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut table = Table::new("scale");
    let units = measured().await;
    for (what, figure, unit) in [
        ("etcd: CPU for one host at rest (keepalive, watches in step), each second", units.rest, "µs"),
        ("etcd: bytes to and from one host at rest, each second", units.rest_bytes, "B"),
        ("etcd: memory for one host (connection, lease, watches)", units.agent_memory / 1e3, "kB"),
        ("etcd: CPU to tell one host of one change", units.fan_out, "µs"),
        ("etcd: bytes to tell one host of one change", units.fan_out_bytes, "B"),
        ("a host: CPU to hear of one change", units.change, "µs"),
        ("etcd: memory for one record", units.record / 1e3, "kB"),
        ("etcd: file for one record", units.record_file / 1e3, "kB"),
        ("a host: memory for one record", units.record_agent / 1e3, "kB"),
    ] {
        table.note(what, figure, unit, "measured");
    }
    for hosts in [10.0, 1_000.0, 10_000.0] {
        multiplied(&mut table, &units, hosts);
    }
    table.finish()
}

/// A cluster of so many hosts with 100 instances each, every one of which is replaced once a day.
fn multiplied(table: &mut Table, units: &Units, hosts: f64) {
    const DAY: f64 = 86_400.0;
    // A replaced instance is two changes of its record; its host's own record tells of it in one more at most.
    let changes = hosts * 100.0 * 3.0 / DAY;
    let told = changes * hosts;
    let records = hosts * 100.0;
    let of = format!("{hosts} hosts × 100 instances, computed");
    table.note("keepalives of etcd, each second", hosts / 10.0, "", &of);
    table.note("changes, each second", changes, "", &of);
    table.note("watch events sent, each second", told, "", &of);
    let cores = (hosts * units.rest + told * units.fan_out) / 1e6;
    table.note("CPU of etcd for all that", cores * 100.0, "% of a core", &of);
    let bytes = hosts * units.rest_bytes + told * units.fan_out_bytes;
    table.note("etcd's network", bytes * 8.0 / 1e6, "Mbit/s", &of);
    let memory = records * units.record + hosts * units.agent_memory;
    table.note("etcd's memory", memory / 1e6, "MB", &of);
    table.note("etcd's file", records * units.record_file / 1e6, "MB", &of);
    table.note("a host's memory for the catalog", records * units.record_agent / 1e6, "MB", &of);
    table.note("a host's CPU for changes", changes * units.change / 1e4, "% of a core", &of);
}

async fn measured() -> Units {
    let engine = Engine::start().await;
    let cluster = Cluster::start(1);
    let etcd = cluster.members[0].pid();
    let directories: Vec<_> = (0..AGENTS).map(|_| (tempfile::tempdir().unwrap(), Sockets::bind())).collect();
    std::thread::sleep(Duration::from_secs(3));
    let (alone, alone_memory) = (spent(&cluster, Duration::from_secs(10)), memory_of(etcd, "VmRSS"));
    let start = |number: usize| {
        let (directory, sockets) = &directories[number];
        Agent::start(&format!("host-{number}"), sockets, &engine.path, &cluster.endpoints()[0], directory.path())
    };
    let agents: Vec<Agent> = (0..AGENTS).map(start).collect();
    until("every host is known", || keys(&cluster, "/wharf/") >= AGENTS);
    std::thread::sleep(Duration::from_secs(6));
    let count = AGENTS as f64;
    let resting = spent(&cluster, REST);
    let mut units = Units {
        rest: (resting.0 - alone.0) / count,
        rest_bytes: (resting.1 - alone.1) / count,
        agent_memory: (memory_of(etcd, "VmRSS") - alone_memory) * 1e6 / count,
        ..Units::default()
    };
    change(&cluster, &agents, &resting, &mut units).await;
    fill(&cluster, &agents, &mut units).await;
    units
}

/// CPU (µs) and bytes of etcd, each second, over so long.
fn spent(cluster: &Cluster, length: Duration) -> (f64, f64) {
    let pid = cluster.members[0].pid();
    let (cpu, bytes, began) = (cpu_of(pid), traffic(cluster), Instant::now());
    std::thread::sleep(length);
    let seconds = began.elapsed().as_secs_f64();
    ((cpu_of(pid) - cpu).as_secs_f64() * 1e6 / seconds, (traffic(cluster) - bytes) / seconds)
}

/// One record changes again and again, each time for all agents.
async fn change(cluster: &Cluster, agents: &[Agent], resting: &(f64, f64), units: &mut Units) {
    let store = cluster.store(Duration::from_secs(30));
    let cpu_of_agents = || agents.iter().map(|agent| cpu_of(agent.pid()).as_secs_f64()).sum::<f64>();
    let etcd = cluster.members[0].pid();
    let (cpu, bytes, agents_cpu, began) = (cpu_of(etcd), traffic(cluster), cpu_of_agents(), Instant::now());
    for number in 0..CHANGES {
        let (_, value) = records::full(number);
        let write = Write::Put { key: "/services/s1/changes".into(), value: value.into(), lease: 0 };
        put(&store, &[write]).await;
    }
    std::thread::sleep(Duration::from_secs(1));
    let (seconds, told) = (began.elapsed().as_secs_f64(), (CHANGES * agents.len()) as f64);
    let cpu = (cpu_of(etcd) - cpu).as_secs_f64() * 1e6 - resting.0 * seconds;
    units.fan_out = cpu / told;
    units.fan_out_bytes = (traffic(cluster) - bytes - resting.1 * seconds) / told;
    units.change = (cpu_of_agents() - agents_cpu) * 1e6 / told;
}

/// Many records, all at once.
async fn fill(cluster: &Cluster, agents: &[Agent], units: &mut Units) {
    let etcd = cluster.members[0].pid();
    let memory_of_agents = || agents.iter().map(|agent| memory_of(agent.pid(), "VmRSS")).sum::<f64>();
    let (memory, file, agents_memory) = (memory_of(etcd, "VmRSS"), file(cluster), memory_of_agents());
    let store = cluster.store(Duration::from_secs(30));
    let numbers: Vec<usize> = (0..RECORDS).collect();
    for chunk in numbers.chunks(MAX_WRITES) {
        let full = |number: &usize| {
            let (key, value) = records::full(*number);
            Write::Put { key, value: value.into(), lease: 0 }
        };
        let writes: Vec<Write> = chunk.iter().map(full).collect();
        put(&store, &writes).await;
    }
    until("all records", || keys(cluster, "/services/") > RECORDS);
    // Every agent has them soon after, and etcd has written its file.
    std::thread::sleep(Duration::from_secs(5));
    let count = RECORDS as f64;
    units.record = (memory_of(etcd, "VmRSS") - memory) * 1e6 / count;
    units.record_file = (self::file(cluster) - file) / count;
    units.record_agent = (memory_of_agents() - agents_memory) * 1e6 / agents.len() as f64 / count;
}

/// Writes, again where a busy machine has kept etcd from answering in time.
async fn put(store: &Etcd, writes: &[Write]) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = store.commit(&[], writes).await {
        assert!(Instant::now() < deadline, "etcd takes no write: {error}");
    }
}

fn keys(cluster: &Cluster, prefix: &str) -> usize {
    cluster.ctl(&["get", "--prefix", prefix, "--keys-only"]).lines().filter(|line| !line.is_empty()).count()
}

fn traffic(cluster: &Cluster) -> f64 {
    metric(cluster, "etcd_network_client_grpc_received_bytes_total ")
        + metric(cluster, "etcd_network_client_grpc_sent_bytes_total ")
}

fn file(cluster: &Cluster) -> f64 {
    metric(cluster, "etcd_mvcc_db_total_size_in_use_in_bytes ")
}

fn metric(cluster: &Cluster, name: &str) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.members[0].client)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or_default()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
