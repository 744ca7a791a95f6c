//! What `make test` wants of a whole machine. The rest of this folder is `make drill`'s.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::lab::{Alone, alone, memcached};
use crate::load::Load;
use crate::machine::{Machine, WHARF, soon};

pub const SERVICE: &str = "memcached.services.internal";
/// CAP_NET_BIND_SERVICE and nothing else.
const BIND_SERVICE_ONLY: &str = "0000000000000400";
/// Longer than systemd takes to begin with stopping units once it is let.
const DNS_TTL: Duration = Duration::from_secs(5);

#[test]
fn the_unit_is_ready_only_when_it_serves_and_serves_under_its_sandbox() {
    let lab = alone();
    let machine = Machine::boot(lab.host(1));
    machine.run(&["systemctl", "start", "docker.service"]);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    // Asked once, the moment that systemd takes it for ready.
    machine.put(
        "/etc/systemd/system/wharf.service.d/10-asks.conf",
        "[Service]\nExecStartPost=/bin/sh -c 'dig +tries=1 @127.0.0.1 services.internal SOA >/run/asked'\n",
    );
    machine.install(&[]);
    let asked = machine.shell("cat /run/asked");
    assert!(asked.contains("status: NOERROR"), "{asked}\n{}", machine.journal());
    soon("the container is found", || machine.finds(SERVICE, &[lab.host(1).at(11211)]));

    let pid = machine.property("MainPID");
    let status = machine.run(&["cat", &format!("/proc/{pid}/status")]);
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
    assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"));
    assert_eq!(field("Seccomp:").as_deref(), Some("2"));
    assert_eq!(field("CapBnd:").as_deref(), Some(BIND_SERVICE_ONLY));
    assert_eq!(field("CapEff:").as_deref(), Some(BIND_SERVICE_ONLY));
    let in_its_view = |script: &str| machine.try_run(&["nsenter", "-t", &pid, "-m", "sh", "-c", script]);
    assert!(in_its_view("touch /etc/spoiled").is_err(), "it may write to /etc");
    assert!(in_its_view("touch /opt/bin/wharf").is_err(), "it may write over itself");
    in_its_view("touch /var/lib/wharf/mine && rm /var/lib/wharf/mine").expect("its state directory is its own");
    drop(cache);
}

#[test]
fn an_agent_beside_a_users_engine_finds_its_containers_and_enters_no_home() {
    let lab = alone();
    let machine = Machine::boot(lab.host(1));
    // The engine's socket is the lab's own, which others need as it is: its group lets the user in.
    machine.shell("echo core:x:1000:$(stat -c %g /run/engine/docker.sock)::/home/core:/bin/sh >>/etc/passwd");
    // Where a login would put it, and as nobody else may enter it; the user's other services are not needed.
    machine.run(&["systemctl", "mask", "user@1000.service"]);
    machine.shell(
        "cd /run/user && mkdir -m 700 1000 && touch 1000/docker.sock && \
         mount --bind /run/engine/docker.sock 1000/docker.sock && chown core 1000",
    );
    machine.put("/etc/systemd/system/wharf.service.d/rootless.conf", include_str!("../../systemd/rootless.conf"));
    machine.put(
        "/etc/systemd/system/wharf.service.d/engine.conf",
        "[Service]\nEnvironment=WHARF_DOCKER=unix:///run/user/1000/docker.sock\n\
         ExecStartPost=/bin/sh -c 'cd /run/wharf && ls -A /root /home >seen; touch /run/user/1000/mine && ls / >>seen; true'\n",
    );
    machine.install(&[]);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    soon("the container is found", || machine.finds(SERVICE, &[lab.host(1).at(11211)]));

    let pid = machine.property("MainPID");
    let status = machine.run(&["cat", &format!("/proc/{pid}/status")]);
    assert!(status.contains("Uid:\t1000\t1000"), "{status}");
    let seen = machine.shell("cat /run/wharf/seen");
    assert_eq!(seen.replace(char::is_whitespace, ""), "/home:/root:", "it sees a home, or may write to /run/user");
    drop(cache);
}

#[test]
fn a_frozen_agent_is_restarted_by_the_watchdog() {
    let lab = alone();
    let machine = Machine::boot(lab.host(1));
    machine.install(&[]);
    let frozen = machine.property("MainPID");
    machine.run(&["kill", "-STOP", &frozen]);
    soon("another process answers", || {
        let now = machine.property("MainPID");
        if now == frozen || now == "0" {
            return Err(format!("main pid {now}"));
        }
        let answer = machine.dig(WHARF, &["services.internal", "SOA"]);
        if answer.status == "NOERROR" { Ok(()) } else { Err(answer.status) }
    });
    let journal = machine.journal();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
}

#[test]
fn a_restart_under_load_loses_no_query_and_no_record() {
    let lab = alone();
    let host = lab.host(1);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.install_with_etcd();
    let cache = host.run(memcached().name("core-01").publish(11211));
    soon("the container is found", || machine.finds(SERVICE, &[host.at(11211)]));
    let kept = lab.etcd().watch(host.dir(), "/services/");
    let load = Load::start(SocketAddr::new(host.address().into(), 53), SERVICE);
    for _ in 0..3 {
        load.goes_on();
        let before = machine.property("MainPID");
        machine.run(&["systemctl", "restart", "wharf.service"]);
        assert_ne!(machine.property("MainPID"), before);
    }
    load.goes_on();
    load.finish();
    kept.no_delete().unwrap();
    drop(cache);
}

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
    soon("the container is found though etcd is away", || machine.finds(SERVICE, &[host.at(11211)]));
    for host in lab.hosts() {
        host.etcd().thaw();
    }
    soon("etcd has the record", || !lab.etcd().keys("/services/memcached/").is_empty());
    assert_eq!(machine.property("MainPID"), pid, "it was restarted");
    drop(cache);
}

/// A service of the host as `docker/units` has them, ordered after wharf. When it is stopped it writes down what wharf
/// answers and has logged, and when that was.
const WITNESS: &str = "[Unit]\nAfter=wharf.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n\
    ExecStop=/bin/sh -c 'date +%%s.%%N >/var/witness; dig +tries=1 @127.0.0.1 memcached.services.internal SRV >>/var/witness; \
    journalctl --unit wharf.service --output short-unix >>/var/witness'\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn a_shutdown_withdraws_and_waits_one_dns_ttl_before_any_service_stops() {
    let lab = alone();
    let machine = published(&lab);
    machine.put("/etc/systemd/system/witness.service", WITNESS);
    machine.run(&["systemctl", "daemon-reload"]);
    machine.run(&["systemctl", "start", "witness.service"]);
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    soon("it is published", || !lab.etcd().keys("/services/memcached/").is_empty());
    soon("the shutdown would wait for wharf", || {
        let inhibitors = machine.run(&["systemd-inhibit", "--list", "--no-pager"]);
        if inhibitors.contains("wharf") && inhibitors.contains("delay") { Ok(()) } else { Err(inhibitors) }
    });

    machine.shut_down();
    assert_eq!(lab.etcd().keys("/services/memcached/"), Vec::<String>::new());
    let seen = machine.get("/var/witness");
    assert!(seen.contains("status: NXDOMAIN"), "{seen}");
    let second = |line: &str| line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    let stopped = second(&seen).expect(&seen);
    let begun = seen.lines().find(|line| line.contains("the host goes down, withdrawing")).and_then(second);
    assert!(stopped - begun.expect(&seen) >= DNS_TTL.as_secs_f64(), "{seen}");
    drop(cache);
}

/// A machine with wharf on etcd; longer leases than any of these tests lasts.
pub fn published(lab: &Alone) -> Machine<'_> {
    let machine = Machine::boot(lab.host(1));
    machine.run(&["systemctl", "start", "docker.service"]);
    let endpoints = lab.host(1).etcd_endpoints().join("\", \"");
    let settings = format!("node = \"h1\"\netcd-endpoints = [\"{endpoints}\"]\nlease-ttl = \"10m\"\n");
    machine.put("/etc/wharf.toml", &settings);
    machine.install(&[]);
    machine
}

#[test]
fn an_address_that_an_earlier_version_bound_stays_with_its_unit() {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("etc/systemd/system");
    let (earlier, private) = (units.join("wharf.socket.d/10-address.conf"), units.join("wharf-private.socket"));
    let told = |address: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/wharf-address");
        let said = Command::new(script).arg(address).env("WHARF_ROOT", root.path()).status().unwrap();
        assert!(said.success());
        (earlier.exists(), std::fs::read_to_string(&private).unwrap_or_default())
    };
    std::fs::create_dir_all(earlier.parent().unwrap()).unwrap();
    std::fs::write(&earlier, "[Socket]\nListenDatagram=10.0.0.5:53\nListenStream=10.0.0.5:53\n").unwrap();
    // Bound by two units, each would take queries from the other.
    assert_eq!(told("10.0.0.5"), (true, String::new()));
    let (kept, unit) = told("10.0.0.50");
    assert!(!kept && unit.contains("ListenDatagram=10.0.0.50:53"), "{unit}");
    assert_eq!(told("10.0.0.50"), (false, unit));
}
