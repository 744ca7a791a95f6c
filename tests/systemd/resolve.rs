//! The host recipe of `docs/install.md`: the host itself, a container on docker0 and one on a user network find services
//! through wharf, at every address of the host, by UDP and TCP.

use std::net::Ipv4Addr;

use crate::lab::host::Host;
use crate::lab::process::try_run;
use crate::lab::{alone, busybox, memcached};
use crate::machine::{Machine, WHARF, soon};

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

#[test]
fn the_host_and_its_containers_find_services_at_every_address() {
    let lab = alone();
    let host = lab.host(1);
    let upstream = lab.host(2).wharf().embedded().dns(&["0.0.0.0:53"]).flag("--domain", "example.test").start();
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
    let only_wharf = ["--dns", WHARF];
    let on_docker0 =
        host.run(busybox(&["sleep", "1000"]).name("on-docker0").option(only_wharf[0]).option(only_wharf[1]));
    let on_users = host.run(
        busybox(&["sleep", "1000"])
            .name("on-users")
            .option("--network")
            .option("users")
            .option(only_wharf[0])
            .option(only_wharf[1]),
    );
    let addresses = [WHARF.parse().unwrap(), host.address(), docker0];
    for container in ["on-docker0", "on-users"] {
        for address in addresses {
            for transport in ["+notcp", "+tcp"] {
                let server = format!("@{address}");
                let said = dig_in(host, container, &[&server, transport, SERVICE, "SRV"]);
                assert!(
                    said.as_ref().is_ok_and(|said| said.contains("11211")),
                    "{container} asks {address} {transport}: {said:?}"
                );
            }
        }
    }
    for transport in ["+notcp", "+tcp"] {
        let said = dig_in(host, "on-users", &["@127.0.0.11", transport, SERVICE, "SRV"]);
        assert!(said.as_ref().is_ok_and(|said| said.contains("11211")), "127.0.0.11 {transport}: {said:?}");
        // A foreign name goes the same way, and wharf forwards it.
        let said = dig_in(host, "on-users", &["@127.0.0.11", transport, "example.test", "SOA"]);
        assert!(
            said.as_ref().is_ok_and(|said| said.contains("example.test")),
            "foreign, 127.0.0.11 {transport}: {said:?}"
        );
        let said = dig_in(host, "on-docker0", &[&format!("@{WHARF}"), transport, "example.test", "SOA"]);
        assert!(
            said.as_ref().is_ok_and(|said| said.contains("example.test")),
            "foreign, {WHARF} {transport}: {said:?}"
        );
    }
    let file = host.docker(&["inspect", "-f", "{{.ResolvConfPath}}", "on-docker0"]);
    let resolv = std::fs::read_to_string(file.trim()).unwrap();
    assert!(resolv.contains(&format!("nameserver {WHARF}")), "{resolv}");
    drop((cache, on_docker0, on_users, upstream));
}

/// The host's own address on its default bridge.
fn docker0(host: &Host) -> Ipv4Addr {
    let shown = host.exec(&["ip", "-4", "-o", "addr", "show", "dev", "docker0"]);
    let address = shown.split_whitespace().find_map(|word| word.split_once('/')).expect("docker0 has an address").0;
    address.parse().unwrap()
}
