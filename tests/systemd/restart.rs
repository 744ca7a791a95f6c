//! Restarts nobody notices: asked for, by an upgrade, and by the watchdog.

use std::time::Duration;

use crate::lab::host::Host;
use crate::lab::process::Process;
use crate::lab::{alone, eventually, memcached, within};
use crate::machine::{Machine, WHARF};

const RATE: u32 = 200;
const SERVICE: &str = "memcached.services.internal";

/// 200 queries a second for the service, until `finish`.
struct Load {
    dnsperf: Process,
}

impl Load {
    fn start(host: &Host, seconds: u32) -> Self {
        let questions = host.dir().join("questions");
        std::fs::write(&questions, format!("{SERVICE} SRV\n")).unwrap();
        let (rate, seconds, questions) = (RATE.to_string(), seconds.to_string(), questions.display().to_string());
        let argv = ["dnsperf", "-s", WHARF, "-d", &questions, "-Q", &rate, "-l", &seconds, "-c", "4", "-t", "10"];
        Self { dnsperf: host.spawn("dnsperf", &argv, &[]) }
    }

    /// No query went without an answer, and every answer had the record.
    #[track_caller]
    fn finish(mut self, seconds: u32) {
        self.dnsperf.wait_for_end(Duration::from_secs(60));
        let said = self.dnsperf.log();
        let field = |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
        let sent: u32 = field("Queries sent:").and_then(|sent| sent.parse().ok()).expect(&said);
        assert!(sent >= RATE * (seconds - 2), "{said}");
        assert_eq!(field("Queries lost:"), Some("0 (0.00%)"), "{said}");
        assert_eq!(field("Response codes:"), Some(format!("NOERROR {sent} (100.00%)").as_str()), "{said}");
    }
}

#[test]
fn a_restart_under_load_loses_no_query_and_no_record() {
    let lab = alone();
    let host = lab.host(1);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.install_with_etcd();
    let cache = host.run(memcached().name("core-01").publish(11211));
    eventually("the container is found", || machine.finds(SERVICE, &[host.at(11211)]));
    let kept = lab.etcd().watch(host.dir(), "/services/");
    let before = machine.property("MainPID");
    let load = Load::start(host, 15);
    for _ in 0..3 {
        machine.run(&["systemctl", "restart", "wharf.service"]);
    }
    load.finish(15);
    assert_ne!(machine.property("MainPID"), before);
    kept.no_delete().unwrap();
    drop(cache);
}

#[test]
fn an_upgrade_and_the_way_back_lose_no_query_and_no_record() {
    let lab = alone();
    let host = lab.host(1);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.install_with_etcd();
    let cache = host.run(memcached().name("core-01").publish(11211));
    eventually("the container is found", || machine.finds(SERVICE, &[host.at(11211)]));
    let kept = lab.etcd().watch(host.dir(), "/services/");
    let load = Load::start(host, 25);
    // Another build is another file; what is read of an ELF file does not reach to its end.
    for build in ["another", "and back"] {
        machine.run(&["sh", "-c", &format!("echo '{build}' >>/root/wharf/wharf")]);
        machine.install_with_etcd();
    }
    load.finish(25);
    kept.no_delete().unwrap();
    machine.active().unwrap();
    drop(cache);
}

#[test]
fn a_frozen_agent_is_restarted_by_the_watchdog() {
    let lab = alone();
    let host = lab.host(1);
    let machine = Machine::boot(host);
    machine.put("/etc/systemd/system/wharf.service.d/10-watchdog.conf", "[Service]\nWatchdogSec=3s\n");
    machine.install(&[]);
    let frozen = machine.property("MainPID");
    machine.run(&["kill", "-STOP", &frozen]);
    within(Duration::from_secs(30), "another process answers", || {
        let now = machine.property("MainPID");
        if now == frozen || now == "0" {
            return Err(format!("main pid {now}"));
        }
        let answer = machine.dig(WHARF, &["services.internal", "SOA"]);
        if answer.status == "NOERROR" { Ok(()) } else { Err(answer.status) }
    });
    assert_eq!(machine.property("NRestarts"), "1");
    let journal = machine.journal();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
}

#[test]
fn a_living_agent_is_left_alone_by_the_watchdog() {
    let lab = alone();
    let machine = Machine::boot(lab.host(1));
    machine.put("/etc/systemd/system/wharf.service.d/10-watchdog.conf", "[Service]\nWatchdogSec=2s\n");
    machine.install(&[]);
    let pid = machine.property("MainPID");
    let fed = || machine.property("WatchdogTimestampMonotonic").parse::<u64>().unwrap();
    let start = fed();
    // Three whole watchdog times by systemd's own count of beats.
    within(Duration::from_secs(30), "it has been fed for three times its limit", || fed() >= start + 6_000_000);
    assert_eq!(machine.property("MainPID"), pid);
    assert_eq!(machine.property("NRestarts"), "0");
}
