//! One host of the lab: a network namespace with a Docker engine and an etcd member of its own.

use std::collections::HashSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::container::{Container, ContainerSpec};
use super::dns::{self, Answer};
use super::etcd::{self, Etcd};
use super::ground::Ground;
use super::image::Image;
use super::process::{Process, run, try_run};
use super::wait::{COMING_UP, within};
use super::wharf::WharfSpec;

/// A host, by its number from 1 on.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    dir: PathBuf,
    ground: Arc<Ground>,
    peers: Vec<Ipv4Addr>,
    engine: Mutex<Process>,
    etcd: Mutex<Process>,
    images: Mutex<HashSet<Image>>,
}

impl Host {
    /// Plugs it in and starts its engine and its etcd member; neither is waited for. One that is not of the `of` hosts
    /// which share etcd has no member.
    pub(crate) fn start(ground: &Arc<Ground>, n: u8, of: u8) -> Self {
        let name = format!("h{n}");
        let dir = ground.dir().join(&name);
        fs::create_dir_all(&dir).expect("the lab's folder can be written");
        ground.plug_in(&name, n);
        let address = ground.address(n);
        let peers: Vec<_> = (1..=of).map(|n| ground.address(n)).collect();
        let inside = |argv| enter(ground, &name, argv);
        let engine = Process::start(
            &format!("{name}'s dockerd"),
            inside(engine_argv(ground, &dir, address)),
            vec![],
            dir.join("dockerd.log"),
        );
        let mut etcd = Process::at_rest(
            &format!("{name}'s etcd"),
            inside(etcd::member_argv(&name, &dir, address, &peers, ground.number())),
            etcd::member_env(),
            dir.join("etcd.log"),
        );
        if n <= of {
            etcd.start_again();
        }
        let images = Mutex::new(HashSet::new());
        Self {
            name,
            address,
            dir,
            ground: ground.clone(),
            peers,
            engine: Mutex::new(engine),
            etcd: Mutex::new(etcd),
            images,
        }
    }

    /// Its name, which is its wharf's node name too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that the other hosts reach it at.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// `address:port`, as clients reach a published port of this host.
    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }

    /// Its folder: sockets, data, logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs a command in its network.
    pub fn try_exec(&self, argv: &[&str]) -> Result<String, String> {
        let argv = self.inside(argv);
        try_run(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same for a command that must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn exec(&self, argv: &[&str]) -> String {
        self.try_exec(argv).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Starts a program in its network that runs on until its handle is dropped; its log is `NAME.log`.
    pub fn spawn(&self, name: &str, argv: &[&str], env: &[(&str, &str)]) -> Process {
        let env = env.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Process::start(&format!("{}'s {name}", self.name), self.inside(argv), env, self.dir.join(format!("{name}.log")))
    }

    /// Asks the DNS server at an address and port of this host, from this host.
    pub fn dig(&self, name: &str, kind: &str) -> Answer {
        self.dig_at(self.address, name, kind)
    }

    /// Asks the wharf of another host, from this one.
    pub fn dig_at(&self, server: Ipv4Addr, name: &str, kind: &str) -> Answer {
        dns::dig(self, server, &["-p", "5300", name, kind])
    }

    // --- Docker ---

    /// Where its engine listens, as `DOCKER_HOST` and `--docker` have it.
    pub fn docker_uri(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.display())
    }

    /// A docker command on its engine.
    pub fn try_docker(&self, argv: &[&str]) -> Result<String, String> {
        let uri = self.docker_uri();
        let argv: Vec<&str> = ["docker", "-H", &uri].iter().chain(argv).copied().collect();
        try_run(&argv)
    }

    /// The same for a command that must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn docker(&self, argv: &[&str]) -> String {
        self.try_docker(argv).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Starts a container.
    #[track_caller]
    pub fn run(&self, spec: ContainerSpec) -> Container<'_> {
        let id = self.try_run(&spec).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        Container::new(self, id)
    }

    /// Starts a container that nobody's handle removes, and returns its id.
    pub fn try_run(&self, spec: &ContainerSpec) -> Result<String, String> {
        self.bring(spec.image);
        let mut argv = vec!["run", "-d"];
        if let Some(name) = &spec.name {
            argv.extend(["--name", name]);
        }
        argv.extend(spec.options.iter().map(String::as_str));
        argv.push(spec.image.reference());
        argv.extend(spec.arguments.iter().map(String::as_str));
        self.try_docker(&argv).map(|id| id.trim().to_owned())
    }

    /// Sees to it that its engine has an image.
    pub fn bring(&self, image: Image) {
        let mut images = lock(&self.images);
        if images.contains(&image) {
            return;
        }
        let (archive, changes) = image.archive();
        let mut argv = vec!["import"];
        for change in &changes {
            argv.extend(["-c", change]);
        }
        argv.extend([archive.to_str().expect("the cache's path is text"), image.reference()]);
        self.docker(&argv);
        images.insert(image);
    }

    /// Its engine's process, to hang or kill it.
    pub fn engine(&self) -> MutexGuard<'_, Process> {
        lock(&self.engine)
    }

    /// Stops the engine as an upgrade does (containers die with it) and starts it again.
    pub fn restart_engine(&self) {
        self.engine().terminate();
        self.start_engine();
    }

    /// Starts a dead engine and waits until it answers.
    pub fn start_engine(&self) {
        // Left by one that was killed; their numbers may still name its unreaped remains, which it would wait for.
        for left in ["docker.pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.dir.join(left));
        }
        self.engine().start_again();
        self.engine_answers();
    }

    pub(crate) fn engine_answers(&self) {
        within(COMING_UP, &format!("{}'s dockerd answers", self.name), || self.try_docker(&["version"]));
    }

    // --- etcd ---

    /// Its etcd member's process, to hang or kill it.
    pub fn etcd(&self) -> MutexGuard<'_, Process> {
        lock(&self.etcd)
    }

    /// The client URL of its member.
    pub fn etcd_endpoint(&self) -> String {
        format!("http://{}:2379", self.address)
    }

    /// The client URLs of all members, its own first.
    pub fn etcd_endpoints(&self) -> Vec<String> {
        let others = self.peers.iter().filter(|peer| **peer != self.address);
        std::iter::once(&self.address).chain(others).map(|peer| format!("http://{peer}:2379")).collect()
    }

    /// Starts an etcd of one member beside the cluster's, empty, on its own ports.
    pub fn lone_etcd(&self) -> (Process, Etcd) {
        let dir = self.dir.join("lone-etcd");
        let _ = fs::remove_dir_all(&dir);
        let argv = self.inside_owned(etcd::lone_argv(&dir, self.address));
        let process = Process::start(
            &format!("{}'s lone etcd", self.name),
            argv,
            etcd::member_env(),
            self.dir.join("lone-etcd.log"),
        );
        let etcd = Etcd::at(vec![format!("http://{}:12379", self.address)]);
        etcd.wait_healthy();
        (process, etcd)
    }

    /// Kills its member, throws its data away. `Etcd::wait_healthy` after starting all again.
    pub(crate) fn wipe_etcd(&self) {
        self.etcd().kill();
        let _ = fs::remove_dir_all(self.dir.join("etcd"));
    }

    // --- wharf ---

    /// A wharf agent for this host, to be started.
    pub fn wharf(&self) -> WharfSpec<'_> {
        WharfSpec::new(self)
    }

    /// Gives this process a way in of its own, which no fault of the hosts' network closes: what serves on a host that
    /// is cut off, and what its agent answers, can still be asked.
    pub fn open_side_door(&self) {
        self.ground.open_side_door(&self.name, self.address);
    }

    // --- faults ---

    /// Pulls its network cable.
    pub fn cut(&self) {
        self.ground.set_cable(&self.name, "down");
    }

    /// Puts the cable back.
    pub fn heal(&self) {
        self.ground.set_cable(&self.name, "up");
    }

    /// Loses a share of the packets that come in from other hosts.
    pub fn lose(&self, percent: u8) {
        let share = format!("{}", f64::from(percent) / 100.0);
        self.exec(&[
            "iptables",
            "-I",
            "INPUT",
            "-i",
            "eth0",
            "-m",
            "statistic",
            "--mode",
            "random",
            "--probability",
            &share,
            "-j",
            "DROP",
            "-m",
            "comment",
            "--comment",
            "lab",
        ]);
    }

    /// Limits what it sends (`1mbit`).
    pub fn throttle(&self, rate: &str) {
        self.exec(&[
            "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "200ms",
        ]);
    }

    /// Takes back `cut`, `lose` and `throttle`.
    pub fn calm(&self) {
        self.heal();
        self.calm_links();
    }

    /// Takes back `lose` and `throttle`.
    pub fn calm_links(&self) {
        let _ = self.try_exec(&["tc", "qdisc", "del", "dev", "eth0", "root"]);
        let rules = self.try_exec(&["iptables", "-S", "INPUT"]).unwrap_or_default();
        for rule in rules.lines().filter(|rule| rule.contains("--comment lab")) {
            let argv: Vec<&str> = ["iptables"].into_iter().chain(rule.split_whitespace()).collect();
            self.exec(&argv.iter().map(|word| if *word == "-A" { "-D" } else { word }).collect::<Vec<_>>());
        }
    }

    /// Makes it as it was when the lab was new, but for etcd's data.
    pub(crate) fn restore(&self) {
        self.calm();
        if self.engine().runs() {
            self.engine().thaw();
        } else {
            self.start_engine();
        }
        if self.etcd().runs() {
            self.etcd().thaw();
        } else {
            self.etcd().start_again();
        }
        self.engine_answers();
        self.remove_containers();
    }

    /// Removes every container and every network of a user.
    pub(crate) fn remove_containers(&self) {
        let all = self.docker(&["ps", "-aq"]);
        if !all.trim().is_empty() {
            let argv: Vec<&str> = ["rm", "-f", "-v"].into_iter().chain(all.split_whitespace()).collect();
            let _ = self.try_docker(&argv);
        }
        let _ = self.try_docker(&["network", "prune", "-f"]);
    }

    /// The last lines of everything that it logged since the test began, for a test that failed.
    pub fn tell(&self) -> String {
        let mut told = format!("--- {} ({}): containers\n", self.name, self.address);
        told += &self.try_docker(&["ps", "-a", "--no-trunc"]).unwrap_or_else(|error| error);
        for log in self.logs() {
            let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            told += &format!("--- {} ({}): {name}, its last lines\n{}\n", self.name, self.address, tail.join("\n"));
        }
        told
    }

    fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten();
        let mut logs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        logs.retain(|path| path.extension().is_some_and(|end| end == "log"));
        logs.sort();
        logs
    }

    /// Begins every log anew; whoever writes to it appends.
    pub(crate) fn forget_logs(&self) {
        for log in self.logs() {
            let _ = fs::write(log, "");
        }
    }

    pub(crate) fn inside(&self, argv: &[&str]) -> Vec<String> {
        self.inside_owned(argv.iter().map(|word| (*word).to_owned()).collect())
    }

    fn inside_owned(&self, argv: Vec<String>) -> Vec<String> {
        enter(&self.ground, &self.name, argv)
    }
}

/// `ip netns exec` would mount another `/sys`, where dockerd finds no cgroups; so the network alone is entered.
fn enter(ground: &Ground, host: &str, argv: Vec<String>) -> Vec<String> {
    let space = format!("--net=/run/netns/{}", ground.namespace(host));
    ["nsenter".into(), space].into_iter().chain(argv).collect()
}

fn engine_argv(ground: &Ground, dir: &Path, address: Ipv4Addr) -> Vec<String> {
    let config = dir.join("daemon.json"); // else the machine's own configuration would count
    fs::write(&config, "{}").expect("the lab's folder can be written");
    let dir = dir.display();
    [
        "dockerd".to_owned(),
        format!("--config-file={}", config.display()),
        format!("--data-root={dir}/docker"),
        format!("--exec-root={dir}/exec"),
        format!("--host=unix://{dir}/docker.sock"),
        format!("--pidfile={dir}/docker.pid"),
        format!("--ip={address}"),
        format!("--cgroup-parent=/wharf-lab-{}", ground.number()),
        "--shutdown-timeout=5".into(),
        "--log-level=warn".into(),
    ]
    .into()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // a failed test must not fail the next one
}
