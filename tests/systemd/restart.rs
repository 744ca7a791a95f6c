//! Restarts nobody notices: asked for, by an upgrade, and by the watchdog.

use std::net::SocketAddr;

use crate::everyday::SERVICE;
use crate::lab::{alone, memcached};
use crate::load::Load;
use crate::machine::{Machine, UNPACKED, soon};

#[test]
fn an_upgrade_and_the_way_back_lose_no_query_and_no_record() {
    let lab = alone();
    let host = lab.host(1);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.install_with_etcd();
    let cache = host.run(memcached().name("core-01").publish(11211));
    soon("the container is found", || machine.finds(SERVICE, &[host.at(11211)]));
    let kept = lab.etcd().watch(host.dir(), "/services/");
    let load = Load::start(SocketAddr::new(host.address().into(), 53), SERVICE);
    // Another build is another file; what is read of an ELF file does not reach to its end.
    for build in ["another", "and back"] {
        machine.shell(&format!("echo '{build}' >>{UNPACKED}/wharf"));
        let before = machine.property("MainPID");
        machine.install_with_etcd();
        assert_ne!(machine.property("MainPID"), before);
    }
    load.finish();
    kept.no_delete().unwrap();
    machine.active().unwrap();
    drop(cache);
}

#[test]
fn a_living_agent_is_left_alone_by_the_watchdog() {
    let lab = alone();
    let machine = Machine::boot(lab.host(1));
    machine.put("/etc/systemd/system/wharf.service.d/10-watchdog.conf", "[Service]\nWatchdogSec=4s\n");
    machine.install(&[]);
    let pid = machine.property("MainPID");
    let fed = || machine.property("WatchdogTimestampMonotonic").parse::<u64>().unwrap();
    let start = fed();
    // Three whole watchdog times by systemd's own count of beats.
    soon("it has been fed for three times its limit", || fed() >= start + 12_000_000);
    assert_eq!(machine.property("MainPID"), pid);
    assert_eq!(machine.property("NRestarts"), "0");
}
