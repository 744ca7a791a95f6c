//! A stack of `systemd/examples/ec2` on hosts of the lab: instances that are laid out from the template's own user data
//! as Ignition does, an etcd over TLS from the keys of `make-ca.sh`.
//!
//! AWS is stood in for by [`Cloud`]; a member's volume is a loop device under the name that Nitro gives it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::cloud::{Cloud, Instance};
use crate::cloudformation::Stack;
use crate::everyday::SERVICE;
use crate::ignition::{Ignition, Source};
use crate::lab::Alone;
use crate::lab::host::Host;
use crate::lab::process::{run, try_run};
use crate::machine::{Machine, script, soon};
use crate::provision::bring_memcached;
use crate::stock;
use crate::vagrant::SOURCES;

/// Where it lies in the distribution.
const EC2: &str = "systemd/examples/ec2";

/// A stack whose hosts are the lab's.
#[derive(Debug)]
pub struct Cell<'lab> {
    lab: &'lab Alone,
    stack: Arc<Stack>,
    /// Its AWS.
    pub cloud: Cloud,
    /// Where it keeps keys and tarballs.
    pub dir: PathBuf,
    /// Of the tarballs of wharf and etcd.
    pub hashes: [String; 2],
    volumes: Mutex<BTreeMap<usize, String>>,
}

impl<'lab> Cell<'lab> {
    /// The smallest one that the template makes.
    pub fn new(lab: &'lab Alone) -> Self {
        Self::with(lab, &[])
    }

    /// One with these parameters besides.
    pub fn with(lab: &'lab Alone, more: &[(&str, &str)]) -> Self {
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
        let parameters = [
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
        ];
        let stack = Arc::new(Stack::new(&[&parameters[..], more].concat()));
        let named = [("ca.crt", "ca.crt"), ("agent.crt", "agent.crt"), ("agent.key", "agent.key")];
        let of_mains = [("main/member.crt", "member.crt"), ("main/member.key", "member.key")];
        let read = |(name, file): &(&str, &str)| {
            (format!("/cellar/{name}"), fs::read_to_string(dir.join("ca").join(file)).unwrap().trim_end().to_owned())
        };
        let cloud = Cloud::start(lab, stack.clone(), named.iter().chain(&of_mains).map(read).collect());
        Self { lab, stack, cloud, dir, hashes, volumes: Mutex::default() }
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
    pub fn lose_volume(&self, n: usize) {
        if let Some(device) = self.volumes.lock().unwrap().remove(&n) {
            run(&["losetup", "-d", &device]);
            fs::remove_file(self.dir.join(format!("volume-{n}"))).unwrap();
        }
    }

    /// An instance of a main, laid out as Ignition does, not booted yet.
    pub fn main(&self, n: usize, id: &str) -> Machine<'lab> {
        let host = self.lab.host(n);
        let zone = ["eu-west-1a", "eu-west-1b", "eu-west-1c"][n - 1];
        let volume = Stack::id(&format!("Main{n}Volume")).replace('-', "");
        let device = format!("{}:/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume}", self.volume(n));
        self.instance(host, Instance { id: id.into(), role: "main", zone, ending: false }, &["--device", &device])
    }

    /// The same of a worker.
    pub fn worker<'h>(&self, host: &'h Host, id: &str) -> Machine<'h> {
        self.instance(host, Instance { id: id.into(), role: "worker", zone: "eu-west-1a", ending: false }, &[])
    }

    /// The same of a data host. Its disk is the machine's own, as the template's is.
    pub fn data<'h>(&self, host: &'h Host, id: &str) -> Machine<'h> {
        self.instance(host, Instance { id: id.into(), role: "data", zone: "eu-west-1b", ending: false }, &[])
    }

    fn instance<'h>(&self, host: &'h Host, instance: Instance, options: &[&str]) -> Machine<'h> {
        let template = match instance.role {
            "main" => format!("Main{}Template", host.name().trim_start_matches('h')),
            "data" => "DataTemplate".into(),
            _ => "WorkerTemplate".into(),
        };
        let machine = self.laid_out(host, &Ignition::read(&self.stack.user_data(&template)), options);
        self.cloud.launch(host, instance);
        machine
    }

    /// A machine that Ignition was told this, not booted yet.
    pub fn laid_out<'h>(&self, host: &'h Host, told: &Ignition, options: &[&str]) -> Machine<'h> {
        bring_memcached(host);
        let machine = Machine::create_with(host, options);
        stock::bring_engine(&machine);
        self.ignite(&machine, told);
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
    pub fn etcd(&self, endpoints: &[usize], arguments: &[&str]) -> Result<String, String> {
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
    pub fn members(&self) -> Result<BTreeMap<String, String>, String> {
        let listed = self.etcd(&[1, 2, 3], &["member", "list"])?;
        let words = listed.lines().map(|line| line.split(", ").map(str::to_owned).collect::<Vec<_>>());
        Ok(words.map(|words| (words[2].clone(), words[0].clone())).collect())
    }

    /// Every member serves, with the others.
    pub fn etcd_is_whole(&self, mains: [&Machine<'_>; 3]) {
        soon("every member of etcd is healthy", || {
            self.etcd(&[1, 2, 3], &["endpoint", "health"]).map_err(|seen| seen + &mains.map(told).join("\n"))
        });
    }

    /// Asked on every one of these, wharf answers with just these hosts.
    pub fn found_on(&self, machines: &[&Machine<'_>], port: u16, hosts: &[&Host]) {
        let targets: Vec<String> = hosts.iter().map(|host| host.at(port)).collect();
        for machine in machines {
            let address = machine.host().address().to_string();
            soon(&format!("{address} answers"), || {
                machine.finds_at(&address, SERVICE, &targets).map_err(|seen| format!("{seen}\n{}", told(machine)))
            });
        }
    }

    /// The three mains, booted side by side.
    pub fn mains(&self) -> [Machine<'lab>; 3] {
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
pub fn boot(machines: &[&Machine<'_>]) {
    std::thread::scope(|scope| {
        for machine in machines {
            scope.spawn(|| machine.start());
        }
    });
}

/// What a machine's own units have said.
pub fn told(machine: &Machine<'_>) -> String {
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
