//! What grows with the catalog and what does not: the cost of an answer, of a change, and memory, at 10, 1,000, 10,000
//! and 100,000 instances. Draws `docs/curves.svg`.
//!
//! `cargo bench --bench curves`, on a machine that has little else to do. Needs Debian's `dnsperf`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "../../tests/etcd/mod.rs"]
mod etcd;
#[path = "../kit/mod.rs"]
mod kit;
#[path = "../dns/load.rs"]
mod load;
mod plot;
#[path = "../dns/process.rs"]
mod process;
#[path = "../dns/records.rs"]
mod records;
#[path = "../dns/served.rs"]
mod served;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kit::{Table, percentile};
use plot::Curve;
use process::Child;

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
/// Endpoints of each service.
const EACH: usize = 3;
const ROUNDS: usize = 3;
const RUN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--serve") {
        return served::run(&args[at + 1..]);
    }
    let mut table = Table::new("curves");
    let [mut answers, mut changes, mut memory] = [
        Curve::new("CPU for an SRV answer (3 targets)", "µs"),
        Curve::new("a change, until it is answered", "µs"),
        Curve::new("memory, with the embedded store", "MB"),
    ];
    for size in SIZES {
        let child = Child::serve(&["embedded", &size.to_string()]);
        let services = (size / EACH).clamp(1, 1_000);
        let names: Vec<String> = (0..services).map(|number| format!("s{number}.services.internal SRV")).collect();
        let mut costs: Vec<f64> = (0..ROUNDS).map(|_| load::cpu_per_query(&child, child.port, &names, RUN)).collect();
        let mut waits: Vec<f64> = (0..20).map(|_| child.change().0).collect();
        answers.push(size, percentile(&mut costs, 50));
        changes.push(size, percentile(&mut waits, 50));
        memory.push(size, child.memory("VmRSS"));
    }
    for curve in [&answers, &changes, &memory] {
        for (size, figure) in &curve.points {
            table.note(curve.title, *figure, curve.unit, &format!("{size} instances"));
        }
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/curves.svg");
    std::fs::write(&docs, plot::drawn(&[answers, changes, memory])).unwrap();
    println!("drawn: {}", docs.display());
    table.finish()
}
