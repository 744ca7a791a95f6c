//! Restarts nobody notices: asked for, by an upgrade, and by the watchdog.

use std::net::SocketAddr;
use std::path::Path;

use crate::everyday::SERVICE;
use crate::lab::{alone, memcached};
use crate::load::Load;
use crate::machine::{Machine, UNPACKED, soon};

/// A distribution as it lies unpacked on the machine.
struct Build {
    folder: String,
    /// What it calls itself: `0.1.0 (c59e65112f3a)`.
    version: String,
    /// Made from these sources, whose metrics and first line of log name their version.
    own: bool,
}

impl Build {
    fn unpacked(machine: &Machine<'_>, folder: &str, own: bool) -> Self {
        let said = machine.run(&[&format!("{folder}/wharf"), "--version"]);
        let version = said.trim().strip_prefix("wharf ").expect(&said).to_owned();
        Self { folder: folder.into(), version, own }
    }

    fn install(&self, machine: &Machine<'_>) {
        machine.install_with_etcd_from(&self.folder);
    }

    /// Its version is what the installed program, the cluster's table of nodes, the journal and the metrics name.
    #[track_caller]
    fn runs(&self, machine: &Machine<'_>) {
        let version = &self.version;
        assert_eq!(machine.run(&["/opt/bin/wharf", "--version"]).trim(), format!("wharf {version}"));
        // The node record is written at most once in 5 s.
        soon("the table of nodes names its version", || {
            let said = machine.try_run(&["/opt/bin/wharf", "nodes", "--output", "json"])?;
            let nodes: serde_json::Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
            if nodes["nodes"][0]["version"] == **version { Ok(()) } else { Err(said) }
        });
        if !self.own {
            return;
        }
        let of_its_process = format!("_PID={}", machine.property("MainPID"));
        soon("the journal names its version", || {
            let journal = machine.try_run(&["journalctl", "--no-pager", &of_its_process])?;
            let named = journal.contains(&format!("serving version=\"{version}\""));
            if named { Ok(()) } else { Err(journal) }
        });
        let metrics = machine.shell(METRICS);
        assert!(metrics.contains(&format!("wharf_build_info{{version=\"{version}\"}} 1")), "{metrics}");
    }
}

const METRICS: &str = r"exec 3<>/dev/tcp/127.0.0.1/5380
    printf 'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3; cat <&3";

/// The build to begin with and the one to upgrade to: an older one, with its own units, where `WHARF_OLDER` names its
/// program (`tests/setup/older.sh` makes one), else this one twice.
fn two_builds(machine: &Machine<'_>) -> [Build; 2] {
    let other = "/root/other";
    let Some(program) = std::env::var_os("WHARF_OLDER").filter(|program| !program.is_empty()) else {
        // Another build is another file; what is read of an ELF file does not reach to its end.
        machine.shell(&format!("cp -r {UNPACKED} {other} && echo another >>{other}/wharf"));
        return [UNPACKED, other].map(|folder| Build::unpacked(machine, folder, true));
    };
    machine.unpack_around(Path::new(&program), other);
    let builds = [Build::unpacked(machine, other, false), Build::unpacked(machine, UNPACKED, true)];
    assert_ne!(builds[0].version, builds[1].version, "WHARF_OLDER is no other build");
    builds
}

#[test]
fn an_upgrade_and_the_way_back_lose_no_query_and_no_record() {
    let lab = alone();
    let host = lab.host(1);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    let [first, second] = two_builds(&machine);
    first.install(&machine);
    let cache = host.run(memcached().name("core-01").publish(11211));
    soon("the container is found", || machine.finds(SERVICE, &[host.at(11211)]));
    first.runs(&machine);
    let kept = lab.etcd().watch(host.dir(), "/services/");
    let load = Load::start(SocketAddr::new(host.address().into(), 53), SERVICE);
    for build in [&second, &first] {
        load.goes_on();
        let before = machine.property("MainPID");
        build.install(&machine);
        assert_ne!(machine.property("MainPID"), before);
        build.runs(&machine);
    }
    load.goes_on();
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
