//! What an answer costs, side by side with Knot DNS serving the same records as a static zone.
//!
//! The servers run as processes of their own; the operating system counts their CPU time. Runs are interleaved, so
//! that a slow moment of the machine hits every server alike. Needs Debian's `knot`, `dnsperf`, `etcd-server` and
//! `etcd-client`. Exits with 1 when a budget is missed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

#[path = "../../tests/etcd/mod.rs"]
mod etcd;
#[path = "../kit/mod.rs"]
mod kit;
mod knot;
mod load;
mod process;
mod records;
mod served;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use kit::Table;
use load::{cpu_per_query, latency};
use process::Child;

/// Services that are asked for.
const ASKED: usize = 1_000;
/// Endpoints of each.
const EACH: usize = 3;
/// Instances in the large catalog.
const LARGE: usize = 100_000;
/// Interleaved rounds.
const ROUNDS: usize = 5;
const RUN: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--serve") {
        return served::run(&args[at + 1..]);
    }
    let mut table = Table::new("dns");
    costs(&mut table);
    from_etcd(&mut table);
    table.finish()
}

/// CPU and latency of an answer.
fn costs(table: &mut Table) {
    let knot = knot::start(&records::services(ASKED, EACH), EACH);
    let small = Child::serve(&["embedded", &(ASKED * EACH).to_string()]);
    let large = Child::serve(&["embedded", &LARGE.to_string()]);
    let near = Child::serve(&["near", &(ASKED * EACH).to_string()]);
    let names: Vec<String> = (0..ASKED).map(|number| format!("s{number}.services.internal SRV")).collect();
    let servers = [(&knot.0, knot.1), (&small, small.port), (&large, large.port), (&near, near.port)];
    let mut cpu = vec![Vec::new(); servers.len()];
    let mut slow = vec![Vec::new(); servers.len()];
    for _ in 0..ROUNDS {
        for (place, (child, port)) in servers.iter().enumerate() {
            cpu[place].push(cpu_per_query(child, *port, &names, RUN));
        }
        for (place, (_, port)) in servers.iter().enumerate() {
            slow[place].push(latency(*port, &names, 500, Duration::from_secs(2)));
        }
    }
    // What is near costs what the rest does, within the spread of that.
    let spread = cpu[1].iter().copied().fold(0.0, f64::max);
    let cpu: Vec<f64> = cpu.into_iter().map(median).collect();
    let slow: Vec<f64> = slow.into_iter().map(median).collect();
    table.note("CPU per SRV query, Knot, 1,000 services × 3", cpu[0], "µs", "");
    table.row("CPU per SRV query, wharf, 1,000 services × 3", cpu[1], cpu[0], "µs", "");
    table.row("the same with 100,000 instances", cpu[2], 1.15 * cpu[1], "µs", "");
    table.row(
        "the same where what is near is preferred, of 1,000 × 3",
        cpu[3],
        spread,
        "µs",
        "the dearest round without",
    );
    table.note("p99 at 500 queries/s, Knot", slow[0], "µs", "");
    table.row("p99 at 500 queries/s, wharf", slow[1], 1.5 * slow[0], "µs", "");
    for (what, name) in [
        ("apex", "services.internal SRV"),
        ("wildcard", "*.services.internal SRV"),
        ("*.*", "*.*.services.internal SRV"),
    ] {
        let cost = cpu_per_query(&large, large.port, &[name.to_owned()], Duration::from_secs(2));
        table.row(&format!("CPU of the {what} at 100,000 instances"), cost, 1_000.0, "µs", "");
    }
    changes(table, &large);
    by_streams(table, &large);
}

/// Records that change in a large catalog: how long until each is answered, and how much of that was work. On a machine
/// that is busy with other things the rest is waiting for a turn.
fn changes(table: &mut Table, large: &Child) {
    let changes: Vec<(f64, f64)> = (0..21).map(|_| large.change()).collect();
    let (first, further) = (changes[0], &changes[1..]);
    let most = |of: fn(&(f64, f64)) -> f64| further.iter().map(of).fold(0.0, f64::max);
    let compared = |work: f64| format!("{work:.0} µs of CPU");
    let what = "the first changed record visible at 100,000 instances";
    table.row(what, first.0, 5_000.0, "µs", &compared(first.1));
    let median = median(further.iter().map(|(time, _)| *time).collect());
    table.row("one of 20 more, their median", median, 5_000.0, "µs", "");
    table.row("the slowest of them", most(|(time, _)| *time), 5_000.0, "µs", "");
    table.row("CPU of the one that took most of it", most(|(_, work)| *work), 5_000.0, "µs", "");
}

/// Large sets by TCP.
fn by_streams(table: &mut Table, large: &Child) {
    let (srv, a) = (33, 1);
    let ask = |name: &str, qtype| load::by_stream(large.port, name, qtype);
    let missing = |all: usize, answers: &[String]| all as f64 - answers.iter().collect::<BTreeSet<_>>().len() as f64;
    let hundreds = ask("hundreds.services.internal", srv);
    table.row("missing of 200 SRV by TCP", missing(200, &hundreds), 0.0, "", "");
    let thousands = ask("thousands.services.internal", a);
    table.row("missing of 2,000 A by TCP", missing(2_000, &thousands), 0.0, "", "");
    let (mut seen, mut asked, mut least) = (BTreeSet::new(), 0.0, f64::MAX);
    while seen.len() < 2_000 && asked < 50.0 {
        let answers = ask("thousands.services.internal", srv);
        least = least.min(answers.len() as f64);
        seen.extend(answers);
        asked += 1.0;
    }
    table.note("of 2,000 SRV in one message by TCP, at least", least, "", "");
    table.row("missing of 900 SRV in one message", (900.0 - least).max(0.0), 0.0, "", "");
    table.row("questions until all 2,000 were seen", asked, 20.0, "", "");
    for (what, name, qtype) in [
        ("2,000 A", "thousands.services.internal", a),
        ("2,000 SRV", "thousands.services.internal", srv),
        ("the apex's SRV", "services.internal", srv),
        ("the SRV of *.*", "*.*.services.internal", srv),
    ] {
        let (before, rounds) = (large.cpu(), 500_u32);
        (0..rounds).for_each(|_| drop(ask(name, qtype)));
        let cost = (large.cpu() - before).as_secs_f64() * 1e6 / f64::from(rounds);
        table.row(&format!("CPU of {what} by TCP, stream included"), cost, 1_000.0, "µs", "");
    }
}

/// Reading a large catalog from etcd, and reading it again.
fn from_etcd(table: &mut Table) {
    let mut cluster = etcd::Cluster::start(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = runtime.block_on(async { cluster.store(Duration::from_secs(30)) });
    let _sessions = runtime.block_on(records::load(&store, LARGE));
    let child = Child::serve(&["etcd", &cluster.endpoints()[0], &LARGE.to_string()]);
    table.row("100,000 full records read from etcd", child.ask("read").parse().unwrap(), 3_000.0, "ms", "");
    let settled = child.memory("VmRSS");
    table.row("memory with them", settled, 150.0, "MB", "");
    child.forget_peak();
    compact_behind(&mut cluster);
    child.ask("relist");
    table.row("memory at most while they are read again", child.memory("VmHWM"), 1.3 * settled, "MB", "");
    let reads = etcd_reads(&cluster);
    let names: Vec<String> = (0..ASKED).map(|number| format!("s{number}.services.internal SRV")).collect();
    load::questions(child.port, &names, 10_000);
    table.row("ranges and leases asked of etcd over 10,000 questions", etcd_reads(&cluster) - reads, 0.0, "", "");
}

/// Compacts away what the agent has not seen yet: it must read afresh.
fn compact_behind(cluster: &mut etcd::Cluster) {
    let client = cluster.members[0].client;
    cluster.members[0].kill();
    cluster.members[0].client = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    cluster.run(0);
    cluster.wait_healthy();
    for _ in 0..3 {
        cluster.ctl(&["put", "/services/again/relisted", r#"{"host":"10.9.9.9","port":1}"#]);
    }
    cluster.ctl(&["compact", &cluster.revision().to_string()]);
    cluster.members[0].kill();
    cluster.members[0].client = client;
    cluster.run(0);
    cluster.wait_healthy();
}

fn etcd_reads(cluster: &etcd::Cluster) -> f64 {
    let url = format!("{}/metrics", cluster.endpoints()[0]);
    let metrics = std::process::Command::new("curl").args(["-s", &url]).output().unwrap();
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    let counters =
        ["etcd_debugging_mvcc_range_total ", "etcd_mvcc_range_total ", "etcd_debugging_lease_granted_total "];
    let value = |line: &str| counters.iter().find_map(|name| line.strip_prefix(name)?.parse::<f64>().ok());
    metrics.lines().filter_map(value).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
