//! Numbers of hosts against a real etcd: the command and the agent, a hundred hosts at once, a host that lost its
//! state, an etcd that is restored or emptied, a number that became another's.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::disallowed_methods)] // waiting for a process blocks, and nothing else runs here

#[path = "../etcd/mod.rs"]
mod etcd;
#[path = "../program/mod.rs"]
mod program;

mod agents;
mod commands;

use std::path::Path;
use std::process::{Command, Output};

use etcd::Cluster;
use program::wharf;

/// `wharf ordinal` of a host of this name, with its state in this directory.
fn ordinal(cluster: &Cluster, node: &str, state: &Path, flags: &[&str]) -> Command {
    let mut command = wharf();
    command.arg("ordinal").args(flags).args(["--node", node, "--etcd-endpoints", &cluster.endpoints().join(",")]);
    command.arg("--state-dir").arg(state);
    command
}

/// Its exit code and what it printed, without the line's end.
fn ended(output: &Output) -> (Option<i32>, String) {
    let (code, printed, complained) = program::told(output);
    if code != Some(0) {
        return (code, complained);
    }
    (code, printed.trim_end().to_owned())
}

/// What stands at the number's key.
fn stored(cluster: &Cluster, number: u32) -> serde_json::Value {
    let text = cluster.ctl(&["get", "--print-value-only", &format!("/wharf/services/ordinals/nucleus/{number}")]);
    serde_json::from_str(&text).unwrap_or_default()
}
