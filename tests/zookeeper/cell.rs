//! Hosts with an agent and a ZooKeeper each, on loopback addresses of their own.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::etcd::Cluster;
use crate::program::{Agent, Options, told, wharf};

pub const PATIENCE: Duration = Duration::from_secs(120);

/// The hosts of one cell.
pub struct Cell {
    pub cluster: Cluster,
    pub port: u16,
    pub hosts: Vec<Host>,
    dir: tempfile::TempDir,
}

pub struct Host {
    pub address: String,
    pub agent: Agent,
    server: Option<Child>,
    port: u16,
    dir: std::path::PathBuf,
}

/// A port that nobody has on any of these addresses.
fn port(addresses: &[String]) -> u16 {
    loop {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if addresses.iter().all(|address| std::net::TcpListener::bind((address.as_str(), first)).is_ok()) {
            return first;
        }
    }
}

impl Cell {
    /// So many hosts, with their agents and without servers.
    pub fn new(network: u8, count: u8) -> Self {
        let (cluster, dir) = (Cluster::start(1), tempfile::tempdir().unwrap());
        let addresses: Vec<String> = (1..=count).map(|host| format!("127.0.{network}.{host}")).collect();
        let port = port(&addresses);
        let mut cell = Self { cluster, port, hosts: Vec::new(), dir };
        for address in addresses {
            cell.add(&address);
        }
        cell
    }

    /// One host more.
    pub fn add(&mut self, address: &str) {
        let dir = self.dir.path().join(address);
        std::fs::create_dir_all(dir.join("run")).unwrap();
        let settings = format!(
            "exhibitor = \"{address}:0\"\nlease-ttl = \"5s\"\nprobe-interval = \"500ms\"\n[[ordinal]]\nrole = \"nucleus\"\n\
             [[service]]\nname = \"zookeeper\"\nport = {}\ncheck = \"zookeeper\"\n",
            self.port
        );
        let node = format!("h{}", address.rsplit('.').next().unwrap());
        let agent = Agent::start_with(&Options {
            settings: &settings,
            flags: vec!["--etcd-endpoints".to_owned(), self.cluster.endpoints().join(",")],
            env: vec![("RUNTIME_DIRECTORY".to_owned(), dir.join("run").display().to_string())],
            advertise: Some(address),
            node: Some(&node),
            ..Options::default()
        });
        let host = Host { address: address.to_owned(), agent, server: None, port: self.port, dir };
        until("it has a number", || host.number().is_some());
        self.hosts.push(host);
    }

    /// The servers of zoo.cfg by the numbers of the first so many hosts.
    pub fn servers(&self, count: usize) -> String {
        let mut lines: Vec<String> = self.hosts[..count]
            .iter()
            .map(|host| {
                let (address, number) = (&host.address, host.number().unwrap());
                format!("server.{number}={address}:{}:{}\n", self.port + 1, self.port + 2)
            })
            .collect();
        lines.sort();
        lines.concat()
    }

    /// `h1:2181,h2:2181` of the hosts at these places, in the order of their numbers.
    pub fn listed(&self, places: &[usize]) -> String {
        let mut hosts: Vec<&Host> = places.iter().map(|place| &self.hosts[*place]).collect();
        hosts.sort_by_key(|host| host.number());
        hosts.iter().map(|host| host.place()).collect::<Vec<_>>().join(",")
    }

    /// A command that asks the first host's agent.
    pub fn wharf(&self, line: &str) -> Output {
        self.hosts[0].agent.wharf(line)
    }

    /// A barrier that waits.
    pub fn barrier(&self, line: &str) -> Barrier {
        let mut command = wharf();
        command.arg("zk-barrier").args(line.split_whitespace());
        command.arg("--http-socket").arg(self.hosts[0].agent.socket());
        Barrier(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// What the list prints, once it is as it should be.
    #[track_caller]
    pub fn until_listed(&self, places: &[usize]) {
        let expected = format!("{}\n", self.listed(places));
        let min = places.len();
        until(&format!("the list is {expected}"), || {
            told(&self.wharf(&format!("zk-list-nodes --min {min} --ordinal nucleus"))).1 == expected
        });
    }
}

impl Host {
    pub fn place(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// The number that units are told.
    pub fn number(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.dir.join("run/ordinals.env")).ok()?;
        text.trim().strip_prefix("WHARF_ORDINAL_NUCLEUS=")?.parse().ok()
    }

    /// Starts its ZooKeeper; without servers it stands alone.
    pub fn start(&mut self, servers: &str) {
        let data = self.dir.join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("myid"), self.number().unwrap().to_string()).unwrap();
        let config = format!(
            "tickTime=500\ninitLimit=10\nsyncLimit=4\ndataDir={}\nclientPort={}\nclientPortAddress={}\n\
             admin.enableServer=false\n{servers}",
            data.display(),
            self.port,
            self.address
        );
        let file = self.dir.join("zoo.cfg");
        std::fs::write(&file, config).unwrap();
        self.server = Some(java(&file, &self.dir.join("zookeeper.log")));
    }

    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// GET of a path below `/exhibitor/v1/cluster/`, with a header: the status, and what was answered.
    pub fn exhibitor(&self, path: &str, header: &str) -> (u32, String) {
        let at = self.agent.address("exhibitor");
        let url = format!("http://{at}/exhibitor/v1/cluster/{path}");
        let output = Command::new("curl").args(["-s", "-w", "\n%{http_code}", "-H", header, &url]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.parse().unwrap(), body.to_owned())
    }

    /// Whether its list is said to be what was known last.
    pub fn is_stale(&self) -> bool {
        let url = format!("http://{}/exhibitor/v1/cluster/list", self.agent.address("exhibitor"));
        let output = Command::new("curl").args(["-si", &url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().to_lowercase().contains("\r\nwarning: 110 ")
    }

    pub fn status(&self) -> Vec<Value> {
        serde_json::from_str(&self.exhibitor("status", "x: y").1).unwrap_or_default()
    }

    /// What load balancers see.
    pub fn serving(&self) -> u32 {
        self.exhibitor("node/serving", "x: y").0
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

fn java(config: &Path, log: &Path) -> Child {
    let log = std::fs::File::create(log).unwrap();
    let mut java = Command::new("java");
    // It reads the control groups it is in, and some containers show it none that it understands.
    java.args(["-Xmx64m", "-XX:-UseContainerSupport", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    java.args(["-cp", "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar"]);
    java.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
    java.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("java is there: apt-get install zookeeper")
}

/// A `wharf zk-barrier` that runs.
pub struct Barrier(Child);

impl Barrier {
    pub fn is_open(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Its code and what it printed, once it ends, and when that was.
    pub fn ended(mut self) -> ((Option<i32>, String, String), Instant) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_open() {
            assert!(Instant::now() < deadline, "the barrier never opens");
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = Instant::now();
        (told(&self.0.wait_with_output().unwrap()), ended)
    }
}

#[track_caller]
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
