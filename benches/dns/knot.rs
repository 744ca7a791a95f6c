//! Knot DNS with the records as a static zone.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::process::{self, Child};

/// Starts it; the process and its port.
pub(crate) fn start(endpoints: &[(String, String, String)], _each: usize) -> (Child, u16) {
    let directory = tempfile::tempdir().unwrap();
    let port = process::free_port();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut zone =
        String::from("$ORIGIN services.internal.\n$TTL 5\n@ SOA ns host 1 3600 600 86400 5\n@ NS ns\nns A 127.0.0.1\n");
    for (number, (service, label, host)) in endpoints.iter().enumerate() {
        writeln!(zone, "{service} SRV 10 33 {} {label}.{service}", 20_000 + number % 10_000).unwrap();
        writeln!(zone, "{label}.{service} A {host}").unwrap();
    }
    std::fs::write(path("zone"), zone).unwrap();
    let config = format!(
        "server:\n  rundir: {dir}\n  listen: 127.0.0.1@{port}\n  udp-workers: 2\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: {dir}\nlog:\n  - target: stderr\n    any: error\n\
         zone:\n  - domain: services.internal\n    file: {zone}\n",
        dir = directory.path().display(),
        zone = path("zone"),
    );
    std::fs::write(path("knot.conf"), config).unwrap();
    let knot = Command::new("knotd")
        .args(["-c", &path("knot.conf")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("knotd is installed (Debian's knot)");
    let child = Child::of(knot, port, Some(directory));
    process::wait_until_answered(port, "s0.services.internal");
    (child, port)
}
