//! What an ambassador costs, beside HAProxy with and without splice, and tokio's own copy: one thread each, one after
//! the other in every round, their CPU counted by the operating system. `cargo bench --bench proxy`.
//!
//! The rates of a machine that is busy swing; ratios within a round hardly do, and of all rounds the median counts.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs, unreachable_pub)]
#![allow(clippy::cast_precision_loss)]

#[path = "../kit/mod.rs"]
mod kit;
mod load;
mod peers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kit::{Table, cpu_of, memory_of, percentile};
use load::Servers;
use peers::Peer;

const ROUNDS: usize = 5;
/// As many streams as a host has busy ones at a time.
const STREAMS: usize = 8;
const MEGABYTES: usize = 1_000;
const ECHOES: usize = 32_000;
const NEW: usize = 4_000;
/// What an ambassador takes by default.
const IDLE: usize = 8_000;

/// The figures of one peer, one of each round.
#[derive(Debug, Default)]
struct Figures {
    /// CPU seconds of a GB.
    bulk: Vec<f64>,
    /// Requests a second, and CPU microseconds of one.
    rate: Vec<f64>,
    echo: Vec<f64>,
    /// CPU microseconds of a new connection.
    new: Vec<f64>,
    /// KB of an idle connection.
    idle: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--copy") {
        peers::copy(&arguments[at + 1], &arguments[at + 2]);
        return ExitCode::SUCCESS;
    }
    kit_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let servers = runtime.block_on(Servers::start());
    let peers = Peer::all(&servers);
    let mut figures: Vec<Figures> = peers.iter().map(|_| Figures::default()).collect();
    for _ in 0..ROUNDS {
        for (peer, figures) in peers.iter().zip(&mut figures) {
            round(&runtime, peer, figures);
        }
    }
    for (peer, figures) in peers.iter().zip(&mut figures) {
        let before = memory_of(peer.pid(), "VmRSS");
        let idle = runtime.block_on(load::connections(peer.echo, IDLE));
        figures.idle = (memory_of(peer.pid(), "VmRSS") - before) * 1_000.0 / IDLE as f64;
        drop(idle);
    }
    told(&peers, &mut figures)
}

/// Two descriptors a connection, on this side alone.
fn kit_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

fn round(runtime: &tokio::runtime::Runtime, peer: &Peer, figures: &mut Figures) {
    let (_, cpu) = spent(peer, || runtime.block_on(load::bulk(peer.sink, STREAMS, MEGABYTES)));
    figures.bulk.push(cpu.as_secs_f64() * 1_000.0 / MEGABYTES as f64);
    let (took, cpu) = spent(peer, || runtime.block_on(load::echoes(peer.echo, 2 * STREAMS, ECHOES)));
    figures.rate.push(ECHOES as f64 / took.as_secs_f64());
    figures.echo.push(cpu.as_secs_f64() * 1e6 / ECHOES as f64);
    let (_, cpu) = spent(peer, || runtime.block_on(load::new_connections(peer.echo, NEW)));
    figures.new.push(cpu.as_secs_f64() * 1e6 / NEW as f64);
}

/// How long it took, and the peer's CPU.
fn spent(peer: &Peer, work: impl FnOnce()) -> (Duration, Duration) {
    let (cpu, begun) = (cpu_of(peer.pid()), Instant::now());
    work();
    (begun.elapsed(), cpu_of(peer.pid()) - cpu)
}

/// The rows: an ambassador's figure by that of HAProxy with splice, and all of them beside.
fn told(peers: &[Peer], figures: &mut [Figures]) -> ExitCode {
    let mut table = Table::new("proxy");
    let ratio = |ours: &[f64], theirs: &[f64]| {
        let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        percentile(&mut ratios, 50)
    };
    let beside = |figures: &mut [Figures], of: fn(&mut Figures) -> &mut Vec<f64>, unit: &str| {
        let each = peers.iter().zip(figures).map(|(peer, figures)| {
            let figure = percentile(of(figures), 50);
            format!("{} {figure:.2} {unit}", peer.name)
        });
        each.collect::<Vec<_>>().join(", ")
    };
    let row = |table: &mut Table,
               figures: &mut [Figures],
               what: &str,
               of: fn(&mut Figures) -> &mut Vec<f64>,
               budget,
               unit| {
        // The order of the rounds is that of the ratios, so they come before the medians, which sort.
        let (ours, theirs) = (of(&mut figures[0]).clone(), of(&mut figures[1]).clone());
        let figure = if unit == "/s" { ratio(&theirs, &ours) } else { ratio(&ours, &theirs) };
        let beside = beside(figures, of, unit);
        table.row(what, figure, budget, "×", &beside);
    };
    row(&mut table, figures, "CPU per GB, by HAProxy with splice", |of| &mut of.bulk, 0.6, "s");
    row(&mut table, figures, "requests of 128 bytes a second: HAProxy's by ours", |of| &mut of.rate, 1.0, "/s");
    row(&mut table, figures, "CPU per request of 128 bytes, by HAProxy", |of| &mut of.echo, 1.1, "µs");
    row(&mut table, figures, "CPU per new connection, by HAProxy", |of| &mut of.new, 1.1, "µs");
    let each = peers.iter().zip(figures.iter()).map(|(peer, figures)| format!("{} {:.2} KB", peer.name, figures.idle));
    let each = each.collect::<Vec<_>>().join(", ");
    table.row("memory per idle connection, by HAProxy", figures[0].idle / figures[1].idle, 1.0, "×", &each);
    table.finish()
}
