//! A host of the lab with a real systemd on it: booted in a container that shares the host's network, so that its
//! sockets, its resolver and its containers meet as they do on one machine.
//!
//! What a container cannot have is stood in for: the interface `wharf0` is one end of a veth pair (not every kernel
//! that runs the tests has dummy interfaces), and `docker.service` hands over the engine that the host has already.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::dns::{self, Answer};
use crate::lab::host::Host;
use crate::lab::process::run;
use crate::lab::wait::Outcome;
use crate::lab::within;

/// The address that wharf has on every host.
pub const WHARF: &str = "169.254.53.53";
const NAME: &str = "machine";
const IMAGE: &str = "machine:lab";
/// Changed when `tree.sh` makes something else.
const TREE: u32 = 3;
/// Where the distribution is unpacked.
pub const UNPACKED: &str = "/root/wharf";
/// In the machine: the engine of the host, whether `docker.service` runs or not.
const ENGINE: &str = "/run/engine/docker.sock";

/// In the machine: Docker's client, outside of `/usr`, which some tests lay something over.
const CLIENT: &str = "/mnt/docker";

/// Stands for Docker: its socket is there exactly as long as the unit runs.
const DOCKER_SERVICE: &str = "[Service]\n\
    ExecStart=/bin/sh -c 'ln -sfn /run/engine/docker.sock /run/docker.sock; exec sleep infinity'\n\
    ExecStopPost=/bin/rm -f /run/docker.sock\n\
    [Install]\nWantedBy=multi-user.target\n";

/// What a whole machine may take while others boot beside it.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `holds` does.
#[track_caller]
pub fn soon<O: Outcome>(what: &str, holds: impl FnMut() -> O) -> O::Value {
    within(PATIENCE, what, holds)
}

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
        Self::create_with(host, &[])
    }

    /// The same with further options for its container.
    pub fn create_with(host: &'lab Host, options: &[&str]) -> Self {
        if host.try_docker(&["image", "inspect", IMAGE]).is_err() {
            host.docker(&["import", &tree().display().to_string(), IMAGE]);
        }
        host.exec(&["ip", "link", "add", "wharf0", "type", "veth", "peer", "name", "wharf0-peer"]);
        host.exec(&["ip", "link", "set", "wharf0-peer", "up"]);
        let engine = format!("{}:{ENGINE}", host.docker_uri().trim_start_matches("unix://"));
        let mut argv = vec!["create", "-t", "--name", NAME, "--network", "host", "--cgroupns", "host"];
        // By this systemd knows how to power off here; Docker's own mark goes at the start, since a host has none.
        argv.extend(["--env", "container=docker"]);
        argv.extend(["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"]);
        argv.extend(["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]);
        argv.extend(["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"]);
        let distribution = host.dir().join("distribution");
        let _ = fs::remove_dir_all(&distribution);
        script("docker/stage.sh", &[env!("CARGO_BIN_EXE_wharf"), &distribution.display().to_string()]);
        let unpacked = format!("{}:{UNPACKED}", distribution.display());
        // The units of services run `docker`, as a host's own do.
        let client = format!("{}:{CLIENT}:ro", run(&["sh", "-c", "command -v docker"]).trim());
        argv.extend(["-v", "/sys/fs/cgroup:/sys/fs/cgroup", "-v", &engine, "-v", &unpacked, "-v", &client]);
        argv.extend(options);
        argv.extend([IMAGE, "/sbin/init"]);
        host.docker(&argv);
        let machine = Self { host };
        machine.put("/etc/systemd/system/docker.service", DOCKER_SERVICE);
        machine.link("/usr/bin/docker", CLIENT);
        // A host has no mark of a container: this takes it away before any service starts.
        machine.put("/etc/tmpfiles.d/host.conf", "r! /.dockerenv\n");
        machine
    }

    /// Boots a machine that was created, or that has shut down.
    pub fn start(&self) {
        self.host.docker(&["start", NAME]);
        soon("the machine has booted", || {
            // Its exit code is that of a failure for all but `running`.
            let said = self.try_run(&["sh", "-c", "systemctl is-system-running || true"])?;
            if ["running", "degraded"].contains(&said.trim()) { Ok(()) } else { Err(said) }
        });
        // Docker binds these from outside; a host has them as plain files.
        self.run(&["umount", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"]);
    }

    /// The host whose network and engine it shares.
    pub fn host(&self) -> &'lab Host {
        self.host
    }

    /// Installs wharf as the docs say.
    #[track_caller]
    pub fn install(&self, flags: &[&str]) {
        self.install_from(UNPACKED, flags);
    }

    /// The same with another build, unpacked in this folder of it.
    #[track_caller]
    fn install_from(&self, folder: &str, flags: &[&str]) {
        let address = self.host.address().to_string();
        let script = format!("{folder}/install.sh");
        let argv: Vec<&str> = [script.as_str(), "--advertise", &address].iter().chain(flags).copied().collect();
        self.run(&argv);
    }

    /// The same with the cluster's etcd.
    #[track_caller]
    pub fn install_with_etcd(&self) {
        self.install_with_etcd_from(UNPACKED);
    }

    /// The same with another build.
    #[track_caller]
    pub fn install_with_etcd_from(&self, folder: &str) {
        let endpoints = self.host.etcd_endpoints().join(",");
        self.install_from(folder, &["--node", self.host.name(), "--etcd", &endpoints]);
    }

    /// Brings another program to a folder of it, with what was distributed around it: what lies there, or what these
    /// sources have.
    pub fn unpack_around(&self, program: &Path, folder: &str) {
        let staged = self.host.dir().join("other-distribution");
        let _ = fs::remove_dir_all(&staged);
        let around = program.parent().filter(|around| around.join("install.sh").exists());
        let around = around.unwrap_or_else(|| {
            script("docker/stage.sh", &[&program.display().to_string(), &staged.display().to_string()]);
            &staged
        });
        self.host.docker(&["cp", &around.display().to_string(), &format!("{NAME}:{folder}")]);
    }

    /// Writes a file on it, booted or not.
    pub fn put(&self, path: &str, content: &str) {
        self.put_as(path, content.as_bytes(), 0o644);
    }

    /// The same for a file of any kind, with its mode.
    pub fn put_as(&self, path: &str, content: &[u8], mode: u32) {
        // Copied from a tree of its own, so that the folders on the way need not be there.
        let tree = self.host.dir().join("put");
        let _ = fs::remove_dir_all(&tree);
        let file = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        self.host.docker(&["cp", &format!("{}/.", tree.display()), &format!("{NAME}:/")]);
    }

    /// Makes a symbolic link on it, before it boots.
    pub fn link(&self, path: &str, target: &str) {
        let tree = self.host.dir().join("put");
        let _ = fs::remove_dir_all(&tree);
        let link = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, link).unwrap();
        self.host.docker(&["cp", &format!("{}/.", tree.display()), &format!("{NAME}:/")]);
    }

    /// `wharf0` is there already: without this, networkd would find it of another kind than it is to make, and let go
    /// of it. `install.sh` needs no such help, since it comes when networkd knows the interface.
    pub fn has_its_interface(&self) {
        self.link("/etc/systemd/network/05-wharf.netdev", "/dev/null");
    }

    /// Where its files lie for whoever is outside of it, its engine among them.
    #[track_caller]
    pub fn tree(&self) -> String {
        let tree = self.host.docker(&["inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", NAME]).trim().to_owned();
        assert!(
            tree.starts_with('/'),
            "the engine keeps containers in layers of a kind that nobody else can look into: {tree}"
        );
        tree
    }

    /// A file of it, booted or not.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        let file = self.host.dir().join("got");
        let _ = fs::remove_file(&file);
        self.host.docker(&["cp", &format!("{NAME}:{path}"), &file.display().to_string()]);
        fs::read_to_string(&file).unwrap()
    }

    /// Runs a line of shell on it, as its user would type it.
    #[track_caller]
    pub fn shell(&self, line: &str) -> String {
        self.run(&["bash", "-ec", line])
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
        let journal = ["journalctl", "--no-pager", "--output", "short-precise", "--lines", "100", "--unit", "wharf*"];
        self.try_run(&journal).unwrap_or_else(|error| error)
    }

    /// Whether it has gone down, or what it wrote last.
    pub fn is_down(&self) -> Result<(), String> {
        if self.host.docker(&["inspect", "-f", "{{.State.Running}}", NAME]).trim() == "false" {
            return Ok(());
        }
        Err(self.host.docker(&["logs", "--tail", "5", NAME]))
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
        soon("the machine is down", || self.is_down());
    }

    /// Asks wharf on this host and wants just these targets.
    pub fn finds(&self, name: &str, targets: &[String]) -> Result<(), String> {
        self.finds_at(WHARF, name, targets)
    }

    /// The same at another address of the host, by UDP and TCP.
    pub fn finds_at(&self, address: &str, name: &str, targets: &[String]) -> Result<(), String> {
        self.dig(address, &["+notcp", name, "SRV"]).is(targets)?;
        self.dig(address, &["+tcp", name, "SRV"]).is(targets)
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::write(self.host.dir().join("machine.log"), self.journal());
        }
        let _ = self.host.try_docker(&["rm", "-f", "-v", NAME]);
        let _ = self.host.try_exec(&["ip", "link", "del", "wharf0"]);
        soon("the machine is gone", || self.host.try_docker(&["inspect", NAME]).is_err());
    }
}

/// Runs a script of the project.
#[track_caller]
pub fn script(path: &str, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string();
    run(&[path.as_str()].iter().chain(arguments).copied().collect::<Vec<_>>())
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
