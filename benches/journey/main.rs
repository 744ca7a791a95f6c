//! The whole way, on the lab's three hosts with real engines and a real etcd: from a container's start to the answer by
//! DNS on its own host and on another, and from its death until it is no longer answered.
//!
//! `cargo bench --bench journey` as root, on a machine that has little else to do. Times are counted from the engine's
//! own event times; the answers are watched from inside each host, a question a millisecond.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod watcher;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kit::{Table, percentile};
use lab::host::Host;
use lab::process::Process;
use lab::{busybox, memcached, within};
use watcher::Change;

/// How long one step of a round may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--watch") {
        return watcher::run(&args[at + 1..]);
    }
    let mut table = Table::new("journey");
    let lab = lab::alone();
    let _agents = lab.wharves();
    let (one, two) = (lab.host(1), lab.host(2));
    let service = "journey.services.internal";
    let (same, other) = (Watched::dns(one, "same", service), Watched::dns(two, "other", service));
    let idle = busybox(&["sleep", "100000"]).name("journey").env("SERVICE_NAME", "journey").publish_as(18_080, 8_080);
    let spec = idle.option("--expose").option("8080");
    let trips = trips(one, &spec, &[&same, &other]);
    for (place, watched, start, death) in [("same host", &same, 20.0, 20.0), ("another host", &other, 50.0, 50.0)] {
        let (mut starts, mut deaths) = (trips.after(watched, "start", true), trips.after(watched, "die", false));
        let from = &format!("from the engine's own event, p99 of {}", rounds());
        table.row(&format!("container start → answer, {place}"), percentile(&mut starts, 99), start, "ms", from);
        table.note("median", percentile(&mut starts, 50), "ms", "");
        table.row(&format!("death → no longer answered, {place}"), percentile(&mut deaths, 99), death, "ms", from);
        table.note("median", percentile(&mut deaths, 50), "ms", "");
    }
    accepts(&mut table, one);
    table.finish()
}

/// A watcher inside a host, and what it has written.
struct Watched {
    process: Process,
}

impl Watched {
    fn dns(host: &Host, name: &str, service: &str) -> Self {
        Self::start(host, name, &["dns", &format!("{}:5300", host.address()), service])
    }

    fn start(host: &Host, name: &str, what: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap().display().to_string();
        let argv = [&[program.as_str(), "--watch"], what].concat();
        Self { process: host.spawn(&format!("watch-{name}"), &argv, &[]) }
    }

    fn changes(&self) -> Vec<Change> {
        watcher::read(&self.process.log())
    }

    /// Waits until what is watched is there, or is not.
    fn until(&self, there: bool) {
        within(PATIENCE, &format!("there: {there}"), || self.changes().last().is_some_and(|it| it.there == there));
    }
}

/// How often each container is started and killed; `WHARF_ROUNDS` says otherwise.
fn rounds() -> usize {
    std::env::var("WHARF_ROUNDS").ok().and_then(|value| value.parse().ok()).unwrap_or(100)
}

/// What the engine said of one container, in order.
struct Trips(Vec<(String, Duration)>);

impl Trips {
    /// How long after each such event of the engine the watcher saw it, in milliseconds.
    fn after(&self, watched: &Watched, event: &str, there: bool) -> Vec<f64> {
        let changes = watched.changes();
        let after = |place: usize| {
            let (name, told) = &self.0[place];
            // The end of a process may be seen before the engine tells it, but not before the start that it ends.
            let from = if there { told } else { &self.0[place.checked_sub(1)?].1 };
            let seen = changes.iter().find(|it| it.there == there && it.at >= *from)?;
            (name == event).then(|| kit::milliseconds(seen.at.saturating_sub(*told)))
        };
        (0..self.0.len()).filter_map(after).collect()
    }
}

/// Starts and kills one container again and again.
fn trips(host: &Host, spec: &lab::container::ContainerSpec, watched: &[&Watched]) -> Trips {
    let mut events = Vec::new();
    let mut since = SystemTime::now();
    let container = host.run(spec.clone());
    for round in 0..rounds() {
        if round > 0 {
            container.start();
        }
        watched.iter().for_each(|it| it.until(true));
        // From outside, so that no stop signal announces the death.
        let pid = host.docker(&["inspect", "-f", "{{.State.Pid}}", container.id()]).trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        watched.iter().for_each(|it| it.until(false));
        // The engine keeps its last 256 events only.
        if round % 20 == 19 || round + 1 == rounds() {
            let now = SystemTime::now();
            events.extend(told(host, container.id(), since, now));
            since = now;
        }
    }
    Trips(events)
}

/// The engine's starts and deaths of a container.
fn told(host: &Host, id: &str, since: SystemTime, until: SystemTime) -> Vec<(String, Duration)> {
    let at = |time: SystemTime| format!("{:.9}", time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64());
    let (since, until, id) = (at(since), at(until), format!("container={id}"));
    let filters = ["--filter", "event=start", "--filter", "event=die", "--filter", &id, "--format", "{{json .}}"];
    let text = host.docker(&[&["events", "--since", &since, "--until", &until], &filters[..]].concat());
    let read = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        (event["Action"].as_str().unwrap().to_owned(), Duration::from_nanos(event["timeNano"].as_u64().unwrap()))
    };
    text.lines().map(read).collect()
}

/// From the first connection that a memcached takes until it is answered.
fn accepts(table: &mut Table, host: &Host) {
    let answered = Watched::dns(host, "answered", "accepts.services.internal");
    let accepted = Watched::start(host, "accepted", &["memcached", &host.at(11_211)]);
    let spec = memcached().name("accepts").env("SERVICE_NAME", "accepts").publish(11_211);
    let trips = trips(host, &spec, &[&answered, &accepted]);
    let (accepted, answered) = (accepted.changes(), answered.changes());
    // The first of each life counts: on a busy machine a look may fail later, and then it seems to come once more.
    let first =
        |changes: &[Change], start: Duration| changes.iter().find(|it| it.there && it.at >= start).map(|it| it.at);
    let starts = trips.0.iter().filter(|(name, _)| name == "start");
    let after = |(_, start): &(String, Duration)| {
        let (taken, told) = (first(&accepted, *start)?, first(&answered, *start)?);
        Some(kit::milliseconds(told.saturating_sub(taken)))
    };
    let mut took: Vec<f64> = starts.filter_map(after).collect();
    let worst = format!("p99 of {}, same host", took.len());
    table.row("memcached accepts → answer", percentile(&mut took, 99), 100.0, "ms", &worst);
    table.note("median", percentile(&mut took, 50), "ms", "");
}
