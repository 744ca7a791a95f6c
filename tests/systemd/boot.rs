//! The boot: wharf comes up without Docker and etcd, and holds up nobody who is ordered after it.

use std::time::Duration;

use crate::lab::{alone, eventually, memcached, within};
use crate::machine::{Machine, WHARF};

#[test]
fn boots_before_docker_and_etcd_and_heals_without_a_restart() {
    let lab = alone();
    let host = lab.host(1);
    let machine = Machine::boot(host);
    machine.install_with_etcd();
    let cache = host.run(memcached().name("core-01").publish(11211));
    for host in lab.hosts() {
        host.etcd().hang();
    }
    machine.put(
        "/etc/systemd/system/after-wharf.service",
        "[Unit]\nWants=wharf.service\nAfter=wharf.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n\
         [Install]\nWantedBy=multi-user.target\n",
    );
    machine.run(&["systemctl", "enable", "after-wharf.service"]);
    machine.shut_down();

    machine.start(); // multi-user.target is reached, or this fails
    machine.active().unwrap();
    machine.run(&["systemctl", "is-active", "after-wharf.service"]);
    assert!(machine.try_run(&["systemctl", "is-active", "docker.service"]).is_err(), "Docker is not to be up yet");
    let pid = machine.property("MainPID");
    assert_eq!(machine.dig(WHARF, &["services.internal", "SOA"]).status, "NOERROR", "{}", machine.journal());

    machine.run(&["systemctl", "start", "docker.service"]);
    eventually("the container is found though etcd is away", || {
        machine.finds("memcached.services.internal", &[host.at(11211)])
    });
    for host in lab.hosts() {
        host.etcd().thaw();
    }
    within(Duration::from_secs(30), "etcd has the record", || !lab.etcd().keys("/services/memcached/").is_empty());
    assert_eq!(machine.property("MainPID"), pid, "it was restarted");
    drop(cache);
}
