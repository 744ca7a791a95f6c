//! The whole agent as a process: how soon it publishes what runs, what it weighs, and whether anybody notices when it
//! is killed and started again with the sockets that a service manager keeps for it.
//!
//! `cargo bench --bench agent`, on a machine that has little else to do. Docker's engine is a stand-in (its list and
//! inspects take a known time), etcd is real.
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
mod load;
mod process;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use engine::{Engine, container};
use etcd::Cluster;
use kit::{Table, memory_of, milliseconds};
use process::{Agent, Sockets};
use wharf::store::Store as _;
use wharf::store::etcd::Etcd;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const INSPECT: Duration = Duration::from_millis(2);
const RESTARTS: usize = 20;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut table = Table::new("agent");
    five_hundred(&mut table).await;
    hundred(&mut table).await;
    table.finish()
}

async fn engine_with(count: usize) -> Engine {
    let engine = Engine::start().await;
    for number in 0..count {
        // No check is guessed for this image: Docker's word is enough.
        engine.add(container(number, "app", 8080, 20_000 + u16::try_from(number).unwrap()));
    }
    engine
}

/// Waits until so many records stand. Asked over one connection: a tool started for each look takes a core from those
/// who are measured.
async fn until_published(cluster: &Cluster, count: usize) {
    let store = cluster.store(Duration::from_secs(30));
    let deadline = Instant::now() + PATIENCE;
    while published(&store).await != count {
        assert!(Instant::now() < deadline, "never came true: {count} records");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many records stand; none while etcd does not answer.
async fn published(store: &Etcd) -> usize {
    let (mut after, mut count) = (None::<String>, 0);
    loop {
        let Ok(page) = store.read("/services/", after.as_deref(), None).await else { return 0 };
        count += page.items.len();
        if !page.more {
            return count;
        }
        after = page.items.last().map(|item| item.key.clone());
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// From the start of the process until etcd has every record.
async fn five_hundred(table: &mut Table) {
    const COUNT: usize = 500;
    let engine = engine_with(COUNT).await;
    engine.every_inspect_takes(INSPECT);
    let cluster = Cluster::start(1);
    let (directory, sockets) = (tempfile::tempdir().unwrap(), Sockets::bind());
    let began = Instant::now();
    let agent = Agent::start("bench", &sockets, &engine.path, &cluster.endpoints()[0], directory.path());
    until_published(&cluster, COUNT).await;
    // At most eight inspects are under way at once.
    let beyond = began.elapsed().saturating_sub(INSPECT * 500 / 8);
    table.row(
        "500 running containers at start, no check: all published",
        milliseconds(beyond),
        1_000.0,
        "ms",
        "beyond 500 inspects of 2 ms, eight at once",
    );
    drop(agent);
}

/// A host with a hundred instances: its weight, and its restarts.
async fn hundred(table: &mut Table) {
    const COUNT: usize = 100;
    let engine = engine_with(COUNT).await;
    let cluster = Cluster::start(1);
    let (directory, sockets) = (tempfile::tempdir().unwrap(), Sockets::bind());
    let start = || Agent::start("bench", &sockets, &engine.path, &cluster.endpoints()[0], directory.path());
    let mut agent = start();
    until_published(&cluster, COUNT).await;
    let name = "bench-c7-8080.app.services.internal";
    until("an answer", || load::ask(sockets.address(), name));

    let changes = load::Changes::watch(&cluster, directory.path());
    let load = load::Load::start(sockets.address(), name);
    for _ in 0..RESTARTS {
        // Long enough to publish, too short for the catalog to be kept a second time.
        std::thread::sleep(Duration::from_secs(1));
        agent.kill();
        agent = start();
    }
    until("an answer", || load::ask(sockets.address(), name));
    let told = load.finish();
    table.row("killed 20 times at 200 queries/s: queries lost", told.lost, 0.0, "", &format!("of {}", told.sent));
    table.row("answers without the record", told.without, 0.0, "", "");
    table.note("the longest wait for an answer", told.longest, "ms", "");
    table.row("records written or deleted", changes.count(), 0.0, "", "by etcd's own watch");

    std::thread::sleep(Duration::from_secs(5));
    table.row("memory with 100 instances", memory_of(agent.pid(), "VmRSS"), 20.0, "MB", "resident");
}
