//! A host of the lab with a real systemd on it: booted in a container that shares the host's network, so that its
//! sockets, its resolver and its containers meet as they do on one machine.
//!
//! What a container cannot have is stood in for: the interface `wharf0` is one end of a veth pair (not every kernel
//! that runs the tests has dummy interfaces), and `docker.service` hands over the engine that the host has already.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::dns::{self, Answer};
use crate::lab::host::Host;
use crate::lab::{eventually, within};

/// The address that wharf has on every host.
pub const WHARF: &str = "169.254.53.53";
const NAME: &str = "machine";
const IMAGE: &str = "machine:lab";
/// Changed when `tree.sh` makes something else.
const TREE: u32 = 2;
/// Where the distribution is unpacked.
const UNPACKED: &str = "/root/wharf";
/// In the machine: the engine of the host, whether `docker.service` runs or not.
const ENGINE: &str = "/run/engine/docker.sock";

/// Stands for Docker: its socket is there exactly as long as the unit runs.
const DOCKER_SERVICE: &str = "[Service]\n\
    ExecStart=/bin/sh -c 'ln -sfn /run/engine/docker.sock /run/docker.sock; exec sleep infinity'\n\
    ExecStopPost=/bin/rm -f /run/docker.sock\n\
    [Install]\nWantedBy=multi-user.target\n";

/// A booted machine; gone with its handle.
#[derive(Debug)]
pub struct Machine<'lab> {
    host: &'lab Host,
}

impl<'lab> Machine<'lab> {
    /// Boots it and waits until systemd says that it runs.
    pub fn boot(host: &'lab Host) -> Self {
        let machine = Self::create(host);
        machine.start();
        machine
    }

    /// Lays it out without booting: what is done to it then is there at its first boot.
    pub fn create(host: &'lab Host) -> Self {
        if host.try_docker(&["image", "inspect", IMAGE]).is_err() {
            host.docker(&["import", &tree().display().to_string(), IMAGE]);
        }
        host.exec(&["ip", "link", "add", "wharf0", "type", "veth", "peer", "name", "wharf0-peer"]);
        host.exec(&["ip", "link", "set", "wharf0-peer", "up"]);
        let engine = format!("{}:{ENGINE}", host.docker_uri().trim_start_matches("unix://"));
        let mut argv = vec!["create", "-t", "--name", NAME, "--network", "host", "--cgroupns", "host"];
        argv.extend(["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"]);
        argv.extend(["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]);
        argv.extend(["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"]);
        argv.extend(["-v", "/sys/fs/cgroup:/sys/fs/cgroup", "-v", &engine, IMAGE, "/sbin/init"]);
        host.docker(&argv);
        let machine = Self { host };
        machine.put("/etc/systemd/system/docker.service", DOCKER_SERVICE);
        machine.unpack(Path::new(env!("CARGO_BIN_EXE_wharf")));
        machine
    }

    /// Boots a machine that was created, or that has shut down.
    pub fn start(&self) {
        self.host.docker(&["start", NAME]);
        within(Duration::from_secs(60), "the machine has booted", || {
            let said = self.try_run(&["systemctl", "is-system-running"]).unwrap_or_else(|error| error);
            if said.contains("running") || said.contains("degraded") { Ok(()) } else { Err(said) }
        });
        // Docker binds these from outside; a host has them as plain files. And a host has no mark of a container.
        self.run(&["umount", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"]);
        self.run(&["rm", "-f", "/.dockerenv"]);
    }

    /// The host whose network and engine it shares.
    pub fn host(&self) -> &'lab Host {
        self.host
    }

    /// Puts a distribution with this program where a user would unpack it.
    pub fn unpack(&self, program: &Path) {
        let stage = self.host.dir().join("distribution");
        let _ = fs::remove_dir_all(&stage);
        fs::create_dir_all(stage.join("wharf")).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        copy(&root.join("systemd"), &stage.join("wharf"));
        copy(&root.join("docs"), &stage.join("wharf"));
        fs::copy(root.join("systemd/install.sh"), stage.join("wharf/install.sh")).unwrap();
        fs::copy(program, stage.join("wharf/wharf")).unwrap();
        self.host.docker(&["cp", &stage.join("wharf").display().to_string(), &format!("{NAME}:/root/")]);
    }

    /// Installs wharf as the docs say.
    #[track_caller]
    pub fn install(&self, flags: &[&str]) {
        let address = self.host.address().to_string();
        let script = format!("{UNPACKED}/install.sh");
        let argv: Vec<&str> = [script.as_str(), "--advertise", &address].iter().chain(flags).copied().collect();
        self.run(&argv);
    }

    /// The same with the cluster's etcd.
    #[track_caller]
    pub fn install_with_etcd(&self) {
        self.install(&["--node", self.host.name(), "--etcd", &self.host.etcd_endpoints().join(",")]);
    }

    /// Writes a file on it, booted or not.
    pub fn put(&self, path: &str, content: &str) {
        let file = self.host.dir().join("put");
        fs::write(&file, content).unwrap();
        let folder = Path::new(path).parent().unwrap().display().to_string();
        let _ = self.try_run(&["mkdir", "-p", &folder]);
        self.host.docker(&["cp", &file.display().to_string(), &format!("{NAME}:{path}")]);
    }

    /// Runs a command on it.
    pub fn try_run(&self, argv: &[&str]) -> Result<String, String> {
        let argv: Vec<&str> = ["exec", NAME].iter().chain(argv).copied().collect();
        self.host.try_docker(&argv)
    }

    /// The same for a command that must succeed.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> String {
        self.try_run(argv).unwrap_or_else(|error| panic!("{error}\n{}", self.journal()))
    }

    /// A property of wharf's unit.
    pub fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, "wharf.service"]).trim().to_owned()
    }

    /// Whether wharf's unit is active.
    pub fn active(&self) -> Result<(), String> {
        let state = self.try_run(&["systemctl", "is-active", "wharf.service"]);
        state.map(|_| ()).map_err(|error| format!("{error}\n{}", self.journal()))
    }

    /// What wharf and systemd have logged of it.
    pub fn journal(&self) -> String {
        let journal =
            ["journalctl", "--no-pager", "--lines", "60", "--unit", "wharf.service", "--unit", "wharf-address.service"];
        self.try_run(&journal).unwrap_or_else(|error| error)
    }

    /// Whether it has gone down.
    pub fn is_down(&self) -> bool {
        self.host.docker(&["inspect", "-f", "{{.State.Running}}", NAME]).trim() == "false"
    }

    /// What a program of the host gets when it asks for a name by the system's resolver.
    pub fn resolves(&self, name: &str) -> Result<String, String> {
        let found = self.try_run(&["getent", "ahostsv4", name])?;
        let first = found.split_whitespace().next();
        first.map(str::to_owned).ok_or_else(|| "nothing".to_owned())
    }

    /// Asks an address of this host, from this host, on port 53.
    pub fn dig(&self, server: &str, question: &[&str]) -> Answer {
        dns::dig(self.host, server.parse().unwrap(), question)
    }

    /// Asks it to power off and waits until it is down.
    pub fn shut_down(&self) {
        let _ = self.try_run(&["systemctl", "poweroff"]);
        within(Duration::from_secs(90), "the machine is down", || self.is_down());
    }

    /// Asks wharf on this host and wants just these targets.
    pub fn finds(&self, name: &str, targets: &[String]) -> Result<(), String> {
        self.dig(WHARF, &[name, "SRV"]).is(targets)
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::write(self.host.dir().join("machine.log"), self.journal());
        }
        let _ = self.host.try_docker(&["rm", "-f", "-v", NAME]);
        let _ = self.host.try_exec(&["ip", "link", "del", "wharf0"]);
        eventually("the machine is gone", || self.host.try_docker(&["inspect", NAME]).is_err());
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(status.success(), "copy {}", from.display());
}

/// The machine's files, made now if they are not there yet.
fn tree() -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".lab/systemd");
    fs::create_dir_all(&cache).unwrap();
    let door = File::create(cache.join("lock")).unwrap();
    door.lock().unwrap();
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).expect("a Debian release");
    let file = cache.join(format!("{}-{TREE}.tar", suite.trim_matches('"')));
    if !file.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/tree.sh");
        let made = Command::new(script).arg(&file).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    file
}
