//! What probing costs and how soon it tells: figures beside their budgets, on real servers.
//!
//! `cargo bench --bench probe`, on a machine that has little else to do.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wharf::model::health::standing::State;
use wharf::model::offer::instance::{CheckKind, InstanceKey};
use wharf::offer::probe::Settings;

#[path = "../tests/probe/harness.rs"]
mod harness;
#[path = "kit/mod.rs"]
mod kit;
#[path = "../tests/probe/servers.rs"]
mod servers;

use harness::{Host, instance};
use kit::{Table, cpu_of, milliseconds, percentile};

/// How long a server may take to come up.
const COMES_UP: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut table = Table::new("probe");
    steady(&mut table, 500).await;
    frozen(&mut table, 50).await;
    first_readiness(&mut table, 300).await;
    table.finish()
}

/// Many instances of few servers: what counts is this process.
async fn crowd(host: &Host, count: u16, kinds: &[(CheckKind, std::net::SocketAddr)]) -> Vec<InstanceKey> {
    let made = (0..count).map(|port| {
        let (kind, target) = kinds[usize::from(port) % kinds.len()];
        let mut one = instance(kind, target);
        one.key.port = port + 1;
        one
    });
    let keys: Vec<_> = made.collect();
    host.offer(|offer| {
        for one in &keys {
            offer.instances.insert(one.key.clone(), Arc::new(one.clone()));
        }
    });
    for one in &keys {
        host.until_state(&one.key, State::Ready).await;
    }
    keys.into_iter().map(|one| one.key).collect()
}

async fn steady(table: &mut Table, count: u16) {
    const LENGTH: Duration = Duration::from_secs(20);
    let (memcached, redis) = (servers::memcached(&[]), servers::redis(&[]));
    let postgres = servers::Cluster::new("scram-sha-256").start();
    // Every tenth is a PostgreSQL, which forks for each visitor.
    let mut mixed = [(CheckKind::Memcached, memcached.target), (CheckKind::Redis, redis.target)].repeat(5);
    mixed[0] = (CheckKind::Postgres, postgres.target);
    let sets = [
        ("CPU of 500 memcached", vec![(CheckKind::Memcached, memcached.target)]),
        ("CPU of 500 instances (redis 5, memcached 4, postgres 1)", mixed),
    ];
    for (what, kinds) in sets {
        let host = Host::new(Settings::default());
        crowd(&host, count, &kinds).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let (before, began) = (cpu_of(std::process::id()), Instant::now());
        tokio::time::sleep(LENGTH).await;
        let share = (cpu_of(std::process::id()) - before).as_secs_f64() / began.elapsed().as_secs_f64();
        for (key, standing) in host.standings.borrow().iter().filter(|(_, standing)| !standing.state.serves()) {
            println!("{key} is {}: {:?}", standing.state, standing.error);
        }
        table.row(what, share * 100.0, 5.0, "%", "of one core, at the default interval");
    }
}

async fn frozen(table: &mut Table, count: u16) {
    let server = servers::memcached(&[]);
    let host = Host::new(Settings::default());
    let keys = crowd(&host, count, &[(CheckKind::Memcached, server.target)]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut longest = Vec::new();
    for (signal, state) in [(Signal::STOP, State::Down), (Signal::CONT, State::Ready)] {
        let began = Instant::now();
        server.signal(signal);
        for key in &keys {
            host.until_state(key, state).await;
        }
        longest.push(began.elapsed().as_secs_f64());
    }
    table.row("a frozen server is withdrawn", longest[0], 7.5, "s", "longest of 50");
    table.row("and back after it thaws", longest[1], 5.0, "s", "longest of 50");
}

/// Servers that come up one after another; beside each a client that does nothing but ask it, from the first moment on
/// that it takes a connection.
async fn first_readiness(table: &mut Table, count: usize) {
    let host = Host::new(Settings::default());
    let (mut ready, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let target = servers::free_port();
        let key = host.put(instance(CheckKind::Memcached, target));
        let server = servers::memcached_at(target, &[]);
        let client = tokio::spawn(tokio::time::timeout(COMES_UP, first_client(target)));
        host.until_state(&key, State::Ready).await;
        let seen = Instant::now();
        let (accepted, replied) = client.await.unwrap().expect("memcached comes up in time");
        ready.push(milliseconds(seen.saturating_duration_since(accepted)));
        answered.push(milliseconds(replied.saturating_duration_since(accepted)));
        host.remove(&key);
        drop(server);
    }
    let beside =
        format!("p99 of {count}; its first client had its answer after {:.1} ms", percentile(&mut answered, 99));
    table.row("memcached accepts → ready", percentile(&mut ready, 99), 60.0, "ms", &beside);
    for (what, percent) in [("median", 50), ("longest", 100)] {
        let beside = format!("its first client: {:.1} ms", percentile(&mut answered, percent));
        table.note(what, percentile(&mut ready, percent), "ms", &beside);
    }
}

/// When a server first takes a connection, and when it first answers.
async fn first_client(target: std::net::SocketAddr) -> (Instant, Instant) {
    let mut stream = loop {
        match TcpStream::connect(target).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    let accepted = Instant::now();
    stream.write_all(b"version\r\n").await.unwrap();
    stream.read_exact(&mut [0; 8]).await.unwrap();
    (accepted, Instant::now())
}
