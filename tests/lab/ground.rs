//! The ground that a lab stands on: a folder that is locked while the lab lives, a subnet of its own, and the network
//! that joins the hosts.
//!
//! The bridge lives in a namespace of its own, not in the machine's: there no firewall rule of the machine (its own
//! Docker sets some for bridges) touches the lab, and nothing of the lab finds a way out.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ipnet::Ipv4Net;

use super::process::{run, try_run};

/// One lab's folder, lock and network. Everything goes when it is dropped, or when its process ends in any other way:
/// a sweeper waits for that from the start.
#[derive(Debug)]
pub struct Ground {
    number: u32,
    dir: PathBuf,
    net: Ipv4Net,
    lock: Option<File>,
    sweeper: Option<Child>,
}

impl Ground {
    /// Removes leftovers of dead labs, then takes a free number and a free subnet and lays the network.
    pub fn lay() -> Self {
        // A leftover that somebody else is still removing, slowly, is in nobody's way.
        if let Err(why) = try_run(&[&sweep_script()]) {
            eprintln!("not everything that dead labs left is removed yet: {why}");
        }
        let base = base();
        make_base(&base);
        let door = File::create(base.join("lock")).expect("the base folder can be written");
        door.lock().expect("the base folder can be locked");
        let (number, dir) = take_number(&base);
        let lock = File::create(dir.join("lock")).expect("the lab's folder can be written");
        lock.lock().expect("a new lock is free");
        let sweeper = spawn_sweeper(&dir);
        let net = free_subnet();
        let ground = Self { number, dir, net, lock: Some(lock), sweeper: Some(sweeper) };
        ground.lay_network();
        ground
    }

    /// The lab's number on this machine.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The process that removes it all when this one ends.
    pub fn sweeper(&self) -> u32 {
        self.sweeper.as_ref().map_or(0, Child::id)
    }

    /// The lab's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The subnet that the hosts are in.
    pub fn net(&self) -> Ipv4Net {
        self.net
    }

    /// The `n`th address of the subnet.
    pub fn address(&self, n: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.net.network().octets();
        Ipv4Addr::new(a, b, c, n)
    }

    /// The name of one of the lab's namespaces.
    pub fn namespace(&self, of: &str) -> String {
        format!("wharf-lab-{}-{of}", self.number)
    }

    fn lay_network(&self) {
        let (switch, root) = (self.namespace("net"), format!("wharflab{}", self.number));
        run(&["ip", "netns", "add", &switch]);
        run(&["ip", "-n", &switch, "link", "add", "br0", "type", "bridge"]);
        // The hosts' way out ends here: this namespace leads nowhere.
        run(&["ip", "-n", &switch, "addr", "add", &self.with_length(253), "dev", "br0"]);
        run(&["ip", "-n", &switch, "link", "set", "br0", "up"]);
        run(&["ip", "link", "add", &root, "type", "veth", "peer", "name", "machine", "netns", &switch]);
        run(&["ip", "-n", &switch, "link", "set", "machine", "master", "br0", "up"]);
        run(&["ip", "addr", "add", &self.with_length(254), "dev", &root]);
        run(&["ip", "link", "set", &root, "up"]);
    }

    /// Makes the namespace of a host and plugs it in.
    pub fn plug_in(&self, host: &str, n: u8) {
        let (switch, space) = (self.namespace("net"), self.namespace(host));
        run(&["ip", "netns", "add", &space]);
        run(&["ip", "-n", &space, "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns", &switch]);
        run(&["ip", "-n", &switch, "link", "set", host, "master", "br0", "up"]);
        run(&["ip", "-n", &space, "link", "set", "lo", "up"]);
        run(&["ip", "-n", &space, "addr", "add", &self.with_length(n), "dev", "eth0"]);
        run(&["ip", "-n", &space, "link", "set", "eth0", "up"]);
        run(&["ip", "-n", &space, "route", "add", "default", "via", &self.address(253).to_string()]);
    }

    /// Takes away what an earlier guest of that name left: its namespace, and with it its link.
    pub fn unplug(&self, host: &str) {
        let _ = try_run(&["ip", "netns", "del", &self.namespace(host)]);
        let _ = try_run(&["ip", "-n", &self.namespace("net"), "link", "del", host]);
    }

    /// A link from the machine straight to a host, for its one address.
    pub fn open_side_door(&self, host: &str, address: Ipv4Addr) {
        let (space, door) = (self.namespace(host), format!("wharf{}{host}", self.number));
        if try_run(&["ip", "link", "show", &door]).is_ok() {
            return;
        }
        let (here, there) = (self.address(254).to_string(), address.to_string());
        run(&["ip", "link", "add", &door, "type", "veth", "peer", "name", "door", "netns", &space]);
        run(&["ip", "-n", &space, "link", "set", "door", "up"]);
        run(&["ip", "link", "set", &door, "up"]);
        run(&["ip", "route", "add", &there, "dev", &door, "src", &here]);
        run(&["ip", "-n", &space, "route", "add", &here, "dev", "door"]);
    }

    /// Pulls a host's cable, or puts it back.
    pub fn set_cable(&self, host: &str, state: &str) {
        run(&["ip", "-n", &self.namespace("net"), "link", "set", host, state]);
    }

    fn with_length(&self, n: u8) -> String {
        format!("{}/{}", self.address(n), self.net.prefix_len())
    }
}

impl Drop for Ground {
    /// Lets the sweeper begin and waits for it: once this returns, nothing is left.
    fn drop(&mut self) {
        drop(self.lock.take());
        if let Some(mut sweeper) = self.sweeper.take() {
            drop(sweeper.stdin.take());
            let _ = sweeper.wait();
        }
    }
}

/// Removes what dead labs left.
pub fn sweep() {
    run(&[&sweep_script()]);
}

fn base() -> PathBuf {
    std::env::var_os("WHARF_LAB_BASE").map_or_else(|| "/var/tmp/wharf-lab".into(), PathBuf::from)
}

/// Root works in it, so nobody else may: a folder that somebody else made first is refused.
fn make_base(base: &Path) {
    fs::create_dir_all(base).expect("the lab's base folder can be made");
    let owner = fs::metadata(base).expect("it was just made").uid();
    assert!(owner == 0, "{} belongs to user {owner}: remove it", base.display());
    fs::set_permissions(base, fs::Permissions::from_mode(0o700)).expect("it is ours");
}

fn sweep_script() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/sweep.sh").into()
}

/// The script in its own process group, so that whatever ends us does not end it; its standard input ends with us.
fn spawn_sweeper(dir: &Path) -> Child {
    Command::new(sweep_script())
        .arg("--after")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("the sweep script can be started")
}

fn take_number(base: &Path) -> (u32, PathBuf) {
    (1..1000)
        .map(|number| (number, base.join(format!("run-{number}"))))
        .find(|(_, dir)| fs::create_dir(dir).is_ok())
        .expect("fewer than a thousand labs run at once")
}

/// The first /24 from 10.88.0.0 on that no route of this machine covers or lies in.
fn free_subnet() -> Ipv4Net {
    let routes = run(&["ip", "-4", "-o", "route", "show", "table", "all"]);
    let taken: Vec<Ipv4Net> = routes.lines().filter_map(route_net).collect();
    (88..=255)
        .flat_map(|b| (0..=255).map(move |c| Ipv4Addr::new(10, b, c, 0)))
        .map(|address| Ipv4Net::new_assert(address, 24))
        .find(|net| !taken.iter().any(|other| other.contains(net) || net.contains(other)))
        .expect("some /24 above 10.88.0.0 is free")
}

/// `[broadcast|local|…] ADDR[/LEN] …`; a default route covers everything and so says nothing.
fn route_net(line: &str) -> Option<Ipv4Net> {
    let word = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    if line.starts_with("default") {
        return None;
    }
    word.parse().ok().or_else(|| word.parse().ok().map(|address| Ipv4Net::new_assert(address, 32)))
}

/// Whether this machine can carry a lab at all; else why not.
pub fn machine_can() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the lab makes network namespaces and runs Docker engines: run it as root".into());
    }
    for program in ["dockerd", "docker", "etcd", "etcdctl", "ip", "nsenter", "iptables", "dig"] {
        try_run(&["sh", "-c", &format!("command -v {program}")])
            .map_err(|_| format!("the lab needs {program}: `make setup` installs it"))?;
    }
    Ok(())
}
