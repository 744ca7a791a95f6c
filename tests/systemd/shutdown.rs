//! A host that goes down takes its records along, before its services stop.

use std::time::Duration;

use crate::lab::{Alone, alone, eventually, memcached, within};
use crate::machine::Machine;

/// A machine with wharf on etcd and one published service; longer leases than any of these tests lasts.
fn published(lab: &Alone) -> Machine<'_> {
    let machine = Machine::boot(lab.host(1));
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.put("/etc/wharf.toml", &settings(lab));
    machine.install(&[]);
    machine
}

fn settings(lab: &Alone) -> String {
    let endpoints = lab.host(1).etcd_endpoints().join("\", \"");
    format!("node = \"h1\"\netcd-endpoints = [\"{endpoints}\"]\nlease-ttl = \"10m\"\n")
}

#[test]
fn a_shutdown_waits_for_the_withdrawal_and_one_dns_ttl() {
    let lab = alone();
    let machine = published(&lab);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    eventually("it is published", || !lab.etcd().keys("/services/memcached/").is_empty());
    let inhibitors = machine.run(&["systemd-inhibit", "--list", "--no-pager"]);
    assert!(inhibitors.contains("wharf") && inhibitors.contains("delay"), "{inhibitors}");

    let _ = machine.try_run(&["systemctl", "poweroff"]);
    within(Duration::from_secs(5), "it is withdrawn", || lab.etcd().keys("/services/memcached/").is_empty());
    // The services of the host still run: nobody who was told of them a moment ago meets a closed port.
    machine.active().expect("wharf has not been stopped yet");
    machine.run(&["systemctl", "is-active", "docker.service"]);
    within(Duration::from_secs(60), "the machine goes down", || machine.is_down());
    drop(cache);
}

#[test]
fn without_logind_the_stop_itself_withdraws() {
    let lab = alone();
    let machine = published(&lab);
    machine.run(&["systemctl", "mask", "--now", "systemd-logind.service"]);
    machine.run(&["systemctl", "restart", "wharf.service"]);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    eventually("it is published", || !lab.etcd().keys("/services/memcached/").is_empty());
    machine.shut_down();
    assert_eq!(lab.etcd().keys("/services/memcached/"), Vec::<String>::new());
    drop(cache);
}

#[test]
fn a_stop_that_is_no_shutdown_keeps_the_records() {
    let lab = alone();
    let machine = published(&lab);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    eventually("it is published", || !lab.etcd().keys("/services/memcached/").is_empty());
    machine.run(&["systemctl", "stop", "wharf.service", "wharf.socket"]);
    assert!(!lab.etcd().keys("/services/memcached/").is_empty());
    drop(cache);
}

#[test]
fn a_host_that_comes_back_offers_again() {
    let lab = alone();
    let machine = published(&lab);
    machine.run(&["systemctl", "enable", "docker.service"]);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    eventually("it is published", || !lab.etcd().keys("/services/memcached/").is_empty());
    machine.shut_down();
    assert_eq!(lab.etcd().keys("/services/memcached/"), Vec::<String>::new());
    machine.start();
    eventually("it is published again", || !lab.etcd().keys("/services/memcached/").is_empty());
    drop(cache);
}
