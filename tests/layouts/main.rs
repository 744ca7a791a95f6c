//! Layouts of other programs in the store, against real ones: presence as older units wrote it, read and written; a
//! real Patroni with real PostgreSQL; and etcd found by DNS.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]
#![allow(clippy::disallowed_methods)] // waiting for a process blocks, and nothing else runs here

#[path = "../etcd/mod.rs"]
mod etcd;
#[path = "../program/mod.rs"]
mod program;

mod patroni;
mod presence;
mod srv;

use etcd::Cluster;
use program::{Agent, Options, told};

/// An agent of this name on the cluster, with these settings and flags besides.
fn agent(cluster: &Cluster, node: &str, settings: &str, flags: &[&str]) -> Agent {
    let mut all = vec!["--etcd-endpoints".to_owned(), cluster.endpoints().join(",")];
    all.extend(["--lease-ttl", "5s"].iter().chain(flags).map(|flag| (*flag).to_owned()));
    Agent::start_with(&Options { settings, flags: all, node: Some(node), ..Options::default() })
}

/// The places behind a name, sorted.
fn places(agent: &Agent, line: &str) -> Vec<String> {
    let printed = told(&agent.wharf(&format!("services {line} -o hostport"))).1;
    let mut places: Vec<String> = printed.lines().map(str::to_owned).collect();
    places.sort();
    places
}

/// What a name's SRV records say by the agent's DNS, as `port target`, sorted; empty when there are none.
fn srv(agent: &Agent, name: &str) -> Vec<String> {
    let at = agent.address("dns");
    let (host, port) = at.rsplit_once(':').unwrap();
    let output = std::process::Command::new("dig")
        .args([&format!("@{host}"), "-p", port, "+short", "+time=1", "+tries=1", name, "SRV"])
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut found: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields.len() == 4).then(|| format!("{} {}", fields[2], fields[3]))
        })
        .collect();
    found.sort();
    found
}
