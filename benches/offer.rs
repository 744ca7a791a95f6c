//! How soon the offer follows the engine: figures beside their budgets, on a real engine (root, Debian's `docker.io` and
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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

#[path = "../tests/dockerd/mod.rs"]
mod dockerd;
#[path = "../tests/engine/mod.rs"]
mod engine;
#[path = "../tests/watched/mod.rs"]
mod watched;

use dockerd::Dockerd;
use engine::{Engine, container, event, id};
use watched::{Watched, names};

const ROUNDS: usize = 100;
const EXECS: usize = 100_000;

struct Figure {
    what: &'static str,
    figure: f64,
    budget: f64,
    unit: &'static str,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut figures = vec![five_hundred().await];
    figures.push(exec_events().await);
    figures.extend(real_engine().await);
    println!("{:<64} {:>9} {:>9}", "what", "figure", "budget");
    let mut kept = true;
    for Figure { what, figure, budget, unit } in figures {
        let mark = if figure <= budget { "" } else { "  OVER" };
        kept &= figure <= budget;
        println!("{what:<64} {figure:>6.1} {unit:<2} {budget:>6.1} {unit:<2}{mark}");
    }
    std::process::exit(i32::from(!kept));
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// 500 containers at 2 ms an inspect and eight at once are 125 ms of inspects; what is beyond that is ours.
async fn five_hundred() -> Figure {
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
    let what = "500 running containers taken in, beyond the engine's inspects";
    Figure { what, figure: milliseconds(beyond), budget: 1000.0, unit: "ms" }
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// A real engine filters them; here they come through all the same, in one process with what sends them.
async fn exec_events() -> Figure {
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
    Figure { what: "memory grown through 100,000 exec events", figure: grown, budget: 2.0, unit: "MB" }
}

async fn real_engine() -> Vec<Figure> {
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
    let fifty = Figure {
        what: "50 real containers taken in",
        figure: milliseconds(began.elapsed()),
        budget: 500.0,
        unit: "ms",
    };
    vec![
        Figure { what: "start -> offered, p99", figure: p99(starts), budget: 10.0, unit: "ms" },
        Figure { what: "die -> withdrawn, p99", figure: p99(deaths), budget: 5.0, unit: "ms" },
        fifty,
    ]
}

fn p99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() * 99).div_ceil(100) - 1]
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
