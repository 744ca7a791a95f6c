//! A host that goes down takes its records along, before its services stop.

use crate::everyday::published;
use crate::lab::{alone, memcached};
use crate::machine::soon;

#[test]
fn without_logind_the_stop_itself_withdraws() {
    let lab = alone();
    let machine = published(&lab);
    machine.run(&["systemctl", "mask", "--now", "systemd-logind.service"]);
    machine.run(&["systemctl", "restart", "wharf.service"]);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    soon("it is published", || !lab.etcd().keys("/services/memcached/").is_empty());
    machine.shut_down();
    assert_eq!(lab.etcd().keys("/services/memcached/"), Vec::<String>::new());
    drop(cache);
}

#[test]
fn a_stop_that_is_no_shutdown_keeps_the_records() {
    let lab = alone();
    let machine = published(&lab);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    soon("it is published", || !lab.etcd().keys("/services/memcached/").is_empty());
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
    soon("it is published", || !lab.etcd().keys("/services/memcached/").is_empty());
    machine.shut_down();
    assert_eq!(lab.etcd().keys("/services/memcached/"), Vec::<String>::new());
    machine.start();
    soon("it is published again", || !lab.etcd().keys("/services/memcached/").is_empty());
    drop(cache);
}
