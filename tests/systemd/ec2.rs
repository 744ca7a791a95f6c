//! The cluster of `systemd/examples/ec2` from the template's own user data: machines that boot from it as instances do, an
//! etcd over TLS from the keys of `make-ca.sh`, and what becomes of it when hosts are replaced, scaled in or lost.
//!
//! AWS is stood in for by [`Cloud`]; a member's volume is a loop device under the name that Nitro gives it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cloud::{Cloud, Instance};
use crate::cloudformation::Stack;
use crate::connects::Client;
use crate::everyday::SERVICE;
use crate::ignition::{Ignition, Source};
use crate::lab::host::Host;
use crate::lab::process::{run, try_run};
use crate::lab::{Alone, alone, memcached, within};
use crate::machine::{Machine, script, soon};
use crate::provision::bring_memcached;

const EC2: &str = "systemd/examples/ec2";
const SOURCES: [&str; 2] = ["https://files.example.net/wharf.tar.gz", "https://files.example.net/etcd.tar.gz"];
/// Every unit that comes with the cluster is one to systemd, a template under a number.
const VERIFY: &str = "mkdir /run/verify && cd /opt/wharf/systemd/examples/ec2 && \
    for unit in host/*.service services/*/*/*.service; do \
      name=${unit##*/}; name=${name/@./@1.}; cp \"$unit\" \"/run/verify/$name\"; \
      said=$(systemd-analyze verify --man=no \"/run/verify/$name\" 2>&1) && [ -z \"$said\" ] || { echo \"$unit: $said\" >&2; exit 1; }; \
    done";
/// The lease of an agent that says nothing else, and what the contract adds.
const GONE: Duration = Duration::from_secs(32);

/// A stack whose hosts are the lab's.
struct Cell<'lab> {
    lab: &'lab Alone,
    stack: Arc<Stack>,
    cloud: Cloud,
    dir: PathBuf,
    volumes: Mutex<BTreeMap<usize, String>>,
}

impl<'lab> Cell<'lab> {
    fn new(lab: &'lab Alone) -> Self {
        // The members of the stack take the ports of the lab's own.
        for host in lab.hosts() {
            host.etcd().kill();
        }
        let dir = lab.ground().dir().join("cell");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let addresses = [1, 2, 3].map(|n| lab.host(n).address().to_string());
        let keys = dir.join("ca").display().to_string();
        let [one, two, three] = addresses.each_ref();
        script(&format!("{EC2}/make-ca.sh"), &[&keys, one, two, three]);
        let hashes = packed(&dir).map(|file| hash(&file));
        let stack = Arc::new(Stack::new(&[
            ("AllowSSHFrom", "203.0.113.7/32"),
            ("KeyName", "mine"),
            ("ImageId", "ami-0123456789abcdef0"),
            ("WharfSource", SOURCES[0]),
            ("WharfHash", &hashes[0]),
            ("EtcdSource", SOURCES[1]),
            ("EtcdHash", &hashes[1]),
            ("Main1Address", one),
            ("Main2Address", two),
            ("Main3Address", three),
        ]));
        let named = [("ca.crt", "ca.crt"), ("agent.crt", "agent.crt"), ("agent.key", "agent.key")];
        let of_mains = [("main/member.crt", "member.crt"), ("main/member.key", "member.key")];
        let read = |(name, file): &(&str, &str)| {
            (format!("/cellar/{name}"), fs::read_to_string(dir.join("ca").join(file)).unwrap().trim_end().to_owned())
        };
        let cloud = Cloud::start(lab, stack.clone(), named.iter().chain(&of_mains).map(read).collect());
        Self { lab, stack, cloud, dir, volumes: Mutex::default() }
    }

    /// The device of a main's volume, made at first.
    fn volume(&self, n: usize) -> String {
        let mut volumes = self.volumes.lock().unwrap();
        let made = || {
            let file = self.dir.join(format!("volume-{n}")).display().to_string();
            run(&["truncate", "-s", "200M", &file]);
            run(&["losetup", "--find", "--show", &file]).trim().to_owned()
        };
        volumes.entry(n).or_insert_with(made).clone()
    }

    /// A new and empty one takes its place.
    fn lose_volume(&self, n: usize) {
        if let Some(device) = self.volumes.lock().unwrap().remove(&n) {
            run(&["losetup", "-d", &device]);
            fs::remove_file(self.dir.join(format!("volume-{n}"))).unwrap();
        }
    }

    /// An instance of a main, laid out as Ignition does, not booted yet.
    fn main(&self, n: usize, id: &str) -> Machine<'lab> {
        let host = self.lab.host(n);
        let zone = ["eu-west-1a", "eu-west-1b", "eu-west-1c"][n - 1];
        let volume = Stack::id(&format!("Main{n}Volume")).replace('-', "");
        let device = format!("{}:/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume}", self.volume(n));
        self.instance(host, Instance { id: id.into(), role: "main", zone, ending: false }, &["--device", &device])
    }

    fn worker<'h>(&self, host: &'h Host, id: &str) -> Machine<'h> {
        self.instance(host, Instance { id: id.into(), role: "worker", zone: "eu-west-1a", ending: false }, &[])
    }

    fn instance<'h>(&self, host: &'h Host, instance: Instance, options: &[&str]) -> Machine<'h> {
        bring_memcached(host);
        let template = match instance.role {
            "main" => format!("Main{}Template", host.name().trim_start_matches('h')),
            _ => "WorkerTemplate".into(),
        };
        let machine = Machine::create_with(host, options);
        self.ignite(&machine, &Ignition::read(&self.stack.user_data(&template)));
        self.cloud.launch(host, instance);
        machine
    }

    /// What Ignition does before the first boot, and what this machine has in place of AWS.
    fn ignite(&self, machine: &Machine<'_>, told: &Ignition) {
        for file in &told.storage.files {
            let bytes = match file.source() {
                Source::Written(bytes) => bytes,
                Source::Fetched { url, hash: wanted } => {
                    let file = self.dir.join(Path::new(url).file_name().unwrap());
                    assert_eq!(hash(&file), wanted, "{url}");
                    fs::read(file).unwrap()
                }
            };
            machine.put_as(&file.path, &bytes, file.mode);
        }
        let mut preset = String::new();
        for unit in &told.systemd.units {
            if unit.mask {
                machine.link(&format!("/etc/systemd/system/{}", unit.name), "/dev/null");
            }
            if unit.enabled == Some(true) {
                preset += &format!("enable {}\n", unit.name);
            }
        }
        machine.put("/etc/systemd/system-preset/20-ignition.preset", &preset);
        // The first boot enables what the presets say, and would ask for a keyboard, too.
        machine.put("/etc/machine-id", "uninitialized\n");
        machine.link("/etc/systemd/system/systemd-firstboot.service", "/dev/null");
        // In a container networkd may not set an interface up, so it never tells that the network, up already, is.
        machine.link("/etc/systemd/system/systemd-networkd-wait-online.service", "/dev/null");
        for unit in ["wharf-ec2-boot", "wharf-ec2"] {
            machine.put(
                &format!("/etc/systemd/system/{unit}.service.d/stand-in.conf"),
                "[Service]\nEnvironment=AWS_ENDPOINT_URL=http://169.254.169.254\n",
            );
        }
    }

    /// etcd, asked as an administrator does with the authority's keys.
    fn etcd(&self, endpoints: &[usize], arguments: &[&str]) -> Result<String, String> {
        let urls: Vec<String> = endpoints.iter().map(|n| format!("https://{}", self.lab.host(*n).at(2379))).collect();
        let keys = ["cacert=ca/ca.crt", "cert=ca/member.crt", "key=ca/member.key"].map(|flag| {
            let (name, file) = flag.split_once('=').unwrap();
            format!("--{name}={}", self.dir.join(file).display())
        });
        let urls = format!("--endpoints={}", urls.join(","));
        let mut argv = vec!["env", "ETCDCTL_API=3", "etcdctl", &urls, "--command-timeout=5s"];
        argv.extend(keys.iter().map(String::as_str));
        argv.extend(arguments);
        try_run(&argv)
    }

    /// The members' ids by name.
    fn members(&self) -> Result<BTreeMap<String, String>, String> {
        let listed = self.etcd(&[1, 2, 3], &["member", "list"])?;
        let words = listed.lines().map(|line| line.split(", ").map(str::to_owned).collect::<Vec<_>>());
        Ok(words.map(|words| (words[2].clone(), words[0].clone())).collect())
    }

    /// Every member serves, with the others.
    fn etcd_is_whole(&self, mains: [&Machine<'_>; 3]) {
        soon("every member of etcd is healthy", || {
            self.etcd(&[1, 2, 3], &["endpoint", "health"]).map_err(|seen| seen + &mains.map(told).join("\n"))
        });
    }

    /// Asked on every one of these, wharf answers with just these hosts.
    fn found_on(&self, machines: &[&Machine<'_>], port: u16, hosts: &[&Host]) {
        let targets: Vec<String> = hosts.iter().map(|host| host.at(port)).collect();
        for machine in machines {
            let address = machine.host().address().to_string();
            soon(&format!("{address} answers"), || {
                machine.finds_at(&address, SERVICE, &targets).map_err(|seen| format!("{seen}\n{}", told(machine)))
            });
        }
    }

    /// The three mains, booted side by side.
    fn mains(&self) -> [Machine<'lab>; 3] {
        let machines = [1, 2, 3].map(|n| self.main(n, &format!("i-0{n}")));
        boot(&machines.each_ref());
        self.etcd_is_whole(machines.each_ref());
        machines
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        for device in self.volumes.lock().unwrap().values() {
            let _ = try_run(&["losetup", "-d", device]);
        }
        for host in self.lab.hosts() {
            let _ = host.try_exec(&["iptables", "-t", "nat", "-F", "OUTPUT"]);
        }
    }
}

/// Boots machines at the same time.
fn boot(machines: &[&Machine<'_>]) {
    std::thread::scope(|scope| {
        for machine in machines {
            scope.spawn(|| machine.start());
        }
    });
}

/// What a machine's own units have said.
fn told(machine: &Machine<'_>) -> String {
    let journal = ["journalctl", "--no-pager", "--lines", "60", "--unit", "wharf-ec2*", "--unit", "etcd*"];
    format!("{}\n{}", machine.try_run(&journal).unwrap_or_else(|error| error), machine.journal())
}

/// The two tarballs that the parameters name.
fn packed(dir: &Path) -> [PathBuf; 2] {
    let staged = dir.join("wharf-0.0.0-x86_64-linux");
    script("docker/stage.sh", &[env!("CARGO_BIN_EXE_wharf"), &staged.display().to_string()]);
    let etcd = dir.join("etcd-v0.0.0-linux-amd64");
    fs::create_dir_all(&etcd).unwrap();
    for program in ["etcd", "etcdctl"] {
        let found = run(&["sh", "-c", &format!("command -v {program}")]);
        fs::copy(found.trim(), etcd.join(program)).unwrap();
    }
    [(staged, "wharf"), (etcd, "etcd")].map(|(folder, name)| {
        let file = dir.join(format!("{name}.tar.gz"));
        let base = folder.file_name().unwrap().to_str().unwrap();
        run(&[
            "tar",
            "--use-compress-program=gzip -1",
            "-C",
            &dir.display().to_string(),
            "-cf",
            file.to_str().unwrap(),
            base,
        ]);
        file
    })
}

/// As Ignition has it.
fn hash(file: &Path) -> String {
    let said = run(&["sha512sum", &file.display().to_string()]);
    format!("sha512-{}", said.split_whitespace().next().unwrap())
}

#[test]
fn three_mains_form_a_cluster_and_answer_for_each_other() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let mains = cell.mains();
    let mains = mains.each_ref();
    assert_eq!(cell.members().unwrap().into_keys().collect::<Vec<_>>(), ["main-1", "main-2", "main-3"]);
    // The service that the stack's parameter names runs on every host, and each answers for all.
    let hosts: Vec<&Host> = lab.hosts().iter().collect();
    cell.found_on(&mains, 11211, &hosts);
    // Started on one by hand, it is answered on all.
    let other = lab.host(1).run(memcached().name("by-hand").publish_as(11311, 11211));
    for machine in mains {
        let mut targets: Vec<String> = hosts.iter().map(|host| host.at(11211)).collect();
        targets.push(lab.host(1).at(11311));
        let address = machine.host().address().to_string();
        soon("it is answered", || machine.finds_at(&address, SERVICE, &targets));
    }
    drop(other);
    // Nobody without a certificate of the authority is let in.
    let plain = format!("--endpoints=https://{}", lab.host(1).at(2379));
    let ca = format!("--cacert={}", cell.dir.join("ca/ca.crt").display());
    assert!(try_run(&["env", "ETCDCTL_API=3", "etcdctl", &plain, &ca, "--command-timeout=5s", "get", "x"]).is_err());
    let nodes = mains[0].shell("/opt/bin/wharf nodes");
    for (n, zone) in [(1, "eu-west-1/eu-west-1a"), (2, "eu-west-1/eu-west-1b"), (3, "eu-west-1/eu-west-1c")] {
        let row = nodes.lines().find(|line| line.starts_with(&format!("main-{n} ")));
        assert!(row.is_some_and(|row| row.contains(zone)), "{nodes}");
    }
    soon("every host has said that it serves", || {
        let mut signalled = cell.cloud.done().signalled.clone();
        signalled.sort();
        if signalled == ["i-01", "i-02", "i-03"] { Ok(()) } else { Err(format!("{signalled:?}\n{}", told(mains[0]))) }
    });
    mains[0].shell(VERIFY);
    let refused = cell.cloud.done().refused.clone();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn mains_that_were_all_off_are_the_cluster_that_they_were() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let mains = cell.mains();
    let mains = mains.each_ref();
    let before = cell.members().unwrap();
    cell.etcd(&[1], &["put", "kept", "as it was"]).unwrap();
    std::thread::scope(|scope| {
        for machine in mains {
            scope.spawn(|| machine.shut_down());
        }
    });
    assert!(cell.members().is_err());
    for machine in mains {
        machine.has_its_interface();
    }
    boot(&mains);
    cell.etcd_is_whole(mains);
    assert_eq!(cell.members().unwrap(), before);
    assert_eq!(cell.etcd(&[3], &["get", "kept", "--print-value-only"]).unwrap().trim(), "as it was");
    cell.found_on(&mains, 11211, &lab.hosts().iter().collect::<Vec<_>>());
    add_a_service(&cell, mains[0]);
}

/// As the page has it for those who do not want to replace hosts.
fn add_a_service(cell: &Cell<'_>, machine: &Machine<'_>) {
    let host = machine.host();
    let unit = "[Unit]\nAfter=docker.service\n[Service]\nEnvironmentFile=/etc/second.env\n\
        ExecStart=/usr/bin/docker run --rm --name second -p 11411:11211 -e SERVICE_NAME=${NAME} memcached:1.6\n\
        [Install]\nWantedBy=multi-user.target\n";
    machine.put("/opt/services/second/main/second.service", unit);
    machine.put("/opt/services/second/main/secrets", "# as the page has it\nsecond.env /etc/second.env\n");
    let table = format!("[[service]]\nname = \"etcd\"\nport = 2379\nid = \"etcd-{}\"\ncheck = \"tcp\"\n", host.name());
    machine.put("/opt/services/second/all/wharf.toml", &table);
    cell.cloud.done().parameters.insert("/cellar/services/second.env".into(), "NAME=second".into());
    machine.shell(
        "sed -i 's/^SERVICES=.*/SERVICES=memcached,second/' /etc/wharf-ec2.env && systemctl restart wharf-ec2-boot",
    );
    let address = host.address().to_string();
    for (name, port) in [("second", 11411), ("etcd", 2379)] {
        let name = format!("{name}.services.internal");
        soon(&name, || machine.finds_at(&address, &name, &[host.at(port)]).map_err(|seen| seen + &told(machine)));
    }
    assert_eq!(machine.shell("stat -c %a /etc/second.env").trim(), "600");
}

#[test]
fn a_main_that_is_replaced_is_the_same_member_and_one_without_its_data_is_another() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let [one, two, three] = cell.mains();
    let before = cell.members().unwrap();
    cell.etcd(&[1], &["put", "kept", "as it was"]).unwrap();

    drop(two);
    let new = cell.main(2, "i-02b");
    boot(&[&new]);
    cell.etcd_is_whole([&one, &new, &three]);
    assert_eq!(cell.members().unwrap(), before);
    let read = cell.etcd(&[2], &["get", "kept", "--consistency=s", "--print-value-only"]).unwrap();
    assert_eq!(read.trim(), "as it was");
    let hosts: Vec<&Host> = lab.hosts().iter().collect();
    cell.found_on(&[&one, &new, &three], 11211, &hosts);

    drop(three);
    cell.lose_volume(3);
    let empty = cell.main(3, "i-03b");
    boot(&[&empty]);
    cell.etcd_is_whole([&one, &new, &empty]);
    let after = cell.members().unwrap();
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!((&after["main-1"], &after["main-2"]), (&before["main-1"], &before["main-2"]));
    assert_ne!(after["main-3"], before["main-3"], "it came back under the id of the one that had the data");
    soon("it has what the others have", || {
        let read = cell.etcd(&[3], &["get", "kept", "--consistency=s", "--print-value-only"])?;
        if read.trim() == "as it was" { Ok(()) } else { Err(read) }
    });
}

#[test]
fn a_quorum_that_is_lost_for_good_is_made_anew_from_what_one_main_has() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let [one, two, three] = cell.mains();
    cell.etcd(&[2], &["put", "kept", "as it was"]).unwrap();
    let tool = "/opt/wharf/systemd/examples/ec2/host/wharf-ec2";
    drop((two, three));
    cell.lose_volume(2);
    let refused = one.try_run(&[tool, "anew"]).unwrap_err();
    assert!(refused.contains("nothing was thrown away"), "{refused}");
    one.shell(&format!("{tool} alone"));
    assert_eq!(cell.etcd(&[1], &["get", "kept", "--print-value-only"]).unwrap().trim(), "as it was");

    // One finds an empty disk and joins by itself; the other has what it had, and is told to.
    let empty = cell.main(2, "i-02b");
    boot(&[&empty]);
    soon("the second joins", || {
        cell.etcd(&[1, 2], &["endpoint", "health"]).map_err(|seen| format!("{seen}\n{}", told(&empty)))
    });
    let old = cell.main(3, "i-03b");
    boot(&[&old]);
    soon("the third has booted", || old.try_run(&["test", "-d", "/var/lib/etcd/data/member"]));
    old.shell(&format!("{tool} anew"));
    cell.etcd_is_whole([&one, &empty, &old]);
    assert_eq!(cell.members().unwrap().into_keys().collect::<Vec<_>>(), ["main-1", "main-2", "main-3"]);
    let hosts: Vec<&Host> = lab.hosts().iter().collect();
    cell.found_on(&[&one, &empty, &old], 11211, &hosts);
}

#[test]
fn a_copy_brings_back_what_etcd_had_by_the_lines_of_the_page() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let [one, two, three] = cell.mains();
    cell.etcd(&[1], &["put", "kept", "as it was"]).unwrap();
    let copy = cell.dir.join("copy.db");
    cell.etcd(&[1], &["snapshot", "save", copy.to_str().unwrap()]).unwrap();
    drop((two, three));
    cell.lose_volume(2);
    cell.lose_volume(3);
    one.put_as("/root/copy.db", &fs::read(&copy).unwrap(), 0o600);
    let page = include_str!("../../docs/provision.md");
    let lines = page.split("```").find(|block| block.contains("snapshot restore copy.db")).unwrap();
    let address = lab.host(1).address().to_string();
    one.shell(&format!("cd /root{}", lines.replace("10.20.0.11", &address)));
    soon("what it had is there", || {
        cell.etcd(&[1], &["get", "kept", "--print-value-only"]).map(|read| assert_eq!(read.trim(), "as it was"))
    });
    let [two, three] = [2, 3].map(|n| {
        let empty = cell.main(n, &format!("i-0{n}b"));
        boot(&[&empty]);
        soon("it joins", || cell.etcd(&[1, n], &["endpoint", "health"]).map_err(|seen| seen + &told(&empty)));
        empty
    });
    cell.found_on(&[&one, &two, &three], 11211, &lab.hosts().iter().collect::<Vec<_>>());
}

#[test]
fn a_worker_scaled_in_costs_no_connect_and_a_lost_one_is_gone_with_its_lease() {
    let lab = alone();
    let (fourth, fifth) = (lab.guest(4), lab.guest(5));
    let cell = Cell::new(&lab);
    let mains = cell.mains();
    let (leaving, lost) = (cell.worker(&fourth, "i-04"), cell.worker(&fifth, "i-05"));
    boot(&[&leaving, &lost]);
    let own: Vec<&Host> = lab.hosts().iter().collect();
    let all: Vec<&Host> = own.iter().copied().chain([&fourth, &fifth]).collect();
    let machines: Vec<&Machine<'_>> = mains.iter().chain([&leaving, &lost]).collect();
    cell.found_on(&machines, 11211, &all);

    let client = Client::start(lab.host(1).address());
    soon("the client uses the worker", || client.made(&fourth.at(11211)) > 0);
    cell.cloud.end(&fourth);
    let group = ("cellar-worker".to_owned(), "i-04".to_owned());
    soon("the group may go on", || {
        if cell.cloud.done().completed.contains(&group) { Ok(()) } else { Err(told(&leaving)) }
    });
    // AWS ends the instance, and all that runs on it.
    drop(leaving);
    fourth.remove_containers();
    let others = client.made(&lab.host(1).at(11211));
    soon("the client goes on", || client.made(&lab.host(1).at(11211)) > others + 10);
    let failed = client.finish();
    assert!(failed.is_empty(), "{} failed, first {:?}", failed.len(), failed.first());
    let rest: Vec<&Host> = own.iter().copied().chain([&fifth]).collect();
    cell.found_on(&[&mains[0], &mains[1], &mains[2], &lost], 11211, &rest);

    fifth.cut();
    let targets: Vec<String> = own.iter().map(|host| host.at(11211)).collect();
    let address = lab.host(1).address().to_string();
    within(GONE, "the lost worker is gone", || mains[0].finds_at(&address, SERVICE, &targets));
    fifth.heal();
}
