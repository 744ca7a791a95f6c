//! The records that every server serves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Endpoint `number` of the cluster: the service it belongs to, its label, its address.
pub(crate) fn services(count: usize, each: usize) -> Vec<(String, String, String)> {
    (0..count * each).map(|number| endpoint(number, each)).collect()
}

fn endpoint(number: usize, each: usize) -> (String, String, String) {
    let host = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 0xff, number & 0xff);
    (format!("s{}", number / each), format!("core-{number}"), host)
}

/// The key and value of one endpoint, with every field that an agent writes.
pub(crate) fn full(number: usize) -> (String, String) {
    let (service, label, host) = endpoint(number, 3);
    let node = number % 1_000;
    let value = format!(
        r#"{{"host":"{host}","port":{port},"id":"core-{node}:{service}-{number}:6379","service":"{service}","node":"core-{node}","owner":"{node:032x}","proto":"tcp","tags":["blue","zone-{zone}"],"attrs":{{"version":"7.2"}},"container":"{number:012x}","image":"registry.internal/team/{service}:7.2","since":"2026-11-21T11:42:33Z"}}"#,
        port = 20_000 + number % 10_000,
        zone = node % 4,
    );
    (format!("/services/{service}/{label}"), value)
}

/// Puts `count` full records, each node's on a lease of its own, by etcdctl's transactions.
pub(crate) fn load(cluster: &super::etcd::Cluster, count: usize) {
    let endpoint = &cluster.endpoints()[0];
    let leases: Vec<String> = (0..10).map(|_| granted(cluster)).collect();
    let numbers: Vec<usize> = (0..count).collect();
    let chunks: Vec<&[usize]> = numbers.chunks(100).collect();
    for wave in chunks.chunks(8) {
        let started: Vec<_> = wave.iter().map(|chunk| transaction(endpoint, chunk, &leases)).collect();
        for mut child in started {
            assert!(child.wait().unwrap().success(), "a transaction failed");
        }
    }
}

fn granted(cluster: &super::etcd::Cluster) -> String {
    let text = cluster.ctl(&["lease", "grant", "36000"]);
    text.split_whitespace().nth(1).unwrap().to_owned()
}

fn transaction(endpoint: &str, numbers: &[usize], leases: &[String]) -> std::process::Child {
    let mut text = String::from("\n");
    for number in numbers {
        let (key, value) = full(*number);
        let lease = &leases[number % leases.len()];
        writeln!(text, "put --lease={lease} {key} '{value}'").unwrap();
    }
    text.push_str("\n\n");
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint, "txn"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child
}
