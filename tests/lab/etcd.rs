//! etcd as the tests see it: members' command lines, and a client that is `etcdctl`, so that what wharf wrote is read
//! by somebody else's program.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::process::{run, try_run};
use super::wait::{COMING_UP, within};

/// A client of one or more members.
#[derive(Clone, Debug)]
pub struct Etcd {
    endpoints: Vec<String>,
}

impl Etcd {
    /// A client of the members at these URLs.
    pub fn at(endpoints: Vec<String>) -> Self {
        Self { endpoints }
    }

    /// Their URLs.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Any etcdctl command.
    pub fn try_ctl(&self, argv: &[&str]) -> Result<String, String> {
        let endpoints = format!("--endpoints={}", self.endpoints.join(","));
        let common = ["env", "ETCDCTL_API=3", "etcdctl", &endpoints, "--command-timeout=5s"];
        try_run(&common.iter().chain(argv).copied().collect::<Vec<_>>())
    }

    /// The same for a command that must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ctl(&self, argv: &[&str]) -> String {
        self.try_ctl(argv).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Every key below a prefix, with its value.
    pub fn read(&self, prefix: &str) -> Vec<(String, String)> {
        let reply: Value = serde_json::from_str(&self.ctl(&["get", "--prefix", prefix, "-w", "json"])).expect("JSON");
        let none = vec![];
        let pairs = reply["kvs"].as_array().unwrap_or(&none);
        pairs.iter().map(|pair| (decoded(&pair["key"]), decoded(&pair["value"]))).collect()
    }

    /// The keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.read(prefix).into_iter().map(|(key, _)| key).collect()
    }

    /// The store's revision.
    pub fn revision(&self) -> i64 {
        let reply: Value = serde_json::from_str(&self.ctl(&["get", "any", "-w", "json"])).expect("JSON");
        reply["header"]["revision"].as_i64().expect("every reply has one")
    }

    /// Writes a key.
    pub fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", key, value]);
    }

    /// Deletes a key.
    pub fn delete(&self, key: &str) {
        self.ctl(&["del", key]);
    }

    /// Deletes everything and revokes every lease.
    pub fn empty(&self) {
        self.ctl(&["del", "", "--from-key"]);
        for lease in self.ctl(&["lease", "list"]).lines().filter(|line| line.len() == 16) {
            let _ = self.try_ctl(&["lease", "revoke", lease]);
        }
    }

    /// Whether every member is healthy.
    pub fn healthy(&self) -> Result<String, String> {
        self.try_ctl(&["endpoint", "health"])
    }

    /// Waits until it is.
    pub fn wait_healthy(&self) {
        within(COMING_UP, "every etcd member is healthy", || self.healthy());
    }

    /// Watches a prefix from now on; events are kept in a file of `dir`.
    pub fn watch(&self, dir: &Path, prefix: &str) -> Watch {
        let from = (self.revision() + 1).to_string();
        let path = dir.join(format!("watch-{from}.json"));
        let file = OpenOptions::new().create(true).append(true).open(&path).expect("the lab's folder can be written");
        let child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints.join(",")))
            .args(["watch", "--prefix", prefix, "--rev", &from, "-w", "json"])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(File::create("/dev/null").expect("there is one"))
            .spawn()
            .expect("etcdctl can be started");
        Watch { child, path }
    }
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Written, with its value.
    Put(String, String),
    /// Gone.
    Delete(String),
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    path: std::path::PathBuf,
}

impl Watch {
    /// All events so far, in order.
    pub fn events(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let replies = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        replies
            .flat_map(|reply| reply["Events"].as_array().cloned().unwrap_or_default())
            .map(|event| read_event(&event))
            .collect()
    }

    /// The keys that were deleted so far.
    pub fn deleted(&self) -> Vec<String> {
        let deleted = |event| if let Event::Delete(key) = event { Some(key) } else { None };
        self.events().into_iter().filter_map(deleted).collect()
    }

    /// Nothing was deleted so far.
    pub fn no_delete(&self) -> Result<(), String> {
        let deleted = self.deleted();
        if deleted.is_empty() { Ok(()) } else { Err(format!("deleted: {deleted:?}")) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_event(event: &Value) -> Event {
    let key = decoded(&event["kv"]["key"]);
    match event["type"].as_i64() {
        Some(1) => Event::Delete(key),
        _ => Event::Put(key, decoded(&event["kv"]["value"])),
    }
}

fn decoded(text: &Value) -> String {
    let bytes = STANDARD.decode(text.as_str().unwrap_or_default()).expect("etcdctl writes base64");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A member of the hosts' cluster.
pub(crate) fn member_argv(name: &str, dir: &Path, address: Ipv4Addr, peers: &[Ipv4Addr], lab: u32) -> Vec<String> {
    let cluster: Vec<String> = peers.iter().zip(1..).map(|(peer, n)| format!("h{n}=http://{peer}:2380")).collect();
    let mut argv = common_argv(name, &dir.join("etcd"), address, 2379, 2380);
    argv.push(format!("--initial-cluster={}", cluster.join(",")));
    argv.push(format!("--initial-cluster-token=wharf-lab-{lab}"));
    argv
}

/// A cluster of one.
pub(crate) fn lone_argv(dir: &Path, address: Ipv4Addr) -> Vec<String> {
    let mut argv = common_argv("lone", dir, address, 12379, 12380);
    argv.push(format!("--initial-cluster=lone=http://{address}:12380"));
    argv
}

/// etcd 3.4 refuses flags that it does not know, so only old ones are used.
fn common_argv(name: &str, data: &Path, address: Ipv4Addr, client: u16, peer: u16) -> Vec<String> {
    [
        "etcd".into(),
        format!("--name={name}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls=http://{address}:{client},http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://{address}:{client}"),
        format!("--listen-peer-urls=http://{address}:{peer}"),
        format!("--initial-advertise-peer-urls=http://{address}:{peer}"),
        "--initial-cluster-state=new".into(),
        "--logger=zap".into(),
        "--log-level=warn".into(),
    ]
    .into()
}

/// Debian's package on arm64 wants to be told that it may run there.
pub(crate) fn member_env() -> Vec<(String, String)> {
    let machine = run(&["uname", "-m"]);
    if machine.trim() == "aarch64" { vec![("ETCD_UNSUPPORTED_ARCH".into(), "arm64".into())] } else { vec![] }
}
