//! What HTTP costs with 100,000 endpoints: a listing, followers that do not read, a change on its way to one that does;
//! once as 33,334 services of three endpoints, once as one service of 100,000.
//!
//! The server is a process of its own, with the finding side of an agent over a catalog that the bench writes; the
//! operating system tells its memory. `cargo bench --bench http`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../../tests/etcd/mod.rs"]
mod etcd;
#[path = "../kit/mod.rs"]
mod kit;
#[allow(dead_code)]
#[path = "../dns/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../dns/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../dns/records.rs"]
mod records;
#[path = "../../tests/side/mod.rs"]
mod side;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use kit::{Table, milliseconds, percentile};
use process::Child;
use side::Side;

const ENDPOINTS: usize = 100_000;
/// As many as may follow at a time.
const IDLE: usize = 64;
const CHANGES: usize = 11;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--serve") {
        serve(&args[at + 1]);
        return ExitCode::SUCCESS;
    }
    let mut table = Table::new("http");
    for kind in ["many", "huge"] {
        let server = Child::serve(&[kind]);
        let of = if kind == "many" { "33,334 services of three" } else { "one service of 100,000" };
        table.note("memory at rest", server.memory("VmRSS"), "MB", of);
        listing(&mut table, &server, of);
        command(&mut table, &server, of);
        idle_followers(&mut table, &server, of);
        change(&mut table, &server, "endpoints", of);
        change(&mut table, &server, "services", of);
    }
    table.finish()
}

/// The key and value of one endpoint of either kind of catalog.
fn record(kind: &str, number: usize) -> (String, String) {
    let (key, value) = records::full(number);
    if kind == "huge" { (format!("/services/huge/core-{number}"), value) } else { (key, value) }
}

/// Serves, and changes one endpoint at each line that it reads.
fn serve(kind: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut side = runtime.block_on(async {
        let mut side = Side::start().await;
        for number in 0..ENDPOINTS {
            let (key, value) = record(kind, number);
            side.catalog.put(&key, value.as_bytes(), 1, i64::try_from(number).unwrap() + 1).unwrap();
        }
        side.catalog.set_revision(i64::try_from(ENDPOINTS).unwrap());
        side.show();
        side
    });
    println!("{}", side.address.port());
    for (number, _) in std::io::stdin().lines().map_while(Result::ok).enumerate() {
        let (key, value) = record(kind, number * 1_000);
        side.put(&key, &value.replace("blue", "green"));
        println!("changed");
    }
}

/// A stream with the answer to a request under way.
fn asked(server: &Child, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // HTTP/1.0, so that the body comes without chunk sizes between.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).unwrap();
    stream
}

/// What `work` takes, and how much memory the server's peak grows by.
fn measured<T>(server: &Child, work: impl FnOnce() -> T) -> (T, Duration, f64) {
    server.forget_peak();
    let (before, begun) = (server.memory("VmRSS"), Instant::now());
    let done = work();
    (done, begun.elapsed(), server.memory("VmHWM") - before)
}

fn listing(table: &mut Table, server: &Child, of: &str) {
    let whole = || {
        let mut bytes = Vec::new();
        asked(server, "/v1/services").read_to_end(&mut bytes).unwrap();
        bytes.len()
    };
    whole();
    let (bytes, took, grown) = measured(server, whole);
    let what = format!("GET /v1/services, {:.1} MB", megabytes(bytes));
    table.note(&what, milliseconds(took), "ms", of);
    table.note("memory grown by it", grown, "MB", of);
}

fn command(table: &mut Table, server: &Child, of: &str) {
    let begun = Instant::now();
    let shown = Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(["services", "--http", &format!("127.0.0.1:{}", server.port)])
        .output()
        .unwrap();
    let lines = shown.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, ENDPOINTS + 1, "{}", String::from_utf8_lossy(&shown.stderr));
    table.note("wharf services, a line for each", milliseconds(begun.elapsed()), "ms", of);
}

/// Followers that ask and then read nothing, while endpoints change.
fn idle_followers(table: &mut Table, server: &Child, of: &str) {
    let (followers, _, grown) = measured(server, || {
        let followers: Vec<TcpStream> = (0..IDLE).map(|_| asked(server, "/v1/watch")).collect();
        for _ in 0..CHANGES {
            server.ask("change");
            std::thread::sleep(Duration::from_millis(500));
        }
        followers
    });
    let what = format!("memory grown by {} followers that do not read, {CHANGES} changes", followers.len());
    table.note(&what, grown, "MB", of);
}

/// From a change to the end of its event at a follower, and the event's size; the hub compares at most a twentieth of
/// the time, so changes that follow one another closely wait.
fn change(table: &mut Table, server: &Child, by: &str, of: &str) {
    let mut events = BufReader::new(asked(server, &format!("/v1/watch?changes={by}")));
    event(&mut events, "snapshot");
    let mut took = Vec::new();
    let mut size = 0;
    for _ in 0..CHANGES {
        std::thread::sleep(Duration::from_secs(2));
        let begun = Instant::now();
        server.ask("change");
        size = event(&mut events, "change");
        took.push(milliseconds(begun.elapsed()));
    }
    let what = format!("a change to a follower of {by}, {size} bytes");
    table.note(&what, percentile(&mut took, 50), "ms", of);
    table.note("the longest of them", percentile(&mut took, 100), "ms", of);
}

/// Reads up to the end of the next event of this kind; the length of its data.
fn event(events: &mut impl BufRead, kind: &str) -> usize {
    let mut line = Vec::new();
    let mut wanted = false;
    loop {
        line.clear();
        assert!(events.read_until(b'\n', &mut line).unwrap() > 0, "the stream has ended");
        if line.starts_with(b"event: ") {
            wanted = line.ends_with(format!("{kind}\n").as_bytes());
        } else if wanted && line.starts_with(b"data: ") {
            return line.len();
        }
    }
}

fn megabytes(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes / 1_000).unwrap()) / 1_000.0
}
