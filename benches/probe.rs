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
use tokio::net::TcpStream;
use wharf::model::instance::{CheckKind, InstanceKey};
use wharf::model::standing::State;
use wharf::offer::probe::Settings;

#[path = "../tests/probe/harness.rs"]
mod harness;
#[path = "../tests/probe/servers.rs"]
mod servers;

use harness::{Host, instance};

/// One line of the table.
struct Figure {
    what: &'static str,
    figure: f64,
    budget: f64,
    unit: &'static str,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut figures = steady(500).await;
    figures.extend(frozen(50).await);
    figures.push(first_readiness(300).await);
    println!("{:<58} {:>9} {:>9}", "what", "figure", "budget");
    let mut kept = true;
    for Figure { what, figure, budget, unit } in figures {
        let mark = if figure <= budget { "" } else { "  OVER" };
        kept &= figure <= budget;
        println!("{what:<58} {figure:>6.1} {unit:<2} {budget:>6.1} {unit:<2}{mark}");
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

/// CPU time of this process so far, kernel included.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn steady(count: u16) -> Vec<Figure> {
    const LENGTH: Duration = Duration::from_secs(20);
    let mut figures = Vec::new();
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
        let (before, began) = (cpu(), Instant::now());
        tokio::time::sleep(LENGTH).await;
        let share = (cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64();
        for (key, standing) in host.standings.borrow().iter().filter(|(_, standing)| !standing.state.serves()) {
            println!("{key} is {}: {:?}", standing.state, standing.error);
        }
        figures.push(Figure { what, figure: share * 100.0, budget: 5.0, unit: "%" });
    }
    figures
}

async fn frozen(count: u16) -> Vec<Figure> {
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
    vec![
        Figure { what: "a frozen server is withdrawn (longest of 50)", figure: longest[0], budget: 7.5, unit: "s" },
        Figure { what: "and back after it thaws (longest of 50)", figure: longest[1], budget: 5.0, unit: "s" },
    ]
}

async fn first_readiness(count: usize) -> Figure {
    let host = Host::new(Settings::default());
    let mut took = Vec::new();
    for _ in 0..count {
        let target = servers::free_port();
        let key = host.put(instance(CheckKind::Memcached, target));
        let server = servers::memcached_at(target, &[]);
        let accepted = tokio::spawn(async move {
            while TcpStream::connect(target).await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Instant::now()
        });
        host.until_state(&key, State::Ready).await;
        let ready = Instant::now();
        took.push(ready.saturating_duration_since(accepted.await.unwrap()).as_secs_f64() * 1000.0);
        host.remove(&key);
        drop(server);
    }
    took.sort_by(f64::total_cmp);
    let p99 = took[took.len() * 99 / 100];
    Figure { what: "memcached accepts to ready, p99 of 300", figure: p99, budget: 60.0, unit: "ms" }
}
