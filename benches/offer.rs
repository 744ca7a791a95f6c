//! How soon the offer follows the engine: figures beside their budgets, on a real engine (root, Debian's `docker.io`
//! and
//! `memcached`) and a stand-in one. Latencies are counted from the engine's own event times.
//!
//! `cargo bench --bench offer`, on a machine that has little else to do.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

#[path = "../tests/dockerd/mod.rs"]
mod dockerd;
#[path = "../tests/engine/mod.rs"]
mod engine;
#[path = "kit/mod.rs"]
mod kit;
#[path = "../tests/watched/mod.rs"]
mod watched;

use dockerd::Dockerd;
use engine::{Engine, container, event, id};
use kit::{Table, memory_of, milliseconds, percentile};
use watched::{Watched, names};

const ROUNDS: usize = 100;
const EXECS: usize = 100_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut table = Table::new("offer");
    five_hundred(&mut table).await;
    exec_events(&mut table).await;
    real_engine(&mut table).await;
    table.finish()
}

/// 500 containers at 2 ms an inspect and eight at once are 125 ms of inspects; what is beyond that is ours.
async fn five_hundred(table: &mut Table) {
    let engine = Engine::start().await;
    engine.every_inspect_takes(Duration::from_millis(2));
    for number in 0..500 {
        engine.add(container(number, "app", 80, 10_000));
    }
    let began = Instant::now();
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    let beyond = began.elapsed().saturating_sub(Duration::from_millis(2 * 500 / 8));
    assert_eq!(engine.most_inspecting(), 8);
    let beyond = milliseconds(beyond);
    table.row("500 running containers taken in", beyond, 1_000.0, "ms", "beyond 500 inspects of 2 ms, eight at once");
}

fn resident() -> f64 {
    memory_of(std::process::id(), "VmRSS")
}

/// A real engine filters them; here they come through all the same, in one process with what sends them.
async fn exec_events(table: &mut Table) {
    let engine = Engine::start().await;
    engine.add(container(1, "app", 80, 10_000));
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    let batch: Vec<Value> = (0..100).map(|_| event("exec_start: sh", &id(1))).collect();
    let mut before = 0.0;
    for round in 0..EXECS / batch.len() {
        engine.emit(&batch);
        tokio::time::sleep(Duration::from_millis(1)).await;
        if round == 100 {
            before = resident();
        }
    }
    engine.run(container(2, "app", 80, 10_002));
    host.until("the next start is seen", |offer| names(offer).len() == 2).await;
    let grown = (resident() - before).max(0.0);
    table.row("memory grown through 100,000 exec events", grown, 2.0, "MB", "resident");
}

async fn real_engine(table: &mut Table) {
    let engine = Dockerd::start();
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    let began = SystemTime::now();
    let mut seen = BTreeMap::new();
    let mut told = BTreeMap::new();
    for round in 0..ROUNDS {
        let name = format!("round-{round}");
        let mut offers = host.offer.clone();
        let watching = {
            let name = name.clone();
            tokio::spawn(async move {
                offers.wait_for(|offer| names(offer).contains(&name)).await.unwrap();
                let started = SystemTime::now();
                offers.wait_for(|offer| !names(offer).contains(&name)).await.unwrap();
                (started, SystemTime::now())
            })
        };
        // Killed from outside, so that no stop signal announces the death.
        let container = tokio::task::block_in_place(|| engine.run(&name, &["-p", "11211"]));
        let pid = rustix::process::Pid::from_raw(engine.pid(&name)).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        seen.insert(container, watching.await.unwrap());
        tokio::task::block_in_place(|| engine.docker(&["rm", "-f", &name]));
        // The engine keeps its last 256 events only.
        if round % 10 == 9 {
            told.extend(events(&engine, began));
        }
    }
    let mut starts = Vec::new();
    let mut deaths = Vec::new();
    for (container, (started, died)) in &seen {
        let after = |seen: &SystemTime, what: &str| {
            let at = told[&(container.clone(), what.to_owned())];
            milliseconds(seen.duration_since(UNIX_EPOCH).unwrap().saturating_sub(at))
        };
        starts.push(after(started, "start"));
        deaths.push(after(died, "die"));
    }
    let many: Vec<String> = (0..50).map(|number| format!("many-{number}")).collect();
    tokio::task::block_in_place(|| many.iter().for_each(|name| _ = engine.run(name, &["-p", "11211"])));
    let began = Instant::now();
    let mut fresh = Watched::start(engine.endpoint());
    fresh.until("all 50", |offer| offer.listed && names(offer).len() == 50).await;
    let fifty = milliseconds(began.elapsed());
    let from = "from the engine's own event, p99 of 100";
    table.row("start → offered", percentile(&mut starts, 99), 10.0, "ms", from);
    table.row("die → withdrawn", percentile(&mut deaths, 99), 5.0, "ms", from);
    table.row(
        "50 running containers of a real engine taken in",
        fifty,
        500.0,
        "ms",
        "all of it, the engine's part too",
    );
}

/// The engine's time of each start and death.
fn events(engine: &Dockerd, since: SystemTime) -> BTreeMap<(String, String), Duration> {
    let at = |time: SystemTime| format!("{:.9}", time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64());
    let until = at(SystemTime::now());
    let filters = ["--filter", "event=start", "--filter", "event=die", "--format", "{{json .}}"];
    let text = engine.docker(&[&["events", "--since", &at(since), "--until", &until], &filters[..]].concat());
    let read = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let key = (event["Actor"]["ID"].as_str()?.to_owned(), event["Action"].as_str()?.to_owned());
        Some((key, Duration::from_nanos(event["timeNano"].as_u64()?)))
    };
    text.lines().filter_map(read).collect()
}
