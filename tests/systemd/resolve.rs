//! The host recipe of `docs/install.md`: the host itself, a container on docker0 and one on a user network find
//! services through wharf, at every address of the host, by UDP and TCP.

use std::net::Ipv4Addr;

use crate::lab::host::Host;
use crate::lab::process::try_run;
use crate::lab::{alone, busybox, memcached};
use crate::machine::{Machine, WHARF, soon};
use crate::page::Page;

const SERVICE: &str = "memcached.services.internal";
const INSTANCE: &str = "core-01-memcached-11211.memcached.services.internal";

/// Asks from inside a container's network.
fn dig_in(host: &Host, container: &str, question: &[&str]) -> Result<String, String> {
    let pid = host.try_docker(&["inspect", "-f", "{{.State.Pid}}", container])?;
    let space = format!("--net=/proc/{}/ns/net", pid.trim());
    let argv: Vec<&str> =
        ["nsenter", &space, "dig", "+tries=1", "+time=2", "+short"].iter().chain(question).copied().collect();
    try_run(&argv)
}

fn is_told(host: &Host, container: &str, question: &[&str], expected: &str) {
    soon(&format!("{container} is told {expected} for {question:?}"), || {
        let said = dig_in(host, container, question)?;
        if said.contains(expected) { Ok(()) } else { Err(said) }
    });
}

#[test]
fn the_host_and_its_containers_find_services_at_every_address() {
    let lab = alone();
    let host = lab.host(1);
    let upstream = lab.host(2).wharf().embedded().dns(&["0.0.0.0:53"]).flag("--domain", "example.test").start();
    // The engine tells every container what the page says in its daemon.json.
    let engine = Engine::with(host, &Page::read().daemon);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.put("/etc/wharf.toml", &format!("node = \"core-01\"\nforward = [\"{}:53\"]\n", lab.host(2).address()));
    machine.install(&[]);
    let cache = host.run(memcached().name("memcached").publish(11211));
    soon("wharf knows it", || machine.finds(SERVICE, &[host.at(11211)]));

    // The host, by its own resolver: the names of services.internal and no others are asked of wharf.
    soon("the host resolves the instance", || {
        let found = machine.resolves(INSTANCE)?;
        if found == host.address().to_string() { Ok(()) } else { Err(found) }
    });
    let routed = machine.run(&["resolvectl", "status", "wharf0", "--no-pager"]);
    assert!(
        routed.contains("~services.internal") && routed.contains("-DefaultRoute") && routed.contains("DNSSEC=no"),
        "{routed}"
    );
    assert_eq!(machine.run(&["readlink", "-f", "/etc/resolv.conf"]).trim(), "/run/systemd/resolve/stub-resolv.conf");

    let docker0 = docker0(host);
    host.docker(&["network", "create", "users"]);
    let on_docker0 = host.run(busybox(&["sleep", "1000"]).name("on-docker0"));
    let on_users = host.run(busybox(&["sleep", "1000"]).name("on-users").option("--network").option("users"));
    let addresses = [WHARF.parse().unwrap(), host.address(), docker0];
    for container in ["on-docker0", "on-users"] {
        for address in addresses {
            for transport in ["+notcp", "+tcp"] {
                is_told(host, container, &[&format!("@{address}"), transport, SERVICE, "SRV"], "11211");
            }
        }
    }
    for transport in ["+notcp", "+tcp"] {
        is_told(host, "on-users", &["@127.0.0.11", transport, SERVICE, "SRV"], "11211");
        // A foreign name goes the same way, and wharf forwards it.
        is_told(host, "on-users", &["@127.0.0.11", transport, "example.test", "SOA"], "example.test");
        is_told(host, "on-docker0", &[&format!("@{WHARF}"), transport, "example.test", "SOA"], "example.test");
    }
    let file = host.docker(&["inspect", "-f", "{{.ResolvConfPath}}", "on-docker0"]);
    let resolv = std::fs::read_to_string(file.trim()).unwrap();
    assert!(resolv.contains(&format!("nameserver {WHARF}")), "{resolv}");
    drop((cache, on_docker0, on_users, machine, engine, upstream));
}

/// An engine with settings of its own; as it was before when dropped.
struct Engine<'lab>(&'lab Host);

impl<'lab> Engine<'lab> {
    fn with(host: &'lab Host, daemon: &str) -> Self {
        let engine = Self(host);
        engine.restart(daemon);
        engine
    }

    fn restart(&self, daemon: &str) {
        std::fs::write(self.0.dir().join("daemon.json"), daemon).unwrap();
        self.0.restart_engine();
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        self.restart("{}");
    }
}

/// The host's own address on its default bridge.
fn docker0(host: &Host) -> Ipv4Addr {
    let shown = host.exec(&["ip", "-4", "-o", "addr", "show", "dev", "docker0"]);
    let address = shown.split_whitespace().find_map(|word| word.split_once('/')).expect("docker0 has an address").0;
    address.parse().unwrap()
}
